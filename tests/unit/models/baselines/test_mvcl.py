"""MVCL: contrasts against plain loops, likeness by hand, attention to the others."""

import math

import pytest
import torch

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.mvcl import (
    MVCL,
    CrossAttention,
    likeness,
    supervised_contrast,
    views_contrast,
)

# Float64, sums of a few dozen terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-10}
DIMS = {"text": 5, "audio": 3, "vision": 4}
SCORE = Task(kind="regression", low=-3, high=3)


def make_model(**options):
    torch.manual_seed(7)
    options = {"width": 8, "heads": 2, "dropout": 0.0, "projection": 6, **options}
    return MVCL(DIMS, SCORE, model=ModelSettings(name="mvcl", options=options))


@pytest.fixture
def unit(generator):
    x = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_likeness_worked_by_hand():
    # Half of the range is five times the scale; so is half of the emotions.
    scores = likeness(torch.tensor([0.0, 3.0, -3.0]), SCORE, 0.1)
    assert scores[0].tolist() == pytest.approx([1, math.exp(-5), math.exp(-5)], abs=1e-7)
    assert scores[1, 2].item() == pytest.approx(math.exp(-10), abs=1e-7)
    two = Task(kind="emotions", names=("Happy", "Sad"))
    emotions = likeness(torch.tensor([[0, 1], [0, 0], [1, 0]]), two, 0.1)
    assert emotions[0].tolist() == pytest.approx([1, math.exp(-5), math.exp(-10)], abs=1e-7)
    three = Task(kind="classes", names=("calm", "happy", "sad"))
    classes = likeness(torch.tensor([2, 0, 2]), three, 0.1)
    assert classes.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_supervised_contrast_is_the_loop_over_pairs_of_a_class(unit):
    labels, z, total, taught = [0, 1, 0, 0, 2, 1], unit[0], 0.0, 0
    counts = torch.tensor([True, True, True, False, True, True])
    clips = [0, 1, 2, 4, 5]
    for i in clips:
        like = [p for p in clips if p != i and labels[p] == labels[i]]
        if not like:
            continue
        odds = sum(math.exp(float(z[i] @ z[a]) / 0.3) for a in clips if a != i)
        total -= sum(math.log(math.exp(float(z[i] @ z[p]) / 0.3) / odds) for p in like) / len(like)
        taught += 1
    alike = torch.tensor([[float(x == y) for y in labels] for x in labels])

    found = supervised_contrast(z, alike, counts, temperature=0.3)

    assert taught == 4
    assert found.item() == pytest.approx(total / taught, abs=1e-10)


def test_supervised_contrast_weighs_by_likeness(unit):
    z, alike = unit[0][:3], torch.tensor([[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]])
    total = 0.0
    for i in range(3):
        others = [a for a in range(3) if a != i]
        odds = sum(math.exp(float(z[i] @ z[a]) / 0.5) for a in others)
        weight = sum(alike[i, a].item() for a in others)
        for a in others:
            chance = math.exp(float(z[i] @ z[a]) / 0.5) / odds
            total -= alike[i, a].item() / weight * math.log(chance)
    counts = torch.ones(3, dtype=torch.bool)
    found = supervised_contrast(z, alike, counts, temperature=0.5)
    assert found.item() == pytest.approx(total / 3, abs=1e-7)  # likeness is float32


def test_views_contrast_is_the_loop_over_clips(unit):
    first, second = unit
    clips, total = [0, 2, 3, 5], 0.0
    counts = torch.tensor([i in clips for i in range(6)])
    for i in clips:
        forth = sum(math.exp(float(first[i] @ second[a]) / 0.2) for a in clips)
        back = sum(math.exp(float(first[a] @ second[i]) / 0.2) for a in clips)
        right = math.exp(float(first[i] @ second[i]) / 0.2)
        total -= (math.log(right / forth) + math.log(right / back)) / 2
    found = views_contrast(first, second, counts, temperature=0.2)
    assert found.item() == pytest.approx(total / 4, abs=1e-10)


@pytest.mark.parametrize("counts", [[False] * 6, [True] + [False] * 5])
def test_nobody_to_compare_with_is_no_loss(unit, counts):
    x = unit.clone().requires_grad_()
    alone = torch.tensor(counts)
    loss = supervised_contrast(x[0], torch.ones(6, 6), alone, temperature=0.1)
    loss = loss + views_contrast(x[0], x[1], alone, temperature=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-10)
    assert torch.isfinite(x.grad).all()


def test_cross_attention_adds_nothing_where_there_is_nobody(randomise, make_features):
    layer = randomise(CrossAttention(4, 2, 0.0).double())
    steps = make_features(clips=3)["vision"]
    others = make_features(clips=3, steps=5)["vision"]
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1], mask[2, 3:] = False, False

    found = layer(steps, others, mask)

    torch.testing.assert_close(found[1], layer(steps, others + 9.0, mask)[1], **TOLERANCE)
    cut = layer(steps[2:], others[2:, :3], mask[2:, :3])
    torch.testing.assert_close(found[2:], cut, **TOLERANCE)
    assert (found[0] - layer(steps, others + 9.0, mask)[0]).abs().max() > 1e-3


def test_weighted_contrasts_add_up(make_features, make_masks):
    model = make_model(modality_weight=0.7, view_weight=0.11, fusion_weight=1.3).double().train()
    masks = make_masks(
        {"text": [3, 3, 3, 2, 0], "audio": [3, 0, 0, 1, 3], "vision": [3, 3, 0, 2, 3]}
    )
    output = model(make_features(clips=5, steps=3), masks)
    targets = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    extras, alike = output.extras, likeness(targets, SCORE, 0.1)
    present = {m: mask.any(dim=1) for m, mask in masks.items()}
    several = torch.tensor([True, True, False, True, True])
    each = sum(
        supervised_contrast(extras[f"{m}_alone"], alike, present[m], temperature=0.1) for m in DIMS
    )
    views = sum(
        views_contrast(
            extras[f"{m}_before"], extras[f"{m}_after"], present[m] & several, temperature=0.2
        )
        for m in DIMS
    )
    every = torch.ones(5, dtype=torch.bool)
    fused = supervised_contrast(extras["fusion"], alike, every, temperature=0.1)

    found = model.auxiliary_loss(output, targets, torch.arange(5))

    expected = 0.7 * each / 3 + 0.11 * views / 3 + 1.3 * fused
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_options_are_refused():
    with pytest.raises(ConfigError) as caught:
        make_model(heads=3, view_temperature=0.0)
    assert str(caught.value) == (
        "options of mvcl have 2 problems\n"
        "  model.options.heads: must divide width 8, got 3\n"
        "  model.options.view_temperature: must be greater than 0, got 0.0\n"
        "  Options of mvcl: width, heads, layers, dropout, projection, label_scale, "
        "label_temperature, view_temperature, modality_weight, view_weight, fusion_weight"
    )


def test_contrast_orders_clips_by_their_score(generator):
    # Without a task loss at all: the fused projections of near scores come to lie together.
    score = 3 * (2 * torch.rand(48, generator=generator) - 1)
    features = {"text": 2 * torch.randn(48, 1, 5, generator=generator)}
    features["text"][:, 0, 3] = score
    model = make_model().train()

    def likes():
        z = model(features).extras["fusion"].detach()
        return torch.corrcoef(torch.stack([(z @ z.T).flatten(), near.flatten()]))[0, 1].item()

    near = likeness(score, SCORE, 0.1)
    before = likes()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = model.auxiliary_loss(model(features), score, torch.arange(48))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert likes() > before + 0.2
