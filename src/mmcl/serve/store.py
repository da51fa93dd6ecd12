"""Jobs on the disk: what was received, what became of it, and what is left after a crash.

::

    STATE/jobs.sqlite         a row per job
    STATE/uploads/<id>/       a recording and what is said in it, until its job is over
    STATE/results/<id>/       result.json, .csv, .srt and .html, until they are too old
    STATE/lock                held while a service uses the folder

A row is written when its upload is complete, and a job is done when its results lie in their
place; so a kill at any moment leaves a job to be taken up, and nothing half done.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import IO, Any

from mmcl.errors import UsageError
from mmcl.serve.jobs import Job
from mmcl.serve.problems import Problem, ServiceError, problem_of

__all__ = ["RECORDING", "Store"]

RECORDING = "recording"
"""What an upload is called on the disk, whatever its own name."""

MOST_ATTEMPTS = 2
"""A job with which the service ended that often is not begun again."""

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


class Store:
    """The jobs of one state folder; any thread may call it.

    Args:
        folder: Where they lie; made if it is not there, for its owner alone.

    Raises:
        UsageError: If it cannot be used, or another service uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads, self.results = (folder.absolute() / each for each in ("uploads", "results"))
        self._mutex = RLock()
        self._lock = _open_folder(folder, self.uploads, self.results)
        try:
            self._rows = sqlite3.connect(folder / "jobs.sqlite", check_same_thread=False)
            self._rows.row_factory = sqlite3.Row
            self._rows.isolation_level = None  # every statement is its own transaction
            self._rows.execute("pragma journal_mode = wal")
            self._rows.execute("pragma synchronous = normal")
            self._rows.executescript(_SCHEMA)
        except sqlite3.DatabaseError as fault:
            self._lock.close()
            raise UsageError(
                f"{folder / 'jobs.sqlite'}: not a list of jobs ({fault}).\n"
                "  Give another folder: --state DIR"
            ) from None

    def close(self) -> None:
        """Let another service use the folder."""
        with self._mutex:
            self._rows.close()
            self._lock.close()

    # ------------------------------------------------------------ one job

    def add(self, job: Job) -> Job:
        """Queue a job whose upload is complete."""
        self._run(
            "insert into jobs (id, model, name, language, status, created) values "
            "(?, ?, ?, ?, 'queued', ?)",
            (job.id, job.model, job.name, job.language, job.created),
        )
        return self.get(job.id)

    def get(self, identifier: str) -> Job:
        """A job by its id.

        Raises:
            ServiceError: If there is none.
        """
        with self._mutex:
            row = self._run("select * from jobs where id = ?", (identifier,)).fetchone()
            if row is None:
                raise no_such_job(identifier)
            return self._job(row)

    def take(self) -> Job | None:
        """The job that has waited longest, running from now on; None where none waits."""
        with self._mutex:
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
        """Say what is being done with a running job; what was being done before is done."""
        with self._mutex:
            job = self.get(identifier)
            done = [*job.stages, *([job.stage] if job.stage else [])]
            self._run(
                "update jobs set stage = ?, stages = ? where id = ? and status = 'running'",
                (stage, json.dumps(list(dict.fromkeys(done))), identifier),
            )

    def finish(self, identifier: str) -> None:
        """A running job is done, and its results lie in their place."""
        with self._mutex:
            self.note_stage(identifier, None)
            self._end(identifier, "done", "running")

    def fail(self, identifier: str, problem: Problem) -> None:
        """A job came to nothing."""
        self._end(identifier, "failed", "queued", "running", problem=problem)

    def cancel(self, identifier: str) -> bool:
        """Nobody wants a job any more; whether it was still to be done."""
        return self._end(identifier, "cancelled", "queued", "running")

    def put_back(self, identifier: str) -> None:
        """A running job goes back to its place in the queue, as if never begun."""
        self._run(
            "update jobs set status = 'queued', stage = null, stages = '[]', started = null, "
            "attempts = attempts - 1 where id = ? and status = 'running'",
            (identifier,),
        )

    def forget(self, identifier: str) -> None:
        """Remove a job and everything of it."""
        self._run("delete from jobs where id = ?", (identifier,))
        self.remove_upload(identifier)
        self.remove_result(identifier)

    def remove_result(self, identifier: str) -> None:
        """Remove what a job came to."""
        shutil.rmtree(self.results / identifier, ignore_errors=True)

    def remove_upload(self, identifier: str) -> None:
        """Remove the recording of a job."""
        shutil.rmtree(self.uploads / identifier, ignore_errors=True)

    # ------------------------------------------------------------ all of them

    def count(self, status: str) -> int:
        """How many jobs have a status."""
        row = self._run("select count(*) from jobs where status = ?", (status,)).fetchone()
        return int(row[0])

    def recover(self, models: Iterable[str]) -> None:
        """Put in order what a service left that was killed.

        A job that was running waits again, in its old place; the second time it fails, since
        it may be what ended the service. Uploads that belong to no job are removed.

        Args:
            models: Names of the runs that are served now.
        """
        with self._mutex:
            known = set(models)
            rows = self._run("select * from jobs where status in ('queued', 'running')").fetchall()
            for job in [self._job(row) for row in rows]:
                if job.model not in known:
                    self.fail(job.id, _not_served(job))
                elif not (self.uploads / job.id / RECORDING).is_file():
                    self.fail(job.id, _lost(job))
                elif job.attempts >= MOST_ATTEMPTS:
                    self.fail(job.id, _ended_with(job))
                else:
                    self._run(
                        "update jobs set status = 'queued', stage = null, stages = '[]', "
                        "started = null where id = ?",
                        (job.id,),
                    )
            self._remove_strays()

    def expire(self, before: float) -> int:
        """Forget jobs that were over before a time, in seconds since 1970; how many."""
        rows = self._run("select id from jobs where ended < ?", (before,)).fetchall()
        for row in rows:
            self.forget(row["id"])
        return len(rows)

    def _remove_strays(self) -> None:
        """Folders that no row speaks of, and uploads of jobs that are over."""
        rows = self._run("select id, status from jobs").fetchall()
        open_jobs = {row["id"] for row in rows if row["status"] == "queued"}
        done = {row["id"] for row in rows if row["status"] == "done"}
        for folder, wanted in ((self.uploads, open_jobs), (self.results, done)):
            for path in folder.iterdir():
                if path.name not in wanted:
                    shutil.rmtree(path, ignore_errors=True)

    # ------------------------------------------------------------ rows

    def _end(
        self, identifier: str, status: str, *earlier: str, problem: Problem | None = None
    ) -> bool:
        """Give a job its last status, unless it has one; its upload goes with it."""
        told = None if problem is None else problem.model_dump_json()
        places = ", ".join("?" * len(earlier))
        done = self._run(
            f"update jobs set status = ?, ended = ?, problem = ? "
            f"where id = ? and status in ({places})",
            (status, time.time(), told, identifier, *earlier),
        )
        if done.rowcount:
            self.remove_upload(identifier)
        return bool(done.rowcount)

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

    def _run(self, statement: str, given: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._mutex:
            return self._rows.execute(statement, given)


def _open_folder(folder: Path, *inner: Path) -> IO[bytes]:
    """Make the folder and lock it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in inner:
            each.mkdir(exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
    except OSError as fault:
        raise UsageError(
            f"{folder}: no jobs can be kept here ({fault.strerror or fault}).\n"
            "  Give a folder you may write to: --state DIR"
        ) from None
    if not _locked(lock):
        lock.close()
        raise UsageError(
            f"{folder}: another mmcl serve keeps its jobs here.\n  Give another folder: --state DIR"
        )
    return lock


def _locked(lock: IO[bytes]) -> bool:
    """Take the lock, which ends with the process that holds it; whether that worked."""
    with suppress(ImportError):  # where there is none, nobody is kept out
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    os.utime(lock.fileno())
    return True


def no_such_job(identifier: str) -> ServiceError:
    """That no job has an id."""
    return ServiceError(
        f'no job "{identifier[:64]}": it was removed, its result is too old, or it never was.\n'
        "  Send the recording again: POST /v1/predict",
        status=404,
        kind="no-such-job",
    )


def _not_served(job: Job) -> Problem:
    return problem_of(
        ServiceError(
            f'"{job.name}": the service was started again without the model "{job.model}".\n'
            "  Send it again, to one of GET /v1/models",
            status=410,
            kind="model-gone",
        )
    )


def _lost(job: Job) -> Problem:
    return problem_of(
        ServiceError(
            f'"{job.name}": the service was stopped and the recording is gone.\n'
            "  Send it again: POST /v1/predict",
            status=410,
            kind="recording-gone",
        )
    )


def _ended_with(job: Job) -> Problem:
    return problem_of(
        ServiceError(
            f'"{job.name}": the service ended twice while it worked on it, and does not try '
            "again.\n  If it was stopped by hand, send the recording again: POST /v1/predict",
            status=422,
            kind="ended-with-it",
        )
    )
