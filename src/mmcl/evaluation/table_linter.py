"""Which pairs of accuracy and weighted F1 a test set allows.

Accuracy fixes how many clips are right; how they spread over the two classes is all that is
left for F1 to say. With the label counts of the test set every confusion matrix of an accuracy
can be listed, so that a printed F1 above the largest or below the least of them is no result of
that test set, whatever the model. The bound is tight where the classes are nearly balanced: on
MOSI no F1 is more than a fifth of a point above an accuracy of 80.

Everything here is in percent, as results are printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SEED_ROUNDING",
    "TEST_COUNTS",
    "Counts",
    "Finding",
    "Interval",
    "Printed",
    "can_occur",
    "f1_interval",
    "lint_row",
    "weighted_f1",
]

SEED_ROUNDING = Fraction(1, 200)
"""Points by which a mean may be off on top of its own rounding: MMSA rounds the fraction of
every seed to four decimals before it averages."""

MARGIN = 1e-9
"""Points granted to the floating point of an F1 (its error is near 1e-13), for the row."""

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class Counts(NamedTuple):
    """Clips of a test set whose truth is the positive and the negative class."""

    positives: int
    negatives: int


TEST_COUNTS: Mapping[str, Mapping[str, Counts]] = MappingProxyType(
    {
        "mosi": {"has0": Counts(307, 379), "non0": Counts(277, 379)},
        "mosei": {"has0": Counts(3309, 1350), "non0": Counts(2284, 1350)},
        "sims": {"acc2": Counts(140, 317)},
        "iemocap": {
            "neutral": Counts(383, 555),
            "happy": Counts(135, 803),
            "sad": Counts(193, 745),
            "angry": Counts(227, 711),
        },
    }
)
"""Label counts of the published test splits, by data set and metric.

``has0`` is negative against non-negative over all clips and ``non0`` negative against positive
without the zero labels (the preset ``mmsa``); ``acc2`` of CH-SIMS is non-positive against
positive (the preset ``sims``); an emotion is present against absent.

Source:
    * MOSI 379 negative, 30 zero, 277 positive: counted in the public label files of MFN.
    * MOSEI 1350, 1025, 2284: they sum to the 4659 clips of the split, and give the accuracies
      that collapsed models print: 71.0 (has0) and 62.9 (non0) for "positive".
    * CH-SIMS 317 of 457 non-positive: the one count that is 69.37%, the accuracy of MMSA's own
      EF-LSTM row, and with it F1 is the 56.82 of that row.
    * IEMOCAP 383, 135, 193 and 227 of 938: from the accuracies of "absent" (59.2, 85.6, 79.4,
      75.8); each clip has one emotion, and they sum to 938.

    CH-SIMS v2 is missing: its counts by sign are not known to us.
"""


class Printed(NamedTuple):
    """A percentage as it stands in a table.

    Attributes:
        value: Its exact value.
        decimals: Digits after the point; it may be off by half a unit of the last one.
    """

    value: Fraction
    decimals: int

    @property
    def half_unit(self) -> Fraction:
        """Half a unit of the last digit, in points."""
        return Fraction(1, 2 * 10**self.decimals)

    @property
    def text(self) -> str:
        """The number as it was printed.

        Example:
            >>> Printed(Fraction(421, 5), 2).text
            '84.20'
        """
        return f"{float(self.value):.{self.decimals}f}"


class Interval(NamedTuple):
    """Least and largest F1, in percent and before any rounding."""

    low: float
    high: float


class Finding(NamedTuple):
    """What is known of a row.

    Attributes:
        feasible: Whether its accuracy and its F1 can belong together.
        interval: F1 at that accuracy; None where no run has that accuracy.
        hint: What would explain an infeasible row, or that nothing tried here does; empty for a
            feasible one.
    """

    feasible: bool
    interval: Interval | None
    hint: str


def weighted_f1(
    true_positives: _Integers, true_negatives: _Integers, counts: Counts, *, swapped: bool = False
) -> _Floats:
    """Weighted F1 of confusion matrices of one test set.

    Args:
        true_positives: Positive clips called positive, int64, shape ``[k]`` or a scalar.
        true_negatives: Negative clips called negative, int64, of a shape that broadcasts.
        counts: Clips of either class, at least one of each.
        swapped: Weigh the classes by how often they were predicted, which is what comes out
            where truth and prediction are handed over in the wrong order.

    Returns:
        F1 in percent, float64, shape ``[k]``.

    Shapes:
        ``k`` confusion matrices.

    Example:
        >>> majority = np.array([0]), np.array([317]), Counts(140, 317)
        >>> [weighted_f1(*majority, swapped=s).round(2).tolist() for s in (False, True)]
        [[56.82], [81.91]]
    """
    positives, negatives = counts
    called_positive = true_positives + negatives - true_negatives  # [k]
    called_negative = true_negatives + positives - true_positives  # [k]
    f1_positive = 2 * true_positives / (called_positive + positives)
    f1_negative = 2 * true_negatives / (called_negative + negatives)
    weights = (called_positive, called_negative) if swapped else counts
    mean = (weights[0] * f1_positive + weights[1] * f1_negative) / sum(counts)
    return np.asarray(100 * mean, dtype=np.float64)


def f1_interval(
    counts: Counts, accuracy: Printed, *, single: bool = False, swapped: bool = False
) -> Interval | None:
    """Least and largest weighted F1 that go with a printed accuracy.

    The interval of means holds that of a single run, which is one of them.

    Args:
        counts: Clips of either class in the test set.
        accuracy: As printed.
        single: Whether the row is one run. Otherwise it may be a mean over any number of runs:
            a point of the convex hull of what single runs can have.
        swapped: See :func:`weighted_f1`.

    Returns:
        The interval, or None where a single run cannot have that accuracy: on 686 clips it goes
        in steps of .146 points.

    Example:
        >>> interval = f1_interval(TEST_COUNTS["mosi"]["has0"], Printed(Fraction(84), 2))
        >>> f"{interval.high:.2f}"  # Self-MM's paper prints 84.42
        '84.05'
    """
    if not single:
        return _mean_interval(counts, accuracy, swapped=swapped)
    f1 = _f1_of_runs(counts, accuracy, swapped=swapped)
    return Interval(float(f1.min()), float(f1.max())) if f1.size else None


def can_occur(
    counts: Counts,
    accuracy: Printed,
    f1: Printed,
    *,
    single: bool = False,
    swapped: bool = False,
) -> bool:
    """Whether a printed accuracy and a printed F1 can belong together.

    Args:
        counts: Clips of either class in the test set.
        accuracy: As printed.
        f1: As printed.
        single: See :func:`f1_interval`. A single run needs a confusion matrix that rounds to
            both numbers; to lie within the interval is not enough.
        swapped: See :func:`weighted_f1`.

    Returns:
        False only where it is impossible.

    Example:
        >>> sims = TEST_COUNTS["sims"]["acc2"]
        >>> can_occur(sims, Printed(Fraction("69.37"), 2), Printed(Fraction("56.82"), 2))
        True
    """
    if single:
        values = _f1_of_runs(counts, accuracy, swapped=swapped)
        slack = float(f1.half_unit) + MARGIN
        return bool((np.abs(values - float(f1.value)) <= slack).any())
    low, high = _mean_interval(counts, accuracy, swapped=swapped)
    slack = float(f1.half_unit + SEED_ROUNDING) + MARGIN
    return low - slack <= float(f1.value) <= high + slack


def lint_row(counts: Counts, accuracy: Printed, f1: Printed, *, single: bool = False) -> Finding:
    """Judge a row of a table.

    Args:
        counts: Clips of either class in the test set.
        accuracy: As printed.
        f1: As printed.
        single: Whether the row is one run rather than a mean over runs.

    Returns:
        The verdict, the interval, and what would explain an infeasible row.

    Source:
        LNLN's MOSI row is one that swapped arguments explain; its authors say so of CH-SIMS.

    Example:
        >>> has0 = TEST_COUNTS["mosi"]["has0"]
        >>> lint_row(has0, Printed(Fraction("81.24"), 2), Printed(Fraction("81.79"), 2)).hint
        'possible only with the arguments of F1 swapped'
    """
    interval = f1_interval(counts, accuracy, single=single)
    if can_occur(counts, accuracy, f1, single=single):
        return Finding(True, interval, "")
    if interval is None:
        hint = f"no single run has this accuracy: one clip is {100 / sum(counts):.3f} points"
    elif single and can_occur(counts, accuracy, f1):
        hint = "possible only as a mean over runs"
    elif can_occur(counts, accuracy, f1, single=single, swapped=True):
        hint = "possible only with the arguments of F1 swapped"
    else:
        hint = "impossible with the arguments of F1 swapped, too"
    return Finding(False, interval, hint)


# ---------------------------------------------------------------- one run


def _clips(percent: Fraction, counts: Counts) -> Fraction:
    return percent * sum(counts) / 100


def _f1_of_runs(counts: Counts, accuracy: Printed, *, swapped: bool) -> _Floats:
    """F1 of every confusion matrix whose accuracy rounds to the printed one, ``[k]``."""
    first = max(0, math.ceil(_clips(accuracy.value - accuracy.half_unit, counts)))
    last = min(sum(counts), math.floor(_clips(accuracy.value + accuracy.half_unit, counts)))
    found = []
    for num_right in range(first, last + 1):
        fewest, most = max(0, num_right - counts.negatives), min(counts.positives, num_right)
        right_positive = np.arange(fewest, most + 1)
        found.append(
            weighted_f1(right_positive, num_right - right_positive, counts, swapped=swapped)
        )
    return np.concatenate(found) if found else np.empty(0)


# ---------------------------------------------------------------- a mean over runs


def _mean_interval(counts: Counts, accuracy: Printed, *, swapped: bool) -> Interval:
    """F1 of means: from the lower side at the least accuracy to the upper side at the largest.

    Both sides rise, since the hull's lowest point is its first (nothing right, F1 0) and its
    highest its last; beyond them ``interp`` stays at the end.
    """
    slack = accuracy.half_unit + SEED_ROUNDING
    lowest = float(_clips(accuracy.value - slack, counts))
    highest = float(_clips(accuracy.value + slack, counts))
    lower, upper = _hull(counts, swapped=swapped)
    return Interval(float(np.interp(lowest, *lower)), float(np.interp(highest, *upper)))


class _Chain(NamedTuple):
    """A side of the hull: its corners, by number of right clips."""

    num_right: _Floats  # [v]
    f1: _Floats  # [v]


@lru_cache(maxsize=32)
def _hull(counts: Counts, *, swapped: bool) -> tuple[_Chain, _Chain]:
    """Lower and upper side of the convex hull of (right clips, F1) over all matrices."""
    positives, negatives = counts
    least = np.full(positives + negatives + 1, np.inf)
    largest = np.full(positives + negatives + 1, -np.inf)
    true_negatives = np.arange(negatives + 1)
    for true_positives in range(positives + 1):
        f1 = weighted_f1(np.array(true_positives), true_negatives, counts, swapped=swapped)
        here = slice(true_positives, true_positives + negatives + 1)  # by number of right clips
        least[here] = np.minimum(least[here], f1)
        largest[here] = np.maximum(largest[here], f1)
    above = _lower_side(-largest)
    return _lower_side(least), _Chain(above.num_right, -above.f1)


def _lower_side(values: _Floats) -> _Chain:
    """Lower convex hull of the points (index, value), from left to right."""
    corners: list[tuple[float, float]] = []
    for x, y in enumerate(values.tolist()):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            corners.pop()
        corners.append((x, y))
    found = np.array(corners)
    return _Chain(found[:, 0], found[:, 1])
