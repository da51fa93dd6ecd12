"""Calibration: moments against loops, running statistics, and what does not count."""

import math

import pytest
import torch

from mmcl.models.calibration import Calibration, masked_moments

# Float64, sums of at most a hundred terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture
def batch(generator):
    z = 3.0 + 2.0 * torch.randn(3, 4, 5, 8, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([[5, 2, 4, 1], [3, 0, 5, 5], [1, 1, 2, 5]])
    return z, torch.arange(5) < lengths.unsqueeze(-1)


def moments_by_loops(z, mask, m, axis):
    values = [z[m, b, i, axis].item() for b in range(4) for i in range(5) if mask[m, b, i]]
    mean = sum(values) / len(values)
    return mean, sum((x - mean) ** 2 for x in values) / len(values), len(values)


def test_moments_are_those_of_the_real_steps(batch):
    z, mask = batch
    mean, variance, count = masked_moments(z, mask)
    for m in range(3):
        for axis in range(8):
            expected = moments_by_loops(z, mask, m, axis)
            assert mean[m, axis].item() == pytest.approx(expected[0], abs=1e-12)
            assert variance[m, axis].item() == pytest.approx(expected[1], abs=1e-12)
            assert count[m] == expected[2]


def test_moments_of_nothing_are_zero(batch):
    z, _ = batch
    mean, variance, count = masked_moments(z, torch.zeros(3, 4, 5, dtype=torch.bool))
    assert not mean.any()
    assert not variance.any()
    assert count.tolist() == [0, 0, 0]


def test_moments_of_coarse_numbers_are_precise(generator):
    # Centre 30, spread 1: in bfloat16 the mean of the squares is rounded to a multiple of 4.
    z = (30 + torch.randn(2, 40, 50, 3, generator=generator)).bfloat16()
    mask = torch.ones(2, 40, 50, dtype=torch.bool)
    moments = masked_moments(z, mask)
    expected = masked_moments(z.double(), mask)
    # Float32 squares near 900, of which a variance near 1 is left.
    torch.testing.assert_close(moments[1].double(), expected[1], rtol=0.0, atol=1e-3)
    assert moments[2].tolist() == [2000.0, 2000.0]


def test_training_uses_the_batch(batch):
    z, mask = batch
    calibrated = Calibration(3, 8).double().train()(z, mask)
    mean, variance, _ = masked_moments(calibrated, mask)
    torch.testing.assert_close(mean, torch.zeros_like(mean), **TOLERANCE)
    # The small constant under the root takes off 1e-5 / variance, and variance is near 4.
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0.0, atol=1e-4)


def test_running_statistics_follow_by_a_tenth(batch):
    z, mask = batch
    calibration = Calibration(3, 8).double().train()
    mean, variance, _ = masked_moments(z, mask)
    calibration(z, mask)
    torch.testing.assert_close(calibration.mean, 0.1 * mean, **TOLERANCE)
    torch.testing.assert_close(calibration.variance, 0.9 + 0.1 * variance, **TOLERANCE)


def test_evaluation_uses_the_running_ones_and_leaves_them(batch, randomise):
    z, mask = batch
    calibration = randomise(Calibration(3, 8).double()).eval()
    before = calibration.mean.clone(), calibration.variance.clone()

    calibrated = calibration(z, mask)

    assert torch.equal(calibration.mean, before[0])
    assert torch.equal(calibration.variance, before[1])
    for m, axis in ((0, 0), (2, 7)):
        mean, variance = calibration.mean[m, axis].item(), calibration.variance[m, axis].item()
        expected = (z[m, 1, 3, axis].item() - mean) / math.sqrt(variance + 1e-5)
        assert calibrated[m, 1, 3, axis].item() == pytest.approx(expected, abs=1e-12)


def test_padded_steps_do_not_count(batch, generator):
    z, mask = batch
    noise = 100 * torch.randn(z.shape, generator=generator, dtype=torch.float64)
    rubbish = torch.where(mask.unsqueeze(-1), z, noise)
    one, other = Calibration(3, 8).double().train(), Calibration(3, 8).double().train()

    clean, dirty = one(z, mask), other(rubbish, mask)

    assert torch.equal(clean[mask], dirty[mask])
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)


@pytest.mark.parametrize("real_steps", [0, 1])
def test_modality_with_too_few_steps_keeps_the_running_ones(batch, randomise, real_steps):
    z, mask = batch
    mask = mask.clone()
    mask[1] = False
    mask[1, 2, :real_steps] = True
    calibration = randomise(Calibration(3, 8).double())
    expected = calibration.eval()(z, mask)
    before = calibration.mean.clone(), calibration.variance.clone()

    calibrated = calibration.train()(z, mask)

    torch.testing.assert_close(calibrated[1], expected[1], **TOLERANCE)
    torch.testing.assert_close(calibration.mean[1], before[0][1], **TOLERANCE)
    torch.testing.assert_close(calibration.variance[1], before[1][1], **TOLERANCE)
    assert not torch.equal(calibration.mean[0], before[0][0])


def test_calibration_has_no_parameters():
    assert not list(Calibration(3, 8).parameters())


def test_spaces_become_comparable(batch):
    # Fault F4: the same signal, seen through other units, is the same after calibration.
    z, mask = batch
    mask = mask[:1].expand(3, -1, -1)
    z = torch.stack([z[0], 100.0 + 7.0 * z[0], -3.0 + 0.1 * z[0]])
    calibrated = Calibration(3, 8).double().train()(z, mask)
    # The small constant matters most where the variance is least, 4 * .01.
    torch.testing.assert_close(calibrated[1], calibrated[0], rtol=0.0, atol=1e-3)
    torch.testing.assert_close(calibrated[2], calibrated[0], rtol=0.0, atol=1e-3)
