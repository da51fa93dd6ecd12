"""Seeds, devices and what a run is recorded with."""

import json
import os
import random
import socket
import subprocess

import numpy as np
import pytest
import torch

from mmcl import runtime
from mmcl.config import RuntimeSettings
from mmcl.errors import ConfigError
from mmcl.runtime import environment, launch, make_fabric, prepare_process, seed_everything


def _draw():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_same_seed_draws_the_same_and_another_draws_others():
    seed_everything(3)
    first = _draw()
    later = _draw()
    seed_everything(3)
    assert _draw() == first
    seed_everything(4)
    other = _draw()
    for mine, after, theirs in zip(first, later, other, strict=True):
        assert mine != after
        assert mine != theirs


def test_seed_may_be_larger_than_numpy_takes():
    seed_everything(2**40 + 1)
    first = _draw()
    seed_everything(2**40 + 1)
    assert _draw() == first


def test_seeding_asks_for_deterministic_kernels():
    torch.use_deterministic_algorithms(False)
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_are_set(threads):
    prepare_process(RuntimeSettings(threads=threads))
    assert torch.get_num_threads() == threads


def test_threads_are_left_alone_unless_asked_for():
    before = torch.get_num_threads()
    prepare_process(RuntimeSettings())
    assert torch.get_num_threads() == before


def test_idle_threads_sleep_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    prepare_process(RuntimeSettings())
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_process(RuntimeSettings())
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_gpu_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        make_fabric(RuntimeSettings(accelerator="gpu"))
    assert str(caught.value) == (
        'runtime.accelerator is "gpu", but torch sees no GPU here\n'
        "  Use the CPU: --set runtime.accelerator=cpu"
    )


def test_fabric_is_on_the_cpu_by_default():
    fabric = make_fabric(RuntimeSettings())
    assert fabric.device == torch.device("cpu")
    assert fabric.world_size == 1


def test_fabric_keeps_the_precision_asked_for():
    fabric = make_fabric(RuntimeSettings(precision="bf16-mixed"))
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_strategy_for_several_processes_does_not_matter_to_one(strategy):
    fabric = launch(RuntimeSettings(strategy=strategy))
    # Refused where the Fabric waits to be launched.
    model = fabric.setup(torch.nn.Linear(2, 1))
    assert model(torch.ones(3, 2)).shape == (3, 1)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("unknown", "You selected an invalid strategy name"),
        ("ddp_spawn", "To spawn processes with the `DDPStrategy` strategy"),
        ("fsdp", "You selected the FSDP strategy but FSDP is only available on GPU"),
        ("deepspeed", "To use the `DeepSpeedStrategy`, you must have DeepSpeed installed"),
    ],
)
def test_strategy_that_cannot_be_used_is_refused(strategy, reason):
    with pytest.raises(ConfigError) as caught:
        launch(RuntimeSettings(strategy=strategy))
    assert str(caught.value).startswith(f'runtime.strategy "{strategy}": {reason}')


# ---------------------------------------------------------------- what is recorded


def test_environment_has_versions_machine_and_commit():
    found = environment()
    assert list(found) == ["versions", "python", "machine", "commit"]
    assert {"mmcl", "torch", "numpy", "pyarrow", "scikit-learn"} <= found["versions"].keys()
    assert torch.__version__.startswith(found["versions"]["torch"])  # +cu130 may be left out
    assert found["versions"]["numpy"] == np.__version__
    assert all(found["versions"].values())
    assert found["machine"].endswith(f"{os.cpu_count()} cores")
    json.dumps(found, allow_nan=False)


def test_environment_names_no_folder_and_no_host():
    text = json.dumps(environment())
    assert socket.gethostname() not in text
    assert os.path.expanduser("~") not in text


def test_commit_is_that_of_the_checkout(monkeypatch):
    done = subprocess.CompletedProcess([], 0, stdout="0123456789ab-dirty\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert environment()["commit"] == "0123456789ab-dirty"


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(subprocess.CompletedProcess([], 128, stdout=""), id="no-checkout"),
        pytest.param(FileNotFoundError("git"), id="no-git"),
        pytest.param(subprocess.TimeoutExpired("git", 10), id="slow-git"),
    ],
)
def test_commit_is_none_where_there_is_none(monkeypatch, outcome):
    def git(*_, **__):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", git)
    assert environment()["commit"] is None


def test_version_of_what_is_not_installed_is_none(monkeypatch):
    monkeypatch.setattr(runtime, "_RECORDED", ("no-such-package-anywhere",))
    assert environment()["versions"] == {"no-such-package-anywhere": None}


# ---------------------------------------------------------------- the tests' own guard


def test_tests_reach_no_other_machine():
    with (
        socket.socket() as outgoing,
        pytest.raises(RuntimeError, match=r"a test may not reach \('192\.0\.2\.1', 80\)"),
    ):
        outgoing.connect(("192.0.2.1", 80))


def test_tests_reach_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as outgoing:
        outgoing.connect(server.getsockname())
