"""TFN: every product of one number per modality, by an outer product of the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mmcl.models.baselines.baseline import ByModality, RawPrediction
from mmcl.models.baselines.lf_dnn import LateFusionDNN
from mmcl.models.baselines.utterances import UtteranceOptions
from mmcl.types import Modality

__all__ = ["TensorFusion", "fusion_tensor", "with_one"]

ORDER: tuple[Modality, ...] = ("audio", "vision", "text")
"""Axes of the fusion tensor, slowest first."""


def with_one(vector: Tensor) -> Tensor:
    """Put a constant 1 before a vector: ``[b, d]`` in, ``[b, d + 1]`` out."""
    return F.pad(vector, (1, 0), value=1.0)


def fusion_tensor(vectors: Sequence[Tensor]) -> Tensor:
    """Return all products of one number of every ``[1 ; vector]``, the last vector's fastest.

    The constants keep the products of fewer modalities in it, down to every vector itself.

    Shapes: ``[b, d_m]`` each in, ``[b, product of (d_m + 1)]`` out.

    Example:
        >>> import torch
        >>> fusion_tensor([torch.tensor([[2.0]]), torch.tensor([[3.0, 5.0]])])
        tensor([[ 1.,  3.,  5.,  2.,  6., 10.]])
    """
    tensor = with_one(vectors[0])
    for vector in vectors[1:]:
        tensor = (tensor.unsqueeze(-1) * with_one(vector).unsqueeze(1)).flatten(1)
    return tensor


class TensorFusion(LateFusionDNN):
    """:class:`LateFusionDNN` with the outer product of the vectors in place of a concatenation.

    A clip that lacks a modality keeps the products of the others: its vector is 0, its
    constant 1.

    Source:
        Zadeh et al. 2017 (arXiv 1707.07250), with the sizes that MMSA publishes for MOSI and the
        corrections of :class:`Utterances`. Mended: a score lies between the task's own low and
        high, where a public version keeps -3..3 for labels of -1..1. Class and emotion logits
        are not squashed.
    """

    class Options(UtteranceOptions):
        """Sizes, as published for MOSI."""

        text_out: int = Field(32, ge=1)
        audio_width: int = Field(32, ge=1)
        dropout: float = Field(0.3, ge=0, lt=1)
        post_width: int = Field(64, ge=1)  # of both layers after the fusion
        post_dropout: float = Field(0.5, ge=0, lt=1)  # of the fusion tensor

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Bring scores into the task's range; see :meth:`Baseline.predict`."""
        raw, hidden, extras = super().predict(steps, masks)
        if self.task.kind == "regression":
            # 6 sigmoid(y) - 3 for a range of -3..3.
            low, high = map(self.score_scale.to_field, self.task.score_range or (0.0, 0.0))
            raw = low + (high - low) * raw.sigmoid()
        return raw, hidden, extras

    def fuse(self, vectors: ByModality) -> Tensor:
        """Return the fusion tensor ``[1 ; z_a] x [1 ; z_v] x [1 ; z_t]``, flattened."""
        return fusion_tensor([vectors[m] for m in ORDER if m in vectors])

    def fused_width(self) -> int:
        """Return the number of products."""
        return prod(width + 1 for width in self.utterances.widths.values())
