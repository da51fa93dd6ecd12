"""Definition of every metric, as a function of sums over items.

Each item adds a row of numbers, and a metric is computed from the sums of the rows. So a
bootstrap is a matrix product: a resample draws item i ``counts[i]`` times, and the sums of a
thousand resamples are ``counts @ items``. :mod:`mmcl.evaluation.metrics` takes each item once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE, is_field_range, sixth
from mmcl.errors import ConfigError, did_you_mean
from mmcl.evaluation import choices
from mmcl.evaluation.choices import Choices

__all__ = [
    "FINE_METRICS",
    "PRESETS",
    "ClassCounts",
    "ItemSums",
    "Metric",
    "class_definitions",
    "corr_fault",
    "emotion_definitions",
    "item_sums",
    "regression_definitions",
    "summable_metrics",
]

NEARLY_CONSTANT = 1e-6
"""A range this small against the values' own size (eight float32 ulps) holds no signal."""

SPREAD = 1e-12
"""A variance below this is rounding, where the variance over all items is 1."""

_Floats = NDArray[np.float64]
_Labels = NDArray[Any]
_Value = Callable[[_Floats], _Floats]


class ItemSums(NamedTuple):
    """One metric of one prediction.

    Attributes:
        items: Row of every item, float64 ``[n, k]``: zeros where it does not count, nan where
            it makes the metric undefined.
        value: The metric from sums of rows, ``[..., k]`` -> ``[...]``; nan where undefined.
        choices: The classes that are compared; None for ``mae``, ``corr`` and means over emotions.
    """

    items: _Floats
    value: _Value
    choices: Choices | None = None

    def of_all(self) -> float:
        """Return the metric over all items, each counted once."""
        with np.errstate(over="ignore"):  # an MAE beyond float64 is infinite
            return float(self.value(self.items.sum(axis=0)))


Metric = Callable[[_Labels, _Floats], ItemSums]
"""Definition of a metric: checked labels and scores -> what they add up to."""


# ---------------------------------------------------------------- accuracy, F1 and recall


def _divide(above: NDArray[Any], below: NDArray[Any]) -> _Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, np.nan, above / below)


def _ratio(sums: _Floats) -> _Floats:
    """Divide a total by the number of items it is over, ``[..., 2]``."""
    return _divide(sums[..., 0], sums[..., 1])


def _mean(values: _Floats, weights: NDArray[Any]) -> _Floats:
    """Average over classes; a class whose value is undefined must weigh nothing."""
    return _divide((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


class ClassCounts(NamedTuple):
    """Items of each class that are right, in the truth, and predicted, each ``[..., c]``."""

    right: NDArray[Any]
    in_truth: NDArray[Any]
    predicted: NDArray[Any]

    def f1(self) -> _Floats:
        """Return 0 for a class only missed or only invented, nan for one that nobody has."""
        return _divide(2 * self.right, self.in_truth + self.predicted)

    def recall(self) -> _Floats:
        """Return nan for a class that the truth does not have."""
        return _divide(self.right, self.in_truth)

    def weighted_f1(self) -> _Floats:
        """Weigh each class by its items in the truth."""
        return _mean(self.f1(), self.in_truth)

    def swapped_f1(self) -> _Floats:
        """Weigh each class by its predictions: MulT hands F1 its arguments swapped."""
        return _mean(self.f1(), self.predicted)

    def macro_f1(self) -> _Floats:
        """Average over the classes found in the truth or among the predictions."""
        return _mean(self.f1(), ~np.isnan(self.f1()))

    def mean_recall(self) -> _Floats:
        """Average over the classes found in the truth: UAR."""
        return _mean(self.recall(), self.in_truth > 0)


def _counts(sums: _Floats) -> ClassCounts:
    """Split ``[..., 3 c]``, as :func:`_count_items` lays them side by side."""
    parts = sums.reshape(*sums.shape[:-1], 3, -1)
    return ClassCounts(parts[..., 0, :], parts[..., 1, :], parts[..., 2, :])


def _right_items(compared: Choices) -> _Floats:
    right = (compared.truth == compared.prediction) & compared.counted
    return np.stack([right, compared.counted], axis=1).astype(np.float64)  # [n, 2]


def _count_items(compared: Choices) -> _Floats:
    classes = np.arange(compared.num_classes)
    truth = (compared.truth[:, None] == classes) & compared.counted[:, None]
    predicted = (compared.prediction[:, None] == classes) & compared.counted[:, None]
    parts = [truth & predicted, truth, predicted]
    return np.concatenate(parts, axis=1).astype(np.float64)  # [n, 3 c]


def _accuracy(choose: Callable[..., Choices], **settings: Any) -> Metric:
    def accuracy(labels: _Labels, scores: _Floats) -> ItemSums:
        compared = choose(labels, scores, **settings)
        return ItemSums(_right_items(compared), _ratio, compared)

    return accuracy


def _by_class(
    value: Callable[[ClassCounts], _Floats], choose: Callable[..., Choices], **settings: Any
) -> Metric:
    def metric(labels: _Labels, scores: _Floats) -> ItemSums:
        compared = choose(labels, scores, **settings)
        return ItemSums(_count_items(compared), lambda sums: value(_counts(sums)), compared)

    return metric


# ---------------------------------------------------------------- MAE and correlation


def _only_counted(labels: _Floats, scores: _Floats) -> tuple[_Floats, _Floats]:
    """Drop the items without a label, and turn infinite scores into nan."""
    counted = ~np.isnan(labels)
    return labels[counted], np.where(np.isfinite(scores), scores, np.nan)[counted]


def _spread_out(rows: _Floats, labels: _Floats) -> _Floats:
    """Give the items without a label a row of zeros."""
    items = np.zeros((len(labels), rows.shape[1]))
    items[~np.isnan(labels)] = rows
    return items


def _mae(labels: _Floats, scores: _Floats) -> ItemSums:
    truth, prediction = _only_counted(labels, scores)
    with np.errstate(over="ignore"):
        distance = np.abs(prediction - truth)
    rows = np.stack([distance, np.ones_like(distance)], axis=1)
    return ItemSums(_spread_out(rows, labels), _ratio)


def _mae_in(unit: float) -> Metric:
    """Return the MAE in the label's own unit, from labels and scores divided by ``unit``."""

    def mae(labels: _Floats, scores: _Floats) -> ItemSums:
        return _mae(labels * unit, scores * unit)

    return mae


def _corr(labels: _Floats, scores: _Floats) -> ItemSums:
    truth, prediction = _only_counted(labels, scores)
    if not truth.size or np.isnan(prediction).any() or corr_fault(truth, prediction):
        rows = np.full((len(truth), 6), np.nan)
    else:
        t, p = _standardised(truth), _standardised(prediction)
        rows = np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], axis=1)
    return ItemSums(_spread_out(rows, labels), _pearson)


def _standardised(values: _Floats) -> _Floats:
    """Shift to mean 0 and variance 1, so that no digit is lost when squares are subtracted."""
    scaled = values / np.abs(values).max()  # so that no square overflows
    centred = scaled - scaled.mean()
    standardised: _Floats = centred / centred.std()
    return standardised


def _pearson(sums: _Floats) -> _Floats:
    """Correlate, from the sums of :func:`_corr`, ``[..., 6]``."""
    count = np.where(sums[..., 0] == 0, np.nan, sums[..., 0])
    t, p, tt, pp, tp = (sums[..., i] / count for i in range(1, 6))
    spread_t, spread_p = tt - t * t, pp - p * p
    too_small = (spread_t < SPREAD) | (spread_p < SPREAD)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (tp - t * p) / np.sqrt(spread_t * spread_p)
    return np.where(too_small, np.nan, np.clip(r, -1.0, 1.0))


def corr_fault(truth: _Floats, prediction: _Floats) -> str:
    """Say why finite values, at least one, have no Pearson r; empty where they have one."""
    truth_size, size = float(np.abs(truth).max()), float(np.abs(prediction).max())
    if truth.size == 1:
        return "there is only one item"
    if _is_flat(truth, truth_size):
        return "the truth is constant or nearly constant"
    # Noise of 1e-12 around zero is as constant as noise of 1e-12 around one.
    if _is_flat(prediction, max(size, truth_size)):
        return "the prediction is constant or nearly constant"
    return ""


def _is_flat(values: _Floats, size: float) -> bool:
    return size == 0.0 or float(np.ptp(values / size)) <= NEARLY_CONSTANT


# ---------------------------------------------------------------- definitions

_f1 = partial(_by_class, ClassCounts.weighted_f1)
_swapped_f1 = partial(_by_class, ClassCounts.swapped_f1)
_macro_f1 = partial(_by_class, ClassCounts.macro_f1)

_DISTANCES: dict[str, Metric] = {"mae": _mae, "corr": _corr}

_PRESET_TO_METRICS: dict[str, dict[str, Metric]] = {
    "mmsa": {
        **_DISTANCES,
        "acc7": _accuracy(choices.rounded, limit=3),
        "acc5": _accuracy(choices.rounded, limit=2),
        "acc3": _accuracy(choices.rounded, limit=1),
        "acc2_has0": _accuracy(choices.non_negative),
        "f1_has0": _f1(choices.non_negative),
        "acc2_non0": _accuracy(choices.positive_without_zeros),
        "f1_non0": _f1(choices.positive_without_zeros),
    },
    "sims": {
        "acc2": _accuracy(choices.binned, edges=(0.0,)),
        "acc3": _accuracy(choices.binned, edges=(-0.1, 0.1)),
        "acc5": _accuracy(choices.binned, edges=(-0.7, -0.1, 0.1, 0.7)),
        "f1": _f1(choices.binned, edges=(0.0,)),
        **_DISTANCES,
    },
    "mult": {
        **_DISTANCES,
        "acc7": _accuracy(choices.rounded, limit=3),
        "acc5": _accuracy(choices.rounded, limit=2),
        "acc2_has0": _accuracy(choices.positive),
        "f1_has0": _f1(choices.positive),
        "f1_has0_swapped": _swapped_f1(choices.positive),
        "acc2_non0": _accuracy(choices.positive_without_zeros),
        "f1_non0": _f1(choices.positive_without_zeros),
        "f1_non0_swapped": _swapped_f1(choices.positive_without_zeros),
    },
    "magbert": {
        **_DISTANCES,
        "acc7": _accuracy(choices.rounded, limit=3),
        "acc2_non0": _accuracy(choices.non_negative),
        "f1_non0": _f1(choices.non_negative),
    },
}

PRESETS: tuple[str, ...] = tuple(_PRESET_TO_METRICS)
"""Names of the regression presets; the first is the default."""


FINE_METRICS: tuple[str, ...] = ("acc7", "acc5", "acc3")
"""Metrics whose classes are defined by scores of the field's ranges, and of no other range."""


def regression_definitions(
    preset: str, score_range: tuple[float, float] = FIELD_RANGE
) -> dict[str, Metric]:
    """Return the metrics of a preset by key; an unknown preset raises ConfigError.

    In a range that is none of the field's, :data:`FINE_METRICS` are left out.
    """
    if preset not in PRESETS:
        raise ConfigError(
            f'unknown metric preset "{preset}"{did_you_mean(preset, PRESETS)}\n'
            f"  Presets: {', '.join(PRESETS)}"
        )
    metrics = _PRESET_TO_METRICS[preset]
    if is_field_range(*score_range):
        return metrics
    kept = {key: metric for key, metric in metrics.items() if key not in FINE_METRICS}
    return kept | {"mae": _mae_in(sixth(*score_range))}


def class_definitions(keys: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of a choice among classes, with a recall per key."""

    def recall_of(index: int) -> Metric:
        return _by_class(lambda counts: counts.recall()[..., index], choices.largest_logit)

    return {
        "accuracy": _accuracy(choices.largest_logit),
        "f1_weighted": _f1(choices.largest_logit),
        "f1_macro": _macro_f1(choices.largest_logit),
        "uar": _by_class(ClassCounts.mean_recall, choices.largest_logit),
        **{f"recall_{key}": recall_of(index) for index, key in enumerate(keys)},
    }


def emotion_definitions(keys: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of yes/no judgements, and of the choice among several emotions."""

    # Every emotion is judged on the same clips, so a mean over emotions has sums, too.
    def judgements(labels: _Labels, scores: _Floats) -> list[Choices]:
        indices = range(len(keys))
        return [choices.present_or_absent(labels, scores, index=index) for index in indices]

    def mean_accuracy(labels: _Labels, scores: _Floats) -> ItemSums:
        rows = [_right_items(compared) for compared in judgements(labels, scores)]
        return ItemSums(np.mean(rows, axis=0), _ratio)

    def mean_f1(labels: _Labels, scores: _Floats) -> ItemSums:
        rows = [_count_items(compared) for compared in judgements(labels, scores)]
        return ItemSums(np.concatenate(rows, axis=1), mean_of_f1)

    def mean_of_f1(sums: _Floats) -> _Floats:
        by_emotion = sums.reshape(*sums.shape[:-1], len(keys), -1)  # [..., e, 3 * 2]
        mean: _Floats = _counts(by_emotion).weighted_f1().mean(axis=-1)
        return mean

    metrics: dict[str, Metric] = {}
    for index, key in enumerate(keys):
        metrics[f"accuracy_{key}"] = _accuracy(choices.present_or_absent, index=index)
        metrics[f"f1_{key}"] = _f1(choices.present_or_absent, index=index)
    metrics |= {"accuracy_mean": mean_accuracy, "f1_mean": mean_f1}
    if len(keys) > 1:
        metrics["accuracy_single"] = _accuracy(choices.largest_margin)
        metrics["f1_macro_single"] = _macro_f1(choices.largest_margin)
    return metrics


# ---------------------------------------------------------------- by task


def _definitions(task: Task, preset: str) -> dict[str, Metric]:
    if task.kind == "regression":
        return regression_definitions(preset, task.score_range or FIELD_RANGE)
    keys = [name.lower() for name in task.names]
    return class_definitions(keys) if task.kind == "classes" else emotion_definitions(keys)


def summable_metrics(task: Task, *, preset: str = "mmsa") -> tuple[str, ...]:
    """Return the keys of the metrics that are functions of sums: all but areas under a curve.

    Example:
        >>> summable_metrics(Task(kind="regression", low=-1, high=1), preset="magbert")
        ('mae', 'corr', 'acc7', 'acc2_non0', 'f1_non0')
    """
    return tuple(_definitions(task, preset))


def item_sums(
    key: str, task: Task, truth: ArrayLike, scores: ArrayLike, *, preset: str = "mmsa"
) -> ItemSums:
    """Return what every item adds to a metric, and the metric as a function of the sums.

    ``key`` is one of :func:`summable_metrics`; the other arguments, and what they raise, are
    those of :func:`~mmcl.evaluation.metrics.task_metrics`. An item without a truth adds zeros.

    Raises:
        ConfigError: If the task has no such metric, or it is no function of sums.

    Example:
        >>> task = Task(kind="regression", low=-3, high=3)
        >>> sums = item_sums("mae", task, [1.0, -2.0], [0.5, -1.0])
        >>> sums.items.tolist(), sums.of_all()
        ([[0.5, 1.0], [1.0, 1.0]], 0.75)
    """
    definitions = _definitions(task, preset)
    if key not in definitions:
        raise ConfigError(
            f'no metric "{key}" of {task.kind} is a function of sums over clips'
            f"{did_you_mean(key, definitions)}\n  Those that are: {', '.join(definitions)}"
        )
    if task.kind == "regression":
        score_range = task.score_range or FIELD_RANGE
        return definitions[key](*choices.regression_inputs(truth, scores, preset, score_range))
    check = choices.class_inputs if task.kind == "classes" else choices.emotion_inputs
    labels, logits = check(truth, scores)
    choices.name_keys(task.names, task.kind, logits)
    return definitions[key](labels, logits)
