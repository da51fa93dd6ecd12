"""Losses and rewards: worked by hand, against brute force, and by the laws they must keep."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mmcl.corpus.schema import Task
from mmcl.errors import ShapeError
from mmcl.learning import objectives
from mmcl.learning.objectives import (
    alignment_loss,
    as_released_reward,
    item_losses,
    leave_one_out_advantage,
    prediction_reward,
)

# One softmax and a sum of at most four float32 terms: a few ulps, no more.
TOLERANCE = {"rtol": 0.0, "atol": 1e-6}
# Float64 sums of at most some hundred exponentials.
EXACT = {"rtol": 0.0, "atol": 1e-10}

REGRESSION = Task(kind="regression", low=-3, high=3)
CLASSES = Task(kind="classes", names=("calm", "happy", "sad"))
EMOTIONS = Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry"))
TWO_EMOTIONS = Task(kind="emotions", names=("happy", "sad"))

# Every axis has another size or other values, so that no softmax or mean over the wrong one
# can agree by luck. Of scores as odds: 5 of 8 and 1 of 4; then 3 of 8, 6 of 7, 1 of 6, 2 of 7.
CLASS_ODDS = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]])
CLASS_TARGETS = torch.tensor([2, 0])
EMOTION_ODDS = torch.tensor(
    [[[3.0, 5.0], [6.0, 1.0]], [[1.0, 5.0], [5.0, 2.0]], [[1.0, 1.0], [9.0, 1.0]]]
)
EMOTION_TARGETS = torch.tensor([[0, 0], [0, 1], [1, 1]])
EMOTION_CHANCES = [[3 / 8, 6 / 7], [1 / 6, 2 / 7], [1 / 2, 1 / 10]]


def test_regression_loss_worked_by_hand():
    losses = item_losses(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, -2.5, 0.5]), REGRESSION)
    assert losses.tolist() == [2.0, 0.5, 0.0]


def test_class_loss_worked_by_hand():
    losses = item_losses(CLASS_ODDS.log(), CLASS_TARGETS, CLASSES)
    expected = torch.tensor([-math.log(5 / 8), -math.log(1 / 4)])
    torch.testing.assert_close(losses, expected, **TOLERANCE)


def test_emotion_loss_worked_by_hand():
    losses = item_losses(EMOTION_ODDS.log(), EMOTION_TARGETS, TWO_EMOTIONS)
    expected = torch.tensor([-(math.log(a) + math.log(b)) / 2 for a, b in EMOTION_CHANCES])
    torch.testing.assert_close(losses, expected, **TOLERANCE)


def test_rewards_worked_by_hand():
    def paid(scores, targets, task, scale):
        return prediction_reward(scores, targets, task, scale=scale)

    scores, targets = torch.tensor([1.0, -2.0]), torch.tensor([3.0, -2.5])
    expected = torch.tensor([math.exp(-2), math.exp(-0.5)])
    torch.testing.assert_close(paid(scores, targets, REGRESSION, "probability"), expected,
                               **TOLERANCE)  # fmt: skip
    assert paid(scores, targets, REGRESSION, "log").tolist() == [-2.0, -0.5]

    classes = (CLASS_ODDS.log(), CLASS_TARGETS, CLASSES)
    torch.testing.assert_close(paid(*classes, "probability"), torch.tensor([5 / 8, 1 / 4]),
                               **TOLERANCE)  # fmt: skip
    torch.testing.assert_close(
        paid(*classes, "log"), torch.tensor([5 / 8, 1 / 4]).log(), **TOLERANCE
    )

    emotions = (EMOTION_ODDS.log(), EMOTION_TARGETS, TWO_EMOTIONS)
    chances = torch.tensor(EMOTION_CHANCES)
    torch.testing.assert_close(paid(*emotions, "probability"), chances.sum(dim=1), **TOLERANCE)
    torch.testing.assert_close(paid(*emotions, "log"), chances.log().mean(dim=1), **TOLERANCE)


def draw(task, clips, generator):
    names = len(task.names)
    if task.kind == "regression":
        return torch.randn(clips, generator=generator), torch.randn(clips, generator=generator)
    if task.kind == "classes":
        scores = torch.randn(clips, names, generator=generator)
        return scores, torch.randint(names, (clips,), generator=generator)
    scores = torch.randn(clips, names, 2, generator=generator)
    return scores, torch.randint(2, (clips, names), generator=generator)


@pytest.mark.parametrize("scale", ["log", "probability"])
@pytest.mark.parametrize("task", [REGRESSION, CLASSES, EMOTIONS], ids=lambda t: t.kind)
def test_reward_follows_its_own_clip(generator, task, scale):
    # Fault F2, mended.
    scores, targets = draw(task, 5, generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    paid = prediction_reward(scores, targets, task, scale=scale)
    shuffled = prediction_reward(scores[order], targets[order], task, scale=scale)
    torch.testing.assert_close(shuffled, paid[order], **TOLERANCE)
    alone = prediction_reward(scores[:1], targets[:1], task, scale=scale)
    assert alone.shape == (1,)
    torch.testing.assert_close(alone, paid[:1], **TOLERANCE)
    other = scores.clone()
    other[1:] += torch.rand(other[1:].shape, generator=generator)
    assert torch.equal(prediction_reward(other, targets, task, scale=scale)[:1], paid[:1])


@pytest.mark.parametrize("scale", ["log", "probability"])
@pytest.mark.parametrize("task", [REGRESSION, CLASSES, EMOTIONS], ids=lambda t: t.kind)
def test_reward_carries_no_gradient_and_falls_with_the_loss(generator, task, scale):
    scores, targets = draw(task, 50, generator)
    paid = prediction_reward(scores.requires_grad_(), targets, task, scale=scale)
    assert not paid.requires_grad
    losses = item_losses(scores, targets, task).detach()
    assert torch.corrcoef(torch.stack([paid, losses]))[0, 1] < -0.8


def test_rewards_of_points_are_those_of_the_field():
    points = Task(kind="regression", low=0, high=60)  # a point of the field is ten of these
    scores, targets = torch.tensor([10.0, 35.0]), torch.tensor([30.0, 30.0])
    assert prediction_reward(scores, targets, points).tolist() == [-2.0, -0.5]
    paid = prediction_reward(scores, targets, points, scale="probability")
    torch.testing.assert_close(paid, torch.tensor([-2.0, -0.5]).exp(), **TOLERANCE)
    # The loss that validation reports is in the label's own unit.
    assert item_losses(scores, targets, points).tolist() == [20.0, 5.0]


def test_released_reward_worked_by_hand():
    # Fault F2: the rows of [b * e, 2] read as if they were the clips. With two emotions
    # clip 0 reads row 0 (clip 0, first emotion), clip 1 row 1 (clip 0, second emotion),
    # clip 2 row 2 (clip 1, first emotion), each with its own targets.
    rows = [[3 / 8, 5 / 8], [6 / 7, 1 / 7], [1 / 6, 5 / 6]]
    expected = [rows[0][0] + rows[0][0], rows[1][0] + rows[1][1], rows[2][1] + rows[2][1]]
    paid = as_released_reward(EMOTION_ODDS.log(), EMOTION_TARGETS, TWO_EMOTIONS)
    torch.testing.assert_close(paid, torch.tensor(expected), **TOLERANCE)


def test_released_reward_pays_for_another_clip(generator):
    # Clip i is paid for clip i // e: with eight clips and four emotions, for clips 0 and 1.
    scores, targets = draw(EMOTIONS, 8, generator)
    paid = as_released_reward(scores, targets, EMOTIONS)
    for source in range(8):
        changed = scores.clone()
        changed[source] = -changed[source]
        moved = as_released_reward(changed, targets, EMOTIONS) != paid
        assert not moved[[i for i in range(8) if i // 4 != source]].any()
        assert source < 2 or not moved.any()


def test_released_reward_hardly_follows_the_intended_one(generator):
    # Predictions that are right more often than not, as a trained network's are.
    clips = 4000
    _, targets = draw(EMOTIONS, clips, generator)
    right = F.one_hot(targets, 2).float()
    scores = 2 * right + 1.5 * torch.randn(clips, 4, 2, generator=generator)
    intended = prediction_reward(scores, targets, EMOTIONS, scale="probability")
    paid = as_released_reward(scores, targets, EMOTIONS)
    # Four standard errors of a correlation of none, 4 / sqrt(4000), with the measured .04
    # well inside.
    assert abs(torch.corrcoef(torch.stack([intended, paid]))[0, 1]) < 0.063
    assert intended.std() > 0.3


def test_released_reward_is_for_emotions_only():
    with pytest.raises(ShapeError) as caught:
        as_released_reward(CLASS_ODDS.log(), CLASS_TARGETS, CLASSES)
    assert str(caught.value) == "the released reward is for emotions only, got a task of classes"


@pytest.mark.parametrize("function", [item_losses, prediction_reward, as_released_reward])
@pytest.mark.parametrize(
    ("task", "scores", "targets", "message"),
    [
        pytest.param(
            REGRESSION,
            (4, 1),
            (4,),
            "for regression, scores and targets must have shapes [4] and [4], got [4, 1] and [4]",
            id="regression-with-an-axis-too-many",
        ),
        pytest.param(
            CLASSES,
            (4, 2),
            (4,),
            "for classes, scores and targets must have shapes [4, 3] and [4], got [4, 2] and [4]",
            id="a-class-missing",
        ),
        pytest.param(
            EMOTIONS,
            (16, 2),
            (4, 4),
            "for emotions, scores and targets must have shapes [4, 4, 2] and [4, 4], "
            "got [16, 2] and [4, 4]",
            id="flattened-emotions",
        ),
    ],
)
def test_objectives_refuse_wrong_shapes(function, task, scores, targets, message):
    kind = torch.float32 if task.kind == "regression" else torch.long
    with pytest.raises(ShapeError) as caught:
        function(torch.zeros(scores), torch.zeros(targets, dtype=kind), task)
    assert str(caught.value) == message


# Leave one out


def test_advantage_is_against_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; second clip 0 - 1.5, 0 - 1.5, 3 - 0.
    expected = torch.tensor([[-3.0, -1.5], [-1.5, -1.5], [4.5, 3.0]])
    torch.testing.assert_close(leave_one_out_advantage(rewards), expected, **TOLERANCE)


@pytest.mark.parametrize("samples", [2, 3, 7])
def test_advantages_sum_to_zero(generator, samples):
    rewards = torch.randn(samples, 3, 5, generator=generator, dtype=torch.float64)
    advantages = leave_one_out_advantage(rewards)
    assert advantages.shape == rewards.shape
    torch.testing.assert_close(
        advantages.sum(dim=0), torch.zeros(3, 5, dtype=torch.float64), **EXACT
    )
    # What all samples have in common is nobody's merit.
    torch.testing.assert_close(leave_one_out_advantage(rewards + 7.0), advantages, **EXACT)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_gradient_is_unbiased_on_two_arms(samples):
    # Keep (probability p) pays 5, drop pays 2: the gradient of the mean reward in the logit
    # is p (1 - p) (5 - 2). Every outcome of all samples is enumerated: no chance in it.
    p, pays = 0.3, {1: 5.0, 0: 2.0}
    found = 0.0
    for kept in itertools.product([0, 1], repeat=samples):
        chance = math.prod(p if k else 1 - p for k in kept)
        rewards = torch.tensor([[pays[k]] for k in kept], dtype=torch.float64)
        surprise = torch.tensor([[k - p] for k in kept], dtype=torch.float64)
        found += chance * (leave_one_out_advantage(rewards) * surprise).mean().item()
    assert found == pytest.approx(p * (1 - p) * 3.0, abs=1e-12)
    # A mean that counts the sample itself, by contrast, falls short by 1 / samples.
    biased = p * (1 - p) * 3.0 * (samples - 1) / samples
    assert abs(found - biased) > 0.1


# Alignment


def brute_force_alignment(unit, mask, group):
    m, b, n, _ = unit.shape
    size = min(group, b)
    total, pairs = 0.0, 0
    for k, q in itertools.combinations(range(m), 2):
        losses = []
        for start in range(0, b - b % size, size):
            rows = range(start, start + size)
            both = [i for i in rows if mask[k, i].any() and mask[q, i].any()]

            def score(i, j, k=k, q=q):
                powers = [
                    math.exp((unit[k, i, s] @ unit[q, j, t]).item() / 0.1)
                    for s in range(n)
                    for t in range(n)
                    if mask[k, i, s] and mask[q, j, t]
                ]
                return math.log(sum(powers))

            for i in both:
                across = math.log(sum(math.exp(score(i, j)) for j in both))
                down = math.log(sum(math.exp(score(j, i)) for j in both))
                losses.append((across + down) / 2 - score(i, i))
        total += sum(losses) / max(len(losses), 1)
        pairs += 1
    return total / pairs


@pytest.mark.parametrize("group", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("modalities", [2, 3])
def test_alignment_loss_is_the_brute_force_one(generator, modalities, absent, group):
    steps = torch.randn(modalities, 7, 4, 8, generator=generator, dtype=torch.float64)
    unit = F.normalize(steps, dim=-1)
    lengths = torch.tensor([[4, 1, 3, 2, 4, 4, 1], [2, 4, 4, 1, 3, 1, 4], [1, 2, 4, 4, 2, 3, 3]])
    if absent:
        lengths[0, 2] = lengths[1, 5] = lengths[1, 2] = lengths[2, 0] = 0
    mask = torch.arange(4) < lengths[:modalities].unsqueeze(-1)
    expected = brute_force_alignment(unit, mask, group)
    assert alignment_loss(unit, mask, group).item() == pytest.approx(expected, abs=1e-10)


def test_alignment_loss_is_small_where_modalities_agree(generator):
    shared = F.normalize(torch.randn(8, 3, 16, generator=generator), dim=-1)
    mask = torch.ones(3, 8, 3, dtype=torch.bool)
    agreeing = alignment_loss(shared.expand(3, -1, -1, -1), mask, 8)
    shifted = torch.stack([shared, shared.roll(1, 0), shared.roll(2, 0)])
    assert agreeing < 0.1 < math.log(8) < alignment_loss(shifted, mask, 8)


def test_alignment_loss_does_not_see_padding(generator):
    unit = F.normalize(torch.randn(3, 6, 4, 8, generator=generator), dim=-1)
    mask = torch.rand(3, 6, 4, generator=generator) < 0.6
    other = F.normalize(torch.randn(unit.shape, generator=generator), dim=-1)
    dirty = torch.where(mask.unsqueeze(-1), unit, other)
    torch.testing.assert_close(
        alignment_loss(dirty, mask, 6), alignment_loss(unit, mask, 6), rtol=0.0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "present"),
    [
        pytest.param((3, 0, 4, 8), True, id="no-clip"),
        pytest.param((3, 1, 4, 8), True, id="one-clip"),
        pytest.param((1, 6, 4, 8), True, id="one-modality"),
        pytest.param((3, 6, 4, 8), False, id="nothing-real"),
    ],
)
def test_alignment_loss_is_zero_where_nothing_can_be_compared(generator, shape, present):
    steps = torch.randn(shape, generator=generator).requires_grad_()
    mask = torch.full(shape[:3], present)
    loss = alignment_loss(F.normalize(steps, dim=-1), mask, 4)
    loss.backward()
    assert loss.item() == 0.0
    assert not steps.grad.any()


def test_alignment_loss_has_a_finite_gradient_with_clips_missing(generator):
    steps = torch.randn(3, 6, 4, 8, generator=generator).requires_grad_()
    mask = torch.ones(3, 6, 4, dtype=torch.bool)
    mask[0, :3] = mask[1, 2:] = False
    alignment_loss(F.normalize(steps, dim=-1), mask, 3).backward()
    assert steps.grad.isfinite().all()
    assert steps.grad.any()


@pytest.mark.parametrize("at_a_time", [1 << 24, 0], ids=["all-pairs", "some-pairs"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_alignment_loss_has_the_gradient_of_its_value(generator, monkeypatch, padded, at_a_time):
    monkeypatch.setattr(objectives, "MOST_PAIRS", at_a_time)
    monkeypatch.setattr(objectives, "MOST_PAIRS_AT_ONCE", 24)
    steps = torch.randn(3, 5, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(3, 5, 4, dtype=torch.bool)
    if padded:
        mask[0, :, 3:] = mask[1, 2:, 1:] = mask[2, 0] = False
    assert torch.autograd.gradcheck(
        lambda x: alignment_loss(F.normalize(x, dim=-1), mask, 2), (steps,)
    )


def test_alignment_loss_some_pairs_at_a_time_is_the_same(generator, monkeypatch):
    steps = torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 4, 6, generator=generator) > 0.3

    def loss_and_gradient():
        loss = alignment_loss(F.normalize(steps, dim=-1), mask, 2)
        return [loss, *torch.autograd.grad(loss, steps)]

    whole = loss_and_gradient()
    monkeypatch.setattr(objectives, "MOST_PAIRS", 0)
    monkeypatch.setattr(objectives, "MOST_PAIRS_AT_ONCE", 100)  # a few of each clip's steps
    for one, other in zip(loss_and_gradient(), whole, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_alignment_loss_keeps_memory_linear_in_the_lengths(generator, monkeypatch):
    monkeypatch.setattr(objectives, "MOST_PAIRS", 1 << 12)
    monkeypatch.setattr(objectives, "MOST_PAIRS_AT_ONCE", 1 << 11)

    def kept(n):
        unit = torch.randn(3, 2, n, 4, generator=generator, requires_grad=True)
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: (
                sizes.update({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}),
                x,
            )[1],
            lambda x: x,
        ):
            alignment_loss(unit, torch.ones(3, 2, n, dtype=torch.bool), 2)
        return sum(sizes.values())

    assert kept(256) < 4.5 * kept(64)


def test_alignment_loss_leaves_out_the_incomplete_last_group(generator):
    unit = F.normalize(torch.randn(2, 5, 3, 8, generator=generator), dim=-1)
    mask = torch.ones(2, 5, 3, dtype=torch.bool)
    assert torch.equal(alignment_loss(unit, mask, 2), alignment_loss(unit[:, :4], mask[:, :4], 2))
