"""Decoupling: against brute force, worked by hand, and by the laws of masks and absence."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mmcl.errors import ShapeError
from mmcl.models import decoupling
from mmcl.models.decoupling import agreement, elementwise_decoupling, softmax_decoupling

# Float64 cosines of eight numbers each, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-13}
CLIPS, STEPS, WIDTH = 4, 6, 8


def brute_force(unit, mask, *, three_way, confirm):
    """Agreement of every real step, pair by pair; nan at padded ones."""
    modalities, clips, steps, _ = unit.shape

    def real(m, b):
        return [j for j in range(steps) if mask[m, b, j]]

    def judge(*cosines):
        together = torch.stack(cosines)
        return together.min() if confirm == "min" else together.mean()

    def agreement_of(m, b, i):
        here = unit[m, b, i]
        others = [k for k in range(modalities) if k != m and real(k, b)]
        if not others:
            return torch.tensor(-math.inf, dtype=unit.dtype)
        if len(others) == 1:
            (k,) = others
            return torch.stack([here @ unit[k, b, j] for j in real(k, b)]).max()
        k, q = others
        if three_way:
            pairs = itertools.product(real(k, b), real(q, b))
        else:
            pairs = [(j, j) for j in real(k, b) if mask[q, b, j]]
        values = []
        for j, jj in pairs:
            cosines = [here @ unit[k, b, j], here @ unit[q, b, jj]]
            if three_way:
                cosines.append(unit[k, b, j] @ unit[q, b, jj])
            values.append(judge(*cosines))
        return torch.stack(values).max() if values else torch.tensor(-math.inf, dtype=unit.dtype)

    nothing = torch.tensor(math.nan, dtype=unit.dtype)
    found = [
        agreement_of(m, b, i) if mask[m, b, i] else nothing
        for m in range(modalities)
        for b in range(clips)
        for i in range(steps)
    ]
    return torch.stack(found).view(modalities, clips, steps)


def draw_steps(generator, modalities=3):
    return torch.randn(modalities, CLIPS, STEPS, WIDTH, generator=generator, dtype=torch.float64)


def mask_of(lengths):
    return torch.arange(STEPS) < torch.tensor(lengths).unsqueeze(-1)


MASKS = {
    "all-real": [[6, 6, 6, 6]] * 3,
    "same-lengths": [[6, 2, 5, 1]] * 3,
    "own-lengths": [[6, 1, 3, 5], [2, 6, 4, 1], [1, 5, 6, 2]],
    "one-absent": [[6, 0, 3, 5], [2, 6, 0, 1], [1, 5, 6, 0]],
    "two-absent": [[0, 4, 0, 5], [0, 0, 6, 1], [3, 0, 0, 0]],
}


@pytest.mark.parametrize("lengths", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("confirm", ["min", "mean"])
@pytest.mark.parametrize("three_way", [False, True], ids=["same-index", "three-way"])
def test_agreement_is_the_brute_force_one(generator, three_way, confirm, lengths):
    steps, mask = draw_steps(generator), mask_of(lengths)
    slow, fast = steps.clone().requires_grad_(), steps.clone().requires_grad_()
    expected = brute_force(F.normalize(slow, dim=-1), mask, three_way=three_way, confirm=confirm)
    found = agreement(F.normalize(fast, dim=-1), mask, three_way=three_way, confirm=confirm)
    torch.testing.assert_close(found[mask], expected[mask], **TOLERANCE)

    # The gradient is the one of the whole maximum, though the search has none.
    counts = mask & expected.isfinite()
    weight = torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    (found[counts] * weight[counts]).sum().backward()
    (expected[counts] * weight[counts]).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, **TOLERANCE)


@pytest.mark.parametrize("lengths", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("elements", [1, 1 << 22], ids=["step-by-step", "at-once"])
def test_agreement_without_gradient_is_the_brute_force_one(
    generator, monkeypatch, elements, lengths
):
    # The value is that of the search: no cosine is computed a second time.
    monkeypatch.setattr(decoupling, "_BLOCK_ELEMENTS", elements)
    unit, mask = F.normalize(draw_steps(generator), dim=-1), mask_of(lengths)
    # In the first clip no step is real in both audio and vision.
    mask[1, 0, 2:], mask[2, 0, :2] = False, False
    for modalities in (2, 3):
        some, real = unit[:modalities], mask[:modalities]
        expected = brute_force(some, real, three_way=False, confirm="min")
        with torch.no_grad():
            found = agreement(some, real, three_way=False)
        torch.testing.assert_close(found[real], expected[real], **TOLERANCE)


def test_agreement_without_gradient_is_not_rounded_by_autocast(generator):
    unit = F.normalize(draw_steps(generator), dim=-1).float()
    mask = mask_of(MASKS["all-real"])
    with torch.no_grad():
        whole = agreement(unit, mask, three_way=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = agreement(unit, mask, three_way=False)
    assert torch.equal(mixed, whole)


@pytest.mark.parametrize("three_way", [False, True])
@pytest.mark.parametrize("modalities", [1, 2])
def test_agreement_of_fewer_modalities(generator, three_way, modalities):
    unit = F.normalize(draw_steps(generator, modalities), dim=-1)
    mask = mask_of([[6, 2, 0, 3], [3, 4, 5, 0]][:modalities])
    expected = brute_force(unit, mask, three_way=three_way, confirm="min")
    found = agreement(unit, mask, three_way=three_way)
    torch.testing.assert_close(found[mask], expected[mask], **TOLERANCE)
    if modalities == 1:
        assert (found == -math.inf).all()


@pytest.mark.parametrize("confirm", ["min", "mean"])
def test_padded_partner_is_never_chosen_however_bad_the_real_ones(confirm):
    # Text points one way, audio's two real steps the opposite way and its padded ones the very
    # same way. Vision's step 2 would fit them: no mean may take a padded step along for it.
    unit = torch.ones(3, 1, STEPS, 1, dtype=torch.float64)
    unit[1:, :, :2] = -1.0
    mask = mask_of([[6], [2], [3]])
    for three_way in (False, True):
        found = agreement(unit, mask, three_way=three_way, confirm=confirm)
        expected = brute_force(unit, mask, three_way=three_way, confirm=confirm)
        torch.testing.assert_close(found[mask], expected[mask], **TOLERANCE)


def test_agreement_worked_by_hand():
    # Angles in degrees; cosines of their differences. Step 0 of text is at 0.
    degrees = [[0.0, 90.0], [60.0, 10.0], [20.0, 80.0]]
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    unit = torch.stack([angles.cos(), angles.sin()], dim=-1).unsqueeze(1)
    mask = torch.ones(3, 1, 2, dtype=torch.bool)

    def cosine(angle):
        return math.cos(math.radians(angle))

    same = agreement(unit, mask, three_way=False)[0, 0, 0].item()
    mean = agreement(unit, mask, three_way=False, confirm="mean")[0, 0, 0].item()
    free = agreement(unit, mask, three_way=True)[0, 0, 0].item()
    # Same index: j = 0 gives 60 and 20, j = 1 gives 10 and 80: the least cosines are at 60, 80.
    assert same == pytest.approx(cosine(60), abs=1e-12)
    # Their means: (cos 60 + cos 20) / 2 = .72, (cos 10 + cos 80) / 2 = .58.
    assert mean == pytest.approx((cosine(60) + cosine(20)) / 2, abs=1e-12)
    # Three-way: audio at 10 and vision at 20 are 10 apart from each other.
    assert free == pytest.approx(cosine(20), abs=1e-12)


@pytest.mark.parametrize("confirm", ["min", "mean"])
def test_same_index_needs_a_step_that_both_others_have(generator, confirm):
    unit = F.normalize(draw_steps(generator), dim=-1)
    mask = torch.ones(3, CLIPS, STEPS, dtype=torch.bool)
    # In the first clip the steps of audio end before those of vision begin.
    mask[1, 0, 2:], mask[2, 0, :2] = False, False
    agreed = agreement(unit, mask, three_way=False, confirm=confirm)
    assert (agreed[0, 0] == -math.inf).all()
    assert agreed[0, 1:].isfinite().all()
    # Text has a step where audio has one, and another where vision has one.
    expected = brute_force(unit, mask, three_way=False, confirm=confirm)
    torch.testing.assert_close(agreed[mask], expected[mask], **TOLERANCE)


def test_three_way_needs_the_partners_to_agree_with_each_other():
    # Text at 0; audio at +50, vision at -50: each within 50 of text, 100 from each other.
    angles = torch.tensor([0.0, 50.0, -50.0], dtype=torch.float64).deg2rad()
    unit = torch.stack([angles.cos(), angles.sin()], dim=-1).view(3, 1, 1, 2)
    mask = torch.ones(3, 1, 1, dtype=torch.bool)
    found = agreement(unit, mask, three_way=True)[0].item()
    assert found == pytest.approx(math.cos(math.radians(100)), abs=1e-12)


def test_three_way_is_exact_up_to_as_many_candidates_as_steps(generator):
    steps = torch.randn(3, 2, 12, 2, generator=generator, dtype=torch.float64)
    unit, mask = F.normalize(steps, dim=-1), torch.ones(3, 2, 12, dtype=torch.bool)
    exact = brute_force(unit, mask, three_way=True, confirm="min")
    torch.testing.assert_close(agreement(unit, mask, three_way=True, candidates=12), exact,
                               **TOLERANCE)  # fmt: skip
    gaps = []
    for candidates in (1, 2, 4):
        few = agreement(unit, mask, three_way=True, candidates=candidates)
        assert (few <= exact + 1e-13).all()  # never more than there is
        gaps.append((exact - few).mean().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0


@pytest.mark.parametrize("confirm", ["min", "mean"])
@pytest.mark.parametrize("three_way", [False, True])
def test_blocks_change_nothing(generator, monkeypatch, three_way, confirm):
    unit = F.normalize(draw_steps(generator), dim=-1)
    mask = mask_of(MASKS["one-absent"])
    whole = agreement(unit, mask, three_way=three_way, confirm=confirm)
    for elements in (1, 4 * CLIPS * 8 * WIDTH):  # one step at a time, and four
        monkeypatch.setattr(decoupling, "_BLOCK_ELEMENTS", elements)
        blocks = agreement(unit, mask, three_way=three_way, confirm=confirm)
        assert torch.equal(blocks, whole)  # the same partners, hence the same bits


@pytest.mark.parametrize("three_way", [False, True])
def test_agreement_does_not_see_padded_steps(generator, three_way):
    steps, mask = draw_steps(generator), mask_of(MASKS["own-lengths"])
    noise = torch.randn(steps.shape, generator=generator, dtype=torch.float64)
    rubbish = torch.where(mask.unsqueeze(-1), steps, noise)
    found = agreement(F.normalize(rubbish, dim=-1), mask, three_way=three_way)
    expected = agreement(F.normalize(steps, dim=-1), mask, three_way=three_way)
    assert torch.equal(found[mask], expected[mask])


# Element-wise


def test_elementwise_worked_by_hand():
    z = torch.tensor([[[[2.0, -4.0], [1.0, 3.0], [5.0, 5.0]]]])
    agreed = torch.tensor([[[0.4, 0.4 + 0.1 * math.log(3), 0.9]]])
    mask = torch.tensor([[[True, True, False]]])
    parts = elementwise_decoupling(z, agreed, mask, torch.tensor(0.4), torch.tensor(0.1))
    # Logits 0 and log 3: one half and three quarters. Float32, one sigmoid.
    close = {"rtol": 0.0, "atol": 1e-5}
    torch.testing.assert_close(parts.commonality, torch.tensor([[[0.5, 0.75, 0.0]]]), **close)
    expected = torch.tensor([[[[1.0, -2.0], [0.75, 2.25], [0.0, 0.0]]]])
    torch.testing.assert_close(parts.common, expected, **close)
    expected = torch.tensor([[[[1.0, -2.0], [0.25, 0.75], [0.0, 0.0]]]])
    torch.testing.assert_close(parts.specific, expected, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_elementwise_parts_add_up_to_the_whole(generator, dtype):
    z = torch.randn(3, 50, 20, 8, generator=generator, dtype=dtype)
    agreed = 2 * torch.rand(3, 50, 20, generator=generator, dtype=dtype) - 1
    mask = torch.rand(3, 50, 20, generator=generator) < 0.8
    parts = elementwise_decoupling(z, agreed, mask, torch.tensor(0.4), torch.tensor(0.1))
    total, real = (parts.common + parts.specific)[mask], z[mask]
    # Z - C is rounded once and the sum once more: one unit in the last place at most, ...
    ulp = torch.nextafter(real.abs(), torch.full_like(real, math.inf)) - real.abs()
    assert ((total - real).abs() <= ulp).all()
    # ... and where the subtraction is exact, as it is for half of all kappa, none.
    assert (total == real).double().mean() > 0.5
    assert (parts.common[~mask] == 0).all()
    assert (parts.specific[~mask] == 0).all()
    assert (parts.commonality[~mask] == 0).all()


def test_unconfirmed_steps_are_wholly_specific_and_have_a_gradient(generator):
    z = torch.randn(3, 2, 4, 8, generator=generator).requires_grad_()
    agreed = torch.zeros(3, 2, 4)
    agreed[:, 0] = -math.inf
    threshold = torch.tensor(0.4, requires_grad=True)
    temperature = torch.tensor(0.1, requires_grad=True)
    mask = torch.ones(3, 2, 4, dtype=torch.bool)

    parts = elementwise_decoupling(z, agreed, mask, threshold, temperature)
    (parts.common.square().sum() + parts.specific.sum()).backward()

    assert (parts.commonality[:, 0] == 0).all()
    assert torch.equal(parts.specific[:, 0], z[:, 0])
    for tensor in (z, threshold, temperature):
        assert tensor.grad.isfinite().all()
    assert temperature.grad != 0


# Softmax maps


@pytest.mark.parametrize("residual", [False, True])
def test_softmax_gives_padded_columns_no_weight(generator, residual):
    z = draw_steps(generator)
    mask = mask_of([6, 2, 5, 1])
    noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    rubbish = torch.where(mask.unsqueeze(-1), z, noise)
    clean = softmax_decoupling(z, F.normalize(z, dim=-1), mask, residual=residual)
    dirty = softmax_decoupling(rubbish, F.normalize(rubbish, dim=-1), mask, residual=residual)
    rows = mask.expand(3, -1, -1)
    assert torch.equal(dirty.common[rows], clean.common[rows])
    assert torch.equal(dirty.specific[rows], clean.specific[rows])
    assert torch.equal(dirty.commonality, clean.commonality)
    assert (clean.commonality[~rows] == 0).all()


def test_softmax_commonality_sums_to_one(generator):
    z = draw_steps(generator)
    parts = softmax_decoupling(z, F.normalize(z, dim=-1), mask_of([6, 2, 5, 1]))
    torch.testing.assert_close(
        parts.commonality.sum(dim=-1), torch.ones(3, CLIPS).double(), **TOLERANCE
    )


def test_softmax_residual_is_what_common_leaves(generator):
    z = draw_steps(generator)
    mask = mask_of([6, 2, 5, 1])
    parts = softmax_decoupling(z, F.normalize(z, dim=-1), mask, temperature=0.1, residual=True)
    assert torch.equal(parts.specific, z - parts.common)


def test_softmax_temperature_sharpens(generator):
    # The step that agrees best, with both others, has most of a cold map and little of a warm.
    z = draw_steps(generator)
    z[1:] = z[:1]  # every step agrees with its own index
    mask = mask_of([6, 6, 6, 6])
    cold = softmax_decoupling(z, F.normalize(z, dim=-1), mask, temperature=0.01)
    warm = softmax_decoupling(z, F.normalize(z, dim=-1), mask)
    # The next best cosine of random vectors is some tenths below: e ** -20 and less.
    torch.testing.assert_close(cold.common, z, rtol=0.0, atol=1e-3)
    assert (warm.common - z).abs().mean() > 0.3


def test_softmax_of_a_clip_without_steps_is_finite(generator):
    z = draw_steps(generator).requires_grad_()
    parts = softmax_decoupling(z, F.normalize(z, dim=-1), mask_of([6, 0, 5, 0]))
    (parts.common.sum() + parts.specific.square().sum()).backward()
    assert all(part.isfinite().all() for part in parts)
    assert z.grad.isfinite().all()


def test_softmax_of_one_modality_compares_it_with_itself(generator):
    z = draw_steps(generator, modalities=1)
    parts = softmax_decoupling(z, F.normalize(z, dim=-1), mask_of([6, 6, 6, 6]))
    unit = F.normalize(z[0], dim=-1)
    expected = (unit @ unit.transpose(1, 2)).softmax(dim=-1) @ z[0]
    torch.testing.assert_close(parts.common[0], expected, **TOLERANCE)


def test_softmax_refuses_a_mask_that_does_not_fit(generator):
    z = draw_steps(generator)
    with pytest.raises(ShapeError) as caught:
        softmax_decoupling(z, F.normalize(z, dim=-1), torch.ones(3, CLIPS, STEPS, dtype=torch.bool))
    assert str(caught.value) == "step_mask must have shape [4, 6] [clips, steps], got [3, 4, 6]"
