"""One command at a time for an output: probed before any work, and locked until its end."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmcl.errors import BusyError, DiskError
from mmcl.files import disk_error, make_folder, remove_unfinished

__all__ = ["LOCK", "hold_output", "take_lock"]

LOCK = ".lock"
"""End of the name of a lock: of a folder's own, in the folder, or of a file, beside it."""


@contextmanager
def hold_output(path: Path, *, is_folder: bool = False, kept: str = "*") -> Iterator[None]:
    """Context in which this command alone writes an output: probed first, and locked.

    Before any work it is certain that the output can be written. What a killed process left of
    it is removed. The lock is a file beside the output, or in it if it is a folder. It ends with
    the process, however that ends.

    Args:
        path: The file or folder that the block writes.
        is_folder: Whether it is a folder.
        kept: Name of the files that are worth keeping. If the block fails, a folder that was made
            here and holds none of them is removed.

    Raises:
        BusyError: If another command writes it now.
        DiskError: If nothing can be written there.
    """
    if _is_further_process():  # the first one holds it for all
        yield
        return
    folder = path if is_folder else path.parent
    name = folder / (LOCK if is_folder else f".{path.name}{LOCK}")
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        if path.is_dir() and not is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        make_folder(folder)
        lock = _hold(name, path)
    except OSError as fault:
        reason = disk_error(fault, path)
        raise reason or DiskError(
            f"{path}: nothing can be written there ({fault.strerror or fault})",
            "Give a place where you may write.",
        ) from None
    try:
        remove_unfinished(folder, "" if is_folder else f"{path.name}.")
        yield
    except Exception:
        if is_folder and folder in new and not any(p.is_file() for p in folder.rglob(kept)):
            with suppress(OSError):  # somebody removed it meanwhile
                _empty(folder, but=name)
        raise
    finally:
        name.unlink(missing_ok=True)
        lock.close()
        with suppress(OSError):  # something was written into it
            for place in new:
                place.rmdir()


def _empty(folder: Path, *, but: Path) -> None:
    """Remove what a folder holds, except one file."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != but:
            path.unlink(missing_ok=True)


def _is_further_process() -> bool:
    """True in all processes of one training but the first, which Fabric or torchrun counts."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0"


def _hold(name: Path, output: Path) -> IO[bytes]:
    """Take the lock of an output, and write into it who holds it."""
    while True:
        lock = name.open("a+b")
        if not take_lock(lock):
            lock.seek(0)
            holder = lock.read(1000).decode(errors="replace").strip() or "another process"
            lock.close()
            raise BusyError(
                f"{output}: another command is writing it: {holder}.\n"
                "  Wait until it has ended, or give another: --out"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                break
        lock.close()  # its holder removed it after we had opened it
    lock.truncate(0)
    lock.write(_this_process().encode(errors="replace"))
    lock.flush()
    return lock


def _this_process() -> str:
    """Return number, machine, command and start of this process, for whoever waits for it."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})"


def take_lock(lock: IO[bytes]) -> bool:
    """Take the lock of an open file until it is closed; return whether nobody else has it.

    Where there are no such locks (Windows, some file systems) everybody gets it.
    """
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True
