"""LMF: the products of TFN without its tensor, through weights of low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from mmcl.models.baselines.baseline import Baseline
from mmcl.models.baselines.tfn import with_one
from mmcl.models.baselines.utterances import UtteranceOptions, Utterances
from mmcl.types import Modality

__all__ = ["MODEL", "LowRankFusion"]


class LowRankFusion(Baseline):
    """``score = sum_i w_i prod_m ([1 ; z_m] W_m[i]) + bias`` over ranks i.

    The same number as TFN's fusion tensor times a weight tensor of that rank, without either
    tensor.

    Source:
        Liu et al. 2018 (arXiv 1806.00064), written anew from its description (FIELD 5.5),
        with the sizes published for MOSI and the corrections of :class:`Utterances`.
        Mended: the rank weights and the bias are trained; a public version leaves them out
        of its optimiser. Decided: factors start Xavier normal rank by rank, and have the
        step size of everything else, as published for MOSI; the dropout that was declared
        after the fusion and never used is left out. Products of three unbounded vectors
        explode where features are not standardised: leave ``model.standardise`` on.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI; see also :class:`UtteranceOptions`.

        Attributes:
            rank: Of the weights.
        """

        text_out: int = Field(64, ge=1)
        dropout: float = Field(0.3, ge=0, lt=1)
        rank: int = Field(3, ge=1)

    def build(self) -> None:
        """Make the layers."""
        self.utterances = Utterances(self.dims, self.options)
        rank, out_dim = self.options.rank, self.task.output_dim
        self.factors = nn.ParameterDict(
            {
                m: nn.Parameter(_xavier(rank, width + 1, out_dim))
                for m, width in self.utterances.widths.items()
            }
        )
        self.rank_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank))[0])
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`; the representation is the ranks' parts, side by side."""
        products = self.rank_products(self.utterances(steps, masks))  # [b, r, o]
        raw = torch.einsum("bro,r->bo", products, self.rank_weights) + self.bias
        return raw, products.flatten(1), {}

    def rank_products(self, vectors: Mapping[Modality, Tensor]) -> Tensor:
        """Product over modalities, rank by rank: ``[b, d_m]`` each in, ``[b, r, o]`` out."""
        parts = [
            torch.einsum("bd,rdo->bro", with_one(x), self.factors[m]) for m, x in vectors.items()
        ]
        return torch.stack(parts).prod(dim=0)


def _xavier(rank: int, in_dim: int, out_dim: int) -> Tensor:
    return torch.randn(rank, in_dim, out_dim) * math.sqrt(2 / (in_dim + out_dim))


MODEL = LowRankFusion
