"""Tasks done by processes of Ray, on this machine or on every machine of a cluster.

Behind :func:`mmcl.pool.run_tasks`. Ray finds a place for each task, and another one when its
process or machine dies. So a task is a call that can be made again, with paths that every
machine sees.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from mmcl.errors import ConfigError, DatasetError, MMCLError, UsageError
from mmcl.extras import load
from mmcl.pool import Died

__all__ = ["TRIES", "await_shared", "check_shared", "run_on_ray"]

TRIES = 4
"""Processes that may die with one task before it is given up; Ray's own number."""

_LOOK_AGAIN = 1.0  # seconds between two calls of ``look``
_LATEST = 60.0  # seconds until a network file system has shown what another machine wrote
_OBJECT_STORE = 1 << 27  # bytes; only scores go through it
_ADDRESS = "RAY_ADDRESS"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(TRIES - 1),  # for ever, by default
    "OMP_WAIT_POLICY": "PASSIVE",
}
_ADVICE = (
    "  With --engine ray what is read and written must lie where every machine sees it under one "
    "path.\n  Work on this machine alone: --engine local"
)


def run_on_ray(
    work: Callable[[Any, int], Any],
    tasks: Sequence[Any],
    workers: int,
    fresh: bool,
    gpus: int,
    look: Callable[[], None] | None,
) -> Generator[tuple[Any, Any]]:
    """Do what :func:`mmcl.pool.run_tasks` does; a task whose process dies is done again.

    Where Ray was not running before, it is started here and ends with the last task.
    """
    ray = _load_ray()
    with _session(ray, workers):
        # Ray would wait for ever for what no machine has.
        if gpus and ray.cluster_resources().get("GPU", 0) < gpus:
            raise ConfigError(
                'runtime.accelerator is "gpu", but Ray knows of no GPU\n'
                "  Use the CPU: --set runtime.accelerator=cpu"
            )
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        threads = _threads_per_task([int(node.get("CPU", 0)) for node in nodes], workers)
        remote = ray.remote(
            num_cpus=threads, num_gpus=gpus, max_retries=TRIES - 1, max_calls=1 if fresh else 0
        )
        call = remote(_call).options(name=getattr(work, "func", work).__name__.strip("_"))
        busy: dict[Any, Any] = {}
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


def _call(work: Callable[[Any, int], Any], task: Any, threads: int) -> Any:
    """Call ``work``: Ray takes a function, and no partial of one."""
    return work(task, threads)


def _answer(ray: Any, reference: Any) -> Any:
    """Return the answer of a task, or :class:`Died`; raise what the task raised."""
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


def _threads_per_task(cores: Sequence[int], workers: int) -> int:
    """Return the most cores of one machine that each of ``workers`` tasks can have at once.

    Example:
        >>> _threads_per_task([16, 16, 16], 3), _threads_per_task([16, 16, 16], 4)
        (16, 8)
    """
    for threads in range(max(cores, default=1), 1, -1):
        if sum(here // threads for here in cores) >= workers:
            return threads
    return 1


# ---------------------------------------------------------------- the cluster


def _load_ray() -> Any:
    for name, value in _ENVIRONMENT.items():  # read when it is imported
        os.environ.setdefault(name, value)
    return load("ray", "--engine ray", extra="scale")


@contextmanager
def _session(ray: Any, workers: int) -> Iterator[None]:
    """Start Ray or join a cluster, and leave it at the end; keep one that the caller has begun."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get(_ADDRESS):
        _join(ray, address, quiet)
    else:
        ray.init(
            address="local",
            num_cpus=max(workers, os.cpu_count() or 1),
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",  # nobody else is to find it
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _join(ray: Any, address: str, quiet: dict[str, Any]) -> None:
    try:
        # Where nobody listens at host:port Ray would try for a quarter of an hour.
        host, _, port = address.rpartition(":")
        if port.isdigit() and "://" not in address:
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as fault:
        cause = str(fault).partition("\n")[0].rstrip(".") or type(fault).__name__
        raise UsageError(
            f'--engine ray: no cluster answers at {_ADDRESS}="{address}" ({cause}).\n'
            "  Start one: ray start --head; one that is there may want a token: "
            "RAY_AUTH_MODE=token\n"
            f"  Work on this machine alone: unset {_ADDRESS}"
        ) from None


# ---------------------------------------------------------------- shared files


def check_shared(*paths: Path) -> None:
    """Refuse, with a DatasetError, a machine that does not see the files a task needs."""
    for path in paths:
        if not path.exists():
            where = f"{path}: not found on {socket.gethostname()}"
            raise DatasetError(f"{where}, where a task needed it.\n{_ADVICE}")


def await_shared(*paths: Path, seconds: float = _LATEST) -> None:
    """Wait until one of these files, written by another machine, is seen here.

    Raises:
        DatasetError: If none is seen in time.
    """
    latest = time.monotonic() + seconds
    while not any(path.exists() for path in paths):
        if time.monotonic() > latest:
            where = f"is not seen on {socket.gethostname()}"
            raise DatasetError(f"{paths[0]}: was written by a task, and {where}.\n{_ADVICE}")
        time.sleep(_LOOK_AGAIN / 10)
