"""Layers: worked by hand, against torch's own, and by the laws of masks and weights."""

import math

import pytest
import torch
from torch import nn

from mmcl.models import layers
from mmcl.models.layers import (
    NEVER,
    BatchNorm,
    Dropout,
    ModalityBlock,
    ModalityLinear,
    ModalityNorm,
    SelfAttention,
    sinusoidal_positions,
    weighted_mean,
)

# Float64, sums of a few dozen terms of size one, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture
def steps(generator):
    return torch.randn(3, 2, 5, 8, generator=generator, dtype=torch.float64)


def test_weighted_mean_worked_by_hand():
    x = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [4.0, 50.0]]])
    mean = weighted_mean(x, torch.tensor([[1.0, 0.0, 0.5]]))
    # (1 * 1 + 0.5 * 4) / 1.5 and (1 * 10 + 0.5 * 50) / 1.5; float32, two terms.
    torch.testing.assert_close(mean, torch.tensor([[2.0, 35 / 1.5]]), rtol=0.0, atol=1e-5)


def test_weighted_mean_fades_where_little_is_kept():
    x = torch.tensor([[2.0, 6.0], [4.0, 8.0]])
    assert weighted_mean(x, torch.tensor([0.25, 0.25])).tolist() == [1.5, 3.5]
    assert weighted_mean(x, torch.tensor([0.0, 0.0])).tolist() == [0.0, 0.0]


def test_modality_linear_gives_every_modality_its_own_weights(randomise, steps):
    layer = randomise(ModalityLinear(3, 8, 6).double())
    y = layer(steps)
    assert y.shape == (3, 2, 5, 6)
    for m in range(3):
        torch.testing.assert_close(y[m], steps[m] @ layer.weight[m] + layer.bias[m], **TOLERANCE)


def test_modality_norm_is_torch_layer_norm_per_modality(randomise, steps):
    layer = randomise(ModalityNorm(3, 8).double())
    for m in range(3):
        own = nn.LayerNorm(8).double()
        own.load_state_dict({"weight": layer.weight[m], "bias": layer.bias[m]})
        torch.testing.assert_close(layer(steps)[m], own(steps[m]), **TOLERANCE)


def _attended(attention, steps, weight):
    """Contexts under a bias that learns, and the gradients of everything that does."""
    x, weight = steps.clone().requires_grad_(), weight.clone().requires_grad_()
    bias = torch.where(weight > 0, weight.clamp(min=1e-9).log(), NEVER)
    contexts = attention(x, bias)
    wanted = [x, weight, *attention.parameters()]
    return [contexts, *torch.autograd.grad(contexts.square().sum(), wanted)]


@pytest.mark.parametrize("project", [True, False])
def test_attention_to_long_sequences_is_the_same(randomise, steps, generator, monkeypatch, project):
    attention = randomise(SelfAttention(3, 8, 2, project=project).double())
    weight = torch.rand(3, 2, 5, generator=generator, dtype=torch.float64)
    weight[0, 1, 3:] = 0.0
    weight[2, 0, :4] = 0.0
    short = _attended(attention, steps, weight)
    monkeypatch.setattr(layers, "LONG_SEQUENCE", 5)
    # Float64; the bias of a key that never counts costs four digits of its scores.
    for one, other in zip(_attended(attention, steps, weight), short, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-10)


def _kept_for_the_gradient(run):
    """Numbers that a computation keeps for its gradient, each storage once."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.update({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}), x)[
            1
        ],
        lambda x: x,
    ):
        run()
    return sum(kept.values())


def test_attention_to_long_sequences_keeps_memory_linear_in_them(generator):
    attention = SelfAttention(2, 8, 2, project=False)

    def kept(n):
        x = torch.randn(2, 3, n, 8, generator=generator, requires_grad=True)
        bias = torch.randn(2, 3, n, generator=generator, requires_grad=True)
        return _kept_for_the_gradient(lambda: attention(x, bias))

    n = layers.LONG_SEQUENCE
    assert kept(4 * n) < 4.5 * kept(n)
    assert kept(n) < kept(n - 1)  # it was quadratic there


def test_modality_block_is_torch_encoder_layer(randomise, steps):
    block = randomise(ModalityBlock(3, 8, 2, 12, dropout=0.0).double())
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    bias = torch.where(mask, 0.0, NEVER).double().expand(3, 2, 5)
    encoded = block(steps, bias)
    for m in range(3):
        own = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True).double()
        qkv, out = block.attention.qkv, block.attention.out
        copied = {
            "self_attn.in_proj_weight": qkv.weight[m].T,
            "self_attn.in_proj_bias": qkv.bias[m, 0],
            "self_attn.out_proj.weight": out.weight[m].T,
            "self_attn.out_proj.bias": out.bias[m, 0],
            "linear1.weight": block.inner.weight[m].T,
            "linear1.bias": block.inner.bias[m, 0],
            "linear2.weight": block.outer.weight[m].T,
            "linear2.bias": block.outer.bias[m, 0],
        }
        for name, norm in (("norm1", block.norm1), ("norm2", block.norm2)):
            copied |= {f"{name}.weight": norm.weight[m], f"{name}.bias": norm.bias[m]}
        own.load_state_dict(copied)
        expected = own(steps[m], src_key_padding_mask=~mask)
        torch.testing.assert_close(encoded[m][mask], expected[mask], **TOLERANCE)


def test_never_takes_a_key_out_exactly(randomise, steps, generator):
    attention = randomise(SelfAttention(3, 8, 2, project=True).double())
    bias = torch.zeros(3, 2, 5, dtype=torch.float64)
    bias[..., 3:] = NEVER
    changed = steps.clone()
    changed[:, :, 3:] = torch.randn(3, 2, 2, 8, generator=generator, dtype=torch.float64)

    context = attention(steps, bias)[:, :, :3]

    assert torch.equal(attention(changed, bias)[:, :, :3], context)
    short = attention(steps[:, :, :3], bias[..., :3])
    torch.testing.assert_close(short, context, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_is_exactly_zero_in_every_precision(dtype):
    weights = torch.tensor([0.0, NEVER, 80.0], dtype=dtype).softmax(dim=0)
    assert weights[1] == 0


def test_log_of_a_count_counts_a_key_so_often(randomise, steps):
    attention = randomise(SelfAttention(3, 8, 2, project=False).double())
    twice = torch.cat([steps, steps[:, :, 4:]], dim=2)  # the last step a second time
    bias = torch.zeros(3, 2, 5, dtype=torch.float64)
    bias[..., 4] = math.log(2)

    expected = attention(twice, torch.zeros(3, 2, 6, dtype=torch.float64))[:, :, :5]

    torch.testing.assert_close(attention(steps, bias), expected, **TOLERANCE)


def test_attention_to_nothing_is_a_number(randomise, steps):
    attention = randomise(SelfAttention(3, 8, 2, project=True).double())
    context = attention(steps, torch.full((3, 2, 5), NEVER, dtype=torch.float64))
    assert context.isfinite().all()


def test_batch_norm_of_many_is_torch_own(randomise, generator):
    layer = randomise(BatchNorm(4)).train()
    own = nn.BatchNorm1d(4).train()
    own.load_state_dict(layer.state_dict())
    x = torch.randn(6, 4, generator=generator)
    assert torch.equal(layer(x), own(x))
    assert torch.equal(layer.running_mean, own.running_mean)
    assert torch.equal(layer.eval()(x), own.eval()(x))


def test_batch_norm_of_one_uses_running_statistics_and_leaves_them(randomise, generator):
    layer = randomise(BatchNorm(4))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    x = torch.randn(1, 4, generator=generator)

    in_training = layer.train()(x)

    assert torch.equal(in_training, layer.eval()(x))
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name])


def test_positions_worked_by_hand():
    positions = sinusoidal_positions(3, 4, torch.device("cpu"))
    slow = 10_000.0**-0.5
    expected = [
        [math.sin(at), math.cos(at), math.sin(at * slow), math.cos(at * slow)] for at in range(3)
    ]
    # Float32 sines of numbers up to two.
    torch.testing.assert_close(
        positions, math.sqrt(2) * torch.tensor(expected), rtol=0.0, atol=1e-6
    )


def test_positions_have_unit_mean_square_and_differ():
    positions = sinusoidal_positions(50, 8, torch.device("cpu"))
    # sin^2 + cos^2 = 1 for every pair, in float32.
    torch.testing.assert_close(positions.square().mean(dim=1), torch.ones(50), rtol=0, atol=1e-5)
    assert torch.cdist(positions, positions).fill_diagonal_(9).min() > 0.05
    assert sinusoidal_positions(3, 5, torch.device("cpu")).shape == (3, 5)


# Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(1)
    ones = torch.ones(1001, 999, requires_grad=True)  # a million draws; not a whole word
    thinned = Dropout(rate).train()(ones)
    dropped = min(round(rate * 256), 255) / 256
    assert len(thinned.unique()) == 2
    assert thinned.max().item() == pytest.approx(1 / (1 - dropped), rel=1e-6)  # float32
    # Five standard deviations of a mean of a million draws.
    spread = 5e-3 * math.sqrt(dropped * (1 - dropped))
    assert (thinned == 0).float().mean().item() == pytest.approx(dropped, abs=spread)
    thinned.sum().backward()
    assert torch.equal(ones.grad, thinned)  # of ones, the gradient is the mask


def test_dropout_drops_every_place_of_a_word():
    torch.manual_seed(1)
    thinned = Dropout(0.5).train()(torch.ones(4096, 8, requires_grad=True))
    shares = (thinned == 0).float().mean(dim=0)  # one share per byte of the words drawn
    assert (shares - 0.5).abs().max() < 5 * 0.5 / math.sqrt(4096)


def test_dropout_drops_nothing_where_nothing_is_learnt(steps):
    dropout = Dropout(0.5).train()
    assert not torch.equal(dropout(steps), steps)
    with torch.no_grad():
        assert torch.equal(dropout(steps), steps)
    assert torch.equal(dropout.eval()(steps), steps)


def test_dropout_follows_the_seed(steps):
    dropout = Dropout(0.5).train()
    torch.manual_seed(3)
    first = dropout(steps)
    torch.manual_seed(3)
    assert torch.equal(dropout(steps), first)
