"""Small networks and clips; every axis has a size of its own."""

import pytest
import torch

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.models.mmcl import MMCL

DIMS = {"text": 5, "audio": 3, "vision": 4}
WIDTH, HEADS = 8, 2
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "classes": Task(kind="classes", names=("calm", "happy", "sad")),
    "emotions": Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry")),
}
AS_RELEASED = {
    "name": "released",
    "standardise": False,
    "calibrate": False,
    "dropout": 0.0,
    "head_dropout": 0.5,
}


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
def randomise(generator):
    """Fill every parameter and running statistic, so that no gain of 1 can hide a fault."""

    def fill(module):
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(0.6 * noise)
            for name, buffer in module.named_buffers():
                last = name.rpartition(".")[-1]
                draw = torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
                if last in ("mean", "running_mean", "centre"):
                    buffer.copy_(draw - 0.5)
                elif last in ("variance", "running_var", "scale"):
                    buffer.copy_(0.5 + draw)
        return module

    return fill


@pytest.fixture
def make_model(randomise):
    """A network with random weights, in evaluation mode and double precision."""

    def build(*, task="regression", aligned=True, dims=None, policy=None, **settings):
        sized = {"width": WIDTH, "heads": HEADS, "inner_width": 12, **settings}
        model = MMCL(
            dims or DIMS,
            TASKS[task],
            aligned=aligned,
            model=ModelSettings(**sized),
            policy=PolicySettings(**(policy or {})),
        )
        return randomise(model.double()).eval()

    return build


@pytest.fixture
def make_released(make_model):
    def build(**settings):
        return make_model(**{"policy": {"kind": "ddpg"}, **AS_RELEASED, **settings})

    return build


@pytest.fixture
def make_features(generator):
    """Features ``[b, n_m, d_m]`` per modality, double precision."""

    def draw(clips=4, steps=6, dims=None):
        lengths = steps if isinstance(steps, dict) else dict.fromkeys(DIMS, steps)
        return {
            m: torch.randn(clips, lengths[m], dim, generator=generator, dtype=torch.float64)
            for m, dim in (dims or DIMS).items()
        }

    return draw


@pytest.fixture
def make_masks():
    """Masks ``[b, n]`` from the number of real steps of every clip, per modality."""

    def build(lengths):
        return {
            m: torch.arange(max(*each, 1))[None] < torch.tensor(each)[:, None]
            for m, each in lengths.items()
        }

    return build
