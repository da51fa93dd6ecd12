"""Calibration: centre and scale each modality's space, so that cosines can be compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Calibration", "masked_moments"]

_EPSILON = 1e-5


def masked_moments(z: Tensor, step_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of each modality's real steps over the batch.

    Args:
        z: ``[m, b, n, d]``.
        step_mask: Real steps, bool ``[m, b, n]``.

    Returns:
        Mean ``[m, d]``, variance ``[m, d]`` and number of real steps ``[m]``.
    """
    # At least float32: E[z^2] - E[z]^2 of bfloat16 values would have hardly a digit.
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    real = z * step_mask.unsqueeze(-1)
    count = step_mask.sum(dim=(1, 2)).to(z.dtype)  # [m]
    divisor = count.clamp(min=1).unsqueeze(-1)
    mean = real.sum(dim=(1, 2)) / divisor
    # Rounding can bring the difference below 0.
    variance = (real.square().sum(dim=(1, 2)) / divisor - mean.square()).clamp(min=0)
    return mean, variance, count


class Calibration(nn.Module):
    """Centring and scaling by batch statistics in training, by running ones in evaluation.

    Padded steps do not count. Each of several processes uses the statistics of its own share of
    the batch. For a modality with fewer than two real steps the running ones are used, unchanged.

    Source:
        docs/method.md, calibration: the answer to fault F4 (the authors' withdrawal note). The
        released code compares the projected spaces as they are.
    """

    def __init__(self, num_modalities: int, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_modalities, width))
        self.register_buffer("variance", torch.ones(num_modalities, width))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, z: Tensor, step_mask: Tensor) -> Tensor:
        """Shapes: ``z`` ``[m, b, n, d]``, ``step_mask`` ``[m, b, n]``; returns ``[m, b, n, d]``."""
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = self._batch_statistics(z, step_mask)
        return (z - mean[:, None, None]) * (variance + _EPSILON).rsqrt()[:, None, None]

    def unit(self, z: Tensor, step_mask: Tensor) -> Tensor:
        """Calibrate, and scale every step to length one, ready for cosines."""
        return F.normalize(self(z, step_mask), dim=-1)

    def _batch_statistics(self, z: Tensor, step_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the batch, ``[m, d]``, and update the running ones."""
        mean, variance, count = masked_moments(z, step_mask)
        # One step has no variance, and none has no mean either.
        known = (count > 1).unsqueeze(-1)
        mean = torch.where(known, mean, self.mean)
        variance = torch.where(known, variance, self.variance)
        with torch.no_grad():
            self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
            self.variance.lerp_(variance.to(self.variance.dtype), self.momentum)
        return mean, variance
