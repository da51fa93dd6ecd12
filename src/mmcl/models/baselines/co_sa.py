"""Co-SA: a policy per modality weighs its steps, advised by the other modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.attention import IntraModalAttention
from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import key_bias, masked_mean
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.layers import NEVER, BatchNorm, Dropout, ModalityBlock
from mmcl.types import Modality

__all__ = ["MODEL", "CoSA", "distance_loss"]


class AdvisedPolicy(nn.Module):
    """``a[i] = sigmoid(w . [x[i] ; advice[i]] + b)``: a weight for every step of a modality.

    The advice is what the other modalities hold that agrees with the step, and what differs
    from it: attention to their steps by the cosine and by minus the cosine, mixed.

    Args:
        width: Of a step.
        temperature: Of both softmaxes; at 1 cosines weigh all steps nearly alike.
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
        """Advice ``[b, n, d]``; 0 for a clip without any other modality."""
        unit, other_unit = (F.normalize(x, dim=-1, eps=1e-6) for x in (steps, others))
        cosines = unit @ other_unit.transpose(1, 2) / self.temperature  # [b, n, k]
        real = others_mask.unsqueeze(1)
        agreeing = cosines.masked_fill(~real, NEVER).softmax(dim=-1)
        differing = (-cosines).masked_fill(~real, NEVER).softmax(dim=-1)
        share = self.mixture.sigmoid()
        advice = (share * agreeing + (1 - share) * differing) @ others
        return advice * others_mask.any(dim=1)[:, None, None]


class CoSA(Baseline):
    """Attention in each modality, advised weights of its steps, a transformer, one head.

    A further loss drives the steps of a modality apart (:func:`distance_loss`).

    Source:
        Co-SA (arXiv 2404.12642), as far as it is known to us, in the form of its last code
        (METHOD 6). Mended: the advice is a mixture of what agrees and what differs, which
        stays one (there its weights saturate, and it is the step itself); the audio term of
        the distance loss is of audio (there it is of vision); softmaxes of cosines have a
        temperature; masks everywhere, any lengths. **Left out: the critic.** Actions are
        deterministic and the reward is the negative task loss of the clip itself, so the
        task loss has the policy's exact gradient, which a critic would only estimate; with
        it go the reward of other clips (F2), transitions between unrelated clips (F5), target
        networks (F6) and the replay. Left out too: the disentanglement loss, of weight 0 in
        the last code, and fusion by product or concatenation.
    """

    class Options(BaselineOptions):
        """Sizes and weights, those of the last code where they are known.

        Attributes:
            width: Of every modality's space.
            heads: Attention heads; must divide the width.
            inner_width: Inner width of the transformer.
            dropout: In the head.
            temperature: Of the advice's softmaxes; ours.
            distance_weight: Of the distance loss, the task loss counting 1. As published, that
                loss grows with the number of steps: lower it for sequences of hundreds.
        """

        width: int = Field(128, ge=2)
        heads: int = Field(8, ge=1)
        inner_width: int = Field(256, ge=1)
        dropout: float = Field(0.1, ge=0, lt=1)
        temperature: float = Field(0.1, gt=0)
        distance_weight: float = Field(10 / 9, ge=0)
        _heads = heads_must_divide()

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

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        enhanced = {m: self._enhance(m, steps[m], masks[m]) for m in steps}
        pooled: list[Tensor] = []
        extras: dict[str, Tensor] = {}
        for m, x in enhanced.items():
            actions = self._act(m, enhanced, masks)
            kept = self.blocks[m]((actions.unsqueeze(-1) * x)[None], key_bias(masks[m])[None])[0]
            pooled.append(masked_mean(kept, masks[m]))
            extras |= {f"{m}_steps": x, f"{m}_mask": masks[m], f"{m}_actions": actions}
        present = torch.stack([mask.any(dim=1) for mask in masks.values()]).sum(dim=0)
        fused = torch.stack(pooled).sum(dim=0) / present.clamp(min=1).unsqueeze(-1)
        hidden = self.norm(F.relu(self.dropout(self.inner(fused))))
        return self.output(hidden), hidden, extras

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """The distance loss of every modality, weighted."""
        extras = output.extras
        losses = [distance_loss(extras[f"{m}_steps"], extras[f"{m}_mask"]) for m in self.modalities]
        loss: Tensor = self.options.distance_weight * torch.stack(losses).mean()
        return loss

    def _enhance(self, modality: Modality, steps: Tensor, mask: Tensor) -> Tensor:
        projected = self.projections[modality](steps)
        enhanced: Tensor = self.attention[modality](projected[None], key_bias(mask)[None])[0]
        return enhanced

    def _act(
        self,
        modality: Modality,
        enhanced: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor],
    ) -> Tensor:
        own = enhanced[modality]
        none = own[:, :0]
        others = torch.cat([none, *(x for m, x in enhanced.items() if m != modality)], dim=1)
        mask = torch.cat(
            [masks[modality][:, :0], *(x for m, x in masks.items() if m != modality)], dim=1
        )
        actions: Tensor = self.policies[modality](own, others, mask)
        return actions * masks[modality]


def distance_loss(steps: Tensor, mask: Tensor) -> Tensor:
    """Drive the steps of a clip apart.

    ``1 / (T (T - 1))`` times the sum over ordered pairs p, q of different steps of
    ``(T - |p - q|) (cos(x_p, x_q) + 1) / 2``; T real steps, counted without the others.

    Args:
        steps: ``[b, n, d]``.
        mask: Real steps, bool ``[b, n]``.

    Returns:
        Mean over the clips with two steps or more; 0 if there is none.

    Source:
        METHOD 6, the loss of deep phase space reconstruction, on the attended steps as in
        the last code.
    """
    unit = F.normalize(steps, dim=-1, eps=1e-6)
    likeness = (unit @ unit.transpose(1, 2) + 1) / 2  # [b, n, n]
    length = mask.sum(dim=1)  # [b]
    at = mask.cumsum(dim=1)
    near = length[:, None, None] - (at.unsqueeze(2) - at.unsqueeze(1)).abs()
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
    pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    total = (likeness * near * pairs).sum(dim=(1, 2))
    each = total / (length * (length - 1)).clamp(min=1)
    return each.sum() / (length > 1).sum().clamp(min=1)


MODEL = CoSA
