"""Co-SA: a policy per modality weighs its steps, advised by the other modalities."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.attention import IntraModalAttention
from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import key_bias, masked_mean, other_steps
from mmcl.models.layers import NEVER, BatchNorm, Dropout, ModalityBlock

__all__ = ["CoSA", "distance_loss"]


class AdvisedPolicy(nn.Module):
    """``a[i] = sigmoid(w . [x[i] ; advice[i]] + b)``: a weight for every step of a modality.

    The advice is a mixture of the other modalities' steps: those that agree with the step, by
    attention with the cosine, and those that differ from it, by attention with minus the cosine.
    At a ``temperature`` of 1, cosines would weigh all steps nearly alike.
    """

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.mixture = nn.Parameter(torch.zeros(()))
        self.action = nn.Linear(2 * width, 1)

    def forward(self, steps: Tensor, others: Tensor, others_mask: Tensor) -> Tensor:
        """``[b, n, d]``, ``[b, k, d]`` and bool ``[b, k]`` in, actions ``[b, n]`` out."""
        advice = self.advice(steps, others, others_mask)
        logits: Tensor = self.action(torch.cat([steps, advice], dim=-1))
        return logits.squeeze(-1).sigmoid()

    def advice(self, steps: Tensor, others: Tensor, others_mask: Tensor) -> Tensor:
        """Return the advice ``[b, n, d]``; 0 for a clip without any other modality."""
        unit, other_unit = (F.normalize(x, dim=-1, eps=1e-6) for x in (steps, others))
        cosines = unit @ other_unit.transpose(1, 2) / self.temperature  # [b, n, k]
        real = others_mask.unsqueeze(1)
        agreeing = cosines.masked_fill(~real, NEVER).softmax(dim=-1)
        differing = (-cosines).masked_fill(~real, NEVER).softmax(dim=-1)
        # The sigmoid keeps it a mixture; in the last code its weights saturate.
        share = self.mixture.sigmoid()
        advice = (share * agreeing + (1 - share) * differing) @ others
        return advice * others_mask.any(dim=1)[:, None, None]


class CoSA(Baseline):
    """Attention in each modality, advised weights of its steps, a transformer, one head.

    A further loss drives the steps of a modality apart (:func:`distance_loss`).

    Source:
        Co-SA (arXiv 2404.12642), as far as it is known to us, in the form of its last code.
        Mended: the advice stays a mixture of steps that agree and steps that differ (in the code
        it becomes the step itself). The audio term of the distance loss is computed from audio,
        not from vision. Softmaxes of cosines have a temperature. Masks everywhere, any lengths.
        **Left out: the critic.** Actions are deterministic and the reward is the negative task
        loss of the clip itself, so the task loss has the policy's exact gradient, which a critic
        would only estimate. With the critic go the reward of other clips, transitions between
        unrelated clips, target networks and the replay. Left out too: the disentanglement loss,
        of weight 0 in the last code, and fusion by product or concatenation.
    """

    class Options(AttentionOptions):
        """Sizes and weights, those of the last code where they are known."""

        width: int = Field(128, ge=2)  # of every modality's space
        heads: int = Field(8, ge=1)  # of attention; must divide the width
        inner_width: int = Field(256, ge=1)  # of the transformer's feed-forward part
        dropout: float = Field(0.1, ge=0, lt=1)  # in the head
        temperature: float = Field(0.1, gt=0)  # of the advice's softmaxes; ours
        # The task loss counts 1. As published, the distance loss grows with the number of steps:
        # lower its weight for sequences of hundreds.
        distance_weight: float = Field(10 / 9, ge=0)

    def build(self) -> None:
        """Make the layers."""
        options, names = self.options, self.modalities
        width, heads = options.width, options.heads
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})
        self.attention = nn.ModuleDict({m: IntraModalAttention(1, width, heads) for m in names})
        self.policies = nn.ModuleDict({m: AdvisedPolicy(width, options.temperature) for m in names})
        self.blocks = nn.ModuleDict(
            {m: ModalityBlock(1, width, heads, options.inner_width, 0.0) for m in names}
        )
        self.inner = nn.Linear(width, width)
        self.dropout = Dropout(options.dropout)
        self.norm = BatchNorm(width)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Attend, act, transform, average; see :meth:`Baseline.predict`."""
        # x_m = attention(linear(X_m)). The layers take a leading axis of modalities, here of one.
        bias = {m: key_bias(mask).unsqueeze(0) for m, mask in masks.items()}
        enhanced: ByModality = {
            m: self.attention[m](self.projections[m](x).unsqueeze(0), bias[m])[0]
            for m, x in steps.items()
        }
        pooled: list[Tensor] = []
        extras: dict[str, Tensor] = {}
        for m, x in enhanced.items():
            # a_m = policy of its own steps and the advice of the others
            actions = self.policies[m](x, *other_steps(m, enhanced, masks)) * masks[m]
            # mean over time of transformer(a_m x_m)
            weighted = (actions.unsqueeze(-1) * x).unsqueeze(0)
            pooled.append(masked_mean(self.blocks[m](weighted, bias[m])[0], masks[m]))
            extras |= {f"{m}_steps": x, f"{m}_mask": masks[m], f"{m}_actions": actions}
        # Average of the modalities that the clip has, and the head.
        present = torch.stack([mask.any(dim=1) for mask in masks.values()]).sum(dim=0)
        fused = torch.stack(pooled).sum(dim=0) / present.clamp(min=1).unsqueeze(-1)
        hidden = self.norm(F.relu(self.dropout(self.inner(fused))))
        return self.output(hidden), hidden, extras

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Return the weighted mean of the modalities' distance losses."""
        extras = output.extras
        losses = [distance_loss(extras[f"{m}_steps"], extras[f"{m}_mask"]) for m in self.modalities]
        loss: Tensor = self.options.distance_weight * torch.stack(losses).mean()
        return loss


def distance_loss(steps: Tensor, mask: Tensor) -> Tensor:
    """Drive the steps of a clip apart.

    ``1 / (T (T - 1))`` times the sum over ordered pairs p, q of different steps of
    ``(T - |p - q|) (cos(x_p, x_q) + 1) / 2``; T real steps, counted without the others. The mean
    is over the clips with two steps or more; 0 if there is none.

    Shapes: ``[b, n, d]`` and bool ``[b, n]``.

    Source:
        Co-SA's loss of deep phase space reconstruction, on the attended steps as in its last code.
    """
    unit = F.normalize(steps, dim=-1, eps=1e-6)
    likeness = (unit @ unit.transpose(1, 2) + 1) / 2  # [b, n, n]
    # T - |p - q|, with p and q the places among the real steps.
    length, place = mask.sum(dim=1), mask.cumsum(dim=1)
    nearness = length[:, None, None] - (place.unsqueeze(2) - place.unsqueeze(1)).abs()
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
    pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    totals = (likeness * nearness * pairs).sum(dim=(1, 2))
    losses = totals / (length * (length - 1)).clamp(min=1)  # [b]
    return losses.sum() / (length > 1).sum().clamp(min=1)
