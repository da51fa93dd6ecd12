"""Clips as a network takes them, with steps taken away: worked by hand, then nothing changed."""

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.models.network import Network

SCORE = Task(kind="regression", low=-3, high=3)


class Plain(Network):
    """Uses text, audio and vision; masks what is missing."""

    def __init__(self, aligned=False):
        super().__init__({"text": 1, "audio": 2, "vision": 1}, SCORE, aligned=aligned)
        self.weight = nn.Parameter(torch.zeros(1))


class OneLength(Plain):
    """Knows one length per clip: a missing step is one of zeros."""

    released = True


@pytest.fixture
def split():
    """Two clips of 3 and 1 steps of text, 2 and 2 of audio; one audio step was not measured."""
    audio = [np.ones((2, 2), np.float32), np.array([[0, 0], [1, 2]], np.float32)]
    clips = [
        Clip(
            id=str(row),
            split="valid",
            label=1.0,
            features={"text": np.full((length, 1), 5, np.float32), "audio": audio[row]},
        )
        for row, length in enumerate((3, 1))
    ]
    card = Card(
        name="x",
        task=SCORE,
        dims={"text": 1, "audio": 2},
        counts={},
        aligned=False,
        missing_as_zero=True,
    )
    return pack_corpus(card, clips).split("valid")


def test_collate_masks_a_step_that_was_not_measured_or_keeps_it_as_zeros(split):
    masked, kept = (model().collate(split, [1, 0]) for model in (Plain, OneLength))
    assert list(masked.features) == ["text", "audio"]  # the corpus has no vision
    assert masked.masks["text"].tolist() == [[True, False, False], [True, True, True]]
    assert masked.masks["audio"].tolist() == [[False, True], [True, True]]
    assert kept.masks["audio"].tolist() == [[True, True], [True, True]]
    assert masked.targets is None
    targets = torch.tensor([7.0, 8.0])
    assert Plain().collate(split, [1], targets).targets.tolist() == [8.0]


@pytest.mark.parametrize("kind", [Plain, OneLength])
def test_taking_away_zeroes_a_step_and_masks_it_unless_it_must_stay(split, kind):
    model = kind()
    batch = model.collate(split, [0, 1])
    gone = torch.tensor([[True, False, True], [False, False, True]])
    left = model.take_away(batch, {"text": gone})
    assert left.features["text"][..., 0].tolist() == [[0, 5, 0], [5, 0, 0]]
    own = [[True, True, True], [True, False, False]]
    without = [[False, True, False], [True, False, False]]
    assert left.masks["text"].tolist() == (without if kind is Plain else own)
    assert torch.equal(left.features["audio"], batch.features["audio"])
    # The batch itself is whole, to be damaged in another way.
    assert batch.features["text"][..., 0].tolist() == [[5, 5, 5], [5, 0, 0]]
    assert batch.masks["text"].tolist() == own


def test_evaluating_restores_the_mode_and_the_random_numbers():
    model = Plain().train()
    draws = []
    for seed in (4, 5):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        with model.evaluating():
            assert not model.training
            assert not (model.weight * 2).requires_grad
            draws.append(torch.rand(3))
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(draws[0], draws[1])  # whatever was drawn before
    assert model.training
    with pytest.raises(ZeroDivisionError), model.evaluating():
        _ = 1 / 0
    assert model.training


def test_only_a_network_of_one_length_keeps_missing_steps():
    kinds = [(kind, aligned) for kind in (Plain, OneLength) for aligned in (False, True)]
    models = [kind(aligned) for kind, aligned in kinds]
    assert [model.keeps_missing_steps for model in models] == [False, False, True, True]
