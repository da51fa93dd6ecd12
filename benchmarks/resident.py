"""Memory that a process holds, watched while it works (Linux)."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

STATUS = Path("/proc/self/status")
EVERY = 0.02
"""Seconds between two looks."""


class Resident:
    """Peak resident memory between entering and leaving, in MiB above what was held before.

    ``total`` is the largest sum; ``own`` (RssAnon) is what the process has allocated, ``file``
    (RssFile) what it maps of files: of the corpus, and of its libraries. The two peaks need not
    fall together.
    """

    def __enter__(self) -> Self:
        self.before = status()
        self.peak = dict(self.before)
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self.peak = {key: max(self.peak[key], now) for key, now in status().items()}

    def above(self) -> dict[str, float]:
        """Peaks above what was held before, and the largest sum with it, rounded to MiB."""
        above = {key: round(self.peak[key] - self.before[key]) for key in self.peak}
        return above | {"with_libraries": round(self.peak["total"])}


def status() -> dict[str, float]:
    """Resident now, in MiB."""
    text = STATUS.read_text()
    own, file = (
        int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.M)[0]) / 1024
        for name in ("RssAnon", "RssFile")
    )
    return {"total": own + file, "own": own, "file": file}
