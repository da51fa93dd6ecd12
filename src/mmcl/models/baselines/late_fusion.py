"""Late fusion: a transformer per modality, pooled over time, side by side, one head.

What MMCL must beat to have earned its decoupling: the same capacity and none of its ideas.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import TransformerEncoder, masked_mean
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["MODEL", "LateFusion"]


class LateFusion(Baseline):
    """Linear, positions, transformer layers and a masked mean per modality; then one head.

    Source:
        METHOD 2, "no decoupling: late fusion, two transformer layers per modality, mean
        pooling, concatenation". Ours.
    """

    shares_batches = True

    class Options(BaselineOptions):
        """Sizes.

        Attributes:
            width: Of every modality's space.
            heads: Attention heads; must divide the width.
            layers: Transformer layers per modality.
            dropout: In the layers and the head.
        """

        width: int = Field(64, ge=2)
        heads: int = Field(4, ge=1)
        layers: int = Field(2, ge=1)
        dropout: float = Field(0.1, ge=0, lt=1)
        _heads = heads_must_divide()

    def build(self) -> None:
        """Make the layers."""
        width = self.options.width
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})
        self.encoders = nn.ModuleDict(
            {
                m: TransformerEncoder(
                    width, self.options.heads, self.options.layers, self.options.dropout
                )
                for m in self.dims
            }
        )
        self.inner = nn.Linear(width * len(self.dims), width)
        self.dropout = Dropout(self.options.dropout)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        pooled = [self._pooled(m, steps[m], masks[m]) for m in self.modalities]
        hidden = F.relu(self.inner(torch.cat(pooled, dim=-1)))
        return self.output(self.dropout(hidden)), hidden, {}

    def _pooled(self, modality: Modality, steps: Tensor, mask: Tensor) -> Tensor:
        encoded = self.encoders[modality](self.projections[modality](steps), mask)
        return masked_mean(encoded, mask)


MODEL = LateFusion
