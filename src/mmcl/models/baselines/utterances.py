"""One vector per modality and clip, as LF-DNN, TFN and LMF make them, and their settings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import BaselineOptions, ByModality
from mmcl.models.baselines.encoders import LastState, masked_mean
from mmcl.models.layers import BatchNorm, Dropout
from mmcl.types import MODALITIES, Modality

__all__ = ["MeanEncoder", "RealBatchNorm", "StateEncoder", "UtteranceOptions", "Utterances"]


class RealBatchNorm(nn.Module):
    """Batch normalisation over real vectors alone; every other vector becomes 0.

    A single real vector in training has no statistics: see :class:`BatchNorm`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Shapes: vectors ``[..., d]`` and which of them are real, bool ``[...]``, in and out."""
        rows = x[real]  # [k, d]
        if not len(rows):
            # Gain and shift stay part of the loss: DistributedDataParallel waits for them.
            return torch.zeros_like(x) + 0.0 * (self.norm.weight + self.norm.bias)
        normal = self.norm(rows)
        empty = torch.zeros(x.shape, dtype=normal.dtype, device=x.device)
        return empty.masked_scatter(real.unsqueeze(-1), normal)


class MeanEncoder(nn.Module):
    """Mean of the real steps, batch normalisation, dropout, and three linear layers with ReLU."""

    def __init__(self, in_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = RealBatchNorm(in_dim)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(nn.Linear(i, width) for i in (in_dim, width, width))

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Shapes: ``[b, n, d]`` and bool ``[b, n]`` in, ``[b, width]`` out."""
        x: Tensor = self.dropout(self.norm(masked_mean(steps, mask), mask.any(dim=1)))
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class StateEncoder(nn.Module):
    """Last state of an LSTM, through a linear layer."""

    def __init__(self, in_dim: int, width: int, out_dim: int) -> None:
        super().__init__()
        self.recurrent = LastState(in_dim, width)
        self.output = nn.Linear(width, out_dim)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Shapes: ``[b, n, d]`` and bool ``[b, n]`` in, ``[b, out_dim]`` out."""
        state, _ = self.recurrent(steps, mask)
        vector: Tensor = self.output(state)
        return vector


class UtteranceOptions(BaselineOptions):
    """Sizes of the encoders."""

    text_width: int = Field(128, ge=1)  # of the LSTM's state
    text_out: int = Field(128, ge=1)  # of the vector of text
    audio_width: int = Field(16, ge=1)
    vision_width: int = Field(128, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)  # in the encoders of audio and vision


class Utterances(nn.Module):
    """A :class:`StateEncoder` for text, a :class:`MeanEncoder` for audio and for vision.

    Source:
        The sub-networks of TFN (Zadeh et al. 2017, arXiv 1707.07250), as configured in MMSA.
        Mended: means and last states are those of the real steps, where public versions count
        padded ones. Clips that lack a modality do not enter its batch statistics, and their
        vector is 0.
    """

    def __init__(self, dims: Mapping[Modality, int], options: UtteranceOptions) -> None:
        super().__init__()
        widths = (options.text_out, options.audio_width, options.vision_width)
        vector_widths = dict(zip(MODALITIES, widths, strict=True))
        self.widths = {m: vector_widths[m] for m in dims}  # of every modality's vector
        self.encoders = nn.ModuleDict(
            {
                m: StateEncoder(dim, options.text_width, options.text_out)
                if m == "text"
                else MeanEncoder(dim, self.widths[m], options.dropout)
                for m, dim in dims.items()
            }
        )

    def forward(self, steps: ByModality, masks: ByModality) -> ByModality:
        """Shapes: per modality ``[b, n_m, d_m]`` and bool ``[b, n_m]`` in, ``[b, width_m]`` out.

        A vector is zero for a clip that lacks the modality.
        """
        return {
            m: self.encoders[m](x, masks[m]) * masks[m].any(dim=1, keepdim=True)
            for m, x in steps.items()
        }
