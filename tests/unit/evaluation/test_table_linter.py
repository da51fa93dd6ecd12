"""The linter: worked by hand, against scikit-learn, against linear programming, on real tables."""

import csv
import itertools
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn.metrics import f1_score

from mmcl.corpus.known_corpora import KNOWN
from mmcl.evaluation.table_linter import (
    TEST_COUNTS,
    Counts,
    Finding,
    Interval,
    Printed,
    can_occur,
    f1_interval,
    lint_row,
    weighted_f1,
)

# A dozen float64 operations on numbers up to a hundred.
TOLERANCE = {"rel": 0.0, "abs": 1e-10}

SMALL = Counts(5, 3)
PUBLISHED = list(csv.DictReader(Path(__file__).with_name("published.csv").read_text().splitlines()))


def printed(text):
    return Printed(Fraction(text), len(text.partition(".")[2]))


def rounded(value, decimals):
    return printed(f"{value:.{decimals}f}")


def all_matrices(counts):
    return list(itertools.product(range(counts.positives + 1), range(counts.negatives + 1)))


def points(counts, *, swapped):
    """Accuracy and F1 of every confusion matrix, both in percent, ``[k]`` each."""
    tp, tn = np.array(all_matrices(counts)).T
    return 100 * (tp + tn) / sum(counts), weighted_f1(tp, tn, counts, swapped=swapped)


# ---------------------------------------------------------------- F1 itself


def test_f1_worked_by_hand():
    # Of 3 positives 2 are found, of 1 negative none: predicted positive 3, negative 1.
    # F1 of positive 2*2/(3+3) = 2/3, of negative 0; weights 3 and 1.
    value = weighted_f1(np.array([2]), np.array([0]), Counts(3, 1))
    assert value == pytest.approx([100 * 3 / 4 * 2 / 3], **TOLERANCE)


def test_swapped_f1_worked_by_hand():
    # Of 5 positives 4 are found, of 3 negatives 1: predicted positive 6, negative 2.
    # F1 of positive 8/11, of negative 2/5; weights 6 and 2 of 8, where 5 and 3 are right.
    matrix = np.array([4]), np.array([1]), SMALL
    right, swapped = (weighted_f1(*matrix, swapped=each)[0] for each in (False, True))
    assert right == pytest.approx(100 * (5 / 8 * 8 / 11 + 3 / 8 * 2 / 5), **TOLERANCE)
    assert swapped == pytest.approx(100 * (6 / 8 * 8 / 11 + 2 / 8 * 2 / 5), **TOLERANCE)


@pytest.mark.parametrize("counts", [SMALL, Counts(1, 4), Counts(6, 6)], ids=str)
def test_f1_is_that_of_scikit_learn_on_every_matrix(counts):
    truth = [1] * counts.positives + [0] * counts.negatives
    for tp, tn in all_matrices(counts):
        called = [1] * tp + [0] * (counts.positives - tp)
        called += [0] * tn + [1] * (counts.negatives - tn)
        for swapped, sides in ((False, (truth, called)), (True, (called, truth))):
            expected = 100 * f1_score(*sides, average="weighted", zero_division=0.0)
            found = weighted_f1(np.array([tp]), np.array([tn]), counts, swapped=swapped)
            assert found == pytest.approx([expected], **TOLERANCE)


@pytest.mark.parametrize("share", ["mosi non0", "mosei has0", "sims acc2", "iemocap happy"])
def test_constant_majority_has_its_closed_form(share):
    dataset, metric = share.split()
    counts = TEST_COUNTS[dataset][metric]
    positive = counts.positives > counts.negatives
    matrix = np.array([counts.positives * positive]), np.array([counts.negatives * (not positive)])
    a = max(counts) / sum(counts)
    right, swapped = (weighted_f1(*matrix, counts, swapped=each)[0] for each in (False, True))
    assert right == pytest.approx(100 * 2 * a * a / (1 + a), **TOLERANCE)
    assert swapped == pytest.approx(100 * 2 * a / (1 + a), **TOLERANCE)


# ---------------------------------------------------------------- one run


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("text", ["62.5", "62", "87.50", "100", "0", "50.1", "55"])
def test_interval_of_a_run_is_that_of_all_matrices(text, swapped):
    accuracy = printed(text)
    of_all, f1 = points(SMALL, swapped=swapped)
    fitting = f1[abs(of_all - float(accuracy.value)) <= float(accuracy.half_unit)]
    found = f1_interval(SMALL, accuracy, single=True, swapped=swapped)
    if text in ("50.1", "55"):  # steps of 12.5 points
        assert found is None
        assert fitting.size == 0
    else:
        assert found == pytest.approx((fitting.min(), fitting.max()), **TOLERANCE)


def test_every_run_can_occur_as_it_is_printed():
    counts = Counts(7, 5)
    for swapped in (False, True):
        for accuracy, f1 in zip(*points(counts, swapped=swapped), strict=True):
            for decimals in (0, 1, 2, 4):
                pair = rounded(accuracy, decimals), rounded(f1, decimals)
                for single in (False, True):
                    assert can_occur(counts, *pair, single=single, swapped=swapped)


def test_a_gap_between_the_values_of_runs_is_no_run():
    # 5 of 8 right: (tp, tn) = (2,3) (3,2) (4,1) (5,0) give 60.71, 63.10, 60.45, 48.08.
    f1 = weighted_f1(np.array([2, 3, 4, 5]), np.array([3, 2, 1, 0]), SMALL)
    assert f1.round(2).tolist() == [60.71, 63.1, 60.45, 48.08]
    accuracy = printed("62.5")
    assert can_occur(SMALL, accuracy, printed("60.45"), single=True)
    assert not can_occur(SMALL, accuracy, printed("60.46"), single=True)
    assert can_occur(SMALL, accuracy, printed("60.46"))
    assert lint_row(SMALL, accuracy, printed("60.46"), single=True) == Finding(
        False, Interval(float(f1.min()), float(f1.max())), "possible only as a mean over runs"
    )


def test_half_a_unit_belongs_to_both_neighbours():
    # 1 of 8 is 12.5, which some print as 12 and some as 13.
    for text, fits in (("12", True), ("13", True), ("11", False), ("14", False)):
        assert (f1_interval(SMALL, printed(text), single=True) is not None) == fits


def test_an_accuracy_between_two_clips_is_no_run():
    finding = lint_row(TEST_COUNTS["mosi"]["has0"], printed("81.24"), printed("81.23"), single=True)
    assert finding == Finding(
        False, None, "no single run has this accuracy: one clip is 0.146 points"
    )


# ---------------------------------------------------------------- a mean over runs


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("text", ["0", "5.5", "31.25", "50.0", "62.50", "77.7", "99.99", "100"])
@pytest.mark.parametrize("counts", [SMALL, Counts(2, 9)], ids=str)
def test_interval_of_a_mean_is_that_of_all_mixtures(counts, text, swapped):
    accuracy, f1 = points(counts, swapped=swapped)
    slack = 0.5 * 10.0 ** -len(text.partition(".")[2]) + 0.005
    ends = []
    for sign in (1, -1):
        solved = linprog(
            sign * f1,
            A_ub=[accuracy, -accuracy],
            b_ub=[float(text) + slack, slack - float(text)],
            A_eq=[np.ones_like(f1)],
            b_eq=[1.0],
        )
        ends.append(sign * solved.fun)
    # The solver's own tolerance is 1e-7 of its constraints.
    assert f1_interval(counts, printed(text), swapped=swapped) == pytest.approx(ends, abs=1e-4)


def test_every_mean_of_rounded_seeds_can_occur_as_it_is_printed():
    draw = random.Random(3)
    counts = Counts(9, 14)
    accuracy, f1 = points(counts, swapped=False)
    for _ in range(300):
        seeds = draw.choices(range(len(f1)), k=draw.choice([2, 3, 5]))
        means = [np.round(values[seeds] / 100, 4).mean() * 100 for values in (accuracy, f1)]
        decimals = draw.choice([1, 2, 3])
        assert can_occur(counts, *(rounded(mean, decimals) for mean in means))


def test_mean_of_every_seed_rounded_the_same_way_can_occur():
    # 1 of 3 right and 2 of 3 right: a third and two thirds are both printed too high or low,
    # by more than a number of six decimals can hide.
    counts = Counts(1, 2)
    f1 = weighted_f1(np.array([0]), np.array([2]), counts)[0]
    seed = rounded(round(200 / 3, 2), 6), rounded(round(f1, 2), 6)
    assert can_occur(counts, *seed)
    assert not can_occur(counts, *seed, single=True)


def test_interval_of_means_holds_that_of_runs():
    counts = TEST_COUNTS["sims"]["acc2"]
    for num_right in range(0, 458, 19):
        accuracy = rounded(100 * num_right / 457, 2)
        run = f1_interval(counts, accuracy, single=True)
        mean = f1_interval(counts, accuracy)
        assert mean.low <= run.low <= run.high <= mean.high


# Computed apart from this code, as the largest F1 over all matrices of an accuracy.
@pytest.mark.parametrize(
    ("dataset", "metric", "excess"),
    [
        ("mosi", "non0", {"60": 0.24, "70": 0.18, "80": 0.12, "90": 0.06}),
        ("mosei", "non0", {"60": 0.67, "70": 0.50, "80": 0.34, "90": 0.16}),
        ("sims", "acc2", {"60": 1.56, "70": 1.17, "80": 0.78, "90": 0.31}),
        ("mosei", "has0", {"60": 1.85, "70": 1.39, "80": 0.92, "90": 0.36}),
        ("iemocap", "happy", {"60": 5.96, "70": 4.47, "80": 2.78, "90": 0.98}),
    ],
)
def test_excess_of_f1_over_accuracy_by_prior(dataset, metric, excess):
    counts = TEST_COUNTS[dataset][metric]
    for text, expected in excess.items():
        accuracy = 100 * round(int(text) * sum(counts) / 100) / sum(counts)
        found = f1_interval(counts, rounded(accuracy, 4), single=True)
        # Two decimals were noted, and whole clips may lie half a clip off: .11 points of 457
        # clips, times a slope of .05.
        assert found.high - accuracy == pytest.approx(expected, abs=0.011)


# ---------------------------------------------------------------- counts


def test_counts_add_up_to_the_published_split():
    for dataset, metrics in TEST_COUNTS.items():
        for metric, counts in metrics.items():
            missing = {("mosi", "non0"): 30, ("mosei", "non0"): 1025}.get((dataset, metric), 0)
            assert sum(counts) + missing == KNOWN[dataset].counts["test"]


def test_emotions_are_those_of_the_corpus_and_each_clip_has_one():
    assert tuple(TEST_COUNTS["iemocap"]) == KNOWN["iemocap"].task.names
    assert sum(counts.positives for counts in TEST_COUNTS["iemocap"].values()) == 938


@pytest.mark.parametrize(
    ("dataset", "metric", "accuracy", "f1"),
    [
        ("mosi", "has0", "55.2", "39.3"),
        ("mosi", "non0", "57.8", "42.3"),
        ("mosei", "has0", "71.0", "59.0"),
        ("mosei", "non0", "62.9", "48.5"),
        ("sims", "acc2", "69.37", "56.82"),
        ("iemocap", "happy", "85.6", "79.0"),
        ("iemocap", "sad", "79.4", "70.3"),
        ("iemocap", "angry", "75.8", "65.4"),
        ("iemocap", "neutral", "59.2", "44.0"),
    ],
)
def test_collapsed_models_are_the_lowest_of_their_accuracy(dataset, metric, accuracy, f1):
    counts = TEST_COUNTS[dataset][metric]
    low, _ = f1_interval(counts, printed(accuracy), single=True)
    assert f"{low:.{len(f1.partition('.')[2])}f}" == f1
    assert can_occur(counts, printed(accuracy), printed(f1), single=True)


# ---------------------------------------------------------------- published tables


def test_published_rows():
    assert len(PUBLISHED) == 124
    verdicts = {"feasible": [], "close": [], "infeasible": []}
    for row in PUBLISHED:
        counts = TEST_COUNTS[row["dataset"]][row["metric"]]
        finding = lint_row(counts, printed(row["accuracy"]), printed(row["f1"]))
        verdicts[row["expected"]].append(finding)
    assert all(finding.feasible for finding in verdicts["feasible"])
    # "close": impossible, and possible where the accuracy is off by two clips.
    impossible = [*verdicts["infeasible"], *verdicts["close"]]
    assert {finding.hint for finding in impossible} == {
        "possible only with the arguments of F1 swapped"
    }
    assert [len(each) for each in verdicts.values()] == [114, 3, 7]


def test_close_rows_are_possible_two_clips_away():
    for row in PUBLISHED:
        if row["expected"] == "feasible":
            continue
        counts = TEST_COUNTS[row["dataset"]][row["metric"]]
        num_right = int(Fraction(row["accuracy"]) * sum(counts) / 100 + 2)
        away = rounded(100 * num_right / sum(counts), 4)
        possible = can_occur(counts, away, printed(row["f1"]), single=False)
        assert possible == (row["expected"] == "close"), row


def test_what_nothing_explains_is_said_so():
    finding = lint_row(TEST_COUNTS["mosi"]["has0"], printed("84.00"), printed("94.00"))
    assert not finding.feasible
    assert finding.hint == "impossible with the arguments of F1 swapped, too"


def test_swapped_f1_of_a_run_must_be_that_of_a_run():
    # With the arguments swapped 5 of 8 right give 64.29, 61.90, 64.55, 76.92.
    swapped = [("76.92", "possible only"), ("70.00", "impossible")]
    for f1, start in swapped:
        finding = lint_row(SMALL, printed("62.5"), printed(f1), single=True)
        assert finding.hint.startswith(f"{start} with the arguments of F1 swapped")
    assert can_occur(SMALL, printed("62.5"), printed("70.00"), swapped=True)


def test_f1_below_the_interval_is_infeasible():
    # Someone's F1 of the positive class alone.
    assert not lint_row(TEST_COUNTS["mosi"]["non0"], printed("84.00"), printed("70.10")).feasible


@pytest.mark.parametrize("single", [False, True])
def test_swapping_the_classes_changes_nothing(single):
    for accuracy in ("62.5", "75.0"):
        assert f1_interval(SMALL, printed(accuracy), single=single) == pytest.approx(
            f1_interval(Counts(3, 5), printed(accuracy), single=single), **TOLERANCE
        )
