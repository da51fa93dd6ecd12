"""Learning rate of every epoch: constant, cosine, or lowered on a plateau of validation loss."""

from __future__ import annotations

import math
from typing import Any

from mmcl.config import LearningSettings

__all__ = ["Schedule"]


class Schedule:
    """Learning rate of the optimizer, set epoch by epoch.

    Args:
        optimizer: Its groups of parameters have their learning rates at the start. Groups
            with ``warms_up`` begin with smaller ones.
        learning: Settings of training.
        warmup: Share of all steps over which those groups rise from 0, 0..1.
    """

    def __init__(self, optimizer: Any, learning: LearningSettings, *, warmup: float = 0.0) -> None:
        self.optimizer, self.learning, self.warmup = optimizer, learning, warmup
        self.factor, self.best, self.waited = 1.0, math.inf, 0
        self.rates = self._epoch_rates = [group["lr"] for group in optimizer.param_groups]
        self.warming = [group.get("warms_up", False) for group in optimizer.param_groups]

    def start_epoch(self, epoch: int) -> float:
        """Set the learning rates of an epoch, counted from 0; return that of the network."""
        factor = self.factor
        # Half a cosine wave, from 1 at the first epoch towards 0 after the last.
        if self.learning.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / self.learning.epochs))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self._epoch_rates = [group["lr"] for group in self.optimizer.param_groups]
        return self.learning.learning_rate * factor

    def start_step(self, step: int, steps: int) -> None:
        """Set the rates that warm up, before a step of ``steps``, counted from 0."""
        if not any(self.warming):
            return
        share = min(1.0, (step + 1) / max(1.0, self.warmup * steps))
        groups = zip(self.optimizer.param_groups, self._epoch_rates, self.warming, strict=True)
        for group, rate, warms_up in groups:
            group["lr"] = rate * share if warms_up else rate

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
