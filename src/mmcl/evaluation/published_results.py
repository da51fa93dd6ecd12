"""Numbers that others have published, to be put beside our own and never among them.

They were read from papers, repositories and tables that quote them; nothing here was computed
again. A row says how its epoch was chosen, since a number chosen on the test split is no
estimate of anything, and has a note where it cannot be what it says.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from mmcl.errors import ConfigError, did_you_mean

__all__ = ["PublishedResult", "published_datasets", "published_results"]

TABLE = "published_results.csv"


class PublishedResult(NamedTuple):
    """One published number.

    Attributes:
        dataset: ``mosi``, ``mosei``, ``sims``, ``simsv2`` or ``iemocap``.
        model: As printed.
        metric: Our key, of the preset ``mmsa`` (``sims`` and ``simsv2``: of ``sims``);
            ``acc2`` and ``f1`` of MOSI and MOSEI where the source does not say what becomes of
            zero labels.
        value: A fraction; ``mae`` in the label's own unit.
        text: ``glove``, ``bert`` or ``-`` where it is not known.
        alignment: ``aligned``, ``unaligned`` or ``-``.
        selection: What chose the epoch: ``V`` validation, ``T`` test, ``?`` not known, ``-``
            nothing to choose.
        source: Where it was printed; ``its paper, as quoted`` is the model's own paper, read in
            another.
        note: What a reader must know; often empty.
    """

    dataset: str
    model: str
    metric: str
    value: float
    text: str
    alignment: str
    selection: str
    source: str
    note: str


def published_results(dataset: str) -> list[PublishedResult]:
    """Numbers published for a data set.

    Args:
        dataset: One of :func:`published_datasets`.

    Raises:
        ConfigError: If there are none for it.

    Example:
        >>> found = published_results("mosi")
        >>> next(r.value for r in found if (r.model, r.metric) == ("MISA", "mae"))
        0.7765
    """
    known = published_datasets()
    if dataset not in known:
        raise ConfigError(
            f'no published results of "{dataset}"{did_you_mean(dataset, known)}\n'
            f"  There are some of: {', '.join(known)}"
        )
    return [each for each in _everything() if each.dataset == dataset]


def published_datasets() -> tuple[str, ...]:
    """Data sets with published numbers, in the order of the table."""
    return tuple(dict.fromkeys(each.dataset for each in _everything()))


@lru_cache(maxsize=1)
def _everything() -> tuple[PublishedResult, ...]:
    text = files("mmcl.evaluation").joinpath(TABLE).read_text(encoding="utf-8")
    _, *lines = csv.reader(text.splitlines())
    return tuple(
        PublishedResult(dataset, model, metric, float(value), *rest)
        for dataset, model, metric, value, *rest in lines
    )
