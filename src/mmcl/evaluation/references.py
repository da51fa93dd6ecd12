"""Reference rows: a constant, the majority, and a linear model on features averaged over time.

A model that does not beat them has learnt nothing from its modalities. They are fitted on
the training split, tuned on the validation split where one is given, and
:func:`reference_scores` never sees a test label.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE, neutral_score
from mmcl.errors import ConfigError, DatasetError, ShapeError
from mmcl.evaluation.choices import LABEL_DECIMALS, UNKNOWN, class_indices

__all__ = ["Reference", "reference_scores"]

ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-1, 5, 13))
"""Ridge penalties tried, from nearly none to nearly everything, on standardised features."""

COSTS: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
"""Values of the logistic regression's C tried, the strongest penalty first."""

DEFAULT_COST = 0.1
"""C where there is no validation split to choose it on."""

MAX_ITERATIONS = 2000
SMALLEST_PROBABILITY = 1e-12

_Floats = NDArray[np.float64]


class Reference(NamedTuple):
    """Scores of a reference row, shaped like a model's, and warnings from fitting it."""

    scores: _Floats
    warnings: tuple[str, ...] = ()


class _Split(NamedTuple):
    features: _Floats  # [n, f]
    truth: NDArray[Any]  # [n] scores, [n] class indices or [n, e] 0/1 judgements


def reference_scores(
    task: Task,
    train_features: ArrayLike,
    train_truth: ArrayLike,
    test_features: ArrayLike,
    *,
    valid_features: ArrayLike | None = None,
    valid_truth: ArrayLike | None = None,
) -> dict[str, Reference]:
    """Predict the test clips from the training split in the plainest ways there are.

    Every row's scores of a test clip depend on that clip and on the other splits alone.

    Args:
        task: What is predicted.
        train_features: Clips to fit on, float, finite, shape ``[n, f]``, any scale.
        train_truth: Their labels; clips without one are dropped.
        test_features: Clips to predict, shape ``[n_test, f]``.
        valid_features: Clips to choose the penalty on, with ``valid_truth``.

    Returns:
        Scores by row: ``[n]``, ``[n, k]`` or ``[n, e, 2]`` by the kind of task.

        * ``constant`` (regression only): the training median, which no other constant
          beats on the training MAE.
        * ``majority``: the most frequent training class, of each emotion its more frequent
          side (the first of equals). For regression the median of the training labels of the
          more frequent sign; zeros do not vote, positive wins a draw, 0 where all are zero. In
          a range such as 1..5 the neutral score takes the place of 0.
        * ``ridge``: for regression ridge regression on standardised features, clipped to the
          task's range; its penalty is chosen by the mean squared error on the validation
          clips, or by leaving one training clip out. For classes and emotions logistic
          regression; C is chosen by the mean validation log loss (an emotion at a time), or is
          :data:`DEFAULT_COST`. Never refitted on the validation clips. Where the training
          labels are all the same it repeats ``majority`` (regression: ``constant``), with a
          warning.

    Raises:
        ShapeError: If the shapes do not fit each other or the task.
        DatasetError: If no training clip has a label, or a label is not one of the task.
        ConfigError: If only half of a validation split is given.

    Shapes:
        ``n`` clips, ``f`` features of a clip, ``k`` classes, ``e`` emotions.
    """
    train = _labelled(task, "train", train_features, train_truth)
    if (valid_features is None) != (valid_truth is None):
        raise ConfigError("valid_features and valid_truth must be given together")
    valid = None
    if valid_features is not None and valid_truth is not None:
        labelled = _labelled(task, "valid", valid_features, valid_truth)
        valid = labelled if len(labelled.truth) else None
    test = _checked_features("test_features", test_features)
    if not len(train.truth):
        raise DatasetError(
            "train_truth has no labelled clip, and the reference rows are fitted on them"
        )
    for name, features in (("valid_features", valid and valid.features), ("test_features", test)):
        if features is not None and features.shape[1] != train.features.shape[1]:
            raise ShapeError(
                f"{name} must have {train.features.shape[1]} columns [clips, features] to match "
                f"train_features, got shape {list(features.shape)}"
            )
    if task.kind == "regression":
        return _regression_scores(task, train, test, valid)
    if task.kind == "classes":
        return _class_scores(len(task.names), train, test, valid)
    return _emotion_scores(task, train, test, valid)


def _checked_features(name: str, features: ArrayLike) -> _Floats:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise ShapeError(
            f"{name} must be 2-D [clips, features] with at least one column, "
            f"got shape {list(array.shape)}"
        )
    return array


def _labelled(task: Task, split: str, features: ArrayLike, truth: ArrayLike) -> _Split:
    """Check one split and drop its clips without a label."""
    array = _checked_features(f"{split}_features", features)
    labels = np.asarray(truth, dtype=np.float64)
    expected = [len(array)] + ([len(task.names)] if task.kind == "emotions" else [])
    if list(labels.shape) != expected:
        axes = "clips, emotions" if task.kind == "emotions" else "clips"
        raise ShapeError(
            f"{split}_truth must have shape {expected} [{axes}] to match {split}_features "
            f"{list(array.shape)}, got {list(labels.shape)}"
        )
    truths: NDArray[Any]
    if task.kind == "regression":
        known, truths = np.isfinite(labels), np.round(labels, LABEL_DECIMALS)
    else:
        num_choices = 2 if task.kind == "emotions" else len(task.names)
        truths = class_indices(labels, num_choices, f"{split}_truth")
        known = (truths != UNKNOWN).reshape(len(array), -1).all(axis=1)
    # No copy of the features where no clip is dropped: they may be large.
    return _Split(array if known.all() else array[known], truths[known])


def _regression_scores(
    task: Task, train: _Split, test: _Floats, valid: _Split | None
) -> dict[str, Reference]:
    # Labels are rounded to this, and so must be what they are compared with.
    neutral = round(neutral_score(*task.score_range or FIELD_RANGE), LABEL_DECIMALS)
    positive, negative = train.truth[train.truth > neutral], train.truth[train.truth < neutral]
    larger = positive if len(positive) >= len(negative) else negative
    majority = float(np.median(larger)) if len(larger) else neutral
    constant = Reference(np.full(len(test), float(np.median(train.truth))))
    return {
        "constant": constant,
        "majority": Reference(np.full(len(test), majority)),
        "ridge": _ridge(task, train, test, valid, constant),
    }


def _ridge(
    task: Task, train: _Split, test: _Floats, valid: _Split | None, constant: Reference
) -> Reference:
    if np.ptp(train.truth) == 0.0:
        note = "ridge repeats constant: the training labels are all the same"
        return constant._replace(warnings=(note,))
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.features)
    features = scaler.transform(train.features)
    if valid is None:
        model = RidgeCV(alphas=ALPHAS).fit(features, train.truth)
    else:
        models = [Ridge(alpha=alpha).fit(features, train.truth) for alpha in ALPHAS]
        judged = scaler.transform(valid.features)
        losses = [np.mean((fitted.predict(judged) - valid.truth) ** 2) for fitted in models]
        model = models[int(np.argmin(losses))]
    if not len(test):  # scikit-learn refuses to predict no clip at all
        return Reference(np.zeros(0))
    scores = np.asarray(model.predict(scaler.transform(test)), dtype=np.float64)
    return Reference(np.clip(scores, task.low, task.high))


def _emotion_scores(
    task: Task, train: _Split, test: _Floats, valid: _Split | None
) -> dict[str, Reference]:
    """Predict every emotion as a problem of its own: absent or present."""

    def column(split: _Split, index: int) -> _Split:
        return split._replace(truth=split.truth[:, index])

    problems = [
        _class_scores(2, column(train, i), test, valid and column(valid, i), f" ({name})")
        for i, name in enumerate(task.names)
    ]
    return {
        row: Reference(
            np.stack([problem[row].scores for problem in problems], axis=1),  # [n, e, 2]
            tuple(text for problem in problems for text in problem[row].warnings),
        )
        for row in problems[0]
    }


def _class_scores(
    num_classes: int, train: _Split, test: _Floats, valid: _Split | None, label: str = ""
) -> dict[str, Reference]:
    scores = np.zeros((len(test), num_classes))
    scores[:, np.bincount(train.truth).argmax()] = 1.0
    majority = Reference(scores)
    if np.ptp(train.truth) == 0:
        note = f"ridge{label} repeats majority: the training labels are all the same"
        return {"majority": majority, "ridge": majority._replace(warnings=(note,))}
    return {"majority": majority, "ridge": _logistic(num_classes, train, test, valid, label)}


def _logistic(
    num_classes: int, train: _Split, test: _Floats, valid: _Split | None, label: str
) -> Reference:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.features)
    features = scaler.transform(train.features)
    costs = (DEFAULT_COST,) if valid is None else COSTS
    with warnings.catch_warnings():  # said in the row's own warnings instead
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [
            LogisticRegression(C=cost, max_iter=MAX_ITERATIONS).fit(features, train.truth)
            for cost in costs
        ]
    model = models[0]
    if valid is not None:
        judged = scaler.transform(valid.features)
        clips = np.arange(len(valid.truth))
        # A class that the training split lacks costs every model the same.
        losses = [
            -float(_log_probability(fitted, judged, num_classes)[clips, valid.truth].mean())
            for fitted in models
        ]
        model = models[int(np.argmin(losses))]  # the first of equals: the strongest penalty
    notes: tuple[str, ...] = ()
    if int(np.max(model.n_iter_)) >= MAX_ITERATIONS:
        notes = (f"ridge{label} did not converge in {MAX_ITERATIONS} iterations",)
    # scikit-learn refuses to transform no clip at all.
    features = scaler.transform(test) if len(test) else test
    return Reference(_log_probability(model, features, num_classes), notes)


def _log_probability(model: Any, features: _Floats, num_classes: int) -> _Floats:
    """Log probability of every class, also of those the training split lacks; ``[n, k]``."""
    probability = np.zeros((len(features), num_classes))
    if len(features):
        probability[:, model.classes_] = model.predict_proba(features)
    return np.log(np.maximum(probability, SMALLEST_PROBABILITY))
