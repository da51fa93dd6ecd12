"""What the labels of a foreign file can be, decided by looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.dict_of_splits import LABEL_FIELDS
from mmcl.corpus.readers.source_file import LAYOUTS, SourceFile
from mmcl.errors import DatasetError
from mmcl.types import SplitName, TaskKind

__all__ = ["LabelColumn", "label_columns"]

MOST_CLASSES = 100  # more different whole numbers are scores
NAMES_SHOWN = 4
# Share of rows of 0 and 1 from which on the rows are judgements, and the others faults.
MOSTLY = 0.9


class LabelColumn(NamedTuple):
    """One field of labels.

    Attributes:
        field: Its name in the file.
        values: Labels as found, by split.
        kinds: What they can be; the likeliest first.
        looks: How they look, for messages.
        reason: Why the first kind could be wrong, a phrase; empty where it is certain.
    """

    field: str
    values: dict[SplitName, NDArray[np.generic]]
    kinds: tuple[TaskKind, ...]
    looks: str
    reason: str = ""

    @property
    def joined(self) -> NDArray[np.generic]:
        """Labels of all splits."""
        return np.concatenate(list(self.values.values()))


def label_columns(source: SourceFile, path: Path) -> list[LabelColumn]:
    """Look at every field of labels of a file.

    Args:
        source: The file.
        path: Its path, for messages.

    Raises:
        DatasetError: If one holds several scores per clip, or differs between the splits.
    """
    columns = []
    for field in LABEL_FIELDS:
        values = {s.name: s.labels[field] for s in source.splits if field in s.labels}
        values = {name: labels for name, labels in values.items() if len(labels)}
        if any(labels.dtype.kind == "U" for labels in values.values()):
            # A split without labels shows no type: it follows the others.
            unknown = {
                s.name for s in source.splits if field in s.labels and s.unlabelled[field].all()
            }
            values |= {n: np.full(v.shape, "") for n, v in values.items() if n in unknown}
        if values:
            try:
                columns.append(_looked_at(field, values))
            except DatasetError as error:
                raise DatasetError(f"{path}, {error}") from None
    return columns


def _looked_at(field: str, values: dict[SplitName, NDArray[np.generic]]) -> LabelColumn:
    shapes = {labels.shape[1:] for labels in values.values()}
    if len(shapes) > 1 or len({labels.dtype.kind == "U" for labels in values.values()}) > 1:
        shown = ", ".join(f"{name} {v.dtype.name} {list(v.shape)}" for name, v in values.items())
        raise DatasetError(
            f'field "{field}" is of different kinds: {shown}.\n'
            f"  Expected the same kind of label in every split.\n  {LAYOUTS}"
        )
    column = LabelColumn(field, values, (), "")
    joined = column.joined
    if joined.dtype.kind == "U":
        return _of_names(column, joined)
    if joined.ndim == 1:
        return _of_numbers(column, joined)
    return _of_rows(column, joined)


def _of_names(column: LabelColumn, joined: NDArray[np.generic]) -> LabelColumn:
    if joined.ndim > 1:
        raise DatasetError(_several(column, joined))
    names = sorted(set(joined.tolist()) - {""})
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    looks = f"{len(names)} names ({', '.join(names[:NAMES_SHOWN])}{more})"
    return column._replace(kinds=("classes",), looks=looks)


def _of_numbers(column: LabelColumn, joined: NDArray[np.generic]) -> LabelColumn:
    numbers = joined.astype(np.float64)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        kind: TaskKind = "classes" if column.field == "classification_labels" else "regression"
        return column._replace(kinds=(kind,), looks="unknown in every clip")
    low, high = known.min(), known.max()
    if (known != np.floor(known)).any():
        # A fraction among class numbers is a fault, which the checks report.
        is_class = column.field == "classification_labels"
        return column._replace(
            kinds=("classes",) if is_class else ("regression",),
            looks=f"numbers {low:g}..{high:g}",
        )
    looks = f"whole numbers {low:g}..{high:g}"
    if len(np.unique(known)) > MOST_CLASSES:
        return column._replace(kinds=("regression",), looks=looks)
    is_class = column.field == "classification_labels" or (
        column.field in ("labels", "label") and joined.dtype.kind in "iu" and low >= 0
    )
    kinds: tuple[TaskKind, ...] = (
        ("classes", "regression")
        if is_class
        else (
            "regression",
            "classes",
        )
    )
    if low >= 0 and high <= 1:
        kinds = (*kinds, "emotions")
    is_named = column.field == "classification_labels"
    return column._replace(kinds=kinds, looks=looks, reason="" if is_named else f"they are {looks}")


def _of_rows(column: LabelColumn, joined: NDArray[np.generic]) -> LabelColumn:
    """Look at several numbers per clip: one-hot rows, judgements, or pairs (no, yes) of them."""
    shape = list(joined.shape[1:])
    if joined.ndim == 3 and shape[1] == 2:
        return column._replace(kinds=("emotions",), looks=f"{shape[0]} pairs of no and yes")
    numbers = joined.astype(np.float64)
    is_binary = np.isin(numbers, (0.0, 1.0))
    if joined.ndim > 2 or is_binary.all(axis=1).mean() < MOSTLY:
        raise DatasetError(_several(column, numbers))
    complete = numbers[is_binary.all(axis=1)]
    if (complete.sum(axis=1) == 1).all():
        reason = f"every row of {shape[0]} has a single 1"
        looks = f"one-hot rows of {shape[0]}"
        return column._replace(kinds=("classes", "emotions"), looks=looks, reason=reason)
    return column._replace(kinds=("emotions",), looks=f"{shape[0]} judgements of 0 or 1")


def _several(column: LabelColumn, joined: NDArray[np.generic]) -> str:
    field, shape = column.field, list(joined.shape)
    held = (
        "strings" if joined.dtype.kind == "U" else f"{np.nanmin(joined):g}..{np.nanmax(joined):g}"
    )
    return (
        f'field "{field}" has shape {shape} and holds {held}: several labels per clip.\n'
        "  Expected one number or name per clip, one-hot rows, or 0 and 1 for every emotion.\n"
        f"  Keep one of them in the file, for example the first: labels[:, 0]\n  {LAYOUTS}"
    )
