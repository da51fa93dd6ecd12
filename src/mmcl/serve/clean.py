"""Where the processes of the service come from: a clean one that has imported everything.

This module imports little, so that ``mmcl serve`` can begin that process first of all and do its
own imports meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

__all__ = ["begin_imports", "clean_context", "end_with_parent"]

_PRELOADED = ["mmcl.serve.work", "mmcl.serve.apart"]


def clean_context() -> Any:
    """What makes a process without the threads and locks of this one.

    One that was ended is replaced in the time its models take to load, since the process it
    comes from has its imports behind it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def begin_imports() -> None:
    """Begin the process that :func:`clean_context` forks from, where there is one."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if clean_context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


def end_with_parent() -> None:
    """From now on this process ends as soon as the service does.

    A service that was killed cannot end it; and it must not go on alone.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
