"""Metrics of scores in any range: those of the same scores moved to -3..3, and what is said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.evaluation.item_sums import item_sums, summable_metrics
from mmcl.evaluation.metrics import PRESETS, range_notes, regression_metrics, task_metrics

# Differences of float64 numbers of size up to a thousand, and their sums.
MOVED = {"rel": 1e-9, "abs": 1e-9}
FINE = ("acc7", "acc5", "acc3")


def scores_from(low, high):
    return Task(kind="regression", low=low, high=high)


# Quarters of the range, so that its middle and its ends come up often, and lie exactly there.
quarters = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=2, max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    preset=st.sampled_from(PRESETS),
    low=st.integers(0, 200),
    span=st.sampled_from([1, 2, 4, 10, 64, 100]),
    clips=quarters,
)
def test_metrics_are_those_of_the_scores_moved_to_the_fields_range(preset, low, span, clips):
    truth, prediction = (np.array(column, dtype=float) for column in zip(*clips, strict=True))
    field = regression_metrics(
        truth / 4 * 6 - 3, prediction / 8 * 6 - 3, preset="mmsa" if preset == "sims" else preset
    )
    found = task_metrics(
        scores_from(low, low + span),
        low + truth / 4 * span,
        low + prediction / 8 * span,
        preset=preset,
    )
    assert found.count == field.count
    assert not found.values.keys() & set(FINE)
    for key, value in found.values.items():
        if preset == "sims" and key in ("acc2", "f1"):
            continue  # no metric of mmsa: see the test below
        expected = field.values[key] * (span / 6 if key == "mae" else 1)
        assert value == pytest.approx(expected, nan_ok=True, **MOVED), key


@settings(max_examples=60, deadline=None)
@given(low=st.integers(0, 200), span=st.sampled_from([1, 4, 100]), clips=quarters)
def test_sims_asks_whether_a_score_lies_above_the_middle(low, span, clips):
    truth, prediction = (np.array(column, dtype=float) for column in zip(*clips, strict=True))
    found = task_metrics(
        scores_from(low, low + span),
        low + truth / 4 * span,
        low + prediction / 8 * span,
        preset="sims",
    )
    assert list(found.values) == ["acc2", "f1", "mae", "corr"]
    assert found.values["acc2"] == pytest.approx(((truth > 2) == (prediction > 4)).mean())
    # Nothing is clipped to -1..1 there.
    assert found.values["mae"] == pytest.approx(span * np.abs(truth / 4 - prediction / 8).mean())


def test_stars_worked_by_hand():
    # Labels 1, 2 lie below the middle, 4 and 5 above it; 3 is neither.
    metrics = task_metrics(scores_from(1, 5), [1, 2, 3, 4, 5], [2.5, 3.2, 3.0, 3.0, 1.0])
    assert metrics.values == {
        "mae": pytest.approx((1.5 + 1.2 + 0 + 1 + 4) / 5),
        "corr": pytest.approx(np.corrcoef([1, 2, 3, 4, 5], [2.5, 3.2, 3.0, 3.0, 1.0])[0, 1]),
        "acc2_has0": pytest.approx(3 / 5),  # 2.5, 3.0 and 3.0: the middle is not below itself
        "f1_has0": pytest.approx((2 / 5) * 0.5 + (3 / 5) * (2 / 3)),
        "acc2_non0": 1 / 4,  # the prediction 3.0 is not above the middle
        "f1_non0": pytest.approx(0.5 * (2 * 1 / (2 + 3)) + 0.5 * 0.0),
    }


def test_label_of_float32_at_the_middle_is_zero():
    truth = np.array([0.4, 0.1, 0.7], dtype=np.float32)
    warnings = task_metrics(scores_from(0.1, 0.7), truth[:1], [0.5]).warnings
    assert "acc2_non0 and f1_non0 are undefined: every label is zero" in warnings
    dropped = task_metrics(scores_from(0.1, 0.7), truth, [0.1, 0.1, 0.1], preset="magbert")
    assert dropped.count == 2


def test_unknown_and_infinite_stay_what_they_are():
    found = task_metrics(scores_from(0, 100), [math.nan, 80.0, 20.0], [1.0, math.inf, 30.0])
    assert found.count == 2
    assert math.isnan(found.values["mae"])
    assert found.values["acc2_non0"] == 1.0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("low", "high"), [(-3, 3), (-1, 1), (-2, 2), (-1, 3)])
def test_ranges_of_the_field_change_nothing(preset, low, high):
    generator = np.random.default_rng(4)
    truth, prediction = generator.uniform(low, high, (2, 40)).round(1)
    expected = regression_metrics(truth, prediction, preset=preset)
    assert task_metrics(scores_from(low, high), truth, prediction, preset=preset) == expected


def test_items_add_up_to_the_metric():
    task, truth, scores = scores_from(0, 10), [1.0, 9.0, 5.0], [2.0, 4.0, 6.0]
    metrics = task_metrics(task, truth, scores)
    assert summable_metrics(task) == tuple(metrics.values)
    for key, value in metrics.values.items():
        assert item_sums(key, task, truth, scores).of_all() == value


def test_metric_that_the_range_has_not_is_refused():
    with pytest.raises(ConfigError, match='no metric "acc7" of regression'):
        item_sums("acc7", scores_from(1, 5), [1.0], [2.0])


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("low", "high", "preset", "expected"),
    [
        (-3, 3, "mmsa", []),
        (-1, 1, "sims", []),
        (
            1,
            5,
            "mmsa",
            [
                "scores lie in 1..5: Acc-2 and F1 ask whether a score lies above or below 3, and "
                "a label of 3 counts as zero; left out, since their classes are those of -3..3: "
                "Acc-7, Acc-5, Acc-3"
            ],
        ),
        (
            -50,
            50,
            "sims",
            [
                "scores lie in -50..50: Acc-2 and F1 ask whether a score lies above or below 0, "
                "and a label of 0 counts as zero; left out, since their classes are those of "
                "-3..3: Acc-5, Acc-3"
            ],
        ),
        (
            -1,
            1,
            "mmsa",
            [
                "scores lie in -1..1: Acc-7 and Acc-5 can tell no more than 3 classes apart, since "
                "no score rounds to the others; the field's metrics of -1..1: "
                "--set evaluation.preset=sims"
            ],
        ),
        (
            -2,
            2,
            "mult",
            [
                "scores lie in -2..2: Acc-7 can tell no more than 5 classes apart, since no score "
                "rounds to the others"
            ],
        ),
        (
            -1,
            3,
            "magbert",
            [
                "scores lie in -1..3: 0 is taken for neutral, and metrics are those of the "
                "field's -3..3"
            ],
        ),
        (
            -3,
            3,
            "sims",
            [
                "scores lie in -3..3, and preset sims clips labels and predictions to -1..1 "
                "before it scores them; with --set evaluation.preset=mmsa it does not"
            ],
        ),
    ],
)
def test_range_notes(low, high, preset, expected):
    assert range_notes(scores_from(low, high), preset=preset) == expected


def test_classes_have_no_range():
    assert range_notes(Task(kind="classes", names=("a", "b"))) == []
