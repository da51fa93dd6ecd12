"""A worker: an object in a process of its own, which starts, answers, keeps to limits and ends."""

import asyncio
import os
import signal
import threading

import numpy as np
import pytest
import torch

from fakes.loops import run_apart
from fakes.workers import Patient
from mmcl.errors import DatasetError
from mmcl.serve.feature_worker import FeatureWorker, expected_of, predict_features
from mmcl.serve.features import Features
from mmcl.serve.limits import MIB, Limits
from mmcl.serve.supervisor import StageTimeoutError, Worker, WorkerError, WorkerMemoryError


def working(*arguments, calls, load_seconds=60):
    """Result of ``calls(worker)``, a coroutine, with a worker that is stopped afterwards."""

    async def run():
        worker = Worker(Patient, *arguments, load_seconds=load_seconds)
        try:
            return await calls(worker)
        finally:
            await worker.stop()
            assert (worker.memory, worker.is_ready) == (0, False)

    return run_apart(run())


def test_it_is_started_called_and_stopped():
    async def calls(worker):
        assert (worker.is_ready, worker.process_id, worker.memory) == (False, None, 0)
        await worker.start()
        assert worker.is_ready
        assert worker.memory > MIB
        return await worker.call("add", 1), await worker.call("add", 2), worker.process_id

    first, second, process_id = working(10, calls=calls)
    assert (first, second) == (11, 13)
    assert process_id != os.getpid()


def test_stages_are_told_in_order():
    stages = []

    async def calls(worker):
        await worker.start()
        await worker.call("work", "one", "two", on_stage=stages.append)

    working(calls=calls)
    assert stages == ["one", "two"]


def test_fault_of_a_method_is_raised_and_the_worker_goes_on():
    async def calls(worker):
        await worker.start()
        with pytest.raises(DatasetError, match="minus"):
            await worker.call("add", -1)
        return await worker.call("add", 1)

    assert working(calls=calls) == 1


def test_dead_worker_is_noticed_and_starts_again():
    async def calls(worker):
        await worker.start()
        before = worker.process_id
        with pytest.raises(WorkerError, match="signal SIGSEGV"):
            await worker.call("die")
        assert not worker.is_ready
        with pytest.raises(WorkerError):
            await worker.call("add", 1)
        await worker.start()
        assert worker.process_id != before
        os.kill(worker.process_id, signal.SIGKILL)  # while it is idle
        while worker.is_ready:
            await asyncio.sleep(0.01)

    working(calls=calls)


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        ({"stage_seconds": 0.3}, StageTimeoutError),
        ({"max_memory": MIB}, WorkerMemoryError),
    ],
)
def test_call_beyond_a_limit_ends_the_process(limit, error):
    async def calls(worker):
        await worker.start()
        with pytest.raises(error):
            await worker.call("sleep", 30, **limit)
        return worker.is_ready, worker.memory

    assert working(calls=calls) == (False, 0)


def test_killing_and_cancelling_end_the_process():
    async def calls(worker):
        for end in ("kill", "cancel"):
            await worker.start()
            call = asyncio.create_task(worker.call("sleep", 30))
            await asyncio.sleep(0.2)
            worker.kill() if end == "kill" else call.cancel()
            with pytest.raises((WorkerError, asyncio.CancelledError)):
                await call
            assert not worker.is_ready

    working(calls=calls)


@pytest.mark.parametrize("fault", ["raises", "dawdles"])
def test_worker_that_does_not_start(fault):
    async def calls(worker):
        with pytest.raises(WorkerError):
            await worker.start()
        return worker.is_ready

    assert working(0, fault, calls=calls, load_seconds=1) is False


# ---------------------------------------------------------------- features


@pytest.fixture
def clips(runs):
    dims = runs["talks"].card.dims
    return [
        Features(str(at), {m: np.full((3, n), 0.1 * at, np.float32) for m, n in dims.items()})
        for at in range(3)
    ]


def test_features_are_predicted_as_in_this_process(runs, clips):
    run = runs["talks"]
    lost = [Features("lost", {m: np.full_like(x, np.nan) for m, x in clips[0].steps.items()})]

    async def predict():
        worker = Worker(FeatureWorker, {"talks": run.folder}, Limits())
        await worker.start()
        assert await worker.call("expected") == {"talks": expected_of(run)}
        predicted = await worker.call("predict", "talks", clips)
        with pytest.raises(DatasetError) as caught:
            await worker.call("predict", "talks", lost)
        await worker.stop()
        return predicted, str(caught.value)

    predicted, fault = run_apart(predict())
    for there, here in zip(predicted, predict_features(run, clips, Limits()), strict=True):
        assert there.prediction == pytest.approx(here.prediction, abs=1e-6)
        assert there.spread == pytest.approx(here.spread, abs=1e-6)
    with pytest.raises(DatasetError) as caught:
        predict_features(run, lost, Limits())
    assert fault == str(caught.value)


def test_cores_are_left_to_requests_and_recordings(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    FeatureWorker(print, {}, Limits())
    assert asked == [4]


def test_service_answers_503_and_goes_on_when_its_worker_dies(client, service, runs):
    clip = {"id": "a", **{m: [[0.1] * n] for m, n in runs["talks"].card.dims.items()}}
    before = client.post("/v1/predict", json={"clips": [clip]}).json()
    process_id = service.feature_worker.process_id
    os.kill(process_id, signal.SIGSTOP)  # it takes the next request, and does not answer
    threading.Timer(0.5, os.kill, (process_id, signal.SIGKILL)).start()
    answer = client.post("/v1/predict", json={"clips": [clip]})
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "the process that predicts features ended, and is started again.\n"
        "  Try again in a moment, with fewer or shorter clips.",
    )
    assert client.post("/v1/predict", json={"clips": [clip]}).json() == before
