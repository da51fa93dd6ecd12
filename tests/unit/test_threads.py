"""Threads: they add up in order, draw the same numbers, fail as one, and leave no trace."""

import threading
import time
from itertools import permutations

import pytest
import torch

from mmcl.processes import (
    Meeting,
    add_up,
    current_generator,
    current_share,
    cut_batch,
    is_seated,
    own_clips,
    updates_buffers,
)
from mmcl.threads import Crew, in_order

LONG = 10.0  # seconds: for what should not have to be waited for at all


def test_one_part_is_done_in_this_thread_as_if_nobody_shared():
    def work(part):
        return part, threading.get_ident(), current_share(), current_generator(), is_seated()

    expected = (0, threading.get_ident(), None, None, False)
    assert Crew(4).run(work, cut_batch(40, 1)) == [expected]


def test_each_part_has_its_share_in_a_thread_of_its_own():
    shares = cut_batch(10, 3)

    def work(part):
        add_up(torch.zeros(1))  # all are at work at the same time
        return part, current_share(), threading.get_ident(), updates_buffers()

    parts, found, threads, write = zip(*Crew(3).run(work, shares), strict=True)
    assert parts == (0, 1, 2)
    assert list(found) == shares
    assert len({*threads, threading.get_ident()}) == 4
    assert write == (True, False, False)
    assert updates_buffers()
    assert current_share() is None


def test_sum_does_not_depend_on_who_is_fast():
    # In float32 both halves are 1 and -1. Were 1 and -1 a half, the others would be left.
    numbers = torch.tensor([1.0, 2.0**-25, -1.0, 2.0**-25])
    orders = list(permutations(range(4)))

    def work(part):
        sums = []
        for order in orders:
            time.sleep(0.003 * order[part])
            sums.append(float(add_up(own_clips(numbers))[0]))
        return sums

    assert Crew(4).run(work, cut_batch(4, 4)) == [[0.0] * len(orders)] * 4


def test_each_part_gets_a_sum_of_its_own():
    def work(part):
        (total,) = add_up(torch.tensor([1.0 + part]))
        (other,) = add_up(torch.tensor([5.0]))
        total += 100 * part  # changes nobody else's
        return total.tolist(), other.tolist()

    assert Crew(2).run(work, cut_batch(2, 2)) == [([3.0], [10.0]), ([103.0], [10.0])]


def test_gradient_of_a_sum_is_summed_too():
    def work(part):
        x = torch.tensor([2.0 + part], requires_grad=True)
        (total,) = add_up(x * x)  # 4 + 9
        return torch.autograd.grad(total * (1.0 + part), x)[0].item()

    # Both losses together are 3 times the sum; its derivative by x is 3 * 2 x.
    assert Crew(2).run(work, cut_batch(2, 2)) == [12.0, 18.0]


def test_parts_draw_the_same_and_torch_goes_on_from_there():
    torch.manual_seed(5)
    alone = [torch.rand(3).tolist() for _ in range(3)]
    torch.manual_seed(5)
    first = torch.rand(3).tolist()

    def work(part):
        drawn = torch.rand(3, generator=current_generator()).tolist()
        return drawn, current_generator().get_state()

    (drawn, state), (again, other) = Crew(2).run(work, cut_batch(8, 2))
    assert torch.equal(state, other)
    assert [first, drawn, torch.rand(3).tolist()] == alone
    assert again == drawn


@pytest.mark.parametrize(("threads", "parts", "each"), [(2, 2, 1), (6, 2, 3), (7, 3, 2)])
def test_torch_threads_are_shared_out_and_stay_as_they_were(threads, parts, each):
    torch.set_num_threads(5)
    crew = Crew(threads)
    counts = crew.run(lambda _: torch.get_num_threads(), cut_batch(40, parts))
    assert counts == [each] * parts
    assert crew.alone(torch.get_num_threads, None) == 1
    assert torch.get_num_threads() == 5
    found = []
    fresh = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert found == [5]


def test_work_alone_has_the_share_of_the_process():
    share = cut_batch(40, 2)[0]
    assert Crew(2).alone(current_share, share) == share
    assert Crew(2).alone(current_share, None) is None


@pytest.mark.parametrize("faulty", [0, 1, 2])
def test_first_real_fault_is_raised_and_nobody_waits(faulty):
    crew = Crew(3)
    ended = []

    def work(part):
        try:
            add_up(torch.zeros(1))
            if part == faulty:
                raise ValueError(f"part {part}")
            add_up(torch.zeros(1))
        finally:
            ended.append(part)

    state = torch.get_rng_state()
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"^part {faulty}$"):
        crew.run(work, cut_batch(6, 3))
    assert sorted(ended) == [0, 1, 2]
    assert time.monotonic() - started < LONG
    assert torch.equal(torch.get_rng_state(), state)
    assert crew.run(lambda part: float(add_up(torch.ones(1))[0]), cut_batch(6, 3)) == [3.0] * 3


def test_of_two_faults_the_first_parts_is_raised():
    def work(part):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match=r"^part 0$"):
        Crew(2).run(work, cut_batch(4, 2))


def test_unequal_messages_end_the_meeting():
    def work(part):
        add_up(torch.zeros(2 + part))

    with pytest.raises(RuntimeError, match="size of tensor"):
        Crew(2).run(work, cut_batch(4, 2))


def test_threads_end_with_their_crew():
    before = set(threading.enumerate())
    crew = Crew(2)
    crew.run(lambda part: add_up(torch.zeros(1)), cut_batch(4, 2))
    own = set(threading.enumerate()) - before
    assert len(own) == 2
    del crew
    for thread in own:
        thread.join(LONG)
        assert not thread.is_alive()


def test_autocast_shares_no_casts_between_threads():
    found = Crew(2).run(lambda _: torch.is_autocast_cache_enabled(), cut_batch(4, 2))
    assert found == [False, False]
    assert torch.is_autocast_cache_enabled()


def test_meeting_of_one_process_sends_nothing():
    meeting = Meeting(1, alone=True)
    assert meeting.add(0, torch.tensor([3.0])).tolist() == [3.0]


# ---------------------------------------------------------------- tasks in order


def run_in_order(work, tasks, *, threads=2, cost=lambda _: 1, most=100):
    return in_order(work, tasks, threads=threads, cost=cost, most=most)


def test_answers_come_in_the_order_of_the_tasks():
    def work(task):
        time.sleep(0.01 * (task % 3))
        return task, torch.get_num_threads(), threading.get_ident()

    torch.set_num_threads(3)
    tasks, counts, threads = zip(*run_in_order(work, range(12)), strict=True)
    assert tasks == tuple(range(12))
    assert set(counts) == {1}
    assert threading.get_ident() not in threads
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("threads", "most", "ahead"),
    [
        pytest.param(2, 100, 3, id="one-more-than-threads"),
        pytest.param(4, 7, 3, id="two-each-of-at-most-seven"),
        pytest.param(4, 1, 1, id="one-costs-more-than-all-may"),
    ],
)
def test_tasks_are_taken_as_they_are_needed(threads, most, ahead):
    taken, answered, gaps = 0, 0, []

    def tasks():
        nonlocal taken
        for task in range(20):
            taken += 1
            yield task

    for _ in run_in_order(lambda x: x, tasks(), threads=threads, cost=lambda _: 2, most=most):
        answered += 1
        # One was answered, and one was taken to see that there is no room for it.
        gaps.append(taken - answered)
    assert max(gaps) == ahead
    assert answered == 20


def test_who_wants_no_more_leaves_no_thread():
    answers = run_in_order(lambda x: x, range(100))
    assert next(answers) == 0
    answers.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("mmcl-portion")]


def test_fault_is_raised_in_its_turn():
    def work(task):
        if task == 2:
            raise ValueError("the third")
        return task

    answers = run_in_order(work, range(9))
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(ValueError, match=r"^the third$"):
        next(answers)
