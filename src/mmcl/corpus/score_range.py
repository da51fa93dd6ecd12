"""The range of a corpus's scores, and how it lies to the field's own, -3..3.

MOSI and MOSEI have scores in -3..3, CH-SIMS in -1..1, ICT-MMMO in -2..2: the middle is 0, and a
step of 1 is a word more of feeling. Other corpora have 1 to 5 stars or 0 to 100 points. Whatever
asks for a sign, or learns with step sizes that were tuned on the field's corpora, asks here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from mmcl.corpus.schema import Task

__all__ = [
    "FIELD_RANGE",
    "ScoreScale",
    "is_field_range",
    "neutral_score",
    "score_scale",
    "sixth",
]

FIELD_RANGE = (-3.0, 3.0)
"""Lowest and highest score of the field's corpora."""

_SMALLEST_LIMIT = 1.0  # of CH-SIMS; in a smaller range every score would round to 0

_Values = TypeVar("_Values")


def is_field_range(low: float, high: float) -> bool:
    """Return True for a range as the field's corpora have it: around 0, with an end at 1 to 3.

    Example:
        >>> is_field_range(-1, 1), is_field_range(-2.8, 3), is_field_range(1, 5)
        (True, True, False)
    """
    return low < 0 < high and _SMALLEST_LIMIT <= max(-low, high) <= FIELD_RANGE[1]


def neutral_score(low: float, high: float) -> float:
    """Return the score that is neither positive nor negative.

    It is 0 where 0 lies inside the range, since then the sign of a score has a meaning. Elsewhere
    it is the middle of the range.

    Example:
        >>> neutral_score(-3, 3), neutral_score(1, 5), neutral_score(0, 100)
        (0.0, 3.0, 50.0)
    """
    return 0.0 if low < 0 < high else (low + high) / 2


def sixth(low: float, high: float) -> float:
    """Return a sixth of a range: the difference of two scores that is 1 in -3..3."""
    return (high - low) / (FIELD_RANGE[1] - FIELD_RANGE[0])


class ScoreScale(NamedTuple):
    """Straight line between scores in -3..3, as the field has them, and those of a task.

    Attributes:
        middle: Score of the task that is 0 on the field's scale.
        unit: Difference of two scores that is 1 on the field's scale.
    """

    middle: float = 0.0
    unit: float = 1.0

    @property
    def is_field(self) -> bool:
        """True if the scores of the task lie on the field's scale already."""
        return self == (0.0, 1.0)

    # Any number, array or tensor; on the field's scale the very same object.
    def to_field(self, scores: _Values) -> _Values:
        """Bring scores of the task to the field's scale."""
        if self.is_field:
            return scores
        given: Any = scores
        moved: _Values = (given - self.middle) / self.unit
        return moved

    def from_field(self, scores: _Values) -> _Values:
        """Bring scores on the field's scale to that of the task."""
        if self.is_field:
            return scores
        given: Any = scores
        moved: _Values = self.middle + self.unit * given
        return moved


def score_scale(task: Task) -> ScoreScale:
    """Return the scale of a task's scores: its middle and a sixth of its range.

    For a range of the field (:func:`is_field_range`), and for classes and emotions, it is the
    field's own scale, which changes nothing.

    Example:
        >>> score_scale(Task(kind="regression", low=0, high=100)).to_field(75.0)
        1.5
    """
    if task.low is None or task.high is None or is_field_range(task.low, task.high):
        return ScoreScale()
    return ScoreScale((task.low + task.high) / 2, sixth(task.low, task.high))
