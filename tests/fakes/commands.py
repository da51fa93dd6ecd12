"""Commands in processes of their own, to be stopped at any moment."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_WAIT = 120


@contextmanager
def started(*words, cwd=None, **environment):
    """A command that has begun; it and its children are a session of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmcl", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for pid in family(process):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, 9)
        process.communicate()


def family(process):
    """Return the processes that live in the session of a command."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            alive.append(int(folder.name))
    return alive


def wait_for(condition, process=None, seconds=LONGEST_WAIT):
    """Wait until something is so, while the command runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")
        time.sleep(0.02)
