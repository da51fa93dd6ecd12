"""MISA: parts that modalities share and parts private to each, taught apart by three losses."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.baselines.encoders import LastState, key_bias, masked_mean
from mmcl.models.layers import Dropout, ModalityBlock

__all__ = ["MISA", "central_moment_discrepancy", "difference_loss"]

_EPSILON = 1e-12
"""Added under the square root of a distance, whose slope at 0 is infinite."""

_SMALLEST_NORM = 1e-6


class TwoReadings(nn.Module):
    """Two bidirectional LSTMs, the second over the normalised steps of the first."""

    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.first = LastState(in_dim, width, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = LastState(2 * width, width, bidirectional=True)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """Return the last states of both LSTMs: ``[b, n, d]`` in, ``[b, 4 width]`` out."""
        first, outputs = self.first(steps, mask)
        # The outputs have their real steps first.
        lengths = mask.sum(dim=1, keepdim=True)
        front = torch.arange(mask.shape[1], device=mask.device) < lengths
        second, _ = self.second(self.norm(outputs), front)
        return torch.cat([first, second], dim=-1)


class MISA(Baseline):
    """Shared and private vectors per modality; a transformer over all of them; one head.

    Three losses stand beside the task's. Shared vectors of two modalities have the same
    distribution (central moment discrepancy). Private ones are orthogonal to the shared one and to
    each other (difference). Both together rebuild the vector they came from (reconstruction).

    Source:
        Hazarika et al. 2020 (arXiv 2005.03545). Mended: every modality is read by its own
        lengths, not by those of text, and distances have a slope at 0. Decided: text is read like
        the others, since features are not trained here (``text = "mean"`` is the published mean
        over BERT's states). A state is at most ``width`` wide, which binds for text alone. A clip
        counts in a loss only where it has the modalities of that loss. An absent modality is no
        token of the transformer and 0 in the head. L1 replaces the squared error. Left out: the
        adversarial form of the similarity, and a classifier that enters no loss.
    """

    class Options(AttentionOptions):
        """Sizes, and weights of the losses; as published for MOSI."""

        width: int = Field(128, ge=2)  # of the shared and private vectors
        heads: int = Field(2, ge=1)  # of the transformer; must divide the width
        inner_width: int = Field(2048, ge=1)  # of its feed-forward part
        dropout: float = Field(0.2, ge=0, lt=1)  # in the head
        transformer_dropout: float = Field(0.1, ge=0, lt=1)
        text: Literal["recurrent", "mean"] = "recurrent"  # read like the others, or averaged
        moments: int = Field(5, ge=1)  # highest order of the moments compared
        difference_weight: float = Field(0.1, ge=0)
        similarity_weight: float = Field(0.3, ge=0)
        reconstruction_weight: float = Field(1.0, ge=0)

    def build(self) -> None:
        """Make the layers."""
        options, names, width = self.options, self.modalities, self.options.width
        recurrent = [m for m in names if m != "text" or options.text == "recurrent"]
        states = {m: min(self.dims[m], width) for m in recurrent}
        sizes = {m: 4 * states[m] if m in recurrent else self.dims[m] for m in names}
        self.readings = nn.ModuleDict({m: TwoReadings(self.dims[m], states[m]) for m in recurrent})
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.LayerNorm(width))
                for m, size in sizes.items()
            }
        )
        self.private = nn.ModuleDict({m: nn.Linear(width, width) for m in names})
        self.shared = nn.Linear(width, width)
        self.rebuild = nn.ModuleDict({m: nn.Linear(width, width) for m in names})
        self.block = ModalityBlock(
            1, width, options.heads, options.inner_width, options.transformer_dropout
        )
        self.inner = nn.Linear(2 * len(names) * width, len(names) * width)
        self.dropout = Dropout(options.dropout)
        self.output = nn.Linear(len(names) * width, self.task.output_dim)

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Project, split in two, rebuild, fuse; see :meth:`Baseline.predict`."""
        # p_m = norm(ReLU(linear(u_m))), u_m the vector of the utterance
        vectors = [
            self.readings[m](x, masks[m]) if m in self.readings else masked_mean(x, masks[m])
            for m, x in steps.items()
        ]
        projected = [self.projections[m](u) for m, u in zip(steps, vectors, strict=True)]
        # Private s_m and shared c_m; one layer makes the shared parts of all modalities.
        private = [self.private[m](p).sigmoid() for m, p in zip(steps, projected, strict=True)]
        shared = [self.shared(p).sigmoid() for p in projected]
        # Reconstruction of p_m from s_m + c_m
        rebuilt = [self.rebuild[m](s + c) for m, s, c in zip(steps, private, shared, strict=True)]
        # Fusion: a transformer layer over the vectors of the modalities that the clip has.
        present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # [m, b]
        tokens = torch.stack([*private, *shared], dim=1)  # [b, 2m, d]
        token_mask = torch.cat([present, present]).T  # [b, 2m]
        mixed = self.block(tokens.unsqueeze(0), key_bias(token_mask).unsqueeze(0))[0]
        mixed = mixed * token_mask.unsqueeze(-1).to(mixed.dtype)
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
        """Return the weighted sum of reconstruction, difference and similarity losses."""
        options, extras = self.options, output.extras
        private, shared, present = extras["private"], extras["shared"], extras["present"]
        modalities = range(len(present))
        pairs = list(combinations(modalities, 2))
        # L_recon: mean squared error of the rebuilt vectors, over the clips that have them.
        errors = (extras["rebuilt"] - extras["projected"]).square().mean(dim=-1)  # [m, b]
        rebuilt = (errors * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        loss: Tensor = options.reconstruction_weight * rebuilt.mean()
        # L_diff: private against shared of each modality, and private against private.
        differences = [difference_loss(private[m], shared[m], present[m]) for m in modalities]
        differences += [
            difference_loss(private[m], private[k], present[m] & present[k]) for m, k in pairs
        ]
        loss = loss + options.difference_weight * torch.stack(differences).sum()
        # L_sim: discrepancy of the shared vectors of every two modalities.
        if pairs:
            discrepancies = [
                central_moment_discrepancy(
                    shared[m], shared[k], present[m], present[k], orders=options.moments
                )
                for m, k in pairs
            ]
            loss = loss + options.similarity_weight * torch.stack(discrepancies).mean()
        return loss


def central_moment_discrepancy(
    p: Tensor, q: Tensor, p_mask: Tensor, q_mask: Tensor, *, orders: int = 5
) -> Tensor:
    """Return the distance of two batches' distributions, by their moments.

    ``|E p - E q| + sum over k from 2 of |C_k(p) - C_k(q)|``, C_k the central moment of order k;
    0 where no row of one of them counts.

    Shapes: ``[b, d]`` twice, values in 0..1, and which of their rows count, bool ``[b]``.
    """
    gaps = torch.stack(_moments(p, p_mask, orders)) - torch.stack(_moments(q, q_mask, orders))
    distances = (gaps.square().sum(dim=-1) + _EPSILON).sqrt()  # [orders]
    return distances.sum() * (p_mask.any() & q_mask.any())


def _moments(x: Tensor, mask: Tensor, orders: int) -> list[Tensor]:
    """Return the mean, then central moments of order 2 to ``orders``, ``[d]`` each."""
    share = mask.to(x.dtype) / mask.sum().clamp(min=1)
    mean = share @ x
    centred = x - mean
    power, moments = centred, [mean]
    for _ in range(1, orders):
        power = power * centred
        moments.append(share @ power)
    return moments


def difference_loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Return how far two batches are from orthogonal: mean square of the entries of ``X^T Y``.

    The mean over the batch is taken away and every row is brought to length one first.

    Shapes: ``[b, d]`` twice, rows that count bool ``[b]``.
    """
    return (_centred_unit_rows(x, mask).T @ _centred_unit_rows(y, mask)).square().mean()


def _centred_unit_rows(x: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(x.dtype)
    centred = (x - (weight / weight.sum().clamp(min=1.0)) @ x) * weight.unsqueeze(-1)
    # As published, no gradient goes through the length.
    norm = centred.detach().norm(dim=-1, keepdim=True)
    unit: Tensor = centred / (norm + _SMALLEST_NORM)
    return unit
