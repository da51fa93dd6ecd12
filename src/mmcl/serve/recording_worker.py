"""Recordings read and predicted, in the worker's process.

The process may die of a file at any moment; only that file's job is lost with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mmcl.errors import MediaError, MMCLError
from mmcl.media.containers.damage import check_whole
from mmcl.media.containers.decode import probe
from mmcl.media.extract import Extractor, Models
from mmcl.media.recipe import Recipe
from mmcl.runs.recordings import Timeline, predict_media, recipe_of
from mmcl.runs.run import Run
from mmcl.serve.jobs import STAGES, Job
from mmcl.serve.limits import Limits
from mmcl.serve.problems import Problem, ServiceError, problem_of, unknown_problem
from mmcl.serve.results import write_results
from mmcl.serve.store import RECORDING

__all__ = ["Reader", "RecordingWorker", "during", "out_of_memory"]

_TRANSCRIPTS = ("transcript.srt", "transcript.vtt", "transcript.txt")
_NICE = 5  # lower priority than the service, which must answer while a file is read
_M_ARENA_MAX = -8  # mallopt's number of the option
_log = logging.getLogger("mmcl.serve")


class Reader:
    """Reads recordings. Models that several recipes share are loaded once."""

    def __init__(self) -> None:
        self._models: dict[tuple[str | None, ...], Models] = {}

    def warm(self, recipe: Recipe) -> None:
        """Load the models of a recipe before the first recording comes."""
        models = self._models_of(recipe)
        models.text.encode([["hello"]])
        models.recogniser.hears("en")
        models.tracker.track(())

    def duration(self, path: Path) -> float:
        """Return the length of a recording in seconds."""
        return probe(path).duration

    def check(self, path: Path) -> None:
        """Refuse a damaged recording; see :func:`mmcl.media.containers.damage.check_whole`."""
        check_whole(path)

    def extractor(self, recipe: Recipe, on_stage: Callable[[str], None]) -> Extractor:
        """Return an extractor that reports its stages."""
        return Extractor(recipe, self._models_of(recipe), progress=on_stage)

    def _models_of(self, recipe: Recipe) -> Models:
        key = (recipe.text_model, recipe.speech_model, recipe.face_model)
        return self._models.setdefault(key, Models(recipe))


class RecordingWorker:
    """Runs and media models, loaded once, and the recording that is being read."""

    def __init__(
        self,
        on_stage: Callable[[str], None],
        folders: Mapping[str, Path],
        limits: Limits,
        make_reader: Callable[[], Reader] = Reader,
    ) -> None:
        with suppress(OSError, AttributeError):
            os.nice(_NICE)
        _share_one_heap()
        self._on_stage, self._limits, self._reader = on_stage, limits, make_reader()
        self._runs = {name: Run.load(folder, name) for name, folder in folders.items()}
        self._names = {str(folder): name for name, folder in folders.items()}
        self._stage: str | None = None
        for run in self._runs.values():
            try:
                self._reader.warm(recipe_of(run, run.folder))
                for seed in run.seeds:
                    run.model(seed)
            except MMCLError as fault:  # the first job that needs the model fails with this text
                _log.warning("%s: %s", run.name, fault)

    def predict(self, job: Job, upload: Path, result: Path) -> int | Problem:
        """Predict the recording in one folder and write its result to another.

        Returns:
            The number of utterances, or why the recording cannot be predicted.
        """
        try:
            return self._predict(job, upload, result)
        except MMCLError as fault:
            # The client knows neither the folders of this machine nor the upload's own name.
            known = {str(upload): "the upload", f'"{RECORDING}"': f'"{job.name}"'}
            return problem_of(fault, {**self._names, **known})
        except MemoryError:
            return problem_of(out_of_memory(job.name, self._stage))
        except Exception:
            _log.exception("job %s, %s", job.id, self._stage)
            # While the file is read the fault lies with the file, afterwards with us.
            if self._stage in ("predict", "write"):
                return unknown_problem()
            return problem_of(_unreadable(job.name, self._stage))

    def _predict(self, job: Job, upload: Path, result: Path) -> int:
        run, path = self._runs[job.model], upload / RECORDING
        self._stage = None
        self._begin("decode")
        duration = self._reader.duration(path)
        limit = self._limits.max_seconds
        if duration > limit:
            raise ServiceError(
                f'"{path.name}" lasts {duration:.0f} s; expected at most {limit:g} s.\n'
                f'  Send a part of it: ffmpeg -i "{path.name}" -t {limit:g} -c copy part.mp4',
                status=413,
                kind="too-long",
            )
        self._reader.check(path)
        recipe = recipe_of(run, path)
        if job.language is not None:
            recipe = recipe.model_copy(update={"language": job.language})
        transcripts = [upload / name for name in _TRANSCRIPTS]
        timeline = predict_media(
            run,
            path,
            transcript=next(filter(Path.is_file, transcripts), None),
            extractor=self._reader.extractor(recipe, self._begin),
            progress=lambda stage: self._begin("predict") if stage == "predicting" else None,
        )
        self._begin("write")
        named: Timeline = timeline._replace(name=job.name)
        write_results(named, result, model=job.model, duration=duration)
        return len(named.clips)

    def _begin(self, stage: str) -> None:
        """Report a new stage; decoding goes on during later ones, and is reported once."""
        if stage != self._stage and stage in STAGES and (stage != "decode" or self._stage is None):
            self._stage = stage
            self._on_stage(stage)


def _share_one_heap() -> None:
    """Let all threads of this process allocate from one heap, where the system is glibc.

    By default every thread has its own. They fill with gaps, so that the process grows by some
    megabytes for every hundred recordings, without an object more; with one heap it does not.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def during(stage: str | None) -> str:
    """Return the words for a stage of a job, None for the time before the first."""
    return STAGES[stage or "decode"]


def out_of_memory(name: str, stage: str | None) -> MediaError:
    """Return the error of a recording that needs too much memory."""
    return MediaError(
        f'"{name}" needs more memory than a recording may use ({during(stage)}).\n'
        f'  Make it smaller: ffmpeg -i "{name}" -vf scale=-2:720 smaller.mp4'
    )


def _unreadable(name: str, stage: str | None) -> MediaError:
    return MediaError(
        f'"{name}" cannot be read ({during(stage)}): it is damaged, or of an unknown kind.\n'
        "  Copy, download or record it again."
    )
