"""Encoders that several baselines share. All of them read real steps only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.models.layers import NEVER, ModalityBlock, sinusoidal_positions

__all__ = ["LastState", "TransformerEncoder", "compact", "key_bias", "masked_mean"]


def masked_mean(steps: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps; zero where there is none.

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
    """Attention bias of every key: 0 for a real step, :data:`NEVER` for another; ``[b, n]``."""
    return torch.where(mask, 0.0, NEVER)


class LastState(nn.Module):
    """A recurrent network read at each clip's own last step, not at the padded end.

    Args:
        in_dim: Features per step.
        width: Of the hidden state.
        layers: Stacked LSTMs.
        dropout: Between them.
        bidirectional: Read in both directions; the state is then of twice the width.
    """

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
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=bidirectional,
            batch_first=True,
        )

    def forward(self, steps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read the real steps.

        Shapes: ``[b, n, d]`` and bool ``[b, n]`` in; the last state ``[b, width]`` (both
        directions side by side) and all outputs ``[b, n, width]``, real steps first, out.
        """
        front, lengths = compact(steps, mask)
        packed = nn.utils.rnn.pack_padded_sequence(
            front, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, (state, _) = self.lstm(packed)
        unpacked, _ = nn.utils.rnn.pad_packed_sequence(
            outputs, batch_first=True, total_length=steps.shape[1]
        )
        last = state[-2:].transpose(0, 1).flatten(1) if self.lstm.bidirectional else state[-1]
        return last, unpacked


class TransformerEncoder(nn.Module):
    """Post-norm transformer layers over real steps, with sinusoidal positions.

    Args:
        width: Of every step.
        heads: Attention heads.
        layers: How many.
        dropout: In the layers.
        inner_width: Of the feed-forward part; twice the width by default.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        dropout: float,
        *,
        inner_width: int | None = None,
    ) -> None:
        super().__init__()
        inner = inner_width or 2 * width
        self.layers = nn.ModuleList(
            ModalityBlock(1, width, heads, inner, dropout) for _ in range(layers)
        )

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Shapes: ``[b, n, d]`` and bool ``[b, n]`` in, ``[b, n, d]`` out."""
        x = steps + sinusoidal_positions(steps.shape[1], steps.shape[2], steps.device)
        x, bias = x.unsqueeze(0), key_bias(mask).unsqueeze(0)
        for layer in self.layers:
            x = layer(x, bias)
        return x[0]
