"""Co-SA: advice and the distance loss by hand, actions that find the telling steps."""

import math

import pytest
import torch

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.co_sa import AdvisedPolicy, CoSA, distance_loss

# Float64, sums of a few dozen terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-10}
DIMS = {"text": 5, "audio": 3, "vision": 4}
SCORE = Task(kind="regression", low=-3, high=3)


def make_model(**options):
    torch.manual_seed(7)
    options = {"width": 8, "heads": 2, "inner_width": 12, "dropout": 0.0, **options}
    return CoSA(DIMS, SCORE, model=ModelSettings(name="co_sa", options=options))


def test_distance_worked_by_hand():
    # Three steps: cosines 0 (p, q one apart), 1 (two apart) and 0 (one apart).
    steps = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]], dtype=torch.float64)
    every = torch.ones(1, 3, dtype=torch.bool)
    expected = 2 * (2 * 1 / 2 + 1 * 1 + 2 * 1 / 2) / (3 * 2)
    assert distance_loss(steps, every).item() == pytest.approx(expected, abs=1e-12)


def test_distance_is_the_loop_over_real_steps(make_features):
    x = make_features(clips=3, steps=6)["vision"]
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]]).bool()
    by_clip = []
    for clip, real in zip(x, mask, strict=True):
        steps = clip[real]
        length, total = len(steps), 0.0
        for p in range(length):
            for q in range(length):
                cosine = torch.cosine_similarity(steps[p], steps[q], dim=0).item()
                total += (length - abs(p - q)) * (cosine + 1) / 2 * (p != q)
        if length > 1:
            by_clip.append(total / (length * (length - 1)))
    assert len(by_clip) == 2  # one step alone has no distance
    assert distance_loss(x, mask).item() == pytest.approx(sum(by_clip) / 2, abs=1e-10)


@pytest.mark.parametrize("real", [[False, False], [True, False]])
def test_distance_of_no_pair_is_zero(real):
    x = torch.zeros(1, 2, 4, requires_grad=True)
    loss = distance_loss(x, torch.tensor([real]))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(x.grad).all()


def test_advice_worked_by_hand():
    policy = AdvisedPolicy(2, temperature=0.5).double()
    steps = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    # Cosines 1, 0 and -1 with the step; the last step is not real.
    others = torch.tensor([[[3.0, 0.0], [0.0, 5.0], [-7.0, 0.0], [9.0, 9.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    agree = torch.tensor([math.exp(2), 1, math.exp(-2)], dtype=torch.float64)
    agree, differ = agree / agree.sum(), agree.flip(0) / agree.sum()
    with torch.no_grad():
        policy.mixture.fill_(math.log(3.0))  # three parts of one, one of the other

    found = policy.advice(steps, others, mask)

    expected = (0.75 * agree + 0.25 * differ) @ others[0, :3]
    torch.testing.assert_close(found[0, 0], expected, **TOLERANCE)


def test_action_is_read_from_the_step_and_its_advice(randomise, make_features):
    policy = randomise(AdvisedPolicy(4, temperature=0.3).double())
    steps = make_features(clips=2)["vision"]
    others = make_features(clips=2, steps=3)["vision"]
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = policy(steps, others, mask)
    weight, bias = policy.action.weight[0], policy.action.bias[0]
    advice = policy.advice(steps, others, mask)
    expected = (steps @ weight[:4] + advice @ weight[4:] + bias).sigmoid()
    torch.testing.assert_close(found, expected, **TOLERANCE)
    # Nobody advises the second clip: its own steps alone decide.
    torch.testing.assert_close(found[1], (steps[1] @ weight[:4] + bias).sigmoid(), **TOLERANCE)


def test_each_modality_has_a_distance_of_its_own(make_features):
    model = make_model(distance_weight=0.7).double()
    output = model(make_features(clips=3))
    every = torch.ones(3, 6, dtype=torch.bool)
    expected = sum(distance_loss(output.extras[f"{m}_steps"], every) for m in DIMS)
    found = model.auxiliary_loss(output, torch.zeros(3), torch.arange(3))
    torch.testing.assert_close(found, 0.7 * expected / 3, **TOLERANCE)


def test_the_mean_is_over_the_modalities_a_clip_has(make_features):
    model = make_model().double().eval()
    features = make_features(clips=2)
    seen, kept = [], []
    model.blocks["text"].register_forward_hook(lambda module, given, result: kept.append(result))
    model.inner.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    masks = {m: torch.ones(2, 6, dtype=torch.bool) for m in DIMS}
    masks["audio"][0] = False
    masks["vision"][0] = False
    model(features, masks)
    model({"text": features["text"]})
    torch.testing.assert_close(seen[0][0], seen[1][0], **TOLERANCE)
    torch.testing.assert_close(seen[0][0], kept[0][0, 0].mean(dim=0), **TOLERANCE)


def test_options_are_refused():
    with pytest.raises(ConfigError) as caught:
        make_model(heads=3, temprature=1.0)
    assert str(caught.value) == (
        "options of co_sa have 2 problems\n"
        "  model.options.heads: must divide width 8, got 3\n"
        '  model.options.temprature: unknown key; did you mean "temperature"?\n'
        "  Options of co_sa: width, heads, inner_width, dropout, temperature, distance_weight"
    )


def test_actions_learn_what_only_the_others_tell(generator):
    # A step points one of two ways; which way counts, a flag of another modality's step that
    # points the same way tells, clip by clip. The step itself cannot know.
    ways = torch.randint(2, (64, 4), generator=generator)
    right = torch.randint(2, (64, 1), generator=generator)
    steps = torch.nn.functional.one_hot(ways, 3).double()
    flags = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[right.squeeze(1)]
    others = torch.eye(2, 3).repeat(64, 1, 1).double()
    others[..., 2] = flags
    mask, wanted = torch.ones(64, 2, dtype=torch.bool), (ways == right).double()
    torch.manual_seed(7)
    policy = AdvisedPolicy(3, temperature=0.1).double()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(100):
        loss = torch.nn.functional.binary_cross_entropy(policy(steps, others, mask), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # chance is .69
    unadvised = policy(steps, others, torch.zeros_like(mask))
    assert (unadvised[wanted > 0].mean() - unadvised[wanted == 0].mean()).abs() < 0.2
