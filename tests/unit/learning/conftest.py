"""Learners on toy clips; every axis has a size of its own."""

import pytest
import torch

from mmcl.config import Config, RuntimeSettings
from mmcl.corpus.batches import Batch
from mmcl.corpus.schema import Task
from mmcl.learning.loop import make_learner
from mmcl.models.mmcl import MMCL
from mmcl.runtime import make_fabric

DIMS = {"text": 5, "audio": 3, "vision": 4}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "classes": Task(kind="classes", names=("calm", "happy", "sad")),
    "emotions": Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry")),
}
SMALL = {"width": 8, "heads": 2, "inner_width": 12, "dropout": 0.0, "head_dropout": 0.0}


@pytest.fixture(autouse=True)
def one_thread():
    # The tensors are tiny: threads would only wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20)


@pytest.fixture
def make_toy_learner():
    """A learner on a small network; the same seed, the same weights."""

    def build(*, task="regression", model=None, policy=None, learning=None, dims=None, seed=20):
        config = Config.model_validate(
            {
                "model": {**SMALL, **(model or {})},
                "policy": {"sparsity": 0.0, **(policy or {})},
                "learning": {"alignment_weight": 0.0, "weight_decay": 0.0, **(learning or {})},
            }
        )
        torch.manual_seed(seed)
        network = MMCL(
            dims or DIMS, TASKS[task], aligned=True, model=config.model, policy=config.policy
        )
        learner = make_learner(network.train(), config, make_fabric(RuntimeSettings()))
        torch.manual_seed(seed)
        return learner

    return build


@pytest.fixture
def make_batch(generator):
    """Random clips; ``lengths`` are the real steps of each, the same for every modality."""

    def draw(clips=4, steps=5, *, task="regression", lengths=None, dims=None):
        features = {
            m: torch.randn(clips, steps, d, generator=generator) for m, d in (dims or DIMS).items()
        }
        mask = torch.arange(steps) < torch.tensor(lengths or [steps] * clips).unsqueeze(-1)
        names = len(TASKS[task].names)
        targets = {
            "regression": lambda: torch.randn(clips, generator=generator),
            "classes": lambda: torch.randint(names, (clips,), generator=generator),
            "emotions": lambda: torch.randint(2, (clips, names), generator=generator),
        }[task]()
        masks = {m: mask.clone() for m in features}
        return Batch(features, masks, targets, torch.arange(clips))

    return draw
