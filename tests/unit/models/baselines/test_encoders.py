"""Encoders that read real steps only: worked by hand, and against torch without padding."""

import pytest
import torch

from mmcl.models.baselines.encoders import (
    LastState,
    TransformerEncoder,
    compact,
    key_bias,
    masked_mean,
)
from mmcl.models.layers import NEVER, sinusoidal_positions

# Float64, sums of a few dozen terms of size one, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
LENGTHS = [4, 1, 0]
HOLED = torch.tensor(
    [[True, False, True, True, True], [False, True, False, False, False], [False] * 5]
)


@pytest.fixture
def steps(generator):
    return torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)


def rubbish(steps, mask, generator):
    noise = 9 * torch.randn(steps.shape, generator=generator, dtype=torch.float64)
    return torch.where(mask.unsqueeze(-1), steps, noise)


def test_masked_mean_worked_by_hand():
    steps = torch.tensor([[[1.0, 10.0], [5.0, 70.0], [3.0, 20.0]], [[9.0, 9.0]] * 3])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert masked_mean(steps, mask).tolist() == [[2.0, 15.0], [0.0, 0.0]]


def test_compact_worked_by_hand():
    steps = torch.tensor([[[1.0], [2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0], [8.0]], [[0.0]] * 4])
    mask = torch.tensor([[False, True, False, True], [True] * 4, [False] * 4])
    front, lengths = compact(steps, mask)
    assert front[0, :2, 0].tolist() == [2.0, 4.0]  # in their order
    assert front[1, :, 0].tolist() == [5.0, 6.0, 7.0, 8.0]
    assert lengths.tolist() == [2, 4, 1]  # one step of zeros where there is none


def test_key_bias_worked_by_hand():
    assert key_bias(torch.tensor([[True, False]])).tolist() == [[0.0, NEVER]]


@pytest.mark.parametrize(
    ("layers", "bidirectional"), [(1, False), (2, False), (1, True), (2, True)]
)
def test_last_state_is_of_the_last_real_step(steps, generator, layers, bidirectional):
    encoder = LastState(2, 3, layers=layers, bidirectional=bidirectional).double()
    last, outputs = encoder(rubbish(steps, HOLED, generator) * HOLED.unsqueeze(-1), HOLED)
    width = 6 if bidirectional else 3
    assert last.shape == (3, width)
    assert outputs.shape == (3, 5, width)
    for row, mask in enumerate(HOLED):
        alone = steps[row, mask] if mask.any() else torch.zeros(1, 2).double()
        expected, (state, _) = encoder.lstm(alone.unsqueeze(0))
        torch.testing.assert_close(outputs[row, : len(alone)], expected[0], **TOLERANCE)
        assert not outputs[row, len(alone) :].any()
        both = state[-2:, 0].flatten() if bidirectional else state[-1, 0]
        torch.testing.assert_close(last[row], both, **TOLERANCE)


def test_last_state_forgets_between_layers_only():
    assert LastState(2, 3, dropout=0.5).lstm.dropout == 0.0  # torch would warn
    assert LastState(2, 3, layers=2, dropout=0.5).lstm.dropout == 0.5


def test_transformer_reads_real_steps_only(generator):
    encoder = TransformerEncoder(8, 2, 2, 0.0).double()
    assert encoder.layers[0].inner.weight.shape == (1, 8, 16)  # twice the width
    steps = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(-1)
    found = encoder(rubbish(steps, mask, generator), mask)
    assert found.isfinite().all()
    for row, length in enumerate(LENGTHS[:2]):
        own = steps[row : row + 1, :length]
        alone = encoder(own, torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(found[row, :length], alone[0], **TOLERANCE)


def test_transformer_knows_the_order_of_steps(generator):
    encoder = TransformerEncoder(8, 2, 1, 0.0, inner_width=5).double()
    assert encoder.layers[0].inner.weight.shape == (1, 8, 5)
    steps = torch.randn(1, 3, 8, generator=generator, dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    order = torch.tensor([2, 0, 1])
    assert (encoder(steps[:, order], mask) - encoder(steps, mask)[:, order]).abs().max() > 1e-3
    # It is by their places that it knows: taken away before, they make no difference.
    places = sinusoidal_positions(3, 8, steps.device)
    moved = encoder(steps[:, order] - places, mask)
    torch.testing.assert_close(moved, encoder(steps - places, mask)[:, order], **TOLERANCE)
