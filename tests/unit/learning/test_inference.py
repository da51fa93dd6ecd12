"""Prediction batch by batch: what is kept of it, and that long clips come in smaller batches."""

import numpy as np
import pytest
import torch

from mmcl.learning import inference
from mmcl.learning.inference import score_split, targets_of, validation_loss
from mmcl.learning.loop import build_model


@pytest.fixture
def corpus(planted):
    return planted(aligned=False)


@pytest.fixture
def model(corpus, tiny_config):
    torch.manual_seed(1)
    return build_model(corpus, tiny_config())


def test_steps_are_kept_only_where_they_are_asked_for(model, corpus):
    split = corpus.split("train")
    whole, scores = score_split(model, split), score_split(model, split, per_step=False)
    np.testing.assert_array_equal(scores.scores, whole.scores)
    assert [len(part) for part in whole] == [24] * 4
    assert [len(part) for part in scores] == [24, 0, 0, 0]


def test_long_clips_come_in_smaller_batches(model, corpus, monkeypatch):
    split = corpus.split("train")
    whole = score_split(model, split, batch_size=10).scores
    seen = []
    forward = model.forward

    def watched(features, masks):
        seen.append({m: x.shape[:2] for m, x in features.items()})
        return forward(features, masks)

    monkeypatch.setattr(model, "forward", watched)
    monkeypatch.setattr(inference, "MOST_STEPS_AT_ONCE", 100)
    told = []
    portioned = score_split(model, split, batch_size=10, advance=told.append).scores
    # float32 sums in another order.
    np.testing.assert_allclose(portioned, whole, rtol=0, atol=1e-5)
    assert all(b * n <= 100 for shapes in seen for b, n in shapes.values())
    assert len(seen) > 5
    assert sum(told) == 24
    assert max(told) < 10


def test_clip_longer_than_a_batch_comes_alone(model, corpus, monkeypatch):
    monkeypatch.setattr(inference, "MOST_STEPS_AT_ONCE", 1)
    told = []
    score_split(model, corpus.split("valid"), advance=told.append)
    assert told == [1] * 8


def test_validation_loss_does_not_depend_on_how_long_clips_are_cut(model, corpus, monkeypatch):
    split = corpus.split("valid")
    given = (model, split, np.array([0, 3, 4, 7]), targets_of(split), 4)
    whole = validation_loss(*given)
    monkeypatch.setattr(inference, "MOST_STEPS_AT_ONCE", 60)
    assert validation_loss(*given) == pytest.approx(whole, abs=1e-6)


def test_random_actions_neither_follow_the_random_state_nor_change_it(corpus, tiny_config):
    torch.manual_seed(1)
    model = build_model(corpus, tiny_config("policy.kind=random"))
    split = corpus.split("train")
    first = score_split(model, split).scores
    state = torch.get_rng_state()
    np.testing.assert_array_equal(score_split(model, split).scores, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_mode_of_the_model_comes_back_after_a_fault(model, corpus, monkeypatch):
    def faulty(features, masks):
        raise ValueError("of the network")

    assert model.training
    monkeypatch.setattr(model, "forward", faulty)
    with pytest.raises(ValueError, match="of the network"):
        score_split(model, corpus.split("train"))
    assert model.training
