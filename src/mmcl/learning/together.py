"""Processes that train one network together, on this machine, and what becomes of them.

PyTorch starts them, watches them and stops those that are left: its ``start_processes``, on
which both Lightning's launcher and ``torchrun`` (called as a function) stand. Those two were
tried and cannot do what is asked here: ``elastic_launch`` blames the survivor where another
process was killed and asks the resolver for this machine's name, its own ``start_processes``
takes SIGINT and SIGTERM over for good, Lightning's does not stop them at Ctrl-C, and each leaves
semaphores, with a warning, when the caller is killed. What stands here is what PyTorch's does
not say: how far the training is, which error is the cause, and the environment of ``torchrun``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from mmcl.config import Config
from mmcl.errors import ConfigError, MMCLError, TrainingError
from mmcl.runtime import check_processes

__all__ = ["Progress", "run_together"]

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called as ``progress(stage, done, total, numbers)`` after steps and epochs."""

_LOCAL = "127.0.0.1"


def run_together(
    work: Callable[..., Any], given: Mapping[str, Any], config: Config, progress: Progress | None
) -> None:
    """Call a function in several processes that form one group.

    Args:
        work: A function of a module; called as ``work(config=..., progress=..., **given)``.
        given: Its other arguments; each process gets a copy.
        config: Says how many processes. Each has its share of the cores, unless it says how
            many threads a process has.
        progress: Told what the first of them tells.

    Raises:
        ConfigError: If this machine cannot hold so many, or this process is itself one of
            several that train side by side.
        TrainingError: If one was killed.
        MMCLError: Whatever the work raised; the others are stopped.
    """
    count = config.runtime.processes
    check_processes(config.runtime, count)
    if multiprocessing.current_process().daemon:
        raise ConfigError(
            f"runtime.processes is {count}, but this training is one of several side by side: "
            "it has one process\n  Use one: --set runtime.processes=1"
        )
    given = dict(given) | {"config": _with_threads(config)}
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(count)]
    hear, say = [[pipe[end] for pipe in pipes] for end in (0, 1)]
    group = _start(work, given, say)
    try:
        _attend(group, hear, progress)
    finally:
        for process in group.processes:
            process.terminate()
        for process in group.processes:
            process.join()
        for each in (*hear, *group.processes):
            each.close()
        for path in group.error_files:
            Path(path).unlink(missing_ok=True)


def _with_threads(config: Config) -> Config:
    settings = config.runtime
    share = max(1, (os.cpu_count() or 1) // settings.processes)
    runtime = settings.model_copy(update={"threads": settings.threads or share})
    return config.model_copy(update={"runtime": runtime})


def _start(work: Any, given: Mapping[str, Any], say: Sequence[Connection]) -> ProcessContext:
    """Start one process per pipe, forked from a clean one that has loaded torch, where it can."""
    logging.getLogger(start_processes.__module__).setLevel(logging.ERROR)  # not: whom it stops
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        method = "forkserver"
        preloaded = [work.__module__, "lightning_fabric"]
        multiprocessing.get_context(method).set_forkserver_preload(preloaded)
    group: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _take_part,
        (work, given, say, _free_port()),
        nprocs=len(say),
        join=False,
        daemon=True,
        start_method=method,
    )
    for end in say:
        end.close()  # the processes hold the only others, so that their death is heard
    return group


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOCAL, 0))
        port: int = listener.getsockname()[1]
        return port


def _take_part(
    rank: int, work: Callable[..., Any], given: dict[str, Any], say: list[Connection], port: int
) -> None:
    """Work in this process; say how far it is, and what went wrong."""
    import lightning_fabric  # noqa: F401  (sets the level of its own messages)

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    threading.Thread(target=_end_with_caller, daemon=True).start()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    os.environ.update(
        TORCHELASTIC_RUN_ID="mmcl",
        MASTER_ADDR=_LOCAL,
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(len(say)),
        LOCAL_WORLD_SIZE=str(len(say)),
    )

    def tell(*progress: Any) -> None:
        if rank == 0:
            say[rank].send(progress)

    try:
        work(**given, progress=tell)
    except MMCLError as fault:
        say[rank].send(fault)
        sys.exit(1)


def _end_with_caller() -> None:
    """Whoever asked for the training may be killed: nobody else would end it."""
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _attend(group: ProcessContext, hear: list[Connection], progress: Progress | None) -> None:
    """Listen until all have ended; where one ends too early the others are stopped."""
    over, failure = False, None
    while not over:
        wait([*group.sentinels, *hear])
        try:
            over = group.join(timeout=0)
        except (ProcessExitedException, ProcessRaisedException) as found:
            over, failure = True, found
        for said in _heard(hear):
            if isinstance(said, MMCLError):
                raise said
            if progress is not None:
                progress(*said)
    if failure is not None:
        _judge(group, failure)


def _heard(hear: list[Connection]) -> list[Any]:
    """What they have said by now."""
    said = []
    for end in hear:
        with suppress(EOFError, OSError):  # it has ended
            while end.poll():
                said.append(end.recv())
    return said


def _judge(group: ProcessContext, failure: ProcessExitedException | ProcessRaisedException) -> None:
    """Raise what ended the training: that a process was killed, or what the first one met.

    Those that were stopped for its sake have a signal, too: SIGTERM.
    """
    count, first = len(group.processes), failure.error_index
    for rank, process in enumerate(group.processes):
        code = process.exitcode
        if code < 0 and (rank == first or code != -signal.SIGTERM):
            raise TrainingError(
                f"process {rank + 1} of {count} was killed (signal {-code}) "
                "before the training ended, perhaps for want of memory; the others were "
                "stopped.\n  Go on where it was: the same command with --resume"
            )
    if isinstance(failure, ProcessExitedException):
        raise TrainingError(
            f"process {first + 1} of {count} could not start (exit code "
            f"{failure.exit_code}); what it said of it stands above.\n"
            '  A script that starts processes needs: if __name__ == "__main__":'
        )
    raise failure
