"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["complete_file", "write_json", "write_text"]


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Context that writes a file which is either complete or absent, whatever happens.

    The block writes to a temporary path in the same folder. If it ends without an error, the
    content is forced to the disk and renamed to ``path``, replacing a file of that name. After
    an error nothing is left behind.

    Args:
        path: Final path of the file; its folder is made if necessary.

    Yields:
        Temporary path to write to.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     target = Path(folder) / "note.txt"
        ...     with complete_file(target) as unfinished:
        ...         _ = unfinished.write_text("whole")
        ...     target.read_text()
        'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=f".unfinished{path.suffix}", dir=path.parent
    )
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp lets only the owner read; a result is an ordinary file.
        unfinished.chmod(0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, complete or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    with complete_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, complete or not at all; NaN and infinity are refused.

    Raises:
        OSError: If the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
