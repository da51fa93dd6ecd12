"""One pool of worker processes for everything that is spread over the cores of this machine.

:func:`run_tasks` hands tasks to the workers and yields each one with its answer as it ends. With
``engine="ray"`` the same is done by the machines of a cluster (:mod:`mmcl.pool_ray`).

The library pebble (5.2.3) was tried and does not serve: it waits for ever if a worker exits with
code 0 during a task, and gives up all other tasks if a worker dies between two of them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple, TypeVar

from mmcl.errors import MMCLError, UsageError

__all__ = ["Died", "Engine", "check_workers", "clean_context", "end_with_parent", "run_tasks"]

Engine = Literal["local", "ray"]
"""Whose processes do the work: our own on this machine, or those of Ray."""

_LOOK_AGAIN = 1.0  # seconds between two calls of ``look``
_PATIENCE = 3.0  # seconds that a process has to end before it is killed

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")


class Died(NamedTuple):
    """Stands in place of an answer when the process that had the task has died, with the cause."""

    cause: str


def check_workers(workers: int, engine: Engine = "local") -> None:
    """Refuse more workers than this machine has cores; Ray counts those of all machines itself.

    Raises:
        UsageError: If there are fewer cores.
    """
    cores = os.cpu_count() or 1
    if engine == "local" and workers > cores:
        found = "1 core" if cores == 1 else f"{cores} cores"
        raise UsageError(
            f"--workers is {workers}, but this machine has {found}: each process needs one\n"
            f"  Use: --workers {cores}"
        )


def run_tasks(
    work: Callable[[_Task, int], _Answer],
    tasks: Sequence[_Task],
    *,
    workers: int,
    engine: Engine = "local",
    fresh: bool = False,
    gpus: int = 0,
    preload: Sequence[str] = (),
    look: Callable[[], None] | None = None,
) -> Generator[tuple[_Task, _Answer | Died]]:
    """Do every task in a worker process, and yield it with its answer as soon as it ends.

    If a worker dies, only its own task is lost (Ray tries that task again). Closing the
    generator stops the tasks that are running; so do Ctrl-C and the death of this process.

    Args:
        work: Called in a worker as ``work(task, threads)``, with the worker's share of the
            cores. It is a function of a module, or a partial of one.
        tasks: Begun in this order.
        workers: Processes at a time. The cores are shared out evenly between them.
        engine: Whose processes.
        fresh: Give every task a process that has done none before.
        gpus: GPUs that a task has to itself; with Ray alone.
        preload: Modules that every task imports, beside that of ``work``: imported once for all.
        look: Called about once a second and whenever a task ends.

    Raises:
        MissingExtraError: If Ray is asked for and not installed.
        UsageError: If no cluster answers where ``RAY_ADDRESS`` says there is one.
        ConfigError: If a GPU is asked for and no machine of Ray's has one.
        Exception: Whatever ``work`` raised. The other tasks are then stopped.
    """
    if not tasks:
        return
    if engine == "ray":
        from mmcl.pool_ray import run_on_ray

        yield from run_on_ray(work, tasks, workers, fresh, gpus, look)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    module = getattr(work, "func", work).__module__  # of a partial or of the function itself
    start = partial(_Worker, clean_context([module, *preload]), work, threads)
    waiting = deque(tasks)
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                # An idle worker's connection has something to read only when it has died.
                idle = [worker for worker in idle if not worker.connection.poll()]
                busy.append(idle.pop() if idle else start())
                busy[-1].begin(waiting.popleft())
            ready = wait([worker.connection for worker in busy], timeout=_LOOK_AGAIN)
            for worker in [worker for worker in busy if worker.connection in ready]:
                answer = worker.answer()
                busy.remove(worker)
                if fresh or isinstance(answer, Died):
                    _stop([worker])
                else:
                    idle.append(worker)
                yield worker.task, answer
            if look is not None:
                look()
    finally:
        _stop([*idle, *busy])


class _Worker:
    """A process that does one task at a time, as its parent sees it."""

    def __init__(self, context: Any, work: Callable[..., Any], threads: int) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, work, threads, dict(os.environ)), daemon=True
        )
        with _interrupts_held_back():
            self.process.start()
        theirs.close()  # only the child holds the other end: we read end-of-file when it dies
        self.task: Any = None
        self.is_at_work = False

    def begin(self, task: Any) -> None:
        self.task, self.is_at_work = task, True
        with suppress(BrokenPipeError):  # its death is read in place of an answer
            self.connection.send(task)

    def answer(self) -> Any:
        """Return the answer that has come, or :class:`Died`; raise what the task raised."""
        try:
            answer, fault = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            return Died(f"its process died ({_describe_exit(self.process.exitcode)})")
        self.is_at_work = False
        if fault is not None:
            raise fault
        return answer


def _stop(workers: Sequence[_Worker]) -> None:
    """End processes: busy ones are terminated; idle ones exit when their connection closes."""
    for worker in workers:
        worker.connection.close()
        if worker.is_at_work:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_PATIENCE)
        worker.process.kill()
        worker.process.join()


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    causes = {
        "SIGKILL": "; memory may have run out",
        "SIGBUS": "; a file that it read was cut short, or the disk is full",
    }
    return f"signal {name}{causes.get(name, '')}"


# ---------------------------------------------------------------- in a worker


def _serve(
    connection: Connection, work: Callable[..., Any], threads: int, environment: dict[str, str]
) -> None:
    """Do one task after another, until the parent has no more of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    end_with_parent()
    # A process of the fork server has the environment in which the server was started.
    os.environ.update(environment)
    _take_share_of_cores(threads)
    with suppress(EOFError, BrokenPipeError):  # the parent has closed its end
        while True:
            connection.send_bytes(_pickled_answer(work, connection.recv(), threads))


def _pickled_answer(work: Callable[..., Any], task: Any, threads: int) -> bytes:
    """Do a task; return its answer and None, or None and what it raised."""
    try:
        return pickle.dumps((work(task, threads), None))
    except Exception as fault:
        if not isinstance(fault, MMCLError):  # ours say all in their text
            fault.add_note(f"Raised in a worker process:\n{traceback.format_exc()}")
        try:
            pickled = pickle.dumps((None, fault))
            pickle.loads(pickled)
        except Exception:  # some exceptions of libraries cannot be sent
            return pickle.dumps((None, RuntimeError(traceback.format_exc())))
        return pickled


def _take_share_of_cores(threads: int) -> None:
    """Let numerical libraries use so many threads, unless the user has said something else."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:  # it has read the variable already
            sys.modules["torch"].set_num_threads(threads)


# ---------------------------------------------------------------- clean processes


def clean_context(preload: Sequence[str] = ()) -> Any:
    """Return the multiprocessing context whose processes share no threads or locks with this one.

    They are forked from a clean server process that has imported the modules named in
    ``preload``, so that one that died is replaced quickly; without a fork server they are spawned.
    """
    # The processes read this as they load OpenMP: threads that wait then sleep and do not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts: only this one receives it, when the block ends.

    The mask is inherited. Without it a process that is still importing would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it resets the mask when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this worker process as soon as the process that started it is gone.

    Whoever killed the parent cannot end its workers, and nobody waits for them now. A thread
    waits for the parent's end. A library that holds the interpreter's lock stops the thread, so
    the system is asked for a signal too; on Linux it ends a process without the lock.
    """
    parent = parent_process()
    if parent is None:
        return
    if hasattr(os, "O_ASYNC"):
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
