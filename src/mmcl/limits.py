"""Limits of what a file from outside may cost, each a setting of the environment.

A small file can unpack to more than the memory holds. So the limits are in proportion to the
bytes of the file: no honest corpus comes near them, whatever its size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NoReturn

from mmcl.errors import DatasetError, MMCLError, UsageError

__all__ = ["MOST_DIGITS", "Budget", "check_regular", "limit", "num_places", "over_limit"]

MIB = 2**20
_DEFAULTS: Mapping[str, int] = {
    "MMCL_MAX_UNPACKED": 100,  # bytes in memory for every byte of the file
    "MMCL_MAX_OBJECTS": 4,  # lists, strings and numbers for every byte of the file
    "MMCL_MAX_DEPTH": 32,  # lists and dicts inside each other
    "MMCL_MAX_CLASSES": 100,  # classes that are numbered and not named
}
# A file may have so much in any case, however small it is.
FREE_BYTES = 256 * MIB
FREE_OBJECTS = 2_000_000
MOST_DIGITS = 18
"""Digits of a whole number from outside that 64 bits hold for certain."""
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def limit(name: str) -> int:
    """Return a limit: the environment variable of that name, or its default.

    Raises:
        UsageError: If the variable is no whole number from 1 on.
    """
    text = os.environ.get(name, "")
    if not text:
        return _DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) > 0):
        raise UsageError(
            f"{name}: {text!r} is no limit.\n"
            f"  Expected a whole number from 1 on; without the variable it is {_DEFAULTS[name]}"
        )
    return int(text)


class Budget:
    """Bytes and objects that one file may unpack to.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        self.most_bytes = max(FREE_BYTES, limit("MMCL_MAX_UNPACKED") * size)
        self.most_objects = max(FREE_OBJECTS, limit("MMCL_MAX_OBJECTS") * size)

    def check(self, *, num_bytes: int = 0, num_objects: int = 0) -> None:
        """Raise a DatasetError if so many bytes or objects are more than the file may have."""
        if num_bytes > self.most_bytes:
            self.refuse_bytes()
        if num_objects > self.most_objects:
            self.refuse_objects()

    def refuse_bytes(self) -> NoReturn:
        """Raise the DatasetError for a file that unpacks to too many bytes."""
        problem = f"it unpacks to more than {self.most_bytes // MIB:,} MiB"
        raise over_limit(self.path, problem, "MMCL_MAX_UNPACKED")

    def refuse_objects(self) -> NoReturn:
        """Raise the DatasetError for a file that unpacks to too many objects."""
        problem = f"it unpacks to more than {self.most_objects:,} lists, strings and numbers"
        raise over_limit(self.path, problem, "MMCL_MAX_OBJECTS")


def num_places(shape: Sequence[int]) -> int:
    """Return the places of an array without content, which no byte pays for; else 0.

    An array of shape ``[1_000_000_000, 0]`` takes no byte, but every clip of it is looked at.
    """
    return 0 if prod(shape) else prod(max(1, size) for size in shape)


def over_limit(path: Path, problem: str, name: str) -> DatasetError:
    """Return the error for a file that is over a limit; it names the limit."""
    unit = "" if name in ("MMCL_MAX_DEPTH", "MMCL_MAX_CLASSES") else " for every byte of the file"
    return DatasetError(
        f"{path}: {problem}; it was not read.\n"
        f"  Expected at most {limit(name)}{unit}, which honest corpora stay far below.\n"
        f"  If you trust its maker, allow more: export {name}={10 * limit(name)}"
    )


def check_regular(path: Path, error: type[MMCLError]) -> None:
    """Refuse what is no file on a disk: a pipe or a device may never end.

    A path that is missing or a folder passes: whoever opens it says so.

    Raises:
        MMCLError: Of the class ``error``, if it is a pipe, a device or a socket.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    kind = next((name for test, name in _KINDS if test(mode)), None)
    if kind is not None:
        raise error(
            f"{path}: {kind}, not a file.\n"
            "  Expected a file on a disk. Write what comes from it to a file first"
        )
