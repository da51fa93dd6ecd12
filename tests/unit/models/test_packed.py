"""Packed steps: what the layers themselves give, with every gradient, and what is left out."""

import pytest
import torch
from torch.nn import functional as F

from mmcl.models import packed
from mmcl.models.attention import IntraModalAttention
from mmcl.models.calibration import _Unit
from mmcl.models.decoupling import _Split
from mmcl.models.layers import LONG_SEQUENCE, ModalityBlock, weighted_mean
from mmcl.models.mmcl import _key_bias
from mmcl.models.packed import attend_packed, can_pack, is_hard, pack, transform_packed

# Float64, the sums of one block in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
MODALITIES, CLIPS, STEPS, WIDTH, HEADS, INNER = 3, 5, 7, 8, 2, 12

# Which steps count: all; some, of one clip none and of one modality none; and by how much.
WEIGHTS = ("all", "some", "by-degrees")


@pytest.fixture
def block(randomise):
    return randomise(ModalityBlock(MODALITIES, WIDTH, HEADS, INNER, dropout=0.25).double()).train()


@pytest.fixture
def attention(randomise):
    return randomise(IntraModalAttention(MODALITIES, WIDTH, HEADS).double())


@pytest.fixture
def steps(generator):
    shape = (MODALITIES, CLIPS, STEPS, WIDTH)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def degrees(generator):
    shape = (MODALITIES, CLIPS, STEPS)
    return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture(params=WEIGHTS)
def weight(request, degrees):
    if request.param == "all":
        return torch.ones_like(degrees)
    kept = (degrees.detach() > 0.4).double()
    kept[:, 1], kept[2] = 0.0, 0.0
    return kept if request.param == "some" else kept * degrees


def gradients(pooled, *of):
    # Unequal factors, so that no two clips or channels can be mistaken for each other.
    factors = torch.arange(1.0, pooled.numel() + 1, dtype=pooled.dtype).view_as(pooled).sin()
    wanted = [each for each in of if each.requires_grad]
    found = torch.autograd.grad(
        (pooled * factors).sum(), wanted, allow_unused=True, retain_graph=True
    )
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def same(found, expected, *of):
    torch.testing.assert_close(found, expected, **TOLERANCE)
    for one, other in zip(gradients(found, *of), gradients(expected, *of), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def test_packed_block_is_the_block(block, steps, weight, degrees):
    of = (steps, degrees, *block.parameters())
    torch.manual_seed(3)
    expected = weighted_mean(block(steps, _key_bias(weight)), weight)
    torch.manual_seed(3)  # and the same dropout
    same(transform_packed(block, steps, weight.unsqueeze(0))[0], expected, *of)


def test_packed_attention_is_the_attention(attention, steps, weight, degrees):
    expected = weighted_mean(attention(steps, _key_bias(weight)), weight)
    of = (steps, degrees, *attention.parameters())
    same(attend_packed(attention, steps, weight), expected, *of)


def test_ways_of_weighting_are_each_what_it_is_alone(block, steps, generator):
    """The first with dropout and gradient, the second, of other steps, with neither."""
    kept = torch.rand(steps.shape[:-1], generator=generator, dtype=torch.float64) > 0.5
    both = torch.stack([kept, ~kept]).double()  # as many rows as there are steps
    of = (steps, *block.parameters())
    torch.manual_seed(3)
    found = transform_packed(block, steps, both)
    torch.manual_seed(3)
    same(found[0], transform_packed(block, steps, both[:1])[0], *of)
    assert not any(grad.any() for grad in gradients(found[1], *of[:-2]))  # but the last gain, shift
    with torch.no_grad():
        torch.testing.assert_close(
            found[1], transform_packed(block, steps, both[1:])[0], **TOLERANCE
        )


def test_a_first_way_that_keeps_nothing_teaches_nothing(block, steps):
    both = torch.stack([torch.zeros(steps.shape[:-1]), torch.ones(steps.shape[:-1])]).double()
    found = transform_packed(block, steps, both)
    assert not found[0].any()
    assert found[1].any()
    assert not any(grad.any() for grad in gradients(found[0], steps, *block.parameters()))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 24, 25, 40])
def test_any_number_of_slots_is_right(block, generator, count):
    steps = torch.randn(MODALITIES, 2, count, WIDTH, generator=generator, dtype=torch.float64)
    weight = (torch.rand(steps.shape[:-1], generator=generator) < 0.9).double()
    weight[0, 0] = 1.0  # a clip that keeps all
    expected = weighted_mean(block.eval()(steps, _key_bias(weight)), weight)
    torch.testing.assert_close(
        transform_packed(block, steps, weight.unsqueeze(0))[0], expected, **TOLERANCE
    )


@pytest.mark.parametrize(
    ("rows", "slots"), [(0, 16), (9, 16), (16, 16), (17, 17), (24, 24), (25, 32), (48, 48)]
)
def test_slots_are_whole_sixteens_or_not_far_beyond(rows, slots):
    assert packed._handy(rows) == slots


def test_what_is_dropped_is_never_looked_at(block, steps):
    weight = torch.ones(MODALITIES, CLIPS, STEPS, dtype=torch.float64)
    weight[1, 2, 3:5] = 0.0
    rubbish = steps.detach().clone()
    rubbish[1, 2, 3:5] = torch.nan
    block.eval()
    clean, dirty = (
        transform_packed(block, each, weight.unsqueeze(0))[0] for each in (steps, rubbish)
    )
    assert torch.equal(clean, dirty)


def test_nothing_that_counts_is_zero(block, attention, steps):
    nothing = torch.zeros(MODALITIES, CLIPS, STEPS, dtype=torch.float64)
    for pooled in (
        transform_packed(block, steps, nothing.unsqueeze(0))[0],
        attend_packed(attention, steps, nothing),
    ):
        assert torch.equal(pooled, torch.zeros_like(pooled))
        assert not any(grad.any() for grad in gradients(pooled, steps))


def test_rows_are_where_the_steps_are():
    # Clip 0 keeps steps 0 and 2, clip 1 none, clip 2 its step 1.
    weight = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    rows, sizes = pack(weight, heads=1)
    assert sizes == [3]
    assert rows.at.tolist() == [0, 2, 7]
    assert rows.clip.tolist() == [0, 0, 2]
    assert rows.first.tolist() == [0, 2, 2]
    assert rows.slot.tolist() == [0, 1, 32]
    assert rows.row[[0, 1, 32]].tolist() == [0, 1, 2]
    assert (rows.bias == 0).nonzero().tolist() == [[0, 0], [0, 1], [2, 0]]


def test_hard_is_all_or_nothing_and_not_learnt():
    hard = torch.tensor([0.0, 1.0, 1.0])
    assert is_hard(hard)
    assert not is_hard(torch.tensor([0.0, 0.5, 1.0]))
    assert not is_hard(hard.clone().requires_grad_())


@pytest.mark.parametrize(
    ("shape", "may"),
    [
        pytest.param((3, 64, 20, 8), True, id="a-batch"),
        pytest.param((3, 1, 20, 8), False, id="one-clip"),
        pytest.param((3, 2, LONG_SEQUENCE, 8), False, id="long"),
    ],
)
def test_many_short_clips_are_packed(shape, may):
    assert can_pack(torch.zeros(shape)) is may


def test_reduced_precision_is_left_to_torch():
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_pack(torch.zeros(3, 64, 20, 8))


def test_export_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert not can_pack(torch.zeros(3, 64, 20, 8))


# The two smaller functions with a gradient of their own


def test_unit_steps_and_their_gradient(generator):
    z = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    mean = torch.randn(2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    slope = torch.rand(2, 5, generator=generator, dtype=torch.float64).add(0.5).requires_grad_()
    expected = F.normalize((z - mean[:, None, None]) * slope[:, None, None], dim=-1)
    same(_Unit.apply(z, mean, slope), expected, z, mean, slope)


def test_unit_step_of_nothing_is_zero_and_has_a_gradient():
    z = torch.full((1, 1, 1, 4), 2.0, dtype=torch.float64).requires_grad_()
    unit = _Unit.apply(z, torch.full((1, 4), 2.0).double(), torch.ones(1, 4).double())
    assert not unit.any()
    assert torch.isfinite(torch.autograd.grad(unit.sum(), z)[0]).all()


def test_split_and_its_gradient(generator):
    z = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    share = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    common = share.unsqueeze(-1) * z
    expected = torch.stack([common, z - common])
    same(torch.stack(_Split.apply(z, share)), expected, z, share)
