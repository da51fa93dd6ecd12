"""Policies: one per modality, deciding step by step what of the specific part is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.layers import traced
from mmcl.processes import current_generator, own_clips, shape_of_all

__all__ = ["Decision", "PolicyModels", "bernoulli_log_probability", "draw_kept"]


FIRST_KEEP_LOGIT = 2.0
"""Where a hard policy starts: it keeps nearly nine steps of ten and learns to drop. Started at
even odds it learns from a predictor that half the steps are withheld from, and ends worse."""


class Decision(NamedTuple):
    """What the policies decided, after all refinement steps.

    Attributes:
        actions: Weight of every step, ``[m, b, n]``, in 0..1; exactly 0 or 1 where the
            policy is hard; 0 where padded.
        keep_probability: What they were decided from, ``[m, b, n]``.
        log_probability: Of a sampled decision, per modality and clip ``[m, b]``; 0 for a
            soft one.
        moves: Per refinement step the state it saw, ``[m, b, n, d]``, and its own choice,
            ``[m, b, n]``.
    """

    actions: Tensor
    keep_probability: Tensor
    log_probability: Tensor
    moves: tuple[tuple[Tensor, Tensor], ...]


def bernoulli_log_probability(keep_logits: Tensor, kept: Tensor) -> Tensor:
    """Log-probability of keeping (1) or dropping (0), elementwise, from logits."""
    return -F.binary_cross_entropy_with_logits(keep_logits, kept, reduction="none")


def draw_kept(probability: Tensor) -> Tensor:
    """Keep (1) or drop (0) every step by its probability, ``[m, b, n]`` in and out.

    Each part of a batch draws for all its clips, every part the same numbers, and keeps those
    of its own: what a clip is dealt does not depend on who holds it.
    """
    shape = shape_of_all(probability.shape, 1)
    if shape == probability.shape:
        return torch.bernoulli(probability, generator=current_generator())
    whole = probability.new_zeros(shape)
    own_clips(whole, 1).copy_(probability)
    return own_clips(torch.bernoulli(whole, generator=current_generator()), 1)


class PolicyModels(nn.Module):
    """``a_m[i] = sigmoid(w_m . S_m[i] + b_m)``: a scalar per step, one policy per modality.

    Args:
        num_modalities: Modalities m.
        width: Width d of the specific parts.
        refinement_steps: Decisions K per clip. Each sees the specific features under the
            actions so far, and can only take more away: actions multiply.
        hard: Keep or drop, in place of a weight.

    Source:
        METHOD 1; hard actions and refinement METHOD 2.5 and 2.7 (faults F5, F11). Training
        and evaluation act on the same state here.
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
        """Shapes: ``[m, ..., n, d]`` in, ``[m, ..., n]`` out."""
        m, n = len(state), state.shape[-2]
        flat = state.reshape(m, -1, state.shape[-1])
        # One by one: as a batch of products with a vector they take ten times as long on a CPU.
        each = [steps @ weight for steps, weight in zip(flat, self.weight, strict=True)]
        logits = torch.stack(each) + self.bias.unsqueeze(-1)
        return logits.view(m, *state.shape[1:-2], n)

    def forward(self, specific: Tensor, step_mask: Tensor, *, sample: bool = False) -> Decision:
        """Decide on every step.

        Args:
            specific: ``[m, b, n, d]``.
            step_mask: Real steps, bool ``[m, b, n]``.
            sample: Draw hard actions at random, as training does; otherwise a step is kept
                when that is likelier than not. Soft actions are never drawn.

        Returns:
            The decision. A step once dropped has no further say: the log-probability
            counts only decisions that could still change something.
        """
        return self.several(specific, step_mask, 1, sample=sample)[0]

    def several(
        self, specific: Tensor, step_mask: Tensor, count: int, *, sample: bool = False
    ) -> list[Decision]:
        """Decide so many times: as often as :meth:`forward` would, judging the steps once."""
        # Before the first decision every real step counts wholly.
        actions = step_mask.to(specific.dtype)
        whole = not traced() and bool(step_mask.all())
        first = self._judge(specific if whole else actions.unsqueeze(-1) * specific)
        return [self._decide(specific, actions, first, sample) for _ in range(count)]

    def _judge(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep_logits = self.keep_logits(state)
        return state, keep_logits, keep_logits.sigmoid()

    def _decide(
        self,
        specific: Tensor,
        actions: Tensor,
        judged: tuple[Tensor, Tensor, Tensor],
        sample: bool,
    ) -> Decision:
        probability = actions
        log_probability = specific.new_zeros(specific.shape[:2])
        moves = []
        for step in range(self.refinement_steps):
            if step:
                judged = self._judge(actions.unsqueeze(-1) * specific)
            state, keep_logits, keep = judged
            if not self.hard:
                decided = keep
            elif sample:
                # What is no number is dropped here, and ends the training by its loss.
                decided = draw_kept(keep.detach().nan_to_num(0.0))
                each = bernoulli_log_probability(keep_logits, decided) * actions
                log_probability = log_probability + each.sum(dim=-1)
            else:
                decided = (keep_logits > 0).to(keep.dtype)
            probability = probability * keep
            actions = actions * decided
            moves.append((state, decided))
        return Decision(actions, probability, log_probability, tuple(moves))
