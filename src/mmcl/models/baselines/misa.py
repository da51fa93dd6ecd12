"""MISA: what modalities share and what is private to each, taught apart by three losses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import LastState, key_bias, masked_mean
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.layers import Dropout, ModalityBlock
from mmcl.types import Modality

__all__ = ["MISA", "MODEL", "central_moment_discrepancy", "difference_loss"]

_EPSILON = 1e-12
"""Under the square root of a distance, whose slope at 0 is infinite."""

_SMALLEST_NORM = 1e-6


class TwoReadings(nn.Module):
    """Two bidirectional LSTMs, the second over the normalised steps of the first.

    Args:
        in_dim: Features per step.
        width: Of the state of one direction.
    """

    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.first = LastState(in_dim, width, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = LastState(2 * width, width, bidirectional=True)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Last states of both directions of both: ``[b, n, d]`` in, ``[b, 4 width]`` out."""
        first, outputs = self.first(steps, mask)
        lengths = mask.sum(dim=1, keepdim=True)
        front = torch.arange(mask.shape[1], device=mask.device) < lengths  # real steps are first
        second, _ = self.second(self.norm(outputs), front)
        return torch.cat([first, second], dim=-1)


class MISA(Baseline):
    """Shared and private vectors per modality; a transformer over all of them; one head.

    The losses beside the task's: shared vectors of two modalities have the same distribution
    (central moment discrepancy), private ones are orthogonal to the shared one and to each
    other (difference), and both together rebuild what they came from (reconstruction).

    Source:
        Hazarika et al. 2020 (arXiv 2005.03545), written anew from its description (FIELD
        5.7). Mended: every modality is read by its own lengths, not by those of text, and
        distances have a slope at 0. Decided: text is read like the others, since features
        are not trained here (``text = "mean"`` is the published mean over BERT's states); a
        state is at most ``width`` wide, which binds for text alone; a clip counts in a loss
        only where it has the modalities of that loss; an absent modality is no token of the
        transformer and 0 in the head; L1 in place of the squared error. Left out: the
        adversarial form of the similarity, and a classifier that enters no loss.
    """

    class Options(BaselineOptions):
        """Sizes, and weights of the losses; as published for MOSI.

        Attributes:
            width: Of the shared and private vectors.
            heads: Attention heads of the transformer; must divide the width.
            inner_width: Of its feed-forward part.
            dropout: In the head.
            transformer_dropout: In the transformer.
            text: ``recurrent`` reads text like the others; ``mean`` averages its steps.
            moments: Orders of the moments compared, from the mean on.
            difference_weight: Of the difference loss.
            similarity_weight: Of the discrepancy.
            reconstruction_weight: Of the reconstruction.
        """

        width: int = Field(128, ge=2)
        heads: int = Field(2, ge=1)
        inner_width: int = Field(2048, ge=1)
        dropout: float = Field(0.2, ge=0, lt=1)
        transformer_dropout: float = Field(0.1, ge=0, lt=1)
        text: Literal["recurrent", "mean"] = "recurrent"
        moments: int = Field(5, ge=1)
        difference_weight: float = Field(0.1, ge=0)
        similarity_weight: float = Field(0.3, ge=0)
        reconstruction_weight: float = Field(1.0, ge=0)
        _heads = heads_must_divide()

    def build(self) -> None:
        """Make the layers."""
        options, count = self.options, len(self.modalities)
        width = options.width
        read = [m for m in self.modalities if m != "text" or options.text == "recurrent"]
        states = {m: min(self.dims[m], width) for m in read}
        sizes = {m: 4 * states[m] if m in read else self.dims[m] for m in self.modalities}
        self.readings = nn.ModuleDict({m: TwoReadings(self.dims[m], states[m]) for m in read})
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.LayerNorm(width))
                for m, size in sizes.items()
            }
        )
        self.private = nn.ModuleDict({m: nn.Linear(width, width) for m in self.modalities})
        self.shared = nn.Linear(width, width)
        self.rebuild = nn.ModuleDict({m: nn.Linear(width, width) for m in self.modalities})
        self.block = ModalityBlock(
            1, width, options.heads, options.inner_width, options.transformer_dropout
        )
        self.inner = nn.Linear(2 * count * width, count * width)
        self.dropout = Dropout(options.dropout)
        self.output = nn.Linear(count * width, self.task.output_dim)

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        projected = [self.projections[m](self._read(m, steps[m], masks[m])) for m in steps]
        private = [self.private[m](p).sigmoid() for m, p in zip(steps, projected, strict=True)]
        shared = [self.shared(p).sigmoid() for p in projected]
        rebuilt = [self.rebuild[m](s + c) for m, s, c in zip(steps, private, shared, strict=True)]
        present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # [m, b]
        tokens = torch.stack([*private, *shared], dim=1)  # [b, 2m, d]
        counts = torch.cat([present, present]).T  # [b, 2m]
        mixed = self.block(tokens.unsqueeze(0), key_bias(counts).unsqueeze(0))[0]
        mixed = mixed * counts.unsqueeze(-1).to(mixed.dtype)
        hidden = F.relu(self.dropout(self.inner(mixed.flatten(1))))
        extras = {
            "projected": torch.stack(projected),  # [m, b, d], as are the next three
            "private": torch.stack(private),
            "shared": torch.stack(shared),
            "rebuilt": torch.stack(rebuilt),
            "present": present,
        }
        return self.output(hidden), hidden, extras

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Difference, similarity and reconstruction, weighted."""
        options, extras = self.options, output.extras
        private, shared, present = extras["private"], extras["shared"], extras["present"]
        each = range(len(present))
        pairs = list(combinations(each, 2))
        difference = [difference_loss(private[m], shared[m], present[m]) for m in each]
        difference += [
            difference_loss(private[m], private[k], present[m] & present[k]) for m, k in pairs
        ]
        similarity = [
            central_moment_discrepancy(
                shared[m], shared[k], present[m], present[k], orders=options.moments
            )
            for m, k in pairs
        ]
        errors = (extras["rebuilt"] - extras["projected"]).square().mean(dim=-1)  # [m, b]
        rebuilt = (errors * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        loss: Tensor = options.reconstruction_weight * rebuilt.mean()
        loss = loss + options.difference_weight * torch.stack(difference).sum()
        if similarity:
            loss = loss + options.similarity_weight * torch.stack(similarity).mean()
        return loss

    def _read(self, modality: Modality, steps: Tensor, mask: Tensor) -> Tensor:
        if modality not in self.readings:
            return masked_mean(steps, mask)
        read: Tensor = self.readings[modality](steps, mask)
        return read


def central_moment_discrepancy(
    p: Tensor, q: Tensor, p_counts: Tensor, q_counts: Tensor, *, orders: int = 5
) -> Tensor:
    """How far the distributions of two batches lie apart, by their moments.

    Distance of the means plus the distances of the central moments of order 2 and above.

    Args:
        p: ``[b, d]``, values in 0..1.
        q: ``[b, d]``.
        p_counts: Which rows of ``p`` count, bool ``[b]``.
        q_counts: Which rows of ``q`` count.
        orders: Highest order.

    Returns:
        Scalar; 0 where no row of one of them counts.

    Source:
        FIELD 5.7, step 5.
    """
    both = p_counts.any() & q_counts.any()
    gaps = [
        x - y
        for x, y in zip(_moments(p, p_counts, orders), _moments(q, q_counts, orders), strict=True)
    ]
    distances = (torch.stack(gaps).square().sum(dim=-1) + _EPSILON).sqrt()  # [orders]
    return distances.sum() * both


def _moments(x: Tensor, counts: Tensor, orders: int) -> list[Tensor]:
    """The mean, then central moments of order 2 to ``orders``, ``[d]`` each."""
    share = counts.to(x.dtype) / counts.sum().clamp(min=1)
    mean = share @ x
    centred = x - mean
    power, moments = centred, [mean]
    for _ in range(1, orders):
        power = power * centred
        moments.append(share @ power)
    return moments


def difference_loss(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """How far two batches are from orthogonal: mean square of the entries of ``X^T Y``.

    The mean over the batch is taken away and every row is brought to length one first.

    Args:
        x: ``[b, d]``.
        y: ``[b, d]``.
        counts: Which rows count, bool ``[b]``.

    Source:
        FIELD 5.7, step 6.
    """
    return (_rows_of_length_one(x, counts).T @ _rows_of_length_one(y, counts)).square().mean()


def _rows_of_length_one(x: Tensor, counts: Tensor) -> Tensor:
    weight = counts.to(x.dtype)
    centred = (x - (weight / weight.sum().clamp(min=1.0)) @ x) * weight.unsqueeze(-1)
    norm = centred.detach().norm(dim=-1, keepdim=True)
    unit: Tensor = centred / (norm + _SMALLEST_NORM)
    return unit


MODEL = MISA
