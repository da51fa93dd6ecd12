"""The field's common layout, a dict of splits: ``{split: {field: array or list}}``.

Fields: ``text``, ``audio``, ``vision`` (``[clips, steps, d]``, or ``[clips, d]`` for one
step per clip), ``regression_labels``, ``classification_labels``, and where they exist
``id``, ``raw_text``, ``annotations`` (class names), ``<modality>_lengths`` and
``<modality>_present``. MMSA, MulT and npz files are variations of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcl.corpus.readers.source_file import (
    SourceFile,
    SourceSplit,
    as_numbers,
    as_texts,
    features_of,
    named_splits,
)
from mmcl.types import MODALITIES, SplitName, TaskKind

__all__ = ["KEPT_FIELDS", "class_names", "read_field_splits", "read_plain", "read_plain_split"]

_LABEL_FIELDS: Mapping[TaskKind, str] = {
    "regression": "regression_labels",
    "classes": "classification_labels",
}
KEPT_FIELDS = frozenset(
    (
        *(f"{m}{ending}" for m in MODALITIES for ending in ("", "_lengths", "_present")),
        *("id", "raw_text", "annotations", *_LABEL_FIELDS.values()),
    )
)


def read_plain(content: Mapping[Any, Any]) -> SourceFile:
    """Read a dict of splits in the common layout."""
    source = read_field_splits("plain", content, read_plain_split, KEPT_FIELDS)
    source.names = class_names(content)
    return source


def read_field_splits(
    layout: str,
    content: Mapping[Any, Any],
    read_split: Callable[[SplitName, Mapping[str, Any]], SourceSplit],
    kept_fields: frozenset[str],
) -> SourceFile:
    """Read a dict of splits, each a dict of fields, with a layout's own function for a split."""
    splits = named_splits(content)
    ignored = {str(key) for _, fields in splits for key in fields if key not in kept_fields}
    return SourceFile(
        layout, [read_split(*split) for split in splits], ignored=tuple(sorted(ignored))
    )


def read_plain_split(name: SplitName, fields: Mapping[str, Any]) -> SourceSplit:
    """Read one split of the common layout."""
    where = f'split "{name}"'
    split = SourceSplit(name=name, features=features_of(fields, where))
    for kind, key in _LABEL_FIELDS.items():
        if fields.get(key) is not None:
            split.labels[kind] = as_numbers(fields[key], f"{where}: {key}")
    for modality in MODALITIES:
        lengths, present = f"{modality}_lengths", f"{modality}_present"
        if fields.get(lengths) is not None:
            numbers = as_numbers(fields[lengths], f"{where}: {lengths}")
            split.lengths[modality] = np.nan_to_num(numbers, nan=-1.0).astype(np.int64)
        if fields.get(present) is not None:
            split.present[modality] = as_numbers(fields[present], f"{where}: {present}") != 0
    if fields.get("id") is not None:
        split.ids = as_texts(fields["id"])
    if fields.get("raw_text") is not None:
        split.texts = [text or None for text in as_texts(fields["raw_text"])]
    return split


def class_names(content: Mapping[Any, Any]) -> dict[TaskKind, tuple[str, ...]]:
    """Name the classes, if every class number has one annotation and every annotation one number.

    Returns:
        Names for the task ``classes``; empty where the annotations do not name the classes.
    """
    pairs: set[tuple[int, str]] = set()
    for _, fields in named_splits(content):
        labels, annotations = fields.get("classification_labels"), fields.get("annotations")
        if labels is None or annotations is None or len(labels) != len(annotations):
            return {}
        numbers = as_numbers(labels, "classification_labels")
        if not np.isfinite(numbers).all():
            return {}
        pairs |= set(zip(numbers.astype(int).tolist(), as_texts(annotations), strict=True))
    ordered = sorted(pairs)
    names = tuple(name for _, name in ordered)
    if [number for number, _ in ordered] != list(range(len(set(names)))):
        return {}
    return {"classes": names} if len(names) > 1 else {}
