"""Bootstrap of the difference between two models, over clips and seeds.

The clips are the same for every seed. So a resample draws clips once, for all seeds of both
models, and draws the seeds beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import ShapeError
from mmcl.evaluation.item_sums import ItemSums

__all__ = [
    "ALPHA",
    "MOST_UNDEFINED",
    "SAMPLES",
    "SEED_DECIMALS",
    "Bootstrap",
    "Resampled",
    "bootstrap_difference",
    "paired_bootstrap",
    "resample",
]

ALPHA = 0.05
"""An interval covers all but this; a difference counts where its p-value is below it."""

SAMPLES = 2000
"""Resamples of a single comparison, and the fewest of a table."""

MOST_UNDEFINED = 0.05
"""Share of resamples that may leave a metric undefined before the interval is given up."""

BLOCK = 256
"""Resamples that are drawn at a time, which bounds the memory."""

SEED_DECIMALS = 12
"""Differences of seeds are rounded to this before they are ranked: .3 - .2 ties with .2 - .1."""

_Floats = NDArray[np.float64]


class Bootstrap(NamedTuple):
    """A difference of two means over seeds, with its 95% percentile interval.

    ``difference`` is other minus reference in the metric's unit, ``p`` is two-sided and never
    below ``2 / (samples + 1)``. All are nan where undefined, apart from ``undefined``: the share
    of resamples that leave the metric undefined and do not count.
    """

    difference: float
    low: float
    high: float
    p: float
    undefined: float


class Resampled(NamedTuple):
    """One metric of one model, per seed: over all clips ``[s]`` and resampled ``[s, samples]``."""

    values: _Floats
    samples: _Floats

    def of_seeds(self, rows: Sequence[int]) -> Resampled:
        """Return the same for some of the seeds, in the order given."""
        return Resampled(self.values[list(rows)], self.samples[list(rows)])


def paired_bootstrap(
    reference: Sequence[ItemSums],
    other: Sequence[ItemSums],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Resample clips and seeds, the same ones for both models.

    Exchanging the models flips every sign and leaves the p-value.

    Both arguments list the same metric on the same clips, seed by seed; a list of one is held
    against every seed of the other list. With one seed only the clips are resampled, and the
    interval says nothing about another seed.

    Raises:
        ShapeError: If the seeds do not pair up.

    Source:
        FIELD's protocol of a bootstrap over items and seeds. Differs on purpose from items
        nested in seeds, drawn anew for every seed: the test clips are the same for all
        seeds, so an easy clip is easy ten times over, and drawing it anew for each seed would
        average out what the choice of clips does. Clips and seeds are crossed here
        (Owen, The pigeonhole bootstrap, 2007).

    Example:
        >>> def errors(*distances):
        ...     rows = np.array([[distance, 1.0] for distance in distances])
        ...     return ItemSums(rows, lambda sums: sums[..., 0] / sums[..., 1])
        >>> paired_bootstrap([errors(0.5, 0.5, 0.5)], [errors(0.75, 1.0, 0.5)]).difference
        0.25
    """
    if len(reference) != len(other) and 1 not in (len(reference), len(other)):
        raise ShapeError(
            "reference and other must list as many seeds as each other, or one, got "
            f"{len(reference)} and {len(other)}"
        )
    return bootstrap_difference(
        resample(reference, samples=samples, seed=seed),
        resample(other, samples=samples, seed=seed),
        seed=seed,
    )


def resample(sums: Sequence[ItemSums], *, samples: int, seed: int) -> Resampled:
    """Compute metrics over all clips and on the same resamples of the clips.

    Every metric sees the same draws, also in another call with the same seed, number of
    samples and number of clips: models resampled apart are still paired. A value is nan where a
    resample leaves the metric undefined.
    """
    # All metrics side by side, so that a block of resamples is one matrix product.
    matrix = np.concatenate([metric.items for metric in sums], axis=1)  # [n, all statistics]
    ends = np.cumsum([metric.items.shape[1] for metric in sums])[:-1]
    resampled = np.empty((len(sums), samples))
    start = 0
    for counts in _item_counts(len(matrix), samples, seed):
        stop = start + len(counts)
        totals = np.split(counts @ matrix, ends, axis=1)
        for row, (metric, total) in enumerate(zip(sums, totals, strict=True)):
            resampled[row, start:stop] = metric.value(total)
        start = stop
    return Resampled(np.array([metric.of_all() for metric in sums]), resampled)


def _item_counts(num_items: int, samples: int, seed: int) -> Iterator[_Floats]:
    """Draw how often each item is taken, ``[up to BLOCK, n]`` at a time."""
    generator = np.random.default_rng([seed, 0])
    for start in range(0, samples, BLOCK):
        size = min(BLOCK, samples - start)
        drawn = generator.integers(0, num_items, (size, num_items))
        drawn += num_items * np.arange(size)[:, None]  # a range of numbers per resample
        counts = np.bincount(drawn.ravel(), minlength=size * num_items)
        yield counts.reshape(size, num_items).astype(np.float64)


def _seed_weights(num_seeds: int, samples: int, seed: int) -> _Floats:
    """Draw the weight of every seed in every resample, ``[s, samples]``."""
    if num_seeds == 1:
        return np.ones((1, samples))
    generator = np.random.default_rng([seed, num_seeds])
    # One seed fewer than there are is drawn. With all of them the spread of the mean comes out
    # short by (s - 1) / s, a third for three seeds (Rao and Wu, 1988).
    draws = num_seeds - 1
    counts = generator.multinomial(draws, np.full(num_seeds, 1 / num_seeds), size=samples)
    weights: _Floats = counts.T / draws
    return weights


def bootstrap_difference(reference: Resampled, other: Resampled, *, seed: int) -> Bootstrap:
    """Compare two models that were resampled with the same draws of clips."""
    difference = float((other.values - reference.values).mean())
    by_seed = other.samples - reference.samples  # [s, samples]
    weights = _seed_weights(len(by_seed), by_seed.shape[1], seed)
    drawn = np.round((weights * by_seed).sum(axis=0), SEED_DECIMALS)
    defined = drawn[np.isfinite(drawn)]
    undefined = 1.0 - defined.size / drawn.size
    if not math.isfinite(difference) or undefined > MOST_UNDEFINED:
        return Bootstrap(math.nan, math.nan, math.nan, math.nan, undefined)
    low, high = np.quantile(defined, [ALPHA / 2, 1 - ALPHA / 2]).tolist()
    # Twice the share of resamples on the rarer side of zero, as if one more were there.
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (rarer + 1) / (defined.size + 1))
    return Bootstrap(difference, low, high, p, undefined)
