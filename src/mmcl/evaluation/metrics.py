"""The field's metrics, in float64: the public functions, and what each preset means.

Published code disagrees on what "Acc-2" or "MAE" means, so a regression metric always
belongs to a preset, and the preset's name travels with the numbers:

=========== ============================ ============================ ======================
preset      with zero labels (``has0``)  without them (``non0``)      MAE, Corr, Acc-k
=========== ============================ ============================ ======================
``mmsa``    negative / non-negative      negative / positive          all items
``mult``    non-positive / positive      negative / positive          all items
``magbert`` (none)                       negative / non-negative      zero labels dropped
``sims``    non-positive / positive      (none)                       both sides clipped to ±1
=========== ============================ ============================ ======================

A label of zero is neutral. In a range that is none of the field's (1..5, 0..100) the neutral
score takes the place of zero, nothing is clipped, and Acc-7, Acc-5 and Acc-3 are left out: see
:func:`range_notes`.

Every value is a fraction, not a percentage, and is never rounded here. What cannot be
computed is nan, with the reason in :attr:`Metrics.warnings`; nothing is averaged around it.
The definitions themselves are in :mod:`mmcl.evaluation.item_sums`. In shapes, ``n`` are clips,
``k`` classes and ``e`` emotions that are judged one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE, is_field_range, neutral_score
from mmcl.errors import ConfigError, did_you_mean
from mmcl.evaluation.choices import (
    LABEL_DECIMALS,
    UNKNOWN,
    check_shapes,
    chosen_class,
    class_indices,
    class_inputs,
    emotion_inputs,
    has_one_emotion_each,
    name_keys,
    regression_inputs,
)
from mmcl.evaluation.item_sums import (
    FINE_METRICS,
    PRESETS,
    Metric,
    class_definitions,
    corr_fault,
    emotion_definitions,
    regression_definitions,
)

__all__ = [
    "LABEL_DECIMALS",
    "PRESETS",
    "UNKNOWN",
    "Metrics",
    "auroc",
    "class_indices",
    "class_metrics",
    "emotion_metrics",
    "higher_is_better",
    "metric_name",
    "range_notes",
    "regression_metrics",
    "task_metrics",
]

NOTHING_LEFT = "no item is left to score: every metric is undefined"
NO_TRUTH = "items have no truth and were left out"
NAN_IS_WRONG = "predictions are nan and count as wrong"
_NAMES = {
    "mae": "MAE",
    "corr": "Corr",
    "acc2": "Acc-2",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
    "accuracy": "Accuracy",
    "f1": "F1",
    "uar": "UAR",
    "recall": "recall",
    "auroc": "AUROC",
}
"""Parts of a metric's key, and how papers write them."""


class Metrics(NamedTuple):
    """Scores of one prediction.

    Attributes:
        values: Fractions by key, and ``mae`` in the label's own unit; nan where undefined.
        warnings: Why a value is undefined, and which items were left out.
        preset: The definition the values follow: one of :data:`PRESETS`, ``"classes"``
            or ``"emotions"``.
        count: Items that were scored.
    """

    values: dict[str, float]
    warnings: tuple[str, ...]
    preset: str
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def higher_is_better(key: str) -> bool:
    """Return False for ``mae`` and ``kept``, and True for every other metric.

    Raises:
        ConfigError: If no key of :attr:`Metrics.values` is called so.

    Example:
        >>> higher_is_better("mae"), higher_is_better("acc2_non0")
        (False, True)
    """
    stem = key.split("_")[0]
    if stem not in (*_NAMES, "kept") and not key.endswith("_auroc"):
        raise ConfigError(f'unknown metric "{key}"{did_you_mean(stem, list(_NAMES))}')
    return stem != "mae" and key != "kept"


def metric_name(key: str) -> str:
    """Return a metric's key as the field writes it.

    Example:
        >>> metric_name("acc2_non0"), metric_name("mae"), metric_name("recall_happy")
        ('Acc-2 non0', 'MAE', 'recall happy')
    """
    return " ".join(_NAMES.get(part, part) for part in key.split("_"))


def _values(
    definitions: Mapping[str, Metric], labels: NDArray[Any], scores: NDArray[np.float64]
) -> dict[str, float]:
    values = {key: metric(labels, scores).of_all() for key, metric in definitions.items()}
    # One and the same nan: two equal reports then compare as equal.
    return {key: math.nan if math.isnan(value) else value for key, value in values.items()}


def _count_warning(is_affected: NDArray[np.bool_], remark: str) -> list[str]:
    count = int(is_affected.sum())
    return [f"{count} of {is_affected.size} {remark}"] if count else []


def regression_metrics(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    preset: str = "mmsa",
    score_range: tuple[float, float] = FIELD_RANGE,
) -> Metrics:
    """Score real-valued predictions the way one family of published code does.

    Shuffling truth and prediction together changes nothing, and predicting the truth scores 1
    on every accuracy and F1.

    Args:
        truth: Labels, float, shape ``[n]``, in ``score_range``; nan where unknown.
        prediction: Predicted scores, float, shape ``[n]``, any range.
        preset: One of :data:`PRESETS`.
        score_range: Lowest and highest label there can be.

    Returns:
        Metrics with these keys, in this order, less those named in :func:`range_notes`.

        * ``mmsa``: ``mae, corr, acc7, acc5, acc3, acc2_has0, f1_has0, acc2_non0, f1_non0``.
        * ``sims``: ``acc2, acc3, acc5, f1, mae, corr``. A zero label is negative.
        * ``mult``: ``mae, corr, acc7, acc5``, then ``acc2_, f1_`` and ``f1_…_swapped`` of
          ``has0`` and of ``non0``. Its ``has0`` asks "above zero?" of all items, so that a
          zero label is negative. ``f1_…_swapped`` is what MulT printed: F1 with truth and
          prediction exchanged, which flatters a collapsed model. ``f1_…`` is right.
        * ``magbert``: ``mae, corr, acc7, acc2_non0, f1_non0``, all after the items with a
          zero label are dropped (``count`` is what is left); a prediction of exactly zero
          is positive there, and negative in ``non0`` of the others.

        A nan prediction is negative in ``has0`` and ``non0``, in no bin of ``acc3, acc5,
        acc7`` and of ``sims``, and makes ``mae`` and ``corr`` nan; so does an infinite one.

    Raises:
        ConfigError: If no preset is called so.
        ShapeError: If ``truth`` is not ``[n]`` or ``prediction`` has another shape.

    Source:
        MMSA's metricsTop.py (``mmsa``, ``sims``), MulT and MAG-BERT as the field's
        literature describes them. Differs on purpose: labels are rounded to 1e-6 before
        they meet zero or a bin's edge, so that a float32 copy of .1 is still .1 (the
        predictions too at the edges ±.1 and ±.7 of ``sims``, never at zero); Corr of a
        nearly constant prediction is undefined, not noise; nothing is rounded afterwards.

    Example:
        >>> metrics = regression_metrics([-2.0, 0.0, 1.0], [-1.0, -0.5, 2.0])
        >>> round(metrics.values["acc2_has0"], 3), metrics.values["acc2_non0"]
        (0.667, 1.0)
    """
    definitions = regression_definitions(preset, score_range)
    labels, scores = regression_inputs(truth, prediction, preset, score_range)
    values = _values(definitions, labels, scores)
    scored = ~np.isnan(labels)
    warnings = _count_warning(~np.isfinite(np.asarray(truth, dtype=np.float64)), NO_TRUTH)
    warnings += _undefined(values, labels[scored], scores[scored])
    return Metrics(values, tuple(warnings), preset, int(scored.sum()))


def _undefined(
    values: Mapping[str, float], truth: NDArray[np.float64], prediction: NDArray[np.float64]
) -> list[str]:
    """Say which regression metrics are undefined, and why."""
    if not truth.size:
        return [NOTHING_LEFT]
    warnings = _count_warning(
        ~np.isfinite(prediction), "predictions are not finite: mae and corr are undefined"
    )
    if not warnings and (fault := corr_fault(truth, prediction)):
        warnings.append(f"corr is undefined: {fault}")
    if math.isnan(values.get("acc2_non0", 0.0)):
        warnings.append("acc2_non0 and f1_non0 are undefined: every label is zero")
    return warnings


def class_metrics(
    truth: ArrayLike, scores: ArrayLike, *, names: Sequence[str] | None = None
) -> Metrics:
    """Score a choice of one class out of ``k``.

    Args:
        truth: Right classes, integer, shape ``[n]``, values in ``[0, k)``; -1 where unknown.
        scores: Logits, or any scores that grow with the belief, float, shape ``[n, k]``.
            The largest wins, the first of equals; a row with a nan is wrong.
        names: Names of the ``k`` classes, if their recalls are wanted too.

    Returns:
        Metrics with ``accuracy``, ``f1_weighted`` (by the counts in the truth), ``f1_macro``
        (over classes found in the truth or among the predictions), ``uar`` (mean recall of
        the classes found in the truth) and, with ``names``, ``recall_<name>`` in lower case.

    Raises:
        ShapeError: If the shapes do not fit each other or ``names``.
        ConfigError: If two names are the same.
        DatasetError: If ``truth`` holds something other than class indices.

    Example:
        >>> metrics = class_metrics([0, 1, 1], [[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
        >>> round(metrics.values["accuracy"], 3), metrics.values["uar"]
        (0.667, 0.75)
    """
    labels, logits = class_inputs(truth, scores)
    keys = [] if names is None else name_keys(names, "classes", logits)
    values = _values(class_definitions(keys), labels, logits)
    known = labels != UNKNOWN
    warnings = _count_warning(~known, NO_TRUTH)
    if known.any():
        warnings += _count_warning(chosen_class(logits[known]) == UNKNOWN, NAN_IS_WRONG)
        absent = sorted(set(range(logits.shape[1])) - set(labels.tolist()))
        if absent:
            warnings.append(f"classes {absent} never occur in the truth and do not count in uar")
    else:
        warnings.append(NOTHING_LEFT)
    return Metrics(values, tuple(warnings), "classes", int(known.sum()))


def emotion_metrics(truth: ArrayLike, scores: ArrayLike, names: Sequence[str]) -> Metrics:
    """Score a yes/no judgement per emotion, and the choice among them where there is one.

    Args:
        truth: 1 where the emotion is present, 0 where not, shape ``[n, e]``; a clip with a
            -1 has no truth.
        scores: Logits of (absent, present), float, shape ``[n, e, 2]``. Equal logits say
            absent; a nan is wrong.
        names: Names of the emotions, in order.

    Returns:
        Metrics with ``accuracy_<name>`` and ``f1_<name>`` (weighted over absent and present)
        for every name in lower case, their means ``accuracy_mean`` and ``f1_mean``, and,
        where every clip shows exactly one emotion, ``accuracy_single`` and
        ``f1_macro_single``: of the emotion with the largest ``present - absent`` margin.

    Raises:
        ShapeError: If the shapes do not fit each other or ``names``.
        ConfigError: If two names are the same, or one is "mean" or "single".
        DatasetError: If ``truth`` holds something other than 0, 1 and -1.

    Source:
        The IEMOCAP protocol of MulT. Adds the choice among the emotions, because four
        judgements about one and the same label are not independent.

    Example:
        >>> absent = [[[1.0, 0.0]]] * 4
        >>> emotion_metrics([[0], [1], [0], [0]], absent, ["Sad"]).values["accuracy_sad"]
        0.75
    """
    labels, logits = emotion_inputs(truth, scores)
    definitions = emotion_definitions(name_keys(names, "emotions", logits))
    if not has_one_emotion_each(labels):
        definitions = {k: v for k, v in definitions.items() if not k.endswith("_single")}
    values = _values(definitions, labels, logits)
    known = labels[:, 0] != UNKNOWN
    warnings = _count_warning(~known, NO_TRUTH)
    if known.any():
        is_nan = (chosen_class(logits[known]) == UNKNOWN).any(axis=1)
        warnings += _count_warning(is_nan, NAN_IS_WRONG)
    else:
        warnings.append(NOTHING_LEFT)
    return Metrics(values, tuple(warnings), "emotions", int(known.sum()))


def task_metrics(
    task: Task, truth: ArrayLike, scores: ArrayLike, *, preset: str = "mmsa"
) -> Metrics:
    """Score what a model returned for a task, with the metrics of that kind of task.

    Args:
        task: What was predicted.
        truth: ``[n]`` scores (nan where unknown), ``[n]`` class indices (-1 where unknown)
            or ``[n, e]`` 0/1 judgements (-1 where unknown).
        scores: ``[n]`` scores, ``[n, k]`` logits or ``[n, e, 2]`` logits.
        preset: One of :data:`PRESETS`; without effect on classes and emotions, but checked.

    Returns:
        Metrics of the clips with a truth, as :func:`regression_metrics`, :func:`class_metrics`
        and :func:`emotion_metrics` return and raise; every value is nan where no clip is left.

    Example:
        >>> task = Task(kind="regression", low=-3.0, high=3.0)
        >>> task_metrics(task, [1.0, float("nan")], [0.5, 0.5], preset="mmsa").warnings[0]
        '1 of 2 items have no truth and were left out'
    """
    regression_definitions(preset)  # an unknown preset is refused for every task
    if task.kind == "regression":
        score_range = task.score_range or FIELD_RANGE
        return regression_metrics(truth, scores, preset=preset, score_range=score_range)
    if task.kind == "classes":
        return class_metrics(truth, scores, names=task.names)
    return emotion_metrics(truth, scores, task.names)


def range_notes(task: Task, *, preset: str = "mmsa") -> list[str]:
    """Say what a preset means for the range of a task's scores, where it is not the field's own.

    Example:
        >>> range_notes(Task(kind="regression", low=-3, high=3))
        []
    """
    keys = [metric_name(key) for key in FINE_METRICS if key in regression_definitions(preset)]
    if task.score_range is None:
        return []
    low, high = task.score_range
    where, reach = f"scores lie in {low:g}..{high:g}", max(-low, high)
    if not is_field_range(low, high):
        zero = f"{neutral_score(low, high):g}"
        return [
            f"{where}: Acc-2 and F1 ask whether a score lies above or below {zero}, and a label of "
            f"{zero} counts as zero; left out, since their classes are those of -3..3: "
            f"{', '.join(keys)}"
        ]
    notes = []
    if low != -high:
        notes.append(f"{where}: 0 is taken for neutral, and metrics are those of the field's -3..3")
    if preset == "sims" and reach > 1:
        notes.append(
            f"{where}, and preset sims clips labels and predictions to -1..1 before it scores "
            "them; with --set evaluation.preset=mmsa it does not"
        )
    equal = [key for key in keys if int(key[-1]) > 2 * round(reach) + 1]
    if preset != "sims" and equal:
        notes.append(
            f"{where}: {' and '.join(equal)} can tell no more than {2 * round(reach) + 1} "
            "classes apart, since no score rounds to the others"
            + "; the field's metrics of -1..1: --set evaluation.preset=sims"
            * (reach == 1)
        )
    return notes


def auroc(positive: ArrayLike, score: ArrayLike) -> float:
    """Return the chance that a positive item outranks a negative one, ties counted half.

    Only the order of the scores matters, so infinite scores are welcome.

    Args:
        positive: True where an item is positive, bool, shape ``[n]``.
        score: Larger means more positive, float, shape ``[n]``.

    Returns:
        Area under the ROC curve in 0…1; nan where one of the two kinds of items is absent
        or a score is nan.

    Raises:
        ShapeError: If ``positive`` is not ``[n]`` or ``score`` has another shape.

    Example:
        >>> auroc([False, True, True], [0.1, 0.1, 0.7])
        0.75
    """
    is_positive = np.asarray(positive, dtype=np.bool_)
    values = np.asarray(score, dtype=np.float64)
    check_shapes("positive", is_positive, "items", "score", values, "items")
    if is_positive.all() or not is_positive.any() or np.isnan(values).any():
        return math.nan
    from scipy.stats import rankdata  # takes a second to import

    # Mann and Whitney: ranks of the positive items, less the least that they can sum to.
    num_positive = int(is_positive.sum())
    num_pairs = num_positive * (is_positive.size - num_positive)
    rank_sum = float(rankdata(values)[is_positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / num_pairs
