"""Dicts of splits, each a dict of fields: the common layout, MMSA's, MulT's, tables and npz files.

Fields, which every layout has in part (:data:`FIELDS`):

- ``text``, ``audio``, ``vision``: ``[clips, steps, d]``, or ``[clips, d]`` for one step per clip
- ``<modality>_lengths``, ``<modality>_present``: real steps, and 0 where it is absent, ``[clips]``
- ``text_bert`` (MMSA): token ids, mask and segments, ``[clips, 3, steps]``
- ``regression_labels``, ``classification_labels``, ``labels`` or ``label``, ``annotations``
  (class names): as :mod:`~mmcl.corpus.readers.choose_task` takes them
- ``regression_labels_T``, ``_A``, ``_V`` (CH-SIMS): scores of single modalities, ``[clips]``
- ``id`` or ``ids``: names, MMSA's ``video$_$clip``, or MulT's rows of (video, start, end)
- ``video_id``, ``clip_id``: the recording, and the name of the clip in it
- ``raw_text``: the spoken text; ``speaker``: who says it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    LeftOut,
    SourceFile,
    SourceSplit,
    as_features,
    as_label_array,
    as_numbers,
    as_texts,
    is_unlabelled,
)
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, Modality, SplitName

__all__ = ["FIELDS", "LABEL_FIELDS", "DictLayout", "is_split", "layout_of", "read_dict_of_splits"]
__all__ += ["split_ids"]

DictLayout = Literal["plain", "mmsa", "mult", "npz", "table", "arrays"]
ID_SEPARATOR = "$_$"
TOKEN_ROWS, MASK_ROW = 3, 1
MODALITY_LABELS: Mapping[str, Modality] = {
    "regression_labels_T": "text",
    "regression_labels_A": "audio",
    "regression_labels_V": "vision",
}
LABEL_FIELDS = ("regression_labels", "classification_labels", "labels", "label", "annotations")
"""Fields that can hold what is to be predicted."""
FIELDS = frozenset(
    (
        *(f"{m}{ending}" for m in MODALITIES for ending in ("", "_lengths", "_present")),
        *("id", "ids", "video_id", "clip_id", "raw_text", "speaker", "text_bert"),
        *(*LABEL_FIELDS, *MODALITY_LABELS),
    )
)
"""Fields that are read."""


def is_split(value: Any) -> bool:
    """Tell whether a value is a dict of fields, of which one at least is read."""
    return isinstance(value, Mapping) and any(str(key) in FIELDS for key in value)


def layout_of(splits: Mapping[SplitName, Mapping[str, Any]]) -> DictLayout:
    """Return the layout of a pickled dict of splits, by its fields."""
    for fields in splits.values():
        ids = fields.get("id")
        has_mmsa_ids = ids is not None and len(ids) and ID_SEPARATOR in str(ids[0])
        if has_mmsa_ids or any(key in fields for key in ("text_bert", *MODALITY_LABELS)):
            return "mmsa"
    return "mult" if any("labels" in fields for fields in splits.values()) else "plain"


def read_dict_of_splits(
    splits: Mapping[SplitName, Mapping[str, Any]], layout: DictLayout
) -> SourceFile:
    """Read a dict of splits; fields that are unknown are left out and listed."""
    source = SourceFile(layout, [_read_split(*split) for split in splits.items()])
    if layout == "table":  # an empty cell of numbers is NaN
        for split in source.splits:
            numbers = {key: v for key, v in split.labels.items() if v.dtype.kind == "f"}
            split.unlabelled |= {
                key: np.isnan(v.reshape(len(v), -1)).all(axis=1) for key, v in numbers.items()
            }
    keys = {str(key): value for fields in splits.values() for key, value in fields.items()}
    source.fields = tuple(sorted(keys.keys() & FIELDS))
    source.left_out = [
        LeftOut(f"field {key}, which is not read") for key in sorted(keys.keys() - FIELDS)
    ]
    if "text_bert" in keys and "text" not in keys:
        what = "text_bert, which holds token ids: there are no vectors of words"
        source.fields = tuple(field for field in source.fields if field != "text_bert")
        source.left_out.append(LeftOut(what))
        source.notes.append(
            "text: absent, since text_bert holds token ids and no vectors; "
            'expected vectors of words as a field "text", [clips, steps, width]'
        )
    return source


def _read_split(name: SplitName, all_fields: Mapping[str, Any]) -> SourceSplit:
    where = f'split "{name}"'
    fields = {str(key): value for key, value in all_fields.items() if value is not None}
    features = {m: fields[m] for m in MODALITIES if m in fields}
    split = SourceSplit(name, {m: as_features(v, f"{where}: {m}") for m, v in features.items()})

    def numbers(key: str) -> NDArray[np.float64]:
        return as_numbers(fields[key], f"{where}: {key}")

    split.labels = {
        key: as_label_array(fields[key], f"{where}: {key}") for key in LABEL_FIELDS if key in fields
    }
    split.unlabelled = {key: is_unlabelled(fields[key]) for key in split.labels}
    split.modality_labels = {m: numbers(key) for key, m in MODALITY_LABELS.items() if key in fields}
    for modality in MODALITIES:
        if f"{modality}_lengths" in fields:
            # A length of NaN becomes -1, which the checks report.
            lengths = np.nan_to_num(numbers(f"{modality}_lengths"), nan=-1.0)
            split.lengths[modality] = lengths.astype(np.int64)
        if f"{modality}_present" in fields:
            split.present[modality] = numbers(f"{modality}_present") != 0
    if "text_bert" in fields and "text" in split.features:
        split.step_masks["text"] = _text_mask(fields["text_bert"], where)
    ids = fields.get("id", fields.get("ids"))
    if ids is not None:
        split.ids, split.video_ids, split.clip_ids = split_ids(ids)
    if "video_id" in fields:
        split.video_ids = as_texts(fields["video_id"])
    if "clip_id" in fields:
        split.clip_ids = as_texts(fields["clip_id"])
    if "raw_text" in fields:
        split.texts = [text or None for text in as_texts(fields["raw_text"])]
    if "speaker" in fields:
        split.speakers = [text or None for text in as_texts(fields["speaker"])]
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
    """Return ids, recordings and clips; the latter two are None where an id does not name them.

    The ids are ``video$_$clip``, or an array ``[clips, parts]`` whose first part is the recording.
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
