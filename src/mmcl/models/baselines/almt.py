"""ALMT: language at three scales asks audio and vision for what goes with it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import key_bias, multihead_attention
from mmcl.models.layers import sinusoidal_positions
from mmcl.types import Modality

__all__ = ["ALMT", "Attention", "HyperLayer", "TokenEncoder"]


class Attention(nn.Module):
    """Multi-head attention whose heads have a width of their own; only the output has a bias."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, query: Tensor, source: Tensor, bias: Tensor | None = None) -> Tensor:
        """Shapes: ``[b, k, d]``, ``[b, n, d]`` and a bias of keys ``[b, n]`` in, ``[b, k, d]``."""
        key, value = self.key_value(source).chunk(2, dim=-1)
        context = multihead_attention(self.query(query), key, value, self.heads, bias)
        mixed: Tensor = self.out(context)
        return mixed


class TokenLayer(nn.Module):
    """Pre-norm attention and a feed-forward part; ``shared_norm`` is for self-attention."""

    def __init__(self, options: ALMT.Options, *, shared_norm: bool) -> None:
        super().__init__()
        width = options.width
        self.query_norm = nn.LayerNorm(width)
        self.source_norm = None if shared_norm else nn.LayerNorm(width)
        self.attention = Attention(width, options.heads, options.head_width)
        self.inner_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, options.inner_width)
        self.outer = nn.Linear(options.inner_width, width)

    def forward(self, x: Tensor, source: Tensor, bias: Tensor | None = None) -> Tensor:
        """Shapes: ``[b, k, d]``, ``[b, n, d]`` and ``[b, n]`` in, ``[b, k, d]`` out."""
        norm = self.source_norm or self.query_norm
        x = x + self.attention(self.query_norm(x), norm(source), bias)
        y: Tensor = x + self.outer(F.gelu(self.inner(self.inner_norm(x))))
        return y


class TokenEncoder(nn.Module):
    """A few learned tokens that read a modality's steps; ``in_dim`` None: there are none at all."""

    def __init__(self, in_dim: int | None, options: ALMT.Options) -> None:
        super().__init__()
        self.projection = None if in_dim is None else nn.Linear(in_dim, options.width)
        self.tokens = nn.Parameter(torch.zeros(options.tokens, options.width))
        self.positions = nn.Parameter(torch.randn(options.tokens, options.width))
        self.layer = TokenLayer(options, shared_norm=True)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Shapes: ``[b, n, d_m]`` and bool ``[b, n]`` in, ``[b, tokens, d]`` out.

        The tokens have read only themselves where a clip has no real step.
        """
        tokens = (self.tokens + self.positions).expand(len(steps), -1, -1)
        if self.projection is None:
            alone: Tensor = self.layer(tokens, tokens)
            return alone
        n, width = steps.shape[1], tokens.shape[-1]
        x = self.projection(steps) + sinusoidal_positions(n, width, steps.device)
        token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=mask.device)
        bias = key_bias(torch.cat([token_mask, mask], dim=1))
        # The tokens alone are queries. As published, the steps are queries too, but what they read
        # is thrown away: the tokens are the same.
        encoded: Tensor = self.layer(tokens, torch.cat([tokens, x], dim=1), bias)
        return encoded


class HyperLayer(nn.Module):
    """Layer by which the hyper-modality learns from the ``others``, led by language."""

    def __init__(self, others: list[Modality], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.language_norm, self.hyper_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in others})
        self.query = nn.Linear(width, width, bias=False)
        self.keys_values = nn.ModuleDict(
            {m: nn.Linear(width, 2 * width, bias=False) for m in others}
        )
        self.out = nn.Linear(width, width)

    def forward(
        self, hyper: Tensor, language: Tensor, others: ByModality, present: ByModality
    ) -> Tensor:
        """Shapes: tokens ``[b, k, d]`` each, ``present`` bool ``[b]``; ``[b, k, d]`` out."""
        query = self.query(self.language_norm(language))
        answers = torch.zeros_like(query)
        # sum over m of softmax(Q K_m / sqrt(head width)) V_m
        for modality, tokens in others.items():
            key, value = self.keys_values[modality](self.norms[modality](tokens)).chunk(2, dim=-1)
            context = multihead_attention(query, key, value, self.heads)
            answers = answers + context * present[modality].view(-1, 1, 1)
        # H <- norm(H) + W_o answers: the residual is the normalised H, as published.
        updated: Tensor = self.hyper_norm(hyper) + self.out(answers)
        return updated


class ALMT(Baseline):
    """Tokens per modality; language at three scales; a hyper-modality; a cross-transformer.

    Source:
        Zhang et al. 2023 (arXiv 2310.05804). Mended: padded steps are masked. The score is read
        from the mean of the cross-transformer's tokens. The public version reads the first
        (``read = "first"``). Since these tokens never read each other, language reaches that score
        only through its questions to the other modalities, and not at all where they are absent.
        The hyper-modality starts from normal draws. The published ones become zeros in the first
        norm, which makes their gradient three hundred times as large. Decided: positions of steps
        are sinusoidal, of the same mean square as the published normal draws, since learned ones
        bind a model to one length; those of the tokens are learned. Where text is absent, its
        tokens read only themselves and still ask; an absent modality answers nothing; a model of
        text alone keeps the hyper-modality that it starts from. Trained on L1, where the source
        takes the squared error, and chosen by validation.
    """

    class Options(AttentionOptions):
        """Sizes, as published for MOSI."""

        width: int = Field(128, ge=1)  # of every token
        tokens: int = Field(8, ge=1)  # per modality
        heads: int = Field(8, ge=1)  # of attention; must divide the width
        head_width: int = Field(64, ge=1)  # of every head in the transformers
        inner_width: int = Field(128, ge=1)  # of the feed-forward parts
        layers: int = Field(2, ge=1)  # of the cross-transformer
        read: Literal["all", "first"] = "all"  # tokens of it that the score is read from

    def build(self) -> None:
        """Make the layers."""
        options, width, count = self.options, self.options.width, self.options.tokens
        self.others: list[Modality] = [m for m in self.modalities if m != "text"]
        self.speakers: list[Modality] = ["text", *self.others]  # language asks even without text
        self.encoders = nn.ModuleDict(
            {m: TokenEncoder(self.dims.get(m), options) for m in self.speakers}
        )
        self.language_positions = nn.Parameter(torch.randn(count, width))
        self.scales = nn.ModuleList(TokenLayer(options, shared_norm=True) for _ in range(2))
        self.hyper = nn.Parameter(torch.randn(count, width))
        self.hyper_layers = nn.ModuleList(
            HyperLayer(self.others, width, options.heads) for _ in range(3 if self.others else 0)
        )
        self.extra = nn.Parameter(torch.zeros(1, width))
        self.source_positions = nn.Parameter(torch.randn(count + 1, width))
        self.target_positions = nn.Parameter(torch.randn(count + 1, width))
        self.fusion = nn.ModuleList(
            TokenLayer(options, shared_norm=False) for _ in range(options.layers)
        )
        self.output = nn.Linear(width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Follow the paper's four stages; see :meth:`Baseline.predict`."""
        # Modality embedding: a few tokens per modality. Without text, any mask gives the batch.
        first = next(iter(steps))
        tokens: ByModality = {
            m: self.encoders[m](steps.get(m, steps[first]), masks.get(m, masks[first]))
            for m in self.speakers
        }
        # Adaptive hyper-modality learning: H_1, H_2, H_3, one per scale of language.
        language = self.language_scales(tokens["text"])
        hyper = self.hyper.expand_as(tokens["text"])
        others = {m: tokens[m] for m in self.others}
        present = {m: masks[m].any(dim=1) for m in self.others}
        for layer, scale in zip(self.hyper_layers, language, strict=bool(self.others)):
            hyper = layer(hyper, scale, others, present)
        # Multimodal fusion: the last scale of language reads the hyper-modality.
        source = self._with_extra_token(hyper) + self.source_positions
        target = self._with_extra_token(language[-1]) + self.target_positions
        for layer in self.fusion:
            target = layer(target, source)
        # Prediction.
        hidden = target[:, 0] if self.options.read == "first" else target.mean(dim=1)
        return self.output(hidden), hidden, {}

    def language_scales(self, tokens: Tensor) -> list[Tensor]:
        """Return language tokens with positions, and after one and two layers, ``[b, k, d]``."""
        scales = [tokens + self.language_positions]
        for layer in self.scales:
            scales.append(layer(scales[-1], scales[-1]))
        return scales

    def _with_extra_token(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.extra.expand(len(tokens), -1, -1), tokens], dim=1)
