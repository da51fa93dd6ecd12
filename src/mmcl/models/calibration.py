"""Make the modalities' spaces comparable: centre and scale each, without parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmcl.models.layers import traced
from mmcl.processes import add_up, updates_buffers

__all__ = ["Calibration", "masked_moments"]

_EPSILON = 1e-5
_SHORTEST = 1e-12  # a step below this length keeps it, as in torch's normalize


def masked_moments(z: Tensor, step_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each modality's real steps over the batch, the clips of all its parts.

    Args:
        z: ``[m, b, n, d]``.
        step_mask: bool ``[m, b, n]``.

    Returns:
        Mean ``[m, d]``, variance ``[m, d]`` and number of steps ``[m]``.
    """
    real = z if bool(step_mask.all()) else z * step_mask.unsqueeze(-1)
    # Plain sums: as products of matrices they would be ten times slower on a CPU.
    count, total, squares = add_up(
        step_mask.sum(dim=(1, 2)).to(z.dtype),  # [m]
        real.sum(dim=(1, 2)),
        real.square().sum(dim=(1, 2)),
    )
    most = count.clamp(min=1).unsqueeze(-1)
    mean = total / most
    return mean, (squares / most - mean.square()).clamp(min=0), count


class _Unit(torch.autograd.Function):
    """``y = (z - mean) * slope``, brought to length one, without what torch would keep of it.

    With ``u = y / |y|`` and ``t = g - u (u . g)``, the gradient to y is ``t / |y|``.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, mean: Tensor, slope: Tensor) -> Tensor:
        y = (z - mean[:, None, None]).mul_(slope[:, None, None])
        shrunk = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp_(min=_SHORTEST)
        shrunk = shrunk.reciprocal_()
        unit = y.mul_(shrunk)
        ctx.save_for_backward(unit, shrunk, slope)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        unit, shrunk, slope = ctx.saved_tensors
        along = torch.linalg.vecdot(unit, grad).unsqueeze(-1)
        across = torch.addcmul(grad, unit, along, value=-1)
        of_mean = of_slope = None
        if ctx.needs_input_grad[2]:  # y is unit / shrunk, and z - mean is y / slope
            of_slope = (across * unit).sum(dim=(1, 2)) / slope
        of_z = across.mul_(shrunk).mul_(slope[:, None, None])
        if ctx.needs_input_grad[1]:
            of_mean = -of_z.sum(dim=(1, 2))
        return of_z, of_mean, of_slope


class Calibration(nn.Module):
    """Batch statistics in training, running ones in evaluation; padded steps do not count.

    A modality with fewer than two real steps in the batch has no statistics: the running
    ones stand in for it and are left alone.

    Source:
        METHOD 2.1, the answer to fault F4 (the authors' withdrawal note). The released
        code compares the projected spaces as they are.
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
        mean, slope = self._statistics(z, step_mask)
        return (z - mean[:, None, None]) * slope[:, None, None]

    def unit(self, z: Tensor, step_mask: Tensor) -> Tensor:
        """What :meth:`forward` returns, every step brought to length one."""
        if traced():
            return F.normalize(self(z, step_mask), dim=-1)
        unit: Tensor = _Unit.apply(z, *self._statistics(z, step_mask))  # type: ignore[no-untyped-call]
        return unit

    def _statistics(self, z: Tensor, step_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and one over the standard deviation, ``[m, d]`` each."""
        mean, variance = self.mean, self.variance
        if self.training:
            # Another thread may write the buffers as soon as the moments are added up.
            mean, variance = mean.clone(), variance.clone()
            now_mean, now_variance, count = masked_moments(z, step_mask)
            known = (count > 1).unsqueeze(-1)
            mean = torch.where(known, now_mean, mean)
            variance = torch.where(known, now_variance, variance)
            if updates_buffers():
                with torch.no_grad():
                    self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
                    self.variance.lerp_(variance.to(self.variance.dtype), self.momentum)
        return mean, (variance + _EPSILON).rsqrt()
