"""Mean, spread and interval of a metric over several seeds, and how many seeds counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

__all__ = ["Summary", "summarise", "summarise_seeds"]

CONFIDENCE = 0.95
"""Share of intervals that cover the true mean, were the seeds drawn again and again."""


class Summary(NamedTuple):
    """One metric over several seeds.

    Attributes:
        mean: Mean of the valid seeds; nan where there is none.
        std: Their standard deviation with ddof 1; nan for fewer than two.
        low: Lower end of the 95% t interval of the mean, up to ``high``; nan for fewer than two.
        values: Every seed as given, nan included, in the order given.
        num_valid: Seeds with a finite value.
    """

    mean: float
    std: float
    low: float
    high: float
    values: tuple[float, ...]
    num_valid: int

    def as_dict(self) -> dict[str, float | int | list[float | None] | None]:
        """Return the content of a result file, where None stands for nan: JSON has none.

        Example:
            >>> summarise([0.5]).as_dict()["std"] is None
            True
        """
        return {
            **{key: _finite_or_none(getattr(self, key)) for key in ("mean", "std", "low", "high")},
            "values": [_finite_or_none(value) for value in self.values],
            "num_valid": self.num_valid,
        }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one metric over seeds; a seed that is nan or infinite counts as not valid.

    The order of the seeds changes nothing but the order of :attr:`Summary.values`.

    Source:
        Differs on purpose from MMSA, which takes ddof 0 of values rounded before.

    Example:
        >>> summary = summarise([1.0, 3.0, float("nan")])
        >>> summary.mean, round(summary.std, 3), summary.num_valid
        (2.0, 1.414, 2)
    """
    given = tuple(float(value) for value in values)
    valid = np.array([value for value in given if math.isfinite(value)], dtype=np.float64)
    mean = float(valid.mean()) if valid.size else math.nan
    if valid.size < 2:
        return Summary(mean, math.nan, math.nan, math.nan, given, valid.size)
    std = float(valid.std(ddof=1))
    quantile = float(stdtrit(valid.size - 1, (1.0 + CONFIDENCE) / 2.0))
    half_width = quantile * std / math.sqrt(valid.size)
    return Summary(mean, std, mean - half_width, mean + half_width, given, valid.size)


def summarise_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    """Summarise every metric of several seeds; a key that one seed lacks is nan there.

    Example:
        >>> summarise_seeds([{"mae": 1.0}, {"mae": 2.0}])["mae"].mean
        1.5
    """
    keys = dict.fromkeys(key for seed in seeds for key in seed)
    return {key: summarise([seed.get(key, math.nan) for seed in seeds]) for key in keys}
