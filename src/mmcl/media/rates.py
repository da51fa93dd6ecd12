"""Average a modality's steps, at their own rate, over words or over equal intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import ShapeError

__all__ = ["steps_at_rate", "steps_per_word"]

_Doubles = NDArray[np.float64]
_Floats = NDArray[np.float32]
_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]

# Times are compared in whole microseconds, so that moving all of them moves no edge.
TICKS = 1_000_000


def steps_per_word(
    times: _Doubles, steps: _Floats, measured: _Bools, words: Sequence[Word]
) -> tuple[_Floats, _Bools]:
    """Return the mean of the steps that lie in each word.

    A step lies in a word when ``start <= time < end``. A word too short to hold a step
    takes the nearest one, if that is within half a period of the word's middle.

    Args:
        times: Time of each step, in seconds, rising, shape ``[T]``.
        steps: Features, shape ``[T, d]``.
        measured: Whether a step was measured (a face was seen), shape ``[T]``; others count
            for nothing.
        words: Words with their times, on the same clock.

    Returns:
        The means, shape ``[n, d]``, and which words have one, shape ``[n]``. A word with
        no measured step, or without times, is a row of zeros and False.

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
    means, has_mean = _interval_means(times, steps, measured, starts, ends)
    return means * timed[:, None], has_mean & timed


def steps_at_rate(
    times: _Doubles, steps: _Floats, measured: _Bools, rate: float, start: float, end: float
) -> tuple[_Floats, _Bools]:
    """Return the mean of the steps in each of the equal intervals of a stretch of time.

    Arguments, results and errors are those of :func:`steps_per_word`, with intervals in place
    of words: ``rate`` of them per second from ``start`` to ``end``, the last perhaps shorter.

    Example:
        >>> times, steps = np.arange(4) / 10, np.float32([[1], [3], [5], [7]])
        >>> steps_at_rate(times, steps, np.ones(4, dtype=bool), 5.0, 0.0, 0.4)[0][:, 0].tolist()
        [2.0, 6.0]
    """
    num = max(0, int(np.ceil(round((end - start) * rate, 6))))
    edges = start + np.arange(num + 1) / rate
    edges[num:] = end
    return _interval_means(times, steps, measured, edges[:-1], edges[1:])


def _interval_means(
    times: _Doubles, steps: _Floats, measured: _Bools, starts: _Doubles, ends: _Doubles
) -> tuple[_Floats, _Bools]:
    if times.ndim != 1 or steps.ndim != 2 or not len(times) == len(steps) == len(measured):
        raise ShapeError(
            f"times [T], steps [T, d] and measured [T] must agree on T, got shapes "
            f"{list(times.shape)}, {list(steps.shape)} and {list(measured.shape)}"
        )
    falls = np.flatnonzero(np.diff(times) < 0)
    if len(falls):
        step = int(falls[0])
        raise ShapeError(
            f"times must rise, got {times[step + 1]:g} s after {times[step]:g} s at step {step + 1}"
        )
    if not len(times) or not len(starts):
        return np.zeros((len(starts), steps.shape[1]), np.float32), np.zeros(len(starts), bool)
    first, stop = _step_ranges(_ticks(times), _ticks(starts), _ticks(ends))
    counts = _range_sums(measured[:, None].astype(np.float64), first, stop)  # [n, 1]
    sums = _range_sums(np.where(measured[:, None], steps, 0.0), first, stop)  # [n, d]
    means = sums / np.maximum(counts, 1.0)
    return means.astype(np.float32), counts[:, 0] > 0


def _ticks(seconds: _Doubles) -> _Ints:
    return np.round(np.asarray(seconds, dtype=np.float64) * TICKS).astype(np.int64)


def _step_ranges(clock: _Ints, starts: _Ints, ends: _Ints) -> tuple[_Ints, _Ints]:
    """Return the first step of each interval and the one after its last."""
    first, stop = np.searchsorted(clock, starts), np.searchsorted(clock, ends)
    # An interval that holds no step takes the one nearest to its middle, if that is near.
    middle = (starts + ends) // 2
    after = np.minimum(np.searchsorted(clock, middle), len(clock) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(middle - clock[before] <= clock[after] - middle, before, after)
    period = np.median(np.diff(clock)) if len(clock) > 1 else 0.0
    is_near = 2 * np.abs(clock[nearest] - middle) <= period + 2  # one tick of rounding
    takes_nearest = (stop <= first) & is_near
    first = np.where(takes_nearest, nearest, first)
    return first, np.where(takes_nearest, nearest + 1, np.maximum(stop, first))


def _range_sums(rows: NDArray[np.floating], first: _Ints, stop: _Ints) -> _Doubles:
    """Return the sums of ``rows[first:stop]``, ``[n, d]``; ranges may overlap and be empty."""
    padded = np.concatenate([rows, np.zeros((1, rows.shape[1]), rows.dtype)]).astype(np.float64)
    sums = np.add.reduceat(padded, np.stack([first, stop], axis=1).ravel(), axis=0)[::2]
    return np.where((stop > first)[:, None], sums, 0.0)
