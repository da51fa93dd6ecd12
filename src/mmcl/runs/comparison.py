"""Many models on one corpus with the same seeds: trained side by side, scored once, compared.

::

    OUT/corpus.arrow              the corpus, where it was given in a foreign layout
    OUT/models/NAME/              a run folder each, see mmcl.runs.run
    OUT/models/NAME/seed-N/cost.json
    OUT/comparison.json           every row, every test, what they cost
    OUT/comparison.{md,tex,csv}   the table

Every training is a job of its own, in a process of its own. The same call again goes on where
the last one stopped: a seed that has finished is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow import compute as pc
from pyarrow import parquet

from mmcl.config import Config, model_names, resolve_config
from mmcl.corpus.readers import convert_corpus
from mmcl.corpus.schema import Card
from mmcl.corpus.store import Corpus, is_corpus_file, open_corpus
from mmcl.engines import Engine
from mmcl.errors import (
    ConfigError,
    DatasetError,
    RunError,
    ShapeError,
    TrainingError,
    UsageError,
    did_you_mean,
)
from mmcl.evaluation.item_sums import summable_metrics
from mmcl.evaluation.metrics import task_metrics
from mmcl.evaluation.moments import without_modality
from mmcl.evaluation.planted import ROLE_METRICS
from mmcl.evaluation.protocol import (
    JUDGED,
    judged_split,
    reference_metrics,
    reference_predictions,
)
from mmcl.evaluation.published_results import published_datasets, published_results
from mmcl.evaluation.significance import Predictions, compare_rows
from mmcl.evaluation.summary import summarise_seeds
from mmcl.evaluation.tables import write_text
from mmcl.files import write_json
from mmcl.learning.history import read_history
from mmcl.learning.inference import score_split
from mmcl.learning.loop import DONE
from mmcl.models.registry import build_network, network_class
from mmcl.runs.comparison_tables import csv_table, latex_table, markdown_table
from mmcl.runs.jobs import COST, Job, train_jobs
from mmcl.runs.run import DIVERGED, METRICS, PREDICTIONS, Run, finish_run, open_run
from mmcl.runtime import environment
from mmcl.types import BASELINES, VARIANTS, Modality

__all__ = [
    "COMPARISON",
    "REFERENCES",
    "Entry",
    "Rescored",
    "Status",
    "compare",
    "default_metrics",
    "model_entries",
    "prepare_corpus",
]

COMPARISON = "comparison.json"
REFERENCES = ("ridge", "majority", "constant")
"""Rows that are not trained: they stand in every comparison."""

DEFAULT_METRICS = {
    "regression": ("mae", "corr", "acc2_non0", "acc7"),
    "classes": ("accuracy", "f1_weighted", "uar"),
    "emotions": ("accuracy", "f1_weighted"),
}
"""The first one is primary: it stands first in every table and picture."""


class Entry(NamedTuple):
    """A row that is trained, or scored again with something taken away.

    Attributes:
        name: Shown, and the name of its folder.
        config: All settings.
        settings: Those that make it different from the row it is compared with.
        question: What it answers, in an ablation.
    """

    name: str
    config: Config
    settings: tuple[str, ...] = ()
    question: str | None = None


class Rescored(NamedTuple):
    """A row that is not trained: another row's networks, on clips without a modality.

    Attributes:
        name: Shown.
        of: The row whose networks are scored.
        without: What the clips have lost.
        question: What it answers.
    """

    name: str
    of: str
    without: Modality
    question: str | None = None


class Status(NamedTuple):
    """How far one row is, for a live table.

    Attributes:
        name: Of the row.
        done: Seeds that have finished.
        diverged: Seeds whose loss stopped being finite.
        seeds: All of them.
        epoch: Latest epoch of the seeds in training, counted from 1; None before the first.
        valid_loss: Mean over seeds of the best validation loss so far.
    """

    name: str
    done: int
    diverged: int
    seeds: int
    epoch: int | None
    valid_loss: float | None


Tell = Callable[[list[Status]], None]


def model_entries(
    names: Sequence[str], card: Card, *, source: str | None, overrides: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """Settings of the models to compare, by name.

    Args:
        names: Names of models; none at all means every model there is.
        card: Of the corpus.
        source: Preset or file, for every model.
        overrides: ``section.key=value``, for every model.

    Returns:
        An entry per model, and notes on models that were left out: of "every model" those
        that use no modality of the corpus.

    Raises:
        UsageError: If a name is unknown or given twice.
        ConfigError: If a setting is wrong.
    """
    asked = [name for name in names if name not in REFERENCES]
    unknown = [name for name in asked if name not in model_names()]
    if unknown:
        near = did_you_mean(unknown[0], [*model_names(), *REFERENCES])
        raise UsageError(
            f'--models: unknown model "{unknown[0]}"{near}\n'
            f"  Models: {', '.join(model_names())}; always there: {', '.join(REFERENCES)}"
        )
    if len(set(asked)) < len(asked):
        raise UsageError(f"--models: a model is named twice: {', '.join(asked)}")
    notes = []
    chosen = asked or [*reversed(VARIANTS), *BASELINES]
    if not asked:
        able = [name for name in chosen if set(network_class(name).takes) & set(card.dims)]
        notes = [
            f"{name} was left out: the corpus has none of its modalities"
            for name in chosen
            if name not in able
        ]
        chosen = able
    return [
        Entry(name, resolve_config(model=name, source=source, overrides=overrides))
        for name in chosen
    ], notes


def default_metrics(task_kind: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """The metrics to compare by: those asked for, or the usual ones of the task.

    Raises:
        ConfigError: If the corpus has no metric of that name.
    """
    for key in asked:
        if key not in known:
            raise ConfigError(
                f'unknown metric "{key}"{did_you_mean(key, known)}\n'
                f"  Metrics of this corpus: {', '.join(known)}"
            )
    return list(asked) or [key for key in DEFAULT_METRICS[task_kind] if key in known]


def compare(
    corpus: Path,
    entries: Sequence[Entry],
    *,
    seeds: Sequence[int],
    out: Path,
    metrics: Sequence[str] = (),
    reference: str | None = None,
    kind: str = "comparison",
    command: str = "",
    workers: int = 1,
    engine: Engine = "local",
    notes: Sequence[str] = (),
    rescored: Sequence[Rescored] = (),
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Train what is not trained yet, score it, test it and write it down.

    Args:
        corpus: A corpus file, or a foreign one.
        entries: What to train.
        seeds: One training of every entry each.
        out: Where everything goes; see above.
        metrics: To compare by; those usual for the task by default.
        reference: The row that the others are held against; by default ``calibrated``, or
            the first.
        kind: ``comparison`` or ``ablation``.
        command: As typed, to be kept with the result.
        workers: Trainings at a time.
        engine: Whose processes train: our own, or those of Ray, on one machine or many.
        notes: To be kept with the result.
        rescored: Rows that are not trained, but scored with something taken away.
        tell: Told about once a second how far every row is.

    Returns:
        What comparison.json holds.

    Raises:
        UsageError: If the reference is not among the rows.
        ConfigError: If the corpus has no metric of that name.
        DatasetError: If there is nothing to train on or to score.
        RunError: If the folder holds runs with other settings or of another corpus.
        TrainingError: If a training was killed, or every seed of the reference diverged.
    """
    names = [entry.name for entry in entries]
    held_against = reference or ("calibrated" if "calibrated" in names else names[0])
    if held_against not in [*names, *REFERENCES]:
        near = did_you_mean(held_against, [*names, *REFERENCES])
        raise UsageError(f'--reference: no row is called "{held_against}"{near}')
    loaded, path = prepare_corpus(corpus, out)
    _check_settings(entries, loaded)
    preset = entries[0].config.evaluation.preset
    judged = _references(loaded, preset)
    known = summable_metrics(loaded.card.task, preset=preset)
    chosen = default_metrics(loaded.card.task.kind, metrics, known)
    _train_all(loaded, path, entries, seeds, out, workers, engine, tell)
    rows = [_trained_row(entry, loaded, seeds, out, judged) for entry in entries]
    rows += [_rescored_row(each, loaded, out, judged) for each in rescored]
    rows += [judged.rows[name] for name in REFERENCES if name in judged.rows]
    if held_against not in judged.predictions:
        raise TrainingError(
            f"every seed of {held_against} diverged, and the others were to be held against it.\n"
            "  Hold them against another: --reference ridge"
        )
    tested = compare_rows(
        held_against,
        judged.predictions,
        task=loaded.card.task,
        metrics=chosen,
        preset=preset,
    )
    content = {
        "kind": kind,
        "command": command,
        "corpus": _about(loaded),
        "preset": preset if loaded.card.task.kind == "regression" else None,
        "metrics": [*chosen, *_only_shown(rows)],
        "reference": held_against,
        "seeds": list(seeds),
        "test_clips": loaded.card.counts["test"],
        "floor": tested.floor,
        "rows": rows,
        "tests": tested.tests,
        "best": tested.best,
        "workers": workers,
        "notes": [*notes, *loaded.card.notes, *_divergence(rows), *tested.notes],
        "environment": environment(),
    }
    _write(out, content)
    return content


def _only_shown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that no test is made of: the areas of planted corpora."""
    return [key for key in ROLE_METRICS if any(row["test"].get(key) for row in rows)]


def _check_settings(entries: Sequence[Entry], corpus: Corpus) -> None:
    """Build every network once, so that a setting that is wrong is known before the first hour.

    Raises:
        ConfigError: If one is.
    """
    card = corpus.card
    dims = {str(m): d for m, d in card.dims.items()}
    for entry in entries:
        model, policy = entry.config.model, entry.config.policy
        try:
            build_network(dims, card.task, aligned=card.aligned, model=model, policy=policy)
        except (ConfigError, ShapeError) as fault:
            raise ConfigError(f"{entry.name}: {fault}") from None


class _Judged(NamedTuple):
    """Rows and predictions of the test split, filled as rows are scored."""

    rows: dict[str, dict[str, Any]]
    predictions: dict[str, Predictions]


def _about(corpus: Corpus) -> dict[str, Any]:
    card = corpus.card
    return {
        "name": card.name,
        "task": card.task.model_dump(mode="json"),
        "counts": card.counts,
        "aligned": card.aligned,
        "checksum": corpus.checksum(),
    }


def _train_all(
    corpus: Corpus,
    path: Path,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    out: Path,
    workers: int,
    engine: Engine,
    tell: Tell | None,
) -> None:
    for entry in entries:
        open_run(_folder(out, entry.name), corpus, entry.config, seeds=seeds, resume=True)
    jobs = [
        Job(path, entry.config, seed, _folder(out, entry.name) / f"seed-{seed}")
        for seed in seeds  # every row has its first seed before any has its second
        for entry in entries
    ]

    def look() -> None:
        if tell is not None:
            tell([_status(entry.name, _folder(out, entry.name), seeds) for entry in entries])

    train_jobs(jobs, workers=workers, engine=engine, look=look)


def _folder(out: Path, name: str) -> Path:
    return out / "models" / re.sub(r"[^\w.=-]+", "-", name)


def _status(name: str, folder: Path, seeds: Sequence[int]) -> Status:
    places = [folder / f"seed-{seed}" for seed in seeds]
    done = [place for place in places if (place / DONE).exists()]
    diverged = [place for place in places if (place / DIVERGED).exists()]
    epochs, losses = [], []
    for place in places:
        history = read_history(place)
        if history:
            losses.append(min(row.valid_loss for row in history))
            if place not in done:
                epochs.append(len(history))
    loss = sum(losses) / len(losses) if losses else None
    return Status(name, len(done), len(diverged), len(places), max(epochs, default=None), loss)


def _references(corpus: Corpus, preset: str) -> _Judged:
    """Rows that are not trained, and the predictions behind them."""
    if not corpus.card.counts.get("test"):
        raise DatasetError(
            f"{corpus.card.name}: no test clips to compare on.\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )
    split = judged_split(corpus, "test")
    judged = _Judged({}, {})
    metrics = {s: reference_metrics(corpus, s, preset=preset) for s in JUDGED}
    for name, reference in reference_predictions(corpus, "test").items():
        judged.predictions[name] = Predictions(
            tuple(split.ids), split.labels(), reference.scores[None], ()
        )
        judged.rows[name] = {
            "name": name,
            "question": None,
            "kind": "reference",
            "settings": [],
            "seeds_done": 1,
            "diverged": {},
            **{s: _summaries([metrics[s][name].values]) for s in JUDGED},
            "cost": None,
        }
    return judged


def _trained_row(
    entry: Entry, corpus: Corpus, seeds: Sequence[int], out: Path, judged: _Judged
) -> dict[str, Any]:
    folder = _folder(out, entry.name)
    row: dict[str, Any] = {
        "name": entry.name,
        "question": entry.question,
        "kind": "model",
        "settings": list(entry.settings),
    }
    diverged = {
        str(seed): json.loads(path.read_text())["message"]
        for seed in seeds
        if (path := folder / f"seed-{seed}" / DIVERGED).exists()
    }
    if len(diverged) == len(seeds):
        nothing: dict[str, Any] = {"valid": {}, "test": {}, "cost": None}
        return row | {"seeds_done": 0, "diverged": diverged} | nothing
    run = _scored_run(folder, corpus)
    report = run.metrics
    judged.predictions[entry.name] = _predictions(run, corpus)
    results = {name: report[name] for name in JUDGED}
    counts = {"seeds_done": len(run.seeds), "diverged": diverged, "cost": _cost(run)}
    return row | counts | results


def _scored_run(folder: Path, corpus: Corpus) -> Run:
    """The run of a folder; scored now, unless it was scored with the same seeds before."""
    run = Run.load(folder)
    if (folder / METRICS).exists() and run.metrics["seeds"] == list(run.seeds):
        return run
    return finish_run(folder, corpus)


def _predictions(run: Run, corpus: Corpus) -> Predictions:
    """Per-item results of the test split, from the run's own file."""
    split = judged_split(corpus, "test")
    columns = ["seed", "id", "split", "scores"]
    table = parquet.read_table(run.folder / PREDICTIONS, columns=columns)
    table = table.filter(pc.equal(table.column("split"), "test"))
    per_seed = []
    for seed in run.seeds:
        rows = table.filter(pc.equal(table.column("seed"), seed))
        per_seed.append(np.array(rows.column("scores").to_pylist(), dtype=np.float64))
    ids = tuple(rows.column("id").to_pylist())
    shape = {"regression": (), "classes": (-1,), "emotions": (-1, 2)}[corpus.card.task.kind]
    scores = np.stack(per_seed).reshape(len(run.seeds), len(ids), *shape)
    return Predictions(ids, split.labels(), scores, run.seeds)


def _rescored_row(each: Rescored, corpus: Corpus, out: Path, judged: _Judged) -> dict[str, Any]:
    """The same networks, on clips that have lost a modality."""
    run = Run.load(_folder(out, each.of))
    split = without_modality(judged_split(corpus, "test"), each.without)
    settings = run.config.evaluation
    scored = [
        score_split(run.model(seed), split, batch_size=settings.batch_size, per_step=False).scores
        for seed in run.seeds
    ]
    found = [
        task_metrics(corpus.card.task, split.labels(), scores, preset=settings.preset).values
        for scores in scored
    ]
    judged.predictions[each.name] = Predictions(
        tuple(split.ids), split.labels(), np.stack(scored), run.seeds
    )
    return {
        "name": each.name,
        "question": each.question,
        "kind": "model",
        "settings": [f"{each.without} taken away at test"],
        "seeds_done": len(run.seeds),
        "diverged": {},
        "valid": {},
        "test": _summaries(found),
        "cost": None,
    }


def _summaries(seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {key: summary.as_dict() for key, summary in summarise_seeds(seeds).items()}


def _cost(run: Run) -> dict[str, Any]:
    report = run.metrics
    each = [
        json.loads(path.read_text())
        for seed in run.seeds
        if (path := run.folder / f"seed-{seed}" / COST).exists()
    ]
    speeds = [c["predict_clips_per_second"] for c in each if "predict_clips_per_second" in c]
    return {
        "parameters": report["training"]["parameters"],
        "train_seconds": report["training"]["seconds"]["mean"],
        "predict_clips_per_second": (sum(speeds) / len(speeds) if speeds else None),
        "peak_memory_mib": max((c["peak_memory_mib"] for c in each), default=None),
    }


def _divergence(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['name']}: seed {seed} diverged and counts in no mean ({message})"
        for row in rows
        for seed, message in row["diverged"].items()
    ]


def _write(out: Path, content: Mapping[str, Any]) -> None:
    write_json(out / COMPARISON, content)
    stem = (out / COMPARISON).with_suffix("")
    name = content["corpus"]["name"]
    published = published_results(name) if name in published_datasets() else []
    for table, suffix in ((markdown_table, ".md"), (latex_table, ".tex"), (csv_table, ".csv")):
        write_text(table(content, published=published), stem.with_suffix(suffix))


def prepare_corpus(path: Path, out: Path) -> tuple[Corpus, Path]:
    """Open a corpus where the trainings can map it; a foreign file is converted once.

    Raises:
        DatasetError: If there is no such file, or it cannot be read.
        RunError: If the folder holds the conversion of another file.
    """
    if path.is_file() and is_corpus_file(path):
        return open_corpus(path), path
    kept = out / "corpus.arrow"
    if not (kept.exists() and path.is_file()):
        convert_corpus(path, kept)
    corpus = open_corpus(kept)
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    source = corpus.card.source
    if source is None or source.sha256 != checksum:
        raise RunError(
            f"{kept}: was converted from another file than {path}; nothing was changed.\n"
            "  Start another comparison: --out with a new folder"
        )
    return corpus, kept
