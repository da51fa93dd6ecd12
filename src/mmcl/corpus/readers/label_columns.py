"""Kinds of labels (scores, classes, emotions) that a foreign file may hold, by their values."""

from __future__ import annotations

import re
from itertools import pairwise
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
USUAL_CLASSES = 32  # more are rather scores, unless the field says that they are classes
NAMES_SHOWN = 4
# Begins as a number does: "8%", "0,5" and "1/5" are neither numbers nor names.
_LIKE_A_NUMBER = re.compile(r"[-+]?\.?\d[\d.,/\s]*%?")
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
            values = {name: _as_strings(labels) for name, labels in values.items()}
        if values:
            try:
                columns.append(_looked_at(field, values))
            except DatasetError as error:
                # Annotations say again in words what another field says.
                if field != "annotations" or not columns:
                    raise DatasetError(f"{path}, {error}") from None
    return columns


def _as_strings(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return numbers as strings, as those of other splits are; an unknown one is empty."""
    if labels.dtype.kind == "U":
        return labels
    return np.where(np.isnan(labels.astype(np.float64)), "", np.char.mod("%g", labels))


def _looked_at(field: str, values: dict[SplitName, NDArray[np.generic]]) -> LabelColumn:
    shapes = {labels.shape[1:] for labels in values.values()}
    if len(shapes) > 1:
        shown = ", ".join(f"{name} {list(v.shape)}" for name, v in values.items())
        raise DatasetError(
            f'field "{field}" has different shapes: {shown}.\n'
            f"  Expected the same kind of label in every split.\n  {LAYOUTS}"
        )
    column = LabelColumn(field, values, (), "")
    joined = column.joined
    if not joined.size:
        raise DatasetError(
            f'field "{field}" has shape {list(joined.shape)}: no label for any clip.\n'
            "  Expected one number or name per clip, one-hot rows, or 0 and 1 for every emotion.\n"
            f'  To leave the field out: --rename "{field}="\n  {LAYOUTS}'
        )
    if joined.dtype.kind == "U":
        return _of_names(column, joined)
    if joined.ndim == 1:
        return _of_numbers(column, joined)
    return _of_rows(column, joined)


def _of_names(column: LabelColumn, joined: NDArray[np.generic]) -> LabelColumn:
    """Look at names of classes.

    Raises:
        DatasetError: If some look like numbers, or differ only in capital letters.
    """
    if joined.ndim > 1:
        raise DatasetError(_several(column, joined))
    names = sorted(set(joined.tolist()) - {""})
    like_numbers = [name for name in names if _LIKE_A_NUMBER.fullmatch(name)]
    if like_numbers:
        raise DatasetError(_neither(column, names, like_numbers))
    for name, other in pairwise(sorted(names, key=str.lower)):
        if name.lower() == other.lower():
            raise DatasetError(
                f'field "{column.field}" holds "{name}" and "{other}", which would be two '
                "classes.\n  Expected every class to be spelt in one way. Spell them alike in "
                f"the file.\n  {LAYOUTS}"
            )
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    looks = f"{len(names)} names ({', '.join(names[:NAMES_SHOWN])}{more})"
    return column._replace(kinds=("classes",), looks=looks)


def _neither(column: LabelColumn, names: list[str], like_numbers: list[str]) -> str:
    """Describe labels that are neither all numbers nor all names."""
    others = [name for name in names if name not in like_numbers]
    unread = [name for name in like_numbers if not _is_number(name)]
    found = f'"{unread[0]}"' if unread else f'numbers such as "{like_numbers[0]}" and "{others[0]}"'
    return (
        f'field "{column.field}" holds {found}: neither numbers nor names of classes.\n'
        "  Expected numbers with a decimal point, or names; nothing where a label is unknown. "
        f"Correct them in the file.\n  {LAYOUTS}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_numbers(column: LabelColumn, joined: NDArray[np.generic]) -> LabelColumn:
    """Look at one number per clip: scores, or numbers of classes."""
    numbers = joined.astype(np.float64)
    known = numbers[np.isfinite(numbers)]
    is_class_field = column.field == "classification_labels"
    certain: tuple[TaskKind, ...] = ("classes",) if is_class_field else ("regression",)
    if not len(known):
        return column._replace(kinds=certain, looks="unknown in every clip")
    low, high = known.min(), known.max()
    if (known != np.floor(known)).any():
        # A fraction among class numbers is a fault, which the checks report.
        return column._replace(kinds=certain, looks=f"numbers {low:g}..{high:g}")
    looks = f"whole numbers {low:g}..{high:g}"
    num_values = len(np.unique(known))
    if num_values > MOST_CLASSES:
        return column._replace(kinds=("regression",), looks=looks)
    is_yes_or_no = low == 0 and high == 1
    # Scores are usually stored as floats; a field of scores says so by its name.
    counts = (joined.dtype.kind in "iu" and low >= 0) or is_yes_or_no
    is_open = column.field in ("labels", "label") and num_values <= USUAL_CLASSES
    are_classes = is_class_field or (is_open and counts)
    kinds: list[TaskKind] = ["classes", "regression"] if are_classes else ["regression", "classes"]
    if low >= 0 and high <= 1:
        kinds.append("emotions")
    reason = "" if is_class_field else f"they are {looks}"
    return column._replace(kinds=tuple(kinds), looks=looks, reason=reason)


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
        "  Keep one of them in the file, for example the first: labels[:, 0]; to leave "
        f'the field out: --rename "{field}="\n  {LAYOUTS}'
    )
