"""Late fusion: a transformer and a mean over time per modality, side by side, one head.

MMCL must beat this model to have earned its decoupling: it has the same capacity, but neither
decoupling nor policies. The same of one modality alone is what the other two must improve on.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import TransformerEncoder, masked_mean
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["AudioOnly", "LateFusion", "TextOnly", "VisionOnly"]


class LateFusion(Baseline):
    """Late fusion of one vector per modality.

    Source:
        Ours.
    """

    class Options(AttentionOptions):
        """Sizes."""

        width: int = Field(64, ge=2)  # of every modality's space
        heads: int = Field(4, ge=1)  # of attention; must divide the width
        layers: int = Field(2, ge=1)  # transformer layers per modality
        dropout: float = Field(0.1, ge=0, lt=1)  # in the layers and the head

    def build(self) -> None:
        """Make the layers."""
        width, heads = self.options.width, self.options.heads
        layers, dropout = self.options.layers, self.options.dropout
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})
        self.encoders = nn.ModuleDict(
            {m: TransformerEncoder(width, heads, layers, dropout) for m in self.dims}
        )
        self.inner = nn.Linear(width * len(self.dims), width)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Encode and pool every modality, then fuse; see :meth:`Baseline.predict`."""
        pooled = []
        for m, x in steps.items():
            encoded = self.encoders[m](self.projections[m](x), masks[m])  # [b, n_m, d]
            pooled.append(masked_mean(encoded, masks[m]))  # [b, d]
        # The only place where the modalities meet.
        hidden = F.relu(self.inner(torch.cat(pooled, dim=-1)))
        return self.output(self.dropout(hidden)), hidden, {}


class TextOnly(LateFusion):
    """Late fusion of text alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("text",)


class AudioOnly(LateFusion):
    """Late fusion of audio alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("audio",)


class VisionOnly(LateFusion):
    """Late fusion of vision alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("vision",)
