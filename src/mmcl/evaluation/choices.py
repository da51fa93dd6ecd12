"""Right and predicted class of every item: what accuracies and F1 scores compare.

Truths and scores are checked here first. A real-valued score then becomes a class by its side
of zero, by rounding or by bins; logits become the class of the largest one. Where the range of
the scores is not one of the field's, their neutral score becomes zero first. Shapes: ``n`` clips,
``c`` classes, ``e`` emotions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmcl.corpus.score_range import FIELD_RANGE, is_field_range, neutral_score, sixth
from mmcl.errors import ConfigError, DatasetError, ShapeError

__all__ = [
    "LABEL_DECIMALS",
    "UNKNOWN",
    "Choices",
    "binned",
    "check_shapes",
    "chosen_class",
    "class_indices",
    "class_inputs",
    "emotion_inputs",
    "has_one_emotion_each",
    "largest_logit",
    "largest_margin",
    "name_keys",
    "non_negative",
    "positive",
    "positive_without_zeros",
    "present_or_absent",
    "regression_inputs",
    "rounded",
]

LABEL_DECIMALS = 6
"""Labels are rounded to this before they are compared with zero or with a bin's edge."""

UNKNOWN = -1
"""The class of an item without truth, and of a prediction that is nan. It matches nothing."""

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Bools = NDArray[np.bool_]


class Choices(NamedTuple):
    """Right and predicted class of every item, from 0 on or :data:`UNKNOWN`, each ``[n]``."""

    truth: _Integers
    prediction: _Integers
    counted: _Bools  # True where the metric counts the item
    num_classes: int


def check_shapes(
    name: str, array: NDArray[Any], axes: str, other_name: str, other: NDArray[Any], other_axes: str
) -> None:
    """Raise ShapeError unless ``array`` has the axes named, and ``other`` the first of them."""
    num_axes, num_shared = axes.count(",") + 1, other_axes.count(",") + 1
    shape = list(array.shape)
    if array.ndim != num_axes:
        raise ShapeError(f"{name} must be {num_axes}-D [{axes}], got shape {shape}")
    if list(other.shape) != shape[:num_shared]:
        raise ShapeError(
            f"{other_name} must have shape {shape[:num_shared]} [{other_axes}] to match {name} "
            f"{shape}, got {list(other.shape)}"
        )


def class_indices(truth: ArrayLike, num_classes: int, name: str = "truth") -> _Integers:
    """Read labels that are class indices, as int64 of the same shape.

    ``truth`` holds integers, or floats without a fraction; -1 or nan where unknown, which comes
    out as :data:`UNKNOWN`. ``name`` is its name in the error message.

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


def regression_inputs(
    truth: ArrayLike,
    prediction: ArrayLike,
    preset: str,
    score_range: tuple[float, float] = FIELD_RANGE,
) -> tuple[_Floats, _Floats]:
    """Check real-valued labels and scores, ``[n]``; labels become nan where a preset skips them.

    In a range that is none of the field's, both are returned about the neutral score, in sixths
    of the range.
    """
    labels = np.asarray(truth, dtype=np.float64)
    scores = np.asarray(prediction, dtype=np.float64)
    check_shapes("truth", labels, "clips", "prediction", scores, "clips")
    if not is_field_range(*score_range):
        neutral, unit = neutral_score(*score_range), sixth(*score_range)
        labels, scores = (labels - neutral) / unit, (scores - neutral) / unit
    left_out = ~np.isfinite(labels)
    if preset == "magbert":
        left_out |= _is_zero(labels)
    if preset == "sims" and is_field_range(*score_range):
        labels = np.clip(labels, -1.0, 1.0)
        # An infinite prediction is not clipped into a plausible one: the MAE must see it.
        scores = np.where(np.isfinite(scores), np.clip(scores, -1.0, 1.0), scores)
    return np.where(left_out, np.nan, labels), scores


def class_inputs(truth: ArrayLike, scores: ArrayLike) -> tuple[_Integers, _Floats]:
    """Check class indices ``[n]`` and logits ``[n, c]``."""
    logits = np.asarray(scores, dtype=np.float64)
    check_shapes("scores", logits, "clips, classes", "truth", np.asarray(truth), "clips")
    return class_indices(truth, logits.shape[1]), logits


def emotion_inputs(truth: ArrayLike, scores: ArrayLike) -> tuple[_Integers, _Floats]:
    """Check judgements ``[n, e]``, all unknown where one of a clip is, and logits ``[n, e, 2]``."""
    logits, given = np.asarray(scores, dtype=np.float64), np.asarray(truth)
    check_shapes("scores", logits, "clips, emotions, 2", "truth", given, "clips, emotions")
    if logits.shape[2] != 2:
        raise ShapeError(
            "scores must hold two logits per emotion [clips, emotions, 2], "
            f"got shape {list(logits.shape)}"
        )
    labels = class_indices(truth, 2)
    unknown = (labels == UNKNOWN).any(axis=1, keepdims=True)
    return np.where(unknown, UNKNOWN, labels), logits


def name_keys(names: Sequence[str], kind: str, scores: NDArray[Any]) -> list[str]:
    """Check the names of classes or emotions, and return them as metric keys: in lower case."""
    if len(names) != scores.shape[1]:
        raise ShapeError(
            f"names must list {scores.shape[1]} {kind} to match scores {list(scores.shape)}, "
            f"got {len(names)}: {list(names)!r}"
        )
    taken = {"mean", "single"} if kind == "emotions" else set()
    for name in names:
        if name.lower() in taken:
            raise ConfigError(f'the name "{name}" of {kind} is taken already')
        taken.add(name.lower())
    return [name.lower() for name in names]


def _is_zero(labels: _Floats) -> _Bools:
    return np.equal(np.round(labels, LABEL_DECIMALS), 0.0)


def _two_sides(labels: _Floats, truth: _Bools, prediction: _Bools) -> Choices:
    return Choices(truth.astype(np.int64), prediction.astype(np.int64), ~np.isnan(labels), 2)


def positive(labels: _Floats, scores: _Floats) -> Choices:
    """Split both sides into "not above zero" and "above zero"."""
    return _two_sides(labels, np.round(labels, LABEL_DECIMALS) > 0.0, scores > 0.0)


def positive_without_zeros(labels: _Floats, scores: _Floats) -> Choices:
    """Split as :func:`positive` does, and leave out labels of zero."""
    choices = positive(labels, scores)
    return choices._replace(counted=choices.counted & ~_is_zero(labels))


def non_negative(labels: _Floats, scores: _Floats) -> Choices:
    """Split both sides into "below zero" and "not below zero"."""
    return _two_sides(labels, np.round(labels, LABEL_DECIMALS) >= 0.0, scores >= 0.0)


def rounded(labels: _Floats, scores: _Floats, *, limit: int) -> Choices:
    """Clip both sides to ±limit and round half to even: Acc-7, Acc-5 and Acc-3."""
    truth, prediction = (np.rint(np.clip(v, -limit, limit)) + limit for v in (labels, scores))
    return _bins(labels, truth, scores, prediction, 2 * limit + 1)


def binned(labels: _Floats, scores: _Floats, *, edges: Sequence[float]) -> Choices:
    """Sort both sides into bins that are open on the left and closed on the right: CH-SIMS."""
    # Zero is exact in every float type; beside the other edges a float32 copy of .1 must be .1.
    near = scores if edges == (0.0,) else np.round(scores, LABEL_DECIMALS)
    truth = np.searchsorted(edges, np.round(labels, LABEL_DECIMALS), side="left")
    prediction = np.searchsorted(edges, near, side="left")
    return _bins(labels, truth, scores, prediction, len(edges) + 1)


def _bins(
    labels: _Floats, truth: NDArray[Any], scores: _Floats, prediction: NDArray[Any], count: int
) -> Choices:
    """Give nan the class that matches nothing."""
    known = ~np.isnan(labels)
    truth = np.where(known, truth, UNKNOWN).astype(np.int64)
    prediction = np.where(np.isnan(scores), UNKNOWN, prediction).astype(np.int64)
    return Choices(truth, prediction, known, count)


def chosen_class(scores: _Floats) -> _Integers:
    """Return the index of the largest score on the last axis, the first of equals; -1 for nan."""
    has_nan = np.isnan(scores).any(axis=-1)
    return np.where(has_nan, UNKNOWN, scores.argmax(axis=-1)).astype(np.int64)


def largest_logit(labels: _Integers, logits: _Floats) -> Choices:
    """Compare class indices ``[n]`` with the largest of logits ``[n, c]``."""
    return Choices(labels, chosen_class(logits), labels != UNKNOWN, logits.shape[1])


def present_or_absent(labels: _Integers, logits: _Floats, *, index: int) -> Choices:
    """Compare the judgements of one emotion, present or absent."""
    return largest_logit(labels[:, index], logits[:, index])


def has_one_emotion_each(labels: _Integers) -> bool:
    """Return True if every clip with a truth shows exactly one emotion."""
    known = labels[:, 0] != UNKNOWN
    return bool((labels[known].sum(axis=1) == 1).all())


def largest_margin(labels: _Integers, logits: _Floats) -> Choices:
    """Choose the emotion most present; no clip counts where one shows several emotions or none."""
    with np.errstate(invalid="ignore"):  # two infinite logits: a nan margin, counted as wrong
        margins = logits[:, :, 1] - logits[:, :, 0]  # [n, e]
    counted = (labels[:, 0] != UNKNOWN) & has_one_emotion_each(labels)
    return Choices(labels.argmax(axis=1), chosen_class(margins), counted, labels.shape[1])
