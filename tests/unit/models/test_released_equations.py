"""``released`` against a second, plain implementation of its equations, then its faults.

The plain one (``tests/plain/released.py``) is loops over Python floats and shares no code
with the package; the weights are copied across. Faults that belong to the method are
tested to be there, faults that were mended are tested to be gone.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from mmcl.models import decoupling
from mmcl.models.attention import IntraModalAttention
from mmcl.models.critic import Critic
from mmcl.models.decoupling import similarity_maps, softmax_decoupling
from mmcl.models.fusion import GatedFusion, ReleasedHead
from mmcl.models.layers import ModalityBlock
from mmcl.models.mmcl import MMCL
from mmcl.models.policy import PolicyModels
from mmcl.models.projection import Projection
from plain import released as plain

# Float64 on both sides, sums of at most some fifty terms of size one in another order: an
# error of 1e-14 or so, a few times over. 1e-11 leaves room and no fault is so small.
TOLERANCE = {"rtol": 0.0, "atol": 1e-11}
# The same sums where only the batch or the padding around a clip differs.
SAME = {"rtol": 0.0, "atol": 1e-12}

CLIPS, STEPS, WIDTH, HEADS, INNER = 3, 5, 8, 2, 12


# Weights, from the package's layers to plain lists


def linear_of(layer):
    return {"weight": layer.weight.tolist(), "bias": layer.bias.tolist()}


def linear_at(layer, m):
    return {"weight": layer.weight[m].T.tolist(), "bias": layer.bias[m, 0].tolist()}


def norm_at(layer, m):
    return {"gain": layer.weight[m].tolist(), "shift": layer.bias[m].tolist()}


def batch_norm_of(layer):
    return {
        "gain": layer.weight.tolist(),
        "shift": layer.bias.tolist(),
        "mean": layer.running_mean.tolist(),
        "variance": layer.running_var.tolist(),
    }


def attention_at(layer, m):
    whole = linear_at(layer.qkv, m)
    width = len(whole["bias"]) // 3
    parts = {}
    for third, name in enumerate(("query", "key", "value")):
        own = slice(third * width, (third + 1) * width)
        parts[name] = {"weight": whole["weight"][own], "bias": whole["bias"][own]}
    return parts


def intra_modal_at(layer, m):
    return attention_at(layer.attention, m) | {
        "linear": linear_at(layer.linear, m),
        "norm": norm_at(layer.norm, m),
    }


def block_at(layer, m):
    return attention_at(layer.attention, m) | {
        "out": linear_at(layer.attention.out, m),
        "norm1": norm_at(layer.norm1, m),
        "inner": linear_at(layer.inner, m),
        "outer": linear_at(layer.outer, m),
        "norm2": norm_at(layer.norm2, m),
    }


def policy_at(layer, m):
    return {"weight": layer.weight[m].tolist(), "bias": layer.bias[m].item()}


def gate_at(layer, m):
    return {"inner": linear_at(layer.inner, m), "outer": linear_at(layer.outer, m)}


def head_of(layer):
    return {
        "linear": linear_of(layer.linear),
        "norm": batch_norm_of(layer.norm),
        "output": linear_of(layer.output),
    }


def per_modality(copy_at, layer):
    return {name: copy_at(layer, m) for m, name in enumerate(plain.MODALITIES)}


def weights_of(model):
    return {
        "projection": {m: linear_of(model.projection.linear[m]) for m in plain.MODALITIES},
        "attention": per_modality(intra_modal_at, model.attention),
        "policy": per_modality(policy_at, model.policy),
        "encoder": per_modality(block_at, model.block),
        "gate": per_modality(gate_at, model.fusion),
        "head": head_of(model.head),
    }


def critic_weights_of(critic):
    return {
        "encoder": per_modality(block_at, critic.block),
        "linear1": linear_of(critic.linear1),
        "linear2": linear_of(critic.linear2),
        "norm": batch_norm_of(critic.norm),
        "value": linear_of(critic.value),
    }


def one_clip(stacked, clip):
    """``[m, b, n, d]`` to one clip's ``{m: [n][d]}``."""
    return {name: stacked[m, clip].tolist() for m, name in enumerate(plain.MODALITIES)}


def close(found, expected):
    torch.testing.assert_close(
        found.detach(), torch.tensor(expected, dtype=torch.float64), **TOLERANCE
    )


@pytest.fixture
def steps(generator):
    return torch.randn(3, CLIPS, STEPS, WIDTH, generator=generator, dtype=torch.float64)


@pytest.fixture
def all_real():
    return torch.zeros(3, CLIPS, STEPS, dtype=torch.float64)  # no key is masked


# Module by module


def test_projection_is_the_equation(randomise, make_features):
    features = make_features(CLIPS, STEPS)
    widths = {m: x.shape[-1] for m, x in features.items()}
    projection = Projection(widths, WIDTH, standardise=False, input_dropout=0.0)
    randomise(projection.double()).eval()

    z = projection(features)

    for m, name in enumerate(plain.MODALITIES):
        weights = linear_of(projection.linear[name])
        for clip in range(CLIPS):
            close(z[m, clip], plain.project(features[name][clip].tolist(), weights))


@pytest.mark.parametrize("residual", [False, True])
def test_decoupling_some_steps_at_a_time_is_the_same(generator, monkeypatch, residual):
    z = torch.randn(3, 2, 7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])

    def parts():
        found = softmax_decoupling(z, F.normalize(z, dim=-1), mask, residual=residual)
        loss = sum(part.square().sum() for part in found)
        return [*found, *torch.autograd.grad(loss, z)]

    whole = parts()
    monkeypatch.setattr(decoupling, "MOST_PAIRS", 0)
    monkeypatch.setattr(decoupling, "MOST_PAIRS_AT_ONCE", 3 * 3 * 2 * 7 * 3)  # three of seven rows
    for one, other in zip(parts(), whole, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def test_similarity_maps_are_the_cosines_of_all_pairs(steps):
    unit = F.normalize(steps, dim=-1)
    maps = similarity_maps(unit, unit)

    assert maps.shape == (3, 3, CLIPS, STEPS, STEPS)
    for clip in range(CLIPS):
        z = one_clip(steps, clip)
        for m, left in enumerate(plain.MODALITIES):
            for k, right in enumerate(plain.MODALITIES):
                close(maps[m, k, clip], plain.cosine_map(z[left], z[right]))


def test_decoupling_is_the_equation(steps):
    parts = softmax_decoupling(
        steps, F.normalize(steps, dim=-1), torch.ones(CLIPS, STEPS, dtype=torch.bool)
    )

    for clip in range(CLIPS):
        z = one_clip(steps, clip)
        common, specific = plain.decouple(z)
        for m, name in enumerate(plain.MODALITIES):
            close(parts.common[m, clip], common[name])
            close(parts.specific[m, clip], specific[name])
            shares = plain.common_shares(z, name)
            close(parts.commonality[m, clip], [sum(c) / STEPS for c in zip(*shares, strict=True)])


def test_intra_modal_attention_is_the_equation(randomise, steps, all_real):
    attention = randomise(IntraModalAttention(3, WIDTH, HEADS).double())

    enhanced = attention(steps, all_real)

    for m in range(3):
        weights = intra_modal_at(attention, m)
        for clip in range(CLIPS):
            expected = plain.intra_modal_attention(steps[m, clip].tolist(), weights, HEADS)
            close(enhanced[m, clip], expected)


def test_policy_is_the_equation(randomise, steps):
    policy = randomise(PolicyModels(3, WIDTH).double())

    decision = policy(steps, torch.ones(3, CLIPS, STEPS, dtype=torch.bool))

    for m in range(3):
        for clip in range(CLIPS):
            expected = plain.act(steps[m, clip].tolist(), policy_at(policy, m))
            close(decision.actions[m, clip], expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_encoder_layer_is_the_equation(randomise, steps, all_real, heads):
    block = randomise(ModalityBlock(3, WIDTH, heads, INNER, dropout=0.0).double())

    encoded = block(steps, all_real)

    for m in range(3):
        weights = block_at(block, m)
        for clip in range(CLIPS):
            close(encoded[m, clip], plain.encoder_layer(steps[m, clip].tolist(), weights, heads))


def test_gate_and_fusion_are_the_equations(randomise, steps):
    fusion = randomise(GatedFusion(3, WIDTH).double())
    common, complementary = steps[:, :, 0], steps[:, :, 1]  # any two vectors per modality

    gated = fusion.gated(common, complementary)
    fused = fusion(common, complementary, torch.ones(3, CLIPS, dtype=torch.float64))

    for clip in range(CLIPS):
        expected = {
            name: plain.gate(
                common[m, clip].tolist(), complementary[m, clip].tolist(), gate_at(fusion, m)
            )
            for m, name in enumerate(plain.MODALITIES)
        }
        close(gated[:, clip], [expected[name] for name in plain.MODALITIES])
        close(fused[clip], plain.fuse(expected))


def test_head_is_the_equation(randomise, generator):
    head = randomise(ReleasedHead(WIDTH, 6, dropout=0.5).double()).eval()
    hidden = torch.randn(CLIPS, 2 * WIDTH, generator=generator, dtype=torch.float64)

    scores = head(hidden)

    for clip in range(CLIPS):
        close(scores[clip], plain.head(hidden[clip].tolist(), head_of(head)))


def test_critic_is_the_equation(randomise, generator, steps):
    critic = randomise(Critic(3, WIDTH, HEADS, INNER).double()).eval()
    actions = torch.rand(3, CLIPS, STEPS, generator=generator, dtype=torch.float64)

    values = critic(steps, actions, torch.ones(3, CLIPS, STEPS, dtype=torch.bool))

    assert values.shape == (CLIPS,)
    for clip in range(CLIPS):
        state, chosen = one_clip(steps, clip), one_clip(actions, clip)
        close(values[clip], plain.critic(state, chosen, critic_weights_of(critic), HEADS))


# The whole network


@pytest.mark.parametrize(
    ("task", "shape"),
    [("regression", ()), ("classes", (3,)), ("emotions", (4, 2))],
)
def test_whole_prediction_is_the_equations(make_released, make_features, task, shape):
    model = make_released(task=task)
    features = make_features(CLIPS, STEPS)

    output = model(features)

    assert output.scores.shape == (CLIPS, *shape)
    for clip in range(CLIPS):
        alone = {m: x[clip].tolist() for m, x in features.items()}
        scores, actions = plain.predict(alone, weights_of(model), HEADS)
        close(output.scores[clip].flatten(), scores)
        for m, name in enumerate(plain.MODALITIES):
            close(output.decision.actions[m, clip], actions[name])


def test_padded_clips_are_the_equations_on_their_real_steps(
    make_released, make_features, make_masks, generator
):
    # Fault F7, mended: the plain implementation never sees a padded step.
    model = make_released()
    lengths = [5, 1, 3]
    features = make_features(CLIPS, STEPS)
    masks = make_masks(dict.fromkeys(features, lengths))

    output = model(features, masks)

    for clip, length in enumerate(lengths):
        alone = {m: x[clip, :length].tolist() for m, x in features.items()}
        scores, actions = plain.predict(alone, weights_of(model), HEADS)
        close(output.scores[clip : clip + 1], scores)
        for m, name in enumerate(plain.MODALITIES):
            close(output.decision.actions[m, clip, :length], actions[name])


def test_carried_actions_weigh_the_specific_parts_first(make_released, make_features, generator):
    # Fault F11: training acts on the state that the batch before left behind.
    model = make_released()
    features = make_features(CLIPS, STEPS)
    carried = torch.rand(3, CLIPS, STEPS, generator=generator, dtype=torch.float64)
    weights = weights_of(model)

    output = model(features, carried=carried)

    for clip in range(CLIPS):
        z = {m: plain.project(x[clip].tolist(), weights["projection"][m]) for m, x in
             features.items()}  # fmt: skip
        _, specific = plain.decouple(z)
        for m, name in enumerate(plain.MODALITIES):
            state = plain.apply_actions(specific[name], carried[m, clip].tolist())
            close(output.decision.moves[0][0][m, clip], state)
            close(output.decision.actions[m, clip], plain.act(state, weights["policy"][name]))


def test_parameters_are_as_many_as_released(make_released):
    model = make_released(
        task="emotions",
        dims={"text": 300, "audio": 74, "vision": 35},
        width=128,
        heads=4,
        inner_width=2048,
    )
    critic = Critic(3, 128, 4, 2048)

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert count(model.projection, model.attention) == 251_648
    assert count(model.policy, model.block, model.fusion, model.head) == 1_912_718
    assert count(critic) == 1_975_725
    assert count(model) == 251_648 + 1_912_718


# Faults that are the method's own


def double_softmax(z):
    """``softmax(1 - A)`` of the first modality, ``[b, n, n]``, read off unit vectors.

    The specific part mixes the rows of Z: with Z the identity its rows are the weights.
    """
    n = z.shape[2]
    identity = torch.eye(n, dtype=z.dtype).expand(3, z.shape[1], n, n)
    return softmax_decoupling(
        identity, F.normalize(z, dim=-1), torch.ones(z.shape[1], n, dtype=torch.bool)
    ).specific


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_double_softmax_is_nearly_uniform(generator, scale):
    # Fault F3. The range was measured on projected features; it is not a bound, so that
    # one weight in some thousand may lie a ten-thousandth beyond (the bound: next test).
    dims = {"text": 300, "audio": 74, "vision": 35}
    torch.manual_seed(20)
    projection = Projection(dims, 128, standardise=False, input_dropout=0.0).double()
    features = {
        m: scale * torch.randn(8, 20, d, generator=generator, dtype=torch.float64)
        for m, d in dims.items()
    }
    with torch.no_grad():
        weights = double_softmax(projection(features))

    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 8, 20).double(), **TOLERANCE)
    inside = (weights > 0.0493) & (weights < 0.0506)
    assert inside.double().mean() > 0.995
    assert weights.min() > 0.0490
    assert weights.max() < 0.0509


def ratio_bound(n):
    """Greatest ratio of two weights of ``softmax(1 - softmax(cosines))``.

    One cosine of 1 and n - 1 of -1: A is then e^2 / (e^2 + n - 1) and 1 / (e^2 + n - 1).
    """
    return math.exp((math.e**2 - 1) / (math.e**2 + n - 1))


@pytest.mark.parametrize("n", [2, 7, 20])
def test_double_softmax_bound_is_reached_and_no_more(generator, n):
    # Step 0 of every modality points one way, all others the opposite way.
    opposed = torch.full((3, 1, n, 4), -1.0, dtype=torch.float64)
    opposed[:, :, 0] = 1.0
    extreme = double_softmax(opposed)
    ratio = (extreme.amax(dim=-1) / extreme.amin(dim=-1)).max()
    assert ratio.item() == pytest.approx(ratio_bound(n), abs=1e-12)  # float64, four exps

    # Signs alone (every cosine 1 or -1), very large and very small values: never beyond.
    signs = torch.randn(3, 64, n, 1, generator=generator, dtype=torch.float64).sign()
    wide = torch.randn(3, 64, n, 2, generator=generator, dtype=torch.float64)
    for z in (signs, wide * 1e6, wide * 1e-6, wide.exp() ** 8):
        weights = double_softmax(z)
        ratios = weights.amax(dim=-1) / weights.amin(dim=-1)
        assert ratios.max() <= ratio_bound(n) + 1e-12


def test_double_softmax_at_twenty_steps_is_at_most_1_27_to_1(generator):
    assert ratio_bound(20) == pytest.approx(1.27, abs=0.005)  # printed with two decimals
    # Whatever the cosines, A lies in 0..1, so that no n could do better than e to 1.
    assert max(ratio_bound(n) for n in range(2, 100)) < math.e
    # A single softmax, by contrast, tells steps apart by up to e^2 : 1.
    opposed = torch.full((3, 1, 20, 4), -1.0, dtype=torch.float64)
    opposed[:, :, 0] = 1.0
    identity = torch.eye(20, dtype=torch.float64).expand(3, 1, 20, 20)
    once = softmax_decoupling(
        identity, F.normalize(opposed, dim=-1), torch.ones(1, 20, dtype=torch.bool)
    ).common
    ratio = (once.amax(dim=-1) / once.amin(dim=-1)).max().item()
    assert ratio == pytest.approx(math.e**2, rel=1e-12)


def test_specific_part_is_nearly_the_time_mean(make_released, make_features):
    # What fault F3 does: the policy gates n copies of one vector.
    model = make_released()
    features = make_features(CLIPS, 20)
    z = model.projection(features)

    specific = model.encode(features).parts.specific

    spread = (specific - z.mean(dim=2, keepdim=True)).norm(dim=-1) / z.norm(dim=-1).mean()
    assert spread.max() < 0.1  # 1.27 : 1 at most leaves a few hundredths of a step's length


def test_joint_permutation_of_steps_goes_unnoticed(make_released, make_features, generator):
    # Fault F8: no positions.
    model = make_released()
    features = make_features(CLIPS, STEPS)
    order = torch.tensor([3, 0, 4, 1, 2])

    straight = model(features)
    shuffled = model({m: x[:, order] for m, x in features.items()})

    torch.testing.assert_close(shuffled.scores, straight.scores, **SAME)
    torch.testing.assert_close(
        shuffled.decision.actions, straight.decision.actions[:, :, order], **SAME
    )
    one_moved = features | {"audio": features["audio"][:, order]}
    assert (model(one_moved).scores - straight.scores).abs().min() > 1e-6


# Faults that are mended


def test_padding_changes_nothing(make_released, make_features, make_masks, generator):
    # Fault F7.
    model = make_released()
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [5, 5, 3] for m in features})
    rubbish = {
        m: torch.cat([x, 9 * torch.randn(CLIPS, 4, x.shape[-1], generator=generator).double()], 1)
        for m, x in features.items()
    }
    longer = {m: F.pad(mask, (0, 4)) for m, mask in masks.items()}

    short, padded = model(features, masks), model(rubbish, longer)

    torch.testing.assert_close(padded.scores, short.scores, **SAME)
    actions = padded.decision.actions
    torch.testing.assert_close(actions[..., :STEPS], short.decision.actions, **SAME)
    assert (actions[..., STEPS:] == 0).all()


@pytest.mark.parametrize("aligned", [True, False])
def test_absent_modality_is_zero_left_out_or_masked(
    make_released, make_features, make_masks, aligned
):
    model = make_released(aligned=aligned, steps=STEPS)
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [STEPS] * CLIPS for m in features})
    zeroed = features | {"audio": torch.zeros_like(features["audio"])}
    masked = masks | {"audio": torch.zeros_like(masks["audio"])}
    left_out = {m: x for m, x in features.items() if m != "audio"}
    # What a batch looks like in which no clip has audio: one step, not real.
    empty = features | {"audio": features["audio"][:, :1]}
    empty_masks = masked | {"audio": masked["audio"][:, :1]}

    expected = model(zeroed, masks).scores

    torch.testing.assert_close(model(features, masked).scores, expected, **SAME)
    torch.testing.assert_close(model(left_out).scores, expected, **SAME)
    torch.testing.assert_close(model(empty, empty_masks).scores, expected, **SAME)


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_batch_of_one_is_as_good_as_many(make_released, make_features, task):
    # Fault F9, in evaluation.
    model = make_released(task=task)
    features = make_features(CLIPS, STEPS)
    together = model(features).scores

    for clip in range(CLIPS):
        alone = model({m: x[clip : clip + 1] for m, x in features.items()}).scores
        assert alone.shape == (1, *together.shape[1:])
        torch.testing.assert_close(alone[0], together[clip], **SAME)


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_batch_of_one_trains(make_released, make_features, task):
    # Fault F9, in training: the running statistics stand in and are left alone.
    model = make_released(task=task, head_dropout=0.0)
    features = make_features(1, STEPS)
    expected = model(features).scores
    before = model.head.norm.running_mean.clone()

    scores = model.train()(features).scores
    scores.sum().backward()

    torch.testing.assert_close(scores, expected, **SAME)
    assert torch.equal(model.head.norm.running_mean, before)
    assert model.head.norm.num_batches_tracked == 0
    assert model.head.linear.weight.grad.isfinite().all()


def test_longer_sequence_than_any_before_is_the_equations(make_released, make_features):
    # Fault F9: nothing in the network knows a length.
    model = make_released(steps=4)
    model(make_features(CLIPS, 4))
    features = make_features(1, 9)

    scores, _ = plain.predict({m: x[0].tolist() for m, x in features.items()}, weights_of(model),
                              HEADS)  # fmt: skip
    close(model(features).scores, scores)


def test_unaligned_lengths_are_made_equal_first(make_released, make_features, make_masks):
    # Fault F10: released knows one length; see equalise_lengths for how it is reached.
    model = make_released(aligned=False, steps=2)
    features = make_features(CLIPS, {"text": 4, "audio": 6, "vision": 2})
    equal = {
        "text": features["text"].unflatten(1, (2, 2)).mean(dim=2),
        "audio": features["audio"].unflatten(1, (2, 3)).mean(dim=2),
        "vision": features["vision"],
    }

    scores = model(features).scores

    for clip in range(CLIPS):
        alone = {m: x[clip].tolist() for m, x in equal.items()}
        close(scores[clip : clip + 1], plain.predict(alone, weights_of(model), HEADS)[0])


def test_released_has_nothing_of_calibrated(make_released):
    # The two variants are one class: this one must have nothing of the other.
    model = make_released()
    names = {name for name, _ in model.named_parameters()}
    assert not {"threshold", "log_temperature"} & names
    assert model.calibration is None
    assert not model.projection.standardisers
    assert isinstance(model, MMCL)
    assert isinstance(model.head, ReleasedHead)
