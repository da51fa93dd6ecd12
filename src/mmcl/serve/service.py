"""What the routes work with: the runs, the jobs, the workshop, and who waits for what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from mmcl.errors import UsageError, did_you_mean
from mmcl.runs.run import Run
from mmcl.serve.answers import ModelAnswer, Reception, TaskAnswer
from mmcl.serve.apart import Predictor
from mmcl.serve.batching import Batcher
from mmcl.serve.features import Expected
from mmcl.serve.jobs import Job
from mmcl.serve.limits import MEDIA_TYPES, Limits
from mmcl.serve.meters import Meters
from mmcl.serve.problems import ServiceError
from mmcl.serve.results import task_of
from mmcl.serve.store import Store
from mmcl.serve.work import Reader
from mmcl.serve.workshop import Workshop
from mmcl.types import VARIANTS

__all__ = ["Changes", "Service", "names_of", "why_no_media"]

_CLEAN_SECONDS = 600.0  # between two looks for results that are too old
_log = logging.getLogger("mmcl.serve")


class Changes:
    """Tells everyone who waits that some job has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Belong to the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def tell(self) -> None:
        """Say so, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._tell)

    def next(self) -> asyncio.Event:
        """Set at the next change; ask for it before looking at a job, and miss none."""
        return self._event

    def _tell(self) -> None:
        before, self._event = self._event, asyncio.Event()
        before.set()


class Service:
    """Everything behind the routes.

    Args:
        runs: To serve; the first is asked where none is named.
        limits: Of everything.
        state: Folder of jobs and results.
        make: Makes what reads recordings; another one in tests.

    Raises:
        UsageError: If two runs have one name, or the folder cannot be used.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        limits: Limits,
        state: Path,
        *,
        make: Callable[[], Reader] = Reader,
    ) -> None:
        self.runs, self.limits = names_of(runs), limits
        self.meters, self.changes = Meters(), Changes()
        self.store = Store(state)
        self.loaded, self.closing = asyncio.Event(), asyncio.Event()
        folders = {name: run.folder.resolve() for name, run in self.runs.items()}
        self.predictor = Predictor(folders, limits)
        self.batcher = Batcher(self.predictor.predict, limits, self.meters)
        self.receiving = 0
        self._expected: dict[str, Expected] = {}
        media = {name: folders[name] for name in folders if self.takes_media(name)}
        self.workshop = (
            Workshop(media, self.store, limits, self.meters, self.changes.tell, make=make)
            if media
            else None
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Work, from now to the end of the context."""
        self.changes.open()
        self.store.recover(self.runs)
        if self.workshop is not None:
            self.workshop.start()
        tasks = [
            asyncio.create_task(each)
            for each in (self._load(), self.batcher.run(), self._throw_away())
        ]
        try:
            yield
        finally:
            self.closing.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self.predictor.stop)
            if self.workshop is not None:
                await asyncio.to_thread(self.workshop.stop)
            self.store.close()

    @property
    def is_ready(self) -> bool:
        """Whether everything is loaded."""
        return self.loaded.is_set() and (self.workshop is None or self.workshop.is_ready)

    # ------------------------------------------------------------ models

    def run_named(self, name: str | None) -> tuple[str, Run]:
        """A run by its name; the first one where none is given.

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
        """What a client must know of a run."""
        run = self.runs[name]
        expected = self._expected[name]
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
        """What features a run takes; waits until it is loaded."""
        await self.loaded.wait()
        return self._expected[name]

    def takes_media(self, name: str) -> bool:
        """Whether a run can be sent recordings."""
        return why_no_media(self.runs[name]) is None

    async def _load(self) -> None:
        try:
            self._expected = await self.predictor.expected()
        except Exception:
            _log.exception("the networks cannot be loaded")
            raise
        self.loaded.set()

    # ------------------------------------------------------------ jobs

    def check_room(self) -> None:
        """See that one more recording may come.

        Raises:
            ServiceError: If too many wait already.
        """
        waiting = self.store.count("queued") + self.receiving
        if waiting >= self.limits.max_jobs:
            raise ServiceError(
                f"{waiting} recordings wait already, as many as may.\n  Try again in a minute.",
                status=429,
                kind="busy",
            )

    def queue(self, job: Job) -> Job:
        """Queue a job whose upload is complete."""
        queued = self.store.add(job)
        if self.workshop is not None:
            self.workshop.wake()
        self.changes.tell()
        return queued

    async def wait_for(self, identifier: str, seconds: float) -> Job:
        """A job when it is over, or as it is after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            change = self.changes.next()
            job = self.store.get(identifier)
            left = deadline - time.monotonic()
            if job.is_over or left <= 0:
                return job
            with suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), left)

    def cancel(self, identifier: str) -> Job:
        """Cancel a job, or forget one that is over; what it is then."""
        job = self.store.get(identifier)
        if job.is_over:
            self.store.forget(identifier)
        else:
            self.store.cancel(identifier)
            if job.status == "queued":
                self.meters.jobs.labels("cancelled").inc()
            elif self.workshop is not None:
                self.workshop.cancel(identifier)
            job = self.store.get(identifier)
        self.changes.tell()
        return job

    async def _throw_away(self) -> None:
        """Forget, now and then, what is older than it may be."""
        while True:
            before = time.time() - 3600 * self.limits.result_hours
            self.store.expire(before)
            await asyncio.sleep(_CLEAN_SECONDS)


def names_of(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their names, which are those of their folders.

    Raises:
        UsageError: If there is none, or two have the same.
    """
    if not runs:
        raise UsageError("no run was given.\n  Serve one: mmcl serve RUN")
    named: dict[str, Run] = {}
    for run in runs:
        name = run.folder.resolve().name
        if name in named:
            raise UsageError(
                f'two runs are called "{name}": {named[name].folder} and {run.folder}.\n'
                "  Rename one of the folders: a model is asked for by its folder's name"
            )
        named[name] = run
    return named


def why_no_media(run: Run) -> str | None:
    """Why a run can be sent no recordings; None where it can."""
    if "extraction" not in run.card.recipe:
        return "it was trained on features that mmcl did not extract"
    if run.config.model.name not in VARIANTS:
        return f"{run.config.model.name} does not say from which moments it predicts"
    if find_spec("av") is None:
        return 'reading recordings needs: pip install "mmcl[media]"'
    return None
