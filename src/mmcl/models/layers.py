"""Layers that work on all modalities at once: one weight matrix per modality, one call.

Everything is stacked as ``[m, b, n, d]``: modalities, clips, steps, width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.processes import (
    add_up,
    current_generator,
    current_share,
    own_clips,
    shape_of_all,
    updates_buffers,
)
from mmcl.types import Modality

__all__ = [
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
"""Added to an attention score that must not count. Finite, so that a row in which nothing
counts stays a number; far enough that float32 and bfloat16 softmax give exactly zero."""

LONG_SEQUENCE = 256
"""Steps from which on attention learns in linear memory; below, that would only cost time."""


class Dropout(nn.Module):
    """Dropout whose noise is cheap on a CPU, where torch draws it value by value.

    A random byte decides on a value, so the rate is rounded to a 256th; what is kept is scaled
    by the rounded rate, so that the mean stays exact. Nothing is dropped where nothing is
    learnt: in evaluation, and in passes without gradient (the further samples of RLOO).

    Args:
        rate: Share of the values that become 0.
        clip_axis: Which axis counts the clips, for batches that are cut into parts.
    """

    def __init__(self, rate: float, clip_axis: int = 0) -> None:
        super().__init__()
        self.rate, self.clip_axis = rate, clip_axis

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: any in, the same out."""
        if x.device.type == "cpu":
            kept = self.kept(x.shape)
            return x if kept is None else x * kept.to(x.dtype).mul_(self.scale)
        if not self._drops():
            return x
        if current_share() is None:
            return F.dropout(x, self.rate)
        shape = shape_of_all(x.shape, self.clip_axis)
        return x * own_clips(F.dropout(x.new_ones(shape), self.rate), self.clip_axis)

    def kept(self, shape: Sequence[int]) -> Tensor | None:
        """Of a shape, on the CPU, 1 where a value stays; None where nothing is dropped.

        Bytes and not truth values, which a CPU turns into numbers one by one.
        """
        if not self._drops():
            return None
        shape = shape_of_all(shape, self.clip_axis)
        count = math.prod(shape)
        words = torch.empty((count + 7) // 8, dtype=torch.int64)
        words.random_(-(2**63), None, generator=current_generator())
        noise = own_clips(words.view(torch.uint8)[:count].view(shape), self.clip_axis)
        first_kept = self._dropped_of_256
        return noise.clamp(first_kept - 1, first_kept).sub_(first_kept - 1)

    @property
    def scale(self) -> float:
        """What the values that stay are multiplied by."""
        return 256 / (256 - self._dropped_of_256)

    @property
    def _dropped_of_256(self) -> int:
        return min(round(self.rate * 256), 255)

    def _drops(self) -> bool:
        return self.training and torch.is_grad_enabled() and self._dropped_of_256 > 0

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.rate}"


class ModalityLinear(nn.Module):
    """A linear layer per modality: ``[m, ..., in] -> [m, ..., out]``."""

    def __init__(self, num_modalities: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(num_modalities, in_dim, out_dim))
        self.bias = nn.Parameter(torch.empty(num_modalities, 1, out_dim))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, *, ramp: bool = False) -> Tensor:
        """Apply each modality's own weights.

        Args:
            x: ``[m, ..., in]``.
            ramp: Let nothing below 0 through (ReLU). It is done in place, which on what is
                returned, a view, would cost two copies of the gradient.

        Returns:
            ``[m, ..., out]``.
        """
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        flat = torch.baddbmm(self.bias, flat, self.weight)
        if ramp:
            flat = flat.relu_()
        return flat.view(*x.shape[:-1], self.bias.shape[-1])


class ModalityNorm(nn.Module):
    """Layer normalisation with a gain and a shift per modality."""

    def __init__(self, num_modalities: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_modalities, width))
        self.bias = nn.Parameter(torch.zeros(num_modalities, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[m, ..., d]`` in and out."""
        shape = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        normal = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape))


class SelfAttention(nn.Module):
    """Multi-head attention within each modality, every modality with its own weights.

    Args:
        num_modalities: Modalities m.
        width: Width d.
        heads: Heads; scale is ``1 / sqrt(d / heads)``.
        project: Whether an output projection follows (a transformer block's does; the
            intra-modal attention of the released code has none).
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
        query, key, value = (each.transpose(1, 2) for each in qkv.unbind(2))  # [m*b, heads, n, ..]
        bias = key_bias.to(query.dtype).reshape(m * b, 1, 1, n)
        if bias.requires_grad and n >= LONG_SEQUENCE:
            context = _attend_in_linear_memory(query, key, value, bias)
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.out(context.transpose(1, 2).reshape(m, b, n, d))
        return mixed


def _attend_in_linear_memory(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention under a bias that learns, without its ``[n, n]`` scores kept for the gradient.

    Torch computes attention in blocks, with a gradient, unless a mask needs one. So the bias
    becomes a feature more of every key, which every query multiplies by one.

    Shapes: ``[m*b, heads, n, d/heads]`` and the bias ``[m*b, 1, 1, n]`` in, contexts out.
    """
    width = query.shape[-1]
    scale = 1 / math.sqrt(width)
    with_bias = (bias / scale).transpose(-1, -2).expand(*key.shape[:-1], 1)
    context = F.scaled_dot_product_attention(
        F.pad(query, (0, 1), value=1.0),
        torch.cat([key, with_bias], dim=-1),
        F.pad(value, (0, 1)),  # queries, keys and values must be equally wide
        scale=scale,
    )
    return context[..., :width]


class ModalityBlock(nn.Module):
    """A post-norm transformer encoder layer per modality (ReLU, like torch's own)."""

    def __init__(
        self, num_modalities: int, width: int, heads: int, inner_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(num_modalities, width, heads, project=True)
        self.norm1 = ModalityNorm(num_modalities, width)
        self.inner = ModalityLinear(num_modalities, width, inner_width)
        self.outer = ModalityLinear(num_modalities, inner_width, width)
        self.norm2 = ModalityNorm(num_modalities, width)
        self.dropout = Dropout(dropout, clip_axis=1)

    def forward(self, x: Tensor, key_bias: Tensor) -> Tensor:
        """Shapes: ``x`` ``[m, b, n, d]``, ``key_bias`` ``[m, b, n]``; returns ``[m, b, n, d]``."""
        x = self.norm1(x + self.dropout(self.attention(x, key_bias)))
        inner = self.dropout(self.inner(x, ramp=True))
        normal: Tensor = self.norm2(x + self.dropout(self.outer(inner)))
        return normal


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one in training (mends fault F9).

    One clip has no batch statistics; the running ones stand in and are left alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[b, d]`` in and out."""
        clips = shape_of_all(x.shape, 0)[0]
        if self.training and clips == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if not self.training or current_share() is None:
            return super().forward(x)
        return self._of_all(x, clips)

    def _of_all(self, x: Tensor, clips: int) -> Tensor:
        """Statistics of the clips of all parts of the batch."""
        (total,) = add_up(x.sum(dim=0))
        centred = x - total / clips
        (square,) = add_up(centred.square().sum(dim=0))
        if updates_buffers():
            self._follow(total / clips, square / (clips - 1))
        normal: Tensor = centred * (square / clips + self.eps).rsqrt() * self.weight + self.bias
        return normal

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
            self.num_batches_tracked.add_(1)


def traced() -> bool:
    """Whether a network is being compiled or exported: then it is made of torch's parts alone."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """Mean over steps, each counted by its weight.

    A total weight below one divides by one, so that a clip of which little is kept fades
    towards zero in place of being blown up, and one of which nothing is kept is zero.

    Args:
        x: ``[..., n, d]``.
        weight: ``[..., n]``, in 0..1; 0 for padded steps.

    Returns:
        ``[..., d]``.
    """
    total = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
    return torch.einsum("...nd,...n->...d", x, weight / total)


def sinusoidal_positions(num_steps: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions, ``[n, d]``, of unit mean square."""
    at = torch.arange(num_steps, device=device, dtype=torch.float32).unsqueeze(-1)
    pair = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angle = at * torch.exp(-math.log(10_000.0) * pair / width)  # [n, ceil(d/2)]
    both = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return math.sqrt(2.0) * both[:, :width]


def equalise_lengths(
    features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor], num_steps: int
) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    """Bring every modality to one length, for a model that knows no other case.

    A longer sequence is cut into equal segments whose steps are averaged, a shorter one
    repeats its steps; a modality that is absent is zero.

    Args:
        features: Per modality ``[b, n_m, d_m]``.
        masks: Per modality bool ``[b, n_m]``, the real steps first.
        num_steps: Length n wanted.

    Returns:
        Features ``[b, n, d_m]`` and masks ``[b, n]``, all real.

    Source:
        Ours: the released code cannot take unequal lengths (fault F10).
    """
    equal: dict[Modality, Tensor] = {}
    every: dict[Modality, Tensor] = {}
    for modality, x in features.items():
        length = masks[modality].sum(dim=1, keepdim=True)  # [b, 1]
        at = torch.arange(num_steps, device=x.device)
        start = at * length // num_steps  # [b, n]
        end = torch.maximum((at + 1) * length // num_steps, start + 1).clamp(max=x.shape[1])
        total = F.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))  # [b, n_m + 1, d_m]
        width = (-1, -1, x.shape[-1])
        segment = total.gather(1, end.unsqueeze(-1).expand(width)) - total.gather(
            1, start.unsqueeze(-1).expand(width)
        )
        equal[modality] = (segment / (end - start).unsqueeze(-1)).to(x.dtype)
        every[modality] = torch.ones_like(start, dtype=torch.bool)
    return equal, every
