"""Seeds, threads, devices and versions: what a run depends on beside its settings."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import subprocess
import sys
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.config import RuntimeSettings
from mmcl.errors import ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "check_processes",
    "environment",
    "is_first_process",
    "keep_freed_memory",
    "make_fabric",
    "num_processes",
    "prepare_process",
    "seed_everything",
]

_SECONDS_OF_A_TURN = 5e-4
"""After which a thread that waits for Python's lock asks for it: a tenth of the usual time. Those
that compute parts of a batch then wait less for each other (benchmarks/NOTES.md)."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # numbers of glibc's malloc.h
_LONGEST_WAIT = timedelta(hours=2)  # the first process scores alone; a dead one is heard at once
_RECORDED = (
    *("mmcl", "torch", "lightning-fabric", "numpy", "scikit-learn", "pyarrow", "pydantic"),
    *("optuna", "captum", "onnx", "onnxruntime"),
)


def prepare_process(settings: RuntimeSettings) -> None:
    """Set the number of CPU threads and how they take turns, and keep freed memory at hand."""
    import torch

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.setswitchinterval(_SECONDS_OF_A_TURN)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Ask glibc to reuse large blocks in place of returning them to the system.

    A training step allocates and frees the same large tensors again and again. By default
    each one is mapped afresh, and its pages fault in one by one: an elementwise operation on
    63 MB took 30 ms so, and 5 ms with its memory kept (one thread; benchmarks/NOTES.md).
    Elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and ask torch for deterministic kernels.

    Torch would then also fill every fresh tensor with NaN, to show up reads of memory that
    was never written; that search for faults cost a quarter of a training step.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # libraries below us still read the global state
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def num_processes() -> int:
    """Processes in this one's group, over all machines: what ``torchrun`` says, else 1."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first_process() -> bool:
    """Whether this process is the one of its group that writes files and speaks."""
    return num_processes() == 1 or os.environ["RANK"] == "0"


def check_processes(settings: RuntimeSettings, here: int) -> None:
    """See that this machine has what so many processes need.

    Args:
        settings: Say whether they run on cores or on GPUs.
        here: Processes of this training on this machine.

    Raises:
        ConfigError: If there are fewer cores or GPUs, or no GPU where one is asked for.
    """
    import torch

    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            'runtime.accelerator is "gpu", but torch sees no GPU here\n'
            "  Use the CPU: --set runtime.accelerator=cpu"
        )
    on_gpu = settings.accelerator == "gpu" or (settings.accelerator == "auto" and gpus)
    name, there = ("GPU", gpus) if on_gpu else ("core", cores)
    if here > there:
        found = f"{there} {name}{'s' * (there != 1)}"
        raise ConfigError(
            f"runtime.processes is {here}, but this machine has {found}: "
            f"each process needs one\n  Use: --set runtime.processes={there}"
        )


def make_fabric(settings: RuntimeSettings, *, loggers: list[Any] | None = None) -> Fabric:
    """The Lightning Fabric that places models and data; the only maker of one.

    Alone it has one device. In a group (:func:`num_processes`) every process has one.

    Raises:
        ConfigError: If a GPU is asked for and there is none, or there are too few.
    """
    from lightning_fabric import Fabric

    count = num_processes()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if count > 1 else 1
    check_processes(settings, here)
    return Fabric(
        accelerator=settings.accelerator,
        devices=here,
        num_nodes=count // here,
        strategy=_strategy() if count > 1 else "auto",
        precision=settings.precision,
        loggers=loggers or [],
    )


def _strategy() -> Any:
    """Fabric's processes and messages, without its wrapper of modules.

    The wrapper averages gradients in hooks, and asks that each parameter takes part in each
    backward pass; here losses are sums over processes: see :mod:`mmcl.processes`.
    """
    from lightning_fabric.strategies.ddp import DDPStrategy
    from torch.nn import Module

    class SummedByTheLearner(DDPStrategy):
        def setup_module(self, module: Module) -> Any:
            return module

    return SummedByTheLearner(timeout=_LONGEST_WAIT)


def environment() -> dict[str, Any]:
    """Versions, machine and commit, to be stored with every result."""
    return {
        "versions": {name: _version(name) for name in _RECORDED},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout this package runs from; None where installed otherwise."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
