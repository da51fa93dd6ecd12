"""Robustness: who loses which steps, worked by hand, then the laws of the sweep."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import DatasetError, RunError, UsageError
from mmcl.models.network import Network
from mmcl.runs.robustness import (
    RATES,
    Condition,
    conditions_of,
    crossing_sentences,
    draw_chances,
    missing_steps,
    robustness,
    score_damaged,
)
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


class CountsSteps(Network):
    """Scores a clip by its real steps: 100 for each of text, 1 for each of audio."""

    def __init__(self):
        super().__init__({"text": 1, "audio": 2}, SCORES)
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes, self.given = [], []

    def forward(self, features, masks):
        self.modes.append(self.training)
        self.given.append({m: x.clone() for m, x in features.items()})
        counts = {m: mask.sum(dim=1) for m, mask in masks.items()}
        return SimpleNamespace(scores=100.0 * counts["text"] + counts["audio"])


class SumsValues(CountsSteps):
    """Knows one length per clip, and so is given zeros; scores a clip by the sum of its steps."""

    released = True

    def forward(self, features, masks):
        self.given.append({m: mask.clone() for m, mask in masks.items()})
        return SimpleNamespace(scores=features["text"].sum((1, 2)) + features["audio"].sum((1, 2)))


@pytest.fixture
def ragged():
    """Two clips of 3 and 1 steps of text, 2 and 5 of audio; every value is a power of two."""
    lengths = {"text": (3, 1), "audio": (2, 5)}
    dims = {"text": 1, "audio": 2}
    clips = [
        Clip(
            id=str(at),
            split="valid",
            label=1.0,
            features={m: np.ones((lengths[m][at], dims[m]), np.float32) for m in dims},
        )
        for at in range(2)
    ]
    card = Card(name="ragged", task=SCORES, dims=dims, counts={}, aligned=False)
    return pack_corpus(card, clips).split("valid")


# ---------------------------------------------------------------- which steps are missing


def test_missing_steps_worked_by_hand():
    # Two clips, three and two steps wide; of the second, one step of text is not real.
    real = {
        "text": torch.tensor([[True, True, True], [True, False, False]]),
        "audio": torch.tensor([[True, True], [True, True]]),
    }
    chances = {
        "text": torch.tensor([[0.10, 0.50, 0.29], [0.20, 0.99, 0.99]]),
        "audio": torch.tensor([[0.31, 0.05], [0.15, 0.25]]),
    }
    at_half = missing_steps(real, chances, 0.3)
    assert at_half["text"].tolist() == [[True, False, True], [True, False, False]]
    # 0.25 is the largest number of the second clip's real steps: it alone is spared.
    assert at_half["audio"].tolist() == [[False, True], [True, False]]
    assert not any(mask.any() for mask in missing_steps(real, chances, 0.0).values())


def test_missing_steps_are_nested_over_the_rates():
    generator = torch.Generator().manual_seed(5)
    shapes = {"text": (6, 9), "audio": (6, 4), "vision": (6, 1)}
    real = {m: torch.rand(shape, generator=generator) < 0.7 for m, shape in shapes.items()}
    real["text"][:, 0] = True  # no clip without a step
    chances = {m: torch.rand(shape, generator=generator) for m, shape in shapes.items()}
    before = missing_steps(real, chances, 0.0)
    for rate in (*RATES, 1.0):
        now = missing_steps(real, chances, rate)
        for m in real:
            assert (before[m] <= now[m]).all()
            assert (now[m] <= real[m]).all()
        before = now
    left = torch.cat([real[m] & ~before[m] for m in real], dim=1)
    assert (left.sum(dim=1) == 1).all()


def test_chances_are_of_the_seed_and_the_modality_alone(tiny_corpus):
    split = tiny_corpus.split("valid")
    once, again, other = (draw_chances(split, seed) for seed in (4, 4, 5))
    for modality, numbers in once.items():
        assert len(numbers) == split.lengths(modality).sum()
        assert np.array_equal(numbers, again[modality])
        assert not np.array_equal(numbers, other[modality])
    assert not np.array_equal(once["text"][:8], once["audio"][:8])


def test_rate_is_the_share_that_is_missing(planted):
    split = planted(valid=60).split("valid")
    whole, fewer = Condition(("text", "audio")), Condition(("text", "audio"), 0.3, 1)
    scores = score_damaged(CountsSteps(), split, [whole, fewer])
    text = [scores[each] // 100 for each in (whole, fewer)]
    # 60 clips of about twenty steps: a share has a standard error of about .013.
    assert 1 - text[1].sum() / text[0].sum() == pytest.approx(0.3, abs=0.05)


# ---------------------------------------------------------------- any network


def test_conditions_of_three_modalities():
    every = ("text", "audio", "vision")
    found = conditions_of(every, RATES, (1, 2, 3))
    assert len(found) == len(set(found)) == 1 + 9 * 3 + 6
    assert found[0] == Condition(every)
    assert [c.kept for c in found[-6:]] == [
        *[(m,) for m in every],
        *[("text", "audio"), ("text", "vision"), ("audio", "vision")],
    ]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_a_network_is_given_worked_by_hand(ragged, batch_size):
    model = CountsSteps().train()
    both = ("text", "audio")
    conditions = [Condition(both), Condition(("text",)), Condition(("audio",))]
    scores = score_damaged(model, ragged, conditions, batch_size=batch_size)
    assert scores[conditions[0]].tolist() == [302.0, 105.0]
    assert scores[conditions[1]].tolist() == [300.0, 100.0]
    assert scores[conditions[2]].tolist() == [2.0, 5.0]
    assert set(model.modes) == {False}
    assert model.training  # its own mode came back


@pytest.mark.parametrize("batch_size", [1, 2])
def test_steps_are_lost_by_their_own_number(ragged, batch_size):
    # Clip 0 has the first three numbers of text and two of audio, clip 1 those after them.
    numbers = draw_chances(ragged, 7)
    text, audio = numbers["text"], numbers["audio"]
    expected = []
    for t, a in ((text[:3], audio[:2]), (text[3:], audio[2:])):
        highest = max(t.max(), a.max())
        left = [sum((x >= 0.6) | (x == highest)) for x in (t, a)]
        expected.append(100.0 * left[0] + left[1])
    condition = Condition(("text", "audio"), 0.6, 7)
    found = score_damaged(CountsSteps(), ragged, [condition], batch_size=batch_size)
    assert found[condition].tolist() == expected


def test_masked_steps_are_zeros_too(ragged):
    model = CountsSteps()
    score_damaged(model, ragged, [Condition(("audio",))])
    assert not model.given[0]["text"].any()
    assert model.given[0]["audio"].any()


def test_a_network_of_one_length_is_given_zeros_and_its_masks(ragged):
    model = SumsValues()
    both = ("text", "audio")
    conditions = [Condition(both), Condition(("audio",)), Condition(both, 0.9, 1)]
    scores = score_damaged(model, ragged, conditions)
    assert scores[conditions[0]].tolist() == [3 + 2 * 2, 1 + 2 * 5]
    assert scores[conditions[1]].tolist() == [2 * 2, 2 * 5]
    assert all(0 < score <= 4 for score in scores[conditions[2]])  # few steps, never none
    for seen in model.given[1:]:
        assert all(torch.equal(seen[m], model.given[0][m]) for m in both)


def test_a_step_that_was_missing_before_is_never_the_one_that_is_spared(ragged):
    card = ragged.card.model_copy(update={"missing_as_zero": True})
    numbers = draw_chances(ragged, 1)
    loudest = int(numbers["audio"][:2].argmax())
    clips = list(ragged.clips())
    gone = clips[0].features["audio"].copy()
    gone[loudest] = 0
    features = {**clips[0].features, "audio": gone, "text": np.zeros((3, 1), np.float32)}
    clips[0] = clips[0].model_copy(update={"features": features})
    split = pack_corpus(card, clips).split("valid")
    condition = Condition(("text", "audio"), 0.99, 1)
    for model in (CountsSteps(), SumsValues()):
        assert score_damaged(model, split, [condition])[condition][0] > 0


def test_progress_counts_every_clip_under_every_condition(ragged):
    told = []
    score_damaged(
        CountsSteps(), ragged, [Condition(("text",))] * 3, batch_size=1, advance=told.append
    )
    assert told == [1] * 6


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
        "  Measure it on the other one: --split valid\n"
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
