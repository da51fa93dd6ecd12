"""Trainings side by side, each in a process of its own: it starts clean and leaves no trace.

A training is deterministic, so nothing depends on which process took it or in which order; and
one that was killed is gone on with by the next pool that is given the same job, or by the next
process that Ray gives it to.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import Corpus, open_corpus
from mmcl.engines import TRIES, Died, Engine, await_shared, check_shared, over_ray
from mmcl.errors import MMCLError, TrainingError
from mmcl.files import write_json
from mmcl.learning.inference import score_split
from mmcl.learning.loop import DONE, Progress, fit
from mmcl.models.network import Network
from mmcl.runs.run import DIVERGED

__all__ = ["COST", "Job", "train_jobs"]

COST = "cost.json"
"""Beside a seed's checkpoint: what its process needed."""

_LOOK_AGAIN = 1.0  # seconds between two looks at how far the trainings are


class Job(NamedTuple):
    """One training: a corpus file, settings, a seed and the folder of the seed."""

    corpus: Path
    config: Config
    seed: int
    folder: Path

    @property
    def is_over(self) -> bool:
        """Whether it has finished, well or not."""
        return (self.folder / DONE).exists() or (self.folder / DIVERGED).exists()


def train_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    engine: Engine = "local",
    look: Callable[[], None] | None = None,
) -> None:
    """Train every job that is not over, several at a time.

    A training whose loss stops being finite leaves :data:`~mmcl.runs.run.DIVERGED` in
    its folder and stops no other.

    Args:
        jobs: In the order they are begun.
        workers: Processes at a time; they share the cores evenly.
        engine: Whose processes: our own, or those of Ray, on one machine or many.
        look: Called about once a second, and once at the end.

    Raises:
        TrainingError: If a process was killed; Ray goes on with the training in another, a
            few times.
        MMCLError: Whatever else a training raised; the others are stopped.
    """
    left = [job for job in jobs if not job.is_over]
    train = _train_over_ray if engine == "ray" else _train_here
    train(left, workers, look or _no_look)


def _no_look() -> None:
    pass


# ---------------------------------------------------------------- processes of our own


def _train_here(jobs: Sequence[Job], workers: int, look: Callable[[], None]) -> None:
    left = list(jobs)
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = _context()
    busy: list[_Training] = []
    try:
        while left or busy:
            while left and len(busy) < workers:
                busy.append(_begin(context, left.pop(0), threads))
            wait([each.process.sentinel for each in busy], timeout=_LOOK_AGAIN)
            for each in [each for each in busy if not each.process.is_alive()]:
                busy.remove(each)
                _check(each)
            look()
    finally:
        for each in busy:
            each.process.terminate()
            each.process.join()


class _Training(NamedTuple):
    """A process that trains, and where it says what went wrong."""

    process: Any
    said: Connection


def _context() -> Any:
    """Processes are forked from a clean one that has loaded torch, where that can be had."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _begin(context: Any, job: Job, threads: int) -> _Training:
    hear, say = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(job, threads, say), daemon=True)
    process.start()
    say.close()  # the child holds the only other end, so that its death is heard
    return _Training(process, hear)


def _train(job: Job, threads: int, say: Connection) -> None:
    """Train one job in this process; say what was raised."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    try:
        _fit(job, threads, progress=_stop_when_alone)
    except MMCLError as fault:
        say.send(fault)


def _stop_when_alone(*_: object) -> None:
    """Whoever asked for the training may have been killed: nobody else would end it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.exit(1)


def _check(training: _Training) -> None:
    if training.said.poll():
        with suppress(EOFError):  # it has ended and said nothing
            raise training.said.recv()
    if training.process.exitcode:
        raise TrainingError(
            "a training was killed before it ended, perhaps for want of memory.\n"
            "  Go on with fewer at a time: the same command with --workers 1"
        )


# ---------------------------------------------------------------- processes of Ray


def _train_over_ray(jobs: Sequence[Job], workers: int, look: Callable[[], None]) -> None:
    left = [
        job._replace(corpus=job.corpus.absolute(), folder=job.folder.absolute()) for job in jobs
    ]
    gpus = int(any(job.config.runtime.accelerator == "gpu" for job in left))
    trained = over_ray(_train_there, left, workers=workers, gpus=gpus, fresh=True, look=look)
    with closing(trained):
        for job, answer in trained:
            if isinstance(answer, Died):
                raise TrainingError(
                    f"a training was killed {TRIES} times before it ended, perhaps for want of "
                    "memory.\n  Go on with fewer at a time: the same command with --workers 1"
                )
            await_shared(job.folder / DONE, job.folder / DIVERGED)


def _train_there(job: Job, threads: int) -> None:
    """Train one job, or go on with it where a process has died with it."""
    check_shared(job.corpus)
    check_shared(job.folder.parent)
    _fit(job, threads)


# ---------------------------------------------------------------- one training


def _fit(job: Job, threads: int, *, progress: Progress | None = None) -> None:
    """Train one job in this process, and write down what the process needed."""
    runtime = job.config.runtime.model_copy(update={"threads": threads})
    config = job.config.model_copy(update={"runtime": runtime})
    development = open_corpus(job.corpus).development()
    cost: dict[str, float] = {"threads": threads}
    try:
        fitted = fit(
            development,
            config,
            seed=job.seed,
            folder=job.folder,
            resume=True,
            progress=progress,
        )
        cost["predict_clips_per_second"] = _prediction_speed(fitted.model, development, config)
    except TrainingError as fault:
        write_json(job.folder / DIVERGED, {"message": str(fault).splitlines()[0]})
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost["peak_memory_mib"] = used.ru_maxrss / 1024
    cost["cpu_seconds"] = used.ru_utime + used.ru_stime
    write_json(job.folder / COST, cost)


def _prediction_speed(model: Network, development: Corpus, config: Config) -> float:
    """Clips of the validation split predicted per second, reading and padding included."""
    split = development.split("valid")
    started = time.perf_counter()
    score_split(model, split, batch_size=config.evaluation.batch_size)
    return len(split) / (time.perf_counter() - started)
