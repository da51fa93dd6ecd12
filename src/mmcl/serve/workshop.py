"""The workshop as the service sees it: a process that reads recordings, and who minds it.

A job that takes too long or too much memory, or that ends the process, is failed with a text that
says so, and another process is begun. To cancel a job that is running is to end the process.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.errors import MMCLError
from mmcl.serve.clean import clean_context
from mmcl.serve.jobs import STAGES, Job
from mmcl.serve.limits import Limits
from mmcl.serve.meters import Meters
from mmcl.serve.problems import Problem, ServiceError, problem_of
from mmcl.serve.store import Store
from mmcl.serve.work import (
    Order,
    Reader,
    killed,
    too_much_memory,
    too_slow,
    work,
)

__all__ = ["Workshop"]

_LOOK = 0.1  # seconds between two looks at the memory of a process at work
_REST = 30.0  # seconds of rest after the process could not be begun
_PATIENCE = 2.0  # seconds an idle process has to end by itself
_log = logging.getLogger("mmcl.serve")


class _Child(NamedTuple):
    process: Any
    connection: Connection


class _Task(NamedTuple):
    job: Job
    stage: str | None
    began: float  # of the stage


class Workshop:
    """Takes the jobs of a store, one at a time.

    Args:
        folders: Run folders by the names of the runs that take recordings.
        store: Where jobs are queued, and what becomes of them is written.
        limits: Those of a recording.
        meters: What is counted.
        changed: Called from another thread whenever a job has changed.
        make: Makes what reads recordings; another one in tests.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        store: Store,
        limits: Limits,
        meters: Meters,
        changed: Callable[[], None],
        *,
        make: Callable[[], Reader] = Reader,
    ) -> None:
        self._folders, self._store, self._limits = dict(folders), store, limits
        self._meters, self._changed, self._make = meters, changed, make
        self._heard, self._bell = Pipe(duplex=False)
        self._mutex = threading.Lock()
        self._unwanted: set[str] = set()
        self._stopping = False
        self._ready = threading.Event()
        self._child: _Child | None = None
        self._task: _Task | None = None
        self._thread = threading.Thread(target=self._mind, name="workshop", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether its models are loaded; a job may be at work."""
        return self._ready.is_set()

    @property
    def process_id(self) -> int | None:
        """Of the process, where there is one."""
        child = self._child
        return None if child is None else child.process.pid

    def start(self) -> None:
        """Begin the process and take jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Say that a job was queued."""
        with self._mutex, suppress(OSError):
            self._bell.send_bytes(b"!")

    def cancel(self, identifier: str) -> None:
        """End the work on a job that the store says is cancelled."""
        self._unwanted.add(identifier)
        self.wake()

    def stop(self) -> None:
        """End the process; a job it works on goes back to the queue."""
        self._stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=4 * _PATIENCE)
        self._heard.close()
        self._bell.close()

    # ------------------------------------------------------------ the thread

    def _mind(self) -> None:
        try:
            while not self._stopping:
                if self._child is None:
                    self._begin()
                elif self._task is None and not self._take():
                    self._unwanted.clear()
                    self._listen(timeout=None)
                elif self._task is not None:
                    self._listen(timeout=_LOOK)
                    self._check()
        except Exception:
            _log.exception("the workshop's thread ended")
        finally:
            self._ready.clear()
            if self._task is not None:
                self._store.put_back(self._task.job.id)
            self._end_child()

    def _begin(self) -> None:
        """Begin a process and wait until its models are loaded."""
        context = clean_context()
        ours, theirs = context.Pipe()
        arguments = (theirs, self._folders, self._limits, self._make)
        process = context.Process(target=work, args=arguments, name="workshop", daemon=True)
        process.start()
        theirs.close()
        self._child = _Child(process, ours)
        self._meters.workshop_starts.inc()
        deadline = time.monotonic() + self._limits.load_seconds
        while not self._stopping and time.monotonic() < deadline:
            ready = wait([ours, process.sentinel, self._heard], timeout=1.0)
            if self._heard in ready:
                self._heard.recv_bytes()
            if ours in ready and self._received(ours) is not None:
                self._look_at_memory()
                self._ready.set()
                return
            if not process.is_alive():
                break
        self._end_child()
        if not self._stopping:
            _log.error("the process for recordings could not be begun; trying again")
            self._fail_waiting()
            self._rest(_REST)

    def _take(self) -> bool:
        """Give the process the next job; whether there was one."""
        job = self._store.take()
        if job is None or self._child is None:
            return False
        order = Order(
            id=job.id,
            model=job.model,
            name=job.name,
            upload=self._store.uploads / job.id,
            result=self._store.results / job.id,
            language=job.language,
        )
        self._task = _Task(job, None, time.monotonic())
        with suppress(OSError):  # that it is dead is noticed at the next look
            self._child.connection.send(order)
        self._changed()
        return True

    def _listen(self, timeout: float | None) -> None:
        """Wait for word from the process, its end, or the bell."""
        child = self._child
        if child is None:
            return
        ready = wait([child.connection, child.process.sentinel, self._heard], timeout=timeout)
        if self._heard in ready:
            self._heard.recv_bytes()
        if child.connection in ready:
            message = self._received(child.connection)
            if message is None:
                self._bury(child)
            else:
                self._hear(*message)
        elif child.process.sentinel in ready:
            self._bury(child)

    def _received(self, connection: Connection) -> tuple[str, Any] | None:
        try:
            message: tuple[str, Any] = connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def _hear(self, kind: str, content: Any) -> None:
        task = self._task
        if task is None:
            return
        self._note_seconds(task)
        if kind == "stage":
            self._task = task._replace(stage=content, began=time.monotonic())
            self._store.note_stage(task.job.id, STAGES[content])
            self._changed()
        elif kind == "done":
            self._meters.clips.labels(task.job.model, "recording").inc(content)
            self._conclude(None)
        else:
            self._conclude(Problem.model_validate(content))

    def _check(self) -> None:
        """See that the work is wanted, and keeps to its limits."""
        task = self._task
        if task is None:
            return
        limits = self._limits
        if task.job.id in self._unwanted:
            self._end_child()
            self._conclude(None)
        elif time.monotonic() - task.began > limits.stage_seconds:
            self._give_up(too_slow(task.job.name, task.stage, limits.stage_seconds))
        elif self._look_at_memory() > limits.max_memory:
            self._give_up(too_much_memory(task.job.name, task.stage))

    def _give_up(self, fault: MMCLError) -> None:
        self._end_child()
        self._conclude(problem_of(fault))

    def _bury(self, child: _Child) -> None:
        """The process has died; so has the job it worked on."""
        child.process.join()
        how = _ending(child.process.exitcode)
        _log.warning("the process for recordings ended: %s", how)
        self._end_child()
        task = self._task
        if task is not None:
            self._conclude(problem_of(killed(task.job.name, task.stage, how)))

    def _conclude(self, problem: Problem | None) -> None:
        """The job is over; nothing is changed in one that was cancelled meanwhile."""
        task, self._task = self._task, None
        if task is None:
            return
        identifier = task.job.id
        self._unwanted.discard(identifier)
        with suppress(ServiceError):  # it was removed
            if problem is None:
                self._store.finish(identifier)
            else:
                self._store.fail(identifier, problem)
            status = self._store.get(identifier).status
            self._meters.jobs.labels(status).inc()
            if status == "cancelled":
                self._store.remove_result(identifier)
        self._changed()

    # ------------------------------------------------------------ the process

    def _end_child(self) -> None:
        self._ready.clear()
        child, self._child = self._child, None
        if child is None:
            return
        child.connection.close()  # an idle process ends by itself
        if self._task is None:
            child.process.join(_PATIENCE)
        child.process.kill()
        child.process.join()

    def _fail_waiting(self) -> None:
        """Nobody waits for what cannot be begun."""
        fault = ServiceError(
            "recordings cannot be read at the moment: the process for them does not start.\n"
            "  Its owner finds the reason in the service's log. Features are predicted all the "
            "same.",
            status=503,
            kind="no-workshop",
        )
        while (job := self._store.take()) is not None:
            self._store.fail(job.id, problem_of(fault))
            self._meters.jobs.labels("failed").inc()
        self._changed()

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            if wait([self._heard], timeout=left):
                self._heard.recv_bytes()

    def _look_at_memory(self) -> int:
        held = resident(self.process_id)
        self._meters.workshop_memory.set(held)
        return held

    def _note_seconds(self, task: _Task) -> None:
        if task.stage is not None:
            self._meters.stage_seconds.labels(task.stage).observe(time.monotonic() - task.began)


def resident(process_id: int | None) -> int:
    """Bytes a process holds in memory; 0 where that cannot be known (elsewhere than on Linux)."""
    try:
        pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
