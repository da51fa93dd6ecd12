"""A memory-mapped file that gives its pages back to the system.

Pages that were read count as memory of the process, although the system could read them
again at any time: one pass over a large corpus would break the memory limit of a container.
So the pages are given back once more than 256 MiB of them are resident.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["MappedFile"]

BYTES_HELD = 256 << 20  # resident bytes above which the pages are given back
LOOK_EVERY = 8 << 20  # bytes to read before the resident pages are counted again
# Linux maps at least so many bytes around a page. Newer kernels map up to 2 MiB, so resident
# pages are counted and not estimated.
NEIGHBOURS = 64 << 10
_STATM = Path("/proc/self/statm")


class MappedFile:
    """A read-only file mapped into memory.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes_read = 0
        # Shared libraries are mapped files too and must not count as pages of this one.
        self._resident_before = _resident_bytes()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path alone; the other process maps the file again."""
        return MappedFile, (self.path,)

    @property
    def buffer(self) -> pa.Buffer:
        """The content of the file, not a copy; it keeps the mapping alive."""
        return pa.py_buffer(self._pages)

    def count(self, num_bytes: int, *, places: int = 1) -> None:
        """Count bytes that were read in some places; give pages back when there are many.

        Views into the file stay valid: a page that is read again comes back.
        """
        self._bytes_read += num_bytes + places * NEIGHBOURS
        if self._bytes_read < LOOK_EVERY or len(self._pages) <= BYTES_HELD:
            return
        self._bytes_read = 0
        if _resident_bytes() - self._resident_before > BYTES_HELD:
            self.let_go()
            self._resident_before = _resident_bytes()

    def let_go(self) -> None:
        """Give all pages back."""
        self._pages.madvise(mmap.MADV_DONTNEED)


def _resident_bytes() -> int:
    """Return the bytes of mapped files in this process's memory; 0 where it is not Linux."""
    try:
        return int(_STATM.read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0
