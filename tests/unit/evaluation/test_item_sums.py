"""Metrics as functions of sums: the same values as the metrics, key by key, and resampled."""

import math

import numpy as np
import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.evaluation.item_sums import item_sums, summable_metrics
from mmcl.evaluation.metrics import PRESETS, task_metrics

# Quotients of sums of a few hundred float64 terms; corr subtracts squares of size one.
EXACT = 1e-12

REGRESSION = Task(kind="regression", low=-3.0, high=3.0)
THREE = Task(kind="classes", names=("Low", "Mid", "High"))
FOUR = Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry"))


def regression(generator, count=211):
    truth = np.round(generator.uniform(-3, 3, count), 1)
    truth[::7] = 0.0
    truth[::31] = np.nan
    return truth, np.round(truth, 0) * 0.4 + generator.normal(0, 1.4, count).round(1)


def classes(generator, count=97):
    truth = generator.integers(-1, 3, count)
    return truth, generator.normal(0, 1, (count, 3))


def emotions(generator, count=89, *, single=True):
    truth = np.eye(4, dtype=np.int64)[generator.integers(0, 4, count)]
    if not single:
        truth[0] = 1
    truth[5] = -1
    truth[6, 1] = -1  # one judgement unknown: the clip does not count
    return truth, generator.normal(0, 1, (count, 4, 2))


def cases():
    for preset in PRESETS:
        yield pytest.param(REGRESSION, preset, regression, id=preset)
        yield pytest.param(
            REGRESSION, preset, lambda g: (regression(g)[0] / 3, regression(g)[1]), id=f"{preset}-1"
        )
    yield pytest.param(THREE, "mmsa", classes, id="classes")
    yield pytest.param(FOUR, "mmsa", emotions, id="emotions")


@pytest.fixture
def generator():
    return np.random.default_rng(7)


@pytest.mark.parametrize(("task", "preset", "draw"), list(cases()))
def test_sums_over_all_items_are_the_metric(task, preset, draw, generator):
    for _ in range(3):
        truth, scores = draw(generator)
        scores = np.where(np.isnan(scores), 0.3, scores)
        expected = task_metrics(task, truth, scores, preset=preset).values
        assert set(summable_metrics(task, preset=preset)) == set(expected)
        for key, value in expected.items():
            found = item_sums(key, task, truth, scores, preset=preset).of_all()
            assert found == pytest.approx(value, abs=EXACT), key
            assert not math.isnan(value)


@pytest.mark.parametrize(("task", "preset", "draw"), list(cases()))
def test_counting_an_item_twice_is_having_it_twice(task, preset, draw, generator):
    truth, scores = draw(generator)
    scores = np.where(np.isnan(scores), 0.3, scores)
    counts = generator.integers(0, 3, len(truth))
    drawn = np.repeat(np.arange(len(truth)), counts)
    expected = task_metrics(task, truth[drawn], scores[drawn], preset=preset).values
    for key, value in expected.items():
        sums = item_sums(key, task, truth, scores, preset=preset)
        assert float(sums.value(counts @ sums.items)) == pytest.approx(value, abs=EXACT), key


@pytest.mark.parametrize(("task", "preset", "draw"), list(cases()))
def test_many_resamples_at_once_are_one_after_the_other(task, preset, draw, generator):
    truth, scores = draw(generator)
    counts = generator.integers(0, 3, (2, 5, len(truth)))
    for key in summable_metrics(task, preset=preset):
        sums = item_sums(key, task, truth, np.nan_to_num(scores), preset=preset)
        together = sums.value(counts @ sums.items)
        one = sums.value(counts[1, 3] @ sums.items)
        assert together.shape == (2, 5)
        assert together[1, 3] == pytest.approx(float(one), abs=EXACT)


def test_nan_predictions_are_wrong_as_in_the_metrics(generator):
    truth, scores = regression(generator)
    truth = np.nan_to_num(truth)
    scores[3], scores[8] = np.nan, np.inf
    for preset in PRESETS:
        expected = task_metrics(REGRESSION, truth, scores, preset=preset).values
        for key, value in expected.items():
            found = item_sums(key, REGRESSION, truth, scores, preset=preset).of_all()
            assert found == pytest.approx(value, abs=EXACT, nan_ok=True), key
        assert math.isnan(expected["mae"])


def test_nan_logits_are_wrong_as_in_the_metrics(generator):
    for task, draw in ((THREE, classes), (FOUR, emotions)):
        truth, scores = draw(generator)
        scores[4] = np.nan
        for key, value in task_metrics(task, truth, scores).values.items():
            found = item_sums(key, task, truth, scores).of_all()
            assert found == pytest.approx(value, abs=EXACT), key


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        pytest.param([1.0, 2.0, -1.0], [0.5, 0.5, 0.5], id="constant-prediction"),
        pytest.param([1.0, 1.0, 1.0], [0.5, 0.1, 0.2], id="constant-truth"),
        pytest.param([1.0], [0.5], id="one-item"),
        pytest.param([0.0, 0.0], [0.5, -0.5], id="zeros"),
        pytest.param([np.nan], [0.5], id="no-truth"),
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_metrics_leave_undefined_stays_undefined(truth, prediction, preset):
    for key, value in task_metrics(REGRESSION, truth, prediction, preset=preset).values.items():
        found = item_sums(key, REGRESSION, truth, prediction, preset=preset).of_all()
        assert found == pytest.approx(value, abs=EXACT, nan_ok=True), key


def test_a_resample_without_spread_has_no_corr():
    sums = item_sums("corr", REGRESSION, [0.1, 0.2, 0.7], [0.3, 0.1, 0.9])
    assert math.isnan(float(sums.value(np.array([0, 3, 0]) @ sums.items)))
    assert math.isnan(float(sums.value(np.array([0, 0, 0]) @ sums.items)))
    for truth, prediction in (
        ([0.1, 0.1, 0.7], [0.3, 0.1, 0.9]),
        ([0.3, 0.1, 0.9], [0.1, 0.1, 0.7]),
    ):
        sums = item_sums("corr", REGRESSION, truth, prediction)
        assert math.isnan(float(sums.value(np.array([2, 1, 0]) @ sums.items)))


@pytest.mark.parametrize("size", [1e-160, 1e200])
def test_corr_of_any_size(size):
    truth, prediction = np.array([0.1, 0.2, 0.7]), np.array([0.3, 0.1, 0.9])
    expected = item_sums("corr", REGRESSION, truth, prediction).of_all()
    found = item_sums("corr", REGRESSION, truth * size, prediction * size).of_all()
    assert found == pytest.approx(expected, abs=EXACT)


def test_single_emotion_is_undefined_where_clips_show_several(generator):
    truth, scores = emotions(generator, single=False)
    assert "accuracy_single" not in task_metrics(FOUR, truth, scores).values
    assert math.isnan(item_sums("accuracy_single", FOUR, truth, scores).of_all())


def test_choices_lie_over_all_items():
    sums = item_sums("acc2_non0", REGRESSION, [np.nan, 1.0, 0.0, -2.0], [1.0, 2.0, 3.0, 4.0])
    found = sums.choices
    assert found.counted.tolist() == [False, True, False, True]
    assert (found.truth == found.prediction)[found.counted].tolist() == [True, False]
    assert item_sums("mae", REGRESSION, [1.0], [1.0]).choices is None
    emotions = [[1, 0, 0, 0]], np.zeros((1, 4, 2))
    assert item_sums("accuracy_mean", FOUR, *emotions).choices is None


def test_unknown_metric_is_refused():
    with pytest.raises(ConfigError) as caught:
        item_sums("acc_7", REGRESSION, [1.0], [1.0], preset="magbert")
    assert str(caught.value) == (
        'no metric "acc_7" of regression is a function of sums over clips; did you mean "acc7"?\n'
        "  Those that are: mae, corr, acc7, acc2_non0, f1_non0"
    )
