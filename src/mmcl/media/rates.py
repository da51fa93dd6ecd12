"""From a modality's own rate to one step per word, or to equal intervals: means, no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import ShapeError

__all__ = ["steps_at_rate", "steps_per_word"]

# Times are compared in whole microseconds, so that moving all of them moves no edge.
TICKS = 1_000_000


def steps_per_word(
    times: NDArray[np.float64],
    steps: NDArray[np.float32],
    found: NDArray[np.bool_],
    words: Sequence[Word],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean of the steps that lie in each word.

    A step lies in a word when ``start <= time < end``. A word too short to hold a step
    takes the nearest one, if that is within half a period of the word's middle.

    Args:
        times: When each step is, in seconds, rising, shape ``[T]``.
        steps: Features, shape ``[T, d]``.
        found: Whether a step was measured (a face was seen), shape ``[T]``; steps that
            were not count for nothing.
        words: Words with their times, on the same clock.

    Returns:
        The means, shape ``[n, d]``, and which words have one, shape ``[n]``. A word with
        no measured step, or with no times, is a row of zeros and False.

    Raises:
        ShapeError: If the three arrays do not fit, or the times do not rise.

    Example:
        >>> times, steps = np.arange(4) / 10, np.float32([[1], [3], [5], [7]])
        >>> said = [Word(text="so", start=0.0, end=0.2), Word(text="then")]
        >>> means, has_mean = steps_per_word(times, steps, np.ones(4, dtype=bool), said)
        >>> means[:, 0].tolist(), has_mean.tolist()
        ([2.0, 0.0], [True, False])
    """
    timed = np.array([w.start is not None and w.end is not None for w in words], dtype=bool)
    starts = np.array([w.start or 0.0 for w in words], dtype=np.float64)
    ends = np.array([w.end or 0.0 for w in words], dtype=np.float64)
    means, has_mean = _interval_means(times, steps, found, starts, ends)
    return means * timed[:, None], has_mean & timed


def steps_at_rate(
    times: NDArray[np.float64],
    steps: NDArray[np.float32],
    found: NDArray[np.bool_],
    rate: float,
    start: float,
    end: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean of the steps in each of the equal intervals that cover a stretch of time.

    Args:
        times: When each step is, in seconds, rising, shape ``[T]``.
        steps: Features, shape ``[T, d]``.
        found: Whether a step was measured, shape ``[T]``.
        rate: Intervals per second, above 0.
        start: Where the first interval begins, in seconds.
        end: Where the last one ends, in seconds; that one may be shorter.

    Returns:
        The means, shape ``[n, d]``, and which intervals have one, shape ``[n]``, by the
        rules of :func:`steps_per_word`.

    Raises:
        ShapeError: If the three arrays do not fit, or the times do not rise.

    Example:
        >>> times, steps = np.arange(4) / 10, np.float32([[1], [3], [5], [7]])
        >>> steps_at_rate(times, steps, np.ones(4, dtype=bool), 5.0, 0.0, 0.4)[0][:, 0].tolist()
        [2.0, 6.0]
    """
    num = max(0, int(np.ceil(round((end - start) * rate, 6))))
    edges = start + np.arange(num + 1) / rate
    edges[num:] = end
    return _interval_means(times, steps, found, edges[:-1], edges[1:])


def _interval_means(
    times: NDArray[np.float64],
    steps: NDArray[np.float32],
    found: NDArray[np.bool_],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    _check(times, steps, found)
    if not len(times) or not len(starts):
        return np.zeros((len(starts), steps.shape[1]), np.float32), np.zeros(len(starts), bool)
    clock = _ticks(times)
    first, stop = _ranges(clock, _ticks(starts), _ticks(ends))
    counts = _range_sums(found[:, None].astype(np.float64), first, stop)  # [n, 1]
    measured = np.where(found[:, None], steps, 0.0)
    means = _range_sums(measured, first, stop) / np.maximum(counts, 1.0)
    return means.astype(np.float32), counts[:, 0] > 0


def _check(
    times: NDArray[np.float64], steps: NDArray[np.float32], found: NDArray[np.bool_]
) -> None:
    if times.ndim != 1 or steps.ndim != 2 or not len(times) == len(steps) == len(found):
        raise ShapeError(
            f"times [T], steps [T, d] and found [T] must agree on T, got shapes "
            f"{list(times.shape)}, {list(steps.shape)} and {list(found.shape)}"
        )
    falls = np.flatnonzero(np.diff(times) < 0)
    if len(falls):
        at = int(falls[0])
        raise ShapeError(
            f"times must rise, got {times[at + 1]:g} s after {times[at]:g} s at step {at + 1}"
        )


def _ticks(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.round(np.asarray(seconds, dtype=np.float64) * TICKS).astype(np.int64)


def _ranges(
    clock: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First step of each interval and the one after its last; the nearest for a short one."""
    first, stop = np.searchsorted(clock, starts), np.searchsorted(clock, ends)
    middle = (starts + ends) // 2
    after = np.minimum(np.searchsorted(clock, middle), len(clock) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.where(middle - clock[before] <= clock[after] - middle, before, after)
    period = np.median(np.diff(clock)) if len(clock) > 1 else 0.0
    near = 2 * np.abs(clock[nearer] - middle) <= period + 2  # one tick of rounding
    short = (stop <= first) & near
    first = np.where(short, nearer, first)
    return first, np.where(short, nearer + 1, np.maximum(stop, first))


def _range_sums(
    rows: NDArray[np.floating], first: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sums of ``rows[first:stop]``, shape ``[n, d]``; ranges may overlap and be empty."""
    padded = np.concatenate([rows, np.zeros((1, rows.shape[1]), rows.dtype)]).astype(np.float64)
    sums = np.add.reduceat(padded, np.stack([first, stop], axis=1).ravel(), axis=0)[::2]
    return np.where((stop > first)[:, None], sums, 0.0)
