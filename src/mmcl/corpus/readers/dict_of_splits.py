"""Dicts of splits, each a dict of fields: the common layout, MMSA's, MulT's, and npz files.

Fields, which every layout has in part (:data:`FIELDS`):

- ``text``, ``audio``, ``vision``: ``[clips, steps, d]``, or ``[clips, d]`` for one step per clip
- ``<modality>_lengths``, ``<modality>_present``: real steps, and 0 where it is absent, ``[clips]``
- ``text_bert`` (MMSA): token ids, mask and segments, ``[clips, 3, steps]``
- ``regression_labels``, ``classification_labels``, ``annotations`` (class names): ``[clips]``
- ``regression_labels_T``, ``_A``, ``_V`` (CH-SIMS): scores of single modalities, ``[clips]``
- ``labels``: MulT's scores ``[clips, 1, 1]``, or IEMOCAP's one-hot pairs (no, yes)
  ``[clips, 4, 2]``; in npz files scores, classes or 0/1 for every emotion
- ``id``: names, MMSA's ``video$_$clip``, or MulT's rows of (video, start, end)
- ``raw_text``: the spoken text
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    SourceFile,
    SourceSplit,
    as_features,
    as_labels,
    as_numbers,
    as_texts,
)
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, Modality, SplitName, TaskKind

__all__ = ["FIELDS", "DictLayout", "read_dict_of_splits", "recognise_dict_of_splits", "split_ids"]

DictLayout = Literal["plain", "mmsa", "mult", "npz"]
ID_SEPARATOR = "$_$"
TOKEN_ROWS, MASK_ROW = 3, 1
IEMOCAP_EMOTIONS = ("neutral", "happy", "sad", "angry")
MODALITY_LABELS: Mapping[str, Modality] = {
    "regression_labels_T": "text",
    "regression_labels_A": "audio",
    "regression_labels_V": "vision",
}
_LABEL_FIELDS: Mapping[TaskKind, str] = {
    "regression": "regression_labels",
    "classes": "classification_labels",
}
_PLAIN = frozenset(f"{m}{ending}" for m in MODALITIES for ending in ("", "_lengths", "_present"))
_PLAIN |= {"id", "raw_text", "annotations", *_LABEL_FIELDS.values()}
FIELDS: Mapping[DictLayout, frozenset[str]] = {
    "plain": _PLAIN,
    "mmsa": _PLAIN | {"text_bert", *MODALITY_LABELS},
    "mult": frozenset((*MODALITIES, "labels", "id")),
    "npz": _PLAIN - {"annotations"} | {"labels"},
}
"""Fields that are read, by layout; the others are ignored and named in a note."""


def recognise_dict_of_splits(splits: Mapping[SplitName, Mapping[str, Any]]) -> DictLayout | None:
    """Recognise the layout of a pickled dict from the fields of its splits; None if unknown."""
    if any("labels" in fields for fields in splits.values()):
        return "mult"
    if not any(modality in fields for fields in splits.values() for modality in MODALITIES):
        return None
    for fields in splits.values():
        ids = fields.get("id")
        has_mmsa_ids = ids is not None and len(ids) and ID_SEPARATOR in str(ids[0])
        if has_mmsa_ids or any(key in fields for key in ("text_bert", *MODALITY_LABELS)):
            return "mmsa"
    return "plain"


def read_dict_of_splits(
    splits: Mapping[SplitName, Mapping[str, Any]], layout: DictLayout
) -> SourceFile:
    """Read a dict of splits; fields that the layout does not have are ignored."""
    source = SourceFile(layout, [_read_split(*split, layout) for split in splits.items()])
    keys = {str(key) for fields in splits.values() for key in fields}
    source.ignored = tuple(sorted(keys - FIELDS[layout]))
    if "annotations" in FIELDS[layout]:
        source.names = _class_names(splits.values())
    emotions = [s.labels["emotions"] for s in source.splits if "emotions" in s.labels]
    if layout == "mult" and {e.shape[1] for e in emotions} == {len(IEMOCAP_EMOTIONS)}:
        source.names = {"emotions": IEMOCAP_EMOTIONS}
    return source


def _read_split(name: SplitName, all_fields: Mapping[str, Any], layout: DictLayout) -> SourceSplit:
    where = f'split "{name}"'
    fields = {key: v for key, v in all_fields.items() if key in FIELDS[layout] and v is not None}
    features = {m: all_fields[m] for m in MODALITIES if m in all_fields}
    split = SourceSplit(name, {m: as_features(v, f"{where}: {m}") for m, v in features.items()})

    def numbers(key: str) -> NDArray[np.float64]:
        return as_numbers(fields[key], f"{where}: {key}")

    split.labels = {kind: numbers(key) for kind, key in _LABEL_FIELDS.items() if key in fields}
    if "labels" in fields:
        # Only npz files say by their type whether numbers are classes.
        is_whole = layout == "npz" and fields["labels"].dtype.kind in "iub"
        number_kind: TaskKind = "classes" if is_whole else "regression"
        split.labels |= as_labels(fields["labels"], f"{where}: labels", number_kind)
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
    if "id" in fields and layout in ("mmsa", "mult"):
        split.ids, split.video_ids, split.clip_ids = split_ids(fields["id"])
    elif "id" in fields:
        split.ids = as_texts(fields["id"])
    if "raw_text" in fields:
        split.texts = [text or None for text in as_texts(fields["raw_text"])]
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


def _class_names(splits: Iterable[Mapping[str, Any]]) -> dict[TaskKind, tuple[str, ...]]:
    """Name the classes after the annotations, if the two correspond one to one."""
    pairs: set[tuple[int, str]] = set()
    for fields in splits:
        labels, annotations = fields.get("classification_labels"), fields.get("annotations")
        if labels is None or annotations is None or len(labels) != len(annotations):
            return {}
        numbers = as_numbers(labels, "classification_labels")
        if not np.isfinite(numbers).all():
            return {}
        pairs |= set(zip(numbers.astype(int).tolist(), as_texts(annotations), strict=True))
    names = tuple(name for _, name in sorted(pairs))
    is_one_to_one = sorted(number for number, _ in pairs) == list(range(len(set(names))))
    return {"classes": names} if is_one_to_one and len(names) > 1 else {}


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
