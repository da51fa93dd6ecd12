"""Every metric as a function of sums over items, so that resampling is a matrix product.

A resample draws item i ``counts[i]`` times; with the statistics of every item in a matrix, the
sums of a thousand resamples are ``counts @ items``, and the metric follows from the sums. What
is right, and which side or bin a score falls into, is asked of :mod:`mmcl.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, did_you_mean
from mmcl.evaluation.metrics import (
    UNKNOWN,
    Choices,
    Pairs,
    chosen_class,
    class_indices,
    corr_fault,
    regression_choices,
    regression_pairs,
)

__all__ = ["ItemSums", "counted_choices", "item_sums", "summable_metrics"]

SPREAD = 1e-12
"""Variance, of values whose variance over all items is 1, that is rounding and no spread."""

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Bools = NDArray[np.bool_]
_Value = Callable[[_Floats], _Floats]


class ItemSums(NamedTuple):
    """One metric of one prediction.

    Attributes:
        items: What every item adds, float64 ``[n, k]``: zeros where it does not count, nan
            where it makes the metric undefined.
        value: The metric from sums over items, ``[..., k]`` -> ``[...]``; nan where undefined.
    """

    items: _Floats
    value: _Value

    def of_all(self) -> float:
        """The metric over all items, each counted once."""
        return float(self.value(self.items.sum(axis=0)))


# ---------------------------------------------------------------- from sums to values


def _ratio(sums: _Floats) -> _Floats:
    """``[..., 2]``: a total and the number of items it is over."""
    return _divide(sums[..., 0], sums[..., 1])


def _divide(above: _Floats, below: _Floats) -> _Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, np.nan, above / below)


def _by_class(sums: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """``[..., 3 c]`` as hits, items in the truth and items predicted, each ``[..., c]``."""
    num_classes = sums.shape[-1] // 3
    parts = sums.reshape(*sums.shape[:-1], 3, num_classes)
    return parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]


def _f1_by_class(hits: _Floats, in_truth: _Floats, predicted: _Floats) -> _Floats:
    """0 for a class that is only missed or only invented, nan for one that nobody has."""
    return _divide(2 * hits, in_truth + predicted)


def _weighted_f1(sums: _Floats) -> _Floats:
    hits, in_truth, predicted = _by_class(sums)
    f1 = np.nan_to_num(_f1_by_class(hits, in_truth, predicted))
    return _divide((f1 * in_truth).sum(axis=-1), in_truth.sum(axis=-1))


def _swapped_f1(sums: _Floats) -> _Floats:
    hits, in_truth, predicted = _by_class(sums)
    f1 = np.nan_to_num(_f1_by_class(hits, in_truth, predicted))
    return _divide((f1 * predicted).sum(axis=-1), predicted.sum(axis=-1))


def _macro_f1(sums: _Floats) -> _Floats:
    return _mean_of_defined(_f1_by_class(*_by_class(sums)))


def _mean_recall(sums: _Floats) -> _Floats:
    hits, in_truth, _ = _by_class(sums)
    return _mean_of_defined(_divide(hits, in_truth))


def _mean_of_defined(values: _Floats) -> _Floats:
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _recall_of(index: int) -> _Value:
    def value(sums: _Floats) -> _Floats:
        hits, in_truth, _ = _by_class(sums)
        return _divide(hits[..., index], in_truth[..., index])

    return value


def _mean_f1(num_emotions: int) -> _Value:
    def value(sums: _Floats) -> _Floats:
        each = sums.reshape(*sums.shape[:-1], num_emotions, -1)  # [..., e, 6]
        f1: _Floats = _weighted_f1(each).mean(axis=-1)
        return f1

    return value


def _pearson(sums: _Floats) -> _Floats:
    """``[..., 6]``: items, t, p, t², p², t p, of values standardised over all items."""
    count = np.where(sums[..., 0] == 0, np.nan, sums[..., 0])
    t, p, tt, pp, tp = (sums[..., i] / count for i in range(1, 6))
    spread_t, spread_p = tt - t * t, pp - p * p
    too_small = (spread_t < SPREAD) | (spread_p < SPREAD)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (tp - t * p) / np.sqrt(spread_t * spread_p)
    return np.where(too_small, np.nan, np.clip(r, -1.0, 1.0))


# ---------------------------------------------------------------- from items to statistics


def _match_items(choices: Choices) -> _Floats:
    right = (choices.truth == choices.prediction) & choices.counted
    return np.stack([right, choices.counted], axis=1).astype(np.float64)  # [n, 2]


def _class_items(choices: Choices) -> _Floats:
    classes = np.arange(choices.num_classes)
    truth = (choices.truth[:, None] == classes) & choices.counted[:, None]
    predicted = (choices.prediction[:, None] == classes) & choices.counted[:, None]
    parts = [truth & predicted, truth, predicted]
    return np.concatenate(parts, axis=1).astype(np.float64)  # [n, 3 c]


def _of_accuracy(choices: Choices) -> ItemSums:
    return ItemSums(_match_items(choices), _ratio)


def _of_classes(choices: Choices, value: _Value) -> ItemSums:
    return ItemSums(_class_items(choices), value)


def _of_mae(pairs: Pairs) -> ItemSums:
    distance = np.abs(_finite_or_nan(pairs.prediction) - pairs.truth)
    return ItemSums(np.stack([distance, np.ones_like(distance)], axis=1), _ratio)


def _of_corr(pairs: Pairs) -> ItemSums:
    prediction = _finite_or_nan(pairs.prediction)
    items = np.full((len(prediction), 6), np.nan)
    defined = len(prediction) > 0 and not np.isnan(prediction).any()
    if defined and not corr_fault(pairs.truth, prediction):
        t, p = _standardised(pairs.truth), _standardised(prediction)
        items = np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], axis=1)
    return ItemSums(items, _pearson)


def _finite_or_nan(values: _Floats) -> _Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _standardised(values: _Floats) -> _Floats:
    """Mean 0 and variance 1 over all items: no digit is lost when squares are subtracted."""
    scaled = values / np.abs(values).max()  # so that no square overflows
    centred = scaled - scaled.mean()
    result: _Floats = centred / centred.std()
    return result


# ---------------------------------------------------------------- by task


def counted_choices(
    key: str, task: Task, truth: ArrayLike, scores: ArrayLike, *, preset: str = "mmsa"
) -> Choices | None:
    """The two classes that a metric compares, item by item.

    Args:
        key: A metric of :func:`summable_metrics`.
        task: What was predicted.
        truth: As for :func:`~mmcl.evaluation.metrics.task_metrics`.
        scores: As for it.
        preset: Definition of the regression metrics.

    Returns:
        Choices of all ``n`` items, those without a truth not counted; None for ``mae``,
        ``corr`` and the means over emotions, which do not come from one choice per item.
    """
    if task.kind == "regression":
        pairs = regression_pairs(truth, scores, preset=preset)
        name = next((part for part in ("has0", "non0") if part in key.split("_")), key)
        name = "acc2" if name == "f1" else name
        choices = regression_choices(pairs, preset=preset).get(name)
        return None if choices is None else _spread(choices, pairs.kept)
    if task.kind == "classes":
        return _class_choices(task, truth, scores)
    labels, logits, known = _emotions(task, truth, scores)
    if key.endswith("_single"):
        return _single_choices(labels, logits, known)
    names = [name.lower() for name in task.names]
    name = key.split("_", 1)[1]
    if name not in names:
        return None
    at = names.index(name)
    return Choices(labels[:, at], chosen_class(logits)[:, at], known, 2)


def _spread(choices: Choices, kept: _Bools) -> Choices:
    """Choices of the items kept, laid out over all items."""
    truth, prediction = (np.full(kept.shape, UNKNOWN, dtype=np.int64) for _ in range(2))
    counted = np.zeros(kept.shape, dtype=np.bool_)
    truth[kept], prediction[kept], counted[kept] = choices[:3]
    return Choices(truth, prediction, counted, choices.num_classes)


def _class_choices(task: Task, truth: ArrayLike, scores: ArrayLike) -> Choices:
    labels = class_indices(truth, len(task.names))
    chosen = chosen_class(np.asarray(scores, dtype=np.float64))
    return Choices(labels, chosen, labels != UNKNOWN, len(task.names))


def _emotions(task: Task, truth: ArrayLike, scores: ArrayLike) -> tuple[_Integers, _Floats, _Bools]:
    labels = class_indices(truth, 2).reshape(-1, len(task.names))
    logits = np.asarray(scores, dtype=np.float64).reshape(-1, len(task.names), 2)
    return labels, logits, (labels != UNKNOWN).all(axis=1)


def _single_choices(labels: _Integers, logits: _Floats, known: _Bools) -> Choices:
    with np.errstate(invalid="ignore"):  # two infinite logits: a nan margin, counted as wrong
        margin = logits[:, :, 1] - logits[:, :, 0]  # [n, e]
    shows_one = bool((labels[known].sum(axis=1) == 1).all())
    counted = known if shows_one else np.zeros_like(known)
    return Choices(labels.argmax(axis=1), chosen_class(margin), counted, labels.shape[1])


_CLASS_VALUES: dict[str, _Value] = {
    "f1_weighted": _weighted_f1,
    "f1_macro": _macro_f1,
    "f1_macro_single": _macro_f1,
    "uar": _mean_recall,
}


def summable_metrics(task: Task, *, preset: str = "mmsa") -> tuple[str, ...]:
    """Keys of the metrics that are functions of sums over items: all but the areas.

    Args:
        task: What was predicted.
        preset: Definition of the regression metrics.

    Example:
        >>> summable_metrics(Task(kind="regression", low=-1, high=1), preset="magbert")
        ('mae', 'corr', 'acc7', 'acc2_non0', 'f1_non0')
    """
    if task.kind == "regression":
        nothing = regression_pairs([], [], preset=preset)
        names = list(regression_choices(nothing, preset=preset))
        keys = ["mae", "corr", *(name for name in names if name not in ("has0", "non0"))]
        for side in (name for name in names if name in ("has0", "non0")):
            keys += [f"acc2_{side}", f"f1_{side}"]
            keys += [f"f1_{side}_swapped"] * (preset == "mult")
        return (*keys, *(["f1"] * (preset == "sims")))
    names = [name.lower() for name in task.names]
    if task.kind == "classes":
        return ("accuracy", "f1_weighted", "f1_macro", "uar", *(f"recall_{n}" for n in names))
    single = ("accuracy_single", "f1_macro_single") if len(names) > 1 else ()
    each = (f"{stem}_{name}" for name in [*names, "mean"] for stem in ("accuracy", "f1"))
    return (*each, *single)


def item_sums(
    key: str, task: Task, truth: ArrayLike, scores: ArrayLike, *, preset: str = "mmsa"
) -> ItemSums:
    """Take a metric apart into what every item adds to it.

    Summed over all items it is the value of
    :func:`~mmcl.evaluation.metrics.task_metrics`, up to rounding.

    Args:
        key: A metric of :func:`summable_metrics`.
        task: What was predicted.
        truth: ``[n]`` scores, ``[n]`` class indices or ``[n, e]`` judgements.
        scores: ``[n]``, ``[n, c]`` logits or ``[n, e, 2]`` logits.
        preset: Definition of the regression metrics.

    Returns:
        The statistics of all ``n`` items; an item without a truth adds nothing.

    Raises:
        ConfigError: If the task has no such metric, or it is no function of sums.
        ShapeError: If the shapes do not fit each other.
        DatasetError: If ``truth`` holds something that is not a label of the task.

    Shapes:
        ``n`` clips, ``c`` classes, ``e`` emotions, ``k`` statistics.

    Example:
        >>> task = Task(kind="regression", low=-3, high=3)
        >>> sums = item_sums("mae", task, [1.0, -2.0], [0.5, -1.0])
        >>> sums.items.tolist(), sums.of_all()
        ([[0.5, 1.0], [1.0, 1.0]], 0.75)
    """
    known = summable_metrics(task, preset=preset)
    if key not in known:
        raise ConfigError(
            f'no metric "{key}" of {task.kind} is a function of sums over clips'
            f"{did_you_mean(key, known)}\n  Those that are: {', '.join(known)}"
        )
    choices = counted_choices(key, task, truth, scores, preset=preset)
    if choices is not None:
        return _of_choices(key, task, choices)
    if task.kind == "regression":
        pairs = regression_pairs(truth, scores, preset=preset)
        each = _of_mae(pairs) if key == "mae" else _of_corr(pairs)
        items = np.zeros((len(pairs.kept), each.items.shape[1]))
        items[pairs.kept] = each.items
        return ItemSums(items, each.value)
    return _of_emotions(key, task, truth, scores)


def _of_choices(key: str, task: Task, choices: Choices) -> ItemSums:
    if key.startswith("acc"):
        return _of_accuracy(choices)
    if key.startswith("recall_"):
        names = [name.lower() for name in task.names]
        return _of_classes(choices, _recall_of(names.index(key.removeprefix("recall_"))))
    if key.endswith("_swapped"):
        return _of_classes(choices, _swapped_f1)
    return _of_classes(choices, _CLASS_VALUES.get(key, _weighted_f1))


def _of_emotions(key: str, task: Task, truth: ArrayLike, scores: ArrayLike) -> ItemSums:
    """The means over emotions; every emotion is judged on the same clips."""
    labels, logits, known = _emotions(task, truth, scores)
    judged = chosen_class(logits)  # [n, e]
    each = [Choices(labels[:, i], judged[:, i], known, 2) for i in range(labels.shape[1])]
    if key == "accuracy_mean":
        return ItemSums(np.mean([_match_items(one) for one in each], axis=0), _ratio)
    items = np.concatenate([_class_items(one) for one in each], axis=1)
    return ItemSums(items, _mean_f1(len(each)))
