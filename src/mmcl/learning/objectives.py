"""Losses and rewards, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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
    m, b = unit.shape[:2]
    groups = b // size
    x = unit[:, : groups * size].reshape(m, groups, size, *unit.shape[2:])  # [m, G, g, n, d]
    mask = step_mask[:, : groups * size].reshape(m, groups, size, -1)  # [m, G, g, n]
    longest = [_last_real_step(each) for each in mask]
    steps = [each[:, :, :n] for each, n in zip(x, longest, strict=True)]
    masks = [each[:, :, :n] for each, n in zip(mask, longest, strict=True)]
    pairs = [(k, q) for k in range(m) for q in range(k)]
    losses = [_pair_loss(steps[k], steps[q], masks[k], masks[q]) for k, q in pairs]
    totals, counts = (torch.stack(each) for each in zip(*losses, strict=True))  # [pairs]
    (counts,) = add_up(counts)
    return (totals / counts.clamp(min=1)).mean()


def _last_real_step(mask: Tensor) -> int:
    """Steps of one modality up to the last real one of any clip, at least 1."""
    real = mask.flatten(0, 1).any(dim=0).nonzero()
    return int(real[-1]) + 1 if len(real) else 1


def _sums_by_clip(x: Tensor, y: Tensor, unreal: Tensor, size: int) -> Tensor:
    """What each step of x sums to over the steps of each clip of y, ``[G, g * n, g]``.

    Where there are many pairs of steps they are computed some at a time, and once more for
    the gradient, so that memory grows with the lengths and not with their product.
    """
    groups, count = y.shape[:2]
    if x.shape[1] * groups * count <= MOST_PAIRS:
        return _some_sums(x, y, unreal, size)
    parts = torch.split(x, max(1, MOST_PAIRS_AT_ONCE // (groups * count)), dim=1)
    sums = [
        checkpoint(_some_sums, part, y, unreal, size, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
    return torch.cat(sums, dim=1)


def _some_sums(x: Tensor, y: Tensor, unreal: Tensor, size: int) -> Tensor:
    scores = torch.baddbmm(unreal, x, y.transpose(1, 2), alpha=1 / ALIGNMENT_TEMPERATURE)
    # Cosines over the temperature are within -10..10: their exponentials need no shift.
    return scores.exp().view(len(x), x.shape[1], size, -1).sum(dim=-1)


def _pair_loss(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of two modalities, summed over the clips that count, and how many those are."""
    groups, size, n, d = x.shape
    k = y.shape[2]
    unreal = torch.where(y_mask, 0.0, _NOT_COUNTED).to(x.dtype).reshape(groups, 1, size * k)
    flat_x, flat_y = x.reshape(groups, size * n, d), y.reshape(groups, size * k, d)
    by_step = _sums_by_clip(flat_x, flat_y, unreal, size).view(groups, size, n, size)
    total = torch.einsum("Ginj,Gin->Gij", by_step, x_mask.to(by_step.dtype))
    counts = x_mask.any(dim=-1) & y_mask.any(dim=-1)  # [G, g]
    both = counts.unsqueeze(1) & counts.unsqueeze(2)
    scores = total.where(both, 1.0).log().masked_fill(~both, _NOT_COUNTED)
    right = scores.diagonal(dim1=1, dim2=2)
    each = (scores.logsumexp(dim=2) + scores.logsumexp(dim=1)) / 2 - right
    return (each * counts).sum(), counts.sum()
