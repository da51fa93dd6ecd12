"""Decide by looking what the labels of a ``label.csv`` are, and read them as numbers.

What is not certain is refused or noted, with the option that settles it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE
from mmcl.errors import MediaError
from mmcl.media.folders.label_table import LABELS

__all__ = ["UNKNOWN", "Kind", "decimal_comma_note", "find_task"]
__all__ += ["may_be_classes", "read_score"]

MOST_CLASSES = 20
UNKNOWN = ("nan", "na", "n/a", "null", "#n/a", "#name?", "#value!", "#ref!")
"""Marks of programs for a value that is not known, in small letters; such cells are refused."""

FEW_OUTSIDE, SHARE_OUTSIDE = 2, 0.1  # labels outside the range that may be slips of single rows
_SHOWN = 3  # values named in a message
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_POINT = re.compile(r"[+-]?\d*\.\d+", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)

Kind = Literal["regression", "classes"] | None
"""Kind of the labels; None if the user has not said it, which is regression."""


def read_score(text: str) -> float | None:
    """Read a number with a decimal point, or with a comma (columns were checked for it).

    Example:
        >>> read_score("1,5"), read_score("-.5"), read_score("1,5,2")
        (1.5, -0.5, None)
    """
    plain = text.replace("\N{MINUS SIGN}", "-")
    if _COMMA.fullmatch(plain):
        plain = plain.replace(",", ".")
    return float(plain) if _NUMBER.fullmatch(plain) else None


def decimal_comma_note(column: str, cells: Mapping[str, str]) -> str | None:
    """Return a note if a column of scores has decimal commas, which must be certain.

    Args:
        column: Its name.
        cells: Its cells by their place.

    Raises:
        MediaError: If other cells have decimal points, or if all commas may be those of
            thousands.
    """
    plain = {place: cell.replace("\N{MINUS SIGN}", "-") for place, cell in cells.items()}
    commas = [place for place, cell in plain.items() if _COMMA.fullmatch(cell)]
    points = [place for place, cell in plain.items() if _POINT.fullmatch(cell)]
    if not commas:
        return None
    first = commas[0]
    if points:
        raise MediaError(
            f'"{LABELS}": column "{column}" has both decimal commas and decimal points: '
            f'"{cells[first]}" ({first}) and "{cells[points[0]]}" ({points[0]}).\n'
            "  Expected one of them. Write every score with a point, as 1.5."
        )
    if all(_THOUSANDS.fullmatch(plain[place]) for place in commas):
        whole, shown = plain[first].replace(",", ""), plain[first].replace(",", ".")
        raise MediaError(
            f'"{LABELS}": column "{column}" holds "{cells[first]}" ({first}), which may be '
            f"{shown} or {whole}.\n"
            "  Write every score with a decimal point and without commas between thousands."
        )
    return (
        f'column "{column}" has decimal commas: "{cells[first]}" is read as '
        f"{plain[first].replace(',', '.')}"
    )


def find_task(
    labels: Sequence[str], kind: Kind, label_range: tuple[float, float] | None
) -> tuple[Task, list[str]]:
    """Return what is to be predicted, and notes on what was guessed.

    Args:
        labels: The labels that are given; empty ones are left out.
        kind: What the user said they are.
        label_range: Lowest and highest score, if the user said them.

    Raises:
        MediaError: If they cannot be what was said, or what is the default.
    """
    if kind == "classes":
        return _classes(labels)
    labels = [label for label in labels if label.lower() not in UNKNOWN]
    numbers = [number for text in labels if (number := read_score(text)) is not None]
    if 2 * len(numbers) < len(labels):
        raise MediaError(_no_scores_text(labels))
    low, high = label_range or FIELD_RANGE
    task = Task(kind="regression", low=low, high=high)
    if label_range is not None or not numbers:
        return task, []
    _check_range(numbers, kind)
    note = _range_note(numbers, kind)
    return task, [note] if note else []


def _classes(labels: Sequence[str]) -> tuple[Task, list[str]]:
    classes = {label for label in labels if label.lower() not in UNKNOWN}
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise MediaError(
            f'"{LABELS}": column "label" holds {len(classes)} different values; '
            f"classes are 2 to {MOST_CLASSES}.\n  For scores: --task regression"
        )
    _check_spellings(classes)
    # Numbers first, by value; then names, by the alphabet.
    numbers = {name: read_score(name) for name in classes}
    names = sorted(classes, key=lambda name: (numbers[name] is None, numbers[name] or 0.0, name))
    fractions = [name for name in names if (numbers[name] or 0.0) % 1]
    if not fractions:
        return Task(kind="classes", names=tuple(names)), []
    note = (
        f'labels such as "{fractions[0]}" look like scores and are read as {len(names)} classes '
        "(for scores: --task regression)"
    )
    return Task(kind="classes", names=tuple(names)), [note]


def _check_spellings(classes: set[str]) -> None:
    """Raise a MediaError if two classes differ only in case, or are the same number."""
    spellings: dict[str | float, str] = {}
    for name in sorted(classes):
        number = read_score(name)
        other = spellings.setdefault(name.casefold() if number is None else number, name)
        if other != name:
            raise MediaError(
                f'"{LABELS}": the classes "{other}" and "{name}" are one class in two spellings.\n'
                "  Expected one spelling per class. Write it the same way in every row."
            )


def _no_scores_text(labels: Sequence[str]) -> str:
    others = Counter(label for label in labels if read_score(label) is None)
    shown = ", ".join(f'"{label}" ({count})' for label, count in others.most_common(_SHOWN))
    more = f" and {len(others) - _SHOWN} other values" if len(others) > _SHOWN else ""
    first = f'"{LABELS}": column "label" holds no scores, but {shown}{more}.\n'
    # Digits suggest scores in a form that cannot be read, not names of classes.
    if any(character.isdigit() for label in others for character in label):
        return first + "  Expected scores as 1.5, or classes: --task classes"
    return first + "  For classes: --task classes. For scores, write them as 1.5."


def _check_range(numbers: Sequence[float], kind: Kind) -> None:
    """Raise a MediaError if so many labels lie outside -3..3 that their scale is another."""
    low, high = FIELD_RANGE
    outside = sum(not low <= number <= high for number in numbers)
    is_many = outside > FEW_OUTSIDE and outside > SHARE_OUTSIDE * len(numbers)
    # Where nothing is negative, the scale is another one: 1 to 5, for example.
    is_other = outside > 1 and min(numbers) >= 0
    if not is_many and not is_other and 2 * outside <= len(numbers):
        return
    ways = "  For scores, give the ends of their scale: --label-range LOW HIGH"
    if may_be_classes(numbers, kind):
        ways += "\n  For classes: --task classes"
    raise MediaError(
        f'"{LABELS}": {outside} of {len(numbers)} labels lie outside {low:g}..{high:g}, the '
        f"range unless another is given. They are {_described(numbers)}.\n{ways}"
    )


def _range_note(numbers: Sequence[float], kind: Kind) -> str | None:
    """Return a note if the labels fill so little of -3..3 that their scale may be another."""
    if len(set(numbers)) < 2 or (min(numbers) < 0 and max(map(abs, numbers)) > 1):
        return None
    low, high = FIELD_RANGE
    classes = "; for classes: --task classes" if may_be_classes(numbers, kind) else ""
    return (
        f"the labels are {_described(numbers)}, and are read as scores in {low:g}..{high:g}; "
        f"for another scale: --label-range LOW HIGH{classes}"
    )


def _described(numbers: Sequence[float]) -> str:
    whole = "whole " if all(number % 1 == 0 for number in numbers) else ""
    return f"{whole}numbers from {min(numbers):g} to {max(numbers):g}"


def may_be_classes(numbers: Sequence[float], kind: Kind) -> bool:
    """Tell whether labels may be classes: few whole numbers that nobody said are scores."""
    is_whole = all(number % 1 == 0 for number in numbers)
    return kind is None and is_whole and len(set(numbers)) <= MOST_CLASSES
