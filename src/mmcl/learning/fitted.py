"""The result of a training, and its folder read again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcl.files import read_json, reading
from mmcl.learning.history import HISTORY, EpochRow, read_history
from mmcl.models.network import Network
from mmcl.models.registry import load_network
from mmcl.types import Modality

__all__ = ["DONE", "MODEL", "Fitted", "read_fitted"]

MODEL, DONE = "model", "done.json"


class Fitted(NamedTuple):
    """Result of a training.

    Attributes:
        model: The network of the best validation loss, in evaluation mode.
        history: A row per epoch.
        best_epoch: Epoch of that network, from 0.
        clips_per_second: Clips trained on per second, median over epochs.
        seconds: Time of all epochs together, without validation.
        never_seen: Modalities that no training clip had.
    """

    model: Network
    history: list[EpochRow]
    best_epoch: int
    clips_per_second: float
    seconds: float
    never_seen: tuple[Modality, ...]


def read_fitted(folder: Path) -> Fitted:
    """Read the folder of a finished training."""
    with reading(folder / DONE):
        done = read_json(folder / DONE)
        clips, best_epoch, never_seen = (
            int(done["clips"]),
            int(done["best_epoch"]),
            done["never_seen"],
        )
        if not isinstance(never_seen, list):
            raise ValueError("never_seen is no list")
    with reading(folder / HISTORY):
        rows = read_history(folder)
        if not rows:
            raise ValueError("no epochs in it")
        speed = float(np.median([row.clips_per_second for row in rows]))
        # Every epoch has the same number of clips.
        seconds = sum(clips / row.clips_per_second for row in rows)
    return Fitted(load_network(folder / MODEL), rows, best_epoch, speed, seconds, tuple(never_seen))
