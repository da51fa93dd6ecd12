"""History of a training: a csv file with one row of numbers per epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from mmcl.files import write_text

__all__ = ["HISTORY", "EpochRow", "read_history", "write_history"]

HISTORY = "history.csv"


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
    """Read the epochs that a training has finished; the list is empty before the first ends."""
    try:
        with (folder / HISTORY).open(newline="") as file:
            table = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    numbers = EpochRow._fields[1:]
    return [EpochRow(int(row["epoch"]), *(float(row[key]) for key in numbers)) for row in table]


def write_history(folder: Path, history: list[EpochRow]) -> None:
    """Write all epochs so far; the file is complete or keeps its former content."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(EpochRow._fields)
    writer.writerows(history)
    write_text(folder / HISTORY, text.getvalue())
