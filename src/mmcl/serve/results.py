"""Results of a recording: its timeline as JSON, as a table, as subtitles and as a page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.evaluation.moments import Moments
from mmcl.evaluation.tables import write_table
from mmcl.explain.sentences import certainty, headline, label, sentence, tint
from mmcl.explain.timeline import subtitles, timeline_table
from mmcl.explain.timeline_means import extremes, means_table, speaker_sentences
from mmcl.explain.timeline_page import timeline_page
from mmcl.files import sync_folder, unfinished_name, write_text
from mmcl.runs.recordings import Timeline
from mmcl.types import MODALITIES, Modality

__all__ = ["FORMATS", "result_of", "task_of", "write_results"]

FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "means.csv": "text/csv; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
"""Media types of the forms of a result, each a file ``result.<form>``."""


def task_of(task: Task) -> dict[str, Any]:
    """Return a task as clients receive it."""
    return {
        "kind": task.kind,
        "low": task.low,
        "high": task.high,
        "classes": list(task.names) if task.kind == "classes" else None,
        "emotions": list(task.names) if task.kind == "emotions" else None,
    }


def result_of(timeline: Timeline, *, model: str, duration: float) -> dict[str, Any]:
    """Return a timeline as JSON; values that the model does not give are null.

    All times are in seconds of the recording, as is its ``duration``. ``rows`` has lists with an
    entry per step of a modality. ``effect`` is how far a step of the text moves the prediction,
    as ``contribution`` is for a word. ``extremes`` has places in ``utterances``.
    """
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    return {
        "model": model,
        "name": timeline.name,
        "duration": duration,
        "task": task_of(timeline.task),
        "error": timeline.error,
        "headline": headline(timeline.task, timeline.moments),
        "notes": list(timeline.notes),
        "speakers": [
            {"name": name, "sentence": said} for name, said in speaker_sentences(timeline)
        ],
        "extremes": extremes(timeline)._asdict(),
        "utterances": [_utterance(timeline, *row) for row in rows],
    }


def write_results(timeline: Timeline, folder: Path, *, model: str, duration: float) -> None:
    """Write a result in every form; the folder is complete or absent.

    The page does not contain the recording, which must not outlive its job.

    Raises:
        DiskError: If the disk has no room for it.
    """
    unfinished = unfinished_name(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    content = result_of(timeline, model=model, duration=duration)
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        write_text(unfinished / "result.json", text)
        write_table(timeline_table(timeline), unfinished / "result.csv")
        write_table(means_table(timeline), unfinished / "result.means.csv")
        write_text(unfinished / "result.srt", subtitles(timeline))
        write_text(unfinished / "result.html", timeline_page(timeline))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
        sync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _utterance(
    timeline: Timeline, clip: Clip, span: tuple[float, float], moments: Moments
) -> dict[str, Any]:
    task = timeline.task
    return {
        "start": span[0],
        "end": span[1],
        "text": clip.text,
        "speaker": clip.speaker,
        "prediction": moments.prediction,
        "spread": moments.spread,
        "probability": moments.probability,
        "probabilities": moments.probabilities or None,
        "label": label(task, moments),
        "tint": tint(task, moments.prediction),
        "certainty": certainty(task, moments, timeline.error),
        "sentence": sentence(task, clip, moments),
        "shares": {m: moments.share.get(m) if m in moments.present else None for m in MODALITIES},
        "words": _words(clip, span, moments),
        "rows": {m: _row(m, clip, span, moments) for m in MODALITIES},
    }


def _words(clip: Clip, span: tuple[float, float], moments: Moments) -> list[dict[str, Any]] | None:
    """Return the words with their times, None where the steps are seconds and not words."""
    words = [word for word in clip.words or () if word.text]
    if not words:
        return None
    shares: list[float | None] = [None] * len(words)
    if len(moments.word_share) == len(words):
        shares = moments.word_share.tolist()
    return [
        {
            "text": word.text,
            "start": _in_recording(word.start, span),
            "end": _in_recording(word.end, span),
            "contribution": share,
        }
        for word, share in zip(words, shares, strict=True)
    ]


def _row(
    modality: Modality, clip: Clip, span: tuple[float, float], moments: Moments
) -> dict[str, Any] | None:
    """Return the values of a modality at each step; a step that was not measured is null."""
    if modality not in moments.commonality:
        return None
    measured = moments.found[modality]
    # Steps of text are words, unless there were none and they are seconds.
    effect: list[float | None] | None = None
    if modality == "text" and len(moments.word_share) == len(measured):
        effect = moments.word_share.tolist()
    return {
        "times": _times(len(measured), clip.words or (), span),
        "commonality": _rounded(moments.commonality[modality], measured),
        "action": _rounded(moments.action[modality], measured),
        "effect": effect,
    }


def _times(
    count: int, words: Sequence[Word], span: tuple[float, float]
) -> list[list[float | None]]:
    """Return start and end of each step: those of its word, or equal parts of the utterance."""
    if count == len(words):
        return [[_in_recording(word.start, span), _in_recording(word.end, span)] for word in words]
    edges = np.linspace(*span, count + 1).round(3).tolist()
    return [[start, end] for start, end in pairwise(edges)]


def _in_recording(time: float | None, span: tuple[float, float]) -> float | None:
    """Convert seconds of the utterance to seconds of the recording."""
    return None if time is None else round(span[0] + time, 3)


def _rounded(values: NDArray[np.float32], measured: NDArray[np.bool_]) -> list[float | None]:
    pairs = zip(values.tolist(), measured.tolist(), strict=True)
    return [round(value, 4) if is_measured else None for value, is_measured in pairs]
