"""EF-LSTM: the modalities side by side at every step, read by one stack of LSTMs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import LastState, compact
from mmcl.models.baselines.utterances import RealBatchNorm
from mmcl.models.layers import Dropout, equalise_lengths
from mmcl.types import Modality

__all__ = ["MODEL", "EarlyFusionLSTM"]


class EarlyFusionLSTM(Baseline):
    """Steps ``[text ; audio ; vision]``, normalised; stacked LSTMs; a head on the last state.

    A step is real where any of its modalities is; what it lacks is 0 in it.

    Source:
        The early fusion of the field's comparisons (Williams et al. 2018; FIELD 5.2), with
        the sizes published for MOSI. Mended: the state is read after a clip's last real
        step, not at the padded end, and batch normalisation is over features of real steps
        where it was over the time axis, which ties a model to one length. Decided: where the
        corpus is not aligned, every modality is brought to ``steps`` steps, longer ones by
        means over equal segments; the published version does so to the length of text.
    """

    class Options(BaselineOptions):
        """Sizes, as published for MOSI.

        Attributes:
            width: Of the state and of the head.
            layers: Stacked LSTMs.
            dropout: Between them and in the head.
            steps: The equal length every modality is brought to where the corpus is not
                aligned.
        """

        width: int = Field(128, ge=1)
        layers: int = Field(4, ge=1)
        dropout: float = Field(0.5, ge=0, lt=1)
        steps: int = Field(50, ge=1)

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

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        joined, mask = self.join(steps, masks)
        state, _ = self.recurrent(self.norm(joined, mask), mask)
        hidden = F.relu(self.inner(self.dropout(state)))
        return self.output(self.dropout(hidden)), hidden, {}

    def join(
        self, steps: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Put the modalities side by side.

        Shapes: per modality ``[b, n_m, d_m]`` and bool ``[b, n_m]`` in; ``[b, n, sum of d_m]``
        and bool ``[b, n]``, True where any modality is real, out.
        """
        if not self.aligned:
            steps, masks = _equalised(steps, masks, self.options.steps)
        longest = max(x.shape[1] for x in steps.values())
        parts = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in steps.values()]
        real = [F.pad(mask, (0, longest - mask.shape[1])) for mask in masks.values()]
        return torch.cat(parts, dim=-1), torch.stack(real).any(dim=0)


def _equalised(
    steps: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor], num_steps: int
) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    """All modalities at one length; real everywhere in a clip that has the modality."""
    front = {m: compact(x, masks[m])[0] for m, x in steps.items()}
    equal, every = equalise_lengths(front, masks, num_steps)
    return equal, {m: mask & masks[m].any(dim=1, keepdim=True) for m, mask in every.items()}


MODEL = EarlyFusionLSTM
