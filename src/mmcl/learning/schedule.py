"""Learning rate of every epoch: constant, cosine, or lowered on a plateau of validation loss."""

from __future__ import annotations

import math
from typing import Any

from mmcl.config import LearningSettings

__all__ = ["Schedule"]


class Schedule:
    """Learning rate of the optimizer, set epoch by epoch."""

    def __init__(self, optimizer: Any, learning: LearningSettings) -> None:
        self.optimizer, self.learning = optimizer, learning
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def start_epoch(self, epoch: int) -> float:
        """Set and return the learning rate of an epoch, counted from 0."""
        factor = self.factor
        # Half a cosine wave, from 1 at the first epoch towards 0 after the last.
        if self.learning.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / self.learning.epochs))
        rate = self.learning.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def end_epoch(self, valid_loss: float) -> None:
        """Lower the rate after ``plateau_patience`` epochs without a better validation loss."""
        self.waited = 0 if valid_loss < self.best else self.waited + 1
        self.best = min(self.best, valid_loss)
        # The epochs without improvement are counted anew after each reduction.
        if self.learning.schedule == "plateau" and self.waited > self.learning.plateau_patience:
            self.factor, self.waited = self.factor * self.learning.plateau_factor, 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a result of :meth:`state_dict`."""
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
