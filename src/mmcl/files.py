"""Writing of files that are complete or absent, and clear errors if a disk takes no more.

Every file is written under a temporary name (:func:`complete_file`), and forced to the disk
before it gets its name.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from mmcl.errors import DiskError, MMCLError, RunError
from mmcl.limits import check_regular

__all__ = [
    "NO_ROOM",
    "complete_file",
    "csv_cell",
    "disk_error",
    "disk_errors",
    "make_folder",
    "read_json",
    "reading",
    "remove_unfinished",
    "sync_folder",
    "unfinished_name",
    "write_json",
    "write_text",
]

_UNFINISHED = ".unfinished"  # in the name of a temporary file

# What is wrong, and what to do about it.
_DISK_FAULTS = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("your share of the disk is used up", "Free some space, or get a larger share"),
    errno.EFBIG: (
        "the file is larger than is allowed here",
        "Allow larger files (ulimit -f), or use another disk",
    ),
    errno.EROFS: ("the disk can only be read", "Make it writable"),
    errno.EIO: ("the disk failed", "Look after the disk"),
    errno.EACCES: ("access is refused", "Get the right to write there"),
    errno.EPERM: ("access is refused", "Get the right to write there"),
}
# What reading damaged content raises, in this package and in those that it uses.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, EOFError),
)
_TRAIN_AGAIN = "train again: mmcl train CORPUS --out NEW"
_SOMEWHERE = "a file that was being written, or the output"  # a failed write names no file
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors that only writing can have: nothing more fits."""


def disk_error(
    fault: BaseException, path: Path | None = None, *, codes: Collection[int] = tuple(_DISK_FAULTS)
) -> DiskError | None:
    """Turn a system error of a disk that cannot be written (full, read-only) into a clear one.

    Args:
        fault: What was raised while a file was written: an OSError, or an error of a library
            that has the system's message in its text, as safetensors and SQLite do.
        path: The file or folder. Default: the one that the OSError names.
        codes: Numbers of the system's errors to look for.

    Returns:
        The error to raise, or None if the fault is another one.
    """
    if isinstance(fault, MMCLError):
        return None
    code = _disk_code(fault)
    # What is raised while a full disk is dealt with is a consequence of it.
    before = fault.__cause__ or fault.__context__
    if code is None and before is not None:
        return before if isinstance(before, DiskError) else disk_error(before, path, codes=NO_ROOM)
    if code is None or code not in codes:
        return None
    where = path or getattr(fault, "filename", None) or _SOMEWHERE
    what, remedy = _DISK_FAULTS[code]
    return DiskError(
        f"{where}: {what} ({os.strerror(code)})", f"{remedy}, then give the same command again."
    )


def _disk_code(fault: BaseException) -> int | None:
    """Return the errno behind a fault if the disk cannot be written, else None."""
    if isinstance(fault, OSError) and fault.errno is not None:
        return fault.errno if fault.errno in _DISK_FAULTS else None
    text = str(fault)
    if "database or disk is full" in text:  # SQLite
        return errno.ENOSPC
    return next((code for code in (*NO_ROOM, errno.EROFS) if os.strerror(code) in text), None)


@contextmanager
def disk_errors(path: Path, *, codes: Collection[int] = tuple(_DISK_FAULTS)) -> Iterator[None]:
    """Context in which a disk that cannot be written raises a clear error.

    Args:
        path: The file or folder that the block writes.
        codes: As in :func:`disk_error`.

    Raises:
        DiskError: In place of what the block raised because of the disk.
    """
    try:
        yield
    except Exception as fault:
        error = disk_error(fault, path, codes=codes)
        if error is None:
            raise
        raise error from fault


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Context that writes a file which is either complete or absent, whatever happens.

    The block writes to a temporary path in the same folder. If it ends without an error, the
    content is forced to the disk and renamed to ``path``, replacing a file of that name, and
    the new name is forced to the disk too. After an error nothing is left behind.

    Args:
        path: Final path of the file; its folder is made if necessary.

    Yields:
        Temporary path to write to.

    Raises:
        DiskError: If the disk has no room for the file.
        OSError: If the file cannot be written for another reason.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     target = Path(folder) / "note.txt"
        ...     with complete_file(target) as unfinished:
        ...         _ = unfinished.write_text("whole")
        ...     target.read_text()
        'whole'
    """
    with disk_errors(path, codes=NO_ROOM):
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=f"{_UNFINISHED}{path.suffix}", dir=path.parent
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
            _sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def reading(path: Path, *, otherwise: str = _TRAIN_AGAIN) -> Iterator[None]:
    """Context that reads a file of a run or result, which may be damaged in any way.

    Args:
        path: The file or folder that the block reads.
        otherwise: What to do if there is no copy of it, a sentence without its stop.

    Raises:
        RunError: In place of what the block raised because of the content. It names the file.
    """
    try:
        yield
    except MMCLError:
        raise
    except _DAMAGE as fault:
        reason = getattr(fault, "strerror", None) or str(fault) or "no reason given"
        raise RunError(
            f"{path}: damaged or cut short ({type(fault).__name__}: {reason.splitlines()[0]}).\n"
            f"  Copy it again from where it was made, or {otherwise}"
        ) from fault


def read_json(path: Path, *, otherwise: str = _TRAIN_AGAIN) -> dict[str, Any]:
    """Read a JSON object that :func:`write_json` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        RunError: If it is a pipe, or not a JSON object without NaN, or if a whole number in it
            needs more than 64 bits.
    """
    check_regular(path, RunError)
    content = path.read_bytes()  # a file that is missing is the caller's to explain
    with reading(path, otherwise=otherwise):
        read: Any = json.loads(content, parse_int=_whole, parse_constant=_refuse_constant)
        if not isinstance(read, dict):
            raise ValueError(f"expected a JSON object, found a {type(read).__name__}")
    return dict(read)


def _whole(digits: str) -> int:
    """Return a whole number: a seed, a size or a count, which all fit 64 bits."""
    number = int(digits)  # Python itself refuses thousands of digits
    if abs(number) >= 2**63:
        raise ValueError(f"a whole number of {len(digits):,} digits; expected one of 64 bits")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and force their names to the disk.

    Raises:
        OSError: If it cannot be made.
    """
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        _sync(folder.parent)


def sync_folder(folder: Path) -> None:
    """Force to the disk what a library wrote: all files of a folder, and its own name."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        _sync(path)


def _sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(handle)


def unfinished_name(path: Path) -> Path:
    """Return the temporary name of a file or folder that one process at a time writes."""
    return path.with_name(f".{path.stem}{_UNFINISHED}{path.suffix}")


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove the temporary files of processes that were killed while they wrote.

    Args:
        folder: Their folder. No other process may be writing these files.
        name: The output they belong to. Default: all in the folder, and in those within it.
    """
    pattern = f".{glob.escape(name)}*{_UNFINISHED}*"
    with suppress(FileNotFoundError):
        for path in list(folder.glob(pattern) if name else folder.rglob(pattern)):
            path.unlink(missing_ok=True)


def csv_cell(text: str) -> str:
    """Return the text of a csv cell so that no spreadsheet runs it as a formula.

    A text that begins like a formula gets an apostrophe in front. Numbers stay as they are.

    Example:
        >>> csv_cell("=1+1"), csv_cell("-0.5 0.2"), csv_cell("well")
        ("'=1+1", '-0.5 0.2', 'well')
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return text
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    return text if numbers else f"'{text}"


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, complete or not at all.

    Raises:
        DiskError, OSError: As :func:`complete_file` does.
    """
    with complete_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, complete or not at all; NaN and infinity are refused.

    Raises:
        DiskError, OSError: As :func:`complete_file` does.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
