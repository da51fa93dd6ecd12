"""Features predicted in a process apart: the same, and what dies is begun again."""

import asyncio
import os
import signal

import numpy as np
import pytest
import torch

from fakes.loops import run_apart
from mmcl.errors import DatasetError
from mmcl.serve.apart import Predictor, num_threads
from mmcl.serve.features import Features
from mmcl.serve.limits import Limits
from mmcl.serve.predicting import expected_of, predict_features
from mmcl.serve.problems import ServiceError


@pytest.fixture(scope="module")
def run(runs):
    return runs["talks"]


@pytest.fixture(scope="module")
def predictor(run):
    predictor = Predictor({"talks": run.folder}, Limits())
    yield predictor
    predictor.stop()


@pytest.fixture
def clips(run):
    def clip(number):
        steps = {
            m: np.full((3, width), 0.1 * number, np.float32) for m, width in run.card.dims.items()
        }
        return Features(str(number), steps)

    return [clip(number) for number in range(3)]


def wait_for(work):
    async def within():
        return await asyncio.wait_for(work, 60)

    return run_apart(within())


def test_predictions_are_those_of_this_process(run, predictor, clips):
    assert wait_for(predictor.expected()) == {"talks": expected_of(run)}
    found = wait_for(predictor.predict("talks", clips))
    for ours, theirs in zip(found, predict_features(run, clips, Limits()), strict=True):
        assert ours.prediction == pytest.approx(theirs.prediction, abs=1e-6)
        assert ours.spread == pytest.approx(theirs.spread, abs=1e-6)


def test_cores_are_left_to_the_rest(predictor):
    assert predictor._pool.submit(torch.get_num_threads).result() == num_threads()


def test_fault_of_the_features_comes_back_as_it_is(run, predictor, clips):
    lost = [Features("lost", {m: np.full_like(x, np.nan) for m, x in clips[0].steps.items()})]
    with pytest.raises(DatasetError) as here:
        predict_features(run, lost, Limits())
    with pytest.raises(DatasetError) as apart:
        wait_for(predictor.predict("talks", lost))
    assert str(apart.value) == str(here.value)


def test_process_that_died_is_begun_again(predictor, clips):
    before = wait_for(predictor.predict("talks", clips))
    os.kill(predictor._pool.submit(os.getpid).result(), signal.SIGKILL)
    with pytest.raises(ServiceError) as caught:
        wait_for(predictor.predict("talks", clips))
    assert caught.value.status == 503
    assert str(caught.value) == (
        "the process that predicts features ended, and is begun again.\n"
        "  Try again in a moment, with fewer or shorter clips."
    )
    assert wait_for(predictor.predict("talks", clips)) == before
