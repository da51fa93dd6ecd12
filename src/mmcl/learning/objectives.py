"""Losses and rewards, as pure functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmcl.corpus.schema import Task
from mmcl.errors import ShapeError
from mmcl.processes import Share, add_up, clips_of_all, current_share, own_clips, sharing

__all__ = [
    "alignment_loss",
    "as_released_reward",
    "item_losses",
    "leave_one_out_advantage",
    "prediction_reward",
]

ALIGNMENT_TEMPERATURE = 0.1
_NOT_COUNTED = -1e4
MOST_PAIRS = 1 << 24
"""Pairs of steps whose cosines are kept for the gradient: 64 MiB, and as much for each copy."""
MOST_PAIRS_AT_ONCE = 1 << 22


def item_losses(scores: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Task loss of every clip, ``[b]``: averaging over items is left to the caller.

    Args:
        scores: ``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for
            emotions.
        targets: float ``[b]``, integer ``[b]`` or integer ``[b, e]``.
        task: Which of them.

    Returns:
        Absolute error, cross-entropy, or cross-entropy averaged over the emotions.
    """
    _check(scores, targets, task)
    if task.kind == "regression":
        return (scores - targets).abs()
    if task.kind == "classes":
        return F.cross_entropy(scores, targets, reduction="none")
    flat = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets).mean(dim=1)


def prediction_reward(scores: Tensor, targets: Tensor, task: Task, *, scale: str = "log") -> Tensor:
    """Pay each clip for its own prediction: the joint reward of all policies.

    A clip's reward depends on that clip alone: shuffling the batch shuffles the rewards the
    same way and changes no value.

    Args:
        scores: As for :func:`item_losses`.
        targets: As for :func:`item_losses`.
        task: Which of them.
        scale: ``probability``: of the right class, summed over emotions; for regression
            ``exp(-|error|)``. ``log``: mean log-probability; for regression ``-|error|``.

    Returns:
        ``[b]``, without gradient.

    Raises:
        ShapeError: If scores and targets do not fit the task.

    Source:
        METHOD 1 (``probability``) and 2.6. Differs on purpose from the released code, which
        gathers from flattened rows (fault F2); see :func:`as_released_reward`.

    Example:
        >>> odds = torch.tensor([[[1.0, 1.0], [1.0, 3.0]]])
        >>> task = Task(kind="emotions", names=("happy", "sad"))
        >>> prediction_reward(odds.log(), torch.tensor([[0, 1]]), task, scale="probability")
        tensor([1.2500])
    """
    _check(scores, targets, task)
    scores = scores.detach()
    if scale == "log":
        return -item_losses(scores, targets, task)
    if task.kind == "regression":
        return (-(scores - targets).abs()).exp()
    right = scores.softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return right if task.kind == "classes" else right.sum(dim=-1)


def as_released_reward(scores: Tensor, targets: Tensor, task: Task) -> Tensor:
    """The reward as the released code gathers it: clip i is paid for clip ``i // e``.

    For those who study the fault; its correlation with the intended reward is near zero.

    Args:
        scores: Logits ``[b, e, 2]``.
        targets: Integer ``[b, e]``.
        task: Must be of kind ``emotions``.

    Returns:
        ``[b]``, without gradient.

    Source:
        METHOD 1, fault F2.
    """
    _check(scores, targets, task)
    if task.kind != "emotions":
        raise ShapeError(f"the released reward is for emotions only, got a task of {task.kind}")
    # Clips of other parts may be those that this one's are paid for.
    rows = clips_of_all(scores.detach()).softmax(dim=-1).flatten(0, 1)  # [b * e, 2]
    paid = rows.gather(1, clips_of_all(targets)).sum(dim=1)  # reads the first b rows only
    return own_clips(paid)


def _check(scores: Tensor, targets: Tensor, task: Task) -> None:
    count = targets.shape[0]
    names = len(task.names)
    wanted = {
        "regression": ((count,), (count,)),
        "classes": ((count, names), (count,)),
        "emotions": ((count, names, 2), (count, names)),
    }[task.kind]
    found = (tuple(scores.shape), tuple(targets.shape))
    if found != wanted:
        raise ShapeError(
            f"for {task.kind}, scores and targets must have shapes {list(wanted[0])} and "
            f"{list(wanted[1])}, got {list(found[0])} and {list(found[1])}"
        )


def leave_one_out_advantage(rewards: Tensor) -> Tensor:
    """How much better each sample of a clip did than the mean of its other samples.

    Args:
        rewards: ``[s, ..., b]``, s at least 2.

    Returns:
        Same shape; sums to zero over the samples.

    Source:
        METHOD 2.7 (RLOO).
    """
    samples = rewards.shape[0]
    return (rewards - rewards.mean(dim=0, keepdim=True)) * (samples / (samples - 1))


def alignment_loss(unit: Tensor, step_mask: Tensor, group: int) -> Tensor:
    """Draw the modalities of a clip together and those of different clips apart.

    Symmetric InfoNCE between every two modalities. The score of two clips is a smooth
    maximum (log-sum-exp, temperature .1) over the cosines of all pairs of their steps. A clip
    counts for a pair of modalities only where it has both.

    Args:
        unit: Steps of length one in the calibrated space, ``[m, b, n, d]``.
        step_mask: Real steps, bool ``[m, b, n]``.
        group: Clips compared with each other; the batch is cut into groups, since the cost
            per clip grows with them. Clips of an incomplete last group are left out.

    Returns:
        Scalar, 0 where no two clips can be compared; of a part of a batch, its part of it.

    Source:
        METHOD 2.2. Ours. It has no parameters of its own.
    """
    share = current_share()
    size = min(group, unit.shape[1] if share is None else share.clips)
    if len(unit) < 2 or size < 2:
        return unit.sum() * 0.0
    if share is None or _groups_are_whole(share, size):
        return _loss_of_groups(unit, step_mask, size)
    whole, whole_mask = clips_of_all(unit, 1), clips_of_all(step_mask, 1)
    with sharing(None):
        return _loss_of_groups(whole, whole_mask, size) / share.parts


def _groups_are_whole(share: Share, size: int) -> bool:
    """Whether each part holds whole groups: see :func:`mmcl.processes.cut_batch`."""
    return share.clips // size >= share.parts


def _loss_of_groups(unit: Tensor, step_mask: Tensor, size: int) -> Tensor:
    m, groups = len(unit), unit.shape[1] // size
    x, mask = (
        each[:, : groups * size].reshape(m, groups, size, *each.shape[2:])
        for each in (unit, step_mask)
    )
    pairs = [(k, q) for k in range(m) for q in range(k)]
    totals: Tensor = _Totals.apply(x, mask, pairs)  # type: ignore[no-untyped-call]
    there = mask.any(dim=-1)  # [m, G, g]
    one, other = (list(each) for each in zip(*pairs, strict=True))
    counts = there[one] & there[other]  # [pairs, G, g]
    both = counts.unsqueeze(2) & counts.unsqueeze(3)
    scores = totals.where(both, 1.0).log().masked_fill(~both, _NOT_COUNTED)
    right = scores.diagonal(dim1=2, dim2=3)
    each_clip = (scores.logsumexp(dim=3) + scores.logsumexp(dim=2)) / 2 - right
    (number,) = add_up(counts.sum(dim=(1, 2)))
    of_pairs: Tensor = (each_clip * counts).sum(dim=(1, 2)) / number.clamp(min=1)
    return of_pairs.mean()


class _Totals(torch.autograd.Function):
    """What the exponentials of the cosines of all steps of two clips sum to.

    Steps ``[m, G, g, n, d]`` and their mask ``[m, G, g, n]`` in, ``[pairs, G, g, g]`` out: the
    clips of the first modality of a pair by those of its second. Where there are many pairs of
    steps they are computed some at a time, and once more for the gradient, so that memory grows
    with the lengths and not with their product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        m, _, size, longest, _ = x.shape
        whole = bool(mask.all())
        lengths = [longest] * m if whole else [_last_real_step(each) for each in mask]
        flat, unreal = _flat(x, lengths), _unreal(mask, lengths, whole=whole, like=x)
        powers, totals = [], []
        for k, q in pairs:
            found = []
            for part in _parts(flat[k], flat[q]):
                sums = _powers(flat[k][:, part], flat[q], unreal[q])
                found.append(_by_clip(sums, size).sum(dim=-1))
                if part == slice(None):
                    powers.append(sums)
            by_step = torch.cat(found, dim=1).view(-1, size, lengths[k], size)  # [G, g, n, g]
            if not whole:
                by_step = by_step * mask[k, :, :, : lengths[k], None]
            totals.append(by_step.sum(dim=2))
        ctx.pairs, ctx.lengths, ctx.whole = pairs, lengths, whole
        ctx.save_for_backward(x, mask, *powers)
        return torch.stack(totals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, mask, *powers = ctx.saved_tensors
        size, lengths, whole = x.shape[2], ctx.lengths, ctx.whole
        flat = _flat(x.to(grad.dtype), lengths)
        unreal = _unreal(mask, lengths, whole=whole, like=grad)
        of_x = torch.zeros_like(x, dtype=grad.dtype, memory_format=torch.contiguous_format)
        of_flat = _flat(of_x, lengths)
        kept = iter(powers)
        for (k, q), of_total in zip(ctx.pairs, grad, strict=True):
            of_clips = of_total.unsqueeze(2)
            real = of_clips.new_ones(lengths[k], 1) if whole else mask[k, :, :, : lengths[k], None]
            of_steps = (of_clips * real).flatten(1, 2)  # [G, g * n, g]
            for part in _parts(flat[k], flat[q]):
                some = flat[k][:, part]
                stored = part == slice(None)
                sums = next(kept) if stored else _powers(some, flat[q], unreal[q])
                weight = (_by_clip(sums, size) * of_steps[:, part].unsqueeze(-1)).flatten(2)
                _add_product(of_flat[k][:, part], weight, flat[q])
                _add_product(of_flat[q], weight.transpose(1, 2), some)
        if not whole:  # then these are copies
            for onto, values, length in zip(of_x, of_flat, lengths, strict=True):
                onto[:, :, :length] = values.view(-1, size, length, x.shape[-1])
        return of_x.to(x.dtype), None, None


def _last_real_step(mask: Tensor) -> int:
    """Steps of one modality up to the last real one of any clip, at least 1."""
    real = mask.flatten(0, 1).any(dim=0).nonzero()
    return int(real[-1]) + 1 if len(real) else 1


def _flat(x: Tensor, lengths: list[int]) -> list[Tensor]:
    """Of each modality its first steps, those of a group's clips one after the other."""
    return [each[:, :, :n].flatten(1, 2) for each, n in zip(x, lengths, strict=True)]


def _unreal(mask: Tensor, lengths: list[int], *, whole: bool, like: Tensor) -> list[Tensor]:
    """What is added to the scores of each modality's steps, so that padding does not count."""
    if whole:
        return [like.new_zeros(1, 1, 1)] * len(mask)
    real = (each.unsqueeze(1) for each in _flat(mask, lengths))
    return [torch.where(each, 0.0, _NOT_COUNTED).to(like.dtype) for each in real]


def _by_clip(powers: Tensor, size: int) -> Tensor:
    """``[G, some steps, g * n]``, the steps of each clip by themselves: ``[..., g, n]``."""
    return powers.view(*powers.shape[:2], size, -1)


def _parts(x: Tensor, y: Tensor) -> list[slice]:
    """Which steps of x are compared with those of y at a time; all where they can be."""
    rows, per_row = x.shape[1], y.shape[0] * y.shape[1]
    if rows * per_row <= MOST_PAIRS:
        return [slice(None)]
    some = max(1, MOST_PAIRS_AT_ONCE // per_row)
    return [slice(start, start + some) for start in range(0, rows, some)]


def _powers(x: Tensor, y: Tensor, unreal: Tensor) -> Tensor:
    """Exponentials of the cosines over the temperature, ``[G, some steps, g * n]``."""
    scores = torch.baddbmm(unreal, x, y.transpose(1, 2), alpha=1 / ALIGNMENT_TEMPERATURE)
    # Cosines over the temperature are within -10..10: their exponentials need no shift.
    return (scores if scores.dtype.itemsize > 2 else scores.float()).exp_()


def _add_product(onto: Tensor, weight: Tensor, steps: Tensor) -> None:
    torch.baddbmm(onto, weight, steps, alpha=1 / ALIGNMENT_TEMPERATURE, out=onto)
