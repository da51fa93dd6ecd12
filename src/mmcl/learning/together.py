"""Processes that train one network together, on this machine, and what becomes of them.

The process that asks for a training starts the others, relays what they say, and outlives
them: where one of them ends too early it stops the rest and says why. Each of them sees the
environment that ``torchrun`` would give it, so that both ways of starting are the same to it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from mmcl.config import Config
from mmcl.errors import ConfigError, MMCLError, TrainingError
from mmcl.runtime import check_processes

__all__ = ["Progress", "run_together"]

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called as ``progress(stage, done, total, numbers)`` after steps and epochs."""

_LOOK_AGAIN = 1.0  # seconds between two looks at whether all are alive
_GRACE = 3.0  # seconds in which the others may say themselves why they end
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
    context = _context(work.__module__)
    port = _free_port()
    members: list[_Member] = []
    try:
        for rank in range(count):
            members.append(_begin(context, work, given, rank, count, port))
        _attend(members, progress)
        _judge(members)
    finally:
        for member in members:
            member.process.terminate()
        for member in members:
            member.process.join()


class _Member:
    """A process of the group, what it said, and how it ended."""

    def __init__(self, process: Any, hear: Connection) -> None:
        self.process, self.hear = process, hear
        self.fault: MMCLError | str | None = None
        self.exit_code: int | None = None

    def listen(self, progress: Progress | None) -> None:
        """Relay what it has said by now."""
        with suppress(EOFError, OSError):  # it has ended
            while self.hear.poll():
                said = self.hear.recv()
                if not isinstance(said, _Told):
                    self.fault = said
                elif progress is not None:
                    progress(*said)


class _Told(NamedTuple):
    stage: str
    done: int
    total: int
    numbers: dict[str, float]


def _with_threads(config: Config) -> Config:
    settings = config.runtime
    share = max(1, (os.cpu_count() or 1) // settings.processes)
    runtime = settings.model_copy(update={"threads": settings.threads or share})
    return config.model_copy(update={"runtime": runtime})


def _context(preloaded: str) -> Any:
    """Processes are forked from a clean one that has loaded torch, where that can be had."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preloaded])
    return context


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOCAL, 0))
        port: int = listener.getsockname()[1]
        return port


def _begin(
    context: Any, work: Any, given: Mapping[str, Any], rank: int, count: int, port: int
) -> _Member:
    hear, say = context.Pipe(duplex=False)
    arguments = (work, dict(given), _environment(rank, count, port), say)
    process = context.Process(target=_take_part, args=arguments, daemon=True)
    process.start()
    say.close()  # the process holds the only other end, so that its death is heard
    return _Member(process, hear)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "mmcl",
        "MASTER_ADDR": _LOCAL,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }


def _take_part(
    work: Callable[..., Any], given: dict[str, Any], environment: dict[str, str], say: Connection
) -> None:
    """Work in this process; say how far it is, and what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    os.environ.update(environment)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    first = environment["RANK"] == "0"

    def tell(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        _stop_when_alone()
        if first:
            say.send(_Told(stage, done, total, numbers))

    try:
        work(**given, progress=tell)
    except MMCLError as fault:
        say.send(fault)
        sys.exit(1)
    except Exception:  # the others' broken connections, too: whoever listens judges
        say.send(traceback.format_exc())
        sys.exit(1)


def _stop_when_alone() -> None:
    """Whoever asked for the training may have been killed: nobody else would end it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _attend(members: list[_Member], progress: Progress | None) -> None:
    """Listen until all have ended, or one too early and the others not long after."""
    deadline = None
    while any(member.exit_code is None for member in members):
        busy = [member for member in members if member.exit_code is None]
        signs = [each.process.sentinel for each in busy]
        signs += [each.hear for each in busy if each is members[0]]
        wait(signs, timeout=_LOOK_AGAIN)
        for member in busy:
            code = member.process.exitcode
            member.listen(progress)
            member.exit_code = code
        now = time.monotonic()
        if deadline is None and any(member.exit_code for member in members):
            deadline = now + _GRACE
        if deadline is not None and now > deadline:
            return


def _judge(members: list[_Member]) -> None:
    """Raise what ended the training: what was said of it, or that a process was killed."""
    for member in members:
        if isinstance(member.fault, MMCLError):
            raise member.fault
    for number, member in enumerate(members, start=1):
        if member.exit_code is not None and member.exit_code < 0:
            raise TrainingError(
                f"process {number} of {len(members)} was killed (signal {-member.exit_code}) "
                "before the training ended, perhaps for want of memory; the others were "
                "stopped.\n  Go on where it was: the same command with --resume"
            )
    for number, member in enumerate(members, start=1):
        if member.exit_code and member.fault is None:
            raise TrainingError(
                f"process {number} of {len(members)} could not start (exit code "
                f"{member.exit_code}); what it said of it stands above.\n"
                '  A script that starts processes needs: if __name__ == "__main__":'
            )
    for member in members:
        if member.fault is not None:
            raise RuntimeError(f"a process that trained with others failed:\n{member.fault}")
