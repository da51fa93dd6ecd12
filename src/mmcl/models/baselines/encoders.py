"""Encoders that several baselines share. All of them read real steps only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import ByModality
from mmcl.models.layers import NEVER, ModalityBlock, sinusoidal_positions
from mmcl.types import Modality

__all__ = [
    *("LastState", "TransformerEncoder", "compact", "key_bias"),
    *("masked_mean", "multihead_attention", "other_steps", "split_heads"),
]


def masked_mean(steps: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the real steps; zero where there is none.

    Shapes: ``[b, n, d]`` and bool ``[b, n]`` in, ``[b, d]`` out.
    """
    weight = mask.to(steps.dtype)
    total = weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    return torch.einsum("bnd,bn->bd", steps, weight / total)


def compact(steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Bring real steps to the front, in their order: ``[b, n, d]`` and lengths ``[b]``.

    A clip without a single real step keeps one of zeros, and counts as of length one.
    """
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # [b, n]
    front = steps.gather(1, order.unsqueeze(-1).expand_as(steps))
    return front, mask.sum(dim=1).clamp(min=1)


def key_bias(mask: Tensor) -> Tensor:
    """Return every key's attention bias ``[b, n]``: 0 for a real step, else :data:`NEVER`."""
    return torch.where(mask, 0.0, NEVER)


def other_steps(modality: Modality, steps: ByModality, masks: ByModality) -> tuple[Tensor, Tensor]:
    """Join the steps of all modalities but one: ``[b, k, d]`` and bool ``[b, k]``; k may be 0."""
    others = [m for m in steps if m != modality]
    no_steps, no_mask = steps[modality][:, :0], masks[modality][:, :0]
    return (
        torch.cat([no_steps, *(steps[m] for m in others)], dim=1),
        torch.cat([no_mask, *(masks[m] for m in others)], dim=1),
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return ``[b, heads, n, d / heads]`` of ``[b, n, d]``."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def multihead_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None
) -> Tensor:
    """Attend with projected queries, keys and values; split the heads and join them again.

    Shapes: ``[b, k, d]``, ``[b, n, d]`` twice, and a bias of every key ``[b, n]`` in;
    ``[b, k, d]`` out.
    """
    mask = None if bias is None else bias.to(query.dtype)[:, None, None]
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    context = F.scaled_dot_product_attention(query, key, value, mask)
    return context.transpose(1, 2).flatten(2)


class LastState(nn.Module):
    """Stacked LSTMs that are read at each clip's own last step, not at the padded end."""

    def __init__(
        self,
        in_dim: int,
        width: int,
        *,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            in_dim,
            width,
            num_layers=layers,
            dropout=dropout if layers > 1 else 0.0,  # torch warns about it in a single layer
            bidirectional=bidirectional,
            batch_first=True,
        )

    def forward(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read the real steps.

        Shapes: ``[b, n, d]`` and bool ``[b, n]`` in; the last state ``[b, width]`` and all outputs
        ``[b, n, width]``, real steps first, out. Both directions stand side by side.
        """
        front, lengths = compact(steps, mask)
        packed = nn.utils.rnn.pack_padded_sequence(
            front, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, (state, _) = self.lstm(packed)
        unpacked, _ = nn.utils.rnn.pad_packed_sequence(
            outputs, batch_first=True, total_length=steps.shape[1]
        )
        # The state lists layers, each with its directions; the last layer comes last.
        last = state[-2:].transpose(0, 1).flatten(1) if self.lstm.bidirectional else state[-1]
        return last, unpacked


class TransformerEncoder(nn.Module):
    """Post-norm transformer layers over real steps, with sinusoidal positions."""

    def __init__(
        self, width: int, heads: int, layers: int, dropout: float, *, inner_width: int | None = None
    ) -> None:
        super().__init__()
        inner = inner_width or 2 * width
        self.layers = nn.ModuleList(
            ModalityBlock(1, width, heads, inner, dropout) for _ in range(layers)
        )

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Shapes: ``[b, n, d]`` and bool ``[b, n]`` in, ``[b, n, d]`` out."""
        x = steps + sinusoidal_positions(steps.shape[1], steps.shape[2], steps.device)
        # The layers work on all modalities at once; here there is one.
        x, bias = x.unsqueeze(0), key_bias(mask).unsqueeze(0)
        for layer in self.layers:
            x = layer(x, bias)
        return x[0]
