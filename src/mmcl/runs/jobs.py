"""Trainings side by side, each in a fresh process.

A training is deterministic: its result does not depend on the process or the order. A call with
the same job continues a killed training from its checkpoint.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import Corpus, open_corpus, write_corpus
from mmcl.errors import ConfigError, DiskError, DivergedError, TrainingError
from mmcl.files import disk_errors, remove_unfinished, unfinished_name, write_json
from mmcl.learning.fitted import DONE
from mmcl.learning.history import read_history
from mmcl.learning.inference import score_split
from mmcl.learning.loop import fit
from mmcl.models.network import Network
from mmcl.pool import Died, Engine, run_tasks
from mmcl.pool_ray import await_shared, check_shared

__all__ = [
    "COST",
    "DIVERGED",
    "Job",
    "Status",
    "Tell",
    "corpus_file",
    "refuse_several_devices",
    "train_jobs",
    "with_threads",
]

# Files beside a seed's checkpoint.
COST = "cost.json"
"""File beside a checkpoint: time and memory of its process."""
DIVERGED = "diverged.json"
"""File beside a checkpoint: message of a loss that stopped being finite."""

_CONTINUE = (
    "  Continue with fewer at a time: the same command with --workers 1, "
    "mmcl train also with --resume"
)


class Job(NamedTuple):
    """A training of one seed."""

    corpus: Path
    config: Config
    seed: int
    folder: Path  # of the seed
    name: str = ""  # row of the live table that shows it

    @property
    def is_over(self) -> bool:
        """True once the training has finished or diverged."""
        return (self.folder / DONE).exists() or (self.folder / DIVERGED).exists()


class Status(NamedTuple):
    """Progress of the jobs with one name: a row of the live table."""

    name: str
    done: int  # trainings that have finished
    diverged: int  # trainings whose loss stopped being finite
    seeds: int  # all trainings of this name
    epoch: int | None  # latest epoch from 1 on, or None if none is in training
    valid_loss: float | None  # mean of the best validation losses so far


Tell = Callable[[list[Status]], None]
"""Called with the state of every job whenever one changes."""


def train_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    engine: Engine = "local",
    for_comparison: bool = True,
    tell: Tell | None = None,
) -> None:
    """Train all jobs that are not over, several at a time.

    Args:
        jobs: The trainings, in the order in which they start.
        workers: Processes at a time; they share the cores evenly.
        engine: Where the processes run: on this machine, or on Ray.
        for_comparison: Write :data:`COST` for every job. If a loss stops being finite, write
            :data:`DIVERGED` and train the others, instead of raising the error.
        tell: Called about once a second, and once at the end, with the state of all jobs.

    Raises:
        ConfigError: If a job asks for several processes (``runtime.devices``).
        TrainingError: If processes died. The other trainings are finished first.
        DiskError: If the disk takes no more. The other trainings are stopped, and go on from
            their latest epoch in the next call.
        MMCLError: If a training raised another one. The others are stopped.
    """
    pending = [job for job in jobs if not job.is_over]
    for job in pending:
        refuse_several_devices(job.config)
    on_ray = engine == "ray"
    # Other machines have other working folders.
    if on_ray:
        pending = [
            j._replace(corpus=j.corpus.absolute(), folder=j.folder.absolute()) for j in pending
        ]
    gpus = int(any(job.config.runtime.accelerator == "gpu" for job in pending))
    work = partial(_train_job, for_comparison, on_ray)

    def report() -> None:
        if tell is not None:
            tell(_statuses(jobs))

    died = []
    # Fresh processes: memory and random state of one training do not reach the next.
    results = run_tasks(
        work, pending, workers=workers, engine=engine, fresh=True, gpus=gpus, look=report
    )
    try:
        with closing(results):
            for job, result in results:
                if isinstance(result, Died):
                    died.append(f"  {job.folder}: {result.cause}")
                elif on_ray:  # on a network file system the files appear late
                    await_shared(job.folder / DONE, job.folder / DIVERGED)
    except DiskError as fault:
        # The others were stopped, perhaps while they wrote.
        for job in jobs:
            remove_unfinished(job.folder)
        over = sum(job.is_over for job in jobs)
        fault.kept += f"\n  Of {len(jobs)} trainings {over} had ended; all that is done is kept."
        raise
    report()
    # Raised at the end, so that a process that dies costs one training and not all.
    if died:
        first = (
            f"{len(died)} of {len(pending)} trainings died before they ended; the others are done."
        )
        raise TrainingError("\n".join([first, *died, _CONTINUE]))


def refuse_several_devices(config: Config) -> None:
    """Raise a ConfigError if one of many trainings asks for several processes."""
    devices = config.runtime.devices
    if devices > 1:
        raise ConfigError(
            f"runtime.devices is {devices}, but each of many trainings has one process\n"
            "  Use one: --set runtime.devices=1\n"
            "  Train one network by several processes: mmcl train"
        )


def _statuses(jobs: Sequence[Job]) -> list[Status]:
    """Return a status for every name, read from the folders of its jobs."""
    statuses = []
    for name in dict.fromkeys(job.name for job in jobs):
        folders = [job.folder for job in jobs if job.name == name]
        done = [folder for folder in folders if (folder / DONE).exists()]
        diverged = [folder for folder in folders if (folder / DIVERGED).exists()]
        histories = {folder: rows for folder in folders if (rows := read_history(folder))}
        # A training in progress counts with its best epoch so far.
        losses = [min(row.valid_loss for row in rows) for rows in histories.values()]
        epochs = [len(rows) for folder, rows in histories.items() if folder not in done]
        loss = sum(losses) / len(losses) if losses else None
        counts = (len(done), len(diverged), len(folders))
        statuses.append(Status(name, *counts, max(epochs, default=None), loss))
    return statuses


def _train_job(for_comparison: bool, on_ray: bool, job: Job, threads: int) -> None:
    """Train a job in this process, from its checkpoint if there is one."""
    if on_ray:
        check_shared(job.corpus, job.folder.parent)
    job = job._replace(config=with_threads(job.config, threads))
    development = open_corpus(job.corpus).development()  # without test clips
    if for_comparison:
        _train_and_measure(job, development)
    else:
        fit(development, job.config, seed=job.seed, folder=job.folder, resume=True)


def _train_and_measure(job: Job, development: Corpus) -> None:
    """Train, and write the costs; if the loss diverges, write its message too."""
    cost: dict[str, Any] = {"threads": job.config.runtime.threads}
    try:
        fitted = fit(development, job.config, seed=job.seed, folder=job.folder, resume=True)
        speed = _prediction_speed(fitted.model, development, job.config)
        cost["predict_clips_per_second"] = speed
    except DivergedError as fault:
        with disk_errors(job.folder):
            write_json(job.folder / DIVERGED, {"message": str(fault).splitlines()[0]})
    # The process has done nothing else, so its totals are those of the training.
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost["peak_memory_mib"] = used.ru_maxrss / 1024
    cost["cpu_seconds"] = used.ru_utime + used.ru_stime
    with disk_errors(job.folder):
        write_json(job.folder / COST, cost)


def with_threads(config: Config, threads: int) -> Config:
    """Return the settings with a number of threads, unless the user has set one."""
    if config.runtime.threads is not None:
        return config
    runtime = config.runtime.model_copy(update={"threads": threads})
    return config.model_copy(update={"runtime": runtime})


def _prediction_speed(model: Network, development: Corpus, config: Config) -> float:
    """Return how many validation clips are read and predicted per second."""
    corpus = development if model.words is None else model.words.corpus(development)
    split = corpus.split("valid")
    started = time.perf_counter()
    score_split(model, split, batch_size=config.evaluation.batch_size)
    return len(split) / (time.perf_counter() - started)


@contextmanager
def corpus_file(corpus: Corpus, folder: Path) -> Iterator[Path]:
    """Yield the path of a file from which other processes can map a corpus.

    A corpus that was read from another layout is written into the folder for the time being,
    without its test clips.
    """
    if corpus.mapped is not None:
        yield corpus.mapped.path.absolute()
        return
    development = corpus.development()
    splits = [development.split("train"), development.split("valid")]
    clips = (clip for split in splits for clip in split.clips())
    # The next call removes what a killed one leaves.
    path = unfinished_name(folder / "development.arrow")
    write_corpus(path, development.card, clips)
    try:
        yield path.absolute()
    finally:
        path.unlink(missing_ok=True)
