"""One batch over several processes: which clips are whose, and sums over all of them.

Every process holds the whole network and some clips of each batch. What one process would
compute of all clips is computed in two steps: each process takes its part, and the parts are
added up. Three rules make the sum the same number:

* a mean over clips is divided by the clips of the whole batch (:func:`part_of_mean`);
* statistics of a batch are added up before they are used, with their gradient
  (:func:`add_up`), and so are the gradients of the parameters (:func:`sum_gradients`);
* whatever is drawn at random is drawn for the whole batch by every process, which keeps the
  rows of its own clips (:func:`shape_of_all`, :func:`own_clips`). The random states of all
  processes therefore stay equal.

In one process each of these does nothing, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "Share",
    "add_up",
    "clips_of_all",
    "current_share",
    "cut_batch",
    "own_clips",
    "part_of_mean",
    "shape_of_all",
    "sharing",
    "sum_gradients",
    "wait_for_all",
]


class Share(NamedTuple):
    """The clips of a batch that one process holds: those from ``start`` to before ``stop``.

    Attributes:
        clips: In the whole batch.
        start: The first of its own.
        stop: After the last of its own; it may have none.
        processes: That share the batch.
    """

    clips: int
    start: int
    stop: int
    processes: int


_share: Share | None = None


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Say that the tensors within hold these clips of a batch; None, that they hold all."""
    global _share
    before, _share = _share, share
    try:
        yield
    finally:
        _share = before


def current_share() -> Share | None:
    """What :func:`sharing` said; None where one process has all clips."""
    return _share


def cut_batch(clips: int, processes: int, group: int = 1) -> list[Share]:
    """Divide the clips of a batch among processes, in order and as evenly as may be.

    Args:
        clips: In the whole batch.
        processes: That share it.
        group: Clips that are compared with each other, from the first on; a group stays whole
            where there are at least as many as processes.

    Returns:
        One share per process; together they are the batch, each clip once.

    Example:
        >>> [(share.start, share.stop) for share in cut_batch(5, 2)]
        [(0, 2), (2, 5)]
        >>> [(share.start, share.stop) for share in cut_batch(20, 2, group=8)]
        [(0, 8), (8, 20)]
    """
    size = max(1, min(group, clips))
    if clips // size < processes:
        size = 1
    groups = clips // size
    edges = [process * groups // processes * size for process in range(processes)]
    return [Share(clips, *pair, processes) for pair in pairwise([*edges, clips])]


def part_of_mean(values: Tensor) -> Tensor:
    """This process's part of the mean over all clips: the parts add up to it.

    Args:
        values: One per clip of its own, ``[b]``.

    Returns:
        Scalar; in one process the mean itself.
    """
    return values.mean() if _share is None else values.sum() / _share.clips


def shape_of_all(shape: Sequence[int], clip_axis: int) -> tuple[int, ...]:
    """The shape a tensor of this process's clips would have with all clips of the batch."""
    if _share is None:
        return tuple(shape)
    return (*shape[:clip_axis], _share.clips, *shape[clip_axis + 1 :])


def own_clips(values: Tensor, clip_axis: int = 0) -> Tensor:
    """The rows of this process's clips, of a tensor that has one for every clip."""
    if _share is None:
        return values
    return values.narrow(clip_axis, _share.start, _share.stop - _share.start)


def clips_of_all(values: Tensor, clip_axis: int = 0) -> Tensor:
    """The rows of all clips, in the order of the batch, of a tensor of this process's clips.

    Gradient flows back to the process that a row came from.
    """
    if _share is None:
        return values
    numbers = values.byte() if values.dtype == torch.bool else values
    before, after = (
        numbers.new_zeros((*values.shape[:clip_axis], count, *values.shape[clip_axis + 1 :]))
        for count in (_share.start, _share.clips - _share.stop)
    )
    return _sum(torch.cat([before, numbers, after], dim=clip_axis)).to(values.dtype)


def add_up(*parts: Tensor) -> tuple[Tensor, ...]:
    """Add up each of these over the processes, in one message, with gradient.

    Args:
        parts: Of one dtype; any shapes, the same in every process.

    Returns:
        The sums, equal in every process.
    """
    if _share is None:
        return parts
    total = _sum(torch.cat([part.flatten() for part in parts]))
    sizes = [part.numel() for part in parts]
    return tuple(
        each.view(part.shape) for each, part in zip(torch.split(total, sizes), parts, strict=True)
    )


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of the parameters over the processes, in one message.

    Fabric's own way, a hook per parameter, asks that every parameter takes part in every
    backward pass. Here the critic and the policies have passes of their own.
    """
    if _share is None:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(total)
    for gradient, summed in zip(
        gradients, torch.split(total, [g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(summed.view_as(gradient))


def wait_for_all() -> None:
    """Wait until every process has come here; at once where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        on_gpu = torch.distributed.get_backend() == "nccl"
        device = torch.device("cuda" if on_gpu else "cpu")
        torch.distributed.all_reduce(torch.zeros(1, device=device))
        if on_gpu:
            torch.cuda.synchronize()


class _Sum(torch.autograd.Function):
    """A sum over processes. Each loss depends on every part, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # 16 bits would lose in the sum what they were precise enough to hold before it.
        wide = x.dtype in (torch.bfloat16, torch.float16)
        total = x.float() if wide else x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total
