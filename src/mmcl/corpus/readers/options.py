"""Choices of the user for a foreign file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from mmcl.types import TaskKind

__all__ = ["Align", "Padding", "ReadOptions"]

Padding = Literal["left", "right", "both", "none"]
"""The side of the real steps on which a padded array is filled up."""
Align = Literal["word", "none"]
"""Ways to bring the rates of modalities together: a step for each word, or none."""


class ReadOptions(NamedTuple):
    """Choices of the user for a foreign file; None leaves the choice to the reader.

    Attributes:
        name: Name of the corpus.
        task: What the labels are.
        label_range: Lowest and highest score.
        align: ``word``: step i is the same stretch of time in every modality; ``none``: not.
        padding: Where the arrays are padded; ``none``: all their steps are real.
        rename: Names of splits, fields or columns in the file, and ours for them; an empty
            name leaves the part out.
        max_lost: Share of the clips that may be left out, 0..1.
    """

    name: str | None = None
    task: TaskKind | None = None
    label_range: tuple[float, float] | None = None
    align: Align | None = None
    padding: Padding | None = None
    rename: Mapping[str, str] = MappingProxyType({})
    max_lost: float = 0.1
