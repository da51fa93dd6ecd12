"""Extraction of many files into one corpus, by several processes.

A finished file is a part beside the corpus, ``CORPUS.parts/<key>.arrow``. The key is a hash of the
file's path, size and time, its transcript, and the recipe. A batch that continues after a stop
extracts only the files without a part. At the end the parts become one corpus and are removed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from mmcl.corpus.schema import Card, Task
from mmcl.corpus.store import write_corpus
from mmcl.errors import DatasetError, DiskError, MediaError, MissingExtraError, MMCLError
from mmcl.files import NO_ROOM, complete_file, csv_cell, disk_error, disk_errors, remove_unfinished
from mmcl.media.extract import Extracted, Extractor, with_versions
from mmcl.media.folders.items import ExtractTask, Failure, Gathered, Item
from mmcl.media.folders.leftovers import ERRORS, LISTED
from mmcl.media.merge import Outcome, merge_parts
from mmcl.media.recipe import Recipe
from mmcl.media.transcripts.reading import find_transcript
from mmcl.pool import Died, Engine, run_tasks
from mmcl.pool_ray import await_shared, check_shared

__all__ = ["Extracts", "extract_batch", "is_list_of_errors"]

HEADER = ",".join(Failure._fields)
FEWEST_TRIED = 10  # files to try before a batch may be given up: one bad file is no reason
SHOWN = 5  # failures in the text of an error
_UNLABELLED = Task(kind="regression", low=-1.0, high=1.0)

# Called as progress(done, total, failed) after every item.
Progress = Callable[[int, int, int], None]


class Extracts(Protocol):
    """The part of :class:`~mmcl.media.extract.Extractor` that a batch uses."""

    recipe: Recipe

    def extract(
        self,
        path: Path,
        *,
        transcript: Path | str | None = None,
        video_id: str | None = None,
        span: tuple[float, float] | None = None,
    ) -> Extracted:
        """Extract one file."""


def extract_batch(
    gathered: Gathered,
    out: Path,
    recipe: Recipe,
    *,
    name: str | None = None,
    workers: int = 1,
    engine: Engine = "local",
    max_failures: float = 0.1,
    progress: Progress | None = None,
    make: Callable[[Recipe], Extracts] = Extractor,
) -> Outcome:
    """Extract files into one corpus, or continue an extraction that was stopped.

    A file that fails, or whose process dies, gets a line in ``errors.csv`` beside the corpus. The
    other files are still extracted.

    Args:
        gathered: Files to extract, with their labels.
        out: The corpus to write. An existing one is replaced when all is done.
        recipe: Settings of the extraction.
        name: Name of the corpus. Default: that of the file ``out``.
        workers: Processes at a time; each holds the models in memory.
        engine: Where the processes run: on this machine, or on Ray.
        max_failures: Share of items that may fail, 0..1.
        progress: Called after every item.
        make: Called with the recipe in every process; returns its extractor.

    Raises:
        MediaError: If a larger share fails, which is checked from the tenth file on, or if
            nothing was extracted. Finished parts are kept. A single item raises its own error.
        MissingExtraError: If a package is not installed.
        DatasetError: If the corpus cannot be written, or a machine of a cluster does not see
            the files.
        DiskError: If the disk takes no more. Finished parts are kept.
    """
    recipe = with_versions(recipe)
    batch = _Batch(gathered, out, recipe, max_failures, progress)
    try:
        with disk_errors(out, codes=NO_ROOM):
            return _run_batch(batch, name or out.stem, workers, engine, make)
    except DiskError as fault:
        parts = len(list(batch.parts.glob("[!.]*.arrow")))
        fault.kept = f"What is extracted is kept in {batch.parts}: {parts} of {batch.total} files."
        raise


def _run_batch(
    batch: _Batch,
    name: str,
    workers: int,
    engine: Engine,
    make: Callable[[Recipe], Extracts],
) -> Outcome:
    """Extract what is still to be extracted, and write the corpus."""
    out, recipe = batch.out, batch.recipe
    batch.check_end()  # too many rows of label.csv may be unusable already
    tasks = batch.tasks()
    try:
        causes = _extract_all(batch.remaining(tasks), workers, engine, recipe, make)
        with closing(causes):
            for task, cause in causes:
                batch.record(task, cause)
    finally:
        remove_unfinished(batch.parts)  # of processes that were stopped
        batch.write_errors()
        if not any(batch.parts.iterdir()):
            batch.parts.rmdir()
    batch.check_end()
    done = [task for task in tasks if task.part.exists()]
    outcome = merge_parts(batch.gathered, batch.failures, done, out, name)
    batch.write_errors(outcome.file_notes)
    shutil.rmtree(batch.parts)
    return outcome


class _Batch:
    """Items of a batch, with counts of those that were tried and failed."""

    def __init__(
        self,
        gathered: Gathered,
        out: Path,
        recipe: Recipe,
        max_failures: float,
        progress: Progress | None,
    ) -> None:
        self.gathered, self.out, self.recipe = gathered, out, recipe
        self.max_failures, self.progress = max_failures, progress
        self.parts = out.with_name(f"{out.name}.parts")
        self.failures = list(gathered.failures)
        self.total = len(gathered.items) + len(gathered.failures)
        self.tried = self.failed = 0

    def tasks(self) -> list[ExtractTask]:
        """Return a task for every item."""
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise DatasetError(
                f"{self.parts}: cannot be made ({fault.strerror}).\n"
                "  Give a corpus in a folder you may write to: --out CORPUS"
            ) from None
        return [self._task(item) for item in self.gathered.items]

    def _task(self, item: Item) -> ExtractTask:
        transcript: Path | str | None = item.text
        if transcript is None and item.path.is_file():
            transcript = find_transcript(item.path, self.recipe.language)
        key = _part_key(item, transcript, self.recipe)
        return ExtractTask(item, self.parts / f"{key}.arrow", transcript)

    def remaining(self, tasks: Sequence[ExtractTask]) -> list[ExtractTask]:
        """Return the tasks without a part, and count the others as done."""
        rest = [task for task in tasks if not task.part.exists()]
        self.tried = len(tasks) - len(rest)
        self._report_progress()
        return rest

    def record(self, task: ExtractTask, cause: str | None) -> None:
        """Count an item that was tried; raise a MediaError if too many have failed."""
        self.tried += 1
        if cause is not None:
            self.failed += 1
            self.failures.append(Failure(task.item.name, cause))
        self._report_progress()
        if self.tried >= FEWEST_TRIED and self.failed > self.max_failures * self.tried:
            tried = self.failures[len(self.gathered.failures) :]
            raise MediaError(self._failure_text(tried, self.tried, "files tried", "stopped early"))

    def check_end(self) -> None:
        """Raise a MediaError if too many items failed for a corpus."""
        failed = len(self.failures)
        if failed == self.total or failed > self.max_failures * self.total:
            self.write_errors()
            if self.total == 1:
                raise MediaError(self.failures[0].cause)
            end = "no corpus was written"
            raise MediaError(self._failure_text(self.failures, self.total, "items", end))

    def write_errors(self, file_notes: Sequence[Failure] = ()) -> None:
        """List the failures beside the corpus, and what is too long for its card."""
        rows = [*self.failures, *_long_lists(self.gathered), *file_notes]
        _write_errors(self.out.with_name(ERRORS), rows)

    def _report_progress(self) -> None:
        if self.progress is not None:
            known = len(self.gathered.failures)  # unusable before the extraction
            self.progress(known + self.tried, self.total, known + self.failed)

    def _failure_text(self, failures: Sequence[Failure], count: int, kind: str, end: str) -> str:
        """Return the text of the error that ends a batch."""
        failed = len(failures)
        beyond = (
            f", more than {self.max_failures:.0%}" if failed > self.max_failures * count else ""
        )
        enough = "0.9" if failed <= 0.9 * count else "1"
        advice = (
            "What is done is kept; the same command continues. "
            f"To allow more: --max-failures {enough}"
        )
        if len(self.failures) == self.total:
            advice = "Mend at least one of them, and give the same command again."
        causes = [f"  {f.item}: {f.cause.splitlines()[0]}" for f in failures[:SHOWN]]
        if failed > SHOWN:
            causes.append(f"  and {failed - SHOWN} more")
        first = f"{failed} of {count} {kind} failed{beyond}: {end}."
        where = f"  All of them: {self.out.with_name(ERRORS)}"
        return "\n".join([first, *causes, where, f"  {advice}"])


def _part_key(item: Item, transcript: Path | str | None, recipe: Recipe) -> str:
    """Return a hash of everything that the features of an item depend on."""
    # The label and the split are no part of it: they are added when the parts are merged.
    text = _stamp(transcript) if isinstance(transcript, Path) else transcript
    is_cut = item.clip_id is not None
    parts = [_stamp(item.path), text, item.video_id, is_cut, recipe.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(path: Path) -> list[str | int]:
    """Return path, size and time of a file, which change when the file does."""
    try:
        stat = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def _long_lists(gathered: Gathered) -> Iterator[Failure]:
    """Yield what was left out and is too long for the account of the corpus."""
    for kind, names in gathered.left_out:
        if len(names) > LISTED:
            yield from (Failure(name, f"left out: {kind}") for name in names)


def is_list_of_errors(path: Path) -> bool:
    """Tell whether a batch made a file as its list of failures."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(HEADER)) == HEADER


def _write_errors(path: Path, failures: Sequence[Failure]) -> None:
    """Write a line per failure; without failures, remove the list of an earlier batch."""
    if not failures:
        if is_list_of_errors(path):
            path.unlink()
        return
    with (
        complete_file(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write(f"{HEADER}\n")
        rows = [
            [csv_cell(failure.item), csv_cell(" ".join(failure.cause.split()))]
            for failure in failures
        ]
        csv.writer(file, lineterminator="\n").writerows(rows)


# ---------------------------------------------------------------- in the workers


def _extract_all(
    tasks: Sequence[ExtractTask],
    workers: int,
    engine: Engine,
    recipe: Recipe,
    make: Callable[[Recipe], Extracts],
) -> Generator[tuple[ExtractTask, str | None]]:
    """Yield the tasks in the order they end, with the cause of their failure or None."""
    on_ray = engine == "ray"
    if on_ray:
        tasks = [_absolute(task) for task in tasks]
    work = partial(_extract, recipe.model_dump_json(), make, on_ray)
    # With fewer files than workers, every process gets more cores.
    count = workers if on_ray else max(1, min(workers, len(tasks)))
    with closing(run_tasks(work, tasks, workers=count, engine=engine)) as answers:
        for task, cause in answers:
            if on_ray and cause is None:
                await_shared(task.part)
            yield task, cause.cause if isinstance(cause, Died) else cause


def _absolute(task: ExtractTask) -> ExtractTask:
    transcript = task.transcript
    return ExtractTask(
        task.item._replace(path=task.item.path.absolute()),
        task.part.absolute(),
        transcript.absolute() if isinstance(transcript, Path) else transcript,
    )


def _extract(
    recipe: str,
    make: Callable[[Recipe], Extracts],
    on_ray: bool,
    task: ExtractTask,
    threads: int,
) -> str | None:
    """Extract one item in a worker; return the cause of its failure, or None.

    Raises:
        MissingExtraError: If a package is not installed.
        DatasetError: If a part cannot be written, or this machine does not see a file. All
            other items would fail too.
        DiskError: If the disk takes no more.
    """
    if on_ray:
        check_shared(task.item.path, task.part.parent)
    try:
        _extract_part(task, _extractor(recipe, make, on_ray))
    except (MissingExtraError, DatasetError, DiskError):
        raise
    except MMCLError as fault:
        return str(fault)
    except Exception as fault:  # a bug, here or in a library, costs one item only
        full = disk_error(fault, codes=NO_ROOM)
        if full is not None:
            raise full from fault
        return f"{type(fault).__name__}: {fault}"
    return None


@lru_cache(maxsize=1)
def _extractor(recipe: str, make: Callable[[Recipe], Extracts], on_ray: bool) -> Extracts:
    """Return the extractor; a process keeps it for its next tasks."""
    wanted = Recipe.model_validate_json(recipe)
    if on_ray and wanted.versions:
        _check_versions(wanted.versions, with_versions(wanted).versions)
    return make(wanted)


def _check_versions(wanted: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise a DatasetError if this machine has other versions than the one that began."""
    # The card of the corpus has room for one version of each.
    for name, version in wanted.items():
        if here.get(name) != version:
            raise DatasetError(
                f"{name} is {here.get(name)} on {socket.gethostname()}, and {version} where the "
                "extraction was begun.\n"
                "  Install the same on every machine, or name one: --text-model, --speech-model, "
                "--face-model"
            )


def _extract_part(task: ExtractTask, extractor: Extracts) -> None:
    item = task.item
    extracted = extractor.extract(
        item.path,
        transcript=task.transcript,
        video_id=item.video_id,
        span=None if item.clip_id is None else (0.0, float("inf")),
    )
    card = Card(
        name=item.video_id,
        task=_UNLABELLED,
        dims={m: s.shape[1] for clip in extracted.clips for m, s in clip.features.items()},
        counts={"test": len(extracted.clips)},
        aligned=extractor.recipe.alignment == "word",
        missing_as_zero=True,
        language=extracted.language,
        recipe={
            "extraction": extractor.recipe.model_dump(mode="json"),
            "spans": [list(span) for span in extracted.spans],
            "timings": extracted.timings,
            "duration": extracted.duration,
        },
        notes=extracted.notes,
    )
    clips = (clip.model_copy(update={"split": "test"}) for clip in extracted.clips)
    write_corpus(task.part, card, clips)
