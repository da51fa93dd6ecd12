"""MVCL: clips of one kind are drawn together, in each modality, across them and when fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.corpus.schema import Task
from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import TransformerEncoder, key_bias, masked_mean
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.layers import NEVER, Dropout
from mmcl.types import Modality

__all__ = ["MODEL", "MVCL", "likeness", "supervised_contrast", "views_contrast"]

_SMALLEST_NORM = 1e-6


class CrossAttention(nn.Module):
    """A post-norm transformer layer whose keys are the steps of other modalities.

    Args:
        width: Of every step.
        heads: Attention heads.
        dropout: In the layer.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, steps: Tensor, others: Tensor, others_mask: Tensor) -> Tensor:
        """``[b, n, d]``, ``[b, k, d]`` and bool ``[b, k]`` in, ``[b, n, d]`` out.

        A clip without a single other step attends to nothing, and adds nothing.
        """
        b, n, d = steps.shape
        query = self.query(steps).view(b, n, self.heads, -1).transpose(1, 2)
        key_value = self.key_value(others).view(b, -1, 2, self.heads, d // self.heads)
        key, value = (x.transpose(1, 2) for x in key_value.unbind(2))  # [b, heads, k, ..]
        bias = key_bias(others_mask).to(query.dtype)[:, None, None]
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = self.mix(context.transpose(1, 2).reshape(b, n, d))
        mixed = mixed * others_mask.any(dim=1)[:, None, None]
        x = self.norm1(steps + self.dropout(mixed))
        normal: Tensor = self.norm2(
            x + self.dropout(self.outer(self.dropout(F.relu(self.inner(x)))))
        )
        return normal


class Projector(nn.Module):
    """Linear, ReLU, Linear, to length one: where clips are contrasted.

    Args:
        in_dim: Of the representation.
        width: Between the layers.
        out_dim: Of the result.
    """

    def __init__(self, in_dim: int, width: int, out_dim: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(in_dim, width), nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[b, in]`` in, ``[b, out]`` out."""
        unit: Tensor = F.normalize(self.outer(F.relu(self.inner(x))), dim=-1, eps=_SMALLEST_NORM)
        return unit


class MVCL(Baseline):
    """Transformers, cross-modal attention, one head; three contrasts beside the task loss.

    1. supervised, in each modality: clips of like labels together, others apart;
    2. between two views of a clip, a modality before and after it has attended to the others;
    3. supervised, on the fused representation.

    Source:
        Liu et al. 2022 (arXiv 2210.15824), of which we know the abstract alone (FIELD 5.10):
        this is **our reading**, not the authors' architecture, and its sizes and weights are
        ours. Decided: the stages are one weighted sum, learnt together with the task, where
        the abstract has them one after the other and the classifier on frozen
        representations; scores count as alike by how close they are (:func:`likeness`), so
        that no edge cuts through near ones and zero needs no class of its own; a clip takes
        part in a contrast only where it has the modalities of it.
    """

    class Options(BaselineOptions):
        """Sizes and weights; all of them ours.

        Attributes:
            width: Of every modality's space.
            heads: Attention heads; must divide the width.
            layers: Transformer layers per modality, before the cross-modal one.
            dropout: In the layers and the head.
            projection: Width in which clips are contrasted.
            label_scale: Distance of labels, as a share of the greatest, at which two clips are
                alike by a factor e less; not for classes.
            label_temperature: Of the supervised contrasts.
            view_temperature: Of the contrast between views.
            modality_weight: Of the contrast in each modality.
            view_weight: Of the contrast between views.
            fusion_weight: Of the contrast of what is fused.
        """

        width: int = Field(64, ge=2)
        heads: int = Field(4, ge=1)
        layers: int = Field(1, ge=1)
        dropout: float = Field(0.1, ge=0, lt=1)
        projection: int = Field(64, ge=1)
        label_scale: float = Field(0.1, gt=0)
        label_temperature: float = Field(0.1, gt=0)
        view_temperature: float = Field(0.2, gt=0)
        modality_weight: float = Field(0.1, ge=0)
        view_weight: float = Field(0.1, ge=0)
        fusion_weight: float = Field(0.1, ge=0)
        _heads = heads_must_divide()

    def build(self) -> None:
        """Make the layers."""
        options, names = self.options, self.modalities
        width, heads, dropout = options.width, options.heads, options.dropout
        size = (width, width, options.projection)
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})
        self.encoders = nn.ModuleDict(
            {m: TransformerEncoder(width, heads, options.layers, dropout) for m in names}
        )
        self.modality_projectors = nn.ModuleDict({m: Projector(*size) for m in names})
        several = names if len(names) > 1 else ()  # one alone has nobody to attend to
        self.cross = nn.ModuleDict({m: CrossAttention(width, heads, dropout) for m in several})
        self.view_projectors = nn.ModuleDict({m: Projector(*size) for m in several})
        self.inner = nn.Linear(width * len(names), width)
        self.fusion_projector = Projector(*size)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        encoded = {m: self.encoders[m](self.projections[m](steps[m]), masks[m]) for m in steps}
        alone = {m: masked_mean(encoded[m], masks[m]) for m in steps}
        attended = {m: masked_mean(self._attend(m, encoded, masks), masks[m]) for m in steps}
        hidden = F.relu(self.inner(torch.cat(list(attended.values()), dim=-1)))
        extras = {f"{m}_present": mask.any(dim=1) for m, mask in masks.items()}
        if self.training:
            extras |= self._projected(alone, attended, hidden)
        return self.output(self.dropout(hidden)), hidden, extras

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """The three contrasts, weighted; 0 in evaluation."""
        extras, options = output.extras, self.options
        if "fusion" not in extras:
            return super().auxiliary_loss(output, targets, rows)
        alike = likeness(targets, self.task, options.label_scale)
        warmth = options.label_temperature
        present = {m: extras[f"{m}_present"] for m in self.modalities}
        each = [
            supervised_contrast(extras[f"{m}_alone"], alike, present[m], temperature=warmth)
            for m in self.modalities
        ]
        several = torch.stack(list(present.values())).sum(dim=0) > 1
        views = [
            views_contrast(
                extras[f"{m}_before"],
                extras[f"{m}_after"],
                present[m] & several,
                temperature=options.view_temperature,
            )
            for m in self.modalities
            if m in self.cross
        ]
        some = torch.stack(list(present.values())).any(dim=0)
        fused = supervised_contrast(extras["fusion"], alike, some, temperature=warmth)
        loss: Tensor = options.modality_weight * torch.stack(each).mean()
        loss = loss + options.fusion_weight * fused
        if views:
            loss = loss + options.view_weight * torch.stack(views).mean()
        return loss

    def _attend(
        self,
        modality: Modality,
        encoded: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor],
    ) -> Tensor:
        if modality not in self.cross:
            return encoded[modality]
        others = [m for m in encoded if m != modality]
        keys = torch.cat([encoded[m] for m in others], dim=1)
        keys_mask = torch.cat([masks[m] for m in others], dim=1)
        attended: Tensor = self.cross[modality](encoded[modality], keys, keys_mask)
        return attended

    def _projected(
        self,
        alone: Mapping[Modality, Tensor],
        attended: Mapping[Modality, Tensor],
        hidden: Tensor,
    ) -> dict[str, Tensor]:
        extras = {f"{m}_alone": self.modality_projectors[m](x) for m, x in alone.items()}
        for m in [m for m in alone if m in self.cross]:
            extras[f"{m}_before"] = self.view_projectors[m](alone[m])
            extras[f"{m}_after"] = self.view_projectors[m](attended[m])
        return extras | {"fusion": self.fusion_projector(hidden)}


def likeness(targets: Tensor, task: Task, label_scale: float) -> Tensor:
    """How alike the labels of every two clips are, ``[b, b]``, in 0..1.

    ``exp(-distance / label_scale)``, the distance of two scores being their difference as a
    share of the range, that of two clips' emotions the share that is judged differently.
    Classes are alike where they are equal.

    Args:
        targets: Of the batch.
        task: Of which kind they are.
        label_scale: Distance at which likeness is e times less.
    """
    if task.kind == "classes":
        return (targets.unsqueeze(1) == targets).float()
    if task.kind == "emotions":
        distance = (targets.unsqueeze(1) != targets).float().mean(dim=-1)
    else:
        reach = (task.high or 0.0) - (task.low or 0.0)
        distance = (targets.unsqueeze(1) - targets).abs() / reach
    return (-distance / label_scale).exp()


def supervised_contrast(
    unit: Tensor, alike: Tensor, counts: Tensor, *, temperature: float
) -> Tensor:
    """Draw clips together by how alike their labels are, against all others of the batch.

    For clip i the mean, weighted by likeness, of ``-log softmax_j(z_i . z_j / temperature)``
    over the other clips j.

    Args:
        unit: Rows of length one, ``[b, k]``.
        alike: Weight of every pair, ``[b, b]``.
        counts: Which clips take part, bool ``[b]``.
        temperature: Of the softmax.

    Returns:
        Mean over the clips to which another one is alike; 0 if there is none.

    Source:
        FIELD 5.10. Ours is the mean over clips in place of the sum.
    """
    other = counts.unsqueeze(1) & counts & ~torch.eye(len(unit), dtype=torch.bool).to(counts)
    scores = (unit @ unit.T / temperature).masked_fill(~other, NEVER)
    weight = alike.to(unit.dtype) * other
    total = weight.sum(dim=1)  # [b]
    share = weight / total.clamp(min=_SMALLEST_NORM).unsqueeze(1)
    each = -(share * scores.log_softmax(dim=1)).sum(dim=1)
    taught = total > _SMALLEST_NORM
    return (each * taught).sum() / taught.sum().clamp(min=1)


def views_contrast(first: Tensor, second: Tensor, counts: Tensor, *, temperature: float) -> Tensor:
    """Tell which of the second views is of the same clip as a first one, and back.

    Args:
        first: Rows of length one, ``[b, k]``.
        second: Of the same clips.
        counts: Which clips take part, bool ``[b]``.
        temperature: Of the softmax.

    Returns:
        Mean over the clips that take part; 0 if there is none.
    """
    pairs = counts.unsqueeze(1) & counts
    scores = (first @ second.T / temperature).masked_fill(~pairs, NEVER)
    right = scores.diagonal()
    each = (scores.logsumexp(dim=1) + scores.logsumexp(dim=0)) / 2 - right
    return (each * counts).sum() / counts.sum().clamp(min=1)


MODEL = MVCL
