"""Many files into one corpus: by several processes, each file once, whatever happens.

Every finished file is a part beside the corpus, ``CORPUS.parts/<key>.arrow``, written whole or
not at all; its key is a hash of the file's path, size and time, of what is said in it, and of
the recipe. A batch that was killed redoes none of them. When all are done they become one
corpus, and the parts are removed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, lru_cache, partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.engines import Died, Engine, await_shared, check_shared, over_ray
from mmcl.errors import DatasetError, MediaError, MissingExtraError, MMCLError
from mmcl.media.extract import STAGES, Extracted, Extractor, card_of, with_versions
from mmcl.media.folder import Failure, Gathered, Item
from mmcl.media.recipe import Recipe
from mmcl.media.transcripts import find_transcript
from mmcl.types import SPLITS, Modality

__all__ = ["ERRORS", "Extracts", "Outcome", "extract_batch"]

ERRORS = "errors.csv"
HEADER = ",".join(Failure._fields)
FEWEST = 5
"""A batch is not given up before so many files were tried."""
PATIENCE = 5.0
"""Seconds an idle process has to end by itself."""
SHOWN = 5
MOST_NOTES = 20
_UNLABELLED = Task(kind="regression", low=-1.0, high=1.0)

Progress = Callable[[int, int, int], None]
"""Called as ``progress(done, total, failed)`` after every item."""


class Extracts(Protocol):
    """What a batch needs of an extractor; see :class:`~mmcl.media.extract.Extractor`."""

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


class Outcome(NamedTuple):
    """What a batch came to.

    Attributes:
        card: Of the corpus that was written.
        failures: Items that came to nothing.
        timings: Seconds per stage, over all files and processes.
        duration: Seconds of media in the corpus.
    """

    card: Card
    failures: list[Failure]
    timings: dict[str, float]
    duration: float


class _Task(NamedTuple):
    item: Item
    part: Path
    transcript: Path | str | None


def extract_batch(
    gathered: Gathered,
    out: Path,
    recipe: Recipe,
    *,
    name: str | None = None,
    workers: int = 1,
    engine: Engine = "local",
    max_failures: float = 0.2,
    progress: Progress | None = None,
    make: Callable[[Recipe], Extracts] = Extractor,
) -> Outcome:
    """Extract everything into one corpus, or go on where an earlier call was stopped.

    A file that fails is a line of ``errors.csv`` beside the corpus, also when its process
    dies with it; the rest goes on.

    Args:
        gathered: What to extract.
        out: The corpus to write; an existing one is replaced, when all is done.
        recipe: How.
        name: Of the corpus; that of the file by default.
        workers: Processes; each holds the models.
        engine: Whose processes: our own, or those of Ray, on one machine or many.
        max_failures: Share of items that may fail, 0..1.
        progress: Told how far it is.
        make: Makes the extractor of a process, from the recipe.

    Raises:
        MediaError: If a larger share fails, of the first five files or of more, or in the
            end; or if nothing was extracted. Finished parts are kept. Of a single item it is
            the item's own.
        MissingExtraError: If a package is not installed.
        DatasetError: If the corpus cannot be written, or a machine of a cluster does not see
            the files.
    """
    recipe = with_versions(recipe)
    batch = _Batch(gathered, out, recipe, max_failures, progress)
    batch.check_end()  # rows at fault may be too many already
    tasks = batch.tasks()
    run = _run_over_ray if engine == "ray" else _run
    try:
        with closing(run(batch.remaining(tasks), workers, recipe, make)) as ended:
            for task, cause in ended:
                batch.note(task, cause)
    finally:
        _write_errors(out.with_name(ERRORS), batch.failures)
        if not any(batch.parts.iterdir()):
            batch.parts.rmdir()
    batch.check_end()
    outcome = _merge(batch, [task for task in tasks if task.part.exists()], name or out.stem)
    shutil.rmtree(batch.parts)
    return outcome


class _Batch:
    """How far a batch is, and what failed."""

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
        self.tried = self.failed = 0

    @property
    def total(self) -> int:
        return len(self.gathered.items) + len(self.gathered.failures)

    def tasks(self) -> list[_Task]:
        """Every item with its part; one whose file is gone fails here."""
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise DatasetError(
                f"{self.parts}: cannot be made ({fault.strerror}).\n"
                "  Give a corpus in a folder you may write to: --out CORPUS"
            ) from None
        return [self._task(item) for item in self.gathered.items]

    def _task(self, item: Item) -> _Task:
        transcript: Path | str | None = item.text
        if transcript is None and item.path.is_file():
            transcript = find_transcript(item.path)
        key = _key(item, transcript, self.recipe)
        return _Task(item, self.parts / f"{key}.arrow", transcript)

    def remaining(self, tasks: Sequence[_Task]) -> list[_Task]:
        """Those without a part; the others are counted as done."""
        rest = [task for task in tasks if not task.part.exists()]
        self.tried = len(tasks) - len(rest)
        self._tell()
        return rest

    def note(self, task: _Task, cause: str | None) -> None:
        """Count an item that was tried, and give up where too many fail."""
        self.tried += 1
        if cause is not None:
            self.failed += 1
            self.failures.append(Failure(task.item.name, cause))
        self._tell()
        if self.tried >= FEWEST and self.failed > self.max_failures * self.tried:
            tried = self.failures[len(self.gathered.failures) :]
            raise MediaError(self._given_up(tried, self.tried, "files tried", "stopped early"))

    def check_end(self) -> None:
        """Refuse a result of which too much is missing."""
        failed = len(self.failures)
        if failed == self.total or failed > self.max_failures * self.total:
            _write_errors(self.out.with_name(ERRORS), self.failures)
            if self.total == 1:
                raise MediaError(self.failures[0].cause)
            what = "no corpus was written"
            raise MediaError(self._given_up(self.failures, self.total, "items", what))

    def _tell(self) -> None:
        if self.progress is not None:
            known = len(self.gathered.failures)
            self.progress(known + self.tried, self.total, known + self.failed)

    def _given_up(self, failures: Sequence[Failure], of: int, kind: str, what: str) -> str:
        failed = len(failures)
        beyond = f", more than {self.max_failures:.0%}" if failed > self.max_failures * of else ""
        enough = "0.9" if failed <= 0.9 * of else "1"
        fix = (
            "What is done is kept; the same command goes on. "
            f"To allow more: --max-failures {enough}"
        )
        if len(self.failures) == self.total:
            fix = "Mend one of them at least, and give the same command again."
        return "\n".join(
            [
                f"{failed} of {of} {kind} failed{beyond}: {what}.",
                *(f"  {line}" for line in _summary(failures)),
                f"  All of them: {self.out.with_name(ERRORS)}",
                f"  {fix}",
            ]
        )


def _summary(failures: Sequence[Failure]) -> list[str]:
    lines = [f"{failure.item}: {failure.cause.splitlines()[0]}" for failure in failures[:SHOWN]]
    if len(failures) > SHOWN:
        lines.append(f"and {len(failures) - SHOWN} more")
    return lines


def _key(item: Item, transcript: Path | str | None, recipe: Recipe) -> str:
    """Everything the features of an item depend on; its label and split are none of it."""
    said = _stamp(transcript) if isinstance(transcript, Path) else transcript
    whole = item.clip_id is not None
    parts = [_stamp(item.path), said, item.video_id, whole, recipe.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(path: Path) -> list[str | int]:
    try:
        stat = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def _write_errors(path: Path, failures: Sequence[Failure]) -> None:
    """One line per failure; where there is none, the list of an earlier batch goes."""
    if not failures:
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
            path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        file.write(f"{HEADER}\n")
        writer.writerows((f.item, " ".join(f.cause.split())) for f in failures)
    unfinished.replace(path)


# ---------------------------------------------------------------- processes


class _Worker:
    """A process that extracts one item at a time, and may die with it."""

    def __init__(self, recipe: Recipe, make: Callable[[Recipe], Extracts]) -> None:
        context = get_context("spawn")  # a fork would share the models' threads and locks
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, recipe, make), daemon=True)
        self.process.start()
        theirs.close()
        self.task: _Task | None = None

    def give(self, task: _Task) -> None:
        self.task = task
        self.connection.send(task)

    def answer(self) -> tuple[str | None, bool]:
        """The cause of a failure or None, and whether the process lives on."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return _death(self.process.exitcode), False
        self.task = None
        if isinstance(answer, MMCLError):
            raise answer
        return answer, True

    def stop(self) -> None:
        """End the process: an idle one by itself, one that is at work at once."""
        self.connection.close()
        if self.task is not None:
            self.process.terminate()
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; memory may have run out" if name == "SIGKILL" else ""
        return f"its process died (signal {name}{hint})"
    return f"its process died (exit code {code})"


def _run(
    tasks: Sequence[_Task],
    workers: int,
    recipe: Recipe,
    make: Callable[[Recipe], Extracts],
) -> Generator[tuple[_Task, str | None]]:
    """Every task with the cause of its failure or None, as they end."""
    waiting = list(reversed(tasks))
    count = min(workers, len(tasks))
    _share_cores(count)
    busy: dict[Any, _Worker] = {}
    idle = [_Worker(recipe, make) for _ in range(count)]
    try:
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                worker.give(waiting.pop())
                busy[worker.connection] = worker
            for ready in wait(list(busy)):
                worker = busy.pop(ready)
                task, (cause, lives) = worker.task, worker.answer()
                if lives:
                    idle.append(worker)
                elif waiting:
                    idle.append(_Worker(recipe, make))
                if task is not None:
                    yield task, cause
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


def _share_cores(workers: int) -> None:
    """Give each process its share of the cores, unless the user has said something else."""
    share = max(1, (os.cpu_count() or 1) // max(workers, 1))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _serve(connection: Connection, recipe: Recipe, make: Callable[[Recipe], Extracts]) -> None:
    """The life of a worker: a task in, None or the cause of its failure out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    extractor = cache(partial(make, recipe))
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the parent is gone
            return
        answer: str | MMCLError | None
        try:
            answer = _cause(task, extractor)
        except MMCLError as fault:
            answer = fault
        try:
            connection.send(answer)
        except BrokenPipeError:  # likewise
            return


# ---------------------------------------------------------------- processes of Ray


def _run_over_ray(
    tasks: Sequence[_Task],
    workers: int,
    recipe: Recipe,
    make: Callable[[Recipe], Extracts],
) -> Generator[tuple[_Task, str | None]]:
    """As :func:`_run`, and a file whose process dies is tried again in another."""
    work = partial(_extract_there, recipe.model_dump_json(), make)
    with closing(over_ray(work, [_absolute(task) for task in tasks], workers=workers)) as ended:
        for task, answer in ended:
            if isinstance(answer, Died):
                yield task, answer.cause
                continue
            if answer is None:
                await_shared(task.part)
            yield task, answer


def _absolute(task: _Task) -> _Task:
    said = task.transcript
    return _Task(
        task.item._replace(path=task.item.path.absolute()),
        task.part.absolute(),
        said.absolute() if isinstance(said, Path) else said,
    )


def _extract_there(
    recipe: str, make: Callable[[Recipe], Extracts], task: _Task, threads: int
) -> str | None:
    """The cause of a failure, or None; Ray has told the libraries how many threads to take."""
    check_shared(task.item.path)
    check_shared(task.part.parent)
    return _cause(task, partial(_extractor_there, recipe, make))


@lru_cache(maxsize=1)
def _extractor_there(recipe: str, make: Callable[[Recipe], Extracts]) -> Extracts:
    """The extractor that a process keeps from one task to the next."""
    wanted = Recipe.model_validate_json(recipe)
    if wanted.versions:
        _check_versions(wanted.versions, with_versions(wanted).versions)
    return make(wanted)


def _check_versions(wanted: Mapping[str, str], here: Mapping[str, str]) -> None:
    """The card names one version of everything, so that every machine must have it."""
    for name, version in wanted.items():
        if here.get(name) != version:
            raise DatasetError(
                f"{name} is {here.get(name)} on {socket.gethostname()}, and {version} where the "
                "extraction was begun.\n"
                "  Install the same on every machine, or name one: --text-model, --speech-model, "
                "--face-model"
            )


# ---------------------------------------------------------------- one item


def _cause(task: _Task, extractor: Callable[[], Extracts]) -> str | None:
    """Extract one item, and say why it failed.

    Args:
        task: The item.
        extractor: Gives the extractor of this process, which the first call makes.

    Raises:
        MissingExtraError: If a package is not installed.
        DatasetError: If a part cannot be written; either would stop every other item, too.
    """
    try:
        _extract_part(task, extractor())
    except (MissingExtraError, DatasetError):
        raise
    except MMCLError as fault:
        return str(fault)
    except Exception as fault:  # a fault of ours or of a library: one item, not the batch
        return f"{type(fault).__name__}: {fault}"
    return None


def _extract_part(task: _Task, extractor: Extracts) -> None:
    item = task.item
    extracted = extractor.extract(
        item.path,
        transcript=task.transcript,
        video_id=item.video_id,
        span=None if item.clip_id is None else (0.0, float("inf")),
    )
    dims = _dims(extracted.clips)
    card = Card(
        name=item.video_id,
        task=_UNLABELLED,
        dims=dims,
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


def _dims(clips: Sequence[Clip]) -> dict[Modality, int]:
    return {m: steps.shape[1] for clip in clips for m, steps in clip.features.items()}


# ---------------------------------------------------------------- one corpus of all parts


def _merge(batch: _Batch, tasks: Sequence[_Task], name: str) -> Outcome:
    ordered = sorted(tasks, key=lambda task: SPLITS.index(task.item.split))
    cards = [open_corpus(task.part).card for task in ordered]
    timings = {stage: sum(card.recipe["timings"][stage] for card in cards) for stage in STAGES}
    counts = dict.fromkeys(SPLITS, 0)
    for task, card in zip(ordered, cards, strict=True):
        counts[task.item.split] += sum(card.counts.values())
    notes = [*batch.gathered.notes, *_joined_notes(ordered, cards)]
    if batch.failures:
        notes.append(f"{len(batch.failures)} of {batch.total} items failed and are not in it")
    languages = {card.language for card in cards if card.language}
    merged = card_of(
        Recipe.model_validate(cards[0].recipe["extraction"]),
        {m: width for card in cards for m, width in card.dims.items()},
        task=batch.gathered.task,
        counts={split: count for split, count in counts.items() if count},
        name=name,
        language=", ".join(sorted(languages)) or None,
        spans=_spans(ordered, cards),
        notes=tuple(notes),
    )
    write_corpus(batch.out, merged, _clips(ordered))
    duration = sum(card.recipe["duration"] for card in cards)
    return Outcome(merged, batch.failures, timings, duration)


def _clips(tasks: Sequence[_Task]) -> Iterator[Clip]:
    for task in tasks:
        item = task.item
        for clip in open_corpus(task.part).every_clip().clips():
            changes: dict[str, Any] = {"split": item.split}
            if item.clip_id is not None:
                changes |= {
                    "id": item.name,
                    "clip_id": item.clip_id,
                    "label": item.label,
                    "modality_labels": item.modality_labels,
                }
            yield clip.model_copy(update=changes)


def _spans(tasks: Sequence[_Task], cards: Sequence[Card]) -> dict[str, tuple[float, float]]:
    """Where in its file each utterance lies, for files that were cut."""
    return {
        name: (start, end)
        for task, card in zip(tasks, cards, strict=True)
        if task.item.clip_id is None
        for name, (start, end) in zip(
            open_corpus(task.part).every_clip().ids, card.recipe["spans"], strict=True
        )
    }


def _joined_notes(tasks: Sequence[_Task], cards: Sequence[Card]) -> Iterator[str]:
    """The notes of all files; one that many have is one note."""
    noted: dict[str, list[str]] = {}
    for task, card in zip(tasks, cards, strict=True):
        for note in card.notes:
            noted.setdefault(note, []).append(task.item.name)
    for note, names in islice(noted.items(), MOST_NOTES):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f'"{names[0]}"{more}: {note}'
    if len(noted) > MOST_NOTES:
        yield f"and {len(noted) - MOST_NOTES} more notes on files"
