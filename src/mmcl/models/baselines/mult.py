"""MulT: every modality reads every other one by attention over all its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.layers import NEVER, Dropout, sinusoidal_positions
from mmcl.types import Modality

__all__ = ["MODEL", "CrossmodalTransformer", "MultimodalTransformer", "extent", "future_mask"]


def extent(mask: Tensor) -> Tensor:
    """Steps of each clip up to its last real one: bool ``[b, n]`` in, ``[b]`` out, 0 if none."""
    return ((torch.arange(mask.shape[1], device=mask.device) + 1) * mask).amax(dim=1)


def future_mask(target: Tensor, source: Tensor) -> Tensor:
    """Which source steps each target step may read.

    Step i may read real step j where ``j <= i + |n - l|``, with n and l the extents of the
    clip's target and source: the past, and as much more as the lengths differ.

    Shapes: bool ``[b, n]`` and ``[b, l]`` in, bool ``[b, n, l]`` out.

    Example:
        >>> steps = torch.ones(1, 2, dtype=torch.bool)
        >>> future_mask(steps, steps).int().tolist()
        [[[1, 0], [1, 1]]]
    """
    allowance = (extent(target) - extent(source)).abs().view(-1, 1, 1)  # [b, 1, 1]
    at = torch.arange(target.shape[1], device=target.device).view(1, -1, 1)
    read = torch.arange(source.shape[1], device=target.device).view(1, 1, -1)
    return (read <= at + allowance) & source.unsqueeze(1)


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

        Args:
            x: Steps of the target, ``[b, n, d]``.
            source: Of the source, ``[b, l, d]``.
            bias: Added to attention scores, ``[b, 1, n, l]``; see :data:`NEVER`.
            reads: 1 for a step that may read any other, else 0, ``[b, n, 1]``.

        Returns:
            ``[b, n, d]``.
        """
        x = x + self.residual_dropout(self.attend(x, source, bias) * reads)
        inner = self.inner_dropout(F.relu(self.inner(self.norm2(x)), inplace=True))
        y: Tensor = x + self.residual_dropout(self.outer(inner))
        return y

    def attend(self, x: Tensor, source: Tensor | None, bias: Tensor) -> Tensor:
        """What every step reads, ``[b, n, d]``."""
        width, normal = x.shape[-1], self.norm1(x)
        if source is None:
            query, both = self.qkv(normal).split([width, 2 * width], dim=-1)
        else:
            weight, shift = self.qkv.weight, self.qkv.bias
            query = F.linear(normal, weight[:width], shift[:width])
            both = F.linear(self.norm1(source), weight[width:], shift[width:])
        key, value = both.chunk(2, dim=-1)
        query = self._split(query / math.sqrt(width // self.heads))  # [b, h, n, d / h]
        score = query @ self._split(key).transpose(-1, -2) + bias
        context = self.attention_dropout(score.softmax(dim=-1)) @ self._split(value)
        mixed: Tensor = self.out(context.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class CrossmodalTransformer(nn.Module):
    """A stack of :class:`CrossmodalLayer` over one source, or over itself; a last norm.

    Args:
        width: Of the steps.
        layers: How many.
        options: The model's.
        dropout: Of attention weights.
    """

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
        normal: Tensor = self.norm(_through(self.layers, self._embed(target), source, allowed))
        return normal

    def last(self, steps: Tensor, mask: Tensor) -> Tensor:
        """The last real step after the stack has read the steps themselves, ``[b, d]``.

        The last layer asks for that step alone, since nothing else of it would be used.
        """
        x = _through(self.layers[:-1], self._embed(steps), None, future_mask(mask, mask))
        at = (extent(mask) - 1).clamp(min=0).view(-1, 1, 1)
        last = x.gather(1, at.expand(-1, 1, x.shape[-1]))  # [b, 1, d]
        normal: Tensor = self.norm(_through(self.layers[-1:], last, x, mask.unsqueeze(1)))
        return normal.squeeze(1)

    def _embed(self, x: Tensor) -> Tensor:
        n, width = x.shape[1:]
        embedded: Tensor = self.dropout(
            math.sqrt(width) * x + sinusoidal_positions(n, width, x.device)
        )
        return embedded


def _through(
    layers: Iterable[nn.Module], x: Tensor, source: Tensor | None, allowed: Tensor
) -> Tensor:
    bias = torch.where(allowed, 0.0, NEVER).unsqueeze(1).to(x.dtype)  # [b, 1, n, l]
    reads = allowed.any(dim=-1, keepdim=True).to(x.dtype)
    for layer in layers:
        x = layer(x, source, bias, reads)
    return x


class MultimodalTransformer(Baseline):
    """Cross-modal stacks for every ordered pair, self-attention per target, the last steps.

    A clip that lacks a source keeps, in that stream, what the target itself says; one that
    lacks the target has zeros for it.

    Source:
        Tsai et al. 2019 (arXiv 1906.00295), written anew from its description (FIELD 5.6).
        Mended: padded keys are masked, and each clip is read at its own last real step,
        where public versions read the padded end; the allowance of the future mask is the
        difference of a clip's own lengths, not of the padded ones; positions are added,
        which one public version leaves out. Decided: the projection has kernel 1, as in the
        original; 8 heads of width 5; dropouts of the public MOSI settings; a modality that
        stands alone has self-attention only. Left out: the optional CTC alignment.
    """

    class Options(BaselineOptions):
        """Sizes.

        Attributes:
            width: Of every modality's steps.
            heads: Attention heads; must divide the width.
            layers: Of every cross-modal stack.
            self_layers: Of the self-attention after it.
            text_attention_dropout: Of attention weights where text is the source.
            audio_attention_dropout: Where audio is.
            vision_attention_dropout: Where vision is.
            self_attention_dropout: Of the self-attention.
            text_dropout: Of text features.
            embedding_dropout: Of steps with their positions.
            inner_dropout: In the feed-forward part.
            residual_dropout: Of what a layer adds.
            output_dropout: In the head.
        """

        width: int = Field(40, ge=2)
        heads: int = Field(8, ge=1)
        layers: int = Field(4, ge=1)
        self_layers: int = Field(4, ge=1)
        text_attention_dropout: float = Field(0.3, ge=0, lt=1)
        audio_attention_dropout: float = Field(0.2, ge=0, lt=1)
        vision_attention_dropout: float = Field(0.0, ge=0, lt=1)
        self_attention_dropout: float = Field(0.3, ge=0, lt=1)
        text_dropout: float = Field(0.5, ge=0, lt=1)
        embedding_dropout: float = Field(0.2, ge=0, lt=1)
        inner_dropout: float = Field(0.1, ge=0, lt=1)
        residual_dropout: float = Field(0.1, ge=0, lt=1)
        output_dropout: float = Field(0.5, ge=0, lt=1)

        _heads_divide = heads_must_divide()

    def build(self) -> None:
        """Make the layers."""
        options, width = self.options, self.options.width
        self.text_dropout = Dropout(options.text_dropout)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(dim, width, bias=False) for m, dim in self.dims.items()}
        )
        self.sources = {m: [s for s in self.modalities if s != m] for m in self.modalities}
        self.cross = nn.ModuleDict(
            {
                f"{m}_from_{s}": CrossmodalTransformer(
                    width, options.layers, options, getattr(options, f"{s}_attention_dropout")
                )
                for m, sources in self.sources.items()
                for s in sources
            }
        )
        both = width * max(len(self.modalities) - 1, 1)
        self.own = nn.ModuleDict(
            {
                m: CrossmodalTransformer(
                    both, options.self_layers, options, options.self_attention_dropout
                )
                for m in self.modalities
            }
        )
        fused = both * len(self.modalities)
        self.inner, self.outer = nn.Linear(fused, fused), nn.Linear(fused, fused)
        self.dropout = Dropout(options.output_dropout)
        self.output = nn.Linear(fused, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        if "text" in steps:
            steps = {**steps, "text": self.text_dropout(steps["text"])}
        projected: dict[Modality, Tensor] = {m: self.projections[m](x) for m, x in steps.items()}
        last = torch.cat([self._read(m, projected, masks) for m in self.modalities], dim=-1)
        hidden = last + self.outer(self.dropout(F.relu(self.inner(last))))
        return self.output(hidden), hidden, {}

    def _read(
        self,
        modality: Modality,
        projected: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor],
    ) -> Tensor:
        """The target's last real step after both stages, ``[b, streams * width]``."""
        target, mask = projected[modality], masks[modality]
        streams = [
            self.cross[f"{modality}_from_{s}"](target, mask, projected[s], masks[s])
            for s in self.sources[modality]
        ]
        joined = torch.cat(streams or [target], dim=-1)
        own: Any = self.own[modality]
        last: Tensor = own.last(joined, mask)
        return last * mask.any(dim=1, keepdim=True)


MODEL = MultimodalTransformer
