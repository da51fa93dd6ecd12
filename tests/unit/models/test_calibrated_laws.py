"""Laws of ``calibrated``: exact parts, padding, order, absence, and decisions that bind.

Every law is tried on networks that differ in what could break it: aligned or not, hard or
soft actions, one decision or two, with and without positions.
"""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mmcl.models import mmcl as network_module
from mmcl.models.mmcl import MMCL

# Float64, a network's sums in another order or over a longer, padded axis: 1e-14 or so,
# a few times over.
TOLERANCE = {"rtol": 0.0, "atol": 1e-11}
CLIPS, STEPS = 5, 6
OWN_LENGTHS = {"text": [6, 1, 3, 5, 4], "audio": [2, 7, 4, 1, 7], "vision": [1, 5, 9, 2, 9]}
MODALITIES = ("text", "audio", "vision")

NETWORKS = {
    "aligned-soft": {"aligned": True, "policy": {"kind": "task"}},
    "aligned-hard": {"aligned": True, "policy": {"kind": "rloo"}},
    "unaligned-soft": {"aligned": False, "policy": {"kind": "task"}, "positions": True},
    "unaligned-hard-twice": {
        "aligned": False,
        "policy": {"kind": "rloo", "refinement_steps": 2},
        "confirm": "mean",
    },
    "softmax-ablation": {
        "aligned": True,
        "policy": {"kind": "task", "refinement_steps": 2},
        "decoupling": "softmax",
    },
    "both-without-attention": {
        "aligned": False,
        "policy": {"kind": "ddpg"},
        "decoupling": "both",
        "attention": False,
        "positions": True,
    },
}


@pytest.fixture(params=["gathered", "whole"], autouse=True)
def _gathering(request, monkeypatch):
    """Every law with the kept steps gathered to the front, and with all steps computed."""
    if request.param == "whole":
        monkeypatch.setattr(network_module, "gather_kept", lambda steps, actions: (steps, actions))


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request, make_model):
    # No dropout: two passes in training mode must be comparable.
    return make_model(**request.param, dropout=0.0, head_dropout=0.0)


@pytest.fixture
def clips(make_features, make_masks):
    """Five clips, every modality with lengths of its own."""
    longest = {m: max(lengths) for m, lengths in OWN_LENGTHS.items()}
    return make_features(CLIPS, longest), make_masks(OWN_LENGTHS)


def take(clips, rows):
    return tuple({m: x[rows] for m, x in each.items()} for each in clips)


def same(found, expected, steps=None):
    """True if two outputs agree: scores, actions, commonality and probabilities."""
    torch.testing.assert_close(found.scores, expected.scores, **TOLERANCE)
    pairs = (
        (found.decision.actions, expected.decision.actions),
        (found.decision.keep_probability, expected.decision.keep_probability),
        (found.encoded.parts.commonality, expected.encoded.parts.commonality),
    )
    for one, other in pairs:
        torch.testing.assert_close(one[..., :steps], other[..., :steps], **TOLERANCE)


# The two parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aligned", [True, False])
def test_common_and_specific_add_up_to_the_projection(make_model, clips, aligned, dtype):
    model = make_model(aligned=aligned).to(dtype)
    features = {m: x.to(dtype) for m, x in clips[0].items()}
    encoded = model.encode(features, clips[1])
    z = model.projection({m: x * clips[1][m].unsqueeze(-1) for m, x in features.items()})

    total = encoded.parts.common + encoded.parts.specific

    real, whole = total[encoded.step_mask], z[encoded.step_mask]
    # One subtraction and one sum: a unit in the last place at most, and nearly always none.
    ulp = torch.nextafter(whole.abs(), torch.full_like(whole, math.inf)) - whole.abs()
    assert ((real - whole).abs() <= ulp).all()
    assert (real == whole).double().mean() > 0.9
    assert (total[~encoded.step_mask] == 0).all()


def test_commonality_rises_with_agreement(make_model, make_features, make_masks):
    # All modalities say the same in steps 0 and 1, and nothing related in the others.
    model = make_model(dims=dict.fromkeys(MODALITIES, 4))
    with torch.no_grad():
        for m in ("audio", "vision"):
            model.projection.linear[m].load_state_dict(model.projection.linear["text"].state_dict())
            model.projection.standardisers[m].load_state_dict(
                model.projection.standardisers["text"].state_dict()
            )
        for buffer in (model.calibration.mean, model.calibration.variance):
            buffer[1:] = buffer[:1]
    features = make_features(50, STEPS, dims=dict.fromkeys(MODALITIES, 4))
    for m in ("audio", "vision"):
        features[m][:, :2] = features["text"][:, :2]
    commonality = model.encode(features).parts.commonality
    # Cosine 1 against threshold .6 at temperature .1: sigmoid(4); float64.
    certain = torch.full((3, 50, 2), 1 / (1 + math.exp(-4))).double()
    torch.testing.assert_close(commonality[..., :2], certain, rtol=0, atol=1e-6)
    # Nothing else is as certain: no other cosine is 1.
    assert (commonality[..., 2:] < certain[..., :1] - 1e-5).all()


# Padding, order and company


def pad(clips, extra, generator):
    """More steps that are not real, full of large rubbish, as many as ``extra`` says."""
    features, masks = clips
    rubbish = {
        m: torch.cat(
            [x, 20 * torch.randn(len(x), extra[m], x.shape[-1], generator=generator).to(x)], 1
        )
        for m, x in features.items()
    }
    return rubbish, {m: F.pad(mask, (0, extra[m])) for m, mask in masks.items()}


def test_padding_changes_nothing(network, clips, generator):
    features, masks = clips
    noise = {m: torch.randn(x.shape, generator=generator).to(x) for m, x in features.items()}
    dirty = {m: torch.where(masks[m].unsqueeze(-1), x, noise[m]) for m, x in features.items()}
    longer = pad((dirty, masks), {"text": 5, "audio": 1, "vision": 4}, generator)

    expected = network(features, masks)
    same(network(dirty, masks), expected)
    same(network(*longer), expected, steps=9)
    padded = ~network(*longer).encoded.step_mask
    assert (network(*longer).decision.actions[padded] == 0).all()
    assert (network(*longer).encoded.parts.commonality[padded] == 0).all()


def test_padding_changes_nothing_in_training(network, clips, generator):
    # In training the batch's own statistics calibrate: padded steps must not count in them.
    state = {name: x.clone() for name, x in network.state_dict().items()}
    longer = pad(clips, {"text": 5, "audio": 1, "vision": 4}, generator)
    network.train()

    expected = network(*clips)
    statistics = {name: x.clone() for name, x in network.named_buffers()}
    network.load_state_dict(state)
    found = network(*longer)

    same(found, expected, steps=9)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], **TOLERANCE)
    assert not torch.equal(statistics["calibration.mean"], state["calibration.mean"])


def test_permuted_clips_give_permuted_results(network, clips):
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = network(*clips)
    found = network(*take(clips, order))
    torch.testing.assert_close(found.scores, expected.scores[order], **TOLERANCE)
    torch.testing.assert_close(
        found.decision.actions, expected.decision.actions[:, order], **TOLERANCE
    )
    torch.testing.assert_close(
        found.encoded.parts.commonality, expected.encoded.parts.commonality[:, order], **TOLERANCE
    )


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_one_clip_alone_is_as_in_company(make_model, clips, task):
    model = make_model(task=task, aligned=False)
    together = model(*clips)
    for row in range(CLIPS):
        # Cut to its own lengths, too: no company, no padding.
        features, masks = take(clips, slice(row, row + 1))
        features = {m: x[:, : OWN_LENGTHS[m][row]] for m, x in features.items()}
        masks = {m: x[:, : OWN_LENGTHS[m][row]] for m, x in masks.items()}
        alone = model(features, masks)
        assert alone.scores.shape == (1, *together.scores.shape[1:])
        torch.testing.assert_close(alone.scores[0], together.scores[row], **TOLERANCE)
        longest = max(lengths[row] for lengths in OWN_LENGTHS.values())
        torch.testing.assert_close(
            alone.decision.actions[:, 0], together.decision.actions[:, row, :longest], **TOLERANCE
        )


def test_batch_of_one_trains(network, clips):
    output = network.train()(*take(clips, slice(0, 1)))
    output.scores.sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_all_steps_are_real_by_default(network, make_features, make_masks):
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [STEPS] * CLIPS for m in MODALITIES})
    same(network(features), network(features, masks))


# Absence

SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(MODALITIES, size)]


@pytest.mark.parametrize("subset", SUBSETS, ids="-".join)
def test_every_subset_of_modalities_is_enough(network, clips, subset, generator):
    features, masks = clips
    left_out = network({m: features[m] for m in subset}, {m: masks[m] for m in subset})
    assert left_out.scores.isfinite().all()

    # Masked for some clips only: those are as if left out, the others as ever.
    missing = torch.tensor([True, False, True, True, False])
    some = {m: mask if m in subset else mask & ~missing.unsqueeze(-1) for m, mask in masks.items()}
    noise = {m: 9 * torch.randn(x.shape, generator=generator).to(x) for m, x in features.items()}
    dirty = {m: torch.where(some[m].unsqueeze(-1), x, noise[m]) for m, x in features.items()}
    mixed, whole = network(dirty, some), network(features, masks)
    torch.testing.assert_close(mixed.scores[missing], left_out.scores[missing], **TOLERANCE)
    torch.testing.assert_close(mixed.scores[~missing], whole.scores[~missing], **TOLERANCE)
    present = mixed.encoded.present[:, missing].bool()
    for at, m in enumerate(MODALITIES):
        assert (present[at] == (m in subset)).all()


@pytest.mark.parametrize("absent", MODALITIES)
def test_absent_modality_cannot_influence_anything(network, clips, absent, generator):
    features, masks = clips
    masks = masks | {absent: torch.zeros_like(masks[absent])}
    expected = network(features, masks)
    noise = 100 * torch.randn(features[absent].shape, generator=generator).double()
    found = network(features | {absent: noise}, masks)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.decision.actions, expected.decision.actions)
    assert torch.equal(found.encoded.parts.commonality, expected.encoded.parts.commonality)


def test_modality_alone_is_wholly_specific(make_model, clips):
    model = make_model(aligned=False)
    output = model({"audio": clips[0]["audio"]}, {"audio": clips[1]["audio"]})
    assert (output.encoded.parts.commonality == 0).all()
    assert (output.encoded.parts.common == 0).all()
    assert output.encoded.parts.specific[1][clips[1]["audio"]].any()


def test_clip_with_nothing_at_all_has_a_finite_score(network, clips):
    features, masks = clips
    empty = {m: mask & (torch.arange(CLIPS) != 2).unsqueeze(-1) for m, mask in masks.items()}
    for training in (False, True):
        output = network.train(training)(features, empty)
        assert output.scores.isfinite().all()
        assert (output.decision.actions[:, 2] == 0).all()
    network.eval()
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(
        network(features, empty).scores[others], network(features, masks).scores[others],
        **TOLERANCE,
    )  # fmt: skip


# Decisions bind


@pytest.fixture(params=[False, True], ids=["plain", "positions"])
def hard(request, make_model):
    return make_model(aligned=False, policy={"kind": "rloo"}, positions=request.param)


def test_dropped_steps_cannot_influence_the_prediction(hard, clips, generator):
    encoded = hard.encode(*clips)
    torch.manual_seed(20)
    decision = hard.decide(encoded, sample=True)
    dropped = (decision.actions == 0) & encoded.step_mask
    assert dropped.any()
    noise = 1e6 * torch.randn(encoded.parts.specific.shape, generator=generator).double()
    other = torch.where(dropped.unsqueeze(-1), noise, encoded.parts.specific)
    changed = encoded._replace(parts=encoded.parts._replace(specific=other))

    assert torch.equal(
        hard.complement(changed, decision.actions), hard.complement(encoded, decision.actions)
    )
    assert torch.equal(
        hard.conclude(changed, decision).scores, hard.conclude(encoded, decision).scores
    )


@pytest.mark.parametrize("kind", ["rloo", "task"])
def test_dropped_steps_are_as_if_never_there(make_model, clips, kind):
    # No other step attends to them, nor do they count in the mean: soft actions, too.
    model = make_model(aligned=False, policy={"kind": kind})
    encoded = model.encode(*clips)
    actions = (
        0.2 + 0.6 * encoded.parts.commonality if kind == "task" else encoded.step_mask.double()
    )
    kept = torch.tensor([0, 2, 3, 6])
    dropped = actions.clone()
    dropped[..., [1, 4, 5, 7, 8]] = 0.0
    short = encoded._replace(
        parts=encoded.parts._replace(specific=encoded.parts.specific[:, :, kept]),
        step_mask=encoded.step_mask[..., kept],
    )
    torch.testing.assert_close(
        model.complement(encoded, dropped), model.complement(short, actions[..., kept]), **TOLERANCE
    )


def test_kept_steps_do_influence_the_prediction(hard, clips):
    encoded = hard.encode(*clips)
    torch.manual_seed(20)
    decision = hard.decide(encoded, sample=True)
    kept = decision.actions > 0
    moved = encoded.parts.specific + kept.unsqueeze(-1)
    changed = encoded._replace(parts=encoded.parts._replace(specific=moved))
    clips_with_any = kept.any(dim=(0, 2))
    difference = hard.conclude(changed, decision).scores - hard.conclude(encoded, decision).scores
    assert (difference[clips_with_any].abs() > 1e-9).all()


def test_dropping_all_steps_leaves_the_common_part(hard, clips):
    encoded = hard.encode(*clips)
    decision = hard.decide(encoded)
    nothing = decision._replace(actions=torch.zeros_like(decision.actions))
    output = hard.conclude(encoded, nothing)
    assert (output.complementary == 0).all()
    assert output.scores.isfinite().all()
    hidden = hard.fusion(encoded.enhanced, torch.zeros_like(encoded.enhanced), encoded.present)
    assert torch.equal(output.scores, hard.head(hidden).squeeze(-1))


def test_soft_action_near_nought_is_near_dropping(make_model, clips):
    model = make_model(aligned=False, policy={"kind": "task"})
    encoded = model.encode(*clips)
    actions = model.decide(encoded).actions
    first_of_two = encoded.step_mask.clone()
    first_of_two[..., 1:] = False
    dropped = actions * ~first_of_two
    # An action of 1e-9 moves the result by some 1e-9 times the size of a step.
    nearly = torch.where(first_of_two, 1e-9, actions)
    torch.testing.assert_close(
        model.complement(encoded, nearly), model.complement(encoded, dropped), rtol=0, atol=1e-6
    )


def test_drawn_actions_differ_and_evaluation_does_not_draw(hard, clips):
    torch.manual_seed(20)
    drawn = [hard(*clips, sample=True).decision.actions for _ in range(4)]
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])
    state = torch.get_rng_state()
    same(hard(*clips), hard(*clips))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_and_training_act_on_the_same_state(network, clips):
    # Fault F11, mended: the state is the clip's own specific part in both.
    for training in (False, True):
        output = network.train(training)(*clips)
        specific = output.encoded.parts.specific
        mask = output.encoded.step_mask.unsqueeze(-1)
        assert torch.equal(output.decision.moves[0][0], specific * mask)


def test_calibrated_is_one_class_with_released(network):
    assert isinstance(network, MMCL)
    assert not network.released
