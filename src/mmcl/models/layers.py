"""Layers that process all modalities at once, each modality with its own weights.

Most take and return tensors ``[m, b, n, d]``: modalities, clips, steps, width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.types import Modality

__all__ = [
    "NEVER",
    "BatchNorm",
    "Dropout",
    "ModalityBlock",
    "ModalityLinear",
    "ModalityNorm",
    "SelfAttention",
    "equalise_lengths",
    "sinusoidal_positions",
    "traced",
    "weighted_mean",
]

NEVER = -1e4
"""Attention score of a step that must not be attended to. It is finite, so that the softmax over
nothing but such steps is not NaN, and low enough that a softmax otherwise gives exactly 0."""

LONG_SEQUENCE = 256
"""Number of steps from which attention uses the form whose memory grows linearly."""


class Dropout(nn.Module):
    """Dropout that is active only in training passes with gradient.

    The further samples of RLOO run without gradient. They compare actions, and dropout noise of
    their own would blur the comparison.

    On a CPU, noise is drawn as bytes, which is many times faster than value by value. The rate is
    therefore rounded to a 256th; the mean stays exact.

    Args:
        rate: Share of the values that become 0, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate  # the name that torch gives it

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: any in, the same out."""
        dropped = min(round(self.p * 256), 255)
        if not (self.training and torch.is_grad_enabled() and dropped):
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        # Eight random bytes per drawn integer. A value stays if its byte is large enough.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        noise = words.view(torch.uint8)[: x.numel()].view(x.shape)
        kept = noise.clamp(dropped - 1, dropped).sub_(dropped - 1)  # 1 where a value stays
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows of this layer."""
        return f"{self.p}"


class ModalityLinear(nn.Module):
    """A linear layer per modality: ``[m, ..., in] -> [m, ..., out]``."""

    def __init__(self, num_modalities: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(num_modalities, in_dim, out_dim))
        self.bias = nn.Parameter(torch.empty(num_modalities, 1, out_dim))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[m, ..., in]`` in, ``[m, ..., out]`` out."""
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        return torch.baddbmm(self.bias, rows, self.weight).view(*x.shape[:-1], -1)


class ModalityNorm(nn.Module):
    """Layer normalisation with a gain and a shift per modality."""

    def __init__(self, num_modalities: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_modalities, width))
        self.bias = nn.Parameter(torch.zeros(num_modalities, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[m, ..., d]`` in and out."""
        # Sizes are read from the weights, not from x: the ONNX exporter needs plain numbers.
        num_modalities, width = self.weight.shape
        shape = (num_modalities, *[1] * (x.ndim - 2), width)
        normal = F.layer_norm(x, (width,))
        return torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape))


class SelfAttention(nn.Module):
    """Multi-head attention within each modality.

    Args:
        num_modalities: Modalities m.
        width: Width d.
        heads: Heads; scale is ``1 / sqrt(d / heads)``.
        project: Add an output projection, as in a transformer block. The intra-modal
            attention of the released code has none.
    """

    def __init__(self, num_modalities: int, width: int, heads: int, *, project: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = ModalityLinear(num_modalities, width, 3 * width)
        self.out = ModalityLinear(num_modalities, width, width) if project else nn.Identity()

    def forward(self, x: Tensor, key_bias: Tensor) -> Tensor:
        """Attend from every step to every step of the same clip and modality.

        Args:
            x: Steps, ``[m, b, n, d]``.
            key_bias: Added to the score of every key, ``[m, b, n]``; 0 counts fully,
                :data:`NEVER` not at all.

        Returns:
            Contexts, ``[m, b, n, d]``.
        """
        m, b, n, d = x.shape
        qkv = self.qkv(x).view(m * b, n, 3, self.heads, d // self.heads)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # [m*b, heads, n, ..]
        # The same bias for every head and every query.
        bias = key_bias.to(query.dtype).reshape(m * b, 1, 1, n)
        if bias.requires_grad and n >= LONG_SEQUENCE:
            context = _attention_in_linear_memory(query, key, value, bias)
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.out(context.transpose(1, 2).reshape(m, b, n, d))
        return mixed


def _attention_in_linear_memory(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend with a learned bias, without storing the ``[n, n]`` scores for its gradient.

    Torch computes attention block by block unless its mask needs a gradient. So the bias is
    appended to every key as one more feature, and a 1 to every query.

    Shapes: ``[m*b, heads, n, d/heads]`` and the bias ``[m*b, 1, 1, n]`` in, contexts out.
    """
    width = query.shape[-1]
    scale = 1 / math.sqrt(width)
    with_bias = (bias / scale).transpose(-1, -2).expand(*key.shape[:-1], 1)
    context = F.scaled_dot_product_attention(
        F.pad(query, (0, 1), value=1.0),
        torch.cat([key, with_bias], dim=-1),
        F.pad(value, (0, 1)),  # queries, keys and values must have the same width
        scale=scale,
    )
    return context[..., :width]


class ModalityBlock(nn.Module):
    """A post-norm transformer encoder layer per modality, with ReLU, like torch's own."""

    def __init__(
        self, num_modalities: int, width: int, heads: int, inner_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(num_modalities, width, heads, project=True)
        self.norm1 = ModalityNorm(num_modalities, width)
        self.inner = ModalityLinear(num_modalities, width, inner_width)
        self.outer = ModalityLinear(num_modalities, inner_width, width)
        self.norm2 = ModalityNorm(num_modalities, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, key_bias: Tensor) -> Tensor:
        """Shapes: ``x`` ``[m, b, n, d]``, ``key_bias`` ``[m, b, n]``; returns ``[m, b, n, d]``."""
        x = self.norm1(x + self.dropout(self.attention(x, key_bias)))
        inner = self.dropout(F.relu(self.inner(x), inplace=not torch.is_grad_enabled()))
        normal: Tensor = self.norm2(x + self.dropout(self.outer(inner)))
        return normal


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that also accepts a batch of one in training (mends fault F9).

    A single clip has no batch statistics, so the running ones are used, unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[b, d]`` in and out."""
        if self.training and len(x) == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def traced() -> bool:
    """Return True while a network is compiled or exported: code must not depend on values then."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """Average the steps of every clip by their weights.

    The weighted sum is divided by the total weight, or by 1 if that is smaller. So the mean of a
    clip of which little is kept goes towards zero, and that of an empty clip is zero.

    Args:
        x: ``[..., n, d]``.
        weight: ``[..., n]``, in 0..1; 0 for padded steps.

    Returns:
        ``[..., d]``.
    """
    total = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
    return ((weight / total).unsqueeze(-2) @ x).squeeze(-2)


def sinusoidal_positions(num_steps: int, width: int, device: torch.device) -> Tensor:
    """Return sinusoidal positions, ``[n, d]``, with a mean square of 1."""
    step = torch.arange(num_steps, device=device, dtype=torch.float32).unsqueeze(-1)
    pair = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angle = step * torch.exp(-math.log(10_000.0) * pair / width)  # [n, ceil(d/2)]
    waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return math.sqrt(2.0) * waves[:, :width]


def equalise_lengths(
    features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor], num_steps: int
) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    """Bring every modality to one length, for networks that require it.

    A longer sequence is cut into equal segments whose steps are averaged. A shorter one
    repeats its steps. An absent modality becomes zeros.

    Args:
        features: Per modality ``[b, n_m, d_m]``.
        masks: Per modality bool ``[b, n_m]``, the real steps first.
        num_steps: Wanted length n.

    Returns:
        Features ``[b, n, d_m]`` and masks ``[b, n]``, all real.

    Source:
        Ours: the released code cannot take unequal lengths (fault F10).
    """
    equal: dict[Modality, Tensor] = {}
    all_real: dict[Modality, Tensor] = {}
    for modality, x in features.items():
        length = masks[modality].sum(dim=1, keepdim=True)  # [b, 1]
        # Step i averages the original steps from i * length / n to (i + 1) * length / n.
        step = torch.arange(num_steps, device=x.device)
        start = step * length // num_steps  # [b, n]
        end = torch.maximum((step + 1) * length // num_steps, start + 1).clamp(max=x.shape[1])
        # The sum of a segment is the difference of two running totals, in float64 for accuracy.
        total = F.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))  # [b, n_m + 1, d_m]
        wide = (-1, -1, x.shape[-1])
        segment = total.gather(1, end.unsqueeze(-1).expand(wide)) - total.gather(
            1, start.unsqueeze(-1).expand(wide)
        )
        equal[modality] = (segment / (end - start).unsqueeze(-1)).to(x.dtype)
        all_real[modality] = torch.ones_like(start, dtype=torch.bool)
    return equal, all_real
