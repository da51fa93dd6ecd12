"""The worker that reads recordings may die, be slow or need much memory: only its job fails."""

import asyncio
import os
import signal
import threading
import time

import pytest

from fakes.loops import run_apart
from fakes.reader import FakeReader, LameReader
from fakes.served import TALK
from mmcl.errors import DiskError
from mmcl.serve import job_runner
from mmcl.serve.counters import Counters
from mmcl.serve.job_runner import JobRunner
from mmcl.serve.jobs import Job, new_id
from mmcl.serve.limits import MIB, Limits
from mmcl.serve.store import RECORDING, Store


class Place:
    """A runner in an event loop of its own, and its store."""

    def __init__(self, runs, folder, *, make_reader=FakeReader, **limits):
        self.store = Store(folder)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.runner = JobRunner(
            {"talks": runs["talks"].folder},
            self.store,
            Limits(**limits),
            Counters(),
            lambda: None,
            make_reader=make_reader,
        )
        self.running = asyncio.run_coroutine_threadsafe(self.runner.run(), self.loop)

    @property
    def worker(self):
        return self.runner.worker

    def do(self, function, *arguments):
        """Call something in the loop, as the service does."""
        called = threading.Event()
        result = []

        def call():
            result.append(function(*arguments))
            called.set()

        self.loop.call_soon_threadsafe(call)
        assert called.wait(10)
        return result[0]

    def stop(self):
        self.running.cancel()
        until(lambda: not self.do(asyncio.all_tasks, self.loop))
        self.do(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def close(self):
        self.stop()
        self.store.close()


class Idle:
    """A worker that is ready and has nothing to do."""

    is_ready = True
    memory = 0

    async def stop(self):
        pass


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """A runner whose jobs may take five seconds a stage and some memory; it is shared."""
    folder = tmp_path_factory.mktemp("shop") / "jobs"
    place = Place(runs, folder, stage_seconds=5.0, max_memory=900 * MIB)
    until(lambda: place.worker.is_ready)
    yield place
    place.close()


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def queue(place, content=TALK, name="talk.mp4"):
    job = Job(id=new_id(), model="talks", name=name, status="queued", created=time.time())
    (place.store.uploads / job.id).mkdir()
    (place.store.uploads / job.id / RECORDING).write_text(content)
    place.do(place.store.add, job)
    place.do(place.runner.wake)
    return job.id


def over(place, identifier):
    until(lambda: place.store.get(identifier).is_over)
    return place.store.get(identifier)


def detail(job):
    assert job.status == "failed"
    return job.problem.detail


def test_killed_process_fails_its_job_and_the_next_one_works(place, tmp_path):
    identifier = queue(place, f"until {tmp_path / 'never'}")
    until(lambda: place.store.get(identifier).stage == "hearing the words")
    os.kill(place.worker.process_id, signal.SIGKILL)
    job = over(place, identifier)
    assert (job.problem.status, detail(job)) == (
        422,
        '"talk.mp4" ended the process that read it (hearing the words; signal SIGKILL).\n'
        "  The file may be damaged. Copy, download or record it again.",
    )
    assert over(place, queue(place)).status == "done"


def test_file_that_crashes_a_library(place):
    assert "signal SIGSEGV" in detail(over(place, queue(place, "die")))
    assert over(place, queue(place)).status == "done"


def test_idle_process_that_dies_is_begun_again(place):
    assert over(place, queue(place)).status == "done"
    before = place.worker.process_id
    os.kill(before, signal.SIGKILL)
    until(lambda: place.worker.process_id not in (None, before))
    assert over(place, queue(place)).status == "done"


def test_stage_that_takes_too_long(place):
    began = time.monotonic()
    job = over(place, queue(place, f"hold 30\n{TALK}"))
    assert detail(job) == (
        '"talk.mp4" took more than 5 s in one stage (hearing the words).\n  Send a shorter one.'
    )
    assert 2.0 <= time.monotonic() - began < 15
    assert job.stages == ("opening the file",)


def test_time_counts_from_the_beginning_of_a_stage(place):
    """Two stages of 1.3 s each are within two seconds a stage."""
    assert over(place, queue(place, f"hold 1.3\n{TALK}")).status == "done"


def test_file_that_needs_too_much_memory(place):
    job = over(place, queue(place, "eat 1500"))
    assert detail(job) == (
        '"talk.mp4" needs more memory than a recording may use (hearing the words).\n'
        '  Make it smaller: ffmpeg -i "talk.mp4" -vf scale=-2:720 smaller.mp4'
    )
    assert over(place, queue(place)).status == "done"


def test_job_cancelled_between_its_taking_and_its_end(place, tmp_path):
    identifier = queue(place, f"until {tmp_path / 'never'}")
    until(lambda: place.store.get(identifier).stage == "hearing the words")
    place.do(place.store.cancel, identifier)
    place.do(place.runner.cancel, identifier)
    assert over(place, queue(place)).status == "done"
    assert place.store.get(identifier).status == "cancelled"
    assert not (place.store.results / identifier).exists()


def test_job_cancelled_and_removed_while_it_runs(place, tmp_path):
    identifier = queue(place, f"until {tmp_path / 'never'}")
    until(lambda: place.store.get(identifier).stage == "hearing the words")

    def cancel_and_remove():
        place.store.cancel(identifier)
        place.runner.cancel(identifier)
        place.store.forget(identifier)

    place.do(cancel_and_remove)
    assert over(place, queue(place)).status == "done"


def test_stopping_puts_the_job_back_and_ends_the_process(runs, tmp_path):
    place = Place(runs, tmp_path / "jobs")
    running = queue(place, f"until {tmp_path / 'never'}")
    waiting = queue(place)
    until(lambda: place.store.get(running).stage == "hearing the words")
    assert place.worker.memory > 0
    place.stop()
    jobs = [place.store.get(each) for each in (running, waiting)]
    assert [(job.status, job.position, job.attempts) for job in jobs] == [
        ("queued", 1, 0),
        ("queued", 2, 0),
    ]
    assert (place.worker.memory, place.worker.is_ready) == (0, False)
    place.store.close()


@pytest.mark.parametrize("steps", range(6))
def test_stopping_is_heard_at_whatever_step_of_the_loop(runs, tmp_path, steps):
    """A job was queued while the worker was busy, so the runner need not wait for the next."""

    async def stop_after(steps):
        runner = JobRunner({}, store, Limits(), Counters(), lambda: None, make_reader=FakeReader)
        runner.worker = Idle()
        runner.wake()
        running = asyncio.create_task(runner.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running}, timeout=10)
        return running.cancelled()

    store = Store(tmp_path / "jobs")
    assert run_apart(stop_after(steps))
    store.close()


def test_worker_that_does_not_start_fails_the_jobs_that_wait(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.1)
    place = Place(runs, tmp_path / "jobs", make_reader=LameReader)
    job = over(place, queue(place))
    assert (job.problem.status, detail(job)) == (
        503,
        "recordings cannot be read at the moment: the process for them does not start.\n"
        "  The reason is in the service's log. Features are predicted all the same.",
    )
    assert not place.worker.is_ready
    place.close()


def test_job_is_done_as_soon_as_a_full_disk_has_room_again(runs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.1)
    full = iter(["take", "finish", "put_back"])
    moment = next(full)

    def fill(name):
        original = getattr(Store, name)

        def once(store, *words):
            nonlocal moment
            if moment == name:
                moment = next(full, None)
                raise DiskError("jobs.sqlite: the disk is full", "Free some space.")
            return original(store, *words)

        monkeypatch.setattr(Store, name, once)

    for name in ("take", "finish", "put_back"):
        fill(name)
    place = Place(runs, tmp_path / "jobs")
    assert over(place, queue(place)).status == "done"
    assert moment is None
    assert sum("the disk is full" in text for text in caplog.messages) == 3
    place.close()
