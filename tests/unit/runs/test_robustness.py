"""Robustness: the laws of the sweep, the line and its words, and what is refused."""

import json
import math

import numpy as np
import pytest

from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Card, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import DatasetError, RunError, UsageError
from mmcl.runs.robustness import RATES, crossing_sentences, robustness
from mmcl.runs.run import train

# Scores are float32 sums; the same clips in the same batches give the same ones but for a
# mask drawn along another path.
TOLERANCE = 1e-6
SCORES = Task(kind="regression", low=-3, high=3)
VARIANTS = ("calibrated", "released")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_corpus, tiny_config):
    folder = tmp_path_factory.mktemp("robustness")
    return {
        variant: train(
            tiny_corpus,
            tiny_config("learning.epochs=1", model=variant),
            out=folder / variant,
            seeds=(3, 1),
        )
        for variant in VARIANTS
    }


@pytest.fixture(scope="module")
def run(runs):
    return runs["calibrated"]


@pytest.fixture(scope="module")
def found(run, tiny_corpus):
    return robustness(run, tiny_corpus)


def _changed(tiny_settings, change, **card):
    clips = [change(clip) for clip in plant_clips(tiny_settings)]
    return pack_corpus(plant_card(tiny_settings).model_copy(update=card), clips)


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("split", ["test", "valid"])
def test_nothing_missing_is_what_evaluate_says(runs, tiny_corpus, variant, split):
    found = robustness(runs[variant], tiny_corpus, split=split, rates=(0.0, 0.5), mask_seeds=(1,))
    report = runs[variant].evaluate(tiny_corpus)
    full = found["subsets"][-1]
    assert full["modalities"] == ["text", "audio", "vision"]
    for key, curve in found["steps"].items():
        assert curve[0] == report[split][key]
        assert full["metrics"][key] == curve[0]
    for row in ("constant", "majority"):
        assert found["references"][row] == report["references"][row][split]


def test_same_mask_seeds_same_result(run, tiny_corpus, found):
    again = robustness(run, tiny_corpus)
    assert again == found
    other = robustness(run, tiny_corpus, mask_seeds=(4, 5, 6))
    assert other["steps"]["mae"][0] == found["steps"]["mae"][0]
    assert other["steps"]["mae"][5] != found["steps"]["mae"][5]


def test_curve_is_the_mean_over_mask_seeds_and_area_that_over_rates(run, tiny_corpus, found):
    alone = [robustness(run, tiny_corpus, mask_seeds=(seed,)) for seed in (1, 2, 3)]
    for at in range(len(RATES)):
        values = [each["steps"]["mae"][at]["values"] for each in alone]  # [mask seed][seed]
        expected = np.mean(values, axis=0)
        assert found["steps"]["mae"][at]["values"] == pytest.approx(list(expected), abs=TOLERANCE)
    curves = [summary["values"] for summary in found["steps"]["mae"]]  # [rate][seed]
    expected = np.mean(curves, axis=0)
    assert found["areas"]["mae"]["values"] == pytest.approx(list(expected), abs=TOLERANCE)
    assert found["areas"]["mae"]["mean"] == pytest.approx(expected.mean(), abs=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_subset_without_text_ignores_its_values(runs, tiny_corpus, tiny_settings, variant):
    def change_text(clip):
        features = {m: -5 * x if m == "text" else x for m, x in clip.features.items()}
        return clip.model_copy(update={"features": features})

    changed = _changed(tiny_settings, change_text)
    once, other = (
        robustness(runs[variant], corpus, rates=(0.0,), mask_seeds=(1,))
        for corpus in (tiny_corpus, changed)
    )
    for mine, theirs in zip(once["subsets"], other["subsets"], strict=True):
        assert (mine == theirs) == ("text" not in mine["modalities"])


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_every_task_is_measured(tmp_path, planted, tiny_config, task):
    corpus = planted(task=task, train=10, valid=4, test=6)
    run = train(corpus, tiny_config("learning.epochs=1"), out=tmp_path / "run")
    found = robustness(run, corpus, rates=(0.0, 0.9))
    key = "accuracy" if task == "classes" else "accuracy_mean"
    assert found["steps"][key][0] == run.metrics["test"][key]
    assert list(found["references"]) == ["majority"]
    assert found["line"][key] == {"row": "majority", "value": found["references"]["majority"][key]}
    json.dumps(found, allow_nan=False)


def test_report_is_finite_or_null(found):
    json.dumps(found, allow_nan=False)
    assert found["line"]["corr"] is None
    assert [len(curve) for curve in found["steps"].values()] == [len(RATES)] * 9
    assert [each["modalities"] for each in found["subsets"]][:4] == [
        ["text"],
        ["audio"],
        ["vision"],
        ["text", "audio"],
    ]


def test_clips_without_the_modality_kept_are_scored_and_noted(run, tiny_settings):
    def take_text(clip):
        if clip.id.endswith("0"):
            return clip
        rest = {m: steps for m, steps in clip.features.items() if m != "text"}
        return clip.model_copy(update={"features": rest})

    corpus = _changed(tiny_settings, take_text, recipe={})
    absent = sum(not clip.id.endswith("0") for clip in corpus.open_test_split().clips())
    found = robustness(run, corpus, rates=(0.0,))
    assert absent > 0
    assert (
        f"{absent} of 8 clips have no text: kept alone, it leaves them nothing to predict from"
        in found["notes"]
    )
    assert math.isfinite(found["subsets"][0]["metrics"]["mae"]["mean"])


def test_a_corpus_with_fewer_modalities_is_swept_over_those(run, tiny_settings):
    def take_text(clip):
        rest = {m: steps for m, steps in clip.features.items() if m != "text"}
        return clip.model_copy(update={"features": rest})

    dims = {m: d for m, d in plant_card(tiny_settings).dims.items() if m != "text"}
    corpus = _changed(tiny_settings, take_text, recipe={}, dims=dims)
    found = robustness(run, corpus, rates=(0.0,))
    assert found["modalities"] == ["audio", "vision"]
    assert len(found["subsets"]) == 3
    assert "the corpus has no text: predicted without it" in found["notes"]


def test_a_warning_says_where_it_is_of(run, tiny_settings):
    def hide(clip):
        return clip.model_copy(update={"label": None}) if clip.id.endswith("1") else clip

    corpus = _changed(tiny_settings, hide)
    unknown = int(np.isnan(corpus.open_test_split().labels()).sum())
    found = robustness(run, corpus, rates=(0.0,))
    assert f"{unknown} of 8 items have no truth and were left out" in found["notes"]


# ---------------------------------------------------------------- the line


def _content(rates, worse, subsets=()):
    return {
        "rates": rates,
        "steps": {"mae": []},
        "line": {"mae": {"row": "constant", "value": 1.25}},
        "no_better": {"mae": {"rates": worse, "subsets": list(subsets)}},
    }


@pytest.mark.parametrize(
    ("worse", "subsets", "sentence"),
    [
        ([], [], "better than the constant (1.250) at every rate"),
        ([0.2, 0.4], [], "no better than the constant (1.250) from rate 0.2 on"),
        ([0.0, 0.2, 0.4], [], "no better than the constant (1.250) at any rate"),
        ([0.2], [], "no better than the constant (1.250) at 0.2"),
        (
            [],
            [["audio"], ["audio", "vision"]],
            "better than the constant (1.250) at every rate; "
            "not with audio alone, audio and vision",
        ),
        (
            [0.4],
            [["vision"]],
            "no better than the constant (1.250) from rate 0.4 on; nor with vision alone",
        ),
    ],
)
def test_crossing_in_words(worse, subsets, sentence):
    content = _content([0.0, 0.2, 0.4], worse, subsets)
    assert crossing_sentences(content) == [f"mae: {sentence}"]


def test_line_is_the_better_row_and_better_has_its_direction(found):
    for key in ("mae", "acc7"):
        line = found["line"][key]
        choose, beats = (min, float.__lt__) if key == "mae" else (max, float.__gt__)
        assert line["value"] == choose(row[key] for row in found["references"].values())
        means = [summary["mean"] for summary in found["steps"][key]]
        assert found["no_better"][key]["rates"] == [
            rate for rate, mean in zip(RATES, means, strict=True) if not beats(mean, line["value"])
        ]
        assert found["no_better"][key]["subsets"] == [
            each["modalities"]
            for each in found["subsets"]
            if not beats(each["metrics"][key]["mean"], line["value"])
        ]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": (0.1, 0.2)}, "rates must grow from 0 to below 1, got [0.1, 0.2]"),
        ({"rates": (0.0, 1.0)}, "rates must grow from 0 to below 1, got [0.0, 1.0]"),
        ({"rates": (0.0, 0.5, 0.5)}, "rates must grow from 0 to below 1, got [0.0, 0.5, 0.5]"),
        ({"rates": ()}, "rates must grow from 0 to below 1, got []"),
        (
            {"mask_seeds": (1, 1)},
            "mask seeds must be different whole numbers from 0 on, got [1, 1]",
        ),
        ({"mask_seeds": ()}, "mask seeds must be different whole numbers from 0 on, got []"),
    ],
)
def test_wrong_sweeps_are_refused(run, tiny_corpus, changes, message):
    with pytest.raises(UsageError) as caught:
        robustness(run, tiny_corpus, **changes)
    assert str(caught.value) == message


def test_a_split_without_labels_is_refused(run, tiny_corpus):
    with pytest.raises(DatasetError) as caught:
        robustness(run, tiny_corpus.development())
    assert str(caught.value) == (
        'planted, split "test": no clip with a label (0 clips), '
        "and robustness is measured against labels.\n"
        "  Use the other split: --split valid\n"
        "  See what there is: mmcl corpus describe CORPUS"
    )


def test_a_corpus_that_does_not_fit_is_refused(run):
    card = Card(name="toy", task=SCORES, dims={"text": 3}, counts={}, aligned=False)
    with pytest.raises(RunError) as caught:
        robustness(run, pack_corpus(card, []))
    assert str(caught.value) == (
        f"{run.folder}: the corpus 'toy' does not fit.\n"
        "  text: 3 features per step, the run was trained on 96\n"
        "  See what the corpus holds: mmcl corpus describe CORPUS"
    )
