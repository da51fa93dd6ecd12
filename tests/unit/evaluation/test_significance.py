"""Significance: worked by hand, then by laws, then by how often it is wrong."""

import math

import numpy as np
import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, ShapeError
from mmcl.evaluation.bootstrap import paired_bootstrap, resample
from mmcl.evaluation.item_sums import item_sums
from mmcl.evaluation.metrics import task_metrics
from mmcl.evaluation.paired_tests import binomial_floor, holm, mcnemar, wilcoxon_over_seeds
from mmcl.evaluation.significance import Predictions, check_same_items, compare_rows

# Means of a few float64 numbers of size one.
EXACT = 1e-12

SCORE = Task(kind="regression", low=-3.0, high=3.0)
TWO = Task(kind="classes", names=("No", "Yes"))
FOUR = Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry"))
KEYS = ("mae", "corr", "acc2_non0", "acc7")
SEEDS = (1, 2, 3)


@pytest.fixture
def generator():
    return np.random.default_rng(11)


@pytest.fixture
def truth(generator):
    labels = np.round(generator.uniform(-3, 3, 120), 1)
    labels[:9] = 0.0
    return labels


def ids(count):
    return tuple(f"clip_{at}" for at in range(count))


def noisy(truth, generator, noise, seeds=SEEDS):
    rows = max(len(seeds), 1)
    scores = truth + generator.normal(0, noise, (rows, len(truth)))
    return Predictions(ids(len(truth)), truth, np.nan_to_num(scores), tuple(seeds))


def compare(reference, other, **changes):
    settings = {"task": SCORE, "metrics": KEYS, "samples": 400} | changes
    return compare_rows("old", {"old": reference, "new": other}, **settings)


def sums_of(key, truth, scores, task=SCORE):
    return [item_sums(key, task, truth, each) for each in scores]


# ---------------------------------------------------------------- worked by hand


def test_holm_worked_by_hand():
    # Sorted .01 .02 .03 .5 times 4 3 2 1: .04 .06 .06 .5; the third may not fall below the second.
    assert holm([0.03, None, 0.01, 0.5, 0.02]) == pytest.approx([0.06, None, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([0.6, 0.7, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([math.nan, 0.02]) == [None, 0.02]
    assert holm([]) == []


def test_mcnemar_worked_by_hand():
    # 3 clips only the first gets right, 1 only the second, 2 both, 1 neither:
    # two-sided binomial of 3 in 4 = 2 * (4 + 1) / 16.
    first = np.array([1, 1, 1, 0, 1, 1, 0], dtype=bool)
    second = np.array([0, 0, 0, 1, 1, 1, 0], dtype=bool)
    assert mcnemar(first, second).p == pytest.approx(10 / 16)
    assert mcnemar(second, first).p == pytest.approx(10 / 16)
    assert mcnemar(first, first) == (1.0, "")


def test_mcnemar_of_too_few_and_of_unequal_lengths():
    none, one = np.array([], dtype=bool), np.array([True])
    assert mcnemar(none, none) == (None, "McNemar needs 2 clips with a label, there are 0")
    assert mcnemar(one, one).p is None
    with pytest.raises(ShapeError) as caught:
        mcnemar(np.array([True, False]), one)
    assert str(caught.value) == (
        "other_right must have shape [2] [clips] to match reference_right, got [1]"
    )


def test_wilcoxon_worked_by_hand():
    # Six pairs that all rise, by different amounts: 2 of the 64 sign patterns are as extreme.
    before = [0.70, 0.71, 0.69, 0.72, 0.70, 0.68]
    after = [value + 0.01 * (at + 1) for at, value in enumerate(before)]
    assert wilcoxon_over_seeds(before, after).p == pytest.approx(2 / 64)
    # The least difference the other way: patterns with a rank sum of at most 1 are 2, twice.
    after[0] = before[0] - 0.005
    assert wilcoxon_over_seeds(before, after).p == pytest.approx(4 / 64)


def test_wilcoxon_without_pairs_or_differences():
    found = wilcoxon_over_seeds([0.1], [0.2])
    assert found == (None, "Wilcoxon needs 6 pairs of seeds, there is 1")
    assert wilcoxon_over_seeds([0.1] * 5, [0.2] * 5).p is None
    assert wilcoxon_over_seeds([0.1] * 6, [0.1] * 6) == (1.0, "")
    some = wilcoxon_over_seeds([0.1] * 6, [0.1, math.nan, *[0.2] * 4])
    assert some == (None, "Wilcoxon: a seed has no value")


def test_floor_worked_by_hand():
    assert binomial_floor(0.8, 400) == pytest.approx(0.02)
    # FIELD's MOSI and CH-SIMS floors, in points: printed with two decimals.
    assert binomial_floor(0.855, 656) == pytest.approx(0.0137, abs=5e-5)
    assert binomial_floor(0.80, 457) == pytest.approx(0.0187, abs=5e-5)
    assert math.isnan(binomial_floor(0.8, 0))
    assert math.isnan(binomial_floor(math.nan, 10))


def test_bootstrap_worked_by_hand():
    # Errors 1, 2 against 4, 8: the drawn pair is (1 1), (1 2), (2 1) or (2 2), and the
    # difference of the means 3, 4.5, 4.5 or 6.
    truth = np.zeros(2)
    first, second = (sums_of("mae", truth, [np.array(p)]) for p in ([1.0, -2.0], [4.0, 8.0]))
    values = resample([*first, *second], samples=4000, seed=3).samples
    found, counts = np.unique(np.round(values[1] - values[0], 9), return_counts=True)
    assert found.tolist() == [3.0, 4.5, 6.0]
    # Four thousand draws of a share of 1/4: five standard errors are .034.
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.034)
    result = paired_bootstrap(first, second, samples=999)
    assert result[:4] == (4.5, 3.0, 6.0, pytest.approx(2 / 1000))


# ---------------------------------------------------------------- laws of the bootstrap


def test_exchanging_the_models_flips_the_sign(truth, generator):
    first = sums_of("mae", truth, noisy(truth, generator, 1.0).scores)
    second = sums_of("mae", truth, noisy(truth, generator, 1.1).scores)
    one = paired_bootstrap(first, second, samples=500)
    two = paired_bootstrap(second, first, samples=500)
    assert one[:3] == pytest.approx((-two.difference, -two.high, -two.low))
    assert one.p == two.p


def test_a_model_does_not_differ_from_itself(truth, generator):
    one = noisy(truth, generator, 1.0)
    for test in compare(one, one).tests:
        assert (test["difference"], test["low"], test["high"]) == (0.0, 0.0, 0.0)
        assert (test["p_bootstrap"], test["p_holm"], test["better"]) == (1.0, 1.0, None)


def test_rounding_is_no_difference():
    # .1 + .2 is .3 and one ulp: every resample would be above zero, and p the least there is.
    truth = np.zeros(4)
    first, second = (sums_of("mae", truth, np.full((2, 4), each)) for each in (0.3, 0.1 + 0.2))
    assert paired_bootstrap(first, second, samples=100).p == 1.0
    assert wilcoxon_over_seeds([0.3] * 6, [0.1 + 0.2] * 6).p == 1.0


def test_one_seed_fewer_than_there_are_is_drawn():
    # Two seeds that differ by -.1 and +.3: one is drawn, and half the resamples are below zero.
    # Were both drawn, a quarter would be, and p a half.
    truth = np.zeros(3)
    first = sums_of("mae", truth, np.full((2, 3), 0.5))
    second = sums_of("mae", truth, np.repeat([[0.4], [0.8]], 3, axis=1))
    # A share of 1/2 in a thousand: five standard errors are .08, twice that for p.
    assert paired_bootstrap(first, second, samples=1000).p > 0.84


def test_order_of_the_clips_matters_no_more_than_the_draw(truth, generator):
    old, new = noisy(truth, generator, 1.0), noisy(truth, generator, 1.2)
    order = generator.permutation(len(truth))
    one = paired_bootstrap(*(sums_of("mae", truth, p.scores) for p in (old, new)), samples=4000)
    two = paired_bootstrap(
        *(sums_of("mae", truth[order], p.scores[:, order]) for p in (old, new)), samples=4000
    )
    assert one.difference == pytest.approx(two.difference, abs=EXACT)
    # A 2.5% quantile of 4000 draws is off by some .04 of the half width.
    assert one.low == pytest.approx(two.low, abs=0.15 * (one.high - one.low) / 2)
    assert one.high == pytest.approx(two.high, abs=0.15 * (one.high - one.low) / 2)


def test_same_seed_same_result_and_another_seed_another(truth, generator):
    pair = [sums_of("mae", truth, noisy(truth, generator, n).scores) for n in (1.0, 1.1)]
    assert paired_bootstrap(*pair, samples=200, seed=4) == paired_bootstrap(
        *pair, samples=200, seed=4
    )
    assert paired_bootstrap(*pair, samples=200, seed=5).low != (
        paired_bootstrap(*pair, samples=200, seed=4).low
    )


def test_models_resampled_apart_see_the_same_draws(truth, generator):
    sums = sums_of("mae", truth, noisy(truth, generator, 1.0).scores)
    together = resample(sums, samples=300, seed=2).samples
    alone = resample(sums[1:2], samples=300, seed=2).samples
    np.testing.assert_allclose(together[1:2], alone, rtol=0, atol=EXACT)


def test_spread_of_clips_is_the_textbook_standard_error(generator):
    # Mean absolute error of 400 clips: standard error s / sqrt(n), from 4000 resamples (1%).
    errors = generator.exponential(1.0, 400)
    sums = sums_of("mae", np.zeros(400), errors[None])
    values = resample(sums, samples=4000, seed=1).samples[0]
    assert values.std() == pytest.approx(errors.std() / 20, rel=0.05)


def test_spread_of_seeds_is_the_textbook_standard_error():
    # Clips that all agree, so that seeds alone move the mean: s / sqrt(number of seeds).
    offsets = np.array([0.1, 0.5, 0.2, 0.9])
    truth = np.zeros(3)
    first = sums_of("mae", truth, np.zeros((1, 3)))
    second = sums_of("mae", truth, np.repeat(offsets[:, None], 3, axis=1))
    found = paired_bootstrap(first, second, samples=4000)
    assert found.difference == pytest.approx(offsets.mean())
    three_draws = [offsets[list(t)].mean() for t in np.ndindex(4, 4, 4)]
    low, high = np.quantile(three_draws, [0.025, 0.975])
    # The extreme means have a probability of 1/64, so both quantiles are among few values.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.07)
    assert np.std(three_draws) == pytest.approx(offsets.std(ddof=1) / 2)


def test_bootstrap_refuses_seeds_that_do_not_pair(truth, generator):
    first = sums_of("mae", truth, noisy(truth, generator, 1.0).scores)
    with pytest.raises(ShapeError) as caught:
        paired_bootstrap(first, first[:2])
    assert str(caught.value) == (
        "reference and other must list as many seeds as each other, or one, got 3 and 2"
    )


# ---------------------------------------------------------------- how often it is wrong


def draw_equal_models(generator, num_seeds, seed_effect):
    """Two models equally often right, whose clips are as hard for all seeds of a model."""
    truth = generator.integers(0, 2, 150)
    models = []
    for _ in range(2):
        ability = 1.0 + generator.normal(0, 1, 150)
        seeds = generator.normal(0, seed_effect, (num_seeds, 1))
        right = ability + seeds + generator.normal(0, 0.5, (num_seeds, 150)) > 0
        models.append(sums_of("accuracy", truth, np.eye(2)[np.where(right, truth, 1 - truth)], TWO))
    return models


@pytest.mark.parametrize(("num_seeds", "seed_effect"), [(1, 0.0), (3, 0.0), (3, 0.1), (5, 0.1)])
def test_equal_models_are_rarely_told_apart(num_seeds, seed_effect):
    generator = np.random.default_rng(5)
    p = [
        paired_bootstrap(
            *draw_equal_models(generator, num_seeds, seed_effect), samples=300, seed=at
        ).p
        for at in range(200)
    ]
    # At .05, ten of two hundred; .1 is three standard errors above.
    assert np.mean(np.array(p) < 0.05) < 0.1


def test_a_clear_difference_is_found(truth, generator):
    found = compare(noisy(truth, generator, 0.6), noisy(truth, generator, 1.8))
    by_key = {test["metric"]: test for test in found.tests}
    assert {by_key[key]["better"] for key in KEYS} == {"old"}
    assert by_key["mae"]["difference"] > 0.5
    assert by_key["corr"]["difference"] < 0
    assert found.best == dict.fromkeys(KEYS, "old")
    assert compare(noisy(truth, generator, 1.8), noisy(truth, generator, 0.6)).best["mae"] == "new"


# ---------------------------------------------------------------- a table


def test_differences_are_those_of_the_metrics(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0)
    mean = [
        {k: np.mean([task_metrics(SCORE, truth, s).values[k] for s in each.scores]) for k in KEYS}
        for each in (old, new)
    ]
    for test in compare(old, new).tests:
        expected = mean[1][test["metric"]] - mean[0][test["metric"]]
        assert test["difference"] == pytest.approx(expected, abs=EXACT)
        assert test["low"] < test["difference"] < test["high"]


def test_every_line_has_the_keys_of_the_layout(truth, generator):
    found = compare(noisy(truth, generator, 0.9), noisy(truth, generator, 1.0))
    assert [(test["name"], test["metric"]) for test in found.tests] == [("new", k) for k in KEYS]
    for test in found.tests:
        assert list(test) == [
            *("name", "metric", "difference", "low", "high"),
            *("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm", "better", "notes"),
        ]
    notes = {test["metric"]: test["notes"] for test in found.tests}
    wilcoxon = "Wilcoxon needs 6 pairs of seeds, there are 3"
    assert notes["mae"] == [wilcoxon]
    assert notes["acc7"] == [wilcoxon, "McNemar compares seed 1 alone"]


def test_six_seeds_are_enough_for_wilcoxon(truth, generator):
    seeds = range(6)
    found = compare(noisy(truth, generator, 0.5, seeds), noisy(truth, generator, 1.5, seeds))
    assert found.tests[0]["p_wilcoxon"] == pytest.approx(2 / 64)
    assert found.tests[0]["notes"] == []


def test_holm_runs_over_all_rows_and_metrics(truth, generator):
    models = {name: noisy(truth, generator, n) for name, n in (("a", 1.0), ("b", 1.1), ("c", 1.3))}
    tests = compare_rows("a", models, task=SCORE, metrics=("mae", "acc7"), samples=300).tests
    assert len(tests) == 4
    assert [t["p_holm"] for t in tests] == holm([t["p_bootstrap"] for t in tests])


def test_a_long_table_takes_more_resamples(truth, generator):
    # Nineteen rows and four metrics: 2 / 2001 * 76 would be .076, and nothing significant.
    good, bad = noisy(truth[:30], generator, 0.1, ()), noisy(truth[:30], generator, 3.0, ())
    models = {"good": good} | {f"bad {at}": bad for at in range(19)}
    found = compare_rows("good", models, task=SCORE, metrics=KEYS)
    assert found.tests[0]["p_holm"] < 0.05
    assert found.notes == []
    few = compare_rows("good", models, task=SCORE, metrics=KEYS, samples=2000)
    assert few.tests[0]["better"] is None
    assert few.notes == [
        "with 2000 resamples and 76 tests no p-value can fall below 0.076 after Holm: "
        "nothing can be significant here"
    ]


def test_mcnemar_of_a_table_compares_the_first_seed(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.6)
    test = next(t for t in compare(old, new).tests if t["metric"] == "acc2_non0")
    kept = truth != 0
    right = [((p.scores[0] > 0) == (truth > 0))[kept] for p in (old, new)]
    assert test["p_mcnemar"] == mcnemar(*right).p
    assert 0 < test["p_mcnemar"] < 1


def test_best_must_beat_every_row(truth, generator):
    good = noisy(truth, generator, 0.5)
    twin = Predictions(good.ids, truth, good.scores + 1e-9, SEEDS)
    bad = noisy(truth, generator, 2.0)
    settings = {"task": SCORE, "metrics": ("mae",), "samples": 400}
    assert compare_rows("bad", {"bad": bad, "good": good}, **settings).best == {"mae": "good"}
    with_twin = {"bad": bad, "good": good, "twin": twin}
    tied = compare_rows("bad", with_twin, **settings)
    assert tied.best == {"mae": None}
    assert [test["better"] for test in tied.tests] == ["good", "twin"]


def test_best_must_win_on_the_seeds_in_common(truth, generator):
    # The first is best by a seed that the second lacks, and loses on the one they share.
    lucky = noisy(truth, generator, 0.5, seeds=(1, 2))
    lucky.scores[0], lucky.scores[1] = truth, truth + generator.normal(0, 2.0, len(truth))
    other = noisy(truth, generator, 1.2, seeds=(2,))
    settings = {"task": SCORE, "metrics": ("mae",), "samples": 400}
    found = compare_rows("lucky", {"lucky": lucky, "other": other}, **settings)
    mae = [np.abs(p.scores - truth).mean() for p in (lucky, other)]
    assert mae[0] < mae[1]
    assert found.tests[0]["better"] == "other"
    assert found.best == {"mae": None}


def test_best_ignores_rows_without_a_value(truth, generator):
    constant = Predictions(ids(len(truth)), truth, np.full((1, len(truth)), 0.1), ())
    models = {
        "good": noisy(truth, generator, 0.5),
        "bad": noisy(truth, generator, 3.0),
        "constant": constant,
    }
    found = compare_rows("good", models, task=SCORE, metrics=("corr",), samples=400)
    assert found.best == {"corr": "good"}
    line = found.tests[1]
    assert (line["difference"], line["p_bootstrap"], line["p_holm"]) == (None, None, None)
    assert line["notes"][0] == (
        "corr of constant: corr is undefined: the prediction is constant or nearly constant"
    )


def test_floor_counts_the_clips_that_the_accuracy_counts(truth, generator):
    old = noisy(truth, generator, 0.9)
    found = compare(old, old)
    mean = np.mean([task_metrics(SCORE, truth, s).values["acc2_non0"] for s in old.scores])
    assert set(found.floor) == {"acc2_non0", "acc7"}
    assert found.floor["acc2_non0"] == pytest.approx(binomial_floor(mean, np.count_nonzero(truth)))


def test_clips_without_a_label_are_left_out(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0)
    unknown = np.where(np.arange(len(truth)) % 2, np.nan, truth)
    half = [p._replace(truth=unknown) for p in (old, new)]
    alone = [Predictions(p.ids[::2], truth[::2], p.scores[:, ::2], SEEDS) for p in (old, new)]
    assert compare(*half).tests == compare(*alone).tests


# ---------------------------------------------------------------- seeds that do not match


def test_seeds_in_common_are_compared(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0)
    diverged = new._replace(scores=new.scores[[0, 2]], seeds=(1, 3))
    both = old._replace(scores=old.scores[[0, 2]], seeds=(1, 3))
    found, expected = compare(old, diverged).tests[0], compare(both, diverged).tests[0]
    assert found["difference"] == expected["difference"]
    assert found["p_bootstrap"] == expected["p_bootstrap"]
    assert found["notes"] == [
        "compared over seeds [1, 3]: old has [1, 2, 3], new [1, 3]",
        "Wilcoxon needs 6 pairs of seeds, there are 2",
    ]


def test_no_seed_in_common_is_no_comparison(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0, seeds=(7, 8))
    for test in compare(old, new).tests:
        assert test["notes"] == ["no seed in common: old has [1, 2, 3], new [7, 8]"]
        assert (test["difference"], test["p_holm"], test["better"]) == (None, None, None)


@pytest.mark.parametrize("reference_first", [True, False])
def test_a_model_without_seeds_meets_every_seed(truth, generator, reference_first):
    model, ridge = noisy(truth, generator, 0.5), noisy(truth, generator, 2.0, seeds=())
    pair = (model, ridge) if reference_first else (ridge, model)
    test = compare(*pair).tests[0]
    repeated = ridge._replace(scores=np.repeat(ridge.scores, 3, axis=0), seeds=SEEDS)
    twin = tuple(repeated if each is ridge else each for each in pair)
    assert test["difference"] == pytest.approx(compare(*twin).tests[0]["difference"])
    assert test["notes"] == ["Wilcoxon needs 6 pairs of seeds, there are 3"]


def test_one_seed_says_that_seeds_were_not_resampled(truth, generator):
    old, new = (noisy(truth, generator, n, seeds=(4,)) for n in (0.9, 1.0))
    assert compare(old, new).tests[0]["notes"][0] == (
        "one seed: the interval is of the choice of clips alone, not of another seed"
    )
    ridge, constant = (noisy(truth, generator, n, seeds=()) for n in (0.9, 1.0))
    assert compare(ridge, constant).tests[0]["notes"][0] == (
        "neither depends on a seed: the interval is of the choice of clips alone"
    )


# ---------------------------------------------------------------- too small for a test


def test_one_labelled_clip_tests_nothing(generator):
    truth = np.array([1.0, np.nan, np.nan])
    for test in compare(noisy(truth, generator, 1.0), noisy(truth, generator, 1.0)).tests:
        assert (
            test["notes"][-1] == f"{test['metric']}: a test needs 2 clips with a label, there is 1"
        )
        assert test["p_bootstrap"] is None


def test_no_labelled_clip_tests_nothing(generator):
    truth = np.array([np.nan, np.nan])
    found = compare(noisy(truth, generator, 1.0), noisy(truth, generator, 1.0))
    assert found.tests[0]["notes"] == ["mae: a test needs 2 clips with a label, there are 0"]
    assert (found.best, found.floor) == (dict.fromkeys(KEYS), {})


def test_labels_of_one_sign_test_no_side(generator):
    truth = np.array([1.0, 2.0, 3.0, 0.0])
    found = compare(noisy(truth, generator, 1.0), noisy(truth, generator, 1.0))
    notes = {test["metric"]: test["notes"] for test in found.tests}
    assert notes["acc2_non0"] == [
        "acc2_non0: all 3 labels it counts are of one class, which tests nothing"
    ]
    assert "one class" not in str(notes["mae"])
    assert found.best["acc2_non0"] is None


def test_resamples_without_a_value_are_counted(generator):
    # Two labels that are not zero among twelve clips: one resample in nine draws neither.
    truth = np.zeros(12)
    truth[:2] = 1.0, -1.0
    old, new = (noisy(truth, generator, n) for n in (0.9, 1.0))
    test = compare(old, new, metrics=("acc2_non0",)).tests[0]
    assert test["p_bootstrap"] is None
    assert "of 400 resamples leave it undefined and are too many for an interval" in str(test)
    truth[2:4] = 2.0
    old, new = (noisy(truth, generator, n) for n in (0.9, 1.0))
    test = compare(old, new, metrics=("acc2_non0",)).tests[0]
    assert test["p_bootstrap"] is not None
    assert "resamples leave it undefined and were left out" in str(test)


def test_a_seed_of_nan_is_named(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0)
    new.scores[1, 5] = np.nan
    test = compare(old, new).tests[0]
    assert test["difference"] is None
    assert test["notes"][0] == (
        "mae of new, seed 2: 1 of 120 predictions are not finite: mae and corr are undefined"
    )


# ---------------------------------------------------------------- classes, emotions, other presets


def test_classes_and_emotions_are_compared(generator):
    truth = generator.integers(0, 2, 60)
    scores = generator.normal(0, 1, (3, 60, 2)) + 0.5 * np.eye(2)[truth]
    old, new = (Predictions(ids(60), truth, scores + s, SEEDS) for s in (0.0, 0.5))
    found = compare(old, new, task=TWO, metrics=("accuracy", "f1_macro", "uar"))
    assert all(test["difference"] == 0.0 for test in found.tests)  # a shift of all logits
    assert set(found.floor) == {"accuracy"}

    truth = np.eye(4, dtype=np.int64)[generator.integers(0, 4, 60)]
    scores = generator.normal(0, 1, (3, 60, 4, 2))
    old, new = (Predictions(ids(60), truth, scores * s, SEEDS) for s in (1.0, -1.0))
    keys = ("accuracy_mean", "f1_mean", "accuracy_single")
    found = compare(old, new, task=FOUR, metrics=keys)
    assert found.tests[0]["difference"] == pytest.approx(
        1 - 2 * np.mean([task_metrics(FOUR, truth, s).values["accuracy_mean"] for s in scores])
    )
    assert found.tests[0]["p_mcnemar"] is None
    assert "McNemar: accuracy_mean is no single choice per clip" in found.tests[0]["notes"]
    assert found.tests[2]["p_mcnemar"] is not None
    assert set(found.floor) == {"accuracy_single"}


def test_the_preset_decides_what_is_tested(truth, generator):
    old, new = noisy(truth, generator, 0.9), noisy(truth, generator, 1.0)
    found = compare(old, new, preset="sims", metrics=("acc2", "mae"))
    expected = [
        np.mean([task_metrics(SCORE, truth, s, preset="sims").values["mae"] for s in p.scores])
        for p in (old, new)
    ]
    assert found.tests[1]["difference"] == pytest.approx(expected[1] - expected[0], abs=EXACT)


# ---------------------------------------------------------------- the same clips


HINT = (
    "\n  Every row of a comparison must be scored on the same clips in the same order."
    "\n  See what a corpus holds: mmcl corpus describe CORPUS"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"ids": ("a", "x", "c")},
            "calibrated and mult predict different clips (3 and 3).\n"
            '  The first that differs is clip 1: "b" and "x".' + HINT,
            id="another-clip",
        ),
        pytest.param(
            {"ids": ("a", "b"), "truth": np.zeros(2), "scores": np.zeros((1, 2))},
            "calibrated and mult predict different clips (3 and 2).\n"
            '  The first that only one of them has is clip 2: "c".' + HINT,
            id="one-missing",
        ),
        pytest.param(
            {"truth": np.array([0.0, 2.0, np.nan])},
            "calibrated and mult were scored against different labels.\n"
            '  The first of 1 that differ is clip 1, "b": 1.0 and 2.0.' + HINT,
            id="another-label",
        ),
        pytest.param(
            {"truth": np.zeros((3, 4))},
            "calibrated and mult were scored against different labels.\n"
            "  Labels have shape [3] and [3, 4]." + HINT,
            id="another-task",
        ),
    ],
)
def test_models_of_different_clips_are_refused(changes, message):
    mine = Predictions(("a", "b", "c"), np.array([0.0, 1.0, np.nan]), np.zeros((1, 3)), (1,))
    check_same_items("calibrated", mine, "mult", mine)
    with pytest.raises(DatasetError) as caught:
        check_same_items("calibrated", mine, "mult", mine._replace(**changes))
    assert str(caught.value) == message


def test_scores_that_do_not_fit_their_seeds_are_refused():
    one = Predictions(("a", "b"), np.zeros(2), np.zeros((3, 2)), (1, 2))
    with pytest.raises(ShapeError) as caught:
        check_same_items("mult", one, "mult", one)
    assert str(caught.value) == (
        "scores of mult must begin with [2, 2] [seeds, clips] and its truth with [2], "
        "got [3, 2] and [2]"
    )


def test_unknown_reference_is_refused(truth, generator):
    one = noisy(truth, generator, 1.0)
    with pytest.raises(ConfigError) as caught:
        compare_rows("calibrate", {"calibrated": one, "mult": one}, task=SCORE, metrics=KEYS)
    assert str(caught.value) == (
        'no row is called "calibrate"; did you mean "calibrated"?\n  Rows: calibrated, mult'
    )
