"""Trainings side by side, each in a process of its own: it starts clean and leaves no trace.

A training is deterministic, so nothing depends on which process took it or in which order; and
one that was killed is gone on with by the next pool that is given the same job.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import open_corpus
from mmcl.errors import TrainingError
from mmcl.evaluation.run import DIVERGED
from mmcl.learning.checkpoints import write_json
from mmcl.learning.loop import DONE, fit

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
    jobs: Sequence[Job], *, workers: int, look: Callable[[], None] | None = None
) -> None:
    """Train every job that is not over, several at a time.

    A training whose loss stops being finite leaves :data:`DIVERGED` in its folder and stops
    no other.

    Args:
        jobs: In the order they are begun.
        workers: Processes at a time; they share the cores evenly.
        look: Called about once a second, and once at the end.
    """
    left = [job for job in jobs if not job.is_over]
    threads = max(1, (os.cpu_count() or 1) // workers)
    with _pool(min(workers, max(len(left), 1))) as pool:
        waiting = {pool.submit(_train, job, threads) for job in left}
        while waiting:
            done, waiting = wait(waiting, timeout=_LOOK_AGAIN, return_when=FIRST_COMPLETED)
            for future in done:
                _check(future)
            if look is not None:
                look()
    if look is not None:
        look()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are forked from a clean one that has loaded torch, where that exists."""
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, max_tasks_per_child=1
    )
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a training without a traceback


def _train(job: Job, threads: int) -> None:
    """Train one job in this process and say what the process needed."""
    runtime = job.config.runtime.model_copy(update={"threads": threads})
    config = job.config.model_copy(update={"runtime": runtime})

    def stop_when_alone(*_: object) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            sys.exit(1)

    try:
        fit(
            open_corpus(job.corpus).development(),
            config,
            seed=job.seed,
            folder=job.folder,
            resume=True,
            progress=stop_when_alone,
        )
    except TrainingError as fault:
        write_json(job.folder / DIVERGED, {"message": str(fault).splitlines()[0]})
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "peak_memory_mib": used.ru_maxrss / 1024,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "threads": threads,
    }
    write_json(job.folder / COST, cost)


def _check(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise TrainingError(
            "a training was killed before it ended, perhaps for want of memory.\n"
            "  Go on with fewer at a time: the same command with --workers 1"
        ) from None
