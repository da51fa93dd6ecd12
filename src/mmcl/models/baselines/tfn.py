"""TFN: every product of one number per modality, by an outer product of the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline
from mmcl.models.baselines.utterances import UtteranceOptions, Utterances
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["MODEL", "TensorFusion", "fusion_tensor", "with_one"]

ORDER: tuple[Modality, ...] = ("audio", "vision", "text")
"""Axes of the fusion tensor, slowest first."""


def with_one(vector: Tensor) -> Tensor:
    """Put a constant 1 before a vector: ``[b, d]`` in, ``[b, d + 1]`` out."""
    return F.pad(vector, (1, 0), value=1.0)


def fusion_tensor(vectors: Sequence[Tensor]) -> Tensor:
    """All products of one number of every ``[1 ; vector]``, flattened, the last one fastest.

    The constants keep the products of fewer modalities in it, down to every vector itself.

    Shapes: ``[b, d_m]`` each in, ``[b, product of (d_m + 1)]`` out.

    Example:
        >>> fusion_tensor([torch.tensor([[2.0]]), torch.tensor([[3.0, 5.0]])])
        tensor([[ 1.,  3.,  5.,  2.,  6., 10.]])
    """
    tensor = with_one(vectors[0])
    for vector in vectors[1:]:
        tensor = (tensor.unsqueeze(-1) * with_one(vector).unsqueeze(1)).flatten(1)
    return tensor


class TensorFusion(Baseline):
    """:class:`Utterances`, their outer product, and a plain network over it.

    A clip that lacks a modality keeps the products of the others: its vector is 0, its
    constant 1.

    Source:
        Zadeh et al. 2017 (arXiv 1707.07250), written anew from its description (FIELD 5.4),
        with the sizes published for MOSI and the corrections of :class:`Utterances`.
        Mended: a score lies between the task's own low and high, where a public version
        keeps -3..3 for labels of -1..1; class and emotion logits are not squashed.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI; see also :class:`UtteranceOptions`.

        Attributes:
            post_width: Of both layers after the fusion.
            post_dropout: Of the fusion tensor.
        """

        text_out: int = Field(32, ge=1)
        audio_width: int = Field(32, ge=1)
        dropout: float = Field(0.3, ge=0, lt=1)
        post_width: int = Field(64, ge=1)
        post_dropout: float = Field(0.5, ge=0, lt=1)

    def build(self) -> None:
        """Make the layers."""
        self.utterances = Utterances(self.dims, self.options)
        width = self.options.post_width
        self.dropout = Dropout(self.options.post_dropout)
        self.first = nn.Linear(prod(each + 1 for each in self.utterances.widths.values()), width)
        self.second = nn.Linear(width, width)
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        vectors = self.utterances(steps, masks)
        fused = fusion_tensor([vectors[m] for m in ORDER if m in vectors])
        hidden = F.relu(self.second(F.relu(self.first(self.dropout(fused)))))
        return self._within_range(self.output(hidden)), hidden, {}

    def _within_range(self, raw: Tensor) -> Tensor:
        if self.task.kind != "regression":
            return raw
        assert self.task.low is not None
        assert self.task.high is not None
        return self.task.low + (self.task.high - self.task.low) * torch.sigmoid(raw)


MODEL = TensorFusion
