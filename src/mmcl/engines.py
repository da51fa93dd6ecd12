"""Work handed to processes by Ray: on this machine, or on every machine of a cluster.

Ray finds a place for each task, and another where the process that had it has died. Nothing of
that is done here: a task is a call that can be made again, with paths that every machine sees.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from mmcl.errors import ConfigError, DatasetError, MissingExtraError, MMCLError, UsageError

__all__ = [
    "TRIES",
    "Died",
    "Engine",
    "await_shared",
    "check_shared",
    "check_workers",
    "over_ray",
]

Engine = Literal["local", "ray"]
"""What runs side by side: processes of our own, or those of Ray."""

TRIES = 4
"""Processes that may die with one task before it is given up; Ray's own number."""

_LOOK_AGAIN = 1.0  # seconds between two looks at how far the tasks are
_LATEST = 60.0  # seconds until a network file system has shown what another machine wrote
_KNOCK = 10.0  # seconds until a machine has answered
_OBJECT_STORE = 1 << 27  # bytes; only scores go through it
_ADDRESS = "RAY_ADDRESS"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(TRIES - 1),  # for ever, by default
    "OMP_WAIT_POLICY": "PASSIVE",
}

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")


class Died(NamedTuple):
    """In place of an answer: every process that had the task has died.

    Attributes:
        cause: What is known of it, to stand in a list of failures.
    """

    cause: str


def check_workers(workers: int, engine: Engine = "local") -> None:
    """See that this machine has a core for each process that works beside the others.

    Ray counts the cores of all machines itself.

    Raises:
        UsageError: If there are fewer.
    """
    cores = os.cpu_count() or 1
    if engine == "local" and workers > cores:
        found = "1 core" if cores == 1 else f"{cores} cores"
        raise UsageError(
            f"--workers is {workers}, but this machine has {found}: each process needs one\n"
            f"  Use: --workers {cores}"
        )


def over_ray(
    work: Callable[[_Task, int], _Answer],
    tasks: Sequence[_Task],
    *,
    workers: int,
    gpus: int = 0,
    fresh: bool = False,
    look: Callable[[], None] | None = None,
) -> Generator[tuple[_Task, _Answer | Died]]:
    """Do every task in a process of Ray, ``workers`` at a time, and hand it out as it ends.

    A task whose process dies is done again in another, up to :data:`TRIES` times in all. Close
    the iterator to stop: what is in work is then ended, and so is Ray where it was begun here.

    Args:
        work: Called as ``work(task, threads)``, with its share of the cores; a function of a
            module (or a partial of one) that every machine has.
        tasks: In the order they are begun.
        workers: Tasks at a time. They share the cores, of all machines, evenly.
        gpus: That each task has to itself.
        fresh: Give every task a process that did none before.
        look: Called about once a second.

    Returns:
        Pairs of a task and what it came to, in the order they end.

    Raises:
        MissingExtraError: If Ray is not installed.
        UsageError: If no cluster answers where ``RAY_ADDRESS`` says there is one.
        ConfigError: If a GPU is asked for and no machine has one.
        MMCLError: Whatever a task raised.
    """
    if not tasks:
        return
    ray = _load_ray()
    with _session(ray, workers):
        _check_gpus(ray, gpus)
        threads = _share(_cores(ray), workers)
        remote = ray.remote(
            num_cpus=threads,
            num_gpus=gpus,
            max_retries=TRIES - 1,
            max_calls=1 if fresh else 0,
        )
        call = remote(_call).options(name=_name_of(work))
        busy: dict[Any, _Task] = {}
        waiting = iter(tasks)
        try:
            while True:
                for task in islice(waiting, workers - len(busy)):
                    busy[call.remote(work, task, threads)] = task
                if not busy:
                    return
                for ended in ray.wait(list(busy), timeout=_LOOK_AGAIN)[0]:
                    yield busy.pop(ended), _answer(ray, ended)
                if look is not None:
                    look()
        finally:
            for reference in busy:
                ray.cancel(reference, force=True)


def check_shared(path: Path) -> None:
    """See, where a task runs, that what it needs is there.

    Raises:
        DatasetError: If it is not.
    """
    if not path.exists():
        raise DatasetError(
            f"{path}: not found on {socket.gethostname()}, where a task needed it.\n"
            "  With --engine ray what is read and written must lie where every machine sees it "
            "under one path.\n  Work on this machine alone: --engine local"
        )


def await_shared(*paths: Path, seconds: float = _LATEST) -> None:
    """Wait until one of these files, which another machine has written, is seen here.

    Raises:
        DatasetError: If none is seen in time.
    """
    latest = time.monotonic() + seconds
    while not any(path.exists() for path in paths):
        if time.monotonic() > latest:
            raise DatasetError(
                f"{paths[0]}: was written by a task, and is not seen on {socket.gethostname()}.\n"
                "  With --engine ray what is read and written must lie where every machine sees it "
                "under one path.\n  Work on this machine alone: --engine local"
            )
        time.sleep(_LOOK_AGAIN / 10)


def _call(work: Callable[[_Task, int], _Answer], task: _Task, threads: int) -> _Answer:
    """What Ray is given: it takes a function, and no partial of one."""
    return work(task, threads)


def _name_of(work: Callable[..., Any]) -> str:
    """How Ray calls the task, and the process that is at it."""
    return str(getattr(work, "func", work).__name__).strip("_")


def _answer(ray: Any, reference: Any) -> Any:
    """What a task came to; what it raised is raised here as it was there."""
    faults = ray.exceptions
    try:
        return ray.get(reference)
    except faults.RayTaskError as fault:
        if isinstance(fault.cause, MMCLError):
            raise fault.cause from None
        raise
    except faults.OutOfMemoryError:
        return Died(f"its process ran out of memory {TRIES} times")
    except (faults.WorkerCrashedError, faults.NodeDiedError):
        return Died(f"its process died {TRIES} times; memory may have run out")


def _share(cores: Sequence[int], workers: int) -> int:
    """The most cores a task can have where so many are to run at once.

    Args:
        cores: Of each machine.
        workers: Tasks at a time.

    Example:
        >>> _share([16, 16, 16], 3), _share([16, 16, 16], 4), _share([2], 8)
        (16, 8, 1)
    """
    for share in range(max(cores, default=1), 1, -1):
        if sum(each // share for each in cores) >= workers:
            return share
    return 1


def _cores(ray: Any) -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _check_gpus(ray: Any, gpus: int) -> None:
    """A task that asks for what there is not would wait for ever."""
    if gpus and ray.cluster_resources().get("GPU", 0) < gpus:
        raise ConfigError(
            'runtime.accelerator is "gpu", but Ray knows of no GPU\n'
            "  Use the CPU: --set runtime.accelerator=cpu"
        )


def _load_ray() -> Any:
    for name, value in _ENVIRONMENT.items():  # read when it is imported
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "--engine ray needs ray, which is not installed.\n"
            '  Install it: pip install "mmcl[scale]"'
        ) from None


@contextmanager
def _session(ray: Any, workers: int) -> Iterator[None]:
    """Ray, begun here and ended here; or as the caller has begun it, who keeps it."""
    if ray.is_initialized():
        yield
        return
    _begin(ray, workers)
    try:
        yield
    finally:
        ray.shutdown()


def _begin(ray: Any, workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get(_ADDRESS)
    if not address:
        ray.init(
            address="local",
            num_cpus=max(workers, os.cpu_count() or 1),
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",  # nobody else is to find it
            **quiet,
        )
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as fault:
        cause = str(fault).partition("\n")[0].rstrip(".") or type(fault).__name__
        raise UsageError(
            f'--engine ray: no cluster answers at {_ADDRESS}="{address}" ({cause}).\n'
            "  Start one: ray start --head; one that is there may want a token: "
            "RAY_AUTH_MODE=token\n"
            f"  Work on this machine alone: unset {_ADDRESS}"
        ) from None


def _knock(address: str) -> None:
    """Fail at once where nobody is at ``host:port``: Ray would knock for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()
