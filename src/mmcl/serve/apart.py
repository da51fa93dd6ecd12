"""Features are predicted in a process apart: meanwhile the service reads the next requests.

Both would take turns in one process, since reading JSON holds the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mmcl.runs.run import Run
from mmcl.serve.clean import clean_context, end_with_parent
from mmcl.serve.features import Expected, Features
from mmcl.serve.limits import Limits
from mmcl.serve.predicting import Predicted, expected_of, predict_features
from mmcl.serve.problems import ServiceError

__all__ = ["Predictor", "num_threads"]

_log = logging.getLogger("mmcl.serve")
_runs: dict[str, Run] = {}  # in the process apart


class Predictor:
    """Predicts features in a process of its own; another takes the place of one that died.

    Args:
        folders: Run folders by name.
        limits: How much goes through a network at once.
    """

    def __init__(self, folders: Mapping[str, Path], limits: Limits) -> None:
        self._folders, self._limits = dict(folders), limits
        self._pool = self._begin()

    async def expected(self) -> dict[str, Expected]:
        """What every run takes, once all are loaded."""
        return await asyncio.wrap_future(self._pool.submit(_expected))

    async def predict(self, model: str, clips: Sequence[Features]) -> list[Predicted]:
        """Predict clips by one run; see :func:`mmcl.serve.predicting.predict_features`.

        Raises:
            ServiceError: If the process died of it.
            DatasetError: If a clip's numbers are so large that its scores are none.
        """
        pool = self._pool
        try:
            return await asyncio.wrap_future(pool.submit(_predict, model, clips, self._limits))
        except BrokenProcessPool:
            _log.warning("the process that predicts features ended")
            if pool is self._pool:
                self._pool = self._begin()
            raise ServiceError(
                "the process that predicts features ended, and is begun again.\n"
                "  Try again in a moment, with fewer or shorter clips.",
                status=503,
                kind="no-predictor",
            ) from None

    def stop(self) -> None:
        """End the process as soon as it has done what it works on."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, clean_context(), _load, (self._folders,))


def num_threads() -> int:
    """Threads that predict features; the rest of the cores is for requests and recordings."""
    return max(1, (os.cpu_count() or 1) // 2)


# ---------------------------------------------------------------- in the process apart


def _load(folders: Mapping[str, Path]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us
    end_with_parent()
    torch.set_num_threads(num_threads())
    for name, folder in folders.items():
        _runs[name] = Run.load(folder)
        for seed in _runs[name].seeds:
            _runs[name].model(seed)


def _expected() -> dict[str, Expected]:
    return {name: expected_of(run) for name, run in _runs.items()}


def _predict(model: str, clips: Sequence[Features], limits: Limits) -> list[Predicted]:
    return predict_features(_runs[model], clips, limits)
