"""The page of a recording: player, words, and what drove each prediction.

It is one file that asks the network for nothing. A small recording is inside it; a large one
is linked to and must stay where it is.
"""

from __future__ import annotations

import base64
import math
import mimetypes
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.corpus.score_range import neutral_score
from mmcl.errors import MediaError, MissingExtraError
from mmcl.evaluation.moments import Moments
from mmcl.explain import sentences
from mmcl.explain.figures import COLOURS
from mmcl.explain.page import render_page
from mmcl.explain.timeline import LEAST_STRONG, TINTS, clock, tick_times
from mmcl.explain.timeline_means import extremes, speaker_sentences
from mmcl.media.containers.decode import probe
from mmcl.runs.recordings import Timeline
from mmcl.types import MODALITIES, Modality

__all__ = ["MOST_EMBEDDED", "timeline_page"]

MOST_EMBEDDED = 25 * 2**20
"""Size in bytes from which a recording is linked to and not embedded."""

_TOP, _BOTTOM = 6.0, 94.0  # ends of the scale, in percent of the plot's height

_Span = tuple[float, float]  # start and end in seconds
_Cell = tuple[float | None, float | None]  # commonality and action; None: not measured


def timeline_page(
    timeline: Timeline, *, media: Path | None = None, beside: Path | None = None
) -> str:
    """Return a timeline as one self-contained page.

    Args:
        timeline: The timeline to show.
        media: The recording to play; without it the page has no player.
        beside: Folder of the page, from which a large recording is linked to; by default the
            recording's own.
    """
    used = [m for m in MODALITIES if any(m in moments.share for moments in timeline.moments)]
    total = _duration(timeline, media)
    utterances = _utterances(timeline, used, total)
    return render_page(
        "timeline.html.j2",
        timeline=timeline,
        player=None if media is None else _player(media, beside or media.parent),
        lead=sentences.headline(timeline.task, timeline.moments),
        rows=[sentences.NAMES[m] for m in used],
        utterances=utterances,
        extremes={
            kind: [utterances[index] for index in indices]
            for kind, indices in extremes(timeline)._asdict().items()
        },
        speakers=speaker_sentences(timeline),
        colours=COLOURS,
        tints=TINTS,
        scored=timeline.task.kind == "regression",
        seeds=any(m.spread is not None for m in timeline.moments),
        levels=_levels(timeline.task),
        times=_times(total),
        total=total,
    )


def _player(media: Path, beside: Path) -> dict[str, Any]:
    """Return the player's element and source: the recording itself, or a link if it is large."""
    mime = mimetypes.guess_type(media.name)[0] or "video/mp4"
    embedded = media.stat().st_size <= MOST_EMBEDDED
    if embedded:
        source = f"data:{mime};base64,{base64.b64encode(media.read_bytes()).decode()}"
    else:
        source = quote(Path(os.path.relpath(media.resolve(), beside.resolve())).as_posix())
    kind = "audio" if mime.startswith("audio/") else "video"
    return {"kind": kind, "source": source, "embedded": embedded}


def _utterances(timeline: Timeline, used: Sequence[Modality], total: float) -> list[dict[str, Any]]:
    """Return the utterances as the template shows them; places are percent of the plot."""
    task = timeline.task
    # Colours and bars are relative to the strongest effect of the whole recording.
    least = LEAST_STRONG * sentences.hardly(task)
    strongest_word = max([least, *(abs(x) for m in timeline.moments for x in m.word_share)])
    strongest = max([least, *(abs(x) for m in timeline.moments for x in m.share.values())])
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    utterances = []
    for number, (clip, (start, end), moments) in enumerate(rows, start=1):
        value, spread = sentences.level(moments), moments.spread
        utterances.append(
            {
                "number": number,
                "start": start,
                "end": end,
                "clock": clock(start),
                "speaker": clip.speaker,
                "text": clip.text,
                "label": sentences.label(task, moments),
                "tint": sentences.tint(task, moments.prediction),
                "certainty": sentences.certainty(task, moments, timeline.error),
                "sentence": sentences.sentence(task, clip, moments),
                "bars": _bars(task, moments, used, strongest),
                "columns": _columns(task, clip, (start, end), moments, used, strongest_word),
                "left": 100 * start / total,
                "width": 100 * (end - start) / total,
                "middle": _height(task, value),
                "band": _stretch(task, value, timeline.error or 0.0),
                "whisker": None if spread is None else _stretch(task, value, spread),
            }
        )
    return utterances


def _bars(
    task: Task, moments: Moments, used: Sequence[Modality], strongest: float
) -> list[dict[str, Any]]:
    """Return the effect of each modality; widths are percent of half the bar."""
    bars = []
    for modality in used:
        share = moments.share.get(modality, 0.0)
        text = sentences.shared(task, share) if modality in moments.present else "none"
        tint = sentences.direction(task, share)
        width = 0.0 if tint == "neutral" else 100 * abs(share) / strongest
        bars.append({"name": sentences.NAMES[modality], "tint": tint, "text": text, "width": width})
    return bars


def _columns(
    task: Task,
    clip: Clip,
    span: _Span,
    moments: Moments,
    used: Sequence[Modality],
    strongest: float,
) -> list[dict[str, Any]]:
    """Return a column per word, or per second where no word is known."""
    words = clip.words or tuple(
        Word(text="", start=second, end=second + 1)
        for second in range(max(1, math.ceil(span[1] - span[0])))
    )
    cells = {m: _cells(m, moments, words, span) for m in used}
    shares = moments.word_share.tolist()
    if len(shares) != len(words):  # the steps of the text are not its words
        shares = [0.0] * len(words)
    columns = []
    for index, (word, share) in enumerate(zip(words, shares, strict=True)):
        start = None if word.start is None else span[0] + word.start
        columns.append(
            {
                "text": word.text or ("·" if start is None else clock(start)),
                "at": start,
                "end": None if word.end is None else span[0] + word.end,
                "share": share,
                "strength": abs(share) / strongest,
                "title": _title(task, word, share, {m: cells[m][index] for m in used}),
                "cells": [cells[m][index] for m in used],
            }
        )
    return columns


def _cells(modality: Modality, moments: Moments, words: Sequence[Word], span: _Span) -> list[_Cell]:
    """Average the measured steps of a modality during each word."""
    if modality not in moments.found:
        return [(None, None)] * len(words)
    found = moments.found[modality]
    commonality, action = moments.commonality[modality], moments.action[modality]
    return [
        (_mean(commonality, mask & found), _mean(action, mask & found))
        for mask in _step_masks(len(found), words, span)
    ]


def _step_masks(num_steps: int, words: Sequence[Word], span: _Span) -> Iterator[NDArray[np.bool_]]:
    """Yield the steps of a modality that lie in each word: bool ``[n]`` per word."""
    steps = np.arange(num_steps)
    if num_steps == len(words):  # a step per word
        yield from (steps == index for index in steps)
        return
    times = (steps + 0.5) / num_steps * (span[1] - span[0])  # the middle of each step
    for word in words:
        if word.start is not None and word.end is not None:
            yield (times >= word.start) & (times < word.end)
        else:
            yield np.zeros(num_steps, dtype=np.bool_)


def _mean(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    return round(float(values[mask].mean()), 3) if mask.any() else None


def _title(task: Task, word: Word, share: float, cells: dict[Modality, _Cell]) -> str:
    """Return the text shown when a reader points at a word."""
    lines = [f"moved it by {sentences.shared(task, share)}"] if word.text else []
    for modality, (common, kept) in cells.items():
        measured = common is not None and kept is not None
        values = f"common {common:.2f}, kept {kept:.2f}" if measured else "not measured"
        lines.append(f"{sentences.NAMES[modality]}: {values}")
    return "\n".join(lines)


def _duration(timeline: Timeline, media: Path | None) -> float:
    """Return the length of the time axis in seconds, which is the recording's if it is known."""
    end = max((end for _, end in timeline.spans), default=0.0)
    if media is not None:
        with suppress(MediaError, MissingExtraError):  # then the last utterance ends the axis
            end = max(end, probe(media).duration)
    return end or 1.0


def _height(task: Task, value: float) -> float:
    """Return the place of a value, in percent from the top of the plot."""
    low, high = sentences.ends(task)
    share = (high - min(max(value, low), high)) / (high - low)
    return _TOP + share * (_BOTTOM - _TOP)


def _stretch(task: Task, middle: float, around: float) -> tuple[float, float]:
    """Return top and height of an interval, in percent."""
    top = _height(task, middle + around)
    return top, _height(task, middle - around) - top


def _levels(task: Task) -> list[dict[str, Any]]:
    """Return the horizontal lines: both ends of the scale and its neutral score."""
    low, high = sentences.ends(task)
    values = (high, neutral_score(low, high), low)
    return [{"at": _height(task, value), "text": _level_name(task, value)} for value in values]


def _level_name(task: Task, value: float) -> str:
    if task.kind != "regression":
        return f"{value:.0%}"
    low, high = sentences.ends(task)
    if low >= 0:
        return f"{value:g}"
    return sentences.signed(value, 0 if high - low >= 4 else 1)


def _times(total: float) -> list[dict[str, Any]]:
    """Return round times along the plot."""
    return [{"at": 100 * time / total, "text": clock(time)} for time in tick_times(total)]
