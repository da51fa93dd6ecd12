"""The section of a single run: its metrics, how each seed trained, and what it predicted.

Read from the files of a run folder as :mod:`mmcl.runs.run` lists them; no network is
loaded and nothing is predicted again.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from pyarrow import parquet

from mmcl.explain.comparison_words import known_direction, metric_name, number
from mmcl.explain.figures import Curve, curve_figure, figure_html, scatter_figure
from mmcl.explain.page import environment_facts, render_section
from mmcl.learning.loop import HISTORY
from mmcl.runs.run import METRICS, PREDICTIONS
from mmcl.runs.run_folder import RUN

__all__ = ["Confusion", "confusion", "emotion_rates", "read_run", "run_section"]

_CURVES = {
    "task_loss": "Training task loss",
    "valid_loss": "Validation loss",
    "mean_action": "Mean action",
    "reward": "Reward",
}
_SEED_COLOURS = (
    "rgb(41, 121, 232)",
    "rgb(240, 128, 28)",
    "rgb(31, 157, 115)",
    "rgb(176, 84, 170)",
    "rgb(214, 72, 104)",
    "rgb(120, 140, 40)",
)


class Confusion(NamedTuple):
    """How often each class was taken for each.

    Attributes:
        names: Of the classes, in the order of rows (truth) and columns (prediction).
        shares: By row the share predicted as each class, or None for a class without clips.
        counts: Clips of each class, every seed counted.
    """

    names: list[str]
    shares: list[list[float] | None]
    counts: list[int]


def read_run(path: Path) -> dict[str, Any]:
    """Gather what the section shows of a run.

    Args:
        path: Its metrics.json.

    Returns:
        ``metrics`` and ``run`` as in their files, ``history`` by seed, and ``predictions`` of
        the test split (of validation where the corpus has no test).
    """
    folder = path.parent
    metrics = json.loads((folder / METRICS).read_text())
    split = "test" if metrics["test"] else "valid"
    columns = ["seed", "id", "split", "truth", "prediction"]
    rows = parquet.read_table(folder / PREDICTIONS, columns=columns).to_pylist()
    return {
        "metrics": metrics,
        "run": json.loads((folder / RUN).read_text()),
        "history": {
            seed: _read_history(folder / f"seed-{seed}" / HISTORY) for seed in metrics["seeds"]
        },
        "predictions": [r for r in rows if r["split"] == split and r["truth"] is not None],
    }


def run_section(content: Mapping[str, Any]) -> Markup:
    """A run, as a part of a page.

    Args:
        content: What :func:`read_run` found.
    """
    metrics, run = content["metrics"], content["run"]
    task, split = run["corpus"]["task"], "test" if metrics["test"] else "valid"
    directions = known_direction(list(metrics[split]))
    kind = task["kind"]
    return render_section(
        "section_run.html.j2",
        name=metrics["model"],
        corpus=run["corpus"],
        split="test" if split == "test" else "validation",
        seeds=metrics["seeds"],
        lines=[_line(key, metrics, split, directions[key]) for key in metrics[split]],
        references=list(metrics["references"]),
        curves=_curves(content),
        colours=_seed_colours(metrics["seeds"]),
        scatter=_scatter(content) if kind == "regression" else None,
        confusion=confusion(content["predictions"], task["names"]) if kind == "classes" else None,
        rates=emotion_rates(content["predictions"], task["names"]) if kind == "emotions" else None,
        number=number,
        notes=metrics["notes"],
        facts=[
            ("corpus checksum", str(run["corpus_checksum"])[:16]),
            ("chosen epochs", ", ".join(str(at + 1) for at in metrics["training"]["best_epochs"])),
            ("parameters", f"{metrics['training']['parameters']:,}"),
            *environment_facts(run["environment"]),
        ],
    )


def confusion(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Confusion:
    """Count which class was taken for which.

    Args:
        rows: With ``truth`` and ``prediction``, indices of classes.
        names: Of the classes.

    Example:
        >>> rows = [{"truth": 0, "prediction": 0}, {"truth": 0, "prediction": 1}]
        >>> confusion(rows, ["sad", "happy"]).shares
        [[0.5, 0.5], None]
    """
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    for row in rows:
        if row["prediction"] >= 0:
            table[row["truth"], row["prediction"]] += 1
    counts = [sum(row["truth"] == at for row in rows) for at in range(len(names))]
    shares = [
        (each / count).tolist() if count else None
        for each, count in zip(table, counts, strict=True)
    ]
    return Confusion(list(names), shares, counts)


def emotion_rates(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str, int, float | None, float | None]]:
    """Of each emotion: how many clips show it, and how often it was said of these and others.

    Args:
        rows: With ``truth`` and ``prediction``, a 0 or 1 per emotion.
        names: Of the emotions.

    Returns:
        Name, number of clips that show it, share of them it was said of, and share of the
        others it was said of; None where there is no such clip.

    Example:
        >>> emotion_rates([{"truth": [1], "prediction": [1]}], ["sad"])
        [('sad', 1, 1.0, None)]
    """
    found = []
    for at, name in enumerate(names):
        said = {
            shown: [row["prediction"][at] == 1 for row in rows if row["truth"][at] == shown]
            for shown in (1, 0)
        }
        shares = {shown: sum(each) / len(each) if each else None for shown, each in said.items()}
        found.append((name, len(said[1]), shares[1], shares[0]))
    return found


def _read_history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(file)
        ]


def _line(
    key: str, metrics: Mapping[str, Any], split: str, higher: bool | None
) -> tuple[str, list[tuple[str, str]]]:
    """Name of a metric; on validation, on test and of each reference row its number and spread."""
    cells = []
    for part in ("valid", "test"):
        summary = metrics[part].get(key) or {"mean": None, "std": None}
        spread = "" if summary["std"] is None else f"± {number(summary['std'])}"
        cells.append((number(summary["mean"]), spread))
    for splits in metrics["references"].values():
        cells.append((number(splits[split].get(key)), ""))
    arrow = {True: " ↑", False: " ↓", None: ""}[higher]
    return metric_name(key) + arrow, cells


def _seed_colours(seeds: Sequence[int]) -> dict[str, str]:
    return {f"seed {seed}": _SEED_COLOURS[at % len(_SEED_COLOURS)] for at, seed in enumerate(seeds)}


def _curves(content: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Title and figure of every curve that moves in any seed."""
    chosen = dict(
        zip(content["history"], content["metrics"]["training"]["best_epochs"], strict=True)
    )
    drawn = []
    for column, title in _CURVES.items():
        curves = {
            f"seed {seed}": Curve([row.get(column, math.nan) for row in rows], chosen[seed])
            for seed, rows in content["history"].items()
        }
        values = {v for curve in curves.values() for v in curve.values if math.isfinite(v)}
        if len(values) > 1:
            figure = curve_figure(curves, colours=_seed_colours(content["metrics"]["seeds"]))
            drawn.append((title, figure_html(figure, name=f"curve-{column.replace('_', '-')}")))
    return drawn


def _scatter(content: Mapping[str, Any]) -> Markup:
    """Predictions against truth, the mean over seeds of each clip."""
    by_clip: dict[str, list[Mapping[str, Any]]] = {}
    for row in content["predictions"]:
        by_clip.setdefault(row["id"], []).append(row)
    truth = [rows[0]["truth"] for rows in by_clip.values()]
    prediction = [math.fsum(r["prediction"] for r in rows) / len(rows) for rows in by_clip.values()]
    task = content["run"]["corpus"]["task"]
    figure = scatter_figure(
        truth,
        prediction,
        ids=list(by_clip),
        low=min([task["low"], *prediction]),
        high=max([task["high"], *prediction]),
        name=content["metrics"]["model"],
    )
    return figure_html(figure, name="scatter")
