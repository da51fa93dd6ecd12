"""MMSA's pickles: MOSI, MOSEI, CH-SIMS and CH-SIMS v2, aligned and unaligned.

The common layout of :mod:`mmcl.corpus.readers.plain_dict`, with ``text_bert`` (token ids,
mask and segments, ``[clips, 3, steps]``), lengths of audio and vision in the unaligned
files, ``video$_$clip`` as ids, and labels per modality in CH-SIMS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.plain_dict import (
    KEPT_FIELDS,
    class_names,
    read_field_splits,
    read_plain_split,
)
from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    SourceFile,
    SourceSplit,
    as_numbers,
    as_texts,
    named_splits,
)
from mmcl.errors import DatasetError
from mmcl.types import Modality, SplitName

__all__ = ["is_mmsa", "read_mmsa", "split_ids"]

ID_SEPARATOR = "$_$"
TOKEN_ROWS, MASK_ROW = 3, 1
MODALITY_LABELS: Mapping[str, Modality] = {
    "regression_labels_T": "text",
    "regression_labels_A": "audio",
    "regression_labels_V": "vision",
}
_KEPT_FIELDS = KEPT_FIELDS | set(MODALITY_LABELS) | {"text_bert"}


def is_mmsa(content: Mapping[Any, Any]) -> bool:
    """Tell whether a dict of splits is MMSA's: it has ``text_bert``, its labels or its ids."""
    for _, fields in named_splits(content):
        if "text_bert" in fields or any(key in fields for key in MODALITY_LABELS):
            return True
        ids = fields.get("id")
        if ids is not None and len(ids) and ID_SEPARATOR in str(ids[0]):
            return True
    return False


def read_mmsa(content: Mapping[Any, Any]) -> SourceFile:
    """Read a dict of splits in MMSA's layout."""
    source = read_field_splits("mmsa", content, _read_split, _KEPT_FIELDS)
    source.names = class_names(content)
    return source


def _read_split(name: SplitName, fields: Mapping[str, Any]) -> SourceSplit:
    where = f'split "{name}"'
    split = read_plain_split(name, {key: value for key, value in fields.items() if key != "id"})
    for key, modality in MODALITY_LABELS.items():
        if fields.get(key) is not None:
            split.modality_labels[modality] = as_numbers(fields[key], f"{where}: {key}")
    if fields.get("text_bert") is not None and "text" in split.features:
        split.step_masks["text"] = _text_mask(fields["text_bert"], where)
    if fields.get("id") is not None:
        split.ids, split.video_ids, split.clip_ids = split_ids(fields["id"])
    return split


def _text_mask(tokens: Any, where: str) -> NDArray[np.bool_]:
    tokens = np.asarray(tokens)
    if tokens.ndim != 3 or tokens.shape[1] != TOKEN_ROWS:
        raise DatasetError(
            f"{where}: text_bert has shape {list(tokens.shape)}.\n"
            f"  Expected [clips, {TOKEN_ROWS}, steps]: token ids, mask and segments.\n  {LAYOUTS}"
        )
    mask: NDArray[np.bool_] = tokens[:, MASK_ROW] != 0
    return mask


def split_ids(ids: Any) -> tuple[list[str], list[str] | None, list[str] | None]:
    """Return clip ids, and the recording and clip that each of them names.

    Args:
        ids: A list or array of ``video$_$clip``, or an array ``[clips, parts]`` whose first
            part is the recording.

    Returns:
        Ids, recordings and clips; the latter two are None where an id does not name them.

    Example:
        >>> split_ids(["03bSnISJMiM$_$11"])
        (['03bSnISJMiM$_$11'], ['03bSnISJMiM'], ['11'])
    """
    rows = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if rows and all(isinstance(row, list | tuple) for row in rows):
        parts = [as_texts(row) for row in rows]
        videos = [part[0] for part in parts]
        names = ["_".join(part[1:]) for part in parts]
        joined = [f"{v}{ID_SEPARATOR}{n}" if n else v for v, n in zip(videos, names, strict=True)]
        return joined, videos, names
    texts = as_texts(rows)
    if not texts or not all(ID_SEPARATOR in text for text in texts):
        return texts, None, None
    halves = [text.split(ID_SEPARATOR, 1) for text in texts]
    return texts, [half[0] for half in halves], [half[1] for half in halves]
