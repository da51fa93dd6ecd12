"""Requests of many clients together: each gets its own, and none suffers from another."""

import asyncio
import threading

import numpy as np
import pytest

from fakes.loops import run_apart
from mmcl.errors import ShapeError
from mmcl.serve.batching import Batcher
from mmcl.serve.counters import Counters
from mmcl.serve.features import Features
from mmcl.serve.limits import Limits
from mmcl.serve.problems import ServiceError


def clip(value):
    return Features(str(value), {"text": np.full((1, 2), value, np.float32)})


class Slow:
    """Doubles numbers, a batch at a time, each when it is let."""

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, model, clips):
        self.gate.wait(5)
        self.batches.append((model, [each.id for each in clips]))
        if any(each.id == "-1" for each in clips):
            raise ShapeError("minus one")
        return [2 * float(each.steps["text"][0, 0]) for each in clips]


async def worked(batcher, work):
    running = asyncio.create_task(batcher.run())
    try:
        return await work
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def serve(predict, work, **limits):
    """Answer or error of ``work(batcher)``, and the counters."""
    counters = Counters()

    async def in_a_thread(model, clips):
        return await asyncio.to_thread(predict, model, clips)

    batcher = Batcher(in_a_thread, Limits(**limits), counters)

    async def run():
        return await asyncio.wait_for(worked(batcher, work(batcher)), 10)

    return run_apart(run()), counters


def test_what_waits_goes_together_and_each_gets_its_own():
    slow = Slow()

    async def work(batcher):
        slow.gate.clear()
        first = asyncio.create_task(batcher.predict("a", [clip(1)]))
        await asyncio.sleep(0.05)  # it is at work, so the others wait
        rest = [asyncio.create_task(batcher.predict("a", [clip(n), clip(n + 1)])) for n in (2, 5)]
        other = asyncio.create_task(batcher.predict("b", [clip(9)]))
        await asyncio.sleep(0.05)
        slow.gate.set()
        return await asyncio.gather(first, *rest, other)

    found, counters = serve(slow, work)
    assert found == [[2.0], [4.0, 6.0], [10.0, 12.0], [18.0]]
    assert slow.batches == [("a", ["1"]), ("a", ["2", "3", "5", "6"]), ("b", ["9"])]
    text = counters.text().decode()
    assert 'mmcl_clips_predicted_total{model="a",sent="features"} 5.0' in text
    assert "mmcl_batch_clips_count 3.0" in text
    assert "mmcl_batch_clips_sum 6.0" in text


def test_a_full_batch_does_not_grow():
    slow = Slow()

    async def work(batcher):
        slow.gate.clear()
        asked = [asyncio.create_task(batcher.predict("a", [clip(n)])) for n in range(7)]
        await asyncio.sleep(0.05)
        slow.gate.set()
        return await asyncio.gather(*asked)

    found, _ = serve(slow, work, clips_at_once=3)
    assert found == [[2.0 * n] for n in range(7)]
    assert max(len(clips) for _, clips in slow.batches) == 3


def test_one_that_fails_takes_nobody_with_it():
    slow = Slow()

    async def work(batcher):
        slow.gate.clear()
        asked = [asyncio.create_task(batcher.predict("a", [clip(n)])) for n in (0, 1, -1, 2)]
        await asyncio.sleep(0.05)
        slow.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    found, _ = serve(slow, work)
    assert [str(each) for each in found] == ["[0.0]", "[2.0]", "minus one", "[4.0]"]


def test_a_client_who_went_is_left_out():
    slow = Slow()

    async def work(batcher):
        slow.gate.clear()
        asked = [asyncio.create_task(batcher.predict("a", [clip(0)]))]
        await asyncio.sleep(0.05)  # it is at work, so the others wait
        asked += [asyncio.create_task(batcher.predict("a", [clip(n)])) for n in (1, 2)]
        await asyncio.sleep(0.05)
        asked[1].cancel()
        await asyncio.sleep(0)
        slow.gate.set()
        found = [await asked[0], await asked[2]]
        return found, await batcher.predict("a", [clip(3)])

    found, _ = serve(slow, work)
    assert found == ([[0.0], [4.0]], [6.0])
    assert "1" not in [each for _, clips in slow.batches for each in clips]


def test_who_is_too_many_is_told():
    slow = Slow()

    async def work(batcher):
        slow.gate.clear()
        asked = [asyncio.create_task(batcher.predict("a", [clip(n)])) for n in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as caught:
            await batcher.predict("a", [clip(8), clip(9)])
        slow.gate.set()
        await asyncio.gather(*asked)
        return caught.value, await batcher.predict("a", [clip(n) for n in range(5)])

    (fault, later), _ = serve(slow, work, max_waiting_clips=5)
    assert str(fault) == ("4 clips wait to be predicted; at most 5 may.\n  Try again in a moment.")
    assert (fault.status, later) == (429, [0.0, 2.0, 4.0, 6.0, 8.0])
