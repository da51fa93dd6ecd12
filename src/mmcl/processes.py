"""One batch in parts: which clips are whose, and sums over all of them.

A batch is cut into parts, one for each thread of each process that trains together. Every process
holds the whole network, and its threads share it. What one thread would compute of all clips is
computed in two steps: each takes its part, and the parts are added up. Four rules make the sum
the same number:

* a mean over clips is divided by the clips of the whole batch (:func:`part_of_mean`);
* statistics of a batch are added up before they are used, with their gradient
  (:func:`add_up`), and so are the gradients of the parameters (:func:`sum_gradients`);
* whatever is drawn at random is drawn for the whole batch for every part, by
  :func:`current_generator`, and the rows of its own clips are kept (:func:`shape_of_all`,
  :func:`own_clips`). The random states of all parts therefore stay equal;
* what a network remembers of a batch beside its parameters is written by one part of each process
  (:func:`updates_buffers`), after a sum, and read by the others before that sum.

A sum is taken over the threads of a process first and over the processes then, always in the
order of the parts: see :mod:`mmcl.threads`. Where one thread of one process has all clips, each of
these does nothing and costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "Meeting",
    "Seat",
    "Share",
    "add_in_order",
    "add_up",
    "clips_of_all",
    "current_generator",
    "current_share",
    "cut_batch",
    "fewest_of_all",
    "is_seated",
    "joined",
    "num_parts",
    "own_clips",
    "part_of_mean",
    "seated",
    "shape_of_all",
    "sharing",
    "sum_gradients",
    "updates_buffers",
    "wait_for_all",
]

FEWEST_CLIPS = 16
"""Of a part: below, what each operation costs at all is more than what its numbers cost."""


class Share(NamedTuple):
    """The clips of a batch that one part holds: those from ``start`` to before ``stop``.

    Attributes:
        clips: In the whole batch.
        start: The first of its own.
        stop: After the last of its own; it may have none.
        parts: That share the batch, over all processes.
    """

    clips: int
    start: int
    stop: int
    parts: int


class Meeting:
    """Where the threads of one process add up what they have.

    The sum is the same whichever thread is fast. A thread that cannot come ends the meeting, and
    the others get :class:`threading.BrokenBarrierError`.

    Args:
        seats: Threads that take part.
        alone: Whether no other process shares the batch.
    """

    def __init__(self, seats: int, *, alone: bool) -> None:
        self._brought: list[Tensor | None] = [None] * seats
        self._total: Tensor | None = None
        self._alone = alone
        self._barrier = threading.Barrier(seats, action=self._add)

    def add(self, number: int, brought: Tensor) -> Tensor:
        """Bring a tensor, wait for the others, and take a copy of the sum."""
        self._brought[number] = brought
        self._barrier.wait()
        # No other meeting can begin before all have come to it, so after this copy.
        assert self._total is not None
        return self._total.clone()

    def end(self) -> None:
        """Let nobody wait any longer."""
        self._barrier.abort()

    def _add(self) -> None:
        """Called by the last thread to come, while the others wait."""
        self._total = add_in_order([x for x in self._brought if x is not None])
        if not self._alone:
            torch.distributed.all_reduce(self._total)


class Seat(NamedTuple):
    """The place of a thread among those of its process.

    Attributes:
        meeting: Where they add up.
        number: Of the part among those of this process, from 0.
        generator: Draws for the whole batch, the same numbers in every part.
    """

    meeting: Meeting
    number: int
    generator: torch.Generator


class _Here(threading.local):
    """What is so in this thread."""

    share: Share | None = None
    seat: Seat | None = None


_here = _Here()


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Say that this thread's tensors within hold these clips of a batch; None: all of them."""
    before, _here.share = _here.share, share
    try:
        yield
    finally:
        _here.share = before


@contextmanager
def seated(seat: Seat) -> Iterator[None]:
    """Say that this thread holds one of several parts of its process's clips."""
    before, _here.seat = _here.seat, seat
    try:
        yield
    finally:
        _here.seat = before


def current_share() -> Share | None:
    """What :func:`sharing` said; None where this thread has all clips."""
    return _here.share


def is_seated() -> bool:
    """Whether this thread holds one of several parts of its process's clips."""
    return _here.seat is not None


def current_generator() -> torch.Generator | None:
    """Where random numbers of a batch come from; None is torch's own generator."""
    return None if _here.seat is None else _here.seat.generator


def updates_buffers() -> bool:
    """Whether this part is the one of its process that writes the buffers of the network."""
    return _here.seat is None or _here.seat.number == 0


def num_parts(clips: int, processes: int, threads: int) -> int:
    """Parts that each process cuts its clips of a batch into.

    Args:
        clips: In the whole batch.
        processes: That share it.
        threads: That each of them has.

    Example:
        >>> [num_parts(clips, 1, 4) for clips in (8, 31, 32, 50, 1000)]
        [1, 1, 2, 3, 4]
    """
    return max(1, min(threads, clips // processes // FEWEST_CLIPS))


def cut_batch(clips: int, parts: int, group: int = 1) -> list[Share]:
    """Divide the clips of a batch, in order and as evenly as may be.

    Process r of those with t threads each has the parts from ``r * t`` to before ``r * t + t``.

    Args:
        clips: In the whole batch.
        parts: That share it.
        group: Clips that are compared with each other, from the first on; a group stays whole
            where there are at least as many as parts.

    Returns:
        One share per part; together they are the batch, each clip once.

    Example:
        >>> [(share.start, share.stop) for share in cut_batch(5, 2)]
        [(0, 2), (2, 5)]
        >>> [(share.start, share.stop) for share in cut_batch(20, 2, group=8)]
        [(0, 8), (8, 20)]
    """
    size = max(1, min(group, clips))
    if clips // size < parts:
        size = 1
    groups = clips // size
    edges = [part * groups // parts * size for part in range(parts)]
    return [Share(clips, *pair, parts) for pair in pairwise([*edges, clips])]


def joined(shares: Sequence[Share]) -> Share:
    """All clips of shares that follow each other: what a process has of a batch."""
    return shares[0]._replace(stop=shares[-1].stop)


def part_of_mean(values: Tensor) -> Tensor:
    """This part's share of the mean over all clips: the parts add up to it.

    Args:
        values: One per clip of its own, ``[b]``.

    Returns:
        Scalar; where nobody shares the batch the mean itself.
    """
    share = _here.share
    return values.mean() if share is None else values.sum() / share.clips


def shape_of_all(shape: Sequence[int], clip_axis: int) -> tuple[int, ...]:
    """The shape a tensor of this part's clips would have with all clips of the batch."""
    share = _here.share
    if share is None:
        return tuple(shape)
    return (*shape[:clip_axis], share.clips, *shape[clip_axis + 1 :])


def own_clips(values: Tensor, clip_axis: int = 0) -> Tensor:
    """The rows of this part's clips, of a tensor that has one for every clip."""
    share = _here.share
    if share is None:
        return values
    return values.narrow(clip_axis, share.start, share.stop - share.start)


def clips_of_all(values: Tensor, clip_axis: int = 0) -> Tensor:
    """The rows of all clips, in the order of the batch, of a tensor of this part's clips.

    Gradient flows back to the part that a row came from.
    """
    share = _here.share
    if share is None:
        return values
    numbers = values.byte() if values.dtype == torch.bool else values
    before, after = (
        numbers.new_zeros((*values.shape[:clip_axis], count, *values.shape[clip_axis + 1 :]))
        for count in (share.start, share.clips - share.stop)
    )
    return _sum(torch.cat([before, numbers, after], dim=clip_axis)).to(values.dtype)


def add_up(*parts: Tensor) -> tuple[Tensor, ...]:
    """Add up each of these over all parts of the batch, in one message, with gradient.

    Args:
        parts: Of one dtype; any shapes, the same for every part.

    Returns:
        The sums, equal for every part.
    """
    if _here.share is None:
        return parts
    total = _sum(torch.cat([part.flatten() for part in parts]))
    sizes = [part.numel() for part in parts]
    return tuple(
        each.view(part.shape) for each, part in zip(torch.split(total, sizes), parts, strict=True)
    )


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of the parameters over all parts of the batch, in one message.

    Fabric's own way, a hook per parameter, asks that every parameter takes part in every
    backward pass. Here the critic and the policies have passes of their own.
    """
    if _here.share is None:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = _add_over_all(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, summed in zip(
        gradients, torch.split(total, [g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(summed.view_as(gradient))


def add_in_order(values: Sequence[Tensor]) -> Tensor:
    """The sum of some tensors: one half of them and the other half, each added up like this.

    So the threads of two processes come to the sum that twice as many threads of one come to,
    bit for bit.

    Example:
        >>> tiny = torch.tensor(2.0**-24)  # half of what float32 still tells from 1
        >>> one = torch.tensor(1.0)
        >>> float(add_in_order([one, tiny, tiny, tiny]) - 1) * 2**23
        1.0
    """
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return add_in_order(values[:half]) + add_in_order(values[half:])


def fewest_of_all(count: int) -> int:
    """The smallest of the numbers that the processes of a group say, on the CPU."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    fewest = torch.tensor(count)
    torch.distributed.all_reduce(fewest, torch.distributed.ReduceOp.MIN)
    return int(fewest)


def wait_for_all() -> None:
    """Wait until every process has come here; at once where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        on_gpu = torch.distributed.get_backend() == "nccl"
        device = torch.device("cuda" if on_gpu else "cpu")
        torch.distributed.all_reduce(torch.zeros(1, device=device))
        if on_gpu:
            torch.cuda.synchronize()


class _Sum(torch.autograd.Function):
    """A sum over all parts. Each loss depends on every part, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # 16 bits would lose in the sum what they were precise enough to hold before it.
        wide = x.dtype in (torch.bfloat16, torch.float16)
        total = x.float() if wide else x.clone(memory_format=torch.contiguous_format)
        return _add_over_all(total).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _add_over_all(x: Tensor) -> Tensor:
    """Over the threads of this process, then over the processes; may change ``x``."""
    seat = _here.seat
    if seat is not None:
        return seat.meeting.add(seat.number, x)
    torch.distributed.all_reduce(x)
    return x


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total
