"""Classical tests of paired results: Wilcoxon over seeds, McNemar over clips, Holm over tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import ShapeError
from mmcl.evaluation.bootstrap import SEED_DECIMALS

__all__ = ["PValue", "binomial_floor", "holm", "mcnemar", "wilcoxon_over_seeds"]

LEAST_SEED_PAIRS = 6
"""With five pairs the least two-sided p of Wilcoxon's test is .0625."""

_Bools = NDArray[np.bool_]


class PValue(NamedTuple):
    """A p-value, or None and the reason why there is none."""

    p: float | None
    note: str


def wilcoxon_over_seeds(reference: Sequence[float], other: Sequence[float]) -> PValue:
    """Test one metric over pairs of seeds by signed ranks, two-sided.

    The p-value is 1 where no pair differs, None for fewer than six pairs or where a value is
    undefined.

    Example:
        >>> wilcoxon_over_seeds([0.8, 0.7], [0.9, 0.8])
        PValue(p=None, note='Wilcoxon needs 6 pairs of seeds, there are 2')
    """
    count = len(reference)
    if count < LEAST_SEED_PAIRS:
        there = "there is 1" if count == 1 else f"there are {count}"
        return PValue(None, f"Wilcoxon needs {LEAST_SEED_PAIRS} pairs of seeds, {there}")
    # Rounded, so that equal differences tie; scipy refuses differences that are all zero.
    differences = np.round(np.subtract(other, reference), SEED_DECIMALS)
    if not np.isfinite(differences).all():
        return PValue(None, "Wilcoxon: a seed has no value")
    differences = differences[differences != 0]
    from scipy.stats import wilcoxon

    return PValue(float(wilcoxon(differences).pvalue) if differences.size else 1.0, "")


def mcnemar(reference_right: _Bools, other_right: _Bools) -> PValue:
    """Test one pair of checkpoints, exactly, by the clips that only one of them gets right.

    Both arguments are bool ``[n]``, True where a clip is right. The two-sided binomial p-value
    is 1 where no clip tells the models apart, None for fewer than two clips.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> mcnemar(np.array([True] * 5 + [False]), np.array([False] * 6)).p
        0.0625
    """
    if reference_right.shape != other_right.shape:
        raise ShapeError(
            f"other_right must have shape {list(reference_right.shape)} [clips] to match "
            f"reference_right, got {list(other_right.shape)}"
        )
    if reference_right.size < 2:
        return PValue(None, f"McNemar needs 2 clips with a label, there are {reference_right.size}")
    from scipy.stats import binomtest

    only_reference = int((reference_right & ~other_right).sum())
    unequal = int((reference_right != other_right).sum())
    return PValue(float(binomtest(only_reference, unequal).pvalue) if unequal else 1.0, "")


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number, step by step from the least; the order stays.

    None (or nan) stands for a test that could not be made. It does not count and stays None.

    Source:
        Holm, A simple sequentially rejective multiple test procedure (1979).

    Example:
        >>> holm([0.04, 0.01, None, 0.03])
        [0.06, 0.03, None, 0.06]
    """
    made = [(p, i) for i, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    # The least p times the number of tests, the next times one fewer, never falling.
    for rank, (p, i) in enumerate(sorted(made)):
        largest = max(largest, min(1.0, p * (len(made) - rank)))
        adjusted[i] = largest
    return adjusted


def binomial_floor(accuracy: float, count: int) -> float:
    """Return the standard error of an accuracy that the choice of ``count`` clips alone causes.

    Both are fractions; nan where there is no clip or no accuracy.

    Example:
        >>> round(binomial_floor(0.8, 400), 6)
        0.02
    """
    if count < 1 or math.isnan(accuracy):
        return math.nan
    return math.sqrt(accuracy * (1.0 - accuracy) / count)
