"""What a client gets of a recording: the timeline as JSON, as a table, as subtitles, as a page."""

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
from mmcl.evaluation.tables import write_table, write_text
from mmcl.explain.sentences import certainty, headline, label, sentence, tint
from mmcl.explain.timeline import subtitles, timeline_table
from mmcl.explain.timeline_page import timeline_page
from mmcl.runs.recordings import Timeline
from mmcl.types import MODALITIES, Modality

__all__ = ["FORMATS", "result_of", "task_of", "write_results"]

FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
"""The forms of a result, each a file ``result.<form>``."""


def task_of(task: Task) -> dict[str, Any]:
    """A task as a client reads it."""
    return {
        "kind": task.kind,
        "low": task.low,
        "high": task.high,
        "classes": list(task.names) if task.kind == "classes" else None,
        "emotions": list(task.names) if task.kind == "emotions" else None,
    }


def result_of(timeline: Timeline, *, model: str, duration: float) -> dict[str, Any]:
    """A timeline as JSON; what the model does not say is null.

    All times are in seconds of the recording. ``rows`` has a list entry per step of a
    modality; ``effect`` is how far the step moved the prediction, as ``contribution`` is of a
    word, and only text has it.

    Args:
        timeline: What was found.
        model: Name of the run.
        duration: Of the recording, in seconds.
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
        "utterances": [_utterance(timeline, *row) for row in rows],
    }


def write_results(timeline: Timeline, folder: Path, *, model: str, duration: float) -> None:
    """Write a result in every form; the folder is there whole or not at all.

    The page does not hold the recording: nothing of it outlives its job.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    content = result_of(timeline, model=model, duration=duration)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    write_text(text, unfinished / "result.json")
    write_table(timeline_table(timeline), unfinished / "result.csv")
    write_text(subtitles(timeline), unfinished / "result.srt")
    write_text(timeline_page(timeline), unfinished / "result.html")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def _utterance(
    timeline: Timeline, clip: Clip, span: tuple[float, float], moments: Moments
) -> dict[str, Any]:
    task = timeline.task
    return {
        "start": span[0],
        "end": span[1],
        "text": clip.text,
        "prediction": moments.prediction,
        "spread": moments.spread,
        "probability": moments.probability,
        "probabilities": moments.probabilities or None,
        "label": label(task, moments),
        "tint": tint(task, moments.prediction),
        "certainty": certainty(moments, timeline.error),
        "sentence": sentence(task, clip, moments),
        "shares": {m: moments.share.get(m) if m in moments.present else None for m in MODALITIES},
        "words": _words(clip, span, moments),
        "rows": {m: _row(m, clip, span, moments) for m in MODALITIES},
    }


def _words(clip: Clip, span: tuple[float, float], moments: Moments) -> list[dict[str, Any]] | None:
    """The words with their times; None where there are none, and seconds are no words."""
    words = [word for word in clip.words or () if word.text]
    if not words:
        return None
    shares: list[float | None] = moments.word_share.tolist()
    if len(shares) != len(words):
        shares = [None] * len(words)
    return [
        {
            "text": word.text,
            "start": _at(word.start, span),
            "end": _at(word.end, span),
            "contribution": share,
        }
        for word, share in zip(words, shares, strict=True)
    ]


def _row(
    modality: Modality, clip: Clip, span: tuple[float, float], moments: Moments
) -> dict[str, Any] | None:
    """What one modality had at each of its steps; a step that was not measured is null."""
    if modality not in moments.commonality:
        return None
    found = moments.found[modality]
    effect: list[float | None] | None = None
    if modality == "text" and len(moments.word_share) == len(found):
        effect = moments.word_share.tolist()
    return {
        "times": _times(len(found), clip.words or (), span),
        "commonality": _measured(moments.commonality[modality], found),
        "action": _measured(moments.action[modality], found),
        "effect": effect,
    }


def _times(
    count: int, words: Sequence[Word], span: tuple[float, float]
) -> list[list[float | None]]:
    """Start and end of each step: those of the words where there is one for each."""
    if count == len(words):
        return [[_at(word.start, span), _at(word.end, span)] for word in words]
    edges = np.linspace(*span, count + 1).round(3).tolist()
    return [[start, end] for start, end in pairwise(edges)]


def _at(time: float | None, span: tuple[float, float]) -> float | None:
    """A time of the utterance as one of the recording."""
    return None if time is None else round(span[0] + time, 3)


def _measured(values: NDArray[np.float32], found: NDArray[np.bool_]) -> list[float | None]:
    pairs = zip(values.tolist(), found.tolist(), strict=True)
    return [round(value, 4) if there else None for value, there in pairs]
