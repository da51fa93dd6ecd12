"""The pool of workers: what a death costs, what is raised, and that nothing outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from fakes.tasks import behave, fail, nap, scale, sign_and_sleep, threads_of_libraries
from mmcl import pool
from mmcl.errors import DatasetError
from mmcl.pool import Died, run_tasks

LONGEST_WAIT = 30
KILLED = Died("its process died (signal SIGKILL; memory may have run out)")


def _wait_for(condition):
    deadline = time.monotonic() + LONGEST_WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_every_task_comes_with_its_answer(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    ended = list(run_tasks(scale, [5, 7, 11], workers=2))
    assert sorted(ended) == [(5, 15), (7, 21), (11, 33)]
    assert list(run_tasks(scale, [], workers=2)) == []
    assert list(run_tasks(scale, [1], workers=9)) == [(1, 1)]  # a core is the least


def test_answers_come_in_the_order_in_which_tasks_end():
    ended = run_tasks(nap, [1.5, 0.01, 0.02, 0.03], workers=2)
    assert [task for task, _ in ended] == [0.01, 0.02, 0.03, 1.5]


def test_one_worker_does_tasks_in_their_order():
    tasks = [0.05, 0.001, 0.02]
    assert [task for task, _ in run_tasks(nap, tasks, workers=1)] == tasks


def test_dead_worker_costs_its_own_task_alone():
    tasks = ["a", "die", "b", "leave", "c", "quit", "d"]
    ended = dict(run_tasks(behave, tasks, workers=2))
    assert ended.keys() == set(tasks)
    assert ended["die"] == KILLED
    assert ended["leave"] == Died("its process died (exit code 0)")
    assert ended["quit"] == Died("its process died (exit code 3)")
    assert all(isinstance(ended[task], int) for task in "abcd")


def test_worker_that_dies_between_two_tasks_costs_none():
    ended = run_tasks(behave, ["a", "b"], workers=1)
    _, pid = next(ended)
    os.kill(pid, signal.SIGKILL)
    _wait_for(lambda: not Path(f"/proc/{pid}").exists())  # all its threads are gone
    assert next(ended)[1] not in (pid, KILLED)


def test_fresh_gives_every_task_a_process_of_its_own():
    kept = [pid for _, pid in run_tasks(behave, "abc", workers=1)]
    fresh = [pid for _, pid in run_tasks(behave, "abc", workers=1, fresh=True)]
    assert (len(set(kept)), len(set(fresh))) == (1, 3)


def test_cores_are_shared_out_once(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [a for _, a in run_tasks(threads_of_libraries, [1], workers=2)] == [(1, "1", 1)]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the user's word wins
    ((_, answer),) = run_tasks(threads_of_libraries, [1], workers=2)
    assert answer[:2] == (1, "2")


def test_torch_that_was_loaded_with_the_server_takes_its_share(monkeypatch):
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    pool._take_share_of_cores(2)
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    pool._take_share_of_cores(2)
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "2")


def test_look_is_called_while_a_task_is_long():
    looks = []
    list(run_tasks(nap, [1.2], workers=1, look=lambda: looks.append(time.monotonic())))
    assert len(looks) == 2


# ---------------------------------------------------------------- what goes wrong


def test_own_error_is_raised_with_its_text_and_stops_the_others(tmp_path):
    ended = run_tasks(partial(_sleep_unless_refused, str(tmp_path)), ["sleep", "refuse"], workers=2)
    with pytest.raises(DatasetError) as caught:
        list(ended)
    assert str(caught.value) == "it is refused.\n  Give another."
    assert not hasattr(caught.value, "__notes__")
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    assert not _is_alive(pid)


def _sleep_unless_refused(folder, task, threads):
    if task == "sleep":
        return sign_and_sleep(folder, threads)
    _wait_for(lambda: list(Path(folder).iterdir()))
    return behave(task, threads)


def test_other_exceptions_are_raised_and_say_where():
    with pytest.raises(RuntimeError, match="one: a library has a fault") as caught:
        list(run_tasks(fail, ["one"], workers=1))
    assert "in fail" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("task", "words"), [("stubborn", "StubbornError: it does not bend"), ("lambda", "pickle")]
)
def test_what_cannot_be_sent_home_is_told_in_words(task, words):
    with pytest.raises(Exception, match=words):
        list(run_tasks(behave, [task], workers=1))


def test_closing_ends_what_is_in_work(tmp_path):
    ended = run_tasks(partial(_sleep_after_first, str(tmp_path)), [0, 1], workers=2)
    next(ended)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 1
    assert _is_alive(pids[0])
    started = time.monotonic()
    ended.close()
    assert not _is_alive(pids[0])
    assert time.monotonic() - started < 4  # at once, and not when its patience is over


def _sleep_after_first(folder, task, threads):
    if task:
        sign_and_sleep(folder, threads)
    _wait_for(lambda: list(Path(folder).iterdir()))


# ---------------------------------------------------------------- the end of the parent

SCRIPT = """
import signal
import sys
from fakes.tasks import sign_and_hold_the_lock, sign_and_sleep
from mmcl.pool import run_tasks

if __name__ == "__main__":
    # A job that a shell runs in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(run_tasks(WORK, [sys.argv[1]] * 2, workers=2))
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.fixture(params=["sign_and_sleep", "sign_and_hold_the_lock"])
def parent(tmp_path, request):
    """A process with two workers that are busy for a minute; its session is its own."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("WORK", request.param))
    signs = tmp_path / "signs"
    signs.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(signs)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait_for(lambda: len(list(signs.iterdir())) == 2)
    process.workers = [int(path.name) for path in signs.iterdir()]
    yield process
    process.kill()
    process.communicate()


def test_workers_end_when_their_parent_is_killed(parent):
    assert all(_is_alive(pid) for pid in parent.workers)
    parent.kill()
    parent.wait()
    killed = time.monotonic()
    _wait_for(lambda: not any(_is_alive(pid) for pid in parent.workers))
    assert time.monotonic() - killed < 5


def test_interrupt_from_the_keyboard_ends_all_without_a_traceback(parent):
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    out, err = parent.communicate(timeout=LONGEST_WAIT)
    assert (parent.returncode, out, err) == (0, "stopped\n", "")
    assert not any(_is_alive(pid) for pid in parent.workers)


@pytest.mark.parametrize("seconds", [0.15, 0.3])
def test_interrupt_while_workers_start_prints_no_traceback(tmp_path, seconds):
    (tmp_path / "script.py").write_text(
        SCRIPT.replace("WORK", "sign_and_sleep").replace(
            "    try:", "    try:\n        print(1, flush=True)"
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "1\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LONGEST_WAIT)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
