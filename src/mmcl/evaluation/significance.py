"""Tests of every model of a table against one of them: do they differ beyond chance?

In come the predictions of several models on the same clips. Out go intervals and p-values that
account for the choice of clips and of seeds. What is too small for a statistic is left
undefined, with the reason in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError, did_you_mean
from mmcl.evaluation.bootstrap import (
    ALPHA,
    MOST_UNDEFINED,
    SAMPLES,
    Bootstrap,
    Resampled,
    bootstrap_difference,
    resample,
)
from mmcl.evaluation.choices import Choices
from mmcl.evaluation.item_sums import item_sums
from mmcl.evaluation.metrics import higher_is_better, task_metrics
from mmcl.evaluation.paired_tests import PValue, binomial_floor, holm, mcnemar, wilcoxon_over_seeds

__all__ = ["Comparison", "Predictions", "check_same_items", "compare_rows"]

MOST_SAMPLES = 20_000
"""Resamples of the largest table."""

_ONE_SEED = "one seed: the interval is of the choice of clips alone, not of another seed"
_NO_SEED = "neither depends on a seed: the interval is of the choice of clips alone"

_Floats = NDArray[np.float64]


class Predictions(NamedTuple):
    """Scores that one model gives to every clip.

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


class Comparison(NamedTuple):
    """Every row of a table against its reference, see :func:`compare_rows`."""

    tests: list[dict[str, Any]]
    best: dict[str, str | None]
    floor: dict[str, float]
    notes: list[str]


def check_same_items(
    reference_name: str, reference: Predictions, name: str, other: Predictions
) -> None:
    """Refuse to compare models that were not scored on the same clips.

    Raises:
        DatasetError: If clips or their labels differ, or stand in another order.
        ShapeError: If the scores of a model do not fit its clips and seeds.
    """
    _check_shape(reference_name, reference)
    _check_shape(name, other)
    hint = (
        "\n  Every row of a comparison must be scored on the same clips in the same order."
        "\n  See what a corpus holds: mmcl corpus describe CORPUS"
    )
    if reference.ids != other.ids:
        raise DatasetError(
            f"{reference_name} and {name} predict different clips "
            f"({len(reference.ids)} and {len(other.ids)}).\n"
            f"  {_first_difference(reference.ids, other.ids)}{hint}"
        )
    labels, other_labels = (np.asarray(p.truth, dtype=np.float64) for p in (reference, other))
    if not np.array_equal(labels, other_labels, equal_nan=True):
        raise DatasetError(
            f"{reference_name} and {name} were scored against different labels.\n"
            f"  {_label_difference(reference.ids, labels, other_labels)}{hint}"
        )


def _check_shape(name: str, predictions: Predictions) -> None:
    expected = [max(len(predictions.seeds), 1), len(predictions.ids)]
    shape = list(predictions.scores.shape)
    if shape[:2] != expected or len(predictions.truth) != expected[1]:
        raise ShapeError(
            f"scores of {name} must begin with {expected} [seeds, clips] and its truth with "
            f"{expected[1:]}, got {shape} and {list(predictions.truth.shape)}"
        )


def _first_difference(ids: Sequence[str], other_ids: Sequence[str]) -> str:
    for index, (left, right) in enumerate(zip(ids, other_ids, strict=False)):
        if left != right:
            return f'The first that differs is clip {index}: "{left}" and "{right}".'
    index = min(len(ids), len(other_ids))
    longer = max(ids, other_ids, key=len)
    return f'The first that only one of them has is clip {index}: "{longer[index]}".'


def _label_difference(ids: Sequence[str], labels: _Floats, other_labels: _Floats) -> str:
    if labels.shape != other_labels.shape:
        return f"Labels have shape {list(labels.shape)} and {list(other_labels.shape)}."
    unequal = ~((labels == other_labels) | (np.isnan(labels) & np.isnan(other_labels)))
    rows = np.flatnonzero(unequal.reshape(len(ids), -1).any(axis=1))
    first = int(rows[0])
    return (
        f'The first of {len(rows)} that differ is clip {first}, "{ids[first]}": '
        f"{labels[first].tolist()} and {other_labels[first].tolist()}."
    )


class _Setting(NamedTuple):
    task: Task
    preset: str
    samples: int
    seed: int


class _Row(NamedTuple):
    """One model of the table, on the clips with a label."""

    name: str
    predictions: Predictions
    metrics: dict[str, Resampled]

    def mean(self, key: str) -> float:
        """Return a metric's mean over the seeds; nan where a seed has none."""
        return float(self.metrics[key].values.mean())

    def choices(self, key: str, index: int, setting: _Setting) -> Choices | None:
        """Return the classes that a metric compares, for the seed at ``index``."""
        clips, scores = self.predictions, self.predictions.scores[index]
        sums = item_sums(key, setting.task, clips.truth, scores, preset=setting.preset)
        return sums.choices


class _SeedPairs(NamedTuple):
    """Indices of the seeds of two models that are held against each other.

    A single index is held against all of the other. ``label`` names the first pair's seed, and
    is empty where there is no pair.
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
        seed: Seed of the resamples.

    Returns:
        * ``tests``, one per other model and metric: ``name``, ``metric``, ``difference`` (of
          the means over common seeds, model minus reference), ``low`` and ``high`` (95%),
          ``p_bootstrap``, ``p_wilcoxon`` (over seeds), ``p_mcnemar`` (accuracies only, of the
          first common seed), ``p_holm`` (of ``p_bootstrap``, over all tests), ``better`` (the
          significantly better of the two, or None) and ``notes``; None where undefined.
        * ``best`` row of every metric: the one with the best mean, where it is significantly
          better than every other row that has a value (Holm again); None otherwise.
        * ``floor`` of every accuracy: binomial standard error of the reference's mean, which
          the choice of the test clips alone causes.
        * ``notes`` on the whole table.

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
    for name, scored in predictions.items():
        check_same_items(reference, predictions[reference], name, scored)
    # So many that the least p, 2 / samples, times the number of tests is a quarter of ALPHA.
    num_tests = len(metrics) * (len(predictions) - 1)
    samples = samples or min(max(SAMPLES, round(8 * num_tests / ALPHA)), MOST_SAMPLES)
    setting = _Setting(task, preset, samples, seed)
    rows = {name: _row(name, scored, metrics, setting) for name, scored in predictions.items()}
    others = [row for name, row in rows.items() if name != reference]
    tests = [_test(rows[reference], row, key, setting) for row in others for key in metrics]
    _name_the_better(tests, reference)
    floor = _floors(rows[reference], metrics, setting)
    best = _best(rows, metrics, tests, setting)
    return Comparison(tests, best, floor, _table_notes(tests, samples))


def _row(name: str, given: Predictions, metrics: Sequence[str], setting: _Setting) -> _Row:
    scored = _labelled(given, setting.task)
    num_seeds = len(scored.scores)
    if not scored.ids:  # nothing to draw from
        nothing = np.full((num_seeds, 1), math.nan)
        return _Row(name, scored, {key: Resampled(nothing[:, 0], nothing) for key in metrics})
    sums = [
        item_sums(key, setting.task, scored.truth, scores, preset=setting.preset)
        for key in metrics
        for scores in scored.scores
    ]
    # All metrics of all seeds see the same draws of clips.
    values = resample(sums, samples=setting.samples, seed=setting.seed)
    blocks = {key: range(i * num_seeds, (i + 1) * num_seeds) for i, key in enumerate(metrics)}
    return _Row(name, scored, {key: values.of_seeds(block) for key, block in blocks.items()})


def _labelled(given: Predictions, task: Task) -> Predictions:
    """Leave out the clips without a truth: a resample is of the clips that count."""
    truth = np.asarray(given.truth, dtype=np.float64)
    unknown = np.where(task.kind == "regression", ~np.isfinite(truth), truth < 0)
    kept = ~unknown.reshape(len(truth), -1).any(axis=1)
    ids = tuple(np.array(given.ids, dtype=object)[kept])
    return Predictions(ids, given.truth[kept], given.scores[:, kept], given.seeds)


def _pair_seeds(reference: _Row, other: _Row) -> _SeedPairs:
    seeds, other_seeds = reference.predictions.seeds, other.predictions.seeds
    # A model that no seed changes meets every seed of the other.
    if not seeds or not other_seeds:
        all_seeds = seeds or other_seeds
        rows = list(range(len(all_seeds))) or [0]
        notes = [] if len(rows) > 1 else [_ONE_SEED if all_seeds else _NO_SEED]
        label = f"seed {all_seeds[0]}" if all_seeds else "the one prediction"
        return _SeedPairs(rows if seeds else [0], rows if other_seeds else [0], label, notes)
    common = [seed for seed in seeds if seed in other_seeds]
    notes = []
    if set(seeds) != set(other_seeds):
        result = f"compared over seeds {common}" if common else "no seed in common"
        lists = f"{reference.name} has {list(seeds)}, {other.name} {list(other_seeds)}"
        notes = [f"{result}: {lists}"]
    if len(common) == 1:
        notes.append(_ONE_SEED)
    label = f"seed {common[0]}" if common else ""
    first, second = ([known.index(seed) for seed in common] for known in (seeds, other_seeds))
    return _SeedPairs(first, second, label, notes)


def _test(reference: _Row, other: _Row, key: str, setting: _Setting) -> dict[str, Any]:
    """Compare two rows by one metric; Holm's adjustment comes later."""
    pairs = _pair_seeds(reference, other)
    notes = list(pairs.notes)
    test: dict[str, Any] = {
        "name": other.name,
        "metric": key,
        **dict.fromkeys(("difference", "low", "high")),
        **dict.fromkeys(("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm", "better")),
        "notes": notes,
    }
    # Without enough labels, or a common seed, every number stays None.
    too_few = _too_few(reference, key, setting)
    if too_few:
        notes.append(too_few)
    if too_few or not pairs.label:
        return test
    first = reference.metrics[key].of_seeds(pairs.reference)
    second = other.metrics[key].of_seeds(pairs.other)
    undefined = [
        note
        for row, values in ((reference, first.values), (other, second.values))
        if not np.isfinite(values).all()
        for note in _undefined_notes(row, key, setting)
    ]
    notes += undefined
    # The bootstrap over clips and seeds; then Wilcoxon over seeds and McNemar over clips.
    result = bootstrap_difference(first, second, seed=setting.seed)
    if result.undefined and not undefined:
        notes.append(_resample_note(key, result, setting.samples))
    for name, number in zip(("difference", "low", "high", "p_bootstrap"), result, strict=False):
        test[name] = None if math.isnan(number) else number
    values = np.broadcast_arrays(first.values, second.values)
    for name, p_value in (
        ("p_wilcoxon", wilcoxon_over_seeds(*(value.tolist() for value in values))),
        ("p_mcnemar", _mcnemar_of_first(reference, other, pairs, key, setting)),
    ):
        test[name] = p_value.p
        notes += [p_value.note] * bool(p_value.note)
    return test


def _mcnemar_of_first(
    reference: _Row, other: _Row, pairs: _SeedPairs, key: str, setting: _Setting
) -> PValue:
    """Test the first common seed; accuracies only."""
    if not key.startswith("acc"):
        return PValue(None, "")
    right = []
    for row, index in ((reference, pairs.reference[0]), (other, pairs.other[0])):
        choices = row.choices(key, index, setting)
        if choices is None:
            return PValue(None, f"McNemar: {key} is no single choice per clip")
        right.append((choices.truth == choices.prediction)[choices.counted])
    p_value = mcnemar(*right)
    several = max(len(pairs.reference), len(pairs.other)) > 1
    if several and not p_value.note:
        return p_value._replace(note=f"McNemar compares {pairs.label} alone")
    return p_value


def _too_few(reference: _Row, key: str, setting: _Setting) -> str:
    """Say why the labels are too few, or too much alike, for a test; empty where they are not."""
    num_clips = len(reference.predictions.ids)
    if num_clips < 2:
        return f"{key}: a test needs 2 clips with a label, there {_are(num_clips)}"
    choices = reference.choices(key, 0, setting)  # the labels are the same for every seed
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


def _undefined_notes(row: _Row, key: str, setting: _Setting) -> list[str]:
    """Name the seeds for which a metric is undefined, and say why."""
    scored = row.predictions
    notes = []
    for index in np.flatnonzero(~np.isfinite(row.metrics[key].values)):
        scores = scored.scores[index]
        warnings = task_metrics(setting.task, scored.truth, scores, preset=setting.preset).warnings
        why = next((warning for warning in warnings if key.split("_")[0] in warning), "undefined")
        seed = f", seed {scored.seeds[index]}" if scored.seeds else ""
        notes.append(f"{key} of {row.name}{seed}: {why}")
    return notes


def _resample_note(key: str, result: Bootstrap, samples: int) -> str:
    count = round(result.undefined * samples)
    fate = "were left out" if result.undefined <= MOST_UNDEFINED else "are too many for an interval"
    return f"{key}: {count} of {samples} resamples leave it undefined and {fate}"


def _table_notes(tests: Sequence[Mapping[str, Any]], samples: int) -> list[str]:
    num_made = sum(test["p_bootstrap"] is not None for test in tests)
    least = 2 * num_made / (samples + 1)
    if least < ALPHA:
        return []
    return [
        f"with {samples} resamples and {num_made} tests no p-value can fall below "
        f"{min(least, 1.0):.3g} after Holm: nothing can be significant here"
    ]


def _name_the_better(tests: list[dict[str, Any]], reference: str) -> None:
    """Adjust the p-values together and name the better of each pair, in place."""
    for test, p in zip(tests, holm([test["p_bootstrap"] for test in tests]), strict=True):
        test["p_holm"] = p
        if p is not None and p < ALPHA:
            is_better = (test["difference"] > 0) == higher_is_better(test["metric"])
            test["better"] = test["name"] if is_better else reference


def _best(
    rows: Mapping[str, _Row],
    metrics: Sequence[str],
    tests: Sequence[Mapping[str, Any]],
    setting: _Setting,
) -> dict[str, str | None]:
    """Return the leader of each metric, where every other row is significantly worse."""
    best: dict[str, str | None] = dict.fromkeys(metrics)
    duels: list[dict[str, Any]] = []
    for key in metrics:
        means = {name: row.mean(key) for name, row in rows.items()}
        means = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        if len(means) > 1:
            leader = (max if higher_is_better(key) else min)(means, key=means.__getitem__)
            best[key] = leader
            duels += [
                _test(rows[leader], rows[name], key, setting) for name in means if name != leader
            ]
    # A leader that may be equal to any other row is not bold.
    _name_the_better(duels, reference="")
    for duel in duels:
        if duel["better"] != "":
            best[duel["metric"]] = None
    for test in tests:  # no bold number without its dagger
        if test["name"] == best.get(test["metric"]) and test["better"] != test["name"]:
            best[test["metric"]] = None
    return best


def _floors(reference: _Row, metrics: Sequence[str], setting: _Setting) -> dict[str, float]:
    floors = {}
    for key in metrics:
        mean = reference.mean(key)
        if key.startswith("acc") and math.isfinite(mean):
            choices = reference.choices(key, 0, setting)
            if choices is not None:
                floors[key] = binomial_floor(mean, int(choices.counted.sum()))
    return floors
