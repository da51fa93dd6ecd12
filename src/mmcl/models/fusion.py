"""Fusion of the modalities and the head that turns them into scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.layers import BatchNorm, Dropout, ModalityLinear

__all__ = ["CalibratedHead", "GatedFusion", "ReleasedHead"]


class GatedFusion(nn.Module):
    """``h_m = [c_m ; e_m]``, ``g_m = sigmoid(W2 (W1 h_m))``, ``h = mean of g_m h_m``.

    The mean is over the modalities present; the released code assumes that all are.
    """

    def __init__(self, num_modalities: int, width: int) -> None:
        super().__init__()
        self.inner = ModalityLinear(num_modalities, 2 * width, width)
        self.outer = ModalityLinear(num_modalities, width, 1)

    def forward(self, common: Tensor, complementary: Tensor, present: Tensor) -> Tensor:
        """Fuse the modalities that are ``present`` (1, otherwise 0); a clip without any gets 0.

        Shapes: ``[m, b, d]`` twice and ``[m, b]`` in, ``[b, 2d]`` out.
        """
        share = present / present.sum(dim=0).clamp(min=1)
        return (self.gated(common, complementary) * share.unsqueeze(-1)).sum(dim=0)

    def gated(self, common: Tensor, complementary: Tensor) -> Tensor:
        """Return every modality's own gated vector ``g_m h_m``, ``[m, b, 2d]``."""
        hidden = torch.cat([common, complementary], dim=-1)
        # As released, there is no activation between W1 and W2.
        gate = torch.sigmoid(self.outer(self.inner(hidden)))
        return gate * hidden


class ReleasedHead(nn.Module):
    """Linear, Dropout, ReLU, BatchNorm, Linear, in the released order."""

    def __init__(self, width: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)
        self.norm = BatchNorm(width)
        self.output = nn.Linear(width, output_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shapes: ``[b, 2d]`` in, ``[b, output_dim]`` out."""
        scores: Tensor = self.output(self.norm(F.relu(self.dropout(self.linear(hidden)))))
        return scores


class CalibratedHead(nn.Module):
    """Linear, ReLU, Dropout, Linear: no batch statistics, so a batch may be a single clip."""

    def __init__(self, width: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(width, output_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shapes: ``[b, 2d]`` in, ``[b, output_dim]`` out."""
        scores: Tensor = self.output(self.dropout(F.relu(self.linear(hidden))))
        return scores
