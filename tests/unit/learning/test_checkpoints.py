"""Checkpoints: what goes in comes out bit for bit, and a file is whole or absent."""

import math
import os
from pathlib import Path

import pytest
import torch

from mmcl.errors import RunError
from mmcl.learning.checkpoints import load_state, save_state


def _same(one, other):
    """Equal in kind, in order of keys and to the last bit of every tensor."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        raw = [x.contiguous().view(-1).view(torch.uint8) for x in (one, other)]
        assert torch.equal(*raw)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            _same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _same(mine, theirs)
    else:
        assert one == other


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def test_nested_state_comes_back_bit_for_bit(path, generator):
    state = {
        "weights": {
            "float32": torch.randn(3, 5, generator=generator),
            "float16": torch.randn(4, generator=generator).half(),
            "bfloat16": torch.randn(2, 2, generator=generator).bfloat16(),
            "bool": torch.tensor([True, False, True]),
            "int64": torch.tensor([[2**62, -1]]),
            "bytes": torch.get_rng_state(),
            "scalar": torch.tensor(0.1),
            "none": torch.zeros(0, 7),
        },
        "not numbers": torch.tensor([float("nan"), float("inf"), -0.0]),
        "list": [1, 0.1, "text", None, True, [torch.ones(2)], {}],
        "numbers": [math.inf, 1 / 3, 2**60],
        3: "a number as key",
        "3": "and as text",
    }
    save_state(path, state)
    _same(load_state(path), state)


@pytest.mark.parametrize("state", [{}, {"nothing": {}, "none": [], "tensor": torch.zeros(0)}])
def test_empty_state_comes_back(path, state):
    save_state(path, state)
    _same(load_state(path), state)


def test_views_and_gradients_are_saved_as_what_they_show(path):
    weight = torch.arange(12.0).reshape(3, 4).requires_grad_()
    save_state(path, {"turned": weight.t(), "row": weight[1], "again": weight[1]})
    found = load_state(path)
    assert torch.equal(found["turned"], torch.arange(12.0).reshape(3, 4).t())
    assert found["row"].tolist() == found["again"].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert not found["turned"].requires_grad


def test_tuples_come_back_as_lists(path):
    save_state(path, {"pair": (1, torch.ones(1))})
    assert load_state(path) == {"pair": [1, torch.ones(1)]}


def test_optimiser_goes_on_as_if_nothing_had_been(path, generator):
    def step(weight, optimizer):
        optimizer.zero_grad()
        (weight * steps[0]).square().sum().backward()
        optimizer.step()

    steps = torch.randn(1, 4, generator=generator)
    weight = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.AdamW([{"params": [weight], "weight_decay": 0.1}], lr=0.01)
    step(weight, optimizer)
    save_state(path, {"optimizer": optimizer.state_dict(), "weight": weight})

    found = load_state(path)
    other = found["weight"].requires_grad_()
    resumed = torch.optim.AdamW([{"params": [other], "weight_decay": 0.5}], lr=1.0)
    resumed.load_state_dict(found["optimizer"])
    _same(list(resumed.state_dict()["state"]), [0])  # parameters go by number, not by text
    for _ in range(3):
        step(weight, optimizer)
        step(other, resumed)
    assert torch.equal(weight, other)


def test_saving_replaces_and_leaves_nothing_beside(path):
    save_state(path, {"epoch": 1})
    save_state(path, {"epoch": 2})
    assert load_state(path) == {"epoch": 2}
    assert os.listdir(path.parent) == [path.name]


def test_truncated_file_is_refused(path):
    save_state(path, {"weight": torch.arange(4.0)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunError) as caught:
        load_state(path)
    assert str(caught.value) == (
        f"{path}: not a readable checkpoint (Error while deserializing header: incomplete "
        "metadata, file not fully covered).\n"
        "  Remove it and start again without --resume."
    )


def test_file_of_another_kind_is_refused(path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(1)}, path)
    with pytest.raises(RunError) as caught:
        load_state(path)
    assert str(caught.value) == (
        f"{path}: not a readable checkpoint ('tree').\n"
        "  Remove it and start again without --resume."
    )


class _KilledError(BaseException):
    """Stands for SIGKILL: nothing that follows runs."""


@pytest.mark.parametrize("moment", ["before the bytes are on the disk", "before the new name"])
def test_killed_while_saving_leaves_the_old_one(path, monkeypatch, moment):
    save_state(path, {"epoch": 1, "weight": torch.ones(3)})

    def kill(*_):
        raise _KilledError

    if moment == "before the new name":
        monkeypatch.setattr(Path, "replace", kill)
    else:
        monkeypatch.setattr(os, "fsync", kill)
    with pytest.raises(_KilledError):
        save_state(path, {"epoch": 2, "weight": torch.zeros(3)})
    monkeypatch.undo()

    _same(load_state(path), {"epoch": 1, "weight": torch.ones(3)})
    save_state(path, {"epoch": 3})  # what was left behind is in nobody's way
    assert load_state(path) == {"epoch": 3}
    assert os.listdir(path.parent) == [path.name]


def test_file_is_on_the_disk_before_it_has_its_name(path, monkeypatch):
    seen = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("sync"), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda s, to: (seen.append("rename"), rename(s, to)))
    save_state(path, {"epoch": 1})
    assert seen == ["sync", "rename", "sync"]  # the last is its new name, in the folder
