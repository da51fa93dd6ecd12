"""Numbers that others have published, to be shown beside ours and never counted among them.

They were read from papers, repositories and tables that quote them; nothing was computed again.
(:mod:`mmcl.evaluation.table_reader` is something else: it reads a table of yours to check it.)
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
            ``acc2`` and ``f1`` of MOSI and MOSEI where the source does not say how zero labels
            count.
        value: A fraction; ``mae`` in the label's own unit.
        text: ``glove``, ``bert``, ``roberta``, ``qwen`` or ``-`` where it is not known; the note
            has the size of an encoder larger than BERT-base.
        alignment: ``aligned``, ``unaligned`` or ``-``.
        selection: Split that the epoch was chosen on: ``V`` validation, ``T`` test (so that the
            number estimates nothing), ``?`` not known, ``-`` nothing to choose.
        source: Where it was printed; ``its paper, as quoted`` is the model's own paper, read in
            another.
        note: Why the number cannot be what it says, for example; often empty.
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
    """Return the numbers published for one of :func:`published_datasets`.

    Raises:
        ConfigError: If there are none for it.

    Example:
        >>> results = published_results("mosi")
        >>> next(r.value for r in results if (r.model, r.metric) == ("MISA", "mae"))
        0.7765
    """
    known = published_datasets()
    if dataset not in known:
        raise ConfigError(
            f'no published results of "{dataset}"{did_you_mean(dataset, known)}\n'
            f"  There are some of: {', '.join(known)}"
        )
    return [result for result in _all_results() if result.dataset == dataset]


def published_datasets() -> tuple[str, ...]:
    """Return the data sets with published numbers, in the order of the table."""
    return tuple(dict.fromkeys(result.dataset for result in _all_results()))


@lru_cache(maxsize=1)
def _all_results() -> tuple[PublishedResult, ...]:
    text = files("mmcl.evaluation").joinpath(TABLE).read_text(encoding="utf-8")
    _, *lines = csv.reader(text.splitlines())
    return tuple(
        PublishedResult(dataset, model, metric, float(value), *rest)
        for dataset, model, metric, value, *rest in lines
    )
