"""Requests of many clients predicted together.

Whatever waits when the network is free goes through it at once; requests that come meanwhile are
the next batch. A client who is alone never waits for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from mmcl.serve.counters import Counters
from mmcl.serve.features import Features
from mmcl.serve.limits import Limits
from mmcl.serve.openapi import ClipAnswer
from mmcl.serve.problems import ServiceError

__all__ = ["Batcher"]


class _Request(NamedTuple):
    model: str
    clips: Sequence[Features]
    answer: asyncio.Future[list[ClipAnswer]]


class Batcher:
    """Collects requests and has ``predict`` answer them together, one batch after the other."""

    def __init__(
        self,
        predict: Callable[[str, Sequence[Features]], Awaitable[list[ClipAnswer]]],
        limits: Limits,
        counters: Counters,
    ) -> None:
        self._predict, self._limits, self._counters = predict, limits, counters
        self._queue: asyncio.Queue[_Request] = asyncio.Queue()
        self._num_waiting = 0

    async def predict(self, model: str, clips: Sequence[Features]) -> list[ClipAnswer]:
        """Predict clips, together with whatever else waits.

        Raises:
            ServiceError: If too many clips wait already.
            MMCLError: Whatever predicting these clips raises; faults of other clients' clips
                are not raised here.
        """
        if self._num_waiting + len(clips) > self._limits.max_waiting_clips:
            raise ServiceError(
                f"{self._num_waiting} clips wait to be predicted; "
                f"at most {self._limits.max_waiting_clips} may.\n  Try again in a moment.",
                status=429,
                kind="busy",
            )
        answer: asyncio.Future[list[ClipAnswer]] = asyncio.get_running_loop().create_future()
        self._num_waiting += len(clips)
        try:
            await self._queue.put(_Request(model, clips, answer))
            return await answer
        finally:
            self._num_waiting -= len(clips)

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            batch = await self._next_batch()
            for model in dict.fromkeys(request.model for request in batch):
                await self._answer(model, [r for r in batch if r.model == model])

    async def _next_batch(self) -> list[_Request]:
        """Wait for a request; return it with others that wait, up to the limit of clips."""
        batch = [await self._queue.get()]
        while (
            sum(len(request.clips) for request in batch) < self._limits.clips_at_once
            and not self._queue.empty()
        ):
            batch.append(self._queue.get_nowait())
        return [request for request in batch if not request.answer.cancelled()]

    async def _answer(self, model: str, requests: Sequence[_Request]) -> None:
        """Answer requests for one model; where they fail together, try each alone."""
        clips = [clip for request in requests for clip in request.clips]
        try:
            predicted = await self._predict(model, clips)
        except Exception as fault:
            # One client's clips must not fail those of the others.
            if len(requests) > 1:
                for request in requests:
                    await self._answer(model, [request])
            elif not requests[0].answer.done():  # the client may have gone
                requests[0].answer.set_exception(fault)
            return
        self._counters.batch_clips.observe(len(clips))
        self._counters.clips.labels(model, "features").inc(len(clips))
        remaining = iter(predicted)
        for request in requests:
            answer = [next(remaining) for _ in request.clips]
            if not request.answer.done():
                request.answer.set_result(answer)
