"""LF-DNN: one vector per modality, side by side, through a plain network."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, ByModality, RawPrediction
from mmcl.models.baselines.utterances import UtteranceOptions, Utterances
from mmcl.models.layers import Dropout

__all__ = ["LateFusionDNN"]


class LateFusionDNN(Baseline):
    """One vector per modality (:class:`Utterances`), concatenated, and two layers over them.

    Source:
        The late fusion of the field's comparisons (Cambria et al. 2018), with the sizes that MMSA
        publishes for MOSI and the corrections of :class:`Utterances`.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI."""

        text_out: int = Field(256, ge=1)
        post_width: int = Field(128, ge=1)  # of both layers after the fusion
        post_dropout: float = Field(0.2, ge=0, lt=1)  # of the fused vector

    def build(self) -> None:
        """Make the layers."""
        self.utterances = Utterances(self.dims, self.options)
        width = self.options.post_width
        self.dropout = Dropout(self.options.post_dropout)
        self.first = nn.Linear(self.fused_width(), width)
        self.second = nn.Linear(width, width)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Encode, fuse, and read the scores; see :meth:`Baseline.predict`."""
        fused = self.fuse(self.utterances(steps, masks))
        hidden = F.relu(self.second(F.relu(self.first(self.dropout(fused)))))
        return self.output(hidden), hidden, {}

    def fuse(self, vectors: ByModality) -> Tensor:
        """Concatenate the vectors: ``[b, d_m]`` each in, ``[b, fused_width]`` out."""
        return torch.cat([vectors[m] for m in self.modalities], dim=-1)

    def fused_width(self) -> int:
        """Return the width of what :meth:`fuse` returns."""
        return sum(self.utterances.widths.values())
