"""Trainings side by side, each in a process of its own that has done nothing before.

A training is deterministic, so nothing depends on which process took it or in which order. One
that was killed is gone on with from its checkpoint, by the next call that is given the same job.
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
from mmcl.errors import ConfigError, TrainingError
from mmcl.files import write_json
from mmcl.learning.history import read_history
from mmcl.learning.inference import score_split
from mmcl.learning.loop import DONE, fit
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

COST = "cost.json"
"""Beside a seed's checkpoint: the time and memory that its process needed."""

DIVERGED = "diverged.json"
"""Beside a seed's checkpoint: the message of a loss that stopped being finite."""


_GO_ON = (
    "  Go on with fewer at a time: the same command with --workers 1, mmcl train also with --resume"
)


class Job(NamedTuple):
    """One training: a corpus file, settings, a seed, the folder of the seed, and a name to show."""

    corpus: Path
    config: Config
    seed: int
    folder: Path
    name: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has finished, well or not."""
        return (self.folder / DONE).exists() or (self.folder / DIVERGED).exists()


class Status(NamedTuple):
    """Progress of the trainings that share a name, for a live table.

    Attributes:
        name: The name.
        done: Trainings that have finished.
        diverged: Trainings whose loss stopped being finite.
        seeds: All trainings of this name.
        epoch: Latest epoch, counted from 1; None where none is in training.
        valid_loss: Mean of their best validation losses so far.
    """

    name: str
    done: int
    diverged: int
    seeds: int
    epoch: int | None
    valid_loss: float | None


Tell = Callable[[list[Status]], None]


def train_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    engine: Engine = "local",
    for_comparison: bool = True,
    tell: Tell | None = None,
) -> None:
    """Train every job that is not over, several at a time.

    Args:
        jobs: In the order they are begun.
        workers: Processes at a time; they share the cores evenly.
        engine: Whose processes: our own, or those of Ray, on one machine or many.
        for_comparison: Write :data:`COST` for each. Where a loss stops being finite write
            :data:`DIVERGED` and train the others; without this the error is raised.
        tell: Called about once a second, and once at the end, with the state of all jobs.

    Raises:
        ConfigError: If a job asks for several processes (``runtime.devices``).
        TrainingError: If processes died, when all other trainings are done.
        MMCLError: Whatever else a training raised; the others are stopped.
    """
    left = [job for job in jobs if not job.is_over]
    for job in left:
        refuse_several_devices(job.config)
    over_machines = engine == "ray"
    if over_machines:
        left = [j._replace(corpus=j.corpus.absolute(), folder=j.folder.absolute()) for j in left]
    gpus = int(any(job.config.runtime.accelerator == "gpu" for job in left))
    work = partial(_train_job, for_comparison, over_machines)

    def look() -> None:
        if tell is not None:
            tell(_statuses(jobs))

    died = []
    # A fresh process each: nothing of one training (memory, random state) reaches the next.
    answers = run_tasks(
        work, left, workers=workers, engine=engine, fresh=True, gpus=gpus, look=look
    )
    with closing(answers):
        for job, answer in answers:
            if isinstance(answer, Died):
                died.append(f"  {job.folder}: {answer.cause}")
            elif over_machines:  # a network file system shows the files late
                await_shared(job.folder / DONE, job.folder / DIVERGED)
    look()
    # The others were trained to their end first: one death costs one training.
    if died:
        first = f"{len(died)} of {len(left)} trainings died before they ended; the others are done."
        raise TrainingError("\n".join([first, *died, _GO_ON]))


def refuse_several_devices(config: Config) -> None:
    """Refuse settings that ask for several processes for one of many trainings.

    Raises:
        ConfigError: If they do.
    """
    devices = config.runtime.devices
    if devices > 1:
        raise ConfigError(
            f"runtime.devices is {devices}, but each of many trainings has one process\n"
            "  Use one: --set runtime.devices=1\n"
            "  Train one network by several processes: mmcl train"
        )


def _statuses(jobs: Sequence[Job]) -> list[Status]:
    """Return the state of the jobs by name, as their folders show it."""
    statuses = []
    for name in dict.fromkeys(job.name for job in jobs):
        folders = [job.folder for job in jobs if job.name == name]
        done = [folder for folder in folders if (folder / DONE).exists()]
        diverged = [folder for folder in folders if (folder / DIVERGED).exists()]
        histories = {folder: rows for folder in folders if (rows := read_history(folder))}
        losses = [min(row.valid_loss for row in rows) for rows in histories.values()]
        epochs = [len(rows) for folder, rows in histories.items() if folder not in done]
        loss = sum(losses) / len(losses) if losses else None
        counts = (len(done), len(diverged), len(folders))
        statuses.append(Status(name, *counts, max(epochs, default=None), loss))
    return statuses


def _train_job(for_comparison: bool, over_machines: bool, job: Job, threads: int) -> None:
    """Train one job in this process, or go on with it."""
    if over_machines:
        check_shared(job.corpus, job.folder.parent)
    job = job._replace(config=with_threads(job.config, threads))
    development = open_corpus(job.corpus).development()
    if for_comparison:
        _train_and_measure(job, development)
    else:
        fit(development, job.config, seed=job.seed, folder=job.folder, resume=True)


def _train_and_measure(job: Job, development: Corpus) -> None:
    """Train, and write down what the process needed, or that the loss diverged."""
    cost: dict[str, Any] = {"threads": job.config.runtime.threads}
    try:
        fitted = fit(development, job.config, seed=job.seed, folder=job.folder, resume=True)
        speed = _prediction_speed(fitted.model, development, job.config)
        cost["predict_clips_per_second"] = speed
    except TrainingError as fault:
        write_json(job.folder / DIVERGED, {"message": str(fault).splitlines()[0]})
    # The process has done this training alone, so that its totals are those of the training.
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost["peak_memory_mib"] = used.ru_maxrss / 1024
    cost["cpu_seconds"] = used.ru_utime + used.ru_stime
    write_json(job.folder / COST, cost)


def with_threads(config: Config, threads: int) -> Config:
    """Return the settings with so many threads, unless the user has set their number.

    Example:
        >>> with_threads(Config(), 2).runtime.threads
        2
    """
    if config.runtime.threads is not None:
        return config
    runtime = config.runtime.model_copy(update={"threads": threads})
    return config.model_copy(update={"runtime": runtime})


def _prediction_speed(model: Network, development: Corpus, config: Config) -> float:
    """Return the clips of the validation split predicted per second, reading included."""
    split = development.split("valid")
    started = time.perf_counter()
    score_split(model, split, batch_size=config.evaluation.batch_size)
    return len(split) / (time.perf_counter() - started)


@contextmanager
def corpus_file(corpus: Corpus, folder: Path) -> Iterator[Path]:
    """Give the file that other processes can map a corpus from.

    A corpus that lies in no file of its own (read from a foreign layout) is written into the
    folder for the while, without its test clips.
    """
    if corpus.mapped is not None:
        yield corpus.mapped.path.absolute()
        return
    development = corpus.development()
    splits = [development.split("train"), development.split("valid")]
    clips = (clip for split in splits for clip in split.clips())
    path = write_corpus(folder / ".development.arrow", development.card, clips)
    try:
        yield path.absolute()
    finally:
        path.unlink(missing_ok=True)
