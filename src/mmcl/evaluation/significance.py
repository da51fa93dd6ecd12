"""Whether two models differ, or only the draw of clips and seeds.

In come the predictions of several models on the same clips; out go intervals and p-values.
The clips are the same for every seed, so a resample of the bootstrap draws clips once and uses
them for all seeds of both models, and draws the seeds beside them. What is too small for a
statistic is left undefined, with the reason in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, wilcoxon

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError, did_you_mean
from mmcl.evaluation.item_sums import ItemSums, counted_choices, item_sums
from mmcl.evaluation.metrics import higher_is_better, task_metrics

__all__ = [
    "ALPHA",
    "Answer",
    "Bootstrap",
    "Comparison",
    "Predictions",
    "binomial_floor",
    "check_same_items",
    "compare_rows",
    "holm",
    "mcnemar",
    "paired_bootstrap",
    "resampled_values",
    "wilcoxon_over_seeds",
]

ALPHA = 0.05
"""A difference counts where its p-value, after Holm, is below this."""

SAMPLES = 2000
"""Resamples of a single comparison, and the fewest of a table."""

MOST_SAMPLES = 20_000
LEAST_SEED_PAIRS = 6
"""With five pairs the least two-sided p of Wilcoxon's test is .0625."""

MOST_UNDEFINED = 0.05
"""Share of resamples that may leave a metric undefined before the interval is given up."""

BLOCK = 256
SEED_DECIMALS = 12
"""Differences of seeds are rounded to this before they are ranked: .3 - .2 ties with .2 - .1."""

_ONE_SEED = "one seed: the interval is of the choice of clips alone, not of another seed"
_NO_SEED = "neither depends on a seed: the interval is of the choice of clips alone"

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


class Predictions(NamedTuple):
    """What one model says of every clip.

    Attributes:
        ids: Clip ids, in order.
        truth: Labels as in :func:`~mmcl.evaluation.metrics.task_metrics`, shape ``[n]`` or
            ``[n, e]``.
        scores: Float64, ``[s, n]``, ``[s, n, c]`` or ``[s, n, e, 2]``.
        seeds: The ``s`` seeds, or nothing for a model that no seed changes (ridge, a constant):
            its single prediction is held against every seed of another model.
    """

    ids: tuple[str, ...]
    truth: NDArray[Any]
    scores: _Floats
    seeds: tuple[int, ...]


class Bootstrap(NamedTuple):
    """A difference of two means over seeds.

    Attributes:
        difference: Other minus reference, in the metric's unit.
        low: Lower end of the 95% percentile interval.
        high: Its upper end.
        p: Two-sided; never below ``2 / (samples + 1)``. All four are nan where undefined.
        undefined: Share of resamples that left the metric undefined and do not count.
    """

    difference: float
    low: float
    high: float
    p: float
    undefined: float


class Comparison(NamedTuple):
    """Every row of a table against its reference.

    Attributes:
        tests: A dictionary per row and metric, see :func:`compare_rows`.
        best: Per metric the row that is significantly better than every other, or None.
        floor: Per accuracy what the choice of the test clips alone does to the reference: the
            binomial standard error of its mean accuracy.
        notes: What concerns the whole table.
    """

    tests: list[dict[str, Any]]
    best: dict[str, str | None]
    floor: dict[str, float]
    notes: list[str]


# ---------------------------------------------------------------- the same clips


def check_same_items(
    reference_name: str, reference: Predictions, name: str, other: Predictions
) -> None:
    """Refuse to compare models that were not scored on the same clips.

    Raises:
        DatasetError: If clips or their labels differ, or stand in another order.
        ShapeError: If the scores of a model do not fit its clips and seeds.
    """
    for label, each in ((reference_name, reference), (name, other)):
        _check_shape(label, each)
    hint = (
        "\n  Every row of a comparison must be scored on the same clips in the same order."
        "\n  See what a corpus holds: mmcl corpus describe CORPUS"
    )
    if reference.ids != other.ids:
        differs = _first_difference(reference.ids, other.ids)
        raise DatasetError(
            f"{reference_name} and {name} predict different clips "
            f"({len(reference.ids)} and {len(other.ids)}).\n  {differs}{hint}"
        )
    mine, theirs = (np.asarray(p.truth, dtype=np.float64) for p in (reference, other))
    if mine.shape != theirs.shape or not np.array_equal(mine, theirs, equal_nan=True):
        raise DatasetError(
            f"{reference_name} and {name} were scored against different labels.\n"
            f"  {_label_difference(reference.ids, mine, theirs)}{hint}"
        )


def _check_shape(name: str, predictions: Predictions) -> None:
    expected = [max(len(predictions.seeds), 1), len(predictions.ids)]
    found = list(predictions.scores.shape)
    if found[:2] != expected or len(predictions.truth) != expected[1]:
        raise ShapeError(
            f"scores of {name} must begin with {expected} [seeds, clips] and its truth with "
            f"{expected[1:]}, got {found} and {list(predictions.truth.shape)}"
        )


def _first_difference(mine: Sequence[str], theirs: Sequence[str]) -> str:
    for at, (left, right) in enumerate(zip(mine, theirs, strict=False)):
        if left != right:
            return f'The first that differs is clip {at}: "{left}" and "{right}".'
    at = min(len(mine), len(theirs))
    longer = mine if len(mine) > at else theirs
    return f'The first that only one of them has is clip {at}: "{longer[at]}".'


def _label_difference(ids: Sequence[str], mine: _Floats, theirs: _Floats) -> str:
    if mine.shape != theirs.shape:
        return f"Labels have shape {list(mine.shape)} and {list(theirs.shape)}."
    unequal = ~((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
    rows = np.flatnonzero(unequal.reshape(len(ids), -1).any(axis=1))
    at = int(rows[0])
    return (
        f'The first of {len(rows)} that differ is clip {at}, "{ids[at]}": '
        f"{mine[at].tolist()} and {theirs[at].tolist()}."
    )


# ---------------------------------------------------------------- the bootstrap


def resampled_values(sums: Sequence[ItemSums], *, samples: int, seed: int) -> _Floats:
    """Values of metrics on the same resamples of the clips.

    Every metric sees the same draws, also in another call with the same seed, number of
    samples and number of clips: models resampled apart are still paired.

    Args:
        sums: Metrics of ``n`` clips, one per model, metric and seed.
        samples: How many resamples.
        seed: Of the draws.

    Returns:
        Float64 ``[len(sums), samples]``; nan where a resample leaves the metric undefined.
    """
    matrix = np.concatenate([each.items for each in sums], axis=1)  # [n, all statistics]
    ends = np.cumsum([each.items.shape[1] for each in sums])[:-1]
    found = np.empty((len(sums), samples))
    done = 0
    for counts in _item_counts(len(matrix), samples, seed):
        totals = np.split(counts @ matrix, ends, axis=1)
        for row, (each, total) in enumerate(zip(sums, totals, strict=True)):
            found[row, done : done + len(counts)] = each.value(total)
        done += len(counts)
    return found


def _item_counts(num_items: int, samples: int, seed: int) -> Iterator[_Floats]:
    """How often every item is drawn, ``[up to BLOCK, n]`` at a time."""
    generator = np.random.default_rng([seed, 0])
    for start in range(0, samples, BLOCK):
        size = min(BLOCK, samples - start)
        drawn = generator.integers(0, num_items, (size, num_items))
        drawn += num_items * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_items)
        yield counts.reshape(size, num_items).astype(np.float64)


def _seed_weights(num_seeds: int, samples: int, seed: int) -> _Floats:
    """Weight of every seed in every resample, ``[s, samples]``.

    One seed fewer than there are is drawn. With all of them the spread of the mean comes out
    short by ``(s - 1) / s``, a third for three seeds (Rao and Wu, 1988).
    """
    if num_seeds == 1:
        return np.ones((1, samples))
    generator = np.random.default_rng([seed, num_seeds])
    draws = num_seeds - 1
    counts = generator.multinomial(draws, np.full(num_seeds, 1 / num_seeds), size=samples)
    weights: _Floats = counts.T / draws
    return weights


class _Resampled(NamedTuple):
    """One metric of one model.

    Attributes:
        values: Over all clips, ``[s]``.
        samples: Over resampled clips, ``[s, samples]``.
    """

    values: _Floats
    samples: _Floats

    def of(self, rows: Sequence[int]) -> _Resampled:
        return _Resampled(self.values[list(rows)], self.samples[list(rows)])


def paired_bootstrap(
    reference: Sequence[ItemSums],
    other: Sequence[ItemSums],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Resample clips and seeds, the same ones for both models.

    Exchanging the models flips every sign and leaves the p-value.

    Args:
        reference: One metric per seed.
        other: The same metric on the same clips, seed by seed; a list of one is held against
            every seed of the other list.
        samples: How many resamples.
        seed: Of the draws.

    Returns:
        Difference of the means over seeds, with its interval. With one seed only the clips are
        resampled, and the interval says nothing about another seed.

    Raises:
        ShapeError: If the seeds do not pair up.

    Source:
        FIELD's protocol of a bootstrap over items and seeds. Differs on purpose from items
        nested in seeds, drawn anew for every seed: the test clips are the same for all
        seeds, so an easy clip is easy ten times over, and drawing it anew for each seed would
        average out what the choice of clips does. Clips and seeds are crossed here
        (Owen, The pigeonhole bootstrap, 2007).

    Example:
        >>> def of(prediction):
        ...     return item_sums("mae", Task(kind="regression", low=-3, high=3), truth, prediction)
        >>> truth = np.array([-1.0, 0.5, 2.0, 3.0])
        >>> paired_bootstrap([of(truth + 0.5)], [of(truth - 0.75)]).difference
        0.25
    """
    if len(reference) != len(other) and 1 not in (len(reference), len(other)):
        raise ShapeError(
            "reference and other must list as many seeds as each other, or one, got "
            f"{len(reference)} and {len(other)}"
        )
    first, second = (_resample(list(sums), samples, seed) for sums in (reference, other))
    return _bootstrap(first, second, seed)


def _resample(sums: list[ItemSums], samples: int, seed: int) -> _Resampled:
    values = np.array([each.of_all() for each in sums])
    return _Resampled(values, resampled_values(sums, samples=samples, seed=seed))


def _bootstrap(reference: _Resampled, other: _Resampled, seed: int) -> Bootstrap:
    difference = float((other.values - reference.values).mean())
    by_seed = other.samples - reference.samples  # [s, samples]
    weights = _seed_weights(len(by_seed), by_seed.shape[1], seed)
    drawn = np.round((weights * by_seed).sum(axis=0), SEED_DECIMALS)
    defined = drawn[np.isfinite(drawn)]
    undefined = 1.0 - defined.size / drawn.size
    if not math.isfinite(difference) or undefined > MOST_UNDEFINED:
        return Bootstrap(math.nan, math.nan, math.nan, math.nan, undefined)
    low, high = np.quantile(defined, [ALPHA / 2, 1 - ALPHA / 2]).tolist()
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (fewer + 1) / (defined.size + 1))
    return Bootstrap(difference, low, high, p, undefined)


# ---------------------------------------------------------------- classical tests


class Answer(NamedTuple):
    """A p-value, or why there is none."""

    p: float | None
    note: str


def wilcoxon_over_seeds(reference: Sequence[float], other: Sequence[float]) -> Answer:
    """Signed-rank test of one metric over pairs of seeds, two-sided.

    Args:
        reference: A value per seed.
        other: A value per seed, paired.

    Returns:
        The p-value: 1 where no pair differs, None for fewer than six pairs or where a value is
        undefined.

    Example:
        >>> wilcoxon_over_seeds([0.8, 0.7], [0.9, 0.8])
        Answer(p=None, note='Wilcoxon needs 6 pairs of seeds, there are 2')
    """
    count = len(reference)
    if count < LEAST_SEED_PAIRS:
        there = "there is 1" if count == 1 else f"there are {count}"
        return Answer(None, f"Wilcoxon needs {LEAST_SEED_PAIRS} pairs of seeds, {there}")
    differences = np.round(np.subtract(other, reference), SEED_DECIMALS)
    if not np.isfinite(differences).all():
        return Answer(None, "Wilcoxon: a seed has no value")
    differences = differences[differences != 0]
    return Answer(float(wilcoxon(differences).pvalue) if differences.size else 1.0, "")


def mcnemar(reference_right: _Bools, other_right: _Bools) -> Answer:
    """Exact test of one pair of checkpoints by the clips that only one of them gets right.

    Args:
        reference_right: Whether each clip is right, bool, shape ``[n]``.
        other_right: The same of the other model.

    Returns:
        The two-sided binomial p-value: 1 where no clip tells them apart, None for fewer than
        two clips.

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
        return Answer(None, f"McNemar needs 2 clips with a label, there are {reference_right.size}")
    only_reference = int((reference_right & ~other_right).sum())
    unequal = int((reference_right != other_right).sum())
    return Answer(float(binomtest(only_reference, unequal).pvalue) if unequal else 1.0, "")


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for how many there are, step by step from the least.

    Args:
        p_values: None (or nan) where a test could not be made; it counts for nothing.

    Returns:
        Adjusted values in the same order, at most 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure (1979).

    Example:
        >>> holm([0.04, 0.01, None, 0.03])
        [0.06, 0.03, None, 0.06]
    """
    made = [(p, at) for at, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(sorted(made)):
        largest = max(largest, min(1.0, p * (len(made) - rank)))
        adjusted[at] = largest
    return adjusted


def binomial_floor(accuracy: float, count: int) -> float:
    """Standard error of an accuracy that the choice of the test clips alone causes.

    Args:
        accuracy: A fraction.
        count: Clips it is of.

    Returns:
        A fraction; nan where there is no clip or no accuracy.

    Example:
        >>> round(binomial_floor(0.8, 400), 6)
        0.02
    """
    if count < 1 or math.isnan(accuracy):
        return math.nan
    return math.sqrt(accuracy * (1.0 - accuracy) / count)


# ---------------------------------------------------------------- a table


class _Setting(NamedTuple):
    task: Task
    preset: str
    samples: int
    seed: int


class _Row(NamedTuple):
    name: str
    predictions: Predictions
    metrics: dict[str, _Resampled]

    def mean(self, key: str) -> float:
        return float(self.metrics[key].values.mean())


class _SeedPair(NamedTuple):
    """Which seeds of two models are held against each other.

    Attributes:
        reference: Rows of the reference's scores.
        other: Rows of the other's; one of the two may be a single row for all.
        label: The first pair's seed, in words.
        notes: What a reader should know of them.
    """

    reference: list[int]
    other: list[int]
    label: str
    notes: list[str]


def compare_rows(
    reference: str,
    predictions: Mapping[str, Predictions],
    *,
    task: Task,
    metrics: Sequence[str],
    preset: str = "mmsa",
    samples: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Test every model of a table against one of them, metric by metric.

    Clips without a label are left out. The result follows the clips: it does not depend on the
    order of the models.

    Args:
        reference: Name of the model that the others are held against.
        predictions: By name, all of the same clips in the same order.
        task: What was predicted.
        metrics: Keys of :func:`~mmcl.evaluation.item_sums.summable_metrics`.
        preset: Definition of the regression metrics.
        samples: Resamples of the bootstrap; by default 2000, and more for a large table, so
            that the least p-value there can be survives Holm.
        seed: Of the resamples.

    Returns:
        Tests, one per other model and metric: ``name``, ``metric``, ``difference`` (of the
        means over common seeds, model minus reference), ``low`` and ``high`` (95%),
        ``p_bootstrap``, ``p_wilcoxon`` (over seeds), ``p_mcnemar`` (accuracies only, of the
        first common seed), ``p_holm`` (of ``p_bootstrap``, over all tests), ``better`` (the
        significantly better of the two, or None) and ``notes``; None where a number is
        undefined. And the best row of every metric: the one with the best mean, where it is
        significantly better than every other row that has a value (Holm again).

    Raises:
        ConfigError: If there is no such reference or metric.
        DatasetError: If the models were not scored on the same clips, see
            :func:`check_same_items`.
        ShapeError: If scores do not fit their clips.
    """
    if reference not in predictions:
        raise ConfigError(
            f'no row is called "{reference}"{did_you_mean(reference, predictions)}\n'
            f"  Rows: {', '.join(predictions)}"
        )
    for name, each in predictions.items():
        check_same_items(reference, predictions[reference], name, each)
    count = len(metrics) * (len(predictions) - 1)
    setting = _Setting(task, preset, samples or _enough_samples(count), seed)
    rows = {name: _row(name, each, metrics, setting) for name, each in predictions.items()}
    others = [row for name, row in rows.items() if name != reference]
    tests = [_test(rows[reference], row, key, setting) for row in others for key in metrics]
    _judge(tests, reference)
    floor = _floors(rows[reference], metrics, setting)
    best = _best(rows, reference, metrics, tests, setting)
    return Comparison(tests, best, floor, _table_notes(tests, setting))


def _enough_samples(num_tests: int) -> int:
    """So many that the least p, ``2 / samples``, times all tests is a quarter of ALPHA."""
    return min(max(SAMPLES, round(8 * num_tests / ALPHA)), MOST_SAMPLES)


def _table_notes(tests: Sequence[Mapping[str, Any]], setting: _Setting) -> list[str]:
    num_made = sum(test["p_bootstrap"] is not None for test in tests)
    least = 2 * num_made / (setting.samples + 1)
    if least < ALPHA:
        return []
    return [
        f"with {setting.samples} resamples and {num_made} tests no p-value can fall below "
        f"{min(least, 1.0):.3g} after Holm: nothing can be significant here"
    ]


def _row(name: str, given: Predictions, metrics: Sequence[str], setting: _Setting) -> _Row:
    kept = _labelled(given, setting.task)
    if not kept.ids:
        nothing = np.full((len(kept.scores), 1), math.nan)
        return _Row(name, kept, {key: _Resampled(nothing[:, 0], nothing) for key in metrics})
    sums = [
        item_sums(key, setting.task, kept.truth, scores, preset=setting.preset)
        for key in metrics
        for scores in kept.scores
    ]
    values = _resample(sums, setting.samples, setting.seed)
    num_seeds = len(kept.scores)
    blocks = {key: range(i * num_seeds, (i + 1) * num_seeds) for i, key in enumerate(metrics)}
    return _Row(name, kept, {key: values.of(block) for key, block in blocks.items()})


def _labelled(given: Predictions, task: Task) -> Predictions:
    """Leave out the clips without a truth: a resample is of the clips that count."""
    truth = np.asarray(given.truth, dtype=np.float64)
    unknown = np.where(task.kind == "regression", ~np.isfinite(truth), truth < 0)
    rows: list[bool] = [not clip.any() for clip in unknown]
    ids = tuple(each for each, kept in zip(given.ids, rows, strict=True) if kept)
    return Predictions(ids, given.truth[rows], given.scores[:, rows], given.seeds)


def _pair_seeds(reference: _Row, other: _Row) -> _SeedPair:
    mine, theirs = reference.predictions.seeds, other.predictions.seeds
    if not mine or not theirs:
        seeds = mine or theirs
        rows = list(range(len(seeds))) or [0]
        notes = [] if len(rows) > 1 else [_ONE_SEED if seeds else _NO_SEED]
        label = f"seed {seeds[0]}" if seeds else "the one prediction"
        return _SeedPair(rows if mine else [0], rows if theirs else [0], label, notes)
    common = [seed for seed in mine if seed in theirs]
    notes = []
    if not common:
        notes = [
            f"no seed in common: {reference.name} has {list(mine)}, {other.name} {list(theirs)}"
        ]
    elif set(mine) != set(theirs):
        notes = [
            f"compared over seeds {common}: {reference.name} has {list(mine)}, "
            f"{other.name} {list(theirs)}"
        ]
    if len(common) == 1:
        notes.append(_ONE_SEED)
    label = f"seed {common[0]}" if common else ""
    first, second = ([seeds.index(seed) for seed in common] for seeds in (mine, theirs))
    return _SeedPair(first, second, label, notes)


def _test(reference: _Row, other: _Row, key: str, setting: _Setting) -> dict[str, Any]:
    """One line of the table, before it is adjusted."""
    pair = _pair_seeds(reference, other)
    notes = list(pair.notes)
    missing = _missing(reference, key, setting)
    test: dict[str, Any] = {
        "name": other.name,
        "metric": key,
        **dict.fromkeys(("difference", "low", "high")),
        **dict.fromkeys(("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm", "better")),
        "notes": notes,
    }
    if missing:
        notes.append(missing)
    if missing or not pair.label:
        return test
    first, second = reference.metrics[key].of(pair.reference), other.metrics[key].of(pair.other)
    for row, values in ((reference, first.values), (other, second.values)):
        notes += _undefined_notes(row, key, values, setting)
    found = _bootstrap(first, second, setting.seed)
    if found.undefined and np.isfinite(first.values).all() and np.isfinite(second.values).all():
        notes.append(_resample_note(key, found, setting))
    numbers = (found.difference, found.low, found.high, found.p)
    for name, number in zip(("difference", "low", "high", "p_bootstrap"), numbers, strict=True):
        test[name] = None if math.isnan(number) else number
    for name, tested in (
        ("p_wilcoxon", wilcoxon_over_seeds(*_paired(first.values, second.values))),
        ("p_mcnemar", _mcnemar_of_first(reference, other, pair, key, setting)),
    ):
        test[name] = tested.p
        notes += [tested.note] * bool(tested.note)
    return test


def _paired(first: _Floats, second: _Floats) -> tuple[list[float], list[float]]:
    mine, theirs = np.broadcast_arrays(first, second)
    return mine.tolist(), theirs.tolist()


def _missing(reference: _Row, key: str, setting: _Setting) -> str:
    """Why the labels are too few, or too much alike, for a test; empty where they are not."""
    kept = reference.predictions
    if len(kept.ids) < 2:
        return f"{key}: a test needs 2 clips with a label, there {_are(len(kept.ids))}"
    first = kept.scores[0]
    choices = counted_choices(key, setting.task, kept.truth, first, preset=setting.preset)
    if choices is None:
        return ""
    counted = choices.truth[choices.counted]
    if counted.size < 2:
        return f"{key}: a test needs 2 clips that it counts, there {_are(counted.size)}"
    if np.unique(counted).size == 1:
        return f"{key}: all {counted.size} labels it counts are of one class, which tests nothing"
    return ""


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _undefined_notes(row: _Row, key: str, values: _Floats, setting: _Setting) -> list[str]:
    """Say of which seeds a metric is undefined, and why."""
    if np.isfinite(values).all():
        return []
    kept = row.predictions
    notes = []
    for at, value in enumerate(row.metrics[key].values.tolist()):
        if math.isfinite(value):
            continue
        scored = task_metrics(setting.task, kept.truth, kept.scores[at], preset=setting.preset)
        why = next((each for each in scored.warnings if key.split("_")[0] in each), "undefined")
        seed = f", seed {kept.seeds[at]}" if kept.seeds else ""
        notes.append(f"{key} of {row.name}{seed}: {why}")
    return notes


def _resample_note(key: str, found: Bootstrap, setting: _Setting) -> str:
    count = round(found.undefined * setting.samples)
    fate = "were left out" if found.undefined <= MOST_UNDEFINED else "are too many for an interval"
    return f"{key}: {count} of {setting.samples} resamples leave it undefined and {fate}"


def _mcnemar_of_first(
    reference: _Row, other: _Row, pair: _SeedPair, key: str, setting: _Setting
) -> Answer:
    """McNemar's test of the first common seed; accuracies only."""
    if not key.startswith("acc"):
        return Answer(None, "")
    right = []
    for row, at in ((reference, pair.reference[0]), (other, pair.other[0])):
        kept = row.predictions
        scores = kept.scores[at]
        choices = counted_choices(key, setting.task, kept.truth, scores, preset=setting.preset)
        if choices is None:
            return Answer(None, f"McNemar: {key} is no single choice per clip")
        right.append((choices.truth == choices.prediction)[choices.counted])
    found = mcnemar(*right)
    several = max(len(pair.reference), len(pair.other)) > 1
    note = f"McNemar compares {pair.label} alone" if several and not found.note else found.note
    return Answer(found.p, note)


# ---------------------------------------------------------------- verdicts


def _judge(tests: list[dict[str, Any]], reference: str) -> None:
    """Adjust the p-values together and name the better one, in place."""
    for test, p in zip(tests, holm([test["p_bootstrap"] for test in tests]), strict=True):
        test["p_holm"] = p
        if p is not None and p < ALPHA:
            up = (test["difference"] > 0) == higher_is_better(test["metric"])
            test["better"] = test["name"] if up else reference


def _best(
    rows: Mapping[str, _Row],
    reference: str,
    metrics: Sequence[str],
    tests: Sequence[Mapping[str, Any]],
    setting: _Setting,
) -> dict[str, str | None]:
    """The leader of each metric, where every other row is significantly worse."""
    leaders = {key: _leader(rows, key) for key in metrics}
    duels: list[dict[str, Any]] = []
    for key, leader in leaders.items():
        if leader is not None:
            duels += [
                {**_test(rows[leader], row, key, setting), "leader": leader}
                for name, row in rows.items()
                if name != leader and math.isfinite(row.mean(key))
            ]
    best: dict[str, str | None] = dict.fromkeys(metrics)
    for key, leader in leaders.items():
        others = [duel for duel in duels if duel["metric"] == key]
        if leader is not None and others:
            best[key] = leader
    for duel, p in zip(duels, holm([duel["p_bootstrap"] for duel in duels]), strict=True):
        worse = duel["difference"] is not None and (
            (duel["difference"] < 0) == higher_is_better(duel["metric"])
        )
        if p is None or p >= ALPHA or not worse:
            best[duel["metric"]] = None
    for test in tests:  # no bold number without its dagger
        if test["name"] == best.get(test["metric"]) and test["better"] != test["name"]:
            best[test["metric"]] = None
    return best


def _leader(rows: Mapping[str, _Row], key: str) -> str | None:
    means = {name: row.mean(key) for name, row in rows.items() if math.isfinite(row.mean(key))}
    if not means:
        return None
    return (max if higher_is_better(key) else min)(means, key=lambda name: means[name])


def _floors(reference: _Row, metrics: Sequence[str], setting: _Setting) -> dict[str, float]:
    kept = reference.predictions
    floors = {}
    for key in (each for each in metrics if each.startswith("acc")):
        mean = reference.mean(key)
        if not math.isfinite(mean):
            continue
        scores = kept.scores[0]
        choices = counted_choices(key, setting.task, kept.truth, scores, preset=setting.preset)
        if choices is not None:
            floors[key] = binomial_floor(mean, int(choices.counted.sum()))
    return floors
