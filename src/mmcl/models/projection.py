"""Projection: standardise each modality's features, then map them to one width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["Projection", "Standardiser", "robust_moments"]

OUTLIER_QUANTILES = (0.005, 0.995)
LARGEST_STANDARD_SCORE = 8.0
SMALLEST_SCALE = 1e-6
"""Scale below which a feature counts as constant, relative to its centre."""
VALUES_SORTED_AT_ONCE = 1 << 21


def robust_moments(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and scale of every feature, robust to outliers.

    Values beyond the .5% and 99.5% quantiles are clipped to them first. A constant feature
    gets scale 0; :class:`Standardiser` then makes it 0 everywhere.

    Shapes: real steps of the training split ``[k, d_m]``, finite, in; ``[d_m]`` twice out.
    """
    if len(steps) == 0:
        return torch.zeros(steps.shape[1]), torch.zeros(steps.shape[1])
    # Sorting takes several times the memory of the features, so they are sorted in parts.
    width = max(1, VALUES_SORTED_AT_ONCE // len(steps))
    centres, scales = zip(*map(_clipped_moments, torch.split(steps, width, dim=1)), strict=True)
    return torch.cat(centres), torch.cat(scales)


def _clipped_moments(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every feature between its two quantiles."""
    ranked = steps.double().sort(dim=0).values
    low, high = (ranked[round(q * (len(ranked) - 1))] for q in OUTLIER_QUANTILES)
    clipped = ranked.clamp(low, high)
    return clipped.mean(dim=0).float(), clipped.std(dim=0, correction=0).float()


class Standardiser(nn.Module):
    """Centring and scaling of one modality's features by the training split (fault F4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.centre: Tensor
        self.scale: Tensor

    def fit(self, steps: Tensor) -> None:
        """Take centre and scale from the real steps of the training split, ``[k, d_m]``."""
        centre, scale = robust_moments(steps)
        self.centre.copy_(centre)
        self.scale.copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[b, n, d_m]`` in and out, values in -8..8."""
        # A feature that was constant in training tells nothing: it becomes 0.
        varies = self.scale > SMALLEST_SCALE * (1 + self.centre.abs())
        slope = self.scale.reciprocal().where(varies, 0.0)
        # In place, since the difference is a new tensor.
        standard = (x - self.centre).mul_(slope)
        return standard.clamp_(-LARGEST_STANDARD_SCORE, LARGEST_STANDARD_SCORE)


class Projection(nn.Module):
    """One linear layer per modality, ``Z_m = X_m W_m + b_m``, after a :class:`Standardiser`."""

    def __init__(
        self, dims: Mapping[Modality, int], width: int, *, standardise: bool, input_dropout: float
    ) -> None:
        super().__init__()
        self.modalities = tuple(dims)
        self.linear = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        self.standardisers = nn.ModuleDict(
            {m: Standardiser(dim) for m, dim in dims.items()} if standardise else {}
        )
        self.dropout = Dropout(input_dropout)

    def forward(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """Project, pad every modality with 0 to the longest, and stack.

        Shapes: per modality ``[b, n_m, d_m]`` in, ``[m, b, n, d]`` out.
        """
        longest = max(x.shape[1] for x in features.values())
        projected = []
        for modality, linear in zip(self.modalities, self.linear.values(), strict=True):
            x = features[modality]
            if modality in self.standardisers:
                x = self.standardisers[modality](x)
            z = linear(self.dropout(x))  # X_m W_m + b_m
            missing = longest - z.shape[1]
            projected.append(F.pad(z, (0, 0, 0, missing)) if missing else z)
        return torch.stack(projected)
