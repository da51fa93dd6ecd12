"""Fusion and heads: absent modalities, single clips, order of the layers."""

import pytest
import torch
from torch.nn import functional as F

from mmcl.models.fusion import CalibratedHead, GatedFusion, ReleasedHead

# Float64, sums of at most sixteen terms of size one, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-13}
CLIPS, WIDTH = 5, 8


@pytest.fixture
def fusion(randomise):
    return randomise(GatedFusion(3, WIDTH).double())


@pytest.fixture
def parts(generator):
    return torch.randn(2, 3, CLIPS, WIDTH, generator=generator, dtype=torch.float64)


@pytest.fixture
def present():
    return torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0]], dtype=torch.float64)


def test_fusion_is_the_mean_of_those_present(fusion, parts, present):
    fused = fusion(*parts, present)
    gated = fusion.gated(*parts)
    for clip in range(CLIPS):
        here = [m for m in range(3) if present[m, clip]]
        expected = gated[here, clip].mean(dim=0) if here else torch.zeros(2 * WIDTH).double()
        torch.testing.assert_close(fused[clip], expected, **TOLERANCE)


def test_absent_modality_cannot_matter(fusion, parts, present, generator):
    noise = 50 * torch.randn(parts.shape, generator=generator, dtype=torch.float64)
    changed = torch.where(present.bool().unsqueeze(-1), parts, noise)
    assert torch.equal(fusion(*changed, present), fusion(*parts, present))


def test_gate_opens_between_nought_and_all(fusion, parts):
    both = torch.cat([parts[0], parts[1]], dim=-1)
    opening = fusion.gated(*parts) / both
    assert (opening > 0).all()
    assert (opening < 1).all()
    # One opening per modality and clip, the same for every element: float64 quotients.
    torch.testing.assert_close(opening, opening[..., :1].expand_as(opening), **TOLERANCE)


def test_calibrated_head_is_its_equation(randomise, generator):
    head = randomise(CalibratedHead(WIDTH, 3, dropout=0.5).double()).eval()
    hidden = torch.randn(CLIPS, 2 * WIDTH, generator=generator, dtype=torch.float64)
    inner = F.relu(hidden @ head.linear.weight.T + head.linear.bias)
    expected = inner @ head.output.weight.T + head.output.bias
    torch.testing.assert_close(head(hidden), expected, **TOLERANCE)


def test_calibrated_head_has_no_batch_statistics(randomise, generator):
    head = randomise(CalibratedHead(WIDTH, 3, dropout=0.0).double()).train()
    hidden = torch.randn(CLIPS, 2 * WIDTH, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(head(hidden[:1]), head(hidden)[:1], **TOLERANCE)
    assert not list(head.buffers())


def test_released_head_normalises_the_batch_after_relu(randomise, generator):
    head = randomise(ReleasedHead(WIDTH, 3, dropout=0.0).double()).train()
    hidden = torch.randn(CLIPS, 2 * WIDTH, generator=generator, dtype=torch.float64)
    inner = F.relu(hidden @ head.linear.weight.T + head.linear.bias)
    normal = (inner - inner.mean(dim=0)) / (inner.var(dim=0, correction=0) + 1e-5).sqrt()
    expected = (normal * head.norm.weight + head.norm.bias) @ head.output.weight.T
    torch.testing.assert_close(head(hidden), expected + head.output.bias, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kind", [ReleasedHead, CalibratedHead])
def test_dropout_acts_in_training_only(randomise, generator, kind):
    head = randomise(kind(WIDTH, 3, dropout=0.5).double())
    hidden = torch.randn(CLIPS, 2 * WIDTH, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    assert torch.equal(head.eval()(hidden), head(hidden))
    assert not torch.equal(head.train()(hidden), head(hidden))
