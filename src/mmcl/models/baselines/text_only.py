"""Text alone: what the other two modalities must add to."""

from __future__ import annotations

from typing import ClassVar

from mmcl.models.baselines.late_fusion import LateFusion
from mmcl.types import Modality

__all__ = ["MODEL", "TextOnly"]


class TextOnly(LateFusion):
    """:class:`LateFusion` with nothing to fuse.

    Source:
        Ours.
    """

    takes: ClassVar[tuple[Modality, ...]] = ("text",)


MODEL = TextOnly
