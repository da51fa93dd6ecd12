"""A record of what is forced to the disk and what gets its name, in order."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def recorded(monkeypatch):
    """Yield ``("sync", path)`` and ``("name", path)`` for every fsync and every renaming."""
    steps = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle):
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        sync(handle)

    def note_name(source, target):
        steps.append(("name", Path(target)))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", note_sync)
        patch.setattr(os, "replace", note_name)  # Path.replace calls it
        yield steps
