"""Summary of a corpus, with the scores of the best constant prediction."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import is_field_range
from mmcl.corpus.store import Corpus, Split
from mmcl.types import SPLITS, Modality

__all__ = ["constant_scores", "describe", "render"]

# Histogram bins of the field's ranges: half a point, or a fifth of one in -1..1.
WIDE_BIN, NARROW_BIN, NARROW_SPAN = 0.5, 0.2, 2.0
# Of other ranges, such as 1..5 or 0..100: at most so many bins, each of a round width.
MOST_BINS = 12
_ROUND_WIDTHS = (1.0, 2.0, 2.5, 5.0, 10.0)
NEAR_EDGE = 1e-7
"""Share of the range that rounding may move a label by."""

_LENGTHS = ("min", "median", "max")


def describe(corpus: Corpus) -> dict[str, Any]:
    """Summarise a corpus in plain values, ready for JSON.

    Returns:
        Fields of the card; by modality and split ``lengths`` (min, median, max in steps of
        the clips that have it), ``missing`` (clips without it) and ``zero_steps`` (steps of
        zeros, and all steps); by split ``labels`` (a histogram); ``constant``, see
        :func:`constant_scores`.
    """
    card = corpus.card
    splits = [corpus.split("train"), corpus.split("valid"), corpus.open_test_split()]
    splits = [split for split in splits if len(split)]
    lengths, missing, zero_steps = {}, {}, {}
    for m in splits[0].modalities if splits else ():
        lengths[m] = {split.name: _lengths(split, m) for split in splits}
        missing[m] = {split.name: int((split.lengths(m) == 0).sum()) for split in splits}
        zero_steps[m] = {split.name: _zero_steps(split, m) for split in splits}
    return {
        **card.model_dump(
            mode="json",
            include={"name", "task", "dims", "aligned", "counts", "language", "source", "repairs"},
        ),
        "lengths": lengths,
        "missing": missing,
        "zero_steps": zero_steps,
        "labels": {split.name: _histogram(split.labels(), card.task) for split in splits},
        "constant": constant_scores(splits, card.task),
        "notes": list(card.notes),
    }


def _lengths(split: Split, modality: Modality) -> dict[str, float] | None:
    lengths = split.lengths(modality)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return None
    median = float(np.median(lengths))
    return {"min": int(lengths.min()), "median": median, "max": int(lengths.max())}


def _zero_steps(split: Split, modality: Modality) -> dict[str, int]:
    lengths = split.lengths(modality)
    clips = (split.steps(modality, int(row)) for row in np.flatnonzero(lengths))
    zero = sum(int((~steps.any(axis=1)).sum()) for steps in clips)
    return {"zero": zero, "steps": int(lengths.sum())}


def _histogram(labels: NDArray[Any], task: Task) -> dict[str, int]:
    """Count the labels: per class or emotion, or per bin of the score; then those unknown."""
    if task.score_range is None:
        by_clip = labels.reshape(len(labels), -1)
        holds = by_clip == (1 if task.kind == "emotions" else np.arange(len(task.names)))
        counts = dict(zip(task.names, holds.sum(axis=0).tolist(), strict=True))
        unknown = int((by_clip < 0).any(axis=1).sum())
    else:
        low, high = task.score_range
        edges = _bin_edges(low, high)
        known = labels[np.isfinite(labels)].astype(np.float64)
        # Bins are half-open. A float32 label may lie a hair below an edge that it was written as.
        known = np.clip(known + NEAR_EDGE * (high - low), low, high)
        counted, _ = np.histogram(known, bins=edges)
        names = [f"{left:g}..{right:g}" for left, right in pairwise(edges)]
        counts = dict(zip(names, counted.tolist(), strict=True))
        unknown = int(np.isnan(labels).sum())
    return counts | {"unknown": unknown} if unknown else counts


def _bin_edges(low: float, high: float) -> NDArray[np.float64]:
    """Return the edges of a histogram; the last bin is narrower where the range is not round."""
    span = high - low
    if is_field_range(low, high):
        width = WIDE_BIN if span > NARROW_SPAN else NARROW_BIN
        return np.round(np.linspace(low, high, round(span / width) + 1), 6)
    power = 10.0 ** math.floor(math.log10(span / MOST_BINS))
    width = next(w * power for w in _ROUND_WIDTHS if span / (w * power) <= MOST_BINS)
    steps = low + width * np.arange(math.ceil(span / width - NEAR_EDGE))
    return np.append(steps, high)


def constant_scores(splits: list[Split], task: Task) -> dict[str, Any] | None:
    """Score one prediction for all clips, chosen on ``train`` alone: the floor of all models.

    Returns:
        ``prediction`` and its score on every other split: ``mae`` of the training median, or
        ``accuracy`` (0..1) of the most frequent class or of the more frequent answer for each
        emotion. None where the training split has no labels.
    """
    labels = {split.name: _known(split.labels()) for split in splits}
    training = labels.pop("train", np.zeros(0))
    labels = {name: known for name, known in labels.items() if len(known)}
    if not len(training):
        return None
    if task.kind == "regression":
        median = float(np.median(training))
        errors = {name: float(np.abs(known - median).mean()) for name, known in labels.items()}
        return {"prediction": median, "mae": errors}
    if task.kind == "classes":
        common = int(np.bincount(training).argmax())
        accuracy = {name: float((known == common).mean()) for name, known in labels.items()}
        return {"prediction": task.names[common], "accuracy": accuracy}
    answers = (training.mean(axis=0) > 0.5).astype(np.int64)
    right = {name: (known == answers).mean(axis=0).tolist() for name, known in labels.items()}
    return {
        "prediction": dict(zip(task.names, answers.tolist(), strict=True)),
        "accuracy": {n: dict(zip(task.names, shares, strict=True)) for n, shares in right.items()},
    }


def _known(labels: NDArray[Any]) -> NDArray[Any]:
    is_known = np.isfinite(labels) if labels.dtype.kind == "f" else labels >= 0
    known: NDArray[Any] = labels[is_known.all(axis=1) if is_known.ndim == 2 else is_known]
    return known


def render(summary: dict[str, Any]) -> RenderableType:
    """Lay out the result of :func:`describe` for a terminal."""
    splits: list[str] = [name for name in SPLITS if name in summary["counts"]]
    parts: list[RenderableType] = [_headline(summary), _feature_table(summary, splits)]
    parts += [_label_table(summary, splits), *_constant_lines(summary["constant"])]
    for modality, repairs in summary["repairs"].items():
        counted = ", ".join(f"{name} {count}" for name, count in repairs.items())
        parts.append(f"repaired {modality}: {counted}")
    return Group(*parts, *(f"note: {note}" for note in summary["notes"]))


def _headline(summary: dict[str, Any]) -> str:
    task = summary["task"]
    labels = ", ".join(task["names"])
    if task["kind"] == "regression":
        labels = f"{task['low']:g}..{task['high']:g}"
    counts = ", ".join(f"{name} {count}" for name, count in summary["counts"].items())
    kind = "aligned" if summary["aligned"] else "unaligned"
    return f"{summary['name']}: {task['kind']} ({labels}), {kind}; clips: {counts}"


def _feature_table(summary: dict[str, Any], splits: list[str]) -> Table:
    table = Table(title="steps", title_justify="left", box=None, pad_edge=False)
    for heading in ("modality", "width", "split", *_LENGTHS, "missing", "zero"):
        table.add_column(heading, justify="left" if heading in ("modality", "split") else "right")
    for modality, width in summary["dims"].items():
        for split in splits:
            lengths = summary["lengths"][modality][split]
            shown = [f"{lengths[key]:g}" if lengths else "-" for key in _LENGTHS]
            missing = str(summary["missing"][modality][split])
            zero = summary["zero_steps"][modality][split]
            share = f"{zero['zero']} of {zero['steps']}"
            table.add_row(modality, str(width), split, *shown, missing, share)
    return table


def _label_table(summary: dict[str, Any], splits: list[str]) -> Table:
    table = Table(title="labels", title_justify="left", box=None, pad_edge=False)
    table.add_column("label")
    for split in splits:
        table.add_column(split, justify="right")
    labels = dict.fromkeys(label for split in splits for label in summary["labels"][split])
    for label in labels:
        table.add_row(label, *(str(summary["labels"][split].get(label, 0)) for split in splits))
    return table


def _constant_lines(constant: dict[str, Any] | None) -> list[str]:
    if constant is None:
        return ["a constant: not known, since no training clip has a label"]
    if "mae" in constant:
        scores = ", ".join(f"{name} MAE {score:.4f}" for name, score in constant["mae"].items())
        return [f"a constant {constant['prediction']:g} scores: {scores}"]
    if isinstance(constant["prediction"], str):
        scores = ", ".join(f"{n} accuracy {score:.4f}" for n, score in constant["accuracy"].items())
        return [f'always "{constant["prediction"]}" scores: {scores}']
    return [
        f"the more frequent answer per emotion scores: {name} accuracy "
        + ", ".join(f"{emotion} {score:.4f}" for emotion, score in scores.items())
        for name, scores in constant["accuracy"].items()
    ]
