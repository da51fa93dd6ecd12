"""The process that predicts recordings, alone: how it holds its memory."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, tempfile, threading
from pathlib import Path
from mmcl.serve import recording_worker

library = ctypes.CDLL("libc.so.6")
library.malloc.restype = library.fopen.restype = ctypes.c_void_p

def heaps():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "heaps.xml")
        file = ctypes.c_void_p(library.fopen(bytes(path), b"w"))
        library.malloc_info(0, file)
        library.fclose(file)
        return path.read_text().count("<heap nr=")

if sys.argv[1] == "shared":
    recording_worker._share_one_heap()
before = heaps()  # libraries begin threads as they are imported
everyone_is_here = threading.Barrier(8)

def allocate():
    library.malloc(64)
    everyone_is_here.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(heaps() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heaps of glibc")
@pytest.mark.parametrize(("how", "more"), [("shared", [0]), ("as it comes", range(1, 9))])
def test_new_threads_share_a_heap(how, more):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=120
    )
    assert done.stdout, done.stderr
    assert int(done.stdout) in more
