"""The field's metrics, each defined once, in float64.

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

Every value is a fraction, not a percentage, and is never rounded here. What cannot be
computed is nan, with the reason in :attr:`Metrics.warnings`; nothing is averaged around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError, did_you_mean

__all__ = [
    "LABEL_DECIMALS",
    "PRESETS",
    "UNKNOWN",
    "Choices",
    "Metrics",
    "Pairs",
    "auroc",
    "chosen_class",
    "class_indices",
    "class_metrics",
    "corr_fault",
    "emotion_metrics",
    "higher_is_better",
    "regression_choices",
    "regression_metrics",
    "regression_pairs",
    "task_metrics",
]

LABEL_DECIMALS = 6
"""Labels are rounded to this before they are compared with zero or with a bin's edge."""

NEARLY_CONSTANT = 1e-6
"""A range this small against the values' own size (eight float32 ulps) holds no signal."""

SIMS_EDGES = {
    "acc2": (0.0,),
    "acc3": (-0.1, 0.1),
    "acc5": (-0.7, -0.1, 0.1, 0.7),
}
"""Inner edges of the CH-SIMS bins, which are open on the left and closed on the right."""

UNKNOWN = -1
"""The class of an item without truth, and of a prediction that is nan: it matches nothing."""

NOTHING_LEFT = "no item is left to score: every metric is undefined"
_STEMS = ("mae", "corr", "acc2", "acc3", "acc5", "acc7", "accuracy", "f1", "uar", "recall", "auroc")

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Bools = NDArray[np.bool_]


class Metrics(NamedTuple):
    """What one prediction scored.

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
    """Say in which direction a metric improves.

    Args:
        key: A key of :attr:`Metrics.values`, ``"f1_happy"`` for example.

    Returns:
        False for ``mae``, True for every other metric.

    Raises:
        ConfigError: If no metric is called so.

    Example:
        >>> higher_is_better("mae"), higher_is_better("acc2_non0")
        (False, True)
    """
    stem = key.split("_")[0]
    if stem not in _STEMS and not key.endswith("_auroc"):
        raise ConfigError(f'unknown metric "{key}"{did_you_mean(stem, _STEMS)}')
    return stem != "mae"


# ---------------------------------------------------------------- checks shared by all


def _check_preset(preset: str) -> None:
    if preset not in PRESETS:
        raise ConfigError(
            f'unknown metric preset "{preset}"{did_you_mean(preset, PRESETS)}\n'
            f"  Presets: {', '.join(PRESETS)}"
        )


def _check_axes(name: str, array: NDArray[Any], axes: str) -> None:
    num_axes = axes.count(",") + 1
    if array.ndim != num_axes:
        raise ShapeError(f"{name} must be {num_axes}-D [{axes}], got shape {list(array.shape)}")


def _check_match(
    name: str, array: NDArray[Any], axes: str, other_name: str, other: NDArray[Any]
) -> None:
    expected = list(other.shape[: axes.count(",") + 1])
    if list(array.shape) != expected:
        raise ShapeError(
            f"{name} must have shape {expected} [{axes}] to match {other_name} "
            f"{list(other.shape)}, got {list(array.shape)}"
        )


def class_indices(truth: ArrayLike, num_classes: int, name: str = "truth") -> _Integers:
    """Read labels that are class indices.

    Args:
        truth: Integers, or floats without a fraction, any shape; -1 or nan where unknown.
        num_classes: How many classes there are.
        name: What the error message calls ``truth``.

    Returns:
        int64 of the same shape, :data:`UNKNOWN` where unknown.

    Raises:
        DatasetError: If a value is not the index of a class.

    Example:
        >>> class_indices([2.0, float("nan")], 3).tolist()
        [2, -1]
    """
    given = np.asarray(truth, dtype=np.float64)
    filled = np.where(np.isnan(given), UNKNOWN, given)
    allowed = np.isin(filled, np.arange(UNKNOWN, num_classes))
    if not allowed.all():
        raise DatasetError(
            f"{name} must hold class indices from 0 to {num_classes - 1}, or {UNKNOWN} where "
            f"unknown, got {float(filled[~allowed][0])!r}"
        )
    return filled.astype(np.int64)


def _left_out(known: _Bools) -> list[str]:
    num_unknown = int((~known).sum())
    if not num_unknown:
        return []
    return [f"{num_unknown} of {known.size} items have no truth and were left out"]


def _nan_warning(is_nan: _Bools) -> list[str]:
    if not is_nan.any():
        return []
    return [f"{int(is_nan.sum())} of {is_nan.size} predictions are nan and count as wrong"]


# ---------------------------------------------------------------- pieces of a metric


def _share(match: _Bools) -> float:
    return float(match.mean()) if match.size else math.nan


def _f1(truth: NDArray[Any], prediction: NDArray[Any], average: str = "weighted") -> float:
    """F1 over the classes seen on either side; a nan prediction is not a class of its own."""
    if not truth.size:
        return math.nan
    seen = np.union1d(truth, prediction)
    labels = seen[seen != UNKNOWN]
    return float(f1_score(truth, prediction, labels=labels, average=average, zero_division=0.0))


def chosen_class(scores: _Floats) -> _Integers:
    """Index of the largest score along the last axis, the first of equals; -1 beside a nan."""
    has_nan = np.isnan(scores).any(axis=-1)
    return np.where(has_nan, UNKNOWN, scores.argmax(axis=-1)).astype(np.int64)


def _is_flat(values: _Floats, size: float) -> bool:
    return size == 0.0 or float(np.ptp(values / size)) <= NEARLY_CONSTANT


def corr_fault(truth: _Floats, prediction: _Floats) -> str:
    """Why finite values have no Pearson r; empty where they have one.

    A prediction is measured against the truth's size as well as its own: noise of 1e-12
    around zero is as constant as noise of 1e-12 around one.

    Args:
        truth: Float64, shape ``[n]``, at least one item.
        prediction: Float64, shape ``[n]``.
    """
    truth_size = float(np.abs(truth).max())
    own_size = float(np.abs(prediction).max())
    if truth.size == 1:
        return "there is only one item"
    if _is_flat(truth, truth_size):
        return "the truth is constant or nearly constant"
    if _is_flat(prediction, max(own_size, truth_size)):
        return "the prediction is constant or nearly constant"
    return ""


def _corr(truth: _Floats, prediction: _Floats, warnings: list[str]) -> float:
    fault = corr_fault(truth, prediction)
    if fault:
        warnings.append(f"corr is undefined: {fault}")
        return math.nan
    # Sizes divided out, so that no square overflows.
    sizes = float(np.abs(truth).max()), float(np.abs(prediction).max())
    return float(np.corrcoef(truth / sizes[0], prediction / sizes[1])[0, 1])


def _mae_corr(truth: _Floats, prediction: _Floats, warnings: list[str]) -> dict[str, float]:
    num_broken = int((~np.isfinite(prediction)).sum())
    if num_broken:
        warnings.append(
            f"{num_broken} of {prediction.size} predictions are not finite: "
            "mae and corr are undefined"
        )
    if num_broken or not truth.size:
        return {"mae": math.nan, "corr": math.nan}
    with np.errstate(over="ignore"):
        mae = float(np.abs(prediction - truth).mean())
    return {"mae": mae, "corr": _corr(truth, prediction, warnings)}


# ---------------------------------------------------------------- the presets


class Choices(NamedTuple):
    """The two classes that an accuracy or an F1 compares, item by item.

    Attributes:
        truth: Right class, int64 from 0 on, shape ``[n]``.
        prediction: Predicted class, or :data:`UNKNOWN`, shape ``[n]``.
        counted: Whether the metric looks at the item, bool, shape ``[n]``.
        num_classes: How many classes there are.
    """

    truth: _Integers
    prediction: _Integers
    counted: _Bools
    num_classes: int

    def accuracy(self) -> float:
        """Share of the items counted that are right; nan where there is none."""
        return _share((self.truth == self.prediction)[self.counted])

    def f1(self, *, swapped: bool = False) -> float:
        """Weighted F1 of the items counted, by the counts in the truth; nan for none.

        Args:
            swapped: Exchange truth and prediction, as MulT does.
        """
        truth, prediction = self.truth[self.counted], self.prediction[self.counted]
        return _f1(prediction, truth) if swapped else _f1(truth, prediction)


_Judge = Callable[[_Floats, _Floats], Choices]


def _sides(truth: _Bools, prediction: _Bools, counted: _Bools | None = None) -> Choices:
    everything = np.ones(truth.shape, dtype=np.bool_)
    kept = everything if counted is None else counted
    return Choices(truth.astype(np.int64), prediction.astype(np.int64), kept, 2)


def _is_zero(truth: _Floats) -> _Bools:
    return np.equal(np.round(truth, LABEL_DECIMALS), 0.0)


def _positive(truth: _Floats, prediction: _Floats) -> Choices:
    return _sides(np.round(truth, LABEL_DECIMALS) > 0.0, prediction > 0.0)


def _positive_unless_zero(truth: _Floats, prediction: _Floats) -> Choices:
    return _positive(truth, prediction)._replace(counted=~_is_zero(truth))


def _non_negative(truth: _Floats, prediction: _Floats) -> Choices:
    return _sides(np.round(truth, LABEL_DECIMALS) >= 0.0, prediction >= 0.0)


def _rounded(limit: int) -> _Judge:
    """Acc-7, Acc-5, Acc-3: clip both to ±limit, round both half to even, compare."""

    def bins(values: _Floats) -> _Integers:
        rounded = np.rint(np.clip(values, -limit, limit)) + limit
        return np.where(np.isnan(values), UNKNOWN, rounded).astype(np.int64)

    def judge(truth: _Floats, prediction: _Floats) -> Choices:
        everything = np.ones(truth.shape, dtype=np.bool_)
        return Choices(bins(truth), bins(prediction), everything, 2 * limit + 1)

    return judge


def _sims_bin(values: _Floats, edges: Sequence[float]) -> _Integers:
    bins = np.searchsorted(np.asarray(edges), values, side="left")
    return np.where(np.isnan(values), UNKNOWN, bins).astype(np.int64)


def _sims_bins(name: str) -> _Judge:
    edges = SIMS_EDGES[name]

    def judge(truth: _Floats, prediction: _Floats) -> Choices:
        # Zero is exact in every float type, so only the other edges need the rounded prediction.
        near = prediction if name == "acc2" else np.round(prediction, LABEL_DECIMALS)
        everything = np.ones(truth.shape, dtype=np.bool_)
        right = _sims_bin(np.round(truth, LABEL_DECIMALS), edges)
        return Choices(right, _sims_bin(near, edges), everything, len(edges) + 1)

    return judge


_PRESET_TO_JUDGES: dict[str, dict[str, _Judge]] = {
    "mmsa": {
        "acc7": _rounded(3),
        "acc5": _rounded(2),
        "acc3": _rounded(1),
        "has0": _non_negative,
        "non0": _positive_unless_zero,
    },
    "sims": {name: _sims_bins(name) for name in ("acc2", "acc3", "acc5")},
    "mult": {
        "acc7": _rounded(3),
        "acc5": _rounded(2),
        "has0": _positive,
        "non0": _positive_unless_zero,
    },
    "magbert": {"acc7": _rounded(3), "non0": _non_negative},
}

PRESETS: tuple[str, ...] = tuple(_PRESET_TO_JUDGES)
"""Names of the regression presets; the first is the default."""


class Pairs(NamedTuple):
    """Truths and predictions of the items that a regression preset scores.

    Attributes:
        truth: Finite, shape ``[k]``.
        prediction: May hold nan and infinities, shape ``[k]``.
        kept: Which of the ``n`` items they are, bool, shape ``[n]``.
        known: Which have a truth, bool, shape ``[n]``.
    """

    truth: _Floats
    prediction: _Floats
    kept: _Bools
    known: _Bools


def regression_pairs(truth: ArrayLike, prediction: ArrayLike, *, preset: str = "mmsa") -> Pairs:
    """Leave out what a preset leaves out, and clip what it clips.

    Args:
        truth: Labels, float, shape ``[n]``; nan where unknown.
        prediction: Predicted scores, float, shape ``[n]``.
        preset: One of :data:`PRESETS`.

    Raises:
        ConfigError: If no preset is called so.
        ShapeError: If ``truth`` is not ``[n]`` or ``prediction`` has another shape.

    Example:
        >>> regression_pairs([-2.0, 0.0], [0.5, 0.5], preset="magbert").kept.tolist()
        [True, False]
    """
    _check_preset(preset)
    labels = np.asarray(truth, dtype=np.float64)
    scores = np.asarray(prediction, dtype=np.float64)
    _check_axes("truth", labels, "clips")
    _check_match("prediction", scores, "clips", "truth", labels)
    known = np.isfinite(labels)
    kept = known & ~_is_zero(np.where(known, labels, 0.0)) if preset == "magbert" else known
    labels, scores = labels[kept], scores[kept]
    if preset == "sims":
        labels = np.clip(labels, -1.0, 1.0)
        # An infinite prediction is not clipped into a plausible one: MAE must see it.
        scores = np.where(np.isfinite(scores), np.clip(scores, -1.0, 1.0), scores)
    return Pairs(labels, scores, kept, known)


def regression_choices(pairs: Pairs, *, preset: str = "mmsa") -> dict[str, Choices]:
    """The classes that a preset makes of scores.

    Args:
        pairs: Of the same preset.
        preset: One of :data:`PRESETS`.

    Returns:
        Choices by name: ``acc7, acc5, acc3`` (also what the accuracy is called), ``has0`` and
        ``non0`` (of ``acc2_…`` and ``f1_…``), and ``acc2`` of ``sims`` (of ``acc2`` and ``f1``).
    """
    judges = _PRESET_TO_JUDGES[preset]
    return {name: judge(pairs.truth, pairs.prediction) for name, judge in judges.items()}


def _side_values(name: str, choices: Choices, *, swapped: bool) -> dict[str, float]:
    values = {f"acc2_{name}": choices.accuracy(), f"f1_{name}": choices.f1()}
    return values | ({f"f1_{name}_swapped": choices.f1(swapped=True)} if swapped else {})


def _choice_values(preset: str, name: str, choices: Choices) -> dict[str, float]:
    if name in ("has0", "non0"):
        return _side_values(name, choices, swapped=preset == "mult")
    return {name: choices.accuracy()}


def regression_metrics(truth: ArrayLike, prediction: ArrayLike, *, preset: str = "mmsa") -> Metrics:
    """Score real-valued predictions the way one family of published code does.

    The value depends on the pairs alone: shuffling truth and prediction together changes
    nothing, and predicting the truth scores 1 on every accuracy and F1.

    Args:
        truth: Labels, float, shape ``[n]``, -3…3 (``sims``: -1…1); nan where unknown.
        prediction: Predicted scores, float, shape ``[n]``, any range.
        preset: One of :data:`PRESETS`.

    Returns:
        Metrics with these keys, in this order.

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

    Shapes:
        ``n`` clips.

    Source:
        MMSA's metricsTop.py (``mmsa``, ``sims``), MulT and MAG-BERT as the field's
        literature describes them. Differs on purpose: labels are rounded to 1e-6 before
        they meet zero or a bin's edge, so that a float32 copy of .1 is still .1 (the
        predictions too at the edges ±.1 and ±.7 of ``sims``, never at zero); Corr of a
        nearly constant prediction is undefined, not noise; nothing is rounded afterwards.

    Example:
        >>> found = regression_metrics([-2.0, 0.0, 1.0], [-1.0, -0.5, 2.0])
        >>> round(found.values["acc2_has0"], 3), found.values["acc2_non0"]
        (0.667, 1.0)
    """
    pairs = regression_pairs(truth, prediction, preset=preset)
    warnings: list[str] = []
    real = _mae_corr(pairs.truth, pairs.prediction, warnings)
    choices = regression_choices(pairs, preset=preset)
    chosen: dict[str, float] = {}
    for name, each in choices.items():
        chosen |= _choice_values(preset, name, each)
    if "non0" in choices and not choices["non0"].counted.any():
        warnings.append("acc2_non0 and f1_non0 are undefined: every label is zero")
    values = {**chosen, "f1": choices["acc2"].f1(), **real} if preset == "sims" else real | chosen
    if not pairs.kept.any():
        warnings = [NOTHING_LEFT]
    return Metrics(values, (*_left_out(pairs.known), *warnings), preset, int(pairs.kept.sum()))


# ---------------------------------------------------------------- classes and emotions


def class_metrics(
    truth: ArrayLike, scores: ArrayLike, *, names: Sequence[str] | None = None
) -> Metrics:
    """Score a choice of one class out of ``k``.

    Adding the same number to all scores of a clip changes nothing.

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

    Shapes:
        ``n`` clips, ``k`` classes.

    Example:
        >>> found = class_metrics([0, 1, 1], [[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
        >>> round(found.values["accuracy"], 3), found.values["uar"]
        (0.667, 0.75)
    """
    logits = np.asarray(scores, dtype=np.float64)
    _check_axes("scores", logits, "clips, classes")
    _check_match("truth", np.asarray(truth), "clips", "scores", logits)
    num_classes = logits.shape[1]
    keys = _name_keys(names, num_classes, "classes", logits) if names is not None else []
    labels = class_indices(truth, num_classes)
    known = labels != UNKNOWN
    labels, prediction = labels[known], chosen_class(logits[known])
    recalls = _recalls(labels, prediction, num_classes)
    values = {
        "accuracy": _share(labels == prediction),
        "f1_weighted": _f1(labels, prediction),
        "f1_macro": _f1(labels, prediction, "macro"),
        "uar": float(np.nanmean(recalls)) if labels.size else math.nan,
    }
    values |= {f"recall_{key}": float(recalls[i]) for i, key in enumerate(keys)}
    warnings = _class_warnings(labels, prediction, recalls)
    return Metrics(values, (*_left_out(known), *warnings), "classes", int(known.sum()))


def _recalls(truth: _Integers, prediction: _Integers, num_classes: int) -> _Floats:
    """Recall of every class, nan for a class the truth does not have; shape ``[k]``."""
    recalls = np.full(num_classes, math.nan)
    present = np.unique(truth)
    if present.size:
        recalls[present] = recall_score(
            truth, prediction, labels=present, average=None, zero_division=0.0
        )
    return recalls


def _class_warnings(truth: _Integers, prediction: _Integers, recalls: _Floats) -> list[str]:
    if not truth.size:
        return [NOTHING_LEFT]
    absent = np.flatnonzero(np.isnan(recalls)).tolist()
    never = [f"classes {absent} never occur in the truth and do not count in uar"]
    return _nan_warning(prediction == UNKNOWN) + (never if absent else [])


def _name_keys(
    names: Sequence[str], count: int, what: str, scores: NDArray[Any], reserved: Sequence[str] = ()
) -> list[str]:
    if len(names) != count:
        raise ShapeError(
            f"names must list {count} {what} to match scores {list(scores.shape)}, "
            f"got {len(names)}: {list(names)!r}"
        )
    keys = [name.lower() for name in names]
    for position, key in enumerate(keys):
        if key in keys[:position] or key in reserved:
            raise ConfigError(f'the name "{names[position]}" of {what} is taken already')
    return keys


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

    Shapes:
        ``n`` clips, ``e`` emotions judged one by one.

    Source:
        The IEMOCAP protocol of MulT. Adds the choice among the emotions, because four
        judgements about one and the same label are not independent.

    Example:
        >>> absent = [[[1.0, 0.0], [1.0, 0.0]]] * 4
        >>> emotion_metrics([[0, 1], [1, 0], [0, 1], [0, 1]], absent, ["Sad", "Happy"]).values[
        ...     "accuracy_sad"
        ... ]
        0.75
    """
    logits = np.asarray(scores, dtype=np.float64)
    _check_axes("scores", logits, "clips, emotions, 2")
    if logits.shape[2] != 2:
        raise ShapeError(
            "scores must hold two logits per emotion [clips, emotions, 2], "
            f"got shape {list(logits.shape)}"
        )
    _check_match("truth", np.asarray(truth), "clips, emotions", "scores", logits)
    keys = _name_keys(names, logits.shape[1], "emotions", logits, ("mean", "single"))
    labels = class_indices(truth, 2)
    known = (labels != UNKNOWN).all(axis=1)
    labels, logits = labels[known], logits[known]
    judged = chosen_class(logits)  # [n, e]
    values = _per_emotion(labels, judged, keys)
    if len(keys) > 1 and bool((labels.sum(axis=1) == 1).all()):
        values |= _single_emotion(labels, logits)
    warnings = _nan_warning((judged == UNKNOWN).any(axis=1)) if labels.size else [NOTHING_LEFT]
    return Metrics(values, (*_left_out(known), *warnings), "emotions", int(known.sum()))


def _per_emotion(labels: _Integers, judged: _Integers, keys: Sequence[str]) -> dict[str, float]:
    accuracies = [_share(labels[:, i] == judged[:, i]) for i in range(len(keys))]
    f1s = [_f1(labels[:, i], judged[:, i]) for i in range(len(keys))]
    values: dict[str, float] = {}
    for key, accuracy, f1 in zip(keys, accuracies, f1s, strict=True):
        values |= {f"accuracy_{key}": accuracy, f"f1_{key}": f1}
    return values | {
        "accuracy_mean": math.fsum(accuracies) / len(keys),
        "f1_mean": math.fsum(f1s) / len(keys),
    }


def _single_emotion(labels: _Integers, logits: _Floats) -> dict[str, float]:
    with np.errstate(invalid="ignore"):  # two infinite logits: a nan margin, counted as wrong
        margin = logits[:, :, 1] - logits[:, :, 0]  # [n, e]
    shown, chosen = labels.argmax(axis=1), chosen_class(margin)
    return {
        "accuracy_single": _share(shown == chosen),
        "f1_macro_single": _f1(shown, chosen, "macro"),
    }


# ---------------------------------------------------------------- by task


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
        The metrics of the clips with a truth. ``warnings`` counts the others; where no
        clip is left every value is nan.

    Raises:
        ConfigError: If no preset is called so.
        ShapeError: If the shapes do not fit each other or the task.
        DatasetError: If ``truth`` holds something that is not a label of the task.

    Shapes:
        ``n`` clips, ``k`` classes, ``e`` emotions.

    Example:
        >>> task = Task(kind="regression", low=-3.0, high=3.0)
        >>> task_metrics(task, [1.0, float("nan")], [0.5, 0.5], preset="mmsa").warnings[0]
        '1 of 2 items have no truth and were left out'
    """
    _check_preset(preset)
    if task.kind == "regression":
        return regression_metrics(truth, scores, preset=preset)
    if task.kind == "classes":
        return class_metrics(truth, scores, names=task.names)
    return emotion_metrics(truth, scores, task.names)


def auroc(positive: ArrayLike, score: ArrayLike) -> float:
    """Chance that a positive item outranks a negative one, ties counted half.

    Only the order of the scores matters, so infinite scores are welcome.

    Args:
        positive: Whether an item is positive, bool, shape ``[k]``.
        score: Larger means more positive, float, shape ``[k]``.

    Returns:
        Area under the ROC curve in 0…1; nan where one of the two kinds of items is absent
        or a score is nan.

    Raises:
        ShapeError: If ``positive`` is not ``[k]`` or ``score`` has another shape.

    Shapes:
        ``k`` items of any sort.

    Example:
        >>> auroc([False, True, True], [0.1, 0.1, 0.7])
        0.75
    """
    is_positive = np.asarray(positive, dtype=np.bool_)
    values = np.asarray(score, dtype=np.float64)
    _check_axes("positive", is_positive, "items")
    _check_match("score", values, "items", "positive", is_positive)
    if is_positive.all() or not is_positive.any() or np.isnan(values).any():
        return math.nan
    return float(roc_auc_score(is_positive, rankdata(values)))
