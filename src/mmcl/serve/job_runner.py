"""Jobs given to the worker that reads recordings, one at a time.

A job that takes too long or too much memory, or that kills the worker, fails with a text that
says so, and the worker is started again. Cancelling a running job ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mmcl.errors import DiskError, MediaError
from mmcl.serve.counters import Counters
from mmcl.serve.jobs import STAGES, Job
from mmcl.serve.limits import Limits
from mmcl.serve.problems import Problem, ServiceError, problem_of
from mmcl.serve.recording_worker import Reader, RecordingWorker, during, out_of_memory
from mmcl.serve.store import Store
from mmcl.serve.supervisor import StageTimeoutError, Worker, WorkerError, WorkerMemoryError

__all__ = ["JobRunner", "no_worker"]

_IDLE_SECONDS = 1.0  # between two looks whether an idle worker is alive
_RETRY_SECONDS = 30.0  # of rest after a fault that is not of a recording
_MOST_STARTS = 2  # that fail in a row, before the jobs that wait are failed, too
_log = logging.getLogger("mmcl.serve")


def no_worker() -> ServiceError:
    """Return what clients are told while no recording can be predicted."""
    return ServiceError(
        "recordings cannot be read at the moment: the process for them does not start.\n"
        "  The reason is in the service's log. Features are predicted all the same.",
        status=503,
        kind="no-workshop",
    )


class JobRunner:
    """Runs the jobs of a store; calls ``on_change`` whenever one of them has changed."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        store: Store,
        limits: Limits,
        counters: Counters,
        on_change: Callable[[], None],
        *,
        make_reader: Callable[[], Reader] = Reader,
    ) -> None:
        self._store, self._limits, self._counters = store, limits, counters
        self._on_change = on_change
        self.worker = Worker(
            RecordingWorker, dict(folders), limits, make_reader, load_seconds=limits.load_seconds
        )
        self._queued = asyncio.Event()
        self._faults = 0  # in a row
        self._running: Job | None = None
        counters.worker_memory.set_function(lambda: self.worker.memory)

    @property
    def is_resting(self) -> bool:
        """True while no recording can be predicted, because of a fault in the service."""
        return self._faults > 0

    def wake(self) -> None:
        """Tell the runner that a job was queued."""
        self._queued.set()

    def cancel(self, identifier: str) -> None:
        """End the work on a job that the store has cancelled."""
        if self._running is not None and self._running.id == identifier:
            self._running = None
            self.worker.kill()

    async def run(self) -> None:
        """Run jobs until this task is cancelled; a running job then goes back to the queue."""
        try:
            while True:
                await self._step()
        finally:
            if self._running is not None:
                with suppress(DiskError):  # the next start finds it running, and queues it again
                    self._store.put_back(self._running.id)
            await self.worker.stop()

    async def _step(self) -> None:
        """Start the worker, run a job or wait for one; rest after a fault."""
        try:
            self._store.restore()
            if self.worker.is_ready or await self._start():
                self._faults = 0
                if not await self._run_next_job():
                    with suppress(TimeoutError):
                        # Not wait_for: in Python 3.11 it may swallow the end of the service.
                        async with asyncio.timeout(_IDLE_SECONDS):
                            await self._queued.wait()
                    self._queued.clear()
                return
        except Exception:  # whatever it was, the service must not stop for good
            _log.exception("recordings cannot be predicted; trying again in %g s", _RETRY_SECONDS)
        self._faults += 1
        await asyncio.sleep(_RETRY_SECONDS)

    async def _run_next_job(self) -> bool:
        """Run the job that has waited longest; return False where none waits.

        While the disk has no room for the list of jobs, the job is tried again.
        """
        try:
            if self._running is not None:  # the disk was full when the job should have ended
                self._store.put_back(self._running.id)
                self._running = None
            if (job := self._store.take()) is None:
                return False
            await self._run_job(job)
        except DiskError as fault:
            _log.error("%s\n  The service tries again in %g s.", fault, _RETRY_SECONDS)
            await asyncio.sleep(_RETRY_SECONDS)
        return True

    async def _start(self) -> bool:
        """Start the worker; where it fails again and again, nobody shall wait for it."""
        self._counters.worker_starts.inc()
        try:
            await self.worker.start()
        except WorkerError as fault:
            _log.error("the worker for recordings did not start (%s); trying again", fault)
            if self._faults + 1 >= _MOST_STARTS:
                while (job := self._store.take()) is not None:
                    self._end(job, problem_of(no_worker()))
        return self.worker.is_ready

    async def _run_job(self, job: Job) -> None:
        """Have the worker predict a job, and note how it ends."""
        self._running = job
        self._on_change()
        stage: str | None = None
        began = time.monotonic()

        def end_stage() -> None:
            if stage is not None:
                self._counters.stage_seconds.labels(stage).observe(time.monotonic() - began)

        def begin_stage(key: str) -> None:
            nonlocal stage, began
            end_stage()
            stage, began = key, time.monotonic()
            # The job was removed; or the disk is full, and the stage is not shown.
            with suppress(ServiceError, DiskError):
                self._store.note_stage(job.id, STAGES[key])
            self._on_change()

        problem: Problem | None = None
        try:
            answer = await self.worker.call(
                "predict",
                job,
                self._store.uploads / job.id,
                self._store.results / job.id,
                on_stage=begin_stage,
                stage_seconds=self._limits.stage_seconds,
                max_memory=self._limits.max_memory,
            )
            end_stage()
            if isinstance(answer, Problem):
                problem = answer
            else:
                self._counters.clips.labels(job.model, "recording").inc(answer)
        except WorkerError as fault:
            problem = problem_of(self._explain(fault, job.name, stage))
        self._end(job, problem)
        self._running = None

    def _explain(self, fault: WorkerError, name: str, stage: str | None) -> MediaError:
        """Return what the owner of a recording is told when the worker ended."""
        if isinstance(fault, StageTimeoutError):
            return MediaError(
                f'"{name}" took more than {self._limits.stage_seconds:g} s in one stage '
                f"({during(stage)}).\n  Send a shorter one."
            )
        if isinstance(fault, WorkerMemoryError):
            return out_of_memory(name, stage)
        if self._running is not None:  # otherwise the job was cancelled
            _log.warning("the worker for recordings ended: %s", fault)
        return MediaError(
            f'"{name}" ended the process that read it ({during(stage)}; {fault}).\n'
            "  The file may be damaged. Copy, download or record it again."
        )

    def _end(self, job: Job, problem: Problem | None) -> None:
        """Give a job its last status; one that was cancelled meanwhile stays cancelled."""
        with suppress(ServiceError):  # the job was removed
            if problem is None:
                self._store.finish(job.id)
            else:
                self._store.fail(job.id, problem)
            status = self._store.get(job.id).status
            self._counters.jobs.labels(status).inc()
            if status == "cancelled":
                self._store.remove_result(job.id)
        self._on_change()
