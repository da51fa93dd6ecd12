"""The timeline of a recording as a table, as subtitles and as a picture.

:mod:`mmcl.explain.timeline_page` makes the page that plays the recording.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcl.corpus.score_range import neutral_score
from mmcl.errors import DatasetError
from mmcl.explain import sentences
from mmcl.explain.figures import COLOURS, NEUTRAL
from mmcl.extras import load
from mmcl.files import complete_file
from mmcl.runs.recordings import Timeline
from mmcl.types import MODALITIES

__all__ = ["LEAST_STRONG", "TINTS", "clock", "draw_timeline", "subtitles", "tick_times"]
__all__ += ["timeline_table"]

TINTS = {"positive": COLOURS["calibrated"], "negative": COLOURS["released"], "neutral": NEUTRAL}
"""Green and purple: told apart with every kind of colour vision."""

LEAST_STRONG = 3
"""Multiple of the smallest change worth a word from which a colour may be full."""

NUM_STRONGEST_WORDS = 3
MOST_LABELLED = 24
"""With more utterances than this, the numbers and caps of a picture would overlap."""

_MOST_TICKS = 6
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


def timeline_table(timeline: Timeline) -> pa.Table:
    """Make a table with a row per utterance: its prediction and what drove it."""
    task, moments = timeline.task, timeline.moments
    texts = pa.list_(pa.string())
    columns: dict[str, Any] = {
        "utterance": list(range(1, len(moments) + 1)),
        "start": [round(start, 3) for start, _ in timeline.spans],
        "end": [round(end, 3) for _, end in timeline.spans],
        "text": pa.array([clip.text for clip in timeline.clips], pa.string()),
        "speaker": pa.array([clip.speaker for clip in timeline.clips], pa.string()),
        "prediction": [m.prediction for m in moments],
        "spread": pa.array([m.spread for m in moments], pa.float64()),
        "probability": pa.array([m.probability for m in moments], pa.float64()),
        "missing_modalities": pa.array(
            [[name for name in m.share if name not in m.present] for m in moments], texts
        ),
    }
    for modality in MODALITIES:
        shares = [m.share.get(modality) for m in moments]
        columns[f"share_{modality}"] = pa.array(shares, pa.float64())
    words = [
        sentences.strong_words(task, clip, m)[:NUM_STRONGEST_WORDS]
        for clip, m in zip(timeline.clips, moments, strict=True)
    ]
    columns["strongest_words"] = pa.array(words, texts)
    return pa.table(columns)


def subtitles(timeline: Timeline) -> str:
    """Return the utterances as SubRip captions, each after its sentiment."""
    captions = []
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    for number, (clip, (start, end), moments) in enumerate(rows, start=1):
        # An arrow or an empty line inside the text would end the caption.
        text = " ".join((clip.text or "").split()).replace("-->", "→")
        speaker = f"{' '.join(clip.speaker.split())}: " if clip.speaker else ""
        line = f"[{sentences.label(timeline.task, moments)}] {speaker}{text}".strip()
        captions.append(f"{number}\n{_timestamp(start)} --> {_timestamp(end)}\n{line}\n")
    return "\n".join(captions)


def clock(seconds: float) -> str:
    """Return a time of the recording as people say it.

    Example:
        >>> clock(7.9), clock(75), clock(3600)
        ('0:07', '1:15', '1:00:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tick_times(total: float) -> list[int]:
    """Return round times along an axis of ``total`` seconds, no two of which read alike.

    Example:
        >>> tick_times(3.0), tick_times(3600.0)
        ([0, 1, 2], [0, 600, 1200, 1800, 2400, 3000])
    """
    step = next((s for s in _TICK_SECONDS if total / s <= _MOST_TICKS), _TICK_SECONDS[-1])
    return list(range(0, math.ceil(total), step))


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw a timeline as a picture: predictions above, the effect of each modality below.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        DatasetError: If the file cannot be written.
    """
    figure = load("matplotlib.figure", "drawing a timeline").Figure(
        figsize=(10, 5), dpi=150, layout="constrained"
    )
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    _draw_predictions(upper, timeline)
    _draw_shares(lower, timeline)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    # A dollar sign would start a formula.
    figure.suptitle(timeline.name.replace("$", r"\$"), x=0.01, ha="left", fontsize=12)
    try:
        with complete_file(path) as unfinished:
            figure.savefig(unfinished)
    except OSError as fault:
        raise DatasetError(f"{path}: cannot be written ({fault.strerror or fault}).") from None


def _timestamp(seconds: float) -> str:
    """Return a time as SubRip writes it: ``01:02:03,004``."""
    total, milliseconds = divmod(round(1000 * max(seconds, 0.0)), 1000)
    minutes, rest = divmod(total, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02},{milliseconds:03}"


def _draw_predictions(axes: Any, timeline: Timeline) -> None:
    task, error = timeline.task, timeline.error or 0.0
    low, high = sentences.ends(task)
    is_labelled = len(timeline.clips) <= MOST_LABELLED
    for (start, end), moments in zip(timeline.spans, timeline.moments, strict=True):
        value, spread = sentences.level(moments), moments.spread or 0.0
        colour = _as_floats(TINTS[sentences.tint(task, moments.prediction)])
        band = max(value - error, low), min(value + error, high)
        axes.fill_between([start, end], *band, color=colour, alpha=0.2, linewidth=0)
        axes.plot([start, end], [value, value], color=colour, linewidth=4, solid_capstyle="butt")
        middle = (start + end) / 2
        if spread:
            axes.errorbar(middle, value, yerr=spread, color=colour, capsize=3 * is_labelled)
        if is_labelled:
            text = sentences.label(task, moments)
            if task.kind == "regression":  # the colour says the rest
                text = sentences.score_text(task, value)
            top = max(value + spread, band[1])
            axes.text(middle, top, text, ha="center", va="bottom", fontsize=8, parse_math=False)
    margin = 0.1 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel("sentiment" if task.kind == "regression" else "probability")
    neutral = neutral_score(low, high) if task.kind == "regression" else 0.0
    axes.axhline(neutral, color="0.6", linewidth=0.8, zorder=0)
    if timeline.error is not None:
        caption = f"band: mean error on validation, ±{error:.2f}"
        axes.set_title(caption, loc="right", fontsize=9, color="0.4")


def _draw_shares(axes: Any, timeline: Timeline) -> None:
    """Draw a row per modality and a cell per utterance; a strong colour is a large effect."""
    used = [m for m in MODALITIES if any(m in moments.share for moments in timeline.moments)]
    shares = [abs(share) for moments in timeline.moments for share in moments.share.values()]
    largest = max([LEAST_STRONG * sentences.hardly(timeline.task), *shares])
    for (start, end), moments in zip(timeline.spans, timeline.moments, strict=True):
        for row, modality in enumerate(used):
            share = moments.share.get(modality, 0.0)
            kind = sentences.direction(timeline.task, share)
            strength = 0.0 if kind == "neutral" else abs(share) / largest
            alpha = 0.08 + 0.7 * strength
            cell, rows = [(start, end - start)], (row - 0.42, 0.84)
            axes.broken_barh(cell, rows, color=_as_floats(TINTS[kind]), alpha=alpha, linewidth=0)
            if len(timeline.clips) <= MOST_LABELLED:
                text = (
                    sentences.shared(timeline.task, share) if modality in moments.present else "–"
                )
                axes.text((start + end) / 2, row, text, ha="center", va="center", fontsize=7)
    axes.set_yticks(range(len(used)), [sentences.NAMES[m] for m in used])
    axes.set_ylim(len(used) - 0.5, -0.5)
    axes.set_xlabel("time")
    axes.set_title("effect of each modality", loc="left", fontsize=9, color="0.4")
    total = max(end for _, end in timeline.spans)
    ticks = tick_times(total)
    axes.set_xticks(ticks, [clock(seconds) for seconds in ticks])
    axes.set_xlim(0, total)


def _as_floats(colour: str) -> tuple[float, ...]:
    """Return ``rgb(31, 157, 115)`` as numbers in 0..1, as matplotlib wants them."""
    return tuple(int(part) / 255 for part in colour[4:-1].split(","))
