"""Intra-modal attention: enhance each modality's common part by attention to its own steps."""

from __future__ import annotations

from torch import Tensor, nn

from mmcl.models.layers import ModalityLinear, ModalityNorm, SelfAttention

__all__ = ["IntraModalAttention"]


class IntraModalAttention(nn.Module):
    """``ctx = attention(C_m)``, ``C'_m = LayerNorm(ctx + Linear(ctx))``, per modality.

    Source:
        docs/method.md, common part. ``key_bias`` is ours: it masks padded steps (fault F7), and in
        ``calibrated`` it weights each step by its commonality.
    """

    def __init__(self, num_modalities: int, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(num_modalities, width, heads, project=False)
        self.linear = ModalityLinear(num_modalities, width, width)
        self.norm = ModalityNorm(num_modalities, width)

    def forward(self, common: Tensor, key_bias: Tensor) -> Tensor:
        """Shapes: ``[m, b, n, d]`` and ``[m, b, n]`` in, ``[m, b, n, d]`` out."""
        context = self.attention(common, key_bias)
        enhanced: Tensor = self.norm(context + self.linear(context))
        return enhanced
