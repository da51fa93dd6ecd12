"""Inside the workshop: the process that reads recordings, one after the other.

It is told ``(job, model, folder, language)`` and answers ``("stage", key)`` at every stage, then
``("done", utterances)`` or ``("failed", problem)``. It may die of a file at any moment; nothing
but that file's job is lost with it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.errors import MediaError, MMCLError
from mmcl.media.damage import check_whole
from mmcl.media.decode import probe
from mmcl.media.extract import Extractor, Models
from mmcl.media.recipe import Recipe
from mmcl.runs.recordings import Timeline, predict_media, recipe_of
from mmcl.runs.run import Run
from mmcl.serve.clean import end_with_parent
from mmcl.serve.jobs import STAGES
from mmcl.serve.limits import Limits
from mmcl.serve.problems import Problem, ServiceError, problem_of, unknown_problem
from mmcl.serve.results import write_results
from mmcl.serve.store import RECORDING

__all__ = [
    "Order",
    "Reader",
    "killed",
    "too_much_memory",
    "too_slow",
    "transcript_in",
    "unreadable",
    "work",
]

TRANSCRIPTS = ("transcript.srt", "transcript.vtt", "transcript.txt")
_NICE = 5  # the service itself goes before: it must answer while a file is read
_log = logging.getLogger("mmcl.serve")


class Order(NamedTuple):
    """One job for the workshop.

    Attributes:
        id: Of the job.
        model: Name of the run.
        name: Of the recording, as its owner calls it.
        upload: Folder where it lies.
        result: Folder to write.
        language: Of the speech, where it was said.
    """

    id: str
    model: str
    name: str
    upload: Path
    result: Path
    language: str | None


class Reader:
    """What reads recordings; its models are loaded once, whatever the recipe."""

    def __init__(self) -> None:
        self._models: dict[tuple[str | None, ...], Models] = {}

    def warm(self, recipe: Recipe) -> None:
        """Load the models of a recipe before the first recording comes."""
        models = self._models_of(recipe)
        models.text.encode([["hello"]])
        models.recogniser.hears("en")
        models.tracker.track(())

    def duration(self, path: Path) -> float:
        """Length of a recording in seconds; see :func:`mmcl.media.decode.probe`."""
        return probe(path).duration

    def check(self, path: Path) -> None:
        """Refuse what is not whole; see :func:`mmcl.media.damage.check_whole`."""
        check_whole(path)

    def extractor(self, recipe: Recipe, tell: Callable[[str], None]) -> Extractor:
        """What extracts by a recipe and tells its stages."""
        return Extractor(recipe, self._models_of(recipe), progress=tell)

    def _models_of(self, recipe: Recipe) -> Models:
        key = (recipe.text_model, recipe.speech_model, recipe.face_model)
        return self._models.setdefault(key, Models(recipe))


def work(
    connection: Connection,
    folders: Mapping[str, Path],
    limits: Limits,
    make: Callable[[], Reader] = Reader,
) -> None:
    """The life of the workshop: load, say so, and take jobs until the service is gone.

    Args:
        connection: To the service.
        folders: Run folders by the names of the runs that take recordings.
        limits: Those of a recording.
        make: Makes what reads recordings; another one in tests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us
    end_with_parent()
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
    shop = _Shop(connection, folders, limits, make())
    shop.warm()
    connection.send(("ready", None))
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(shop.fill(order))
        except (BrokenPipeError, OSError):
            return


class _Shop:
    """Runs and models, loaded once, and the recording that is being read."""

    def __init__(
        self,
        connection: Connection,
        folders: Mapping[str, Path],
        limits: Limits,
        reader: Reader,
    ) -> None:
        self.connection, self.limits, self.reader = connection, limits, reader
        self.runs = {name: Run.load(folder) for name, folder in folders.items()}
        self.names = {str(folder): name for name, folder in folders.items()}
        self.stage: str | None = None

    def warm(self) -> None:
        """Load what every recording needs; what cannot be loaded is told to whoever needs it."""
        for run in self.runs.values():
            try:
                self.reader.warm(recipe_of(run, run.folder))
                for seed in run.seeds:
                    run.model(seed)
            except MMCLError as fault:
                _log.warning("%s: %s", run.folder.name, fault)

    def fill(self, order: Order) -> tuple[str, Any]:
        """Do a job, whatever comes of it; the answer."""
        self.stage = None
        names = {
            **self.names,
            str(order.upload): "the upload",
            f'"{RECORDING}"': f'"{order.name}"',
        }
        try:
            return ("done", self._predict(order))
        except MMCLError as fault:
            return ("failed", problem_of(fault, names).model_dump())
        except Exception as fault:
            _log.exception("job %s, %s", order.id, self.stage)
            return ("failed", self._unexpected(order.name, fault).model_dump())

    def _unexpected(self, name: str, fault: Exception) -> Problem:
        """Of the file while it is read, and of ours from then on."""
        if isinstance(fault, MemoryError):
            return problem_of(too_much_memory(name, self.stage))
        if self.stage in ("predict", "write"):
            return unknown_problem()
        return problem_of(unreadable(name, self.stage))

    def _predict(self, order: Order) -> int:
        run, path = self.runs[order.model], order.upload / RECORDING
        self.tell("decode")
        duration = self._checked_duration(path)
        recipe = recipe_of(run, path)
        if order.language is not None:
            recipe = recipe.model_copy(update={"language": order.language})
        timeline = predict_media(
            run,
            path,
            transcript=transcript_in(order.upload),
            extractor=self.reader.extractor(recipe, self.tell),
            progress=self._told,
        )
        self.tell("write")
        named: Timeline = timeline._replace(name=order.name)
        write_results(named, order.result, model=order.model, duration=duration)
        return len(named.clips)

    def _checked_duration(self, path: Path) -> float:
        duration = self.reader.duration(path)
        if duration > self.limits.max_seconds:
            raise ServiceError(
                f'"{path.name}" lasts {duration:.0f} s; expected at most '
                f"{self.limits.max_seconds:g} s.\n"
                f'  Send a part of it: ffmpeg -i "{path.name}" -t {self.limits.max_seconds:g} '
                "-c copy part.mp4",
                status=413,
                kind="too-long",
            )
        self.reader.check(path)
        return duration

    def _told(self, stage: str) -> None:
        if stage == "predicting":
            self.tell("predict")

    def tell(self, stage: str) -> None:
        """Say that a stage begins; the file is opened only once, whatever is read of it later."""
        if stage != self.stage and stage in STAGES and (stage != "decode" or self.stage is None):
            self.stage = stage
            self.connection.send(("stage", stage))


def transcript_in(folder: Path) -> Path | None:
    """What is said in an upload, where it came with it."""
    return next((folder / name for name in TRANSCRIPTS if (folder / name).is_file()), None)


def too_much_memory(name: str, stage: str | None) -> MediaError:
    """That a file needed more memory than it may have."""
    return MediaError(
        f'"{name}" needed more memory than a recording may have ({_while(stage)}), and was given '
        f'up.\n  Make it smaller: ffmpeg -i "{name}" -vf scale=-2:720 smaller.mp4'
    )


def too_slow(name: str, stage: str | None, seconds: float) -> MediaError:
    """That a stage took longer than it may."""
    return MediaError(
        f'"{name}" took more than {seconds:g} s in one stage ({_while(stage)}), and was given up.\n'
        "  Send a shorter one."
    )


def killed(name: str, stage: str | None, how: str) -> MediaError:
    """That the workshop died of a file."""
    return MediaError(
        f'"{name}" ended the process that read it ({_while(stage)}; {how}).\n'
        "  The file may be damaged. Copy, download or record it again."
    )


def unreadable(name: str, stage: str | None) -> MediaError:
    """That a library stumbled over a file."""
    return MediaError(
        f'"{name}" cannot be read ({_while(stage)}): it is damaged, or of a kind nobody expected.\n'
        "  Copy, download or record it again."
    )


def _while(stage: str | None) -> str:
    return STAGES.get(stage or "decode", "opening the file")
