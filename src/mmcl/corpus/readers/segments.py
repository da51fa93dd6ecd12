"""Steps of a video by their times: those in a segment, and averages over words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Averages", "average_over", "overlapping"]

SHORTEST = 1e-5  # seconds; a shorter overlap is a rounding of the times (the SDK's epsilon)


class Averages(NamedTuple):
    """Steps averaged over stretches of time.

    Attributes:
        features: float32 ``[stretches, d]``; zeros where no step lies in a stretch, NaN where
            no value of a column is finite.
        num_empty: Stretches without a step.
        num_ignored: Values that were not finite and were left out of an average.
    """

    features: NDArray[np.float32]
    num_empty: int
    num_ignored: int


def overlapping(intervals: NDArray[np.float64], start: float, end: float) -> NDArray[np.int64]:
    """Return the rows of the intervals that share more than a rounding with a stretch of time.

    Args:
        intervals: Start and end in seconds, ``[n, 2]``, sorted by start.
        start: Start of the stretch in seconds, and ``end`` its end.

    Source:
        CMU-MultimodalSDK, ``mmdataset.align``.

    Example:
        >>> overlapping(np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), 0.5, 2.0).tolist()
        [0, 1]
    """
    before = int(np.searchsorted(intervals[:, 0], end))
    shared = np.minimum(intervals[:before, 1], end) - np.maximum(intervals[:before, 0], start)
    return np.flatnonzero(shared > SHORTEST)


def average_over(
    stretches: NDArray[np.float64], intervals: NDArray[np.float64], features: NDArray[np.float32]
) -> Averages:
    """Average the steps that overlap each stretch of time, every one with the same weight.

    Values that are not finite are left out: one -inf does not spoil the average of a word.

    Args:
        stretches: Start and end of the words in seconds, ``[words, 2]``.
        intervals: Start and end of the steps, ``[n, 2]``, sorted by start.
        features: The steps, ``[n, d]``.

    Source:
        CMU-MultimodalSDK, ``mmdataset.align`` with an average. Differs: the SDK averages
        values that are not finite, too.
    """
    averages = np.zeros((len(stretches), features.shape[1]), dtype=np.float32)
    num_empty = num_ignored = 0
    for row, (start, end) in enumerate(stretches):
        steps = features[overlapping(intervals, start, end)].astype(np.float64)
        finite = np.isfinite(steps)
        num_empty += not len(steps)
        num_ignored += int(finite.size - finite.sum())
        count = finite.sum(axis=0)
        if len(steps):
            total = np.where(finite, steps, 0.0).sum(axis=0)
            averages[row] = np.where(count, total / np.maximum(count, 1), np.nan)
    return Averages(averages, num_empty, num_ignored)
