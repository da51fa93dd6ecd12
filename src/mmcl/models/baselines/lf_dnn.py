"""LF-DNN: one vector per modality, side by side, through a plain network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline
from mmcl.models.baselines.utterances import UtteranceOptions, Utterances
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["MODEL", "LateFusionDNN"]


class LateFusionDNN(Baseline):
    """:class:`Utterances`, concatenated; dropout, two linear layers with ReLU, the output.

    Source:
        The late fusion of the field's comparisons (Cambria et al. 2018; FIELD 5.3), with the
        sizes published for MOSI and the corrections of :class:`Utterances`.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI; see also :class:`UtteranceOptions`.

        Attributes:
            post_width: Of both layers after the fusion.
            post_dropout: Before them.
        """

        text_out: int = Field(256, ge=1)
        post_width: int = Field(128, ge=1)
        post_dropout: float = Field(0.2, ge=0, lt=1)

    def build(self) -> None:
        """Make the layers."""
        self.utterances = Utterances(self.dims, self.options)
        width = self.options.post_width
        self.dropout = Dropout(self.options.post_dropout)
        self.first = nn.Linear(sum(self.utterances.widths.values()), width)
        self.second = nn.Linear(width, width)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        vectors = self.utterances(steps, masks)
        fused = torch.cat([vectors[m] for m in self.modalities], dim=-1)
        hidden = F.relu(self.second(F.relu(self.first(self.dropout(fused)))))
        return self.output(hidden), hidden, {}


MODEL = LateFusionDNN
