"""Utterance vectors: against plain loops over the real steps, and by what must not count."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmcl.models.baselines.utterances import (
    MeanEncoder,
    RealBatchNorm,
    StateEncoder,
    UtteranceOptions,
    Utterances,
)

# Float64, sums of a few dozen terms of size one, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
DIMS = {"text": 5, "audio": 3, "vision": 4}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20)


@pytest.fixture
def draw(generator):
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_batch_norm_takes_statistics_of_real_vectors_alone(draw):
    x = draw(2, 5, 3)
    real = torch.tensor([[True, False, True, True, False], [True, False, False, True, False]])
    norm, plain = RealBatchNorm(3).double(), nn.BatchNorm1d(3).double()

    out = norm(x, real)

    torch.testing.assert_close(out[real], plain(x[real]), **TOLERANCE)
    assert torch.equal(out[~real], torch.zeros(5, 3).double())
    torch.testing.assert_close(norm.norm.running_mean, plain.running_mean, **TOLERANCE)


@pytest.mark.parametrize("count", [0, 1])
def test_batch_norm_of_too_few_leaves_the_running_statistics_alone(draw, count):
    norm = RealBatchNorm(3).double()
    x, real = draw(4, 3), torch.arange(4) < count

    out = norm(x, real)

    # Fresh running statistics are 0 and 1, so that a vector passes but for epsilon.
    torch.testing.assert_close(out, x * real.unsqueeze(1), rtol=1e-5, atol=0.0)
    assert torch.equal(norm.norm.running_mean, torch.zeros(3).double())


def test_mean_encoder_worked_by_a_loop(draw):
    encoder = MeanEncoder(3, 4, dropout=0.3).double().eval()
    encoder.norm.norm.running_mean += draw(3)
    encoder.norm.norm.running_var += 2.0
    steps = draw(2, 5, 3)
    real = [[0, 2, 3], [1]]  # clips of several real steps and of one, with a hole
    mask = torch.tensor([[i in each for i in range(5)] for each in real])

    for clip, each in enumerate(real):
        x = sum(steps[clip, i] for i in each) / len(each)
        x = (x - encoder.norm.norm.running_mean) / (encoder.norm.norm.running_var + 1e-5).sqrt()
        for layer in encoder.layers:
            x = (layer.weight @ x + layer.bias).clamp(min=0)
        torch.testing.assert_close(encoder(steps, mask)[clip], x, **TOLERANCE)


def test_state_encoder_reads_each_clip_to_its_own_end(draw):
    encoder = StateEncoder(3, 4, 2).double()
    steps = draw(2, 5, 3)
    real = [[0, 2, 3], [1, 2]]
    mask = torch.tensor([[i in each for i in range(5)] for each in real])

    for clip, each in enumerate(real):
        outputs, _ = encoder.recurrent.lstm(steps[clip : clip + 1, each])
        expected = F.linear(outputs[0, -1], encoder.output.weight, encoder.output.bias)
        torch.testing.assert_close(encoder(steps, mask)[clip], expected, **TOLERANCE)


def test_vectors_of_absent_modalities_are_zero_and_do_not_count(draw):
    utterances = Utterances(DIMS, UtteranceOptions(text_out=6, audio_width=2, dropout=0)).double()
    steps = {m: draw(3, 4, dim) for m, dim in DIMS.items()}
    masks = {m: torch.ones(3, 4, dtype=torch.bool) for m in DIMS}
    masks["audio"][1] = masks["text"][2] = False

    vectors = utterances(steps, masks)

    assert {m: tuple(x.shape) for m, x in vectors.items()} == {
        "text": (3, 6),
        "audio": (3, 2),
        "vision": (3, 128),
    }
    assert not vectors["audio"][1].any()
    assert not vectors["text"][2].any()
    means = steps["audio"].mean(dim=1)
    # A tenth of the batch's mean is what a running mean takes up in one step.
    running = utterances.encoders["audio"].norm.norm.running_mean
    torch.testing.assert_close(running, 0.1 * (means[0] + means[2]) / 2, **TOLERANCE)
