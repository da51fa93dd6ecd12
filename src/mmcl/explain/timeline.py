"""A media file through a trained run: what was said when, how positive, and what drove it.

:func:`predict_media` makes a :class:`Timeline`; the rest turns one into a table, subtitles or
a picture. The page that plays the file is in :mod:`mmcl.explain.timeline_page`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.errors import DatasetError, MediaError, RunError
from mmcl.evaluation.moments import Moments
from mmcl.explain.figures import COLOURS
from mmcl.explain.sentences import (
    NAMES,
    ends,
    hardly,
    label,
    level,
    shared,
    signed,
    strong_words,
    tint,
)
from mmcl.extras import load
from mmcl.media.recipe import Recipe
from mmcl.runs.run import Run
from mmcl.types import MODALITIES

if TYPE_CHECKING:
    from mmcl.media.extract import Extractor

__all__ = [
    "LEAST_STRONG",
    "TINTS",
    "Timeline",
    "clock",
    "draw_timeline",
    "predict_media",
    "recipe_of",
    "subtitles",
    "timeline_table",
]

TINTS = {
    "positive": COLOURS["calibrated"],
    "negative": COLOURS["released"],
    "neutral": "rgb(128, 136, 148)",
}
"""Green and purple: told apart with every kind of colour vision."""

LEAST_STRONG = 3
"""So many times what is worth a word has the full colour, even where nothing is stronger."""

STRONGEST = 3
MOST_LABELLED = 24
"""With more utterances than that, numbers in a picture would lie upon each other."""


class Timeline(NamedTuple):
    """What a run says of a media file.

    Attributes:
        name: Of the file.
        task: What is predicted.
        clips: Its utterances.
        spans: When each starts and ends, in seconds of the file.
        moments: Prediction of each and what drove it.
        error: Mean absolute error of the run on validation; None where it has none.
        notes: What a reader should know.
    """

    name: str
    task: Task
    clips: tuple[Clip, ...]
    spans: tuple[tuple[float, float], ...]
    moments: tuple[Moments, ...]
    error: float | None
    notes: tuple[str, ...]


def predict_media(
    run: Run,
    path: Path,
    *,
    transcript: Path | str | None = None,
    language: str | None = None,
    extractor: Extractor | None = None,
    progress: Callable[[str], None] | None = None,
) -> Timeline:
    """Extract a file by the run's own recipe and predict each of its utterances.

    Args:
        run: Trained on a corpus that ``mmcl extract`` made.
        path: A video or sound file.
        transcript: A file, or what is said; recognised where not given.
        language: Of this file, two letters, where it is not the run's own.
        extractor: One of the run's recipe that is already loaded.
        progress: Told the name of each stage.

    Raises:
        RunError: If the run's features were not extracted by this package.
        MediaError: If the file cannot be read or holds no utterance.
        MissingExtraError: If the extra ``media`` is not installed.
    """
    tell = progress or (lambda stage: None)
    recipe = recipe_of(run, path)
    if language is not None:
        recipe = recipe.model_copy(update={"language": language})
    if extractor is None:
        from mmcl.media.extract import Extractor

        extractor = Extractor(recipe)
    tell("extracting words, voice and face")
    extracted = extractor.extract(path, transcript=transcript)
    if not extracted.clips:
        raise MediaError(
            f'"{path.name}": no utterance was found in it, so there is none to predict.'
        )
    tell("predicting")
    corpus = _corpus(run, path, extracted.clips)
    moments = tuple(run.moments(corpus))
    notes = (*extracted.notes, *_other_versions(run, extractor), *run.notes(corpus))
    return Timeline(
        path.name,
        run.card.task,
        tuple(extracted.clips),
        tuple(extracted.spans),
        moments,
        run.validation_error,
        tuple(dict.fromkeys(notes)),
    )


def recipe_of(run: Run, path: Path) -> Recipe:
    """The recipe that made the features a run was trained on.

    Raises:
        RunError: If there is none, or another version wrote it.
    """
    if "extraction" not in run.card.recipe:
        raise RunError(
            f"{run.folder}: was trained on features that mmcl did not extract, so it cannot "
            f'read "{path.name}".\n'
            "  Train on a corpus made by mmcl extract, or give a corpus with features like its own"
        )
    try:
        return Recipe.model_validate(run.card.recipe["extraction"])
    except ValidationError as fault:
        raise RunError(
            f"{run.folder}: its recipe of extraction has {fault.error_count()} problems, so "
            "another version wrote it.\n"
            "  Make its corpus again with mmcl extract, and train again"
        ) from None


def timeline_table(timeline: Timeline) -> pa.Table:
    """A row per utterance, with its prediction and what drove it."""
    task = timeline.task
    pairs = list(zip(timeline.clips, timeline.moments, strict=True))
    columns: dict[str, Any] = {
        "utterance": list(range(1, len(pairs) + 1)),
        "start": [round(start, 3) for start, _ in timeline.spans],
        "end": [round(end, 3) for _, end in timeline.spans],
        "text": pa.array([clip.text for clip, _ in pairs], pa.string()),
        "prediction": [m.prediction for _, m in pairs],
        "spread": pa.array([m.spread for _, m in pairs], pa.float64()),
        "probability": pa.array([m.probability for _, m in pairs], pa.float64()),
        "missing_modalities": pa.array(
            [[m for m in each.share if m not in each.present] for _, each in pairs],
            pa.list_(pa.string()),
        ),
    }
    for modality in MODALITIES:
        shares = [m.share.get(modality) for _, m in pairs]
        columns[f"share_{modality}"] = pa.array(shares, pa.float64())
    words = [strong_words(task, clip, m)[:STRONGEST] for clip, m in pairs]
    columns["strongest_words"] = pa.array(words, pa.list_(pa.string()))
    return pa.table(columns)


def subtitles(timeline: Timeline) -> str:
    """The utterances as SubRip captions, each with its sentiment before it."""
    captions = []
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    for number, (clip, (start, end), moments) in enumerate(rows, start=1):
        said = " ".join((clip.text or "").split()).replace("-->", "→")
        text = f"[{label(timeline.task, moments)}] {said}".strip()
        captions.append(f"{number}\n{_stamp(start)} --> {_stamp(end)}\n{text}\n")
    return "\n".join(captions)


def clock(seconds: float) -> str:
    """A time of the file as people say it.

    Example:
        >>> clock(7.9), clock(75), clock(3600)
        ('0:07', '1:15', '1:00:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw a timeline as a picture: predictions above, what each modality did below.

    Args:
        timeline: What to draw.
        path: File to write, ``.png``.

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
    figure.suptitle(timeline.name.replace("$", r"\$"), x=0.01, ha="left", fontsize=12)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as fault:
        raise DatasetError(f"{path}: cannot be written ({fault.strerror or fault}).") from None


def _corpus(run: Run, path: Path, clips: list[Clip]) -> Corpus:
    """The clips as a corpus like the run's own, of the widths they really have."""
    widths = {m: steps.shape[1] for clip in clips for m, steps in clip.features.items()}
    changes = {
        "name": path.name,
        "dims": {m: widths.get(m, width) for m, width in run.card.dims.items()},
        "counts": {},
        "notes": (),
    }
    return pack_corpus(run.card.model_copy(update=changes), clips)


def _other_versions(run: Run, extractor: Extractor) -> list[str]:
    """What extracted the file otherwise than the corpus of the run."""
    then = run.card.recipe["extraction"].get("versions", {})
    now = extractor.recipe.versions
    return [
        f"extracted with {name} {now[name]}, the corpus of the run with {then[name]}"
        for name in sorted(then.keys() & now.keys())
        if then[name] != now[name]
    ]


def _stamp(seconds: float) -> str:
    milliseconds = round(1000 * max(seconds, 0.0))
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{whole:02},{milliseconds:03}"


def _draw_predictions(axes: Any, timeline: Timeline) -> None:
    task, error = timeline.task, timeline.error or 0.0
    low, high = ends(task)
    for (start, end), moments in zip(timeline.spans, timeline.moments, strict=True):
        value, spread = level(moments), moments.spread or 0.0
        colour = _rgb(TINTS[tint(task, moments.prediction)])
        band = max(value - error, low), min(value + error, high)
        axes.fill_between([start, end], *band, color=colour, alpha=0.2, linewidth=0)
        axes.plot([start, end], [value, value], color=colour, linewidth=4, solid_capstyle="butt")
        middle = (start + end) / 2
        if spread:
            axes.errorbar(middle, value, yerr=spread, color=colour, capsize=3)
        if len(timeline.clips) <= MOST_LABELLED:
            text = signed(value) if task.kind == "regression" else label(task, moments)
            top = max(value + spread, band[1])
            axes.text(middle, top, text, ha="center", va="bottom", fontsize=8, parse_math=False)
    room = 0.1 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.set_ylabel("sentiment" if task.kind == "regression" else "probability")
    axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    if timeline.error is not None:
        caption = f"band: mean error on validation, ±{error:.2f}"
        axes.set_title(caption, loc="right", fontsize=9, color="0.4")
    _clean(axes)


def _draw_shares(axes: Any, timeline: Timeline) -> None:
    """A row per modality, a cell per utterance: the stronger, the further it moved it."""
    used = [m for m in MODALITIES if any(m in each.share for each in timeline.moments)]
    shares = [abs(share) for each in timeline.moments for share in each.share.values()]
    most = max([LEAST_STRONG * hardly(timeline.task), *shares])
    for (start, end), moments in zip(timeline.spans, timeline.moments, strict=True):
        for row, modality in enumerate(used):
            share = moments.share.get(modality, 0.0)
            kind = "positive" if share > 0 else "negative" if share < 0 else "neutral"
            alpha = 0.08 + 0.7 * abs(share) / most
            cell, rows = [(start, end - start)], (row - 0.42, 0.84)
            axes.broken_barh(cell, rows, color=_rgb(TINTS[kind]), alpha=alpha, linewidth=0)
            if len(timeline.clips) <= MOST_LABELLED:
                text = shared(timeline.task, share) if modality in moments.present else "–"
                axes.text((start + end) / 2, row, text, ha="center", va="center", fontsize=7)
    axes.set_yticks(range(len(used)), [NAMES[m] for m in used])
    axes.set_ylim(len(used) - 0.5, -0.5)
    axes.set_xlabel("time")
    axes.set_title("what each modality changed", loc="left", fontsize=9, color="0.4")
    axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds) if seconds >= 0 else "")
    axes.set_xlim(0, max(end for _, end in timeline.spans))
    _clean(axes)


def _clean(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _rgb(colour: str) -> tuple[float, ...]:
    """``rgb(31, 157, 115)`` as numbers in 0..1."""
    return tuple(int(part) / 255 for part in colour[4:-1].split(","))
