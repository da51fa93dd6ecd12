"""Work for processes of a pool, ours or Ray's; importable by a process of its own."""

import ctypes
import os
import signal
import time
from pathlib import Path

from mmcl.errors import DatasetError


class StubbornError(Exception):
    """An exception that cannot be unpickled, as some libraries have them."""

    def __init__(self, first, second):
        super().__init__(first)


def scale(task, threads):
    """The task times its share of the cores; a word is refused."""
    if isinstance(task, str):
        raise DatasetError(f'"{task}" is no number.\n  Give a number.')
    return task * threads


def fail(task, threads):
    """A fault that is not of ours."""
    raise RuntimeError(f"{task}: a library has a fault")


def behave(task, threads):
    """Do what the task says, or return the id of this process."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "leave":
        os._exit(0)
    elif task == "quit":
        os._exit(3)
    elif task == "refuse":
        raise DatasetError("it is refused.\n  Give another.")
    elif task == "stubborn":
        raise StubbornError("it does not bend", 2)
    elif task == "lambda":
        return lambda: None
    return os.getpid()


def nap(seconds, threads):
    """Sleep for so long."""
    time.sleep(seconds)


def sign_and_sleep(folder, threads):
    """Leave a file named like this process, and sleep for a minute."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def threads_of_libraries(task, threads):
    """The share of the cores as it is given, as the environment says it, and as torch has it."""
    import torch

    return threads, os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def sign_and_hold_the_lock(folder, threads):
    """Leave a file named like this process, and let no other thread of it run for a minute."""
    (Path(folder) / str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(60)
