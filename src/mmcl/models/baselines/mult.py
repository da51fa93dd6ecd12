"""MulT: every modality reads every other one by attention over all its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import split_heads
from mmcl.models.layers import NEVER, Dropout, sinusoidal_positions
from mmcl.types import Modality

__all__ = ["CrossmodalTransformer", "MultimodalTransformer", "extent", "future_mask"]


def extent(mask: Tensor) -> Tensor:
    """Count each clip's steps up to its last real one: bool ``[b, n]`` in, ``[b]`` out."""
    return ((torch.arange(mask.shape[1], device=mask.device) + 1) * mask).amax(dim=1)


def future_mask(target: Tensor, source: Tensor) -> Tensor:
    """Return which source steps each target step may read.

    Step i may read real step j where ``j <= i + |n - l|``, with n and l the extents of the
    clip's target and source: the past, and as much more as the lengths differ.

    Shapes: bool ``[b, n]`` and ``[b, l]`` in, bool ``[b, n, l]`` out.

    Example:
        >>> steps = torch.ones(1, 2, dtype=torch.bool)
        >>> future_mask(steps, steps).int().tolist()
        [[[1, 0], [1, 1]]]
    """
    allowance = (extent(target) - extent(source)).abs().view(-1, 1, 1)  # [b, 1, 1]
    i = torch.arange(target.shape[1], device=target.device).view(1, -1, 1)
    j = torch.arange(source.shape[1], device=target.device).view(1, 1, -1)
    return (j <= i + allowance) & source.unsqueeze(1)


class CrossmodalLayer(nn.Module):
    """Pre-norm attention from target to source, and a feed-forward part; residual both."""

    def __init__(self, width: int, options: MultimodalTransformer.Options, dropout: float) -> None:
        super().__init__()
        self.heads = options.heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.attention_dropout = Dropout(dropout)
        self.inner_dropout = Dropout(options.inner_dropout)
        self.residual_dropout = Dropout(options.residual_dropout)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)

    def forward(self, x: Tensor, source: Tensor | None, bias: Tensor, reads: Tensor) -> Tensor:
        """Read the source; ``None`` reads x itself.

        ``bias`` is added to attention scores, ``reads`` is 1 for a step that may read any other.

        Shapes: ``[b, n, d]``, ``[b, l, d]``, ``[b, 1, n, l]``, ``[b, n, 1]`` in, ``[b, n, d]`` out.
        """
        x = x + self.residual_dropout(self.attend(x, source, bias) * reads)
        inner = self.inner_dropout(F.relu(self.inner(self.norm2(x)), inplace=True))
        y: Tensor = x + self.residual_dropout(self.outer(inner))
        return y

    def attend(self, x: Tensor, source: Tensor | None, bias: Tensor) -> Tensor:
        """Return the attention's output for every step of x, ``[b, n, d]``."""
        width, normal = x.shape[-1], self.norm1(x)
        # One projection and one norm serve queries, keys and values.
        if source is None:
            query, key_value = self.qkv(normal).split([width, 2 * width], dim=-1)
        else:
            weight, shift = self.qkv.weight, self.qkv.bias
            query = F.linear(normal, weight[:width], shift[:width])
            key_value = F.linear(self.norm1(source), weight[width:], shift[width:])
        key, value = key_value.chunk(2, dim=-1)
        # softmax(Q K^T / sqrt(head width)) V
        query = query / math.sqrt(width // self.heads)
        query, key, value = (split_heads(y, self.heads) for y in (query, key, value))
        scores = query @ key.transpose(-1, -2) + bias  # [b, heads, n, l]
        context = self.attention_dropout(scores.softmax(dim=-1)) @ value
        mixed: Tensor = self.out(context.transpose(1, 2).flatten(2))
        return mixed


class CrossmodalTransformer(nn.Module):
    """Stack of :class:`CrossmodalLayer` over one source, or over itself; a last norm."""

    def __init__(
        self, width: int, layers: int, options: MultimodalTransformer.Options, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = Dropout(options.embedding_dropout)
        self.layers = nn.ModuleList(CrossmodalLayer(width, options, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, target: Tensor, target_mask: Tensor, source: Tensor | None, source_mask: Tensor
    ) -> Tensor:
        """Shapes: ``[b, n, d]``, ``[b, n]``, ``[b, l, d]``, ``[b, l]`` in, ``[b, n, d]`` out.

        The source is the same for all layers; ``None`` is the target as it changes.
        """
        allowed = future_mask(target_mask, source_mask)
        source = None if source is None else self._embed(source)
        x = _apply_layers(self.layers, self._embed(target), source, allowed)
        normal: Tensor = self.norm(x)
        return normal

    def last(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Return the last real step after the stack has read the steps themselves, ``[b, d]``."""
        x = _apply_layers(self.layers[:-1], self._embed(steps), None, future_mask(mask, mask))
        # The last layer asks for that step alone: nothing else of its output would be used.
        index = (extent(mask) - 1).clamp(min=0).view(-1, 1, 1)
        last = x.gather(1, index.expand(-1, 1, x.shape[-1]))  # [b, 1, d]
        normal: Tensor = self.norm(_apply_layers(self.layers[-1:], last, x, mask.unsqueeze(1)))
        return normal.squeeze(1)

    def _embed(self, x: Tensor) -> Tensor:
        positions = sinusoidal_positions(x.shape[1], x.shape[2], x.device)
        embedded: Tensor = self.dropout(math.sqrt(x.shape[2]) * x + positions)
        return embedded


def _apply_layers(
    layers: Iterable[nn.Module], x: Tensor, source: Tensor | None, allowed: Tensor
) -> Tensor:
    bias = torch.where(allowed, 0.0, NEVER).unsqueeze(1).to(x.dtype)  # [b, 1, n, l]
    # Softmax gives a step that may read nothing some weights all the same: they count 0.
    reads = allowed.any(dim=-1, keepdim=True).to(x.dtype)
    for layer in layers:
        x = layer(x, source, bias, reads)
    return x


class MultimodalTransformer(Baseline):
    """Cross-modal stacks for every ordered pair, self-attention per target, the last steps.

    A clip that lacks a source keeps, in that stream, the target's own steps. One that lacks the
    target has zeros for it.

    Source:
        Tsai et al. 2019 (arXiv 1906.00295). Mended: padded keys are masked, and each clip is read
        at its own last real step, where public versions read the padded end. The allowance of the
        future mask is the difference of a clip's own lengths, not of the padded ones. Positions
        are added, which one public version leaves out. Decided: the projection has kernel 1, as
        in the original; 8 heads of width 5; dropouts of the public MOSI settings; a modality that
        stands alone has self-attention only. Left out: the optional CTC alignment.
    """

    class Options(AttentionOptions):
        """Sizes and dropouts."""

        width: int = Field(40, ge=2)  # of every modality's steps
        heads: int = Field(8, ge=1)  # of attention; must divide the width
        layers: int = Field(4, ge=1)  # of every cross-modal stack
        self_layers: int = Field(4, ge=1)  # of the self-attention after it
        # Dropout of attention weights, by the source
        text_attention_dropout: float = Field(0.3, ge=0, lt=1)
        audio_attention_dropout: float = Field(0.2, ge=0, lt=1)
        vision_attention_dropout: float = Field(0.0, ge=0, lt=1)
        self_attention_dropout: float = Field(0.3, ge=0, lt=1)
        text_dropout: float = Field(0.5, ge=0, lt=1)  # of text features
        embedding_dropout: float = Field(0.2, ge=0, lt=1)  # of steps with their positions
        inner_dropout: float = Field(0.1, ge=0, lt=1)  # in the feed-forward part
        residual_dropout: float = Field(0.1, ge=0, lt=1)  # of what a layer adds
        output_dropout: float = Field(0.5, ge=0, lt=1)  # in the head

    def build(self) -> None:
        """Make the layers."""
        options, names, width = self.options, self.modalities, self.options.width
        self.text_dropout = Dropout(options.text_dropout)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(dim, width, bias=False) for m, dim in self.dims.items()}
        )
        self.sources = {m: [s for s in names if s != m] for m in names}
        self.cross = nn.ModuleDict(
            {
                f"{m}_from_{s}": CrossmodalTransformer(
                    width, options.layers, options, getattr(options, f"{s}_attention_dropout")
                )
                for m, sources in self.sources.items()
                for s in sources
            }
        )
        joined = width * max(len(names) - 1, 1)
        self.own = nn.ModuleDict(
            {
                m: CrossmodalTransformer(
                    joined, options.self_layers, options, options.self_attention_dropout
                )
                for m in names
            }
        )
        fused = joined * len(names)
        self.inner, self.outer = nn.Linear(fused, fused), nn.Linear(fused, fused)
        self.dropout = Dropout(options.output_dropout)
        self.output = nn.Linear(fused, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Project, read across, read the last steps; see :meth:`Baseline.predict`."""
        if "text" in steps:
            steps = {**steps, "text": self.text_dropout(steps["text"])}
        # Temporal convolutions, of kernel 1.
        projected: ByModality = {m: self.projections[m](x) for m, x in steps.items()}
        # Crossmodal transformers and self-attention, target by target.
        last = torch.cat([self._last_step(m, projected, masks) for m in self.modalities], dim=-1)
        # A residual block over the last steps of all targets.
        hidden = last + self.outer(self.dropout(F.relu(self.inner(last))))
        return self.output(hidden), hidden, {}

    def _last_step(self, target: Modality, projected: ByModality, masks: ByModality) -> Tensor:
        """Return the target's last real step after both stages, ``[b, streams * width]``."""
        x, mask = projected[target], masks[target]
        streams = [
            self.cross[f"{target}_from_{source}"](x, mask, projected[source], masks[source])
            for source in self.sources[target]
        ]
        own: Any = self.own[target]
        last: Tensor = own.last(torch.cat(streams or [x], dim=-1), mask)
        return last * mask.any(dim=1, keepdim=True)
