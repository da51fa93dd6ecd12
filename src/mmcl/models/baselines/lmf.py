"""LMF: the products of TFN without its tensor, through weights of low rank."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from mmcl.models.baselines.baseline import Baseline, ByModality, RawPrediction
from mmcl.models.baselines.tfn import with_one
from mmcl.models.baselines.utterances import UtteranceOptions, Utterances

__all__ = ["LowRankFusion"]


class LowRankFusion(Baseline):
    """``score = sum_i w_i prod_m ([1 ; z_m] W_m[i]) + bias`` over ranks i.

    It equals TFN's fusion tensor times a weight tensor of that rank, without either tensor.

    Source:
        Liu et al. 2018 (arXiv 1806.00064), with the sizes that MMSA publishes for MOSI and the
        corrections of :class:`Utterances`. Mended: the rank weights and the bias are trained; a
        public version leaves them out of its optimiser. Decided: the factors start Xavier normal
        rank by rank, and share the step size of everything else. The dropout that was declared
        after the fusion and never used is left out. Products of three unbounded vectors explode
        where features are not standardised: leave ``model.standardise`` on.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI."""

        text_out: int = Field(64, ge=1)
        dropout: float = Field(0.3, ge=0, lt=1)
        rank: int = Field(3, ge=1)  # of the weight tensor

    def build(self) -> None:
        """Make the layers."""
        self.utterances = Utterances(self.dims, self.options)
        rank, out_dim = self.options.rank, self.task.output_dim
        # xavier_normal_ would count the ranks as inputs.
        self.factors = nn.ParameterDict(
            {
                m: nn.Parameter(
                    torch.randn(rank, d + 1, out_dim) * math.sqrt(2 / (d + 1 + out_dim))
                )
                for m, d in self.utterances.widths.items()
            }
        )
        self.rank_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank))[0])
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Sum the ranks' products; see :meth:`Baseline.predict`."""
        products = self.rank_products(self.utterances(steps, masks))  # [b, r, o]
        raw = torch.einsum("bro,r->bo", products, self.rank_weights) + self.bias
        return raw, products.flatten(1), {}

    def rank_products(self, vectors: ByModality) -> Tensor:
        """Multiply over modalities, rank by rank: ``[b, d_m]`` each in, ``[b, r, o]`` out."""
        factors = [
            torch.einsum("bd,rdo->bro", with_one(x), self.factors[m]) for m, x in vectors.items()
        ]
        return torch.stack(factors).prod(dim=0)
