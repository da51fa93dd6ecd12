"""Policies: one per modality; it decides which time steps of the specific part are kept."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Acts", "Decision", "PolicyModels", "bernoulli_log_probability", "gather_kept"]

Acts = Literal["softly", "gated", "by draws"]
"""Ways in which a policy acts: it weights every step; it drops some and weights the others; or it
keeps or drops each, in training by a draw."""

FIRST_KEEP_LOGIT = 2.0
"""First bias of a policy that draws. It keeps nearly nine steps of ten at the start and learns to
drop. From a bias of 0 the predictor would learn with half of the steps withheld, and end worse."""
HALF = 0.5
"""Keep probability up to which a gated policy drops a step in the end."""
RISE = 0.5
"""Part of training during which that threshold rises from 0. Until then hardly a step is dropped,
so that the policies learn from all of them."""


class Decision(NamedTuple):
    """Actions of the policies after all refinement steps.

    Attributes:
        actions: Weight of every step, ``[m, b, n]``, in 0..1; exactly 0 where a step is
            dropped or padded.
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
        actions: Actions, 0 for a dropped step, ``[m, b, n]``.

    Returns:
        Steps ``[m, b, k, d]`` and actions ``[m, b, k]``, k the largest number kept, at least 1.
    """
    kept = actions > 0
    longest = max(int(kept.sum(dim=-1).amax()), 1) if actions.numel() else 1
    if longest >= actions.shape[-1]:
        return steps, actions
    # A stable sort of kept steps before dropped ones keeps the order of time.
    order = kept.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :longest]
    rows = order.unsqueeze(-1).expand(*order.shape, steps.shape[-1])
    return steps.gather(2, rows), actions.gather(2, order)


class PolicyModels(nn.Module):
    """Keep probabilities ``p_m[i] = sigmoid(w_m . S_m[i] + b_m)``, and actions made of them.

    A policy that acts softly takes the probability as action. A gated one drops the steps up to
    a threshold t, and takes ``(p - t) / (1 - t)`` of the others. In training t rises from 0 to
    one half. It is saved with the weights, so that a network predicts as it was validated.

    Args:
        num_modalities: Modalities m.
        width: Width d of the specific parts.
        refinement_steps: Decisions K per clip. Each sees the specific features under the
            actions so far. Actions multiply, so a later decision can only take more away.
        acts: How a policy acts, see :data:`Acts`.
        keep: Greatest share of a clip's steps that a gated policy keeps, all modalities
            together, 0..1 (but one step at least): those with the largest actions. Training
            has no limit.

    Source:
        docs/method.md, policy. Gates, draws and refinement are ours.
    """

    def __init__(
        self,
        num_modalities: int,
        width: int,
        *,
        refinement_steps: int = 1,
        acts: Acts = "softly",
        keep: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_modalities, width))
        start = FIRST_KEEP_LOGIT if acts == "by draws" else 0.0
        self.bias = nn.Parameter(torch.full((num_modalities,), start))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)
        self.refinement_steps = refinement_steps
        self.acts, self.keep = acts, keep
        if acts == "gated":
            self.register_buffer("threshold", torch.zeros(()))
            self.threshold: Tensor

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the threshold of an epoch of training, counted from 0."""
        if self.acts == "gated":
            self.threshold.fill_(HALF * min(1.0, epoch / (RISE * epochs)))

    @property
    def least_kept(self) -> float:
        """Keep probability above which a step counts as kept; a soft policy drops none."""
        return float(self.threshold) if self.acts == "gated" else HALF

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
            sample: Draw actions at random, as training by draws does. Otherwise a step is
                kept if its probability is above one half. Other actions are never drawn.
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
            # Choice: the probability or what is above the threshold, a draw, or the likelier.
            if self.acts == "softly":
                chosen = keep
            elif self.acts == "gated":
                chosen = self._gate(keep, actions, step_mask)
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

    def _gate(self, keep: Tensor, actions: Tensor, step_mask: Tensor) -> Tensor:
        """Return the actions of a gate on keep probabilities, ``[m, b, n]``."""
        gated = (keep - self.threshold).clamp(min=0.0) / (1.0 - self.threshold)
        if self.keep == 1.0 or self.training:
            return gated
        return gated * _among_largest(gated * actions, self.keep, step_mask)


def _among_largest(actions: Tensor, share: float, step_mask: Tensor) -> Tensor:
    """Say which actions are among the largest of a clip, its modalities together.

    Those that equal the smallest of them count, too. Shapes: ``[m, b, n]`` in and out.
    """
    count = (share * step_mask.sum(dim=(0, 2))).floor().long().clamp(min=1)  # [b]
    ranked = actions.detach().transpose(0, 1).flatten(1).sort(dim=1, descending=True).values
    smallest = ranked.gather(1, count.unsqueeze(1) - 1)  # [b, 1]
    return actions >= smallest
