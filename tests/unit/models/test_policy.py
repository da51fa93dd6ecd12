"""Policies: log-probability by hand, hard against soft, refinement that only removes."""

import math

import pytest
import torch

from mmcl.models.policy import PolicyModels, bernoulli_log_probability, gather_kept

# Float64, sums of at most eight terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-13}
CLIPS, STEPS, WIDTH = 3, 5, 8


@pytest.fixture
def make_policy(randomise):
    def build(**options):
        return randomise(PolicyModels(3, WIDTH, **options).double())

    return build


@pytest.fixture
def specific(generator):
    return torch.randn(3, CLIPS, STEPS, WIDTH, generator=generator, dtype=torch.float64)


@pytest.fixture
def mask():
    lengths = torch.tensor([[5, 2, 4], [3, 5, 0], [1, 1, 5]])
    return torch.arange(STEPS) < lengths.unsqueeze(-1)


@pytest.mark.parametrize(
    ("acts", "first"), [("softly", 0.5), ("gated", 0.5), ("by draws", 1 / (1 + math.exp(-2)))]
)
def test_first_actions(acts, first):
    # A policy that draws starts from keeping nearly all, the others in the middle.
    policy = PolicyModels(3, WIDTH, acts=acts)
    keep = policy.keep_logits(torch.zeros(3, 1, 1, WIDTH)).sigmoid()
    torch.testing.assert_close(keep, torch.full_like(keep, first), rtol=0.0, atol=1e-6)  # float32


def test_log_probability_worked_by_hand():
    # Odds 3 : 1 for keeping.
    logits = torch.tensor([math.log(3.0)] * 2, dtype=torch.float64)
    found = bernoulli_log_probability(logits, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 4)], abs=1e-12)


def test_log_probability_is_finite_for_certain_policies():
    logits = torch.tensor([200.0, -200.0])
    found = bernoulli_log_probability(logits, torch.tensor([0.0, 1.0]))
    assert found.tolist() == [-200.0, -200.0]


def test_keep_logits_take_any_axes_between(make_policy, specific):
    policy = make_policy()
    logits = policy.keep_logits(specific)
    assert logits.shape == (3, CLIPS, STEPS)
    for m in range(3):
        expected = specific[m] @ policy.weight[m] + policy.bias[m]
        torch.testing.assert_close(logits[m], expected, **TOLERANCE)
    samples = torch.stack([specific, 2 * specific], dim=1)
    torch.testing.assert_close(policy.keep_logits(samples)[:, 0], logits, **TOLERANCE)


def test_soft_actions_are_probabilities_of_real_steps(make_policy, specific, mask):
    policy = make_policy()
    for sample in (False, True):  # soft actions are never drawn
        decision = policy(specific, mask, sample=sample)
        expected = policy.keep_logits(specific).sigmoid() * mask
        torch.testing.assert_close(decision.actions, expected, **TOLERANCE)
        assert torch.equal(decision.keep_probability, decision.actions)
        assert not decision.log_probability.any()


def test_hard_actions_follow_the_likelier_side(make_policy, specific, mask):
    policy = make_policy(acts="by draws")
    decision = policy(specific, mask)
    expected = (policy.keep_logits(specific).sigmoid() > 0.5) & mask
    assert torch.equal(decision.actions.bool(), expected)
    assert set(decision.actions.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(decision.actions, policy(specific, mask).actions)
    assert not decision.log_probability.any()
    torch.testing.assert_close(
        decision.keep_probability, policy.keep_logits(specific).sigmoid() * mask, **TOLERANCE
    )


def test_sampled_decision_and_its_log_probability(make_policy, specific, mask):
    policy = make_policy(acts="by draws")
    torch.manual_seed(20)
    decision = policy(specific, mask, sample=True)
    keep = policy.keep_logits(specific).sigmoid()
    for m in range(3):
        for clip in range(CLIPS):
            expected = 0.0
            for i in range(STEPS):
                if mask[m, clip, i]:
                    p = keep[m, clip, i].item()
                    expected += math.log(p if decision.actions[m, clip, i] else 1 - p)
                else:
                    assert decision.actions[m, clip, i] == 0
            assert decision.log_probability[m, clip].item() == pytest.approx(expected, abs=1e-12)


def test_samples_come_as_often_as_their_probability(make_policy, specific, mask):
    policy = make_policy(acts="by draws")
    torch.manual_seed(20)
    drawn = torch.stack([policy(specific, mask, sample=True).actions for _ in range(2000)])
    expected = policy(specific, mask, sample=True).keep_probability
    # Four standard errors of a proportion over 2000 draws: 4 * .5 / sqrt(2000).
    assert (drawn.mean(dim=0) - expected).abs().max() < 0.045


@pytest.mark.parametrize("acts", ["softly", "gated", "by draws"])
def test_refinement_multiplies_and_only_removes(make_policy, specific, mask, acts):
    policy = make_policy(acts=acts, refinement_steps=3)
    torch.manual_seed(20)
    decision = policy(specific, mask, sample=True)

    so_far = mask.double()
    chance = mask.double()
    assert len(decision.moves) == 3
    for state, decided in decision.moves:
        # Each decision sees the specific part under the actions before it.
        torch.testing.assert_close(state, so_far.unsqueeze(-1) * specific, **TOLERANCE)
        chance = chance * policy.keep_logits(state).sigmoid()
        assert (so_far * decided <= so_far).all()
        so_far = so_far * decided
    torch.testing.assert_close(decision.actions, so_far, **TOLERANCE)
    torch.testing.assert_close(decision.keep_probability, chance, **TOLERANCE)


def test_dropped_step_has_no_further_say(make_policy, specific, mask):
    policy = make_policy(acts="by draws", refinement_steps=2)
    torch.manual_seed(20)
    decision = policy(specific, mask, sample=True)
    (_, first), (state, second) = decision.moves
    expected = torch.zeros(3, CLIPS, dtype=torch.float64)
    for move, seen in ((first, specific), (second, state)):
        keep = policy.keep_logits(seen).sigmoid()
        chosen = torch.where(move.bool(), keep, 1 - keep).log()
        counts = mask if move is first else mask & first.bool()
        expected += (chosen * counts).sum(dim=-1)
    torch.testing.assert_close(decision.log_probability, expected, **TOLERANCE)
    assert (mask & ~first.bool()).any()  # something was dropped at once, or this shows nothing


def test_policy_gradient_reaches_the_policy_not_the_draw(make_policy, specific, mask):
    policy = make_policy(acts="by draws")
    torch.manual_seed(20)
    decision = policy(specific, mask, sample=True)
    assert not decision.actions.requires_grad
    decision.log_probability.sum().backward()
    # Of log p: (action - p) times the state.
    keep = policy.keep_logits(specific).sigmoid().detach()
    surprise = (decision.actions - keep) * mask
    expected = torch.einsum("mbn,mbnd->md", surprise, specific)
    torch.testing.assert_close(policy.weight.grad, expected, **TOLERANCE)
    torch.testing.assert_close(policy.bias.grad, surprise.sum(dim=(1, 2)), **TOLERANCE)


# Gates


@pytest.fixture
def make_gate(make_policy):
    """Return a function that makes a gate at the end of training."""

    def build(**options):
        policy = make_policy(acts="gated", **options)
        policy.start_epoch(1, 1)
        return policy.eval()

    return build


def test_gate_drops_up_to_one_half_and_weights_the_rest(make_gate, specific, mask):
    policy = make_gate()
    decision = policy(specific, mask, sample=True)  # nothing is drawn
    keep = policy.keep_logits(specific).sigmoid() * mask
    expected = torch.where(keep > 0.5, 2 * keep - 1, 0.0)
    torch.testing.assert_close(decision.actions, expected, **TOLERANCE)
    torch.testing.assert_close(decision.keep_probability, keep, **TOLERANCE)
    assert (expected > 0).any()
    assert ((expected == 0) & mask).any()
    assert not decision.log_probability.any()


@pytest.mark.parametrize(("epoch", "threshold"), [(0, 0.0), (2, 0.2), (5, 0.5), (9, 0.5)])
def test_threshold_rises_over_the_first_half_of_training(
    make_policy, specific, mask, epoch, threshold
):
    policy = make_policy(acts="gated").train()
    policy.start_epoch(epoch, 10)
    keep = policy.keep_logits(specific).sigmoid() * mask
    expected = ((keep - threshold) / (1 - threshold)).clamp(min=0)
    torch.testing.assert_close(policy(specific, mask).actions, expected, **TOLERANCE)
    # Validation and prediction have the same.
    torch.testing.assert_close(policy.eval()(specific, mask).actions, expected, **TOLERANCE)


def test_threshold_is_saved_with_the_weights(make_policy, specific, mask):
    first, second = make_policy(acts="gated"), make_policy(acts="gated")
    first.start_epoch(2, 10)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(specific, mask).actions, second(specific, mask).actions)
    assert "threshold" not in make_policy().state_dict()


def test_untrained_gate_drops_nothing(make_policy, specific, mask):
    assert torch.equal(make_policy(acts="gated")(specific, mask).actions > 0, mask)


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_share_of_kept_steps_is_limited_clip_by_clip(make_gate, specific, mask, share):
    free, limited = make_gate(), make_gate(keep=share)
    limited.load_state_dict(free.state_dict())
    wanted, actions = free(specific, mask).actions, limited(specific, mask).actions
    for clip in range(CLIPS):
        own = sorted(wanted[:, clip].flatten().tolist(), reverse=True)
        count = max(1, math.floor(share * int(mask[:, clip].sum())))
        expected = [value for value in own[:count] if value > 0]
        found = actions[:, clip]
        assert sorted(found[found > 0].tolist(), reverse=True) == pytest.approx(expected)
    assert (wanted > 0).sum() > mask.shape[1]  # there was something to limit


def test_training_has_no_limit(make_policy, specific, mask):
    limited = make_policy(acts="gated", keep=0.01).train()
    free = make_policy(acts="gated").train()
    free.load_state_dict(limited.state_dict())
    assert torch.equal(limited(specific, mask).actions, free(specific, mask).actions)


def test_kept_steps_teach_the_gate_and_dropped_ones_do_not(make_gate, specific, mask):
    policy = make_gate()
    specific.requires_grad_()
    actions = policy(specific, mask).actions
    actions.sum().backward()
    is_taught = specific.grad.abs().sum(dim=-1) > 0
    assert torch.equal(is_taught, actions > 0)


# Kept steps, gathered to the front


def test_weighted_steps_stay_in_their_order():
    steps = torch.arange(6.0).view(1, 1, 3, 2)
    gathered, weight = gather_kept(steps, torch.tensor([[[0.2, 0.0, 0.9]]]))
    assert weight.flatten().tolist() == pytest.approx([0.2, 0.9])
    assert gathered[0, 0].tolist() == [[0.0, 1.0], [4.0, 5.0]]


def test_kept_steps_are_gathered_in_their_order():
    steps = torch.arange(12.0).view(1, 2, 3, 2)  # one modality, two clips of three steps
    actions = torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    gathered, weight = gather_kept(steps, actions)
    assert weight.tolist() == [[[1.0, 1.0], [1.0, 0.0]]]
    assert gathered[0, 0].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert gathered[0, 1, 0].tolist() == [6.0, 7.0]


def test_nothing_is_gathered_where_a_clip_keeps_all(generator):
    steps = torch.randn(3, 2, 4, 8, generator=generator)
    actions = torch.ones(3, 2, 4)
    actions[0] = 0.0
    gathered, weight = gather_kept(steps, actions)
    assert gathered is steps
    assert weight is actions


@pytest.mark.parametrize("clips", [0, 2])
def test_a_step_is_left_where_none_is_kept(generator, clips):
    steps = torch.randn(3, clips, 4, 8, generator=generator)
    gathered, weight = gather_kept(steps, torch.zeros(3, clips, 4))
    assert gathered.shape == (3, clips, 1, 8)
    assert not weight.any()


def test_no_kept_step_is_cut_off_where_numbers_are_coarse():
    # In bfloat16 the sum of 301 ones is 300 or 302.
    actions = torch.ones(1, 2, 400)
    actions[0, :, 301:] = 0
    steps = torch.randn(1, 2, 400, 3)
    gathered, weight = gather_kept(steps, actions.bfloat16())
    assert gathered.shape == (1, 2, 301, 3)
    assert weight.shape == (1, 2, 301)
