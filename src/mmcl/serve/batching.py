"""Requests of many clients through a network together.

Whatever waits when the network is free goes through it at once; what comes meanwhile is the
next batch. A client who is alone never waits for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from mmcl.serve.features import Features
from mmcl.serve.limits import Limits
from mmcl.serve.meters import Meters
from mmcl.serve.predicting import Predicted
from mmcl.serve.problems import ServiceError

__all__ = ["Batcher"]

Predicts = Callable[[str, Sequence[Features]], Awaitable[list[Predicted]]]


class _Waiting(NamedTuple):
    model: str
    clips: Sequence[Features]
    answer: asyncio.Future[list[Predicted]]


class Batcher:
    """Collects requests and predicts them together, one batch after the other.

    Args:
        predict: Predicts clips of one model, in order.
        limits: How many clips go together, and how many may wait.
        meters: What is counted.
    """

    def __init__(self, predict: Predicts, limits: Limits, meters: Meters) -> None:
        self._predict, self._limits, self._meters = predict, limits, meters
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._num_waiting = 0

    async def predict(self, model: str, clips: Sequence[Features]) -> list[Predicted]:
        """Predict clips, together with whatever else waits.

        Raises:
            ServiceError: If too many clips wait already.
            MMCLError: Whatever predicting these clips raises; of others' it is not told.
        """
        if self._num_waiting + len(clips) > self._limits.max_waiting_clips:
            raise ServiceError(
                f"{self._num_waiting} clips wait to be predicted; "
                f"at most {self._limits.max_waiting_clips} may.\n  Try again in a moment.",
                status=429,
                kind="busy",
            )
        answer: asyncio.Future[list[Predicted]] = asyncio.get_running_loop().create_future()
        self._num_waiting += len(clips)
        try:
            await self._queue.put(_Waiting(model, clips, answer))
            return await answer
        finally:
            self._num_waiting -= len(clips)

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            waiting = await self._all_that_wait()
            for model in dict.fromkeys(each.model for each in waiting):
                await self._serve(model, [each for each in waiting if each.model == model])

    async def _all_that_wait(self) -> list[_Waiting]:
        """The next requests, of as many clips as may go together."""
        waiting = [await self._queue.get()]
        while sum(len(each.clips) for each in waiting) < self._limits.clips_at_once:
            if self._queue.empty():
                break
            waiting.append(self._queue.get_nowait())
        return [each for each in waiting if not each.answer.cancelled()]

    async def _serve(self, model: str, waiting: Sequence[_Waiting]) -> None:
        """Answer requests for one model; where they fail together, each is tried alone."""
        clips = [clip for each in waiting for clip in each.clips]
        try:
            predicted = await self._predict(model, clips)
        except Exception as fault:
            if len(waiting) == 1:
                _set(waiting[0].answer, fault)
                return
            for each in waiting:
                await self._serve(model, [each])
            return
        self._meters.batch_clips.observe(len(clips))
        self._meters.clips.labels(model, "features").inc(len(clips))
        at = 0
        for each in waiting:
            _set(each.answer, predicted[at : at + len(each.clips)])
            at += len(each.clips)


def _set(answer: asyncio.Future[list[Predicted]], outcome: list[Predicted] | Exception) -> None:
    """Answer, unless the client has gone."""
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
