"""Metrics against scikit-learn and scipy, which nothing in the source computes them with."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    recall_score,
    roc_auc_score,
)

from mmcl.corpus.schema import Task
from mmcl.evaluation.metrics import (
    PRESETS,
    auroc,
    class_metrics,
    emotion_metrics,
    regression_metrics,
    task_metrics,
)

# Quotients of sums of a few hundred float64 terms of size one.
EXACT = 1e-12

DRAWS = range(20)


def weighted_f1(truth, prediction):
    return f1_score(truth, prediction, average="weighted", zero_division=0.0)


def macro_f1(truth, prediction):
    return f1_score(truth, prediction, average="macro", zero_division=0.0)


def sides(name, truth, prediction, *, swapped=False):
    values = {
        f"acc2_{name}": accuracy_score(truth, prediction),
        f"f1_{name}": weighted_f1(truth, prediction),
    }
    return values | ({f"f1_{name}_swapped": weighted_f1(prediction, truth)} if swapped else {})


def rounded_accuracy(truth, prediction, limit):
    return accuracy_score(*(np.rint(np.clip(v, -limit, limit)) for v in (truth, prediction)))


def binned_accuracy(truth, prediction, edges):
    return accuracy_score(*(np.digitize(v, edges, right=True) for v in (truth, prediction)))


def distances(truth, prediction):
    return {
        "mae": mean_absolute_error(truth, prediction),
        "corr": pearsonr(truth, prediction).statistic,
    }


def expected_regression(preset, truth, prediction):
    kept = truth != 0
    not_zero = truth[kept] > 0, prediction[kept] > 0
    if preset == "magbert":
        truth, prediction = truth[kept], prediction[kept]
    if preset == "sims":
        truth, prediction = np.clip(truth, -1, 1), np.clip(prediction, -1, 1)
        return distances(truth, prediction) | {
            "acc2": accuracy_score(truth > 0, prediction > 0),
            "acc3": binned_accuracy(truth, prediction, (-0.1, 0.1)),
            "acc5": binned_accuracy(truth, prediction, (-0.7, -0.1, 0.1, 0.7)),
            "f1": weighted_f1(truth > 0, prediction > 0),
        }
    limits = {"mmsa": (3, 2, 1), "mult": (3, 2), "magbert": (3,)}[preset]
    values = distances(truth, prediction)
    values |= {f"acc{2 * n + 1}": rounded_accuracy(truth, prediction, n) for n in limits}
    if preset == "mmsa":
        return values | sides("has0", truth >= 0, prediction >= 0) | sides("non0", *not_zero)
    if preset == "mult":
        values |= sides("has0", truth > 0, prediction > 0, swapped=True)
        return values | sides("non0", *not_zero, swapped=True)
    return values | sides("non0", truth >= 0, prediction >= 0)


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("preset", PRESETS)
def test_regression_metrics_are_those_of_the_libraries(preset, seed):
    generator = np.random.default_rng(seed)
    scale = 3 if preset != "sims" else 1
    # Halves are there to be rounded to even, zeros to be told from both sides.
    truth = np.round(generator.uniform(-scale, scale, 203), 1)
    truth[::9] = 0.0
    noise = generator.normal(0, scale / 2, 203)
    prediction = np.round(truth * generator.uniform(0, 1) + noise, int(generator.integers(1, 5)))

    found = regression_metrics(truth, prediction, preset=preset).values

    assert found == pytest.approx(expected_regression(preset, truth, prediction), abs=EXACT)


@pytest.mark.parametrize("seed", DRAWS)
def test_class_metrics_are_those_of_the_libraries(seed):
    generator = np.random.default_rng(seed)
    # Five classes, of which the truth may lack some and the predictions others.
    truth = generator.choice(generator.permutation(5)[: 2 + seed % 4], 61)
    logits = generator.normal(0, 1, (61, 5)) + np.eye(5)[truth] - 4.0 * (np.arange(5) == seed % 5)
    chosen = logits.argmax(axis=1)
    present = np.unique(truth)

    found = class_metrics(truth, logits, names="abcde").values

    recalls = recall_score(truth, chosen, labels=present, average=None, zero_division=0.0)
    expected = dict.fromkeys((f"recall_{name}" for name in "abcde"), np.nan) | {
        "accuracy": accuracy_score(truth, chosen),
        "f1_weighted": weighted_f1(truth, chosen),
        "f1_macro": macro_f1(truth, chosen),
        "uar": recalls.mean(),
        **{f"recall_{'abcde'[i]}": recall for i, recall in zip(present, recalls, strict=True)},
    }
    assert found == pytest.approx(expected, abs=EXACT, nan_ok=True)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("seed", DRAWS)
def test_emotion_metrics_are_those_of_the_libraries(seed, single):
    generator = np.random.default_rng(seed)
    shown = generator.integers(0, 3, 53)
    truth = np.eye(3, dtype=int)[shown] if single else generator.integers(0, 2, (53, 3))
    logits = generator.normal(0, 1, (53, 3, 2))
    chosen = logits.argmax(axis=2)
    margins = logits[:, :, 1] - logits[:, :, 0]

    found = emotion_metrics(truth, logits, ["a", "b", "c"]).values

    accuracies = [accuracy_score(truth[:, i], chosen[:, i]) for i in range(3)]
    f1s = [weighted_f1(truth[:, i], chosen[:, i]) for i in range(3)]
    expected = {f"accuracy_{name}": accuracies[i] for i, name in enumerate("abc")}
    expected |= {f"f1_{name}": f1s[i] for i, name in enumerate("abc")}
    expected |= {"accuracy_mean": np.mean(accuracies), "f1_mean": np.mean(f1s)}
    if single:
        expected["accuracy_single"] = accuracy_score(shown, margins.argmax(axis=1))
        expected["f1_macro_single"] = macro_f1(shown, margins.argmax(axis=1))
    assert found == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("kind", ["regression", "classes", "emotions"])
def test_items_without_a_truth_are_as_good_as_absent(kind):
    generator = np.random.default_rng(4)
    known = generator.random(80) < 0.7
    names = ("a", "b", "c")
    if kind == "regression":
        task = Task(kind="regression", low=-3, high=3)
        truth, scores = generator.uniform(-3, 3, 80).round(1), generator.normal(0, 2, 80)
        truth[~known] = np.nan
    elif kind == "classes":
        task = Task(kind="classes", names=names)
        truth, scores = generator.integers(0, 3, 80), generator.normal(0, 1, (80, 3))
        truth[~known] = -1
    else:
        task = Task(kind="emotions", names=names)
        truth = np.eye(3, dtype=int)[generator.integers(0, 3, 80)]
        scores = generator.normal(0, 1, (80, 3, 2))
        truth[~known, 1] = -1  # one judgement unknown is enough
    for preset in PRESETS:
        found = task_metrics(task, truth, scores, preset=preset)
        expected = task_metrics(task, truth[known], scores[known], preset=preset)
        assert found.values == pytest.approx(expected.values, abs=EXACT)
        assert found.count == expected.count


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("decimals", [1, 9])
def test_auroc_is_that_of_the_library(seed, decimals):
    generator = np.random.default_rng(seed)
    positive = generator.random(97) < 0.3
    score = np.round(generator.normal(0, 1, 97) + 0.5 * positive, decimals)  # one decimal: ties

    assert auroc(positive, score) == pytest.approx(roc_auc_score(positive, score), abs=EXACT)
