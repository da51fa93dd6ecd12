"""Reference rows: what they predict, what they never look at, and what they refuse."""

import math

import numpy as np
import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError
from mmcl.evaluation import references
from mmcl.evaluation.metrics import PRESETS, task_metrics
from mmcl.evaluation.references import reference_scores

# A solve of at most a few dozen unknowns in float64.
SOLVED = 1e-9

REGRESSION = Task(kind="regression", low=-3.0, high=3.0)
THREE = Task(kind="classes", names=("Low", "Mid", "High"))
TWO = Task(kind="emotions", names=("Calm", "Tense"))
TASKS = [
    pytest.param(REGRESSION, id="regression"),
    pytest.param(THREE, id="classes"),
    pytest.param(TWO, id="emotions"),
]


def reference_rows(task, train, train_truth, test, test_truth, *, preset="mmsa", **valid):
    """Metrics that the protocol computes from the scores."""
    rows = {}
    for name, reference in reference_scores(task, train, train_truth, test, **valid).items():
        found = task_metrics(task, test_truth, reference.scores, preset=preset)
        rows[name] = found._replace(warnings=reference.warnings + found.warnings)
    return rows


@pytest.fixture
def generator():
    return np.random.default_rng(20)


def draw(task, generator, num_clips, noise=0.3):
    """Clips whose first feature decides the label; scale and offset differ by column."""
    features = generator.normal(size=(num_clips, 4))
    drive = features[:, 0] + noise * generator.normal(size=num_clips)
    features = features * [1.0, 100.0, 0.01, 3.0] + [5.0, -40.0, 0.0, 1.0]
    if task.kind == "regression":
        return features, np.round(np.clip(drive, -3.0, 3.0), 2)
    if task.kind == "classes":
        return features, np.digitize(drive, [-0.4, 0.5])
    return features, np.stack([drive > 0.2, drive <= 0.2], axis=1).astype(int)


@pytest.fixture
def splits(request, generator):
    task = request.param
    return task, *(draw(task, generator, num_clips) for num_clips in (120, 40, 60))


every_task = pytest.mark.parametrize("splits", TASKS, indirect=True)


def ones(num_clips):
    return np.ones((num_clips, 1))


# ---------------------------------------------------------------- constant and majority


def test_constant_is_the_training_median():
    found = reference_scores(REGRESSION, ones(4), [-1.0, 0.0, 0.4, 3.0], ones(2))
    assert found["constant"].scores == pytest.approx([0.2, 0.2], abs=SOLVED)


def test_constant_of_float32_labels_is_the_label_itself():
    truth = np.array([-0.7, 0.1, 0.7], dtype=np.float32)
    found = reference_scores(REGRESSION, ones(3), truth, ones(1))
    assert found["constant"].scores.tolist() == [0.1]


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        pytest.param([-2.0, -1.0, -0.6, 0.0, 3.0, 2.0], -1.0, id="negative"),
        pytest.param([-2.0, 0.0, 0.0, 0.0, 3.0, 2.0], 2.5, id="zeros-do-not-vote"),
        pytest.param([-2.0, 1.0], 1.0, id="draw"),
        pytest.param([0.0, 0.0], 0.0, id="all-zero"),
        pytest.param([-2.0, -2.0, 1.0, math.nan, math.nan, 1.0, -2.0], -2.0, id="unlabelled"),
    ],
)
def test_regression_majority_is_the_median_of_the_larger_sign(truth, expected):
    found = reference_scores(REGRESSION, ones(len(truth)), truth, ones(1))
    assert found["majority"].scores.tolist() == [expected]


@pytest.mark.parametrize(
    ("low", "high", "truth", "expected"),
    [
        pytest.param(1, 5, [1.0, 2.0, 2.0, 3.0, 3.0, 5.0], 2.0, id="below"),
        pytest.param(1, 5, [1.0, 3.0, 3.0, 4.0, 5.0, 5.0], 5.0, id="above"),
        pytest.param(0, 100, [20.0, 50.0, 90.0], 90.0, id="draw"),
        pytest.param(0, 1, [0.5, 0.5], 0.5, id="all-neutral"),
        pytest.param(-50, 50, [-10.0, -20.0, 0.0, 30.0], -15.0, id="around-zero"),
    ],
)
def test_majority_of_other_ranges_is_of_the_larger_side_of_the_middle(low, high, truth, expected):
    task = Task(kind="regression", low=low, high=high)
    found = reference_scores(task, ones(len(truth)), truth, ones(1))
    assert found["majority"].scores.tolist() == [expected]


@pytest.mark.parametrize(
    ("truth", "chosen"),
    [([2, 2, 0], 2), ([1, 1, 2, 2], 1), ([2, -1, -1, -1], 2), ([2.0, math.nan], 2)],
)
def test_class_majority_is_the_most_frequent_and_the_first_of_equals(truth, chosen):
    found = reference_scores(THREE, ones(len(truth)), truth, ones(2))
    assert found["majority"].scores.tolist() == [np.eye(3)[chosen].tolist()] * 2


def test_emotion_majority_is_judged_per_emotion():
    truth = [[1, 0], [1, 0], [0, 1], [1, 1], [-1, 1]]  # labelled: 3 of 4, then 2 of 4
    found = reference_scores(TWO, ones(5), truth, ones(1))
    assert found["majority"].scores.tolist() == [[[0.0, 1.0], [1.0, 0.0]]]


def test_rows_by_kind_of_task():
    regression = reference_rows(REGRESSION, ones(3), [0.0, 1.0, 2.0], ones(2), [0.0, 1.0])
    classes = reference_rows(THREE, ones(3), [0, 1, 2], ones(2), [0, 1])
    emotions = reference_rows(TWO, ones(2), [[0, 1], [1, 0]], ones(2), [[0, 1], [1, 0]])
    assert list(regression) == ["constant", "majority", "ridge"]
    assert list(classes) == list(emotions) == ["majority", "ridge"]


@every_task
@pytest.mark.parametrize("with_valid", [False, True])
def test_rows_are_the_scores_scored(splits, with_valid):
    task, train, valid, test = splits
    # Validation labels in the wrong order: the penalty they choose is another one.
    extra = {"valid_features": valid[0], "valid_truth": valid[1][::-1]} if with_valid else {}
    scores = reference_scores(task, *train, test[0], **extra)
    rows = reference_rows(task, *train, *test, **extra)
    for name, row in rows.items():
        assert row == task_metrics(task, test[1], scores[name].scores)


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_follow_the_preset(preset, generator):
    train, test = (draw(REGRESSION, generator, num_clips) for num_clips in (40, 20))
    rows = reference_rows(REGRESSION, *train, *test, preset=preset)
    assert {row.preset for row in rows.values()} == {preset}


# ---------------------------------------------------------------- ridge


def ridge_by_normal_equations(train, features, alpha):
    mean, scale = train[0].mean(axis=0), train[0].std(axis=0)
    z, centre = (train[0] - mean) / scale, train[1].mean()
    weights = np.linalg.solve(z.T @ z + alpha * np.eye(z.shape[1]), z.T @ (train[1] - centre))
    return centre + (features - mean) / scale @ weights


def test_ridge_is_the_best_of_its_penalties_on_the_validation_clips(generator):
    # Few clips and much noise: neither end of the penalties is the best.
    train, valid, test = (draw(REGRESSION, generator, n, noise=2.0) for n in (12, 40, 9))
    losses = [
        np.mean((ridge_by_normal_equations(train, valid[0], alpha) - valid[1]) ** 2)
        for alpha in references.ALPHAS
    ]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1

    found = reference_scores(
        REGRESSION, *train, test[0], valid_features=valid[0], valid_truth=valid[1]
    )

    expected = ridge_by_normal_equations(train, test[0], references.ALPHAS[best])
    assert np.abs(expected).max() < 3.0  # so that clipping does not enter
    assert found["ridge"].scores == pytest.approx(expected, abs=SOLVED)


def test_ridge_without_validation_leaves_one_out(generator):
    train, test = (draw(REGRESSION, generator, n, noise=2.0) for n in (12, 9))
    losses = []
    for alpha in references.ALPHAS:
        errors = []
        for i in range(12):
            rest = tuple(np.delete(part, i, axis=0) for part in train)
            errors.append(leave_one_out_error(train, rest, i, alpha))
        losses.append(np.mean(np.square(errors)))
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1

    found = reference_scores(REGRESSION, *train, test[0])

    expected = ridge_by_normal_equations(train, test[0], references.ALPHAS[best])
    assert found["ridge"].scores == pytest.approx(np.clip(expected, -3, 3), abs=SOLVED)


def leave_one_out_error(train, rest, i, alpha):
    """Refit without clip i, on features standardised once with all of the training clips."""
    mean, scale = train[0].mean(axis=0), train[0].std(axis=0)
    z, z_rest = (train[0] - mean) / scale, (rest[0] - mean) / scale
    centre_z, centre = z_rest.mean(axis=0), rest[1].mean()
    centred = z_rest - centre_z
    weights = np.linalg.solve(
        centred.T @ centred + alpha * np.eye(z.shape[1]), centred.T @ (rest[1] - centre)
    )
    return centre + (z[i] - centre_z) @ weights - train[1][i]


def test_ridge_stays_inside_the_range_of_the_task(generator):
    train, test = (draw(REGRESSION, generator, n) for n in (60, 5))
    far = test[0] + [[1000.0, 0.0, 0.0, 0.0]]
    assert reference_scores(REGRESSION, *train, far)["ridge"].scores.tolist() == [3.0] * 5


@every_task
@pytest.mark.parametrize("with_valid", [False, True])
def test_ridge_learns_what_the_majority_cannot(splits, with_valid):
    task, train, valid, test = splits
    extra = {"valid_features": valid[0], "valid_truth": valid[1]} if with_valid else {}
    rows = reference_rows(task, *train, *test, **extra)
    key = {"regression": "acc2_non0", "classes": "accuracy", "emotions": "accuracy_mean"}[task.kind]
    assert rows["ridge"].values[key] > rows["majority"].values[key] + 0.2


@every_task
def test_scores_of_a_clip_depend_on_that_clip_alone(splits):
    task, train, _, (features, _) = splits
    together = reference_scores(task, *train, features)
    alone = reference_scores(task, *train, features[7:8])
    for name, reference in together.items():
        assert alone[name].scores.shape == (1, *reference.scores.shape[1:])
        assert alone[name].scores[0] == pytest.approx(reference.scores[7], abs=SOLVED)


@every_task
def test_unlabelled_training_clips_are_dropped(splits):
    task, (features, truth), _, test = splits
    unknown = np.array(truth, dtype=float)
    unknown[::3] = math.nan if task.kind == "regression" else -1
    kept = np.arange(len(truth)) % 3 != 0
    dropped = reference_scores(task, features, unknown, test[0])
    never_there = reference_scores(task, features[kept], truth[kept], test[0])
    for name, reference in dropped.items():
        assert np.array_equal(reference.scores, never_there[name].scores)


@every_task
def test_unlabelled_validation_is_no_validation(splits):
    task, train, (features, truth), test = splits
    unknown = np.full(truth.shape, math.nan if task.kind == "regression" else -1.0)
    found = reference_scores(task, *train, test[0], valid_features=features, valid_truth=unknown)
    expected = reference_scores(task, *train, test[0])
    for name, reference in expected.items():
        assert np.array_equal(found[name].scores, reference.scores)


@every_task
def test_scale_and_offset_of_a_feature_change_nothing(splits):
    task, (features, truth), _, test = splits
    turned = reference_scores(task, 7.0 * features + 2.0, truth, 7.0 * test[0] + 2.0)
    expected = reference_scores(task, features, truth, test[0])
    for name, reference in expected.items():
        # Logistic regression stops when its gradient is below 1e-4, not at zero.
        assert turned[name].scores == pytest.approx(reference.scores, abs=1e-4)


@every_task
def test_constant_columns_change_nothing(splits):
    task, (features, truth), _, test = splits
    wide = np.hstack([features, np.full((len(features), 2), 7.0)])
    wide_test = np.hstack([test[0], np.full((len(test[0]), 2), 7.0)])
    found = reference_scores(task, wide, truth, wide_test)
    expected = reference_scores(task, features, truth, test[0])
    for name, reference in expected.items():
        assert found[name].scores == pytest.approx(reference.scores, abs=1e-6)


@every_task
def test_no_test_clip_gives_nan_rows(splits):
    task, train, _, test = splits
    for row in reference_rows(task, *train, test[0][:0], test[1][:0]).values():
        assert all(math.isnan(value) for value in row.values.values())
        assert row.warnings == ("no item is left to score: every metric is undefined",)


# ---------------------------------------------------------------- logistic regression


def test_cost_is_the_one_with_the_lowest_validation_loss(generator):
    # Five clips a class with labels of noise: the strongest penalty must win.
    features, valid_features = generator.normal(size=(15, 20)), generator.normal(size=(300, 20))
    truth, valid_truth = np.arange(15) % 3, np.arange(300) % 3
    noise = reference_scores(
        THREE,
        features,
        truth,
        valid_features,
        valid_features=valid_features,
        valid_truth=valid_truth,
    )
    # And of a clear rule the weakest.
    train, valid = (draw(THREE, generator, n, noise=0.0) for n in (200, 100))
    clear = reference_scores(THREE, *train, valid[0], valid_features=valid[0], valid_truth=valid[1])

    assert noise["ridge"].scores.std() < 0.1
    assert clear["ridge"].scores.std() > 1.0


def test_class_the_training_split_lacks_is_never_chosen(generator):
    features = generator.normal(size=(20, 3))
    truth = np.where(features[:, 0] > 0, 2, 0)
    extra = {"valid_features": features[:4], "valid_truth": [1, 1, 0, 2]}
    found = reference_scores(THREE, features, truth, features, **extra)["ridge"].scores
    assert np.isfinite(found).all()
    assert set(found.argmax(axis=1)) == {0, 2}


def test_one_emotion_has_its_own_problem(generator):
    features = generator.normal(size=(80, 2))
    truth = (features > 0).astype(int)  # emotion i is decided by feature i
    found = reference_scores(TWO, features, truth, features)["ridge"].scores
    assert found.shape == (80, 2, 2)
    assert (found.argmax(axis=2) == truth).mean() > 0.9


@pytest.mark.parametrize(
    ("task", "truth", "repeated", "warnings"),
    [
        pytest.param(
            REGRESSION,
            [0.4, 0.4, 0.4],
            "constant",
            ("ridge repeats constant: the training labels are all the same",),
            id="regression",
        ),
        pytest.param(
            THREE,
            [1, 1, 1],
            "majority",
            ("ridge repeats majority: the training labels are all the same",),
            id="classes",
        ),
        pytest.param(
            TWO,
            [[1, 0], [1, 0], [1, 0]],
            "majority",
            (
                "ridge (Calm) repeats majority: the training labels are all the same",
                "ridge (Tense) repeats majority: the training labels are all the same",
            ),
            id="emotions",
        ),
    ],
)
def test_labels_without_a_difference_leave_nothing_to_fit(task, truth, repeated, warnings):
    found = reference_scores(task, np.arange(6.0).reshape(3, 2), truth, np.zeros((2, 2)))
    assert found["ridge"].warnings == warnings
    assert np.array_equal(found["ridge"].scores, found[repeated].scores)
    rows = reference_rows(task, np.arange(6.0).reshape(3, 2), truth, np.zeros((3, 2)), truth)
    assert rows["ridge"].warnings[: len(warnings)] == warnings


def test_fit_that_does_not_converge_is_said_in_the_row(monkeypatch, generator):
    monkeypatch.setattr(references, "MAX_ITERATIONS", 1)
    found = reference_scores(THREE, *draw(THREE, generator, 50), np.zeros((1, 4)))
    assert found["ridge"].warnings == ("ridge did not converge in 1 iterations",)
    assert found["majority"].warnings == ()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: reference_scores(REGRESSION, np.zeros(3), np.zeros(3), ones(1)),
            "train_features must be 2-D [clips, features] with at least one column, got shape [3]",
            id="flat-features",
        ),
        pytest.param(
            lambda: reference_scores(REGRESSION, ones(3), np.zeros(3), np.zeros((2, 0))),
            "test_features must be 2-D [clips, features] with at least one column, "
            "got shape [2, 0]",
            id="no-column",
        ),
        pytest.param(
            lambda: reference_scores(REGRESSION, ones(3), np.zeros(2), ones(1)),
            "train_truth must have shape [3] [clips] to match train_features [3, 1], got [2]",
            id="truth-count",
        ),
        pytest.param(
            lambda: reference_scores(TWO, ones(3), np.zeros(3), ones(1)),
            "train_truth must have shape [3, 2] [clips, emotions] to match "
            "train_features [3, 1], got [3]",
            id="emotions-flat",
        ),
        pytest.param(
            lambda: reference_scores(REGRESSION, ones(3), [0.0, 1.0, 2.0], np.zeros((2, 4))),
            "test_features must have 1 columns [clips, features] to match train_features, "
            "got shape [2, 4]",
            id="test-columns",
        ),
        pytest.param(
            lambda: reference_scores(
                REGRESSION,
                ones(3),
                [0.0, 1.0, 2.0],
                ones(2),
                valid_features=np.zeros((2, 4)),
                valid_truth=[0.0, 1.0],
            ),
            "valid_features must have 1 columns [clips, features] to match train_features, "
            "got shape [2, 4]",
            id="valid-columns",
        ),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("task", "truth"), [(REGRESSION, [math.nan]), (THREE, [-1]), (TWO, [[-1, 0]])]
)
def test_training_split_without_a_label_is_refused(task, truth):
    with pytest.raises(DatasetError) as caught:
        reference_scores(task, ones(1), truth, ones(1))
    assert str(caught.value) == (
        "train_truth has no labelled clip, and the reference rows are fitted on them"
    )


@pytest.mark.parametrize(
    ("task", "truth", "message"),
    [
        (
            THREE,
            [0, 3],
            "train_truth must hold class indices from 0 to 2, or -1 where unknown, got 3.0",
        ),
        (
            TWO,
            [[0, 1], [2, 0]],
            "train_truth must hold class indices from 0 to 1, or -1 where unknown, got 2.0",
        ),
    ],
)
def test_labels_that_are_none_are_refused(task, truth, message):
    with pytest.raises(DatasetError) as caught:
        reference_scores(task, ones(2), truth, ones(1))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "half", [{"valid_features": ones(2)}, {"valid_truth": [0.0, 1.0]}], ids=["features", "truth"]
)
def test_half_a_validation_split_is_refused(half):
    with pytest.raises(ConfigError) as caught:
        reference_scores(REGRESSION, ones(2), [0.0, 1.0], ones(1), **half)
    assert str(caught.value) == "valid_features and valid_truth must be given together"
