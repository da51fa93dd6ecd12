"""Processes that work for the service: their start, readiness, limits, death and end.

This is the only module of the room that deals with processes. It imports little, so that
``mmcl serve`` can start the imports of its workers before its own.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mmcl.pool import clean_context, end_with_parent

__all__ = ["StageTimeoutError", "Worker", "WorkerError", "WorkerMemoryError", "begin_imports"]

_PRELOADED = ("mmcl.serve.feature_worker", "mmcl.serve.recording_worker")
_POLL_SECONDS = 0.1  # between two looks at the time and the memory of a worker
_EXIT_SECONDS = 2.0  # time to exit for a process that has closed its connection


class WorkerError(Exception):
    """The worker's process ended before it answered."""


class StageTimeoutError(WorkerError):
    """A stage of a call took too long, so the process was ended."""


class WorkerMemoryError(WorkerError):
    """A call needed too much memory, so the process was ended."""


class Worker:
    """An object in a process of its own, called by one task at a time.

    Args:
        make: Makes the object in its process, from a function that reports a new stage of the
            current call, and ``arguments``.
        arguments: Passed on to ``make``.
        load_seconds: Time that making it may take.
    """

    def __init__(
        self, make: Callable[..., Any], *arguments: Any, load_seconds: float = math.inf
    ) -> None:
        self._make, self._arguments, self._load_seconds = make, arguments, load_seconds
        self._process: Any = None
        self._connection: Any = None
        self._is_loaded = False

    @property
    def is_ready(self) -> bool:
        """True while the object exists and its process lives; a call may be running."""
        return self._is_loaded and not wait([self._process.sentinel], timeout=0)

    @property
    def process_id(self) -> int | None:
        """Number of the process, where there is one."""
        return None if self._process is None else self._process.pid

    @property
    def memory(self) -> int:
        """Bytes that the process holds; 0 where the system does not tell (elsewhere than Linux)."""
        try:
            pages = Path(f"/proc/{self.process_id}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def start(self) -> None:
        """Start a process, and wait until its object is made.

        Raises:
            WorkerError: If it cannot be started, ends meanwhile, or takes too long.
        """
        self._is_loaded = False
        _leave_removed_folder()
        context = clean_context(_PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_answer_calls, args=(theirs, self._make, self._arguments), daemon=True
        )
        try:
            # Not in the event loop: the server that forks the process may still be importing.
            await asyncio.to_thread(self._process.start)
        except (OSError, EOFError) as fault:  # that server has just ended, for example
            raise WorkerError(f"{type(fault).__name__}: {fault}") from fault
        finally:
            theirs.close()
        await self._result(self._load_seconds)
        self._is_loaded = True

    async def call(
        self,
        method: str,
        *arguments: Any,
        on_stage: Callable[[str], None] | None = None,
        stage_seconds: float = math.inf,
        max_memory: float = math.inf,
    ) -> Any:
        """Call a method of the object; cancelling the call ends the process.

        Args:
            method: Name of the method.
            arguments: Its arguments.
            on_stage: Called with the name of each stage as it begins.
            stage_seconds: Time that one stage may take.
            max_memory: Bytes that the process may hold.

        Raises:
            WorkerError: If the process ended, for whatever reason.
            Exception: Whatever the method raised.
        """
        with suppress(OSError):  # a dead process is noticed below
            await asyncio.to_thread(self._connection.send, (method, arguments))
        return await self._result(stage_seconds, max_memory, on_stage)

    def kill(self) -> None:
        """End the process at once; a call that is running raises :class:`WorkerError`."""
        self._is_loaded = False
        if self.process_id is not None:
            self._process.kill()

    async def stop(self) -> None:
        """End the process, and wait until it is gone."""
        self.kill()
        if self.process_id is not None:
            await asyncio.to_thread(self._process.join)

    async def _result(
        self,
        stage_seconds: float,
        max_memory: float = math.inf,
        on_stage: Callable[[str], None] | None = None,
    ) -> Any:
        """Wait for the answer to a call, and keep the process to its limits."""
        began = time.monotonic()
        try:
            while True:
                kind, content = await asyncio.to_thread(_receive, self._connection, self._process)
                if kind == "done":
                    return content
                if kind == "failed":
                    raise content
                if kind == "stage":
                    began = time.monotonic()
                    if on_stage is not None:
                        on_stage(content)
                elif time.monotonic() - began > stage_seconds:
                    await self.stop()
                    raise StageTimeoutError(f"no answer within {stage_seconds:g} s")
                elif self.memory > max_memory:
                    await self.stop()
                    raise WorkerMemoryError("too much memory")
        except (WorkerError, asyncio.CancelledError):
            # After a cancelled call, a late answer would be taken for that of the next call.
            self.kill()
            raise


def begin_imports() -> None:
    """Start the server that workers are forked from, which imports what they need.

    Does nothing where processes are spawned.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if clean_context(_PRELOADED).get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


def _leave_removed_folder() -> None:
    """Leave the working folder if it was removed: no process can be started from there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(Path(__file__).anchor)


def _receive(connection: Connection, process: Any) -> Any:
    """Return the next message of a process, or one of kind None where none comes soon."""
    try:
        return connection.recv() if connection.poll(_POLL_SECONDS) else (None, None)
    except (EOFError, OSError):
        process.join(_EXIT_SECONDS)
        process.kill()  # of no effect on one that has ended
        process.join()
        code = process.exitcode
        is_signal = code is not None and code < 0
        ending = f"signal {signal.Signals(-code).name}" if is_signal else f"exit code {code}"
        raise WorkerError(ending) from None


# ---------------------------------------------------------------- in the worker's process


def _answer_calls(
    connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Make the object, and answer calls until the service is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us
    end_with_parent()
    worker = make(lambda stage: connection.send(("stage", stage)), *arguments)
    connection.send(("done", None))
    with suppress(EOFError, OSError):
        while True:
            method, given = connection.recv()
            try:
                message = ("done", getattr(worker, method)(*given))
            except Exception as fault:
                message = ("failed", fault)
            connection.send(message)
