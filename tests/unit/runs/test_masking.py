"""Masking: who loses which steps, and what a network is given, worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.models.network import Network
from mmcl.runs.masking import Condition, conditions_of, draw_chances, missing_steps, score_damaged
from mmcl.runs.robustness import RATES

SCORES = Task(kind="regression", low=-3, high=3)


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
