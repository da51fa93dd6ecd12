"""History of a training: a csv file with one row of numbers per epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.config import Config
from mmcl.errors import RunError
from mmcl.extras import load
from mmcl.files import write_text

__all__ = ["HISTORY", "EpochRow", "read_history", "tensorboard_loggers", "write_history"]

HISTORY = "history.csv"
"""File of a seed: a row per epoch."""


class EpochRow(NamedTuple):
    """One row of the history: means over the clips of an epoch, and its speed."""

    epoch: int
    loss: float
    task_loss: float
    alignment_loss: float
    critic_loss: float
    reward: float
    mean_action: float
    valid_loss: float
    learning_rate: float
    clips_per_second: float


def read_history(folder: Path) -> list[EpochRow]:
    """Read the epochs that a training has finished; the list is empty before the first ends.

    Raises:
        RunError: If the file has not the columns that this version writes.
    """
    try:
        with (folder / HISTORY).open(newline="") as file:
            table = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    absent = [key for key in EpochRow._fields if table and table[0].get(key) is None]
    if absent:
        raise RunError(
            f"{folder / HISTORY}: has no column {', '.join(absent)}.\n"
            "  It is damaged, or another version wrote it: run.json names it "
            "(environment.versions.mmcl)"
        )
    numbers = EpochRow._fields[1:]
    return [EpochRow(int(row["epoch"]), *(float(row[key]) for key in numbers)) for row in table]


def write_history(folder: Path, history: list[EpochRow]) -> None:
    """Write all epochs so far; the file is complete or keeps its former content."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(EpochRow._fields)
    writer.writerows(history)
    write_text(folder / HISTORY, text.getvalue())


def tensorboard_loggers(config: Config, folder: Path) -> list[Any]:
    """Return the writers of TensorBoard files, if they are asked for."""
    if not config.runtime.tensorboard:
        return []
    load("tensorboard", "writing TensorBoard files", extra="track")
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return [TensorBoardLogger(folder, name="tensorboard", version="")]
