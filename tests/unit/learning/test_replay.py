"""Replay: a ring that overwrites its oldest, grows in steps, and comes back from a state."""

import copy

import pytest
import torch

from mmcl.learning.replay import Replay, Transitions


def transitions(first, count, steps=3):
    """Transitions that carry their own number everywhere."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    filled = number.view(-1, 1, 1, 1).expand(count, 2, steps, 4)
    return Transitions(
        state=filled,
        actions=filled[..., 0],
        reward=number,
        next_state=filled + 0.5,
        step_mask=torch.ones(count, 2, steps, dtype=torch.bool),
        next_mask=torch.ones(count, 2, steps, dtype=torch.bool),
        discount=number / 100,
    )


def held(replay):
    return sorted(replay.store.reward[: len(replay)].tolist())


def test_empty_replay_has_no_length():
    assert len(Replay(5)) == 0


def test_oldest_are_overwritten():
    replay = Replay(5)
    lengths = []
    for first in (0, 3, 6):
        replay.add(transitions(first, 3))
        lengths.append(len(replay))
    assert lengths == [3, 5, 5]
    assert held(replay) == [4.0, 5.0, 6.0, 7.0, 8.0]
    replay.add(transitions(9, 1))
    assert held(replay) == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_batch_larger_than_the_capacity_leaves_its_newest():
    replay = Replay(3)
    replay.add(transitions(0, 2))
    replay.add(transitions(2, 8))
    assert len(replay) == 3
    assert held(replay) == [7.0, 8.0, 9.0]


def test_fields_of_a_transition_stay_together():
    replay = Replay(5)
    for first in range(0, 12, 3):
        replay.add(transitions(first, 3))
    torch.manual_seed(0)
    drawn = replay.sample(200)
    assert isinstance(drawn, Transitions)
    assert drawn.state.shape == (200, 2, 3, 4)
    number = drawn.reward
    assert (drawn.state == number.view(-1, 1, 1, 1)).all()
    assert (drawn.actions == number.view(-1, 1, 1)).all()
    assert (drawn.next_state == number.view(-1, 1, 1, 1) + 0.5).all()
    assert torch.equal(drawn.discount, number / 100)


def test_sample_draws_all_that_is_there_and_nothing_else():
    replay = Replay(50)
    replay.add(transitions(1, 4))
    torch.manual_seed(0)
    drawn = replay.sample(400).reward
    # Never a 0 from the empty part; each of four a hundred times, give or take 4.6 s.d.
    counts = [(drawn == number).sum().item() for number in (1.0, 2.0, 3.0, 4.0)]
    assert sum(counts) == 400
    assert all(60 < count < 140 for count in counts)


def test_longer_sequences_make_the_ring_grow():
    replay = Replay(6)
    replay.add(transitions(0, 2, steps=3))
    replay.add(transitions(2, 2, steps=5))
    replay.add(transitions(4, 2, steps=2))
    assert replay.store.state.shape == (6, 2, 5, 4)
    for first, steps in ((0, 3), (2, 5), (4, 2)):
        for number in (first, first + 1):
            assert replay.store.reward[number] == number
            assert (replay.store.state[number, :, :steps] == number).all()
            assert replay.store.step_mask[number, :, :steps].all()
            assert replay.store.next_mask[number, :, :steps].all()
            # What was not there is padding.
            assert not replay.store.state[number, :, steps:].any()
            assert not replay.store.actions[number, :, steps:].any()
            assert not replay.store.next_state[number, :, steps:].any()
            assert not replay.store.step_mask[number, :, steps:].any()
            assert not replay.store.next_mask[number, :, steps:].any()


@pytest.mark.parametrize("added", [0, 2, 7])
def test_state_comes_back_and_goes_on_alike(added):
    replay = Replay(5)
    if added:
        replay.add(transitions(0, added))
    other = Replay(5)
    other.load_state_dict(copy.deepcopy(replay.state_dict()), torch.device("cpu"))
    for ring in (replay, other):
        ring.add(transitions(20, 3))
    assert len(other) == len(replay)
    for one, two in zip(replay.store, other.store, strict=True):
        assert torch.equal(one, two)
    torch.manual_seed(0)
    first = replay.sample(9)
    torch.manual_seed(0)
    for one, two in zip(first, other.sample(9), strict=True):
        assert torch.equal(one, two)


def test_added_transitions_are_copies():
    replay = Replay(5)
    new = Transitions(*(x.clone() for x in transitions(1, 2)))
    replay.add(new)
    new.state.zero_()
    new.reward.zero_()
    assert held(replay) == [1.0, 2.0]
    assert replay.store.state[0].all()


def test_state_is_taken_to_the_device_of_the_training():
    replay = Replay(5)
    replay.add(transitions(0, 3))
    resumed = Replay(5)
    resumed.load_state_dict(replay.state_dict(), torch.device("meta"))
    assert {ring.device.type for ring in resumed.store} == {"meta"}
