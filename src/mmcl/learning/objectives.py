"""Objectives: losses and rewards, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import score_scale
from mmcl.errors import ShapeError
from mmcl.models.decoupling import MOST_PAIRS, MOST_PAIRS_AT_ONCE

__all__ = [
    "alignment_loss",
    "as_released_reward",
    "item_losses",
    "leave_one_out_advantage",
    "prediction_reward",
]

ALIGNMENT_TEMPERATURE = 0.1
_NOT_COUNTED = -1e4
"""Score of two clips that are not compared; its exponential is 0."""


def item_losses(scores: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the task loss of every clip, ``[b]``; the caller averages over the clips.

    Args:
        scores: ``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for
            emotions.
        targets: float ``[b]``, integer ``[b]`` or integer ``[b, e]``.
        task: Kind of the task.

    Returns:
        Absolute error, cross-entropy, or cross-entropy averaged over the emotions.
    """
    _check(scores, targets, task)
    if task.kind == "regression":
        return (scores - targets).abs()
    if task.kind == "classes":
        return F.cross_entropy(scores, targets, reduction="none")
    # One cross-entropy per emotion, averaged over the emotions of a clip.
    flat = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets).mean(dim=1)


def prediction_reward(scores: Tensor, targets: Tensor, task: Task, *, scale: str = "log") -> Tensor:
    """Pay each clip for its own prediction: the joint reward of all policies.

    A clip's reward depends on that clip alone: shuffling the batch shuffles the rewards the
    same way and changes no value.

    Args:
        scores: As for :func:`item_losses`.
        targets: As for :func:`item_losses`.
        task: Kind of the task.
        scale: ``probability`` of the right class, summed over emotions, and ``exp(-|error|)``
            for regression. Or ``log``: the mean log-probability, and ``-|error|``. Errors are
            those on the field's scale, -3..3 (:mod:`mmcl.corpus.score_range`).

    Returns:
        ``[b]``, without gradient.

    Raises:
        ShapeError: If scores and targets do not fit the task.

    Source:
        docs/method.md, reward. Differs on purpose from the released code, which
        gathers from flattened rows (fault F2); see :func:`as_released_reward`.

    Example:
        >>> odds = torch.tensor([[[1.0, 1.0], [1.0, 3.0]]])
        >>> task = Task(kind="emotions", names=("happy", "sad"))
        >>> prediction_reward(odds.log(), torch.tensor([[0, 1]]), task, scale="probability")
        tensor([1.2500])
    """
    _check(scores, targets, task)
    # A reward is a number that the policies are paid, not a loss to differentiate.
    scores = scores.detach()
    if scale == "log" or task.kind == "regression":
        losses = item_losses(scores, targets, task) / score_scale(task).unit
        # With "log" minus the task loss, for every kind of task.
        return -losses if scale == "log" else (-losses).exp()
    right = scores.softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return right if task.kind == "classes" else right.sum(dim=-1)


def as_released_reward(scores: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the reward as the released code gathers it: clip i is paid for clip ``i // e``.

    It serves to study fault F2; its correlation with the intended reward is near zero.

    Args:
        scores: Logits ``[b, e, 2]``.
        targets: Integer ``[b, e]``.
        task: Must be of kind ``emotions``.

    Returns:
        ``[b]``, without gradient.

    Source:
        docs/method.md, fault F2.
    """
    _check(scores, targets, task)
    if task.kind != "emotions":
        raise ShapeError(f"the released reward is for emotions only, got a task of {task.kind}")
    rows = scores.detach().softmax(dim=-1).flatten(0, 1)  # [b * e, 2]
    return rows.gather(1, targets).sum(dim=1)  # the fault: it reads the first b rows only


def _check(scores: Tensor, targets: Tensor, task: Task) -> None:
    """Refuse scores and targets whose shapes do not fit the task."""
    count = targets.shape[0]
    names = len(task.names)
    expected = {
        "regression": ((count,), (count,)),
        "classes": ((count, names), (count,)),
        "emotions": ((count, names, 2), (count, names)),
    }[task.kind]
    given = (tuple(scores.shape), tuple(targets.shape))
    if given != expected:
        raise ShapeError(
            f"for {task.kind}, scores and targets must have shapes {list(expected[0])} and "
            f"{list(expected[1])}, got {list(given[0])} and {list(given[1])}"
        )


def leave_one_out_advantage(rewards: Tensor) -> Tensor:
    """Subtract from the reward of each sample the mean reward of the clip's other samples.

    Args:
        rewards: Rewards of s samples, at least 2, ``[s, ..., b]``.

    Returns:
        Advantages of the same shape; they sum to zero over the samples.

    Source:
        docs/method.md, learning (RLOO).
    """
    samples = rewards.shape[0]
    # r_i - mean of the others = (r_i - mean of all) * s / (s - 1).
    return (rewards - rewards.mean(dim=0, keepdim=True)) * (samples / (samples - 1))


def alignment_loss(unit: Tensor, step_mask: Tensor, group: int) -> Tensor:
    """Return a loss that draws the modalities of a clip together and those of other clips apart.

    It is the symmetric InfoNCE between every two modalities. The score of two clips is a smooth
    maximum (log-sum-exp, temperature .1) over the cosines of all pairs of their steps. A clip
    counts for two modalities only if it has both.

    Args:
        unit: Steps scaled to an L2 norm of one, in the calibrated space, ``[m, b, n, d]``.
        step_mask: Real steps, bool ``[m, b, n]``.
        group: Clips compared with each other. The cost per clip grows with this number, so the
            batch is cut into groups. Clips of an incomplete last group are left out.

    Returns:
        Scalar, 0 if no two clips can be compared.

    Source:
        docs/method.md, alignment. Ours. It has no parameters.
    """
    m, b = unit.shape[:2]
    size = min(group, b)
    if m < 2 or size < 2:
        return unit.sum() * 0.0
    # Groups G of g clips, all steps of a group's clips in one row: [m, G, g * n, d].
    groups = b // size
    rows = unit[:, : groups * size].reshape(m, groups, -1, unit.shape[-1])
    real = step_mask[:, : groups * size].reshape(m, groups, -1)
    present = real.view(m, groups, size, -1).any(dim=-1)  # [m, G, g]
    losses = [  # one for every two modalities
        _contrast(_clip_scores(rows[k], rows[q], real[k], real[q], size), present[k] & present[q])
        for k in range(m)
        for q in range(k)
    ]
    return torch.stack(losses).mean()


def _contrast(scores: Tensor, present: Tensor) -> Tensor:
    """Return the symmetric InfoNCE of scores ``[G, g, g]`` over the clips that are present."""
    compared = present.unsqueeze(1) & present.unsqueeze(2)
    scores = scores.masked_fill(~compared, _NOT_COUNTED)
    # -log softmax of the clip's own score, once among the columns and once among the rows.
    own = scores.diagonal(dim1=1, dim2=2)  # [G, g]
    losses = (scores.logsumexp(dim=1) + scores.logsumexp(dim=2)) / 2 - own
    return (losses * present).sum() / present.sum().clamp(min=1)


def _clip_scores(x: Tensor, y: Tensor, real_x: Tensor, real_y: Tensor, size: int) -> Tensor:
    """Return the smooth maximum of the cosines between the steps of two clips: ``[G, g, g]``.

    For long clips the cosines are computed in blocks of steps of ``x``, and again for the
    gradient, so that memory grows with the lengths and not with their product.

    Shapes: ``x`` and ``y`` ``[G, g * n, d]``, their masks ``[G, g * n]``.
    """
    per_row = y.shape[0] * y.shape[1]  # cosines of one step of x, in all groups
    if x.shape[1] * per_row <= MOST_PAIRS:
        totals = _sums_of_exponentials(x, y, real_x, real_y, size)
    else:
        block = max(1, MOST_PAIRS_AT_ONCE // per_row)
        parts = [
            checkpoint(
                _sums_of_exponentials,
                *(x_part, y, real_part, real_y, size),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for x_part, real_part in zip(
                torch.split(x, block, dim=1), torch.split(real_x, block, dim=1), strict=True
            )
        ]
        totals = torch.cat(parts, dim=1)
    # Sum over the steps of each clip of x. If either clip has no step, log 1 = 0.
    totals = totals.view(len(x), size, -1, size).sum(dim=2)
    return totals.where(totals > 0, 1.0).log()


def _sums_of_exponentials(
    x: Tensor, y: Tensor, real_x: Tensor, real_y: Tensor, size: int
) -> Tensor:
    """Return the exponentials of the cosines of each step of x, summed over each clip of y.

    Shapes: ``[G, i, d]`` and ``[G, g * n, d]`` in, ``[G, i, g]`` out; 0 for a padded step of x.
    """
    # In place: temporary tensors of this size would each leave a hole in the memory.
    scores = torch.bmm(x / ALIGNMENT_TEMPERATURE, y.transpose(1, 2))
    if not (real_x.all() and real_y.all()):  # padded steps add nothing
        scores.masked_fill_(~(real_x.unsqueeze(2) & real_y.unsqueeze(1)), _NOT_COUNTED)
    # Cosines over the temperature lie in -10..10: float32 exponentials need no shift.
    powers = scores.float().exp() if scores.dtype.itemsize <= 2 else scores.exp_()
    return powers.view(*powers.shape[:2], size, -1).sum(dim=-1)
