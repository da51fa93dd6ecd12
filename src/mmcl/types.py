"""Types and names that every room shares; imports the standard library alone."""

from __future__ import annotations

from typing import Literal

__all__ = ["BASELINES", "MODALITIES", "SPLITS", "VARIANTS", "Modality", "SplitName", "TaskKind"]

Modality = Literal["text", "audio", "vision"]
"""Name of a modality."""
SplitName = Literal["train", "valid", "test"]
"""Name of a part of a corpus."""
TaskKind = Literal["regression", "classes", "emotions"]
"""Kinds of task: a score, one class, or several emotions, each present or not."""

MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")
"""The modalities, always in this order."""

SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
"""The splits, in their order on disk."""

VARIANTS: tuple[str, ...] = ("released", "calibrated")
"""The variants of MMCL: as its authors released it, and with its faults repaired."""

BASELINES: tuple[str, ...] = (
    "ef_lstm",
    "lf_dnn",
    "tfn",
    "lmf",
    "mult",
    "misa",
    "self_mm",
    "almt",
    "mvcl",
    "caml",
    "co_sa",
    "late_fusion",
    "text_only",
    "audio_only",
    "vision_only",
)
"""Models that MMCL is compared with, in ``models/baselines``."""
