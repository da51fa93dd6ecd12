"""State behind the routes: the runs, the jobs, the workers, and who waits for what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from mmcl.errors import UsageError, did_you_mean
from mmcl.runs.run import Run
from mmcl.serve.batching import Batcher
from mmcl.serve.counters import Counters
from mmcl.serve.feature_worker import FeatureWorker
from mmcl.serve.features import Expected, Features
from mmcl.serve.job_runner import JobRunner, no_worker
from mmcl.serve.jobs import Job
from mmcl.serve.limits import MEDIA_TYPES, Limits
from mmcl.serve.openapi import ClipAnswer, ModelAnswer, Reception, TaskAnswer
from mmcl.serve.problems import ServiceError
from mmcl.serve.recording_worker import Reader
from mmcl.serve.results import task_of
from mmcl.serve.store import Store
from mmcl.serve.supervisor import Worker, WorkerError
from mmcl.types import VARIANTS

__all__ = ["Service", "loading", "why_no_media"]

_RETRY_SECONDS = 30.0  # of rest after the networks could not be loaded
_LONGEST_LOAD = 60.0  # seconds that a request waits for the networks
_EXPIRY_SECONDS = 600.0  # between two looks for results that are too old
_log = logging.getLogger("mmcl.serve")


class Service:
    """Everything behind the routes; :func:`mmcl.serve.app.create_app` has its arguments.

    Raises:
        UsageError: If two runs have the same name, or the folder cannot be used.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        limits: Limits,
        state: Path,
        *,
        make_reader: Callable[[], Reader] = Reader,
    ) -> None:
        self.runs, self.limits = _by_name(runs), limits
        self.counters = Counters()
        self.store = Store(state)
        self.loaded, self.closing = asyncio.Event(), asyncio.Event()
        self.receiving: Counter[str] = Counter()  # uploads under way, by the client's address
        self._job_change = asyncio.Event()
        self._expected: dict[str, Expected] = {}
        folders = {name: run.folder.resolve() for name, run in self.runs.items()}
        self.feature_worker = Worker(FeatureWorker, folders, limits)
        self.batcher = Batcher(self._predict, limits, self.counters)
        media = {name: folders[name] for name in folders if self.takes_media(name)}
        self.job_runner: JobRunner | None = None
        if media:
            self.job_runner = JobRunner(
                media,
                self.store,
                limits,
                self.counters,
                self._tell_job_change,
                make_reader=make_reader,
            )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Work from now to the end of the context."""
        self.store.recover(self.runs)
        work = [self._load(), self.batcher.run(), self._expire()]
        if self.job_runner is not None:
            work.append(self.job_runner.run())
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            yield
        finally:
            self.closing.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.feature_worker.stop()
            self.store.close()

    @property
    def is_ready(self) -> bool:
        """True once every model is loaded."""
        return self.loaded.is_set() and (self.job_runner is None or self.job_runner.worker.is_ready)

    def run_named(self, name: str | None) -> tuple[str, Run]:
        """Return a run by its name, or the first one.

        Raises:
            ServiceError: If there is no such run.
        """
        name = next(iter(self.runs)) if name is None else name
        if name not in self.runs:
            raise ServiceError(
                f'no model "{name[:64]}" is served{did_you_mean(name, self.runs)}\n'
                f"  Models: {', '.join(self.runs)}",
                status=404,
                kind="no-such-model",
            )
        return name, self.runs[name]

    def describe(self, name: str) -> ModelAnswer:
        """Return the description of a run for clients."""
        run, expected = self.runs[name], self._expected[name]
        return ModelAnswer(
            name=name,
            model=run.config.model.name,
            task=TaskAnswer.model_validate(task_of(run.card.task)),
            modalities=list(expected.used),
            dims=dict(expected.dims),
            takes_media=self.takes_media(name),
            seeds=list(run.seeds),
            validation_error=run.validation_error,
            limits=Reception(
                max_bytes=self.limits.max_bytes,
                max_seconds=self.limits.max_seconds,
                media_types=list(MEDIA_TYPES),
            ),
        )

    async def expected(self, name: str) -> Expected:
        """Return the features that a run takes, once it is loaded."""
        await self.wait_until_loaded()
        return self._expected[name]

    async def wait_until_loaded(self) -> None:
        """Wait until the networks are loaded.

        Raises:
            ServiceError: If that takes too long.
        """
        try:
            async with asyncio.timeout(_LONGEST_LOAD):
                await self.loaded.wait()
        except TimeoutError:
            raise loading() from None

    def takes_media(self, name: str) -> bool:
        """Return whether a run takes recordings."""
        return why_no_media(self.runs[name]) is None

    async def _load(self) -> None:
        while not self.loaded.is_set():
            try:
                await self.feature_worker.start()
                self._expected = await self.feature_worker.call("expected")
                self.loaded.set()
            except Exception:
                _log.exception(
                    "the networks cannot be loaded; trying again in %g s", _RETRY_SECONDS
                )
                await asyncio.sleep(_RETRY_SECONDS)

    async def _predict(self, model: str, clips: Sequence[Features]) -> list[ClipAnswer]:
        """Predict clips in the worker, which is started again if it has died."""
        try:
            if not self.feature_worker.is_ready:
                await self.feature_worker.start()
            predicted: list[ClipAnswer] = await self.feature_worker.call("predict", model, clips)
        except WorkerError as fault:
            _log.warning("the worker for features ended: %s", fault)
            raise ServiceError(
                "the process that predicts features ended, and is started again.\n"
                "  Try again in a moment, with fewer or shorter clips.",
                status=503,
                kind="no-predictor",
            ) from None
        return predicted

    def check_room(self, client: str) -> None:
        """Check that one more recording may come from a client.

        Raises:
            ServiceError: If too many wait already, the client sends too many at once, or no
                recording can be predicted at the moment.
        """
        try:
            self.store.restore()
        except UsageError as fault:
            _log.error("%s", fault)
            raise no_worker() from fault
        if self.job_runner is not None and self.job_runner.is_resting:
            raise no_worker()
        if self.receiving[client] >= max(1, self.limits.max_jobs * 3 // 4):
            raise ServiceError(
                f"{self.receiving[client]} recordings are being received from you already, which "
                "is the most that may.\n  Try again when one of them is complete.",
                status=429,
                kind="busy",
            )
        waiting = self.store.count("queued") + self.receiving.total()
        if waiting >= self.limits.max_jobs:
            raise ServiceError(
                f"{waiting} recordings wait already, which is the most that may.\n"
                "  Try again in a minute.",
                status=429,
                kind="busy",
            )

    def queue(self, job: Job) -> Job:
        """Queue a job whose upload is complete."""
        queued = self.store.add(job)
        if self.job_runner is not None:
            self.job_runner.wake()
        self._tell_job_change()
        return queued

    async def wait_for(self, identifier: str, seconds: float) -> Job:
        """Return a job when it has ended, or as it is after this many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            change = self.next_job_change()
            job = self.store.get(identifier)
            left = deadline - time.monotonic()
            if job.is_over or left <= 0:
                return job
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await change.wait()

    def cancel(self, identifier: str) -> Job:
        """Cancel a job, or remove one that has ended; return it as it then is."""
        job = self.store.get(identifier)
        if job.is_over:
            self.store.forget(identifier)
        else:
            self.store.cancel(identifier)
            if job.status == "queued":
                self.counters.jobs.labels("cancelled").inc()
            elif self.job_runner is not None:
                self.job_runner.cancel(identifier)
            job = self.store.get(identifier)
        self._tell_job_change()
        return job

    def next_job_change(self) -> asyncio.Event:
        """Return the event of the next change of any job.

        Ask for it before reading a job, so that no change is missed.
        """
        return self._job_change

    def _tell_job_change(self) -> None:
        before, self._job_change = self._job_change, asyncio.Event()
        before.set()

    async def _expire(self) -> None:
        """Remove jobs that are older than results are kept, now and then."""
        while True:
            try:
                self.store.expire(3600 * self.limits.result_hours)
            except Exception as fault:  # they are removed the next time
                _log.error("old results were not removed: %s", fault)
            await asyncio.sleep(_EXPIRY_SECONDS)


def loading() -> ServiceError:
    """Return what clients are told while the networks are being loaded."""
    return ServiceError(
        "the models are still loading.\n  Try again in a few seconds.",
        status=503,
        kind="loading",
    )


def why_no_media(run: Run) -> str | None:
    """Return why a run takes no recordings, None where it does."""
    if "extraction" not in run.card.recipe:
        return "it was trained on features that mmcl did not extract"
    if run.config.model.name not in VARIANTS:
        return f"{run.config.model.name} does not say from which moments it predicts"
    if find_spec("av") is None:
        return 'reading recordings needs: pip install "mmcl[media]"'
    return None


def _by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by the names of their folders, which must differ."""
    if not runs:
        raise UsageError("no run was given.\n  Serve one: mmcl serve RUN")
    named: dict[str, Run] = {}
    for run in runs:
        name = run.folder.resolve().name
        if name in named:
            raise UsageError(
                f'two runs are called "{name}": {named[name].folder} and {run.folder}.\n'
                "  Rename one of the folders: a model is called by its folder's name"
            )
        named[name] = run
    return named
