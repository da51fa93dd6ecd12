"""Check of published results: the pairs of accuracy and weighted F1 that a test set allows.

Accuracy fixes how many clips are right, and only their spread over the two classes is left for
F1. From the label counts of a test set every confusion matrix of an accuracy can be listed. A
printed F1 above the largest or below the least of them is no result of that test set, whatever
the model. The bound is tight where the classes are nearly balanced: on MOSI no F1 is more than
a fifth of a point above an accuracy of 80. All numbers are in percent, as results are printed.
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

from mmcl.evaluation.item_sums import ClassCounts

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
"""Points by which a mean may be off besides its own rounding: MMSA rounds every seed's fraction
to four decimals before it averages."""

MARGIN = 1e-9
"""Points granted to floating point, whose error in an F1 is near 1e-13."""

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
    """A percentage in a table: its exact value, and the number of digits after the point."""

    value: Fraction
    decimals: int

    @property
    def half_unit(self) -> Fraction:
        """Return half a unit of the last digit, in points: the value may be off by so much."""
        return Fraction(1, 2 * 10**self.decimals)

    @property
    def text(self) -> str:
        """Return the number as it was printed, ``"84.20"``."""
        return f"{float(self.value):.{self.decimals}f}"


class Interval(NamedTuple):
    """Least and largest F1, in percent and before any rounding."""

    low: float
    high: float


class Finding(NamedTuple):
    """Verdict on a row.

    Attributes:
        feasible: True if its accuracy and its F1 can belong together.
        interval: F1 at that accuracy; None where no run has that accuracy.
        hint: Explanation of an infeasible row, or that none was found; empty for a feasible one.
    """

    feasible: bool
    interval: Interval | None
    hint: str


def weighted_f1(
    true_positives: _Integers, true_negatives: _Integers, counts: Counts, *, swapped: bool = False
) -> _Floats:
    """Return the weighted F1 of ``k`` confusion matrices of one test set.

    Args:
        true_positives: Positive clips called positive, int64, shape ``[k]`` or a scalar.
        true_negatives: Negative clips called negative, int64, of a shape that broadcasts.
        counts: Clips of either class, at least one of each.
        swapped: Weigh the classes by how often they were predicted: the result of handing
            over truth and prediction in the wrong order.

    Returns:
        F1 in percent, float64, shape ``[k]``.

    Example:
        >>> majority = np.array([0]), np.array([317]), Counts(140, 317)
        >>> [weighted_f1(*majority, swapped=s).round(2).tolist() for s in (False, True)]
        [[56.82], [81.91]]
    """
    positives, negatives = counts
    right = np.stack(np.broadcast_arrays(true_positives, true_negatives), axis=-1)  # [k, 2]
    called_positive = right[..., 0] + negatives - right[..., 1]
    called = np.stack([called_positive, positives + negatives - called_positive], axis=-1)
    by_class = ClassCounts(right, np.array(counts), called)
    return 100 * (by_class.swapped_f1() if swapped else by_class.weighted_f1())


def f1_interval(
    counts: Counts, accuracy: Printed, *, single: bool = False, swapped: bool = False
) -> Interval | None:
    """Return the least and largest weighted F1 that go with a printed accuracy.

    Args:
        counts: Clips of either class in the test set.
        accuracy: As printed.
        single: True for one run. Otherwise the row may be a mean over any number of runs: a
            point of the convex hull of what single runs can have.
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
    values = _f1_of_runs(counts, accuracy, swapped=swapped)
    return Interval(float(values.min()), float(values.max())) if values.size else None


def can_occur(
    counts: Counts,
    accuracy: Printed,
    f1: Printed,
    *,
    single: bool = False,
    swapped: bool = False,
) -> bool:
    """Return False if a printed accuracy and a printed F1 cannot belong together.

    The arguments are those of :func:`f1_interval`. A single run needs a confusion matrix that
    rounds to both numbers; to lie within the interval is not enough.

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
    """Judge a row of a table, and look for an explanation of an infeasible one.

    The arguments are those of :func:`f1_interval`.

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


def _num_clips(percent: Fraction, counts: Counts) -> Fraction:
    return percent * sum(counts) / 100


def _f1_of_runs(counts: Counts, accuracy: Printed, *, swapped: bool) -> _Floats:
    """Return F1 of every confusion matrix whose accuracy rounds to the printed one, ``[k]``."""
    first = max(0, math.ceil(_num_clips(accuracy.value - accuracy.half_unit, counts)))
    last = min(sum(counts), math.floor(_num_clips(accuracy.value + accuracy.half_unit, counts)))
    values = [np.empty(0)]
    for num_right in range(first, last + 1):
        fewest, most = max(0, num_right - counts.negatives), min(counts.positives, num_right)
        positives = np.arange(fewest, most + 1)
        values.append(weighted_f1(positives, num_right - positives, counts, swapped=swapped))
    return np.concatenate(values)


class _Side(NamedTuple):
    """Corners of one side of a convex hull: number of right clips, and F1, each ``[v]``."""

    num_right: _Floats
    f1: _Floats


def _mean_interval(counts: Counts, accuracy: Printed, *, swapped: bool) -> Interval:
    slack = accuracy.half_unit + SEED_ROUNDING
    least = float(_num_clips(accuracy.value - slack, counts))
    largest = float(_num_clips(accuracy.value + slack, counts))
    # Both sides rise: the hull's lowest point is its first (nothing right, F1 0) and its highest
    # the last. So the least F1 is at the least accuracy; beyond the ends interp stays there.
    lower, upper = _hull(counts, swapped=swapped)
    return Interval(float(np.interp(least, *lower)), float(np.interp(largest, *upper)))


@lru_cache(maxsize=32)
def _hull(counts: Counts, *, swapped: bool) -> tuple[_Side, _Side]:
    """Return the lower and upper side of the hull of (right clips, F1) over all matrices."""
    positives, negatives = counts
    least = np.full(positives + negatives + 1, np.inf)
    largest = np.full(positives + negatives + 1, -np.inf)
    true_negatives = np.arange(negatives + 1)
    for true_positives in range(positives + 1):
        f1 = weighted_f1(np.array(true_positives), true_negatives, counts, swapped=swapped)
        num_right = slice(true_positives, true_positives + negatives + 1)
        least[num_right] = np.minimum(least[num_right], f1)
        largest[num_right] = np.maximum(largest[num_right], f1)
    upper = _lower_side(-largest)
    return _lower_side(least), _Side(upper.num_right, -upper.f1)


def _lower_side(values: _Floats) -> _Side:
    """Return the lower convex hull of the points (index, value), from left to right."""
    corners: list[tuple[float, float]] = []
    for x, y in enumerate(values.tolist()):
        # A corner on or above the line from the one before it to the new point is none.
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            corners.pop()
        corners.append((x, y))
    array = np.array(corners)
    return _Side(array[:, 0], array[:, 1])
