"""MVCL: clips of like labels are drawn together, in each modality, across them and when fused."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.corpus.schema import Task
from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import (
    TransformerEncoder,
    key_bias,
    masked_mean,
    multihead_attention,
    other_steps,
)
from mmcl.models.layers import NEVER, Dropout

__all__ = ["MVCL", "likeness", "supervised_contrast", "views_contrast"]

_SMALLEST_NORM = 1e-6


class CrossAttention(nn.Module):
    """Post-norm transformer layer whose keys are the steps of other modalities."""

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
        """``[b, n, d]``, ``[b, k, d]`` and bool ``[b, k]`` in, ``[b, n, d]`` out."""
        key, value = self.key_value(others).chunk(2, dim=-1)
        bias = key_bias(others_mask)
        context = multihead_attention(self.query(steps), key, value, self.heads, bias)
        # A clip without any other step attends to nothing, and adds nothing.
        mixed = self.mix(context) * others_mask.any(dim=1)[:, None, None]
        x = self.norm1(steps + self.dropout(mixed))
        inner = self.dropout(F.relu(self.inner(x)))
        normal: Tensor = self.norm2(x + self.dropout(self.outer(inner)))
        return normal


class Projector(nn.Module):
    """Linear, ReLU, Linear, scaled to length one: the space in which clips are contrasted."""

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

    A clip is compared with the clips of its batch; in several processes, with those of its own
    process's share.

    Source:
        Liu et al. 2022 (arXiv 2210.15824), of which we know the abstract alone: this is **our
        reading**, not the authors' architecture, and its sizes and weights are ours. Decided: the
        stages are one weighted sum, learnt together with the task. The abstract has them one
        after the other, and the classifier on frozen representations. Scores count as alike by
        how close they are (:func:`likeness`), so that no edge cuts through near ones and zero
        needs no class of its own. A clip takes part in a contrast only where it has its
        modalities.
    """

    class Options(AttentionOptions):
        """Sizes and weights; all of them ours."""

        width: int = Field(64, ge=2)  # of every modality's space
        heads: int = Field(4, ge=1)  # of attention; must divide the width
        layers: int = Field(1, ge=1)  # transformer layers per modality, before the cross-modal one
        dropout: float = Field(0.1, ge=0, lt=1)  # in the layers and the head
        projection: int = Field(64, ge=1)  # width of the space in which clips are contrasted
        # Distance of labels, as a share of the greatest, at which two clips are alike by a
        # factor e less; not for classes.
        label_scale: float = Field(0.1, gt=0)
        label_temperature: float = Field(0.1, gt=0)  # of the supervised contrasts
        view_temperature: float = Field(0.2, gt=0)  # of the contrast between views
        modality_weight: float = Field(0.1, ge=0)  # of the contrast in each modality
        view_weight: float = Field(0.1, ge=0)
        fusion_weight: float = Field(0.1, ge=0)  # of the contrast of what is fused

    def build(self) -> None:
        """Make the layers."""
        options, names = self.options, self.modalities
        width, heads, dropout = options.width, options.heads, options.dropout
        sizes = (width, width, options.projection)
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})
        self.encoders = nn.ModuleDict(
            {m: TransformerEncoder(width, heads, options.layers, dropout) for m in names}
        )
        self.modality_projectors = nn.ModuleDict({m: Projector(*sizes) for m in names})
        attending = names if len(names) > 1 else ()  # a single modality has no other to attend to
        self.cross = nn.ModuleDict({m: CrossAttention(width, heads, dropout) for m in attending})
        self.view_projectors = nn.ModuleDict({m: Projector(*sizes) for m in attending})
        self.inner = nn.Linear(width * len(names), width)
        self.fusion_projector = Projector(*sizes)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Encode, attend across, fuse; see :meth:`Baseline.predict`."""
        encoded: ByModality = {
            m: self.encoders[m](self.projections[m](steps[m]), masks[m]) for m in steps
        }
        # Two views of a clip: each modality before and after it has attended to the others.
        before = {m: masked_mean(encoded[m], masks[m]) for m in steps}
        attended = {
            m: self.cross[m](x, *other_steps(m, encoded, masks)) if m in self.cross else x
            for m, x in encoded.items()
        }
        after = {m: masked_mean(x, masks[m]) for m, x in attended.items()}
        hidden = F.relu(self.inner(torch.cat(list(after.values()), dim=-1)))
        extras = {f"{m}_present": mask.any(dim=1) for m, mask in masks.items()}
        if self.training:  # the contrasts are taken in training alone
            for m in steps:
                extras[f"{m}_alone"] = self.modality_projectors[m](before[m])
            for m in [m for m in steps if m in self.cross]:
                extras[f"{m}_before"] = self.view_projectors[m](before[m])
                extras[f"{m}_after"] = self.view_projectors[m](after[m])
            extras["fusion"] = self.fusion_projector(hidden)
        return self.output(self.dropout(hidden)), hidden, extras

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Return the weighted sum of the three contrasts; 0 in evaluation."""
        extras, options, names = output.extras, self.options, self.modalities
        if "fusion" not in extras:
            return super().auxiliary_loss(output, targets, rows)
        alike = likeness(targets, self.task, options.label_scale)
        label_temperature, view_temperature = options.label_temperature, options.view_temperature
        present = torch.stack([extras[f"{m}_present"] for m in names])  # [m, b]
        # 1. Supervised, in each modality.
        modality_losses = [
            supervised_contrast(extras[f"{m}_alone"], alike, mask, label_temperature)
            for m, mask in zip(names, present, strict=True)
        ]
        # 2. Between the views of the clips that have another modality to attend to.
        several = present.sum(dim=0) > 1
        view_losses = [
            views_contrast(
                extras[f"{m}_before"], extras[f"{m}_after"], mask & several, view_temperature
            )
            for m, mask in zip(names, present, strict=True)
            if m in self.cross
        ]
        # 3. Supervised, on the fused representation.
        fusion_loss = supervised_contrast(
            extras["fusion"], alike, present.any(dim=0), label_temperature
        )
        loss: Tensor = options.modality_weight * torch.stack(modality_losses).mean()
        loss = loss + options.fusion_weight * fusion_loss
        if view_losses:
            loss = loss + options.view_weight * torch.stack(view_losses).mean()
        return loss


def likeness(targets: Tensor, task: Task, label_scale: float) -> Tensor:
    """Return how alike the labels of every two clips are, ``[b, b]``, in 0..1.

    It is ``exp(-distance / label_scale)``. The distance of two scores is their difference as a
    share of the range, that of two clips' emotions the share that is judged differently.
    Classes are alike where they are equal.
    """
    if task.kind == "classes":
        return (targets.unsqueeze(1) == targets).float()
    if task.kind == "emotions":
        distance = (targets.unsqueeze(1) != targets).float().mean(dim=-1)
    else:
        reach = (task.high or 0.0) - (task.low or 0.0)
        distance = (targets.unsqueeze(1) - targets).abs() / reach
    return (-distance / label_scale).exp()


def supervised_contrast(unit: Tensor, alike: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Draw clips together by how alike their labels are, against all others of the batch.

    For clip i the mean, weighted by likeness, of ``-log softmax_j(z_i . z_j / temperature)``
    over the other clips j; then the mean over the clips to which another one is alike, 0 if
    there is none.

    Shapes: rows of length one ``[b, k]``, likeness ``[b, b]``, clips that count bool ``[b]``.
    """
    itself = torch.eye(len(unit), dtype=torch.bool, device=counts.device)
    pairs = counts.unsqueeze(1) & counts & ~itself
    scores = (unit @ unit.T / temperature).masked_fill(~pairs, NEVER)
    weight = alike.to(unit.dtype) * pairs
    total = weight.sum(dim=1)  # [b]
    share = weight / total.clamp(min=_SMALLEST_NORM).unsqueeze(1)
    losses = -(share * scores.log_softmax(dim=1)).sum(dim=1)
    # A clip to which no other is alike has nobody to be drawn to.
    taught = total > _SMALLEST_NORM
    return (losses * taught).sum() / taught.sum().clamp(min=1)


def views_contrast(first: Tensor, second: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Tell which of the second views is of the same clip as a first one, and back.

    The mean is over the clips that count; 0 if there is none.

    Shapes: rows of length one ``[b, k]`` twice, clips that count bool ``[b]``.
    """
    pairs = counts.unsqueeze(1) & counts
    scores = (first @ second.T / temperature).masked_fill(~pairs, NEVER)
    # -log softmax of the right pair, mean of both directions
    right = scores.diagonal()
    losses = (scores.logsumexp(dim=1) + scores.logsumexp(dim=0)) / 2 - right
    return (losses * counts).sum() / counts.sum().clamp(min=1)
