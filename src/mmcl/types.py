"""Names that every room shares; nothing here imports more than the standard library."""

from __future__ import annotations

from typing import Literal

__all__ = ["MODALITIES", "SPLITS", "Modality", "SplitName", "TaskKind", "Variant"]

Modality = Literal["text", "audio", "vision"]
SplitName = Literal["train", "valid", "test"]
TaskKind = Literal["regression", "classes", "emotions"]
Variant = Literal["released", "calibrated"]

MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")
"""The three modalities, always in this order."""

SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
"""The three splits, in the order they lie on disk."""
