"""Seeds, threads, devices, processes and the versions that are recorded with every run."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import subprocess
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.config import RuntimeSettings
from mmcl.errors import ConfigError, MMCLError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "environment",
    "gather_from_processes",
    "in_first_process",
    "is_first_process",
    "keep_freed_memory",
    "launch",
    "make_fabric",
    "prepare_process",
    "seed_everything",
]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # numbers of glibc's malloc.h
_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that torchrun sets in the processes that it starts."""
_FIRST_PROCESS = "MMCL_FIRST_PROCESS"
"""Environment variable with the number of the process that Fabric starts the others from."""
_DDP = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""Strategies that mean DistributedDataParallel, and nothing where one process trains alone."""
_LOOK_AGAIN = 1.0  # seconds between two looks at whether the first process lives
_RECORDED = (
    *("mmcl", "torch", "lightning-fabric", "numpy", "scikit-learn", "pyarrow", "pydantic"),
    *("optuna", "captum", "onnx", "onnxruntime"),
)


def prepare_process(settings: RuntimeSettings) -> None:
    """Set the number of CPU threads, and keep freed memory for the next step."""
    import torch

    # Threads that wait must not spin: another training may need their core. OpenMP reads this as
    # torch is loaded, so here it is for processes that begin later; mmcl's commands set it first.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    else:
        # Processes that train together on one machine share its cores.
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", settings.devices))
        if processes > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
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

    With deterministic kernels torch would also fill every new tensor with NaN, to expose reads
    of memory that was never written. That is switched off: it cost a quarter of a training step.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # other libraries still read numpy's global state
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def make_fabric(settings: RuntimeSettings) -> Fabric:
    """Return the Lightning Fabric that places models and data; the only maker of one.

    The numbers of processes and machines are those of ``torchrun`` if it started this process,
    and ``runtime.devices`` on one machine otherwise.

    Raises:
        ConfigError: If a GPU is asked for and there is none, if there are fewer devices than
            asked for, if Fabric cannot use the strategy, or if the settings contradict
            ``torchrun``.
    """
    from lightning_fabric import Fabric

    devices, nodes = settings.devices, 1
    if _TORCHRUN in os.environ:
        total, devices = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = total // devices
        if settings.devices not in (1, total):
            raise ConfigError(
                f"runtime.devices is {settings.devices}, but torchrun started {total} processes\n"
                "  Leave it to torchrun: without --set runtime.devices"
            )
    _check_devices(settings, devices)
    strategy: Any = settings.strategy
    if strategy in _DDP:
        # The step of a policy towards its critic reaches some of the parameters only.
        strategy = "ddp_find_unused_parameters_true" if devices * nodes > 1 else "auto"
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=settings.precision,
        )
    # Fabric does not know the strategy, or lacks a package, a GPU or a script for it.
    except (ValueError, ImportError, RuntimeError) as fault:
        raise ConfigError(f'runtime.strategy "{settings.strategy}": {fault}') from None


def _check_devices(settings: RuntimeSettings, devices: int) -> None:
    """Refuse more processes on this machine than it has cores or GPUs."""
    import torch

    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            'runtime.accelerator is "gpu", but torch sees no GPU here\n'
            "  Use the CPU: --set runtime.accelerator=cpu"
        )
    on_gpu = settings.accelerator == "gpu" or (settings.accelerator == "auto" and gpus)
    name, count = ("GPU", gpus) if on_gpu else ("core", cores)
    if devices > count:
        raise ConfigError(
            f"runtime.devices is {devices}, but this machine has {count} "
            f"{name}{'s' * (count != 1)}: each process needs one\n"
            f"  Use: --set runtime.devices={count}"
        )


def launch(settings: RuntimeSettings) -> Fabric:
    """Start the processes of a training, and return the Fabric they share.

    With ``runtime.devices`` above 1 and no ``torchrun``, Fabric starts the same command again in
    each further process. From then on all processes run the same lines. Later trainings of this
    process share them: they are started once.

    Raises:
        ConfigError: As :func:`make_fabric` does.
    """
    if settings.devices == 1 and settings.strategy in _DDP and _TORCHRUN not in os.environ:
        return make_fabric(settings)
    return _launch_once(settings)


@cache
def _launch_once(settings: RuntimeSettings) -> Fabric:
    fabric = make_fabric(settings)
    _end_with_first_process()
    try:
        fabric.launch()
    except TypeError as fault:  # a strategy that can only start a single function
        raise ConfigError(f'runtime.strategy "{settings.strategy}": {fault}') from None
    return fabric


def _end_with_first_process() -> None:
    """End this process with the one that Fabric started it from.

    Processes that still look for each other hear of no death, and would wait for half an hour.
    """
    if _TORCHRUN in os.environ:
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        # The others inherit it. If each read the number of its parent when it starts, the first
        # process might have ended by then, and the number would be another's.
        os.environ[_FIRST_PROCESS] = str(os.getpid())
        return
    first = os.environ.get(_FIRST_PROCESS)
    if first is None:  # started by something else
        return

    def watch() -> None:
        while str(os.getppid()) == first:
            time.sleep(_LOOK_AGAIN)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_first_process() -> bool:
    """Return True in the one process of a training that writes files and prints."""
    import torch

    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not several or torch.distributed.get_rank() == 0


def in_first_process(fabric: Fabric, work: Callable[[], object]) -> None:
    """Call a function in the first process of a training while the others wait for it.

    Raises:
        MMCLError: In every process, if the function raised one in the first. The others would
            otherwise wait for a process that has ended, and fail by a lost connection.
    """
    fault: MMCLError | None = None
    if fabric.is_global_zero:
        try:
            work()
        except MMCLError as raised:
            fault = raised
    fault = fabric.broadcast(fault)
    fabric.barrier()  # none may end while another still receives
    if fault is not None:
        fault.is_said_elsewhere = not fabric.is_global_zero
        raise fault


def gather_from_processes(value: Any) -> list[Any]:
    """Collect a value from each of several processes of a training, in the order of their ranks.

    Returns:
        All values in the first process, an empty list in the others.
    """
    import torch

    # The first process receives into a list of the right length; the others pass None.
    size = torch.distributed.get_world_size()
    values: list[Any] | None = [None] * size if is_first_process() else None
    torch.distributed.gather_object(value, values)
    return values or []


def environment() -> dict[str, Any]:
    """Return the versions, machine and commit that are stored with every result."""
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
