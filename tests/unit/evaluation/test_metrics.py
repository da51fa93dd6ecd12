"""Metrics: worked by hand, then by published counts, then by the laws they must keep."""

import math
import statistics

import numpy as np
import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError
from mmcl.evaluation.metrics import (
    PRESETS,
    Metrics,
    auroc,
    class_indices,
    class_metrics,
    emotion_metrics,
    higher_is_better,
    regression_metrics,
    task_metrics,
)

# Sums of at most a few thousand float64 terms of size one.
EXACT = 1e-12
# Published tables are printed in percent with one decimal.
PRINTED = 0.0005

# Ten clips: every clip is there for one rule, named beside it.
WORKED = [
    (-2.6, -4.0),  # clipped to -3 before it is rounded
    (-1.4, -0.4),
    (-0.2, 0.0),  # zero is non-negative in has0 and magbert, negative in non0
    (0.0, 0.0),
    (0.0, -0.6),
    (0.6, 1.5),  # half to even: 2
    (2.5, 2.0),  # half to even: 2
    (3.0, 2.2),
    (1.0, -0.3),
    (-1.0, -1.0),
]
TRUTH, PREDICTION = (np.array(column) for column in zip(*WORKED, strict=True))
KEPT = TRUTH != 0

REGRESSION = Task(kind="regression", low=-3.0, high=3.0)
THREE = Task(kind="classes", names=("Low", "Mid", "High"))
FOUR = Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry"))
IEMOCAP_POSITIVES = (383, 135, 193, 227)


@pytest.fixture
def generator():
    return np.random.default_rng(20)


@pytest.fixture
def pairs(generator):
    truth = np.round(generator.uniform(-3, 3, 301), 1)
    truth[::7] = 0.0
    return truth, truth + generator.normal(0, 1.2, 301)


def corr_by_definition(truth, prediction):
    return statistics.correlation(list(truth), list(prediction))


def weighted_f1_by_counting(truth, prediction):
    total = 0.0
    for label in sorted(set(truth)):
        hits = sum(t == p == label for t, p in zip(truth, prediction, strict=True))
        in_truth = sum(t == label for t in truth)
        in_prediction = sum(p == label for p in prediction)
        total += in_truth * (2 * hits / (in_truth + in_prediction)) / len(truth)
    return total


# ---------------------------------------------------------------- regression, worked by hand


def test_mmsa_worked_by_hand():
    found = regression_metrics(TRUTH, PREDICTION, preset="mmsa")

    assert found.values == pytest.approx(
        {
            "mae": 6.7 / 10,
            "corr": corr_by_definition(TRUTH, PREDICTION),
            "acc7": 5 / 10,
            "acc5": 6 / 10,
            "acc3": 7 / 10,
            "acc2_has0": 7 / 10,
            "f1_has0": 4 / 10 * 6 / 9 + 6 / 10 * 8 / 11,
            "acc2_non0": 7 / 8,
            "f1_non0": 4 / 8 * 8 / 9 + 4 / 8 * 6 / 7,
        },
        abs=EXACT,
    )
    assert (found.warnings, found.preset, found.count) == ((), "mmsa", 10)


def test_mult_worked_by_hand():
    found = regression_metrics(TRUTH, PREDICTION, preset="mult")

    assert found.values == pytest.approx(
        {
            "mae": 6.7 / 10,
            "corr": corr_by_definition(TRUTH, PREDICTION),
            "acc7": 5 / 10,
            "acc5": 6 / 10,
            "acc2_has0": 9 / 10,
            "f1_has0": 4 / 10 * 6 / 7 + 6 / 10 * 12 / 13,
            "f1_has0_swapped": 3 / 10 * 6 / 7 + 7 / 10 * 12 / 13,
            "acc2_non0": 7 / 8,
            "f1_non0": 4 / 8 * 8 / 9 + 4 / 8 * 6 / 7,
            "f1_non0_swapped": 5 / 8 * 8 / 9 + 3 / 8 * 6 / 7,
        },
        abs=EXACT,
    )
    assert (found.warnings, found.preset, found.count) == ((), "mult", 10)


def test_magbert_worked_by_hand():
    found = regression_metrics(TRUTH, PREDICTION, preset="magbert")

    assert found.values == pytest.approx(
        {
            "mae": 6.1 / 8,
            "corr": corr_by_definition(TRUTH[KEPT], PREDICTION[KEPT]),
            "acc7": 4 / 8,
            "acc2_non0": 6 / 8,
            "f1_non0": 6 / 8,
        },
        abs=EXACT,
    )
    assert (found.warnings, found.preset, found.count) == ((), "magbert", 8)


def test_sims_worked_by_hand():
    truth = np.array([-1.0, -0.8, -0.4, 0.0, 0.0, 0.1, 0.6, 1.0, 1.4])
    prediction = np.array([-2.0, -0.7, 0.0, 0.05, -0.3, 0.2, 0.7, 0.9, 3.0])
    # clipped:                        -1                                    1
    clipped_truth, clipped = np.clip(truth, -1, 1), np.clip(prediction, -1, 1)

    found = regression_metrics(truth, prediction, preset="sims")

    # Acc-2 sides, truth - - - - - + + + + against - - - + - + + + +.
    # Acc-3 bins 0 0 0 1 1 1 2 2 2 against 0 0 1 1 0 2 2 2 2; Acc-5 bins
    # 0 0 1 2 2 2 3 4 4 against 0 0 2 2 1 3 3 4 4: -.7 and .7 close their bins.
    assert found.values == pytest.approx(
        {
            "acc2": 8 / 9,
            "acc3": 6 / 9,
            "acc5": 6 / 9,
            "f1": 5 / 9 * 8 / 9 + 4 / 9 * 8 / 9,
            "mae": (0 + 0.1 + 0.4 + 0.05 + 0.3 + 0.1 + 0.1 + 0.1 + 0) / 9,
            "corr": corr_by_definition(clipped_truth, clipped),
        },
        abs=EXACT,
    )
    assert (found.warnings, found.preset, found.count) == ((), "sims", 9)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.5, 0), (-0.5, 0), (1.5, 2), (-1.5, -2), (2.5, 2), (-2.5, -2), (3.5, 3), (-9.0, -3)],
)
def test_rounding_goes_half_to_even_on_both_sides(value, rounded):
    as_prediction = regression_metrics([rounded, rounded], [value, value])
    as_truth = regression_metrics([value, value], [rounded, rounded])
    assert as_prediction.values["acc7"] == as_truth.values["acc7"] == 1.0


def test_rounded_accuracies_clip_at_three_two_and_one():
    truth, prediction = [3.0, 2.0, 1.0, 0.0], [2.0, 1.0, 3.0, 0.0]
    found = regression_metrics(truth, prediction).values
    assert (found["acc7"], found["acc5"], found["acc3"]) == (0.25, 0.5, 1.0)


def test_prediction_of_zero_counts_as_negative_without_zeros_and_positive_with_them():
    truth, zeros = [-1.0, -2.0, 0.0, 1.0, 2.0, 3.0], np.zeros(6)
    mmsa = regression_metrics(truth, zeros).values
    assert (mmsa["acc2_non0"], mmsa["acc2_has0"]) == (2 / 5, 4 / 6)
    assert regression_metrics(truth, zeros, preset="magbert").values["acc2_non0"] == 3 / 5
    assert regression_metrics(truth, zeros, preset="mult").values["acc2_has0"] == 3 / 6


@pytest.mark.parametrize("preset", ["mmsa", "mult", "magbert"])
def test_zero_labels_are_told_after_rounding_to_a_millionth(preset):
    truth = np.array([-1.0, 4e-7, -4e-7, 1.0])
    found = regression_metrics(truth, [-1.0, -1.0, 1.0, 1.0], preset=preset)
    assert found.values["acc2_non0"] == 1.0

    further = regression_metrics(truth * [1, 3, 3, 1], [-1.0, -1.0, 1.0, 1.0], preset=preset)
    assert further.values["acc2_non0"] == 0.5


def test_tiny_negative_label_is_zero_and_hence_non_negative():
    assert regression_metrics([-4e-7, -1.0], [0.5, -1.0]).values["acc2_has0"] == 1.0
    assert regression_metrics([4e-7, 1.0], [-0.5, 1.0], preset="mult").values["acc2_has0"] == 1.0
    assert regression_metrics([4e-7, 1.0], [-0.5, 1.0], preset="sims").values["acc2"] == 1.0


def test_predictions_are_never_rounded_to_zero():
    truth = [-1.0, 1.0]
    assert regression_metrics(truth, [-1e-9, 1e-9]).values["acc2_non0"] == 1.0
    assert regression_metrics(truth, [-1e-9, 1e-9]).values["acc2_has0"] == 1.0
    assert regression_metrics(truth, [-1e-9, 1e-9], preset="sims").values["acc2"] == 1.0


# ---------------------------------------------------------------- SIMS bins


def bins_of(values, name):
    """Find the SIMS bin of each value by the one prediction that matches it."""
    centres = {"acc2": (-0.5, 0.5), "acc3": (-0.5, 0.0, 0.5), "acc5": (-0.8, -0.4, 0.0, 0.4, 0.8)}
    found = []
    for value in values:
        truth = np.asarray([value, value])
        matches = [
            regression_metrics(truth, [centre, centre], preset="sims").values[name]
            for centre in centres[name]
        ]
        assert sorted(matches) == [0.0] * (len(matches) - 1) + [1.0]
        found.append(matches.index(1.0))
    return found


@pytest.mark.parametrize(
    ("name", "bins"),
    [
        ("acc2", [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
        ("acc3", [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]),
        ("acc5", [0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 4]),
    ],
)
def test_sims_label_grid_falls_into_its_bins(name, bins):
    grid = [-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert bins_of(grid, name) == bins
    assert bins_of(np.array(grid, dtype=np.float32), name) == bins


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_edges_close_the_bin_below_them(dtype):
    # As float64 the float32 copies of .1 and -.7 lie above and the other two below; all
    # are the edge itself again once rounded to a millionth, and float64 does the rest.
    edges = np.array([-0.7, -0.1, 0.1, 0.7], dtype=dtype)
    assert bins_of(edges, "acc5") == [0, 1, 2, 3]
    assert bins_of(edges, "acc3") == [0, 0, 1, 2]
    assert bins_of(edges + dtype(0.001), "acc5") == [1, 2, 3, 4]
    assert bins_of(edges + dtype(0.001), "acc3") == [0, 1, 2, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_edges_hold_for_predictions_too(dtype):
    truth = [-0.8, -0.2, 0.0, 0.2]
    found = regression_metrics(truth, np.array([-0.7, -0.1, 0.1, 0.7], dtype=dtype), preset="sims")
    assert found.values["acc5"] == found.values["acc3"] == 1.0


def test_sims_zero_is_negative():
    found = regression_metrics([0.0, 0.0, 0.4], [-0.2, 0.0, 0.3], preset="sims")
    assert found.values["acc2"] == 1.0


# ---------------------------------------------------------------- constants and undefined values


@pytest.mark.parametrize(
    ("counts", "constant", "has0", "non0"),
    [
        pytest.param((379, 30, 277), 0.2, (0.448, None), (0.422, None), id="mosi-train-median"),
        pytest.param((379, 30, 277), 0.0, (0.448, None), (0.578, 0.423), id="mosi-zero"),
        pytest.param((379, 30, 277), -0.6, (0.552, 0.393), (0.578, 0.423), id="mosi-negative"),
        pytest.param((1350, 1025, 2284), 1.0, (0.710, 0.590), (0.629, 0.485), id="mosei-positive"),
    ],
)
def test_constant_predictors_score_what_the_published_counts_say(counts, constant, has0, non0):
    truth = np.repeat([-1.0, 0.0, 1.0], counts)

    found = regression_metrics(truth, np.full(len(truth), constant))

    assert found.values["acc2_has0"] == pytest.approx(has0[0], abs=PRINTED)
    assert found.values["acc2_non0"] == pytest.approx(non0[0], abs=PRINTED)
    if has0[1]:
        assert found.values["f1_has0"] == pytest.approx(has0[1], abs=PRINTED)
    if non0[1]:
        assert found.values["f1_non0"] == pytest.approx(non0[1], abs=PRINTED)
    assert math.isnan(found.values["corr"])
    assert found.warnings == ("corr is undefined: the prediction is constant or nearly constant",)


def test_collapsed_sims_row_is_recognised():
    truth = np.repeat([-0.4, 0.0, 0.4], [250, 67, 140])  # 317 of 457 are not positive
    found = regression_metrics(truth, np.full(457, -0.3), preset="sims")
    assert found.values["acc2"] == pytest.approx(0.6937, abs=5e-5)  # printed with two decimals
    assert found.values["f1"] == pytest.approx(0.5682, abs=5e-5)


@pytest.mark.parametrize("num_positive", [51, 70, 99])
def test_constant_majority_keeps_the_f1_algebra(num_positive):
    truth = np.repeat([1.0, -1.0], [num_positive, 100 - num_positive])
    found = regression_metrics(truth, np.ones(100), preset="mult").values
    a = num_positive / 100
    assert found["acc2_non0"] == pytest.approx(a, abs=EXACT)
    assert found["f1_non0"] == pytest.approx(2 * a**2 / (1 + a), abs=EXACT)
    assert found["f1_non0_swapped"] == pytest.approx(2 * a / (1 + a), abs=EXACT)


FLAT_PREDICTION = "corr is undefined: the prediction is constant or nearly constant"
FLAT_TRUTH = "corr is undefined: the truth is constant or nearly constant"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        pytest.param([1.0, 2.0, 3.0], [0.2, 0.2, 0.2], FLAT_PREDICTION, id="constant"),
        pytest.param([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], FLAT_PREDICTION, id="constant-zero"),
        pytest.param([1.0, 2.0, 3.0], [0.2, 0.2 + 1e-12, 0.2], FLAT_PREDICTION, id="nearly"),
        pytest.param([1.0, 2.0, 3.0], [1e-12, 3e-12, 2e-12], FLAT_PREDICTION, id="nearly-zero"),
        pytest.param([0.4, 0.4, 0.4], [1.0, 2.0, 3.0], FLAT_TRUTH, id="truth-constant"),
        pytest.param([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], FLAT_TRUTH, id="truth-zero"),
        pytest.param([0.4, 0.4, 0.4 + 1e-9], [1.0, 2.0, 3.0], FLAT_TRUTH, id="truth-nearly"),
        pytest.param([1.0], [2.0], "corr is undefined: there is only one item", id="one-item"),
    ],
)
@pytest.mark.parametrize("preset", ["mmsa", "mult", "sims"])
def test_corr_without_spread_is_undefined_and_says_so(truth, prediction, message, dtype, preset):
    scale = 0.1 if preset == "sims" else 1.0  # inside the range, so that nothing is clipped
    found = regression_metrics(
        scale * np.array(truth, dtype=dtype), scale * np.array(prediction, dtype), preset=preset
    )
    assert math.isnan(found.values["corr"])
    assert math.isfinite(found.values["mae"])
    assert message in found.warnings


def test_corr_of_a_small_but_real_spread_is_defined():
    truth = np.array([1.0, 2.0, 4.0])
    found = regression_metrics(truth, 0.2 + 1e-3 * truth)
    # The spread is a hundredth of the offset, so cancellation costs two or three digits.
    assert found.values["corr"] == pytest.approx(1.0, abs=1e-10)
    assert found.warnings == ()


@pytest.mark.parametrize("size", [1e200, 1e308])
def test_huge_predictions_do_not_overflow_corr(size):
    found = regression_metrics([1.0, 2.0, 3.0], np.array([0.1, 0.2, 1.0]) * size)
    assert found.values["corr"] == pytest.approx(
        corr_by_definition([1, 2, 3], [0.1, 0.2, 1.0]), abs=EXACT
    )


def test_mae_beyond_float64_is_infinite_without_a_numpy_warning():
    assert regression_metrics([1.0, 2.0], [1.7e308, -1.7e308]).values["mae"] == math.inf


@pytest.mark.parametrize("preset", ["mmsa", "mult"])
def test_non0_without_any_non_zero_label_is_undefined(preset):
    found = regression_metrics([0.0, 0.0], [1.0, -1.0], preset=preset)
    assert math.isnan(found.values["acc2_non0"])
    assert math.isnan(found.values["f1_non0"])
    assert found.values["acc2_has0"] == 0.5
    assert found.values["mae"] == 1.0
    assert found.warnings == (
        "corr is undefined: the truth is constant or nearly constant",
        "acc2_non0 and f1_non0 are undefined: every label is zero",
    )


def test_magbert_without_any_non_zero_label_has_nothing_left():
    found = regression_metrics([0.0, 0.0], [1.0, -1.0], preset="magbert")
    assert all(math.isnan(value) for value in found.values.values())
    assert found.warnings == ("no item is left to score: every metric is undefined",)
    assert found.count == 0


# ---------------------------------------------------------------- predictions that are not finite


def test_nan_prediction_is_negative_in_acc2_and_no_bin_elsewhere():
    truth = np.array([-1.0, 0.0, 2.0, 3.0])
    prediction = np.array([math.nan, math.nan, math.nan, 3.0])

    found = regression_metrics(truth, prediction)

    assert found.values["acc2_has0"] == 2 / 4
    assert found.values["acc2_non0"] == 2 / 3
    assert found.values["acc7"] == found.values["acc5"] == found.values["acc3"] == 1 / 4
    assert math.isnan(found.values["mae"])
    assert math.isnan(found.values["corr"])
    assert found.warnings == ("3 of 4 predictions are not finite: mae and corr are undefined",)


def test_nan_prediction_matches_no_sims_bin():
    found = regression_metrics([-0.5, 0.5, 1.0], [math.nan, math.nan, 0.9], preset="sims")
    assert found.values["acc2"] == found.values["acc3"] == found.values["acc5"] == 1 / 3
    assert found.values["f1"] == pytest.approx(1 / 3 * 0 + 2 / 3 * (2 / 3), abs=EXACT)
    assert math.isnan(found.values["mae"])
    assert found.warnings == ("2 of 3 predictions are not finite: mae and corr are undefined",)


@pytest.mark.parametrize("preset", PRESETS)
def test_infinite_prediction_leaves_mae_undefined_and_keeps_its_sign(preset):
    prediction = [math.inf, -math.inf, 0.5]
    found = regression_metrics([1.0, -1.0, 0.5], prediction, preset=preset)
    assert math.isnan(found.values["mae"])
    assert math.isnan(found.values["corr"])
    assert found.values["acc2" if preset == "sims" else "acc2_non0"] == 1.0
    assert found.warnings == ("2 of 3 predictions are not finite: mae and corr are undefined",)


# ---------------------------------------------------------------- laws of regression metrics


@pytest.mark.parametrize("preset", PRESETS)
def test_perfect_prediction_is_perfect(preset, pairs):
    for truth in (pairs[0], pairs[0].astype(np.float32) / 3):
        found = regression_metrics(truth, truth, preset=preset).values
        assert found.pop("mae") == 0.0
        assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=EXACT)


@pytest.mark.parametrize("preset", PRESETS)
def test_order_of_the_clips_changes_nothing(preset, pairs, generator):
    truth, prediction = pairs
    order = generator.permutation(len(truth))
    shuffled = regression_metrics(truth[order], prediction[order], preset=preset)
    expected = regression_metrics(truth, prediction, preset=preset)
    assert shuffled.values == pytest.approx(expected.values, abs=EXACT)


@pytest.mark.parametrize("preset", PRESETS)
def test_doubling_every_clip_changes_only_the_count(preset, pairs):
    once = regression_metrics(*pairs, preset=preset)
    twice = regression_metrics(np.tile(pairs[0], 2), np.tile(pairs[1], 2), preset=preset)
    assert twice.values == pytest.approx(once.values, abs=EXACT)
    assert twice.count == 2 * once.count


def test_unlabelled_clips_are_left_out_and_counted(pairs):
    truth, prediction = pairs
    expected = regression_metrics(truth, prediction)

    found = regression_metrics([math.nan, *truth, math.nan], [9.0, *prediction, math.nan])

    assert found.values == expected.values
    assert found.count == 301
    assert found.warnings == ("2 of 303 items have no truth and were left out",)


def test_metrics_agree_with_plain_counting(pairs):
    truth, prediction = pairs
    found = regression_metrics(truth, prediction).values
    kept = truth != 0
    f1_has0 = weighted_f1_by_counting(list(truth >= 0), list(prediction >= 0))
    f1_non0 = weighted_f1_by_counting(list(truth[kept] > 0), list(prediction[kept] > 0))
    mae = statistics.fmean(abs(t - p) for t, p in zip(truth, prediction, strict=True))
    acc7 = statistics.fmean(
        round(min(max(t, -3), 3)) == round(min(max(p, -3), 3))
        for t, p in zip(truth.tolist(), prediction.tolist(), strict=True)
    )
    assert found["f1_has0"] == pytest.approx(f1_has0, abs=EXACT)
    assert found["f1_non0"] == pytest.approx(f1_non0, abs=EXACT)
    assert found["corr"] == pytest.approx(corr_by_definition(truth, prediction), abs=EXACT)
    assert found["mae"] == pytest.approx(mae, abs=EXACT)
    assert found["acc7"] == pytest.approx(acc7, abs=EXACT)


def test_float32_input_is_scored_in_float64():
    truth = np.array([0.1, 0.2, 0.4], dtype=np.float32)
    prediction = np.array([0.3, 0.1, 0.4], dtype=np.float32)
    expected = np.abs(truth.astype(np.float64) - prediction.astype(np.float64)).mean()
    assert regression_metrics(truth, prediction).values["mae"] == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_no_clip_at_all_gives_nan_and_a_warning(preset):
    found = regression_metrics([], [], preset=preset)
    assert found.values
    assert all(math.isnan(value) for value in found.values.values())
    assert found.warnings == ("no item is left to score: every metric is undefined",)
    assert found.count == 0


def test_values_are_plain_floats(pairs):
    for preset in PRESETS:
        values = regression_metrics(*pairs, preset=preset).values
        assert {type(value) for value in values.values()} == {float}


# ---------------------------------------------------------------- classes

LOGITS = np.array(
    [
        [3.0, 1.0, 0.0],
        [0.0, 2.0, 1.0],
        [0.0, 1.0, 5.0],
        [1.0, 0.0, 0.5],
        [0.0, 4.0, 1.0],
    ]
)  # chosen: 0 1 2 0 1


def test_classes_worked_by_hand():
    found = class_metrics([0, 1, 2, 1, 1], LOGITS)
    # class 0: TP 1, FP 1; class 1: TP 2, FN 1; class 2: TP 1.
    assert found.values == pytest.approx(
        {
            "accuracy": 4 / 5,
            "f1_weighted": 1 / 5 * 2 / 3 + 3 / 5 * 4 / 5 + 1 / 5,
            "f1_macro": (2 / 3 + 4 / 5 + 1) / 3,
            "uar": (1 + 2 / 3 + 1) / 3,
        },
        abs=EXACT,
    )
    assert found[1:] == ((), "classes", 5)


def test_class_names_add_their_recalls():
    found = class_metrics([0, 1, 2, 1, 1], LOGITS, names=["Low", "Mid", "High"]).values
    recalls = {key: value for key, value in found.items() if key.startswith("recall")}
    assert recalls == {"recall_low": 1.0, "recall_mid": 2 / 3, "recall_high": 1.0}


def test_class_absent_from_the_truth_does_not_count_in_uar():
    found = class_metrics([0, 1, 0, 0, 1], LOGITS, names=["a", "b", "c"])
    assert found.values["uar"] == pytest.approx((2 / 3 + 1) / 2, abs=EXACT)
    assert math.isnan(found.values["recall_c"])
    # f1_macro keeps it, for the model did choose it: classes 0, 1 and 2.
    assert found.values["f1_macro"] == pytest.approx((4 / 5 + 1 + 0) / 3, abs=EXACT)
    assert found.warnings == ("classes [2] never occur in the truth and do not count in uar",)


def test_row_with_nan_is_wrong_and_no_class_of_its_own():
    broken = LOGITS.copy()
    broken[4, 0] = math.nan
    found = class_metrics([0, 1, 2, 1, 1], broken)
    assert found.values == pytest.approx(
        {
            "accuracy": 3 / 5,
            "f1_weighted": 1 / 5 * 2 / 3 + 3 / 5 * 1 / 2 + 1 / 5,
            "f1_macro": (2 / 3 + 1 / 2 + 1) / 3,
            "uar": (1 + 1 / 3 + 1) / 3,
        },
        abs=EXACT,
    )
    assert found.warnings == ("1 of 5 predictions are nan and count as wrong",)


def test_equal_logits_choose_the_first_class():
    assert class_metrics([0, 0], np.zeros((2, 3))).values["accuracy"] == 1.0


@pytest.mark.parametrize("unknown", [-1, math.nan])
def test_unlabelled_clips_of_classes_are_left_out(unknown):
    found = class_metrics([0, 1, unknown, 1, 1], LOGITS)
    assert found.values["accuracy"] == 3 / 4
    assert found.count == 4
    assert found.warnings == (
        "1 of 5 items have no truth and were left out",
        "classes [2] never occur in the truth and do not count in uar",
    )


def test_classes_without_any_label_are_nan():
    found = class_metrics([-1] * 5, LOGITS, names=["a", "b", "c"])
    assert all(math.isnan(value) for value in found.values.values())
    assert found.warnings == (
        "5 of 5 items have no truth and were left out",
        "no item is left to score: every metric is undefined",
    )
    assert found.count == 0


def test_class_metrics_ignore_an_offset_per_clip(generator):
    truth, logits = generator.integers(3, size=40), generator.normal(size=(40, 3))
    offset = generator.normal(size=(40, 1))
    assert class_metrics(truth, logits + offset) == class_metrics(truth, logits)


# ---------------------------------------------------------------- emotions


def iemocap_truth():
    return np.repeat(np.eye(4, dtype=int), IEMOCAP_POSITIVES, axis=0)


def test_absent_everywhere_scores_what_the_iemocap_counts_say():
    truth = iemocap_truth()
    absent = np.tile([1.0, 0.0], (938, 4, 1))

    found = emotion_metrics(truth, absent, FOUR.names)

    printed = {
        "accuracy_neutral": 0.592,
        "f1_neutral": 0.440,
        "accuracy_happy": 0.856,
        "f1_happy": 0.790,
        "accuracy_sad": 0.794,
        "f1_sad": 0.703,
        "accuracy_angry": 0.758,
        "f1_angry": 0.654,
    }
    assert {key: found.values[key] for key in printed} == pytest.approx(printed, abs=PRINTED)
    assert found.values["accuracy_mean"] == pytest.approx(0.750, abs=PRINTED)
    assert found.values["f1_mean"] == pytest.approx(0.647, abs=PRINTED)
    # Equal margins choose the first emotion: 383 of 938, and F1 of that class alone.
    assert found.values["accuracy_single"] == 383 / 938
    assert found.values["f1_macro_single"] == pytest.approx(2 * 383 / (938 + 383) / 4, abs=EXACT)
    assert found[1:] == ((), "emotions", 938)


def test_emotions_worked_by_hand():
    # Three clips, two emotions; margins are present minus absent.
    truth = np.array([[1, 0], [0, 1], [0, 1]])
    scores = np.array(
        [
            [[0.0, 2.0], [0.0, 1.0]],  # both present, margins 2 and 1: the first
            [[0.0, 3.0], [0.0, 4.0]],  # both present, margins 3 and 4: the second
            [[4.0, 3.0], [7.0, 4.0]],  # none present, margins -1 and -3: the first
        ]
    )
    found = emotion_metrics(truth, scores, ["Calm", "Tense"])
    assert found.values == pytest.approx(
        {
            "accuracy_calm": 2 / 3,
            "f1_calm": 2 / 3 * 2 / 3 + 1 / 3 * 2 / 3,
            "accuracy_tense": 1 / 3,
            "f1_tense": 1 / 3 * 0 + 2 / 3 * 1 / 2,
            "accuracy_mean": 1 / 2,
            "f1_mean": (2 / 3 + 1 / 3) / 2,
            "accuracy_single": 2 / 3,
            "f1_macro_single": 2 / 3,
        },
        abs=EXACT,
    )


def test_several_emotions_at_once_have_no_single_choice(generator):
    truth = np.array([[1, 1, 0], [0, 1, 0]])
    found = emotion_metrics(truth, generator.normal(size=(2, 3, 2)), ["a", "b", "c"])
    assert not [key for key in found.values if "single" in key]


def test_one_emotion_alone_has_no_single_choice(generator):
    found = emotion_metrics([[1], [1]], generator.normal(size=(2, 1, 2)), ["a"])
    assert list(found.values) == ["accuracy_a", "f1_a", "accuracy_mean", "f1_mean"]


def test_nan_logit_makes_one_emotion_wrong():
    truth = np.array([[0, 1], [1, 0]])
    scores = np.array([[[1.0, 0.0], [0.0, math.nan]], [[0.0, 1.0], [1.0, 0.0]]])
    found = emotion_metrics(truth, scores, ["a", "b"])
    assert (found.values["accuracy_a"], found.values["accuracy_b"]) == (1.0, 0.5)
    assert found.values["accuracy_single"] == 0.5
    assert found.warnings == ("1 of 2 predictions are nan and count as wrong",)


def test_two_infinite_logits_have_no_margin():
    scores = np.array([[[math.inf, math.inf], [0.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]])
    found = emotion_metrics([[0, 1], [1, 0]], scores, ["a", "b"])
    assert found.values["accuracy_single"] == 0.5


def test_clips_without_every_judgement_are_left_out():
    truth = np.array([[1, 0], [-1, 0], [0, 1], [-1, -1]])
    scores = np.tile([0.0, 1.0], (4, 2, 1))
    found = emotion_metrics(truth, scores, ["a", "b"])
    assert (found.values["accuracy_a"], found.count) == (0.5, 2)
    assert found.warnings == ("2 of 4 items have no truth and were left out",)


def test_emotions_without_any_label_are_nan():
    found = emotion_metrics(np.full((3, 2), -1), np.zeros((3, 2, 2)), ["a", "b"])
    assert all(math.isnan(value) for value in found.values.values())
    assert found.warnings == (
        "3 of 3 items have no truth and were left out",
        "no item is left to score: every metric is undefined",
    )


# ---------------------------------------------------------------- by task, and the rest


def test_task_metrics_follow_the_kind_of_task(pairs, generator):
    truth, prediction = pairs
    emotions = generator.normal(size=(938, 4, 2))
    assert task_metrics(REGRESSION, truth, prediction) == regression_metrics(truth, prediction)
    assert task_metrics(REGRESSION, truth, prediction, preset="magbert") == regression_metrics(
        truth, prediction, preset="magbert"
    )
    assert task_metrics(THREE, [0, 1, 2, 1, 1], LOGITS) == class_metrics(
        [0, 1, 2, 1, 1], LOGITS, names=THREE.names
    )
    assert task_metrics(FOUR, iemocap_truth(), emotions) == emotion_metrics(
        iemocap_truth(), emotions, FOUR.names
    )


@pytest.mark.parametrize("task", [REGRESSION, THREE, FOUR], ids=lambda task: task.kind)
def test_unknown_preset_is_refused_for_every_task(task):
    with pytest.raises(ConfigError) as caught:
        task_metrics(task, [], [], preset="msa")
    assert str(caught.value) == (
        'unknown metric preset "msa"; did you mean "mmsa"?\n  Presets: mmsa, sims, mult, magbert'
    )


def test_regression_refuses_an_unknown_preset():
    with pytest.raises(ConfigError) as caught:
        regression_metrics([1.0], [1.0], preset="x")
    assert str(caught.value) == ('unknown metric preset "x"\n  Presets: mmsa, sims, mult, magbert')


def test_every_metric_has_a_direction(pairs, generator):
    keys = {key for preset in PRESETS for key in regression_metrics(*pairs, preset=preset).values}
    keys |= set(task_metrics(THREE, [0, 1, 2, 1, 1], LOGITS).values)
    keys |= set(task_metrics(FOUR, iemocap_truth(), np.zeros((938, 4, 2))).values)
    assert [key for key in sorted(keys) if not higher_is_better(key)] == ["mae"]
    assert higher_is_better("auroc")


def test_direction_of_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError) as caught:
        higher_is_better("accurcy")
    assert str(caught.value) == 'unknown metric "accurcy"; did you mean "accuracy"?'


def test_auroc_worked_by_hand():
    # Pairs (positive, negative): .8>.1 .8>.5, .5>.1 .5=.5, .3>.1 .3<.5: 4.5 of 6.
    positive = [True, True, True, False, False]
    assert auroc(positive, [0.8, 0.5, 0.3, 0.1, 0.5]) == pytest.approx(4.5 / 6, abs=EXACT)


def test_auroc_depends_on_the_order_alone(generator):
    positive, score = generator.random(50) < 0.4, generator.normal(size=50)
    expected = auroc(positive, score)
    assert auroc(positive, np.exp(score)) == pytest.approx(expected, abs=EXACT)
    assert auroc(positive, -score) == pytest.approx(1 - expected, abs=EXACT)
    score[score.argmax()] = math.inf
    assert auroc(positive, score) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("positive", "score"),
    [
        pytest.param([True, True], [0.1, 0.2], id="no-negative"),
        pytest.param([False, False], [0.1, 0.2], id="no-positive"),
        pytest.param([], [], id="nothing"),
        pytest.param([True, False], [0.1, math.nan], id="nan"),
    ],
)
def test_auroc_is_nan_where_it_has_no_meaning(positive, score):
    assert math.isnan(auroc(positive, score))


def test_metrics_unpack_in_their_order():
    values, warnings, preset, count = Metrics({"mae": 1.0}, ("a",), "mmsa", 2)
    assert (values, warnings, preset, count) == ({"mae": 1.0}, ("a",), "mmsa", 2)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: regression_metrics(np.zeros((2, 1)), np.zeros(2)),
            "truth must be 1-D [clips], got shape [2, 1]",
            id="regression-column",
        ),
        pytest.param(
            lambda: regression_metrics(np.zeros(2), np.zeros((2, 1))),
            "prediction must have shape [2] [clips] to match truth [2], got [2, 1]",
            id="regression-prediction-column",
        ),
        pytest.param(
            lambda: class_metrics([0, 1], np.zeros(2)),
            "scores must be 2-D [clips, classes], got shape [2]",
            id="classes-flat",
        ),
        pytest.param(
            lambda: class_metrics([0, 1, 2], np.zeros((2, 3))),
            "truth must have shape [2] [clips] to match scores [2, 3], got [3]",
            id="classes-count",
        ),
        pytest.param(
            lambda: class_metrics([0, 1], np.zeros((2, 3)), names=["a", "b"]),
            "names must list 3 classes to match scores [2, 3], got 2: ['a', 'b']",
            id="classes-names",
        ),
        pytest.param(
            lambda: emotion_metrics(np.zeros((5, 4)), np.zeros((5, 8)), FOUR.names),
            "scores must be 3-D [clips, emotions, 2], got shape [5, 8]",
            id="emotions-flat",
        ),
        pytest.param(
            lambda: emotion_metrics(np.zeros((5, 4)), np.zeros((5, 4, 3)), FOUR.names),
            "scores must hold two logits per emotion [clips, emotions, 2], got shape [5, 4, 3]",
            id="emotions-three-logits",
        ),
        pytest.param(
            lambda: emotion_metrics(np.zeros((5, 3)), np.zeros((5, 4, 2)), FOUR.names),
            "truth must have shape [5, 4] [clips, emotions] to match scores [5, 4, 2], got [5, 3]",
            id="emotions-one-missing",
        ),
        pytest.param(
            lambda: emotion_metrics(np.zeros((5, 2)), np.zeros((5, 2, 2)), ["Sad"]),
            "names must list 2 emotions to match scores [5, 2, 2], got 1: ['Sad']",
            id="emotions-names",
        ),
        pytest.param(
            lambda: auroc(np.zeros((2, 2), dtype=bool), np.zeros(2)),
            "positive must be 1-D [items], got shape [2, 2]",
            id="auroc-axes",
        ),
        pytest.param(
            lambda: auroc([True, False], [0.1]),
            "score must have shape [2] [items] to match positive [2], got [1]",
            id="auroc-count",
        ),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: class_metrics([0, 3], np.zeros((2, 3))),
            "truth must hold class indices from 0 to 2, or -1 where unknown, got 3.0",
            id="class-too-large",
        ),
        pytest.param(
            lambda: class_metrics([0, 0.5], np.zeros((2, 3))),
            "truth must hold class indices from 0 to 2, or -1 where unknown, got 0.5",
            id="class-with-a-fraction",
        ),
        pytest.param(
            lambda: emotion_metrics([[0, 2]], np.zeros((1, 2, 2)), ["a", "b"]),
            "truth must hold class indices from 0 to 1, or -1 where unknown, got 2.0",
            id="emotion-of-two",
        ),
        pytest.param(
            lambda: class_indices([-2], 3, "labels"),
            "labels must hold class indices from 0 to 2, or -1 where unknown, got -2.0",
            id="index-below-unknown",
        ),
    ],
)
def test_labels_that_are_none_are_refused(call, message):
    with pytest.raises(DatasetError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["SAD", "mean", "Single"])
def test_emotion_names_that_collide_are_refused(name):
    with pytest.raises(ConfigError) as caught:
        emotion_metrics([[0, 1]], np.zeros((1, 2, 2)), ["Sad", name])
    assert str(caught.value) == f'the name "{name}" of emotions is taken already'


def test_areas_of_a_planted_corpus_have_a_direction():
    assert higher_is_better("common_auroc")
    assert higher_is_better("action_auroc")
    assert higher_is_better("kept_precision")
    assert not higher_is_better("kept")


def test_nan_is_in_no_bin_not_even_in_that_of_minus_one():
    found = regression_metrics([-1.0, 2.0, 1.0], [math.nan, 2.0, 1.0]).values
    assert (found["acc7"], found["acc3"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
