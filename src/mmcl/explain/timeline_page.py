"""The page of a media file: it plays beside its words, and shows what drove each prediction.

One file that asks the network for nothing. A small recording is inside it; a large one is
linked to, and must stay where it is.
"""

from __future__ import annotations

import base64
import math
import mimetypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.evaluation.moments import Moments
from mmcl.explain.figures import COLOURS
from mmcl.explain.page import render_page
from mmcl.explain.sentences import (
    NAMES,
    certainty,
    ends,
    hardly,
    headline,
    label,
    level,
    sentence,
    shared,
    signed,
    tint,
)
from mmcl.explain.timeline import LEAST_STRONG, TINTS, Timeline, clock
from mmcl.types import MODALITIES, Modality

__all__ = ["MOST_EMBEDDED", "timeline_page"]

MOST_EMBEDDED = 25 * 2**20
"""A larger recording, in bytes, is linked to and not put into the page."""

_TOP, _BOTTOM = 6.0, 94.0  # where the ends of the scale lie, in percent of the plot's height


class _Player(NamedTuple):
    kind: str  # video or audio
    source: str
    embedded: bool


class _Cell(NamedTuple):
    """One modality at one word; None where it was not measured."""

    commonality: float | None
    action: float | None


class _Column(NamedTuple):
    """A word, and what each modality had in its time."""

    text: str
    at: float | None  # seconds of the file
    end: float | None
    share: float
    strength: float  # of the share beside the strongest word's, 0..1
    title: str
    cells: list[_Cell]


class _Bar(NamedTuple):
    """What one modality changed: a bar to the left or right of the middle."""

    name: str
    share: float
    text: str
    width: float  # percent of half the bar


class _Utterance(NamedTuple):
    number: int
    start: float
    end: float
    clock: str
    label: str
    tint: str
    certainty: str
    sentence: str
    bars: list[_Bar]
    columns: list[_Column]
    left: float  # percent of the timeline's width
    width: float
    middle: float  # percent of its height
    band: tuple[float, float]  # top and height
    whisker: tuple[float, float] | None


class _Tick(NamedTuple):
    at: float  # percent
    text: str


def timeline_page(
    timeline: Timeline, *, media: Path | None = None, beside: Path | None = None
) -> str:
    """A timeline as one self-contained page.

    Args:
        timeline: What to show.
        media: The recording to play; none is played without it.
        beside: Folder the page will lie in, from which a large recording is linked to; the
            recording's own by default.
    """
    player = None if media is None else _player(media, beside or media.parent)
    used = [m for m in MODALITIES if any(m in each.share for each in timeline.moments)]
    return render_page(
        "timeline.html.j2",
        timeline=timeline,
        player=player,
        lead=headline(timeline.task, timeline.moments),
        rows=[NAMES[m] for m in used],
        utterances=_utterances(timeline, used),
        colours=COLOURS,
        tints=TINTS,
        scored=timeline.task.kind == "regression",
        seeds=any(m.spread is not None for m in timeline.moments),
        levels=_levels(timeline.task),
        times=_times(timeline),
    )


def _player(media: Path, beside: Path) -> _Player:
    mime = mimetypes.guess_type(media.name)[0] or "video/mp4"
    kind = "audio" if mime.startswith("audio/") else "video"
    if media.stat().st_size <= MOST_EMBEDDED:
        content = base64.b64encode(media.read_bytes()).decode()
        return _Player(kind, f"data:{mime};base64,{content}", embedded=True)
    relative = os.path.relpath(media.resolve(), beside.resolve())
    return _Player(kind, quote(Path(relative).as_posix()), embedded=False)


def _utterances(timeline: Timeline, used: Sequence[Modality]) -> list[_Utterance]:
    total = _total(timeline)
    words = [abs(share) for each in timeline.moments for share in each.word_share.tolist()]
    shares = [abs(share) for each in timeline.moments for share in each.share.values()]
    least = LEAST_STRONG * hardly(timeline.task)
    most = max([least, *words]), max([least, *shares])
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    shown = []
    for number, (clip, (start, end), moments) in enumerate(rows, start=1):
        middle, error = level(moments), timeline.error or 0.0
        spread = moments.spread
        shown.append(
            _Utterance(
                number=number,
                start=start,
                end=end,
                clock=clock(start),
                label=label(timeline.task, moments),
                tint=tint(timeline.task, moments.prediction),
                certainty=certainty(moments, timeline.error),
                sentence=sentence(timeline.task, clip, moments),
                bars=_bars(timeline.task, moments, used, most[1]),
                columns=_columns(timeline.task, clip, (start, end), moments, used, most[0]),
                left=100 * start / total,
                width=100 * (end - start) / total,
                middle=_height(timeline.task, middle),
                band=_stretch(timeline.task, middle, error),
                whisker=None if spread is None else _stretch(timeline.task, middle, spread),
            )
        )
    return shown


def _bars(task: Task, moments: Moments, used: Sequence[Modality], most: float) -> list[_Bar]:
    bars = []
    for modality in used:
        share = moments.share.get(modality, 0.0)
        there = modality in moments.present
        text = shared(task, share) if there else "none"
        bars.append(_Bar(NAMES[modality], share, text, 100 * abs(share) / most))
    return bars


def _columns(
    task: Task,
    clip: Clip,
    span: tuple[float, float],
    moments: Moments,
    used: Sequence[Modality],
    most: float,
) -> list[_Column]:
    """A column per word; per second where no word is known."""
    words = clip.words or _seconds(span)
    by_modality = {m: _by_word(m, moments, words, span) for m in used}
    shares = moments.word_share.tolist()
    shares = shares if len(shares) == len(words) else [0.0] * len(words)
    columns = []
    for at, (word, share) in enumerate(zip(words, shares, strict=True)):
        cells = [by_modality[m][at] for m in used]
        columns.append(
            _Column(
                text=word.text or (clock(span[0] + word.start) if word.start is not None else "·"),
                at=None if word.start is None else span[0] + word.start,
                end=None if word.end is None else span[0] + word.end,
                share=share,
                strength=abs(share) / most,
                title=_title(task, word, share, dict(zip(used, cells, strict=True))),
                cells=cells,
            )
        )
    return columns


def _seconds(span: tuple[float, float]) -> tuple[Word, ...]:
    count = max(1, math.ceil(span[1] - span[0]))
    return tuple(Word(text="", start=at, end=at + 1) for at in range(count))


def _by_word(
    modality: Modality, moments: Moments, words: Sequence[Word], span: tuple[float, float]
) -> list[_Cell]:
    """Means of a modality's steps in the time of each word; its own step where it has one."""
    if modality not in moments.found:
        return [_Cell(None, None)] * len(words)
    found = moments.found[modality]
    masks = _step_masks(len(found), words, span)
    arrays = (moments.commonality[modality], moments.action[modality])
    return [_Cell(*(_mean(values, mask & found) for values in arrays)) for mask in masks]


def _step_masks(
    count: int, words: Sequence[Word], span: tuple[float, float]
) -> list[NDArray[np.bool_]]:
    """Which of a modality's steps lie in each word: bool ``[n]`` per word."""
    at = np.arange(count)
    if count == len(words):
        return [at == each for each in at]
    times = (at + 0.5) / count * (span[1] - span[0])  # the middle of each step
    return [
        (times >= word.start) & (times < word.end)
        if word.start is not None and word.end is not None
        else np.zeros(count, dtype=np.bool_)
        for word in words
    ]


def _mean(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    return round(float(values[mask].mean()), 3) if mask.any() else None


def _title(task: Task, word: Word, share: float, cells: dict[Modality, _Cell]) -> str:
    """What is shown on pointing at a word."""
    lines = [f"moved it by {shared(task, share)}"] if word.text else []
    for modality, cell in cells.items():
        if cell.commonality is None or cell.action is None:
            lines.append(f"{NAMES[modality]}: not measured")
        else:
            lines.append(
                f"{NAMES[modality]}: common {cell.commonality:.2f}, kept {cell.action:.2f}"
            )
    return "\n".join(lines)


def _total(timeline: Timeline) -> float:
    return max((end for _, end in timeline.spans), default=0.0) or 1.0


def _height(task: Task, value: float) -> float:
    """Where a value lies, in percent from the top of the plot."""
    low, high = ends(task)
    share = (high - min(max(value, low), high)) / (high - low)
    return _TOP + share * (_BOTTOM - _TOP)


def _stretch(task: Task, middle: float, around: float) -> tuple[float, float]:
    top = _height(task, middle + around)
    return top, _height(task, middle - around) - top


def _levels(task: Task) -> list[_Tick]:
    """Lines across the plot: both ends of the scale and its middle."""
    low, high = ends(task)
    if task.kind != "regression":
        return [_Tick(_height(task, value), f"{value:.0%}") for value in (high, 0.5, low)]
    middle = 0.0 if low < 0 < high else (low + high) / 2
    decimals = 0 if high - low >= 4 else 1
    return [_Tick(_height(task, value), signed(value, decimals)) for value in (high, middle, low)]


def _times(timeline: Timeline) -> list[_Tick]:
    """Some six round times along the plot."""
    total = _total(timeline)
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((each for each in steps if total / each <= 6), 3600)
    return [_Tick(100 * at / total, clock(at)) for at in range(0, math.ceil(total), step)]
