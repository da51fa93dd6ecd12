"""Rows of a comparison: models that were trained, rescored networks, and untrained references.

A row holds the metrics on validation and test. The functions also add the predictions on the
test split to a dictionary, for the tests of significance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow import compute as pc
from pyarrow import parquet

from mmcl.config import Config
from mmcl.corpus.store import Corpus
from mmcl.errors import DatasetError
from mmcl.evaluation.metrics import task_metrics
from mmcl.evaluation.moments import without_modality
from mmcl.evaluation.protocol import JUDGED, judged_split, reference_metrics, reference_predictions
from mmcl.evaluation.significance import Predictions
from mmcl.files import read_json, reading
from mmcl.learning.inference import score_split
from mmcl.runs.jobs import COST, DIVERGED
from mmcl.runs.run import METRICS, PREDICTIONS, Run, finish_run, message_of, summaries
from mmcl.types import Modality

__all__ = [
    "Entry",
    "Rescored",
    "reference_rows",
    "rescored_row",
    "row_folder",
    "trained_row",
]


class Entry(NamedTuple):
    """A row that is trained."""

    name: str
    config: Config
    settings: tuple[str, ...] = ()  # those that differ from the reference row
    question: str | None = None  # the one that an ablation answers


class Rescored(NamedTuple):
    """A row that is not trained: networks of another row, scored without a modality."""

    name: str
    of: str  # name of the row whose networks are scored
    without: Modality
    question: str | None = None


def row_folder(out: Path, name: str) -> Path:
    """Return the run folder of a row."""
    # Names such as "mean for min" hold characters that folders should not have.
    return out / "models" / re.sub(r"[^\w.=-]+", "-", name)


def reference_rows(
    corpus: Corpus, preset: str, predictions: dict[str, Predictions]
) -> dict[str, dict[str, Any]]:
    """Return the rows that are not trained, by name, and add their predictions."""
    if not corpus.card.counts.get("test"):
        raise DatasetError(
            f"{corpus.card.name}: no test clips to compare on.\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )
    split = judged_split(corpus, "test")
    rows: dict[str, dict[str, Any]] = {}
    metrics = {s: reference_metrics(corpus, s, preset=preset) for s in JUDGED}
    for name, reference in reference_predictions(corpus, "test").items():
        scores = reference.scores[None]  # [1, clips, ...]: there are no seeds
        predictions[name] = Predictions(tuple(split.ids), split.labels(), scores, ())
        rows[name] = {
            "name": name,
            "question": None,
            "kind": "reference",
            "settings": [],
            "seeds_done": 1,
            "diverged": {},
            **{s: summaries([metrics[s][name].values]) for s in JUDGED},
            "cost": None,
        }
    return rows


def trained_row(
    entry: Entry,
    corpus: Corpus,
    seeds: Sequence[int],
    out: Path,
    predictions: dict[str, Predictions],
) -> dict[str, Any]:
    """Return the row of a trained model, and add its predictions."""
    folder = row_folder(out, entry.name)
    row: dict[str, Any] = {
        "name": entry.name,
        "question": entry.question,
        "kind": "model",
        "settings": list(entry.settings),
    }
    diverged = {
        str(seed): message_of(path)
        for seed in seeds
        if (path := folder / f"seed-{seed}" / DIVERGED).exists()
    }
    # A row whose seeds all diverged stays in the table, without numbers.
    if len(diverged) == len(seeds):
        nothing: dict[str, Any] = {"valid": {}, "test": {}, "cost": None}
        return row | {"seeds_done": 0, "diverged": diverged} | nothing
    run = _scored_run(folder, corpus)
    report = run.metrics
    predictions[entry.name] = _test_predictions(run, corpus)
    results = {name: report[name] for name in JUDGED}
    counts = {"seeds_done": len(run.seeds), "diverged": diverged, "cost": _cost(run)}
    return row | counts | results


def _scored_run(folder: Path, corpus: Corpus) -> Run:
    """Open a run, and score it unless it was scored with the same seeds before."""
    run = Run.load(folder)
    if (folder / METRICS).exists() and run.metrics["seeds"] == list(run.seeds):
        return run
    return finish_run(folder, corpus)


def _test_predictions(run: Run, corpus: Corpus) -> Predictions:
    """Read the per-item results of the test split from the run's own file."""
    with reading(run.folder / PREDICTIONS):
        return _read_predictions(run, corpus)


def _read_predictions(run: Run, corpus: Corpus) -> Predictions:
    split = judged_split(corpus, "test")
    columns = ["seed", "id", "split", "scores"]
    table = parquet.read_table(run.folder / PREDICTIONS, columns=columns)
    table = table.filter(pc.equal(table.column("split"), "test"))
    per_seed = []
    for seed in run.seeds:
        rows = table.filter(pc.equal(table.column("seed"), seed))
        per_seed.append(np.array(rows.column("scores").to_pylist(), dtype=np.float64))
    ids = tuple(rows.column("id").to_pylist())
    # The file holds flat lists: bring them to [seeds, clips, ...] of the task.
    shape = {"regression": (), "classes": (-1,), "emotions": (-1, 2)}[corpus.card.task.kind]
    scores = np.stack(per_seed).reshape(len(run.seeds), len(ids), *shape)
    return Predictions(ids, split.labels(), scores, run.seeds)


def rescored_row(
    entry: Rescored, corpus: Corpus, out: Path, predictions: dict[str, Predictions]
) -> dict[str, Any]:
    """Return the row of another row's networks, scored without a modality; add predictions."""
    run = Run.load(row_folder(out, entry.of))
    split = without_modality(judged_split(run.prepared(corpus), "test"), entry.without)
    settings = run.config.evaluation
    scored = [
        score_split(run.model(seed), split, batch_size=settings.batch_size, per_step=False).scores
        for seed in run.seeds
    ]
    metrics = [
        task_metrics(corpus.card.task, split.labels(), scores, preset=settings.preset).values
        for scores in scored
    ]
    ids = tuple(split.ids)
    predictions[entry.name] = Predictions(ids, split.labels(), np.stack(scored), run.seeds)
    return {
        "name": entry.name,
        "question": entry.question,
        "kind": "model",
        "settings": [f"{entry.without} taken away at test"],
        "seeds_done": len(run.seeds),
        "diverged": {},
        "valid": {},  # nothing is chosen here, so validation is not scored
        "test": summaries(metrics),
        "cost": None,
    }


def _cost(run: Run) -> dict[str, Any]:
    """Return size, time and memory of a run's trainings, from the files they left."""
    report = run.metrics
    # A run that mmcl train made has no such files: then only size and time are known.
    costs = [
        read_json(path)
        for seed in run.seeds
        if (path := run.folder / f"seed-{seed}" / COST).exists()
    ]
    speeds = [c["predict_clips_per_second"] for c in costs if "predict_clips_per_second" in c]
    return {
        "parameters": report["training"]["parameters"],
        "train_seconds": report["training"]["seconds"]["mean"],
        "predict_clips_per_second": (sum(speeds) / len(speeds) if speeds else None),
        "peak_memory_mib": max((c["peak_memory_mib"] for c in costs), default=None),
    }
