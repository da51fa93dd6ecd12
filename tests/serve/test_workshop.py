"""The process that reads recordings: it may die, dawdle or swell, and only its job is lost."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from fakes.reader import FakeReader, LameReader
from fakes.served import TALK
from mmcl.serve import workshop as home
from mmcl.serve.jobs import Job, new_id
from mmcl.serve.limits import MIB, Limits
from mmcl.serve.meters import Meters
from mmcl.serve.store import RECORDING, Store
from mmcl.serve.workshop import Workshop, resident


def begin(runs, folder, *, make=FakeReader, **limits):
    store, meters, changes = Store(folder), Meters(), []
    shop = Workshop(
        {"talks": runs["talks"].folder},
        store,
        Limits(**limits),
        meters,
        lambda: changes.append(1),
        make=make,
    )
    shop.start()
    return SimpleNamespace(shop=shop, store=store, meters=meters, changes=changes)


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """A workshop whose jobs may take a second a stage and some memory; it is shared."""
    folder = tmp_path_factory.mktemp("shop") / "jobs"
    place = begin(runs, folder, stage_seconds=5.0, max_memory=900 * MIB)
    until(lambda: place.shop.is_ready)
    yield place
    place.shop.stop()
    place.store.close()


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def queue(place, content=TALK, name="talk.mp4"):
    job = Job(id=new_id(), model="talks", name=name, status="queued", created=time.time())
    (place.store.uploads / job.id).mkdir()
    (place.store.uploads / job.id / RECORDING).write_text(content)
    place.store.add(job)
    place.shop.wake()
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
    os.kill(place.shop.process_id, signal.SIGKILL)
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
    before = place.shop.process_id
    os.kill(before, signal.SIGKILL)
    until(lambda: place.shop.process_id not in (None, before))
    assert over(place, queue(place)).status == "done"


def test_stage_that_takes_too_long(place):
    began = time.monotonic()
    job = over(place, queue(place, f"hold 30\n{TALK}"))
    assert detail(job) == (
        '"talk.mp4" took more than 5 s in one stage (hearing the words), and was given up.\n'
        "  Send a shorter one."
    )
    assert 2.0 <= time.monotonic() - began < 15
    assert job.stages == ("opening the file",)


def test_time_counts_from_the_beginning_of_a_stage(place):
    """Two stages of 1.3 s each are within two seconds a stage."""
    assert over(place, queue(place, f"hold 1.3\n{TALK}")).status == "done"


def test_file_that_needs_too_much_memory(place):
    job = over(place, queue(place, "eat 1500"))
    assert detail(job) == (
        '"talk.mp4" needed more memory than a recording may have (hearing the words), and was '
        'given up.\n  Make it smaller: ffmpeg -i "talk.mp4" -vf scale=-2:720 smaller.mp4'
    )
    assert over(place, queue(place)).status == "done"


def test_job_cancelled_between_its_taking_and_its_end(place, tmp_path):
    identifier = queue(place, f"until {tmp_path / 'never'}")
    until(lambda: place.store.get(identifier).stage == "hearing the words")
    place.store.cancel(identifier)
    place.shop.cancel(identifier)
    assert over(place, queue(place)).status == "done"
    assert place.store.get(identifier).status == "cancelled"
    assert not (place.store.results / identifier).exists()


def test_stopping_puts_the_job_back_and_ends_the_process(runs, tmp_path):
    place = begin(runs, tmp_path / "jobs")
    running = queue(place, f"until {tmp_path / 'never'}")
    waiting = queue(place)
    until(lambda: place.store.get(running).stage == "hearing the words")
    process = place.shop.process_id
    place.shop.stop()
    jobs = [place.store.get(each) for each in (running, waiting)]
    assert [(job.status, job.position, job.attempts) for job in jobs] == [
        ("queued", 1, 0),
        ("queued", 2, 0),
    ]
    assert resident(process) == 0
    place.store.close()


def test_process_that_cannot_be_begun_is_told_to_who_waits(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(home, "_REST", 0.1)
    place = begin(runs, tmp_path / "jobs", make=LameReader)
    job = over(place, queue(place))
    assert (job.problem.status, detail(job)) == (
        503,
        "recordings cannot be read at the moment: the process for them does not start.\n"
        "  Its owner finds the reason in the service's log. Features are predicted all the same.",
    )
    assert not place.shop.is_ready
    place.shop.stop()
    place.store.close()
