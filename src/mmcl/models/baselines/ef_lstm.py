"""EF-LSTM: the modalities side by side at every step, read by one stack of LSTMs."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions, ByModality, RawPrediction
from mmcl.models.baselines.encoders import LastState, compact
from mmcl.models.baselines.utterances import RealBatchNorm
from mmcl.models.layers import Dropout, equalise_lengths

__all__ = ["EarlyFusionLSTM"]


class EarlyFusionLSTM(Baseline):
    """Steps ``[text ; audio ; vision]``, normalised; stacked LSTMs; a head on the last state.

    A step is real where any of its modalities is; the others are 0 in it.

    Source:
        The early fusion of the field's comparisons (Williams et al. 2018), with the sizes that
        MMSA publishes for MOSI. Mended: the state is read after a clip's last real step, not at
        the padded end. Batch normalisation is over the features of real steps; MMSA normalises
        the time axis, which ties a model to one length. Decided: where the corpus is not aligned,
        every modality is brought to ``steps`` steps, longer ones by means over equal segments;
        the published version does so to the length of text.
    """

    class Options(BaselineOptions):
        """Sizes, as published for MOSI."""

        width: int = Field(128, ge=1)  # of the state and of the head
        layers: int = Field(4, ge=1)  # stacked LSTMs
        dropout: float = Field(0.5, ge=0, lt=1)  # between them and in the head
        steps: int = Field(50, ge=1)  # equal length of all modalities of an unaligned corpus

    def build(self) -> None:
        """Make the layers."""
        options, in_dim = self.options, sum(self.dims.values())
        self.norm = RealBatchNorm(in_dim)
        self.recurrent = LastState(
            in_dim, options.width, layers=options.layers, dropout=options.dropout
        )
        self.dropout = Dropout(options.dropout)
        self.inner = nn.Linear(options.width, options.width)
        self.output = nn.Linear(options.width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Join, normalise, read the last state; see :meth:`Baseline.predict`."""
        joined, mask = self.join(steps, masks)
        state, _ = self.recurrent(self.norm(joined, mask), mask)
        hidden = F.relu(self.inner(self.dropout(state)))
        return self.output(self.dropout(hidden)), hidden, {}

    def join(self, steps: ByModality, masks: ByModality) -> tuple[Tensor, Tensor]:
        """Put the modalities side by side.

        Shapes: per modality ``[b, n_m, d_m]`` and bool ``[b, n_m]`` in; ``[b, n, sum of d_m]``
        and bool ``[b, n]``, True where any modality is real, out.
        """
        if not self.aligned:
            front = {m: compact(x, masks[m])[0] for m, x in steps.items()}
            present = {m: mask.any(dim=1, keepdim=True) for m, mask in masks.items()}
            steps, masks = equalise_lengths(front, masks, self.options.steps)
            # Equalised steps are real everywhere, except in a clip that lacks the modality.
            masks = {m: mask & present[m] for m, mask in masks.items()}
        longest = max(x.shape[1] for x in steps.values())
        features = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in steps.values()]
        real = [F.pad(mask, (0, longest - mask.shape[1])) for mask in masks.values()]
        return torch.cat(features, dim=-1), torch.stack(real).any(dim=0)
