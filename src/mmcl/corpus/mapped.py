"""A file mapped into memory, which gives its pages back.

What was read of a mapped file counts as memory of the process from then on, although it can
be had again at any time: reading a corpus of 8 GB once would look like 8 GB in use, and in a
container with a limit it would be. So the pages are given back as soon as there are more than
256 MiB of them; the system keeps them in its cache as long as it has room.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["MappedFile"]

BYTES_HELD = 256 << 20
"""Resident pages of the file, at most, whenever it is looked."""
LOOK_EVERY = 8 << 20
NEIGHBOURS = 64 << 10
"""Bytes around a page that Linux maps with it, at least: newer ones map up to 2 MiB, and so it
is looked how many there are and not reckoned."""
_STATM = Path("/proc/self/statm")


class MappedFile:
    """A read-only file whose content is its memory.

    Args:
        path: The file; not an empty one.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._read = 0
        self._others = _resident()

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, it is mapped there again."""
        return MappedFile, (self.path,)

    @property
    def buffer(self) -> pa.Buffer:
        """The whole file, not a copy; it keeps the mapping alive."""
        return pa.py_buffer(self._pages)

    def count(self, num_bytes: int, *, places: int = 1) -> None:
        """Say how many bytes were read in how many places; now and then pages are given back.

        Views into the file stay valid: a page that is read again comes back.
        """
        self._read += num_bytes + places * NEIGHBOURS
        if self._read < LOOK_EVERY or len(self._pages) <= BYTES_HELD:
            return
        self._read = 0
        if _resident() - self._others > BYTES_HELD:
            self.let_go()
            self._others = _resident()  # libraries are mapped files as well

    def let_go(self) -> None:
        """Give all pages back."""
        self._pages.madvise(mmap.MADV_DONTNEED)


def _resident() -> int:
    """Bytes of mapped files in the memory of this process; 0 where only Linux could tell."""
    try:
        return int(_STATM.read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0
