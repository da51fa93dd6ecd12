"""Stages of an extraction and the time that goes to each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["STAGES", "StageClock"]

STAGES = ("decode", "recognise", "align", "text", "audio", "vision")
"""Loading a model counts for the stage that uses it first."""

_T = TypeVar("_T")


class StageClock:
    """Seconds per stage.

    Args:
        progress: Called with the name of a stage when it begins.
    """

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block for a stage."""
        if self.progress is not None:
            self.progress(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def decoding(self, source: Iterator[_T], inside: str) -> Iterator[_T]:
        """Pass items on, counting the wait for them for ``decode`` and not for ``inside``."""
        while True:
            began = time.perf_counter()
            item = next(source, None)
            seconds = time.perf_counter() - began
            self.seconds["decode"] += seconds
            self.seconds[inside] -= seconds
            if item is None:
                return
            yield item
