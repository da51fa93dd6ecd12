"""Prediction batch by batch: what is kept of it, and that long clips come in smaller batches."""

import threading
import time

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


# ---------------------------------------------------------------- portions side by side


@pytest.fixture
def watched(monkeypatch):
    """In which threads, with how many of torch's own, and how many clips at once."""
    monkeypatch.setattr(inference, "MOST_CLIPS_AT_ONCE", 5)
    seen = []

    def watch(model):
        forward = model.forward

        def noted(features, masks):
            clips = len(next(iter(features.values())))
            seen.append((threading.get_ident(), torch.get_num_threads(), clips))
            return forward(features, masks)

        monkeypatch.setattr(model, "forward", noted)
        return seen

    return watch


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_what_is_predicted_does_not_depend_on_the_threads(model, corpus, watched, threads):
    split, targets = corpus.split("train"), targets_of(corpus.split("train"))
    seen = watched(model)
    found = []
    for count in (1, threads):
        torch.set_num_threads(count)
        seen.clear()
        told = []
        scored = score_split(model, split, batch_size=24, advance=told.append)
        loss = validation_loss(model, split, np.arange(24), targets, 24)
        found.append((scored, loss))
        assert told == [5, 5, 5, 5, 4]
        assert {own for _, own, _ in seen} == {1}
        assert torch.get_num_threads() == count
    assert threading.get_ident() not in {thread for thread, _, _ in seen}
    (one, loss), (several, same) = found
    assert loss == same
    np.testing.assert_array_equal(several.scores, one.scores)
    for steps, expected in zip(several[1:], one[1:], strict=True):
        assert len(steps) == len(expected) == 24
        for values, wanted in zip(steps, expected, strict=True):
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize(
    ("name", "settings", "clips"),
    [
        pytest.param("calibrated", (), 5, id="one-portion"),
        pytest.param("calibrated", ("policy.kind=random",), 24, id="random-actions"),
        pytest.param("ef_lstm", (), 24, id="model-of-whole-batches"),
    ],
)
def test_predicted_in_this_thread(corpus, tiny_config, watched, name, settings, clips):
    torch.set_num_threads(2)
    torch.manual_seed(1)
    model = build_model(corpus, tiny_config(*settings, model=name))
    seen = watched(model)
    split = corpus.split("train").between(0, clips)
    first = score_split(model, split).scores
    assert set(seen) <= {(threading.get_ident(), 2, count) for count in (5, 4)}
    assert seen
    state = torch.get_rng_state()
    np.testing.assert_array_equal(score_split(model, split).scores, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_fault_in_a_portion_leaves_no_thread_and_the_mode(model, corpus, watched, monkeypatch):
    torch.set_num_threads(2)
    seen = watched(model)
    assert model.training
    noted = model.forward

    def faulty(features, masks):
        if len(seen) == 2:
            raise ValueError("the third portion")
        return noted(features, masks)

    monkeypatch.setattr(model, "forward", faulty)
    with pytest.raises(ValueError, match="the third portion"):
        score_split(model, corpus.split("train"))
    assert not [each for each in threading.enumerate() if each.name.startswith("mmcl-portion")]
    assert model.training


def test_memory_bounds_the_portions_in_work(model, corpus, watched, monkeypatch):
    # One portion alone has more steps than may be in work: one is done after the other.
    torch.set_num_threads(4)
    monkeypatch.setattr(inference, "MOST_STEPS_IN_WORK", 1)
    watched(model)
    busy, most = 0, 0
    noted = model.forward

    def counting(features, masks):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.01)
        busy -= 1
        return noted(features, masks)

    monkeypatch.setattr(model, "forward", counting)
    score_split(model, corpus.split("train"))
    assert most == 1
    monkeypatch.setattr(inference, "MOST_STEPS_IN_WORK", 1 << 15)
    score_split(model, corpus.split("train"))
    assert most > 1
