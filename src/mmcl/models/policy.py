"""Policies: one per modality; it decides which time steps of the specific part are kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Decision", "PolicyModels", "bernoulli_log_probability", "gather_kept"]

FIRST_KEEP_LOGIT = 2.0
"""First bias of a hard policy. It keeps nearly nine steps of ten at the start and learns to drop.
From a bias of 0 the predictor would learn with half of the steps withheld, and end worse."""


class Decision(NamedTuple):
    """Actions of the policies after all refinement steps.

    Attributes:
        actions: Weight of every step, ``[m, b, n]``, in 0..1; exactly 0 or 1 where the
            policy is hard; 0 where padded.
        keep_probability: Probability that the policy gave to keeping each step, ``[m, b, n]``.
        log_probability: Log-probability of a sampled decision, per modality and clip
            ``[m, b]``; 0 for a soft one.
        moves: Per refinement step the state, ``[m, b, n, d]``, and the choice made in it,
            ``[m, b, n]``.
    """

    actions: Tensor
    keep_probability: Tensor
    log_probability: Tensor
    moves: tuple[tuple[Tensor, Tensor], ...]


def bernoulli_log_probability(keep_logits: Tensor, kept: Tensor) -> Tensor:
    """Return the log-probability of keeping (1) or dropping (0) each step, from logits."""
    return -F.binary_cross_entropy_with_logits(keep_logits, kept, reduction="none")


def gather_kept(steps: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Move the kept steps of every clip to the front, and cut off the steps that no clip keeps.

    A dropped step has no influence on any other, so later layers need not compute it. Kept steps
    stay in order. If some clip keeps every step, nothing is changed.

    Args:
        steps: ``[m, b, n, d]``.
        actions: Hard actions, 0 or 1, ``[m, b, n]``.

    Returns:
        Steps ``[m, b, k, d]`` and actions ``[m, b, k]``, k the largest number kept, at least 1.
    """
    # Counted as whole numbers: a sum of bfloat16 actions is exact up to 256 only.
    longest = max(int((actions > 0).sum(dim=-1).amax()), 1) if actions.numel() else 1
    if longest >= actions.shape[-1]:
        return steps, actions
    # A stable sort of 1s before 0s keeps the order of time.
    order = actions.argsort(dim=-1, descending=True, stable=True)[..., :longest]
    rows = order.unsqueeze(-1).expand(*order.shape, steps.shape[-1])
    return steps.gather(2, rows), actions.gather(2, order)


class PolicyModels(nn.Module):
    """``a_m[i] = sigmoid(w_m . S_m[i] + b_m)``: a scalar per step, one policy per modality.

    Args:
        num_modalities: Modalities m.
        width: Width d of the specific parts.
        refinement_steps: Decisions K per clip. Each sees the specific features under the
            actions so far. Actions multiply, so a later decision can only take more away.
        hard: Keep or drop a step, instead of weighting it.

    Source:
        docs/method.md, policy. Hard actions and refinement are ours.
    """

    def __init__(
        self, num_modalities: int, width: int, *, refinement_steps: int = 1, hard: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_modalities, width))
        start = FIRST_KEEP_LOGIT if hard else 0.0
        self.bias = nn.Parameter(torch.full((num_modalities,), start))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)
        self.refinement_steps = refinement_steps
        self.hard = hard

    def keep_logits(self, state: Tensor) -> Tensor:
        """Return ``w_m . s + b_m`` of every step s: ``[m, ..., n, d]`` in, ``[m, ..., n]`` out."""
        # One product per modality: a batched product with vectors is ten times slower on a CPU.
        logits = [steps @ w + b for steps, w, b in zip(state, self.weight, self.bias, strict=True)]
        return torch.stack(logits)

    def forward(self, specific: Tensor, step_mask: Tensor, *, sample: bool = False) -> Decision:
        """Decide on every step.

        The log-probability counts only decisions about steps that were not dropped before.

        Args:
            specific: ``[m, b, n, d]``.
            step_mask: Real steps, bool ``[m, b, n]``.
            sample: Draw hard actions at random, as training does. Otherwise a step is kept
                if its probability is above one half. Soft actions are never drawn.
        """
        # Before the first decision every real step counts fully.
        actions = probability = step_mask.to(specific.dtype)
        log_probability = specific.new_zeros(specific.shape[:2])
        moves = []
        for _ in range(self.refinement_steps):
            # State: the specific features under the actions so far.
            state = actions.unsqueeze(-1) * specific
            keep_logits = self.keep_logits(state)
            keep = keep_logits.sigmoid()
            # Choice: the probability itself, a draw from it, or the likelier of the two.
            if not self.hard:
                chosen = keep
            elif sample:
                # bernoulli refuses NaN. Such a step is dropped; the NaN loss ends the training.
                chosen = torch.bernoulli(keep.detach().nan_to_num(0.0))
                step_log_probability = bernoulli_log_probability(keep_logits, chosen) * actions
                log_probability = log_probability + step_log_probability.sum(dim=-1)
            else:
                chosen = (keep_logits > 0).to(keep.dtype)
            probability = probability * keep
            actions = actions * chosen
            moves.append((state, chosen))
        return Decision(actions, probability, log_probability, tuple(moves))
