"""The section of a single run: its metrics, how each seed trained, and what it predicted.

It reads the files of a run folder as :mod:`mmcl.runs.run` lists them. No network is loaded
and nothing is predicted again.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from pyarrow import parquet

from mmcl.evaluation.metrics import metric_name
from mmcl.explain.comparison_words import arrow, number
from mmcl.explain.figures import COLOURS, Curve, curve_figure, figure_html, scatter_figure
from mmcl.explain.page import environment_facts, render_section
from mmcl.files import read_json
from mmcl.learning.history import HISTORY
from mmcl.runs.run import METRICS, PREDICTIONS
from mmcl.runs.run_folder import RUN

__all__ = [
    "Confusion",
    "confusion",
    "emotion_rates",
    "history_figures",
    "read_history",
    "read_run",
    "run_section",
]

_CURVES = {
    "task_loss": "Training task loss",
    "valid_loss": "Validation loss",
    "mean_action": "Mean action",
    "reward": "Reward",
}
_SEED_COLOURS = (
    *(COLOURS[name] for name in ("common", "complementary", "calibrated", "released", "published")),
    "rgb(120, 140, 40)",
)


class Confusion(NamedTuple):
    """A confusion matrix: truth in rows, prediction in columns."""

    names: list[str]
    shares: list[list[float] | None]  # of each row; None for a class without clips
    counts: list[int]  # clips of each class, every seed counted


def read_run(path: Path) -> dict[str, Any]:
    """Gather what the section shows of a run, given the path of its metrics.json.

    Returns:
        ``metrics`` and ``run`` as in their files, ``history`` by seed, and ``predictions`` of
        the test split (of validation where the corpus has no test).
    """
    folder = path.parent
    metrics = read_json(folder / METRICS)
    split = "test" if metrics["test"] else "valid"
    columns = ["seed", "id", "split", "truth", "prediction"]
    rows = parquet.read_table(folder / PREDICTIONS, columns=columns).to_pylist()
    return {
        "metrics": metrics,
        "run": read_json(folder / RUN),
        "history": {seed: read_history(folder, seed) for seed in metrics["seeds"]},
        "predictions": [r for r in rows if r["split"] == split and r["truth"] is not None],
    }


def read_history(folder: Path, seed: int) -> list[dict[str, float]]:
    """Read the history of one seed of a run: a row per epoch, NaN where a cell is empty."""
    with (folder / f"seed-{seed}" / HISTORY).open(newline="", encoding="utf-8") as file:
        return [
            {k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(file)
        ]


def run_section(content: Mapping[str, Any]) -> Markup:
    """Return the section of a run from what :func:`read_run` gathered."""
    metrics, run, predictions = content["metrics"], content["run"], content["predictions"]
    task, split = run["corpus"]["task"], "test" if metrics["test"] else "valid"
    kind, names = task["kind"], task["names"]
    colours = {f"seed {s}": c for s, c in zip(metrics["seeds"], cycle(_SEED_COLOURS), strict=False)}
    histories = {f"seed {seed}": rows for seed, rows in content["history"].items()}
    best_epochs = metrics["training"]["best_epochs"]
    return render_section(
        "section_run.html.j2",
        name=metrics["model"],
        corpus=run["corpus"],
        split="test" if split == "test" else "validation",
        seeds=metrics["seeds"],
        lines=[
            (f"{metric_name(key)} {arrow(key)}".strip(), _cells(key, metrics, split))
            for key in metrics[split]
        ],
        references=list(metrics["references"]),
        curves=history_figures(
            histories, dict(zip(histories, best_epochs, strict=True)), colours=colours
        ),
        colours=colours,
        scatter=_scatter(content) if kind == "regression" else None,
        confusion=confusion(predictions, names) if kind == "classes" else None,
        rates=emotion_rates(predictions, names) if kind == "emotions" else None,
        number=number,
        notes=metrics["notes"],
        facts=[
            ("corpus checksum", str(run["corpus_checksum"])[:16]),
            ("chosen epochs", ", ".join(str(epoch + 1) for epoch in best_epochs)),
            ("parameters", f"{metrics['training']['parameters']:,}"),
            *environment_facts(run["environment"]),
        ],
    )


def history_figures(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    chosen: Mapping[str, int],
    *,
    colours: Mapping[str, str],
) -> list[tuple[str, Markup]]:
    """Draw several trainings over each other.

    ``chosen`` is the index of each one's chosen epoch. Returns title and figure of every
    quantity that changes at all.
    """
    drawn = []
    for column, title in _CURVES.items():
        curves = {
            name: Curve([row.get(column, math.nan) for row in rows], chosen[name])
            for name, rows in histories.items()
        }
        values = {v for curve in curves.values() for v in curve.values if math.isfinite(v)}
        if len(values) > 1:  # a baseline has no actions, and its reward is constant
            figure = curve_figure(curves, colours=colours)
            drawn.append((title, figure_html(figure, name=f"curve-{column}")))
    return drawn


def confusion(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Confusion:
    """Count which class was taken for which; ``truth`` and ``prediction`` are indices.

    Example:
        >>> rows = [{"truth": 0, "prediction": 0}, {"truth": 0, "prediction": 1}]
        >>> confusion(rows, ["sad", "happy"]).shares
        [[0.5, 0.5], None]
    """
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    counts = [0] * len(names)
    for row in rows:
        counts[row["truth"]] += 1
        if row["prediction"] >= 0:  # -1: the scores had a nan
            table[row["truth"], row["prediction"]] += 1
    counted = zip(table, counts, strict=True)
    shares = [(line / count).tolist() if count else None for line, count in counted]
    return Confusion(list(names), shares, counts)


def emotion_rates(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str, int, float | None, float | None]]:
    """Return how often each emotion was predicted, where it is shown and where it is not.

    ``truth`` and ``prediction`` of a row hold a 0 or 1 per emotion.

    Returns:
        Name, number of clips that show it, share of these that it was predicted for, and
        share of the others that it was predicted for; None where there is no such clip.

    Example:
        >>> emotion_rates([{"truth": [1], "prediction": [1]}], ["sad"])
        [('sad', 1, 1.0, None)]
    """
    truth = np.array([row["truth"] for row in rows]).reshape(-1, len(names))
    predicted = np.array([row["prediction"] for row in rows]).reshape(-1, len(names)) == 1
    rates = []
    for index, name in enumerate(names):
        hits, alarms = (predicted[truth[:, index] == shown, index] for shown in (1, 0))
        shares = [float(said.mean()) if len(said) else None for said in (hits, alarms)]
        rates.append((name, len(hits), shares[0], shares[1]))
    return rates


def _cells(key: str, metrics: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    """Return number and spread of a metric on validation, on test and of each reference row."""
    cells = []
    for part in ("valid", "test"):
        summary = metrics[part].get(key) or {"mean": None, "std": None}
        spread = "" if summary["std"] is None else f"± {number(summary['std'])}"
        cells.append((number(summary["mean"]), spread))
    references = metrics["references"].values()
    return [*cells, *((number(splits[split].get(key)), "") for splits in references)]


def _scatter(content: Mapping[str, Any]) -> Markup:
    """Draw predictions against truth, the mean over seeds of each clip."""
    truth: dict[str, float] = {}
    by_clip: dict[str, list[float]] = {}
    for row in content["predictions"]:
        truth[row["id"]] = row["truth"]
        by_clip.setdefault(row["id"], []).append(row["prediction"])
    prediction = [math.fsum(scores) / len(scores) for scores in by_clip.values()]
    task = content["run"]["corpus"]["task"]
    figure = scatter_figure(
        list(truth.values()),
        prediction,
        ids=list(truth),
        low=min([task["low"], *prediction]),
        high=max([task["high"], *prediction]),
        name=content["metrics"]["model"],
    )
    return figure_html(figure, name="scatter")
