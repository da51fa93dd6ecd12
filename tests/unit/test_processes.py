"""One batch in parts: the cut by hand, and sums that one part would get."""

import os
from itertools import pairwise

import pytest
import torch

from fakes.group import measure, measure_in_group, measure_in_threads
from mmcl.config import Config
from mmcl.learning.together import run_together
from mmcl.processes import (
    Share,
    add_in_order,
    add_up,
    clips_of_all,
    current_share,
    cut_batch,
    joined,
    num_parts,
    own_clips,
    part_of_mean,
    shape_of_all,
    sharing,
    sum_gradients,
    wait_for_all,
)

needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")

# Five clips are two and three, in groups of two: two groups, one whole group each and a clip left
# over. Six are three groups, one and two. Three are one group, so cut clip by clip and gathered.
# One is a process without any clip.
SIZES = (5, 6, 3, 1)


@pytest.mark.parametrize(
    ("clips", "processes", "group", "edges"),
    [
        pytest.param(5, 2, 1, [0, 2, 5], id="unequal"),
        pytest.param(8, 2, 1, [0, 4, 8], id="equal"),
        pytest.param(1, 3, 1, [0, 0, 0, 1], id="fewer-clips-than-parts"),
        pytest.param(20, 2, 8, [0, 8, 20], id="whole-groups-and-a-rest"),
        pytest.param(24, 2, 8, [0, 8, 24], id="three-groups"),
        pytest.param(15, 2, 8, [0, 7, 15], id="one-group-is-cut"),
        pytest.param(5, 2, 8, [0, 2, 5], id="a-group-larger-than-the-batch"),
        pytest.param(64, 4, 8, [0, 16, 32, 48, 64], id="as-in-training"),
        pytest.param(0, 2, 8, [0, 0, 0], id="no-clip"),
    ],
)
def test_batch_is_cut_in_order_along_its_groups(clips, processes, group, edges):
    shares = cut_batch(clips, processes, group)
    assert shares == [Share(clips, start, stop, processes) for start, stop in pairwise(edges)]


def test_processes_cut_their_clips_further():
    # 40 clips in groups of 8: five groups over two processes of two threads.
    shares = cut_batch(40, 4, group=8)
    assert [(share.start, share.stop) for share in shares] == [(0, 8), (8, 16), (16, 24), (24, 40)]
    assert [joined(shares[:2]), joined(shares[2:])] == [Share(40, 0, 16, 4), Share(40, 16, 40, 4)]


@pytest.mark.parametrize(
    ("clips", "processes", "threads", "parts"),
    [(64, 1, 2, 2), (64, 2, 2, 2), (63, 2, 2, 1), (47, 1, 4, 2), (1000, 1, 4, 4), (5, 1, 2, 1),
     (1, 3, 8, 1)],
)  # fmt: skip
def test_parts_are_not_smaller_than_sixteen_clips(clips, processes, threads, parts):
    assert num_parts(clips, processes, threads) == parts


def test_sum_of_halves():
    # In float32, 1 + 2^-24 is 1, and 2^-24 + 2^-24 is not nothing: which are added first shows.
    one, tiny = torch.tensor(1.0), torch.tensor(2.0**-24)
    assert float(add_in_order([one])) == 1.0
    assert float(add_in_order([one, tiny, tiny, tiny])) == 1.0 + 2.0**-23
    assert float(add_in_order([one, tiny, tiny])) == 1.0 + 2.0**-23  # the second half is larger
    assert float(add_in_order([tiny, tiny, one])) == 1.0
    six = [torch.tensor(float(10**k)) for k in range(6)]
    assert float(add_in_order(six)) == 111111.0


def test_alone_nothing_happens():
    x = torch.arange(6.0).view(3, 2).requires_grad_()
    assert current_share() is None
    assert own_clips(x) is x
    assert clips_of_all(x) is x
    assert add_up(x, x) == (x, x)
    assert shape_of_all(x.shape, 0) == (3, 2)
    assert float(part_of_mean(x.detach()[:, 0])) == 2.0
    sum_gradients([torch.nn.Parameter(x.detach())])
    wait_for_all()


def test_a_share_is_its_own_rows_and_its_part_of_the_mean():
    # Five clips over two processes: 1 and 2, then 3, 4 and 8. The mean is 18 / 5.
    whole = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0])
    parts = []
    for share in cut_batch(5, 2):
        with sharing(share):
            own = own_clips(whole)
            assert shape_of_all((7, len(own), 2), 1) == (7, 5, 2)
            parts.append(float(part_of_mean(own)))
    assert parts == pytest.approx([3 / 5, 15 / 5])
    # The mean of the means would be (1.5 + 5) / 2.
    assert sum(parts) == pytest.approx(18 / 5)
    assert current_share() is None


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    told = []
    config = Config.model_validate({"runtime": {"processes": 2}})
    given = {"sizes": SIZES, "folder": folder}
    run_together(measure_in_group, given, config, lambda *said: told.append(said))
    assert told == [("all", len(SIZES), len(SIZES), {"first": 1.0})]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@needs_two_cores
@pytest.mark.parametrize("clips", SIZES)
def test_two_processes_find_what_one_finds(found, clips):
    alone = measure(clips)
    for rank in range(2):
        together = dict(found[rank][clips])
        del together["share"]
        assert together.keys() == alone.keys()
        for name, expected in alone.items():
            # Sums of a few dozen float32 numbers about 1, in another order; draws are exact.
            torch.testing.assert_close(
                together[name], expected, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


@needs_two_cores
@pytest.mark.parametrize(
    ("clips", "edges"), [(5, [0, 2, 5]), (6, [0, 2, 6]), (3, [0, 1, 3]), (1, [0, 0, 1])]
)
def test_two_processes_hold_other_clips(found, clips, edges):
    held = [found[rank][clips]["share"].tolist() for rank in range(2)]
    assert held == [edges[:2], edges[1:]]


@needs_two_cores
@pytest.mark.parametrize("clips", SIZES)
def test_two_processes_get_the_same_bits(found, clips):
    first, second = (found[rank][clips] for rank in range(2))
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == ["share"]


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("clips", SIZES)
def test_threads_find_what_one_finds(clips, threads):
    alone = measure(clips)
    together = measure_in_threads(clips, threads)
    assert len(together) == threads
    for found in together:
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(
                found[name], expected, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
            assert torch.equal(found[name], together[0][name]), name


@needs_two_cores
@pytest.mark.parametrize("clips", SIZES)
def test_two_threads_find_what_two_processes_find_bit_for_bit(found, clips):
    processes = dict(found[0][clips])
    del processes["share"]
    for threads in measure_in_threads(clips, 2):
        assert [n for n, x in threads.items() if not torch.equal(x, processes[n])] == []
