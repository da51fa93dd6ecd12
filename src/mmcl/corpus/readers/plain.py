"""The field's common layout: ``{split: {field: array or list}}``.

Fields: ``text``, ``audio``, ``vision`` (``[clips, steps, d]``, or ``[clips, d]`` for one
step per clip), ``regression_labels``, ``classification_labels``, and where they exist
``id``, ``raw_text``, ``annotations`` (class names), ``<modality>_lengths`` and
``<modality>_present``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmcl.corpus.readers.foreign import (
    Foreign,
    ForeignSplit,
    as_numbers,
    as_texts,
    features_of,
    named_splits,
)
from mmcl.types import MODALITIES, SplitName, TaskKind

__all__ = ["KEPT_FIELDS", "class_names", "ignored_fields", "read_plain", "split_of_fields"]

KEPT_FIELDS = frozenset(
    (
        *MODALITIES,
        *(f"{m}_lengths" for m in MODALITIES),
        *(f"{m}_present" for m in MODALITIES),
        "id",
        "raw_text",
        "annotations",
        "regression_labels",
        "classification_labels",
    )
)
_LABEL_FIELDS: Mapping[TaskKind, str] = {
    "regression": "regression_labels",
    "classes": "classification_labels",
}


def read_plain(content: Mapping[Any, Any]) -> Foreign:
    """Read a dict of splits, each a dict of fields."""
    found = named_splits(content)
    return Foreign(
        layout="plain",
        splits=[split_of_fields(name, fields) for name, fields in found],
        names=class_names(fields for _, fields in found),
        ignored=ignored_fields(found, KEPT_FIELDS),
    )


def split_of_fields(name: SplitName, fields: Mapping[str, Any]) -> ForeignSplit:
    """One split from its fields."""
    where = f'split "{name}"'
    split = ForeignSplit(name=name, features=features_of(fields, where))
    for kind, key in _LABEL_FIELDS.items():
        if fields.get(key) is not None:
            split.labels[kind] = as_numbers(fields[key], f"{where}: {key}")
    for modality in MODALITIES:
        lengths = fields.get(f"{modality}_lengths")
        if lengths is not None:
            numbers = as_numbers(lengths, f"{where}: {modality}_lengths")
            split.lengths[modality] = np.nan_to_num(numbers, nan=-1.0).astype(np.int64)
        present = fields.get(f"{modality}_present")
        if present is not None:
            numbers = as_numbers(present, f"{where}: {modality}_present")
            split.present[modality] = numbers != 0
    if fields.get("id") is not None:
        split.ids = as_texts(fields["id"])
    if fields.get("raw_text") is not None:
        split.texts = [text or None for text in as_texts(fields["raw_text"])]
    return split


def class_names(fields_of_splits: Iterable[Mapping[str, Any]]) -> dict[TaskKind, tuple[str, ...]]:
    """Names of the classes where every class number goes with one annotation and back."""
    pairs: set[tuple[int, str]] = set()
    for fields in fields_of_splits:
        labels, words = fields.get("classification_labels"), fields.get("annotations")
        if labels is None or words is None or len(labels) != len(words):
            return {}
        numbers = as_numbers(labels, "classification_labels")
        if not np.isfinite(numbers).all():
            return {}
        pairs |= set(zip(numbers.astype(int).tolist(), as_texts(words), strict=True))
    ordered = sorted(pairs)
    if [number for number, _ in ordered] != list(range(len({word for _, word in ordered}))):
        return {}
    return {"classes": tuple(word for _, word in ordered)} if len(ordered) > 1 else {}


def ignored_fields(
    found: Iterable[tuple[SplitName, Mapping[str, Any]]], kept: frozenset[str]
) -> tuple[str, ...]:
    """Fields that a split has and the reader does not keep."""
    return tuple(sorted({str(key) for _, fields in found for key in fields if key not in kept}))
