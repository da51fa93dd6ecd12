"""Late fusion of one modality alone, on which the other two must improve."""

from __future__ import annotations

from typing import ClassVar

from mmcl.models.baselines.late_fusion import LateFusion
from mmcl.types import Modality

__all__ = ["AudioOnly", "TextOnly", "VisionOnly"]


class TextOnly(LateFusion):
    """Text alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("text",)


class AudioOnly(LateFusion):
    """Audio alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("audio",)


class VisionOnly(LateFusion):
    """Vision alone."""

    takes: ClassVar[tuple[Modality, ...]] = ("vision",)
