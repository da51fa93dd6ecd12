"""The joint critic: what it may see and what it may not (its equation: the released tests)."""

import pytest
import torch
from torch.nn import functional as F

from mmcl.models.critic import Critic

# Float64, a transformer block's sums in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
CLIPS, STEPS, WIDTH = 4, 5, 8


@pytest.fixture
def critic(randomise):
    return randomise(Critic(3, WIDTH, 2, 12).double()).eval()


@pytest.fixture
def seen(generator):
    state = torch.randn(3, CLIPS, STEPS, WIDTH, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([[5, 2, 4, 1], [3, 5, 1, 0], [1, 1, 5, 2]])
    mask = torch.arange(STEPS) < lengths.unsqueeze(-1)
    actions = torch.rand(3, CLIPS, STEPS, generator=generator, dtype=torch.float64) * mask
    return state, actions, mask


def test_values_follow_their_own_clip(critic, seen):
    order = torch.tensor([2, 0, 3, 1])
    values = critic(*seen)
    torch.testing.assert_close(critic(*(x[:, order] for x in seen)), values[order], **TOLERANCE)
    alone = critic(*(x[:, :1] for x in seen))
    assert alone.shape == (1,)
    torch.testing.assert_close(alone, values[:1], **TOLERANCE)


def test_padding_changes_no_value(critic, seen, generator):
    state, actions, mask = seen
    noise = torch.randn(state.shape, generator=generator, dtype=torch.float64)
    rubbish = torch.where(mask.unsqueeze(-1), state, noise)
    values = critic(state, actions, mask)
    assert torch.equal(critic(rubbish, actions, mask), values)
    longer = critic(F.pad(rubbish, (0, 0, 0, 3)), F.pad(actions, (0, 3)), F.pad(mask, (0, 3)))
    torch.testing.assert_close(longer, values, **TOLERANCE)


@pytest.mark.parametrize("m", range(3))
def test_value_depends_on_every_modality_and_action(critic, seen, m):
    state, actions, mask = seen
    values = critic(*seen)
    other_state, other_actions = state.clone(), actions.clone()
    other_state[m] += 1.0
    other_actions[m] = (1 - actions[m]) * mask[m]
    present = mask[m].any(dim=-1)
    for changed in (critic(other_state, actions, mask), critic(state, other_actions, mask)):
        assert ((changed - values).abs()[present] > 1e-9).all()
        assert torch.equal(changed[~present], values[~present])


def test_gradient_reaches_the_actions(critic, seen):
    state, actions, mask = seen
    actions = actions.requires_grad_()
    critic(state, actions, mask).sum().backward()
    assert (actions.grad[mask] != 0).all()
    assert (actions.grad[~mask] == 0).all()


def test_batch_of_one_trains(critic, seen):
    one = [x[:, :1] for x in seen]
    critic.dropout.p = 0.0
    expected = critic(*one)
    value = critic.train()(*one)
    value.sum().backward()
    torch.testing.assert_close(value, expected, **TOLERANCE)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
