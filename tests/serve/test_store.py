"""Jobs on the disk: an order that is kept, a last status that stays, nothing left behind."""

import shutil
import sqlite3
import time

import pytest

from mmcl.errors import DiskError, UsageError
from mmcl.serve.jobs import Job, new_id
from mmcl.serve.problems import Problem, ServiceError
from mmcl.serve.store import RECORDING, Store

WRONG = Problem(type="urn:mmcl:media-error", title="t", status=422, detail="why")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "jobs"


@pytest.fixture
def store(folder):
    store = Store(folder)
    yield store
    store.close()


def queue(store, name="talk.mp4", model="talks", **changes):
    """A job as the service queues it: its upload first."""
    job = Job(id=new_id(), model=model, name=name, status="queued", created=time.time(), **changes)
    (store.uploads / job.id).mkdir()
    (store.uploads / job.id / RECORDING).write_bytes(b"film")
    return store.add(job)


def reopened(store):
    """Jobs that another service finds in the folder; the first one is as good as killed."""
    store.close()
    return Store(store.folder)


def test_jobs_are_taken_in_the_order_they_came(store):
    first, second, third = queue(store), queue(store, language="es"), queue(store)
    assert [store.get(each.id).position for each in (first, second, third)] == [1, 2, 3]
    taken = store.take()
    assert (taken.id, taken.status, taken.attempts, taken.position) == (
        first.id,
        "running",
        1,
        None,
    )
    assert store.get(third.id).position == 2
    assert store.take().language == "es"
    assert [store.take().id, store.take()] == [third.id, None]


def test_stages_are_kept_in_their_order_and_once(store):
    job = queue(store)
    store.take()
    for stage in ("opening", "hearing", "opening", "predicting"):
        store.note_stage(job.id, stage)
    now = store.get(job.id)
    assert (now.stage, now.stages) == ("predicting", ("opening", "hearing"))
    store.finish(job.id)
    now = store.get(job.id)
    assert (now.status, now.stage) == ("done", None)
    assert now.stages == ("opening", "hearing", "predicting")
    assert now.created <= now.started <= now.ended


@pytest.mark.parametrize("last", ["finish", "fail", "cancel"])
def test_last_status_stays_and_the_upload_goes(store, last):
    job = queue(store)
    store.take()
    if last == "fail":
        store.fail(job.id, WRONG)
    else:
        getattr(store, last)(job.id)
    status = store.get(job.id).status
    assert status == {"finish": "done", "fail": "failed", "cancel": "cancelled"}[last]
    assert not (store.uploads / job.id).exists()
    store.finish(job.id)
    store.fail(job.id, WRONG)
    store.put_back(job.id)
    store.note_stage(job.id, "late")
    assert not store.cancel(job.id)
    now = store.get(job.id)
    assert (now.status, now.stage) == (status, None)
    assert now.problem == (WRONG if last == "fail" else None)


def test_a_queued_job_is_not_done(store):
    job = queue(store)
    store.finish(job.id)
    assert store.get(job.id).status == "queued"


def test_put_back_job_is_as_if_never_begun(store):
    job, later = queue(store), queue(store)
    store.take()
    store.note_stage(job.id, "opening")
    store.put_back(job.id)
    now = store.get(job.id)
    assert (now.status, now.attempts, now.stage, now.stages) == ("queued", 0, None, ())
    assert (now.position, store.get(later.id).position) == (1, 2)


def test_no_such_job(store):
    with pytest.raises(ServiceError) as caught:
        store.get("nobody")
    assert str(caught.value) == (
        'no job "nobody": it was removed, its result is too old, or it never was.\n'
        "  Send the recording again: POST /v1/predict"
    )
    assert caught.value.status == 404


def test_forgotten_job_leaves_nothing(store):
    job = queue(store)
    (store.results / job.id).mkdir()
    store.forget(job.id)
    assert [*store.uploads.iterdir(), *store.results.iterdir()] == []
    with pytest.raises(ServiceError):
        store.get(job.id)


def test_a_running_job_is_begun_again_once_and_in_its_place(store):
    running, waiting = queue(store), queue(store)
    store.take()
    store.note_stage(running.id, "hearing")
    again = reopened(store)
    again.recover(["talks"])
    now = again.get(running.id)
    assert (now.status, now.position, now.stage, now.started) == ("queued", 1, None, None)
    assert again.get(waiting.id).position == 2
    again.take()
    last = reopened(again)
    last.recover(["talks"])
    now = last.get(running.id)
    assert now.status == "failed"
    assert now.problem.detail == (
        '"talk.mp4": the service ended twice while it worked on it, and does not try again.\n'
        "  If it was stopped by hand, send the recording again: POST /v1/predict"
    )
    assert last.get(waiting.id).position == 1
    assert [path.name for path in last.uploads.iterdir()] == [waiting.id]
    last.close()


def test_what_cannot_be_taken_up_is_failed_with_its_reason(store):
    lost, other, fine = queue(store), queue(store, model="gone"), queue(store)
    (store.uploads / lost.id / RECORDING).unlink()
    again = reopened(store)
    again.recover(["talks", "films"])
    details = [again.get(each.id).problem.detail for each in (lost, other)]
    assert details == [
        '"talk.mp4": the service was stopped and the recording is gone.\n'
        "  Send the recording again: POST /v1/predict",
        '"talk.mp4": the service was started again without the model "gone".\n'
        "  Send it again, to one of GET /v1/models",
    ]
    assert again.get(fine.id).status == "queued"
    again.close()


def test_recovery_removes_what_belongs_to_no_job(store):
    done, waiting = queue(store), queue(store)
    store.take()
    (store.results / done.id).mkdir()
    store.finish(done.id)
    for stray in (store.uploads / "stray", store.results / ".unfinished", store.results / "old"):
        stray.mkdir()
    (store.results / waiting.id).mkdir()  # written by a service that was killed at once after
    again = reopened(store)
    again.recover(["talks"])
    assert [path.name for path in again.uploads.iterdir()] == [waiting.id]
    assert [path.name for path in again.results.iterdir()] == [done.id]
    again.close()


def test_old_jobs_go_and_others_stay(store):
    old, new = queue(store), queue(store)
    store.take()
    (store.results / old.id).mkdir()
    store.finish(old.id)
    assert store.expire(60) == 0
    assert store.expire(-1) == 1
    assert not (store.results / old.id).exists()
    assert (store.get(new.id).status, store.count("queued"), store.count("done")) == (
        "queued",
        1,
        0,
    )


@pytest.fixture
def clock(monkeypatch):
    """The system's clock, which is put forwards and back: ``clock[0] -= 3600``."""
    now = [1.9e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_clock_that_jumps_changes_neither_order_nor_status(store, clock):
    jobs = []
    for jump in (0, -1e6, 2e6, -3e6):
        clock[0] += jump
        jobs.append(queue(store))
    assert [store.get(job.id).position for job in jobs] == [1, 2, 3, 4]
    for job in jobs:
        assert store.take().id == job.id
        clock[0] -= 1000
        store.finish(job.id)
        clock[0] += 5000
        now = store.get(job.id)
        assert (now.status, now.ended - now.started) == ("done", -1000)
    assert store.take() is None


def test_clock_that_jumps_removes_only_jobs_that_have_ended(store, clock):
    queued, running, cancelled = queue(store), queue(store), queue(store)
    store.take(), store.take()
    store.put_back(queued.id)
    store.cancel(cancelled.id)
    clock[0] += 1e7
    assert store.expire(3600) == 1
    assert [store.get(job.id).status for job in (queued, running)] == ["queued", "running"]


def test_clock_that_is_put_back_keeps_no_result_for_years(store, clock):
    job = queue(store)
    store.take()
    clock[0] += 1e8  # three years, until the right time is known
    store.finish(job.id)
    clock[0] -= 1e8
    assert store.expire(3600) == 0
    clock[0] += 3599
    assert store.expire(3600) == 0
    clock[0] += 2
    assert store.expire(3600) == 1


def test_folder_belongs_to_one_service_and_one_user(store, folder):
    with pytest.raises(UsageError) as caught:
        Store(folder)
    assert str(caught.value) == (
        f"{folder}: another mmcl serve keeps its jobs here.\n  Give another folder: --state DIR"
    )
    assert folder.stat().st_mode & 0o077 == 0
    assert store.uploads.stat().st_mode & 0o077 == 0


class FullDisk:
    """A database on a disk that has no room."""

    def execute(self, *_):
        raise sqlite3.OperationalError("database or disk is full")


def test_list_of_jobs_on_a_full_disk_says_so_and_works_when_there_is_room(store, monkeypatch):
    job = queue(store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_rows", FullDisk())
        with pytest.raises(DiskError) as caught:
            store.finish(job.id)
    problem = f"{store.folder / 'jobs.sqlite'}: the disk is full (No space left on device)"
    assert caught.value.problem == problem
    assert store.take().id == job.id


def test_job_is_on_the_disk_before_its_client_is_told_of_it(store):
    full = 2  # what SQLite calls a commit that waits for the disk
    assert store._rows.execute("pragma synchronous").fetchone()[0] == full


def test_folder_that_was_removed_is_made_again_without_its_jobs(store, folder, caplog):
    queue(store)
    store.restore()
    assert (store.count("queued"), caplog.messages) == (1, [])
    shutil.rmtree(folder)
    store.restore()
    assert store.count("queued") == 0
    assert store.get(queue(store).id).position == 1
    assert caplog.messages == [f"{folder} was removed while it was in use; its jobs are lost"]


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        Store(tmp_path / "file" / "jobs")
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'jobs'}: no jobs can be kept here (Not a directory).\n"
        "  Give a folder you may write to: --state DIR"
    )


def test_rows_that_are_none(folder):
    folder.mkdir(parents=True)
    (folder / "jobs.sqlite").write_bytes(b"these are no rows" * 100)
    with pytest.raises(UsageError) as caught:
        Store(folder)
    assert str(caught.value) == (
        f"{folder / 'jobs.sqlite'}: not a list of jobs (file is not a database).\n"
        "  Give another folder: --state DIR"
    )
