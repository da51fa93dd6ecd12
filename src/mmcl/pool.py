"""Work spread over processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

__all__ = ["clean_context", "end_with_parent"]


def clean_context(preload: Sequence[str] = ()) -> Any:
    """Return the multiprocessing context whose processes share no threads or locks with this one.

    They are forked from a clean server process that has imported ``preload``, so that one that
    died is replaced quickly; where there is no fork server they are spawned.

    Args:
        preload: Names of modules that the server process imports once.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def end_with_parent() -> None:
    """End this worker process as soon as the process that started it is gone."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        # Whoever killed the parent cannot end its workers, and nobody waits for them now.
        os._exit(1)
