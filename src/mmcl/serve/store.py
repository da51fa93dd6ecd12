"""Jobs on the disk: their uploads, their state and their results, also after a crash.

::

    STATE/jobs.sqlite         a row per job
    STATE/uploads/<id>/       a recording and its transcript, until the job ends
    STATE/results/<id>/       result.json, .csv, .means.csv, .srt and .html, until they are too old
    STATE/lock                held while a service uses the folder

A row is written when its upload is complete, and a job is done when its results are in their
place. So a service that is killed at any moment leaves jobs that can be run again, and no half
results.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from mmcl.errors import DiskError, UsageError
from mmcl.files import disk_errors
from mmcl.outputs import take_lock
from mmcl.serve.jobs import Job
from mmcl.serve.problems import Problem, ServiceError, problem_of

__all__ = ["RECORDING", "Store"]

_log = logging.getLogger("mmcl.serve")

RECORDING = "recording"
"""Name of an upload on the disk, whatever its own name."""

_MAX_ATTEMPTS = 2  # a job during which the service ended twice may be the reason
_SEND_AGAIN = "Send the recording again: POST /v1/predict"

_SCHEMA = """
create table if not exists jobs (
    number integer primary key autoincrement,
    id text not null unique,
    model text not null,
    name text not null,
    language text,
    status text not null,
    stage text,
    stages text not null default '[]',
    created real not null,
    started real,
    ended real,
    problem text,
    attempts integer not null default 0
);
create index if not exists by_status on jobs (status, number);
"""
DATABASE = "jobs.sqlite"
_QUEUE = "update jobs set status = 'queued', stage = null, stages = '[]', started = null"


class Store:
    """Jobs of one state folder.

    Args:
        folder: The folder; made where there is none, readable by its owner alone.

    Raises:
        UsageError: If it cannot be used, or another service uses it.
        DiskError: If the disk takes no more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads, self.results = folder.absolute() / "uploads", folder.absolute() / "results"
        self._open()

    def _open(self) -> None:
        folder = self.folder
        self._lock = _open_folder(folder, self.uploads, self.results)
        try:
            with disk_errors(folder / DATABASE):
                self._rows = sqlite3.connect(folder / DATABASE, check_same_thread=False)
                self._rows.row_factory = sqlite3.Row
                self._rows.isolation_level = None  # every statement is its own transaction
                self._rows.execute("pragma journal_mode = wal")
                # A client that was told of a job, or of its end, shall find it after a power cut.
                self._rows.execute("pragma synchronous = full")
                self._rows.executescript(_SCHEMA)
        except DiskError:
            self._lock.close()
            raise
        except sqlite3.DatabaseError as fault:
            self._lock.close()
            raise UsageError(
                f"{folder / DATABASE}: not a list of jobs ({fault}).\n"
                "  Give another folder: --state DIR"
            ) from None

    def close(self) -> None:
        """Release the folder for another service."""
        self._rows.close()
        self._lock.close()

    def restore(self) -> None:
        """Make the folder again if somebody removed it; the jobs in it are lost.

        Raises:
            UsageError: If it cannot be made.
        """
        places = (self.folder / DATABASE, self.uploads, self.results)
        if all(place.exists() for place in places):
            return
        _log.error("%s was removed while it was in use; its jobs are lost", self.folder)
        self.close()
        self._open()

    def add(self, job: Job) -> Job:
        """Queue a job whose upload is complete."""
        self._run(
            "insert into jobs (id, model, name, language, status, created) values "
            "(?, ?, ?, ?, 'queued', ?)",
            (job.id, job.model, job.name, job.language, job.created),
        )
        return self.get(job.id)

    def get(self, identifier: str) -> Job:
        """Return a job by its id.

        Raises:
            ServiceError: If there is none.
        """
        row = self._run("select * from jobs where id = ?", (identifier,)).fetchone()
        if row is None:
            raise ServiceError(
                f'no job "{identifier[:64]}": it was removed, its result is too old, or it never '
                f"was.\n  {_SEND_AGAIN}",
                status=404,
                kind="no-such-job",
            )
        return self._job(row)

    def take(self) -> Job | None:
        """Return the job that has waited longest, now running; None where none waits."""
        row = self._run(
            "select id from jobs where status = 'queued' order by number limit 1"
        ).fetchone()
        if row is None:
            return None
        self._run(
            "update jobs set status = 'running', started = ?, stage = null, stages = '[]', "
            "attempts = attempts + 1 where id = ?",
            (time.time(), row["id"]),
        )
        return self.get(row["id"])

    def note_stage(self, identifier: str, stage: str | None) -> None:
        """Note the stage that a running job has begun, or None after the last one."""
        job = self.get(identifier)
        done = [*job.stages, *([job.stage] if job.stage else [])]
        self._run(
            "update jobs set stage = ?, stages = ? where id = ? and status = 'running'",
            (stage, json.dumps(list(dict.fromkeys(done))), identifier),
        )

    def finish(self, identifier: str) -> None:
        """Note that a running job is done and its results are in their place."""
        self.note_stage(identifier, None)
        self._end(identifier, "done", "running")

    def fail(self, identifier: str, problem: Problem) -> None:
        """Note that a job has failed."""
        self._end(identifier, "failed", "queued", "running", problem=problem)

    def cancel(self, identifier: str) -> bool:
        """Cancel a job; return whether it had not ended yet."""
        return self._end(identifier, "cancelled", "queued", "running")

    def put_back(self, identifier: str) -> None:
        """Return a running job to its place in the queue, as if never started."""
        self._run(
            f"{_QUEUE}, attempts = attempts - 1 where id = ? and status = 'running'",
            (identifier,),
        )

    def forget(self, identifier: str) -> None:
        """Remove a job, its upload and its result."""
        self._run("delete from jobs where id = ?", (identifier,))
        self.remove_upload(identifier)
        self.remove_result(identifier)

    def remove_result(self, identifier: str) -> None:
        """Remove the result of a job."""
        shutil.rmtree(self.results / identifier, ignore_errors=True)

    def remove_upload(self, identifier: str) -> None:
        """Remove the recording of a job and its transcript."""
        shutil.rmtree(self.uploads / identifier, ignore_errors=True)

    def count(self, status: str) -> int:
        """Return how many jobs have a status."""
        row = self._run("select count(*) from jobs where status = ?", (status,)).fetchone()
        return int(row[0])

    def recover(self, models: Iterable[str]) -> None:
        """Queue the jobs that an earlier service left, and clean up behind it.

        A job that was running returns to its old place; the second time it fails, since it may
        be what ended the service. Folders that belong to no job are removed.

        Args:
            models: Names of the runs that are served now.
        """
        known = set(models)
        rows = self._run("select * from jobs where status in ('queued', 'running')").fetchall()
        for job in [self._job(row) for row in rows]:
            fault = self._why_not_again(job, known)
            if fault is None:
                self._run(f"{_QUEUE} where id = ?", (job.id,))
            else:
                self.fail(job.id, problem_of(fault))
        self._remove_strays()

    def _why_not_again(self, job: Job, models: set[str]) -> ServiceError | None:
        """Return why a job of an earlier service cannot be run, None where it can."""
        if job.model not in models:
            kind, status = "model-gone", 410
            reason = f'the service was started again without the model "{job.model}"'
            advice = "Send it again, to one of GET /v1/models"
        elif not (self.uploads / job.id / RECORDING).is_file():
            kind, status, advice = "recording-gone", 410, _SEND_AGAIN
            reason = "the service was stopped and the recording is gone"
        elif job.attempts >= _MAX_ATTEMPTS:
            kind, status = "ended-with-it", 422
            reason = "the service ended twice while it worked on it, and does not try again"
            advice = "If it was stopped by hand, send the recording again: POST /v1/predict"
        else:
            return None
        return ServiceError(f'"{job.name}": {reason}.\n  {advice}', status=status, kind=kind)

    def expire(self, seconds: float) -> int:
        """Remove jobs that ended longer ago than ``seconds``; return how many.

        If the clock was put back, a job that ended later than now counts as ended now: it would
        be kept until the clock has caught up.
        """
        now = time.time()
        self._run("update jobs set ended = ? where ended > ?", (now, now))
        rows = self._run("select id from jobs where ended < ?", (now - seconds,)).fetchall()
        for row in rows:
            self.forget(row["id"])
        return len(rows)

    def _remove_strays(self) -> None:
        """Remove uploads of jobs that are not queued, and results of jobs that are not done."""
        rows = self._run("select id, status from jobs").fetchall()
        for folder, status in ((self.uploads, "queued"), (self.results, "done")):
            owners = {row["id"] for row in rows if row["status"] == status}
            for path in folder.iterdir():
                if path.name not in owners:
                    shutil.rmtree(path, ignore_errors=True)

    def _end(
        self, identifier: str, status: str, *earlier: str, problem: Problem | None = None
    ) -> bool:
        """Give a job its last status and remove its upload, unless it has ended already."""
        text = None if problem is None else problem.model_dump_json()
        places = ", ".join("?" * len(earlier))
        cursor = self._run(
            f"update jobs set status = ?, ended = ?, problem = ? "
            f"where id = ? and status in ({places})",
            (status, time.time(), text, identifier, *earlier),
        )
        if cursor.rowcount:
            self.remove_upload(identifier)
        return bool(cursor.rowcount)

    def _job(self, row: sqlite3.Row) -> Job:
        fields: dict[str, Any] = dict(row)
        del fields["number"]
        fields["stages"] = json.loads(fields["stages"])
        if fields["problem"] is not None:
            fields["problem"] = json.loads(fields["problem"])
        if fields["status"] == "queued":
            before = self._run(
                "select count(*) from jobs where status = 'queued' and number < ?",
                (row["number"],),
            )
            fields["position"] = int(before.fetchone()[0]) + 1
        return Job.model_validate(fields)

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with disk_errors(self.folder / DATABASE):
            return self._rows.execute(statement, values)


def _open_folder(*folders: Path) -> IO[bytes]:
    """Make folders for their owner alone, and return the lock of the first."""
    folder = folders[0]
    try:
        for path in folders:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
    except OSError as fault:
        raise UsageError(
            f"{folder}: no jobs can be kept here ({fault.strerror or fault}).\n"
            "  Give a folder you may write to: --state DIR"
        ) from None
    if not take_lock(lock):
        lock.close()
        raise UsageError(
            f"{folder}: another mmcl serve keeps its jobs here.\n  Give another folder: --state DIR"
        )
    return lock
