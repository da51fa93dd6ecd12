"""Integrated gradients: known exactly for a linear network, whatever its masks."""

import importlib
import sys
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import MissingExtraError
from mmcl.explain.gradients import gradient_importance, load_captum
from mmcl.learning.loop import build_model
from mmcl.models.network import Network

WEIGHTS = {"text": [0.5, -2.0], "audio": [1.0, 0.25, -3.0]}
CENTRE = [1.0, -1.0, 0.5]


class Linear(Network):
    """Sum over real steps of a weighted sum of features; audio is centred before."""

    standardisers = MappingProxyType({"audio": SimpleNamespace(centre=torch.tensor(CENTRE))})

    def __init__(self, task):
        super().__init__({"text": 2, "audio": 3}, task)
        self.weight = nn.ParameterDict({m: torch.tensor(w) for m, w in WEIGHTS.items()})

    def forward(self, features, masks):
        total = sum(((features[m] @ w) * masks[m]).sum(dim=1) for m, w in self.weight.items())
        if self.task.kind == "classes":
            total = torch.stack([total * 0, total * 0.01], dim=-1)
        return SimpleNamespace(scores=total)


def _split(task, label):
    rng = np.random.default_rng(5)
    clips = []
    for at, (texts, audios) in enumerate(((2, 4), (3, 1))):
        features = {
            "text": rng.normal(size=(texts, 2)).astype(np.float32),
            "audio": rng.normal(size=(audios, 3)).astype(np.float32),
        }
        clips.append(Clip(id=str(at), split="valid", features=features, label=label))
    card = Card(name="x", task=task, dims={"text": 2, "audio": 3}, counts={}, aligned=False)
    return pack_corpus(card, clips).split("valid")


def _by_hand(split, row):
    text = np.abs(split.steps("text", row) * WEIGHTS["text"]).sum(axis=1)
    audio = np.abs((split.steps("audio", row) - CENTRE) * WEIGHTS["audio"]).sum(axis=1)
    return text, audio


def test_linear_network_worked_by_hand():
    task = Task(kind="regression", low=-3, high=3)
    split = _split(task, 1.0)
    importance = gradient_importance(Linear(task), split)
    assert [each.shape for each in importance] == [(2, 4), (2, 4)]
    for row, found in enumerate(importance):
        text, audio = _by_hand(split, row)
        # Float32 sums; the weights of the points add up to 1 to seven digits.
        np.testing.assert_allclose(found[0, : len(text)], text, rtol=1e-4)
        np.testing.assert_allclose(found[1, : len(audio)], audio, rtol=1e-4)
        assert not found[0, len(text) :].any()
        assert not found[1, len(audio) :].any()


def test_classes_are_explained_by_the_probability_of_what_is_predicted():
    task = Task(kind="classes", names=("no", "yes"))
    split = _split(task, 1)
    for row, found in enumerate(gradient_importance(Linear(task), split)):
        text, audio = _by_hand(split, row)
        # So nearly flat a softmax is linear: a quarter of the hundredth of the logit.
        np.testing.assert_allclose(found[0, : len(text)], text * 0.0025, rtol=0.01)
        np.testing.assert_allclose(found[1, : len(audio)], audio * 0.0025, rtol=0.01)


@pytest.mark.parametrize("variant", ["calibrated", "released"])
@pytest.mark.parametrize("task", ["regression", "emotions"])
def test_networks_have_importance_at_their_steps(planted, tiny_config, variant, task):
    corpus = planted(aligned=False, task=task)
    torch.manual_seed(2)
    model = build_model(corpus, tiny_config(model=variant)).eval()
    split = corpus.split("valid")
    for row, found in enumerate(gradient_importance(model, split)):
        for at, modality in enumerate(split.modalities):
            length = len(split.steps(modality, row))
            assert found[at, :length].any()
            assert not found[at, length:].any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_missing_captum_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MissingExtraError) as caught:
        load_captum()
    assert str(caught.value) == (
        "comparing with integrated gradients needs captum, which is not installed.\n"
        '  Install it: pip install "mmcl[research]"'
    )
