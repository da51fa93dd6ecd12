"""Audio alone: what the other two modalities must add to."""

from __future__ import annotations

from typing import ClassVar

from mmcl.models.baselines.late_fusion import LateFusion
from mmcl.types import Modality

__all__ = ["MODEL", "AudioOnly"]


class AudioOnly(LateFusion):
    """:class:`LateFusion` with nothing to fuse.

    Source:
        Ours.
    """

    takes: ClassVar[tuple[Modality, ...]] = ("audio",)


MODEL = AudioOnly
