"""What a corpus holds, and what knowing nothing but its labels would score on it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table

from mmcl.corpus.schema import Task
from mmcl.corpus.store import Corpus, Split
from mmcl.types import SPLITS, Modality

__all__ = ["describe", "render"]

# Histogram bins: half a point, or a fifth of one where labels lie in -1..1.
WIDE_BIN, NARROW_BIN, NARROW_SPAN = 0.5, 0.2, 2.0


def describe(corpus: Corpus) -> dict[str, Any]:
    """Summarise a corpus in plain values, ready for JSON.

    Args:
        corpus: An opened corpus.

    Returns:
        ``name``, ``task``, ``dims``, ``aligned``, ``counts``, ``language`` and ``source`` of
        the card; ``lengths`` (min, median, max in steps of the clips that have the
        modality), ``missing`` (clips without it) and ``zero_steps`` (all-zero steps and
        steps in all), by modality and split; ``labels`` (a histogram by split);
        ``constant`` (see :func:`constant_scores`), ``repairs`` and ``notes``.
    """
    card = corpus.card
    splits = _splits(corpus)
    modalities = splits[0].modalities if splits else ()
    return {
        **card.model_dump(
            mode="json",
            include={"name", "task", "dims", "aligned", "counts", "language", "source", "repairs"},
        ),
        "lengths": {m: {s.name: _lengths(s, m) for s in splits} for m in modalities},
        "missing": {
            m: {s.name: int((s.lengths(m) == 0).sum()) for s in splits} for m in modalities
        },
        "zero_steps": {m: {s.name: _zero_steps(s, m) for s in splits} for m in modalities},
        "labels": {s.name: _histogram(s.labels(), card.task) for s in splits},
        "constant": constant_scores(splits, card.task),
        "notes": list(card.notes),
    }


def _splits(corpus: Corpus) -> list[Split]:
    every = [corpus.split("train"), corpus.split("valid"), corpus.open_test_split()]
    return [split for split in every if len(split)]


def _lengths(split: Split, modality: Modality) -> dict[str, float] | None:
    lengths = split.lengths(modality)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return None
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
    }


def _zero_steps(split: Split, modality: Modality) -> dict[str, int]:
    lengths = split.lengths(modality)
    zero = sum(
        int((~split.steps(modality, int(row)).any(axis=1)).sum()) for row in np.flatnonzero(lengths)
    )
    return {"zero": zero, "steps": int(lengths.sum())}


def _histogram(labels: NDArray[Any], task: Task) -> dict[str, int]:
    if task.kind == "emotions":
        counts = {name: int((labels[:, at] == 1).sum()) for at, name in enumerate(task.names)}
        return counts | _unknown(int((labels < 0).any(axis=1).sum()))
    if task.kind == "classes":
        counts = {name: int((labels == at).sum()) for at, name in enumerate(task.names)}
        return counts | _unknown(int((labels < 0).sum()))
    low, high = _bounds(task)
    width = WIDE_BIN if high - low > NARROW_SPAN else NARROW_BIN
    edges = np.linspace(low, high, round((high - low) / width) + 1)
    known = np.clip(labels[np.isfinite(labels)], low, high)
    # Half-open bins; a float32 label a hair below an edge belongs to it.
    counted, _ = np.histogram(np.round(known, 6), bins=np.round(edges, 6))
    names = [f"{a:g}..{b:g}" for a, b in pairwise(np.round(edges, 6))]
    counts = dict(zip(names, counted.tolist(), strict=True))
    return counts | _unknown(int(np.isnan(labels).sum()))


def _unknown(count: int) -> dict[str, int]:
    return {"unknown": count} if count else {}


def _bounds(task: Task) -> tuple[float, float]:
    if task.low is None or task.high is None:
        raise TypeError("a regression task has bounds")
    return task.low, task.high


def constant_scores(splits: list[Split], task: Task) -> dict[str, Any] | None:
    """What one prediction for all clips would score: the floor under every model.

    Args:
        splits: The splits; the prediction is chosen on ``train`` alone.
        task: What is predicted.

    Returns:
        ``prediction`` and the score of every other split: ``mae`` of the training median
        for regression, ``accuracy`` of the commonest class, or of the commoner answer for
        each emotion, in 0..1. None where the training split has no labels.
    """
    labels = {split.name: _known(split.labels()) for split in splits}
    training = labels.pop("train", np.zeros(0))
    if not len(training):
        return None
    if task.kind == "regression":
        median = float(np.median(training))
        scores = {n: float(np.abs(v - median).mean()) for n, v in labels.items() if len(v)}
        return {"prediction": median, "mae": scores}
    if task.kind == "classes":
        commonest = int(np.bincount(training).argmax())
        scores = {n: float((v == commonest).mean()) for n, v in labels.items() if len(v)}
        return {"prediction": task.names[commonest], "accuracy": scores}
    usual = (training.mean(axis=0) > 0.5).astype(np.int64)
    return {
        "prediction": dict(zip(task.names, usual.tolist(), strict=True)),
        "accuracy": {
            n: dict(zip(task.names, (v == usual).mean(axis=0).tolist(), strict=True))
            for n, v in labels.items()
            if len(v)
        },
    }


def _known(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind == "f":
        finite: NDArray[Any] = labels[np.isfinite(labels)]
        return finite
    rows = labels >= 0
    kept: NDArray[Any] = labels[rows.all(axis=1) if rows.ndim == 2 else rows]
    return kept


def render(summary: dict[str, Any]) -> RenderableType:
    """Lay out what :func:`describe` found for a terminal."""
    splits: list[str] = [name for name in SPLITS if name in summary["counts"]]
    parts: list[RenderableType] = [_headline(summary), _feature_table(summary, splits)]
    parts.append(_label_table(summary, splits))
    parts += _constant_lines(summary["constant"])
    for modality, found in summary["repairs"].items():
        counted = ", ".join(f"{name} {count}" for name, count in found.items())
        parts.append(f"repaired {modality}: {counted}")
    parts += [f"note: {note}" for note in summary["notes"]]
    return Group(*parts)


def _headline(summary: dict[str, Any]) -> str:
    task = summary["task"]
    labels = (
        f"{task['low']:g}..{task['high']:g}"
        if task["kind"] == "regression"
        else ", ".join(task["names"])
    )
    counts = ", ".join(f"{name} {count}" for name, count in summary["counts"].items())
    kind = "aligned" if summary["aligned"] else "unaligned"
    return f"{summary['name']}: {task['kind']} ({labels}), {kind}; clips: {counts}"


def _feature_table(summary: dict[str, Any], splits: list[str]) -> Table:
    table = Table(title="steps", title_justify="left", box=None, pad_edge=False)
    for heading in ("modality", "width", "split", "min", "median", "max", "missing", "zero"):
        table.add_column(heading, justify="left" if heading in ("modality", "split") else "right")
    for modality, width in summary["dims"].items():
        for split in splits:
            lengths = summary["lengths"][modality][split] or dict.fromkeys(_LENGTHS, "-")
            zero = summary["zero_steps"][modality][split]
            table.add_row(
                modality,
                str(width),
                split,
                *(f"{lengths[key]:g}" if lengths[key] != "-" else "-" for key in _LENGTHS),
                str(summary["missing"][modality][split]),
                f"{zero['zero']} of {zero['steps']}",
            )
    return table


_LENGTHS = ("min", "median", "max")


def _label_table(summary: dict[str, Any], splits: list[str]) -> Table:
    table = Table(title="labels", title_justify="left", box=None, pad_edge=False)
    table.add_column("label")
    for split in splits:
        table.add_column(split, justify="right")
    rows = list(dict.fromkeys(row for split in splits for row in summary["labels"][split]))
    for row in rows:
        table.add_row(row, *(str(summary["labels"][split].get(row, 0)) for split in splits))
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
        f"the commoner answer to each scores: {name} accuracy "
        + ", ".join(f"{emotion} {score:.4f}" for emotion, score in scores.items())
        for name, scores in constant["accuracy"].items()
    ]
