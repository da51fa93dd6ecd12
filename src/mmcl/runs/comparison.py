"""Comparison of many models on one corpus with the same seeds.

::

    OUT/corpus.arrow              the corpus, where it was given in a foreign layout
    OUT/models/NAME/              one run folder per row, see mmcl.runs.run
    OUT/models/NAME/seed-N/cost.json
    OUT/comparison.json           every row, every test, what they cost
    OUT/comparison.{md,tex,csv}   the table

The models are trained side by side, each training in a process of its own, and scored once. The
same call again goes on where the last one stopped: a finished seed is not trained again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.config import model_names, resolve_config
from mmcl.corpus.readers import convert_corpus
from mmcl.corpus.schema import Card
from mmcl.corpus.store import Corpus, is_corpus_file, open_corpus
from mmcl.errors import (
    ConfigError,
    RunError,
    ShapeError,
    TrainingError,
    UsageError,
    did_you_mean,
)
from mmcl.evaluation.item_sums import summable_metrics
from mmcl.evaluation.planted import ROLE_METRICS
from mmcl.evaluation.published_results import published_datasets, published_results
from mmcl.evaluation.significance import Predictions, compare_rows
from mmcl.evaluation.tables import write_result
from mmcl.files import write_json
from mmcl.models.registry import build_network, network_class
from mmcl.pool import Engine
from mmcl.runs.comparison_rows import (
    Entry,
    Rescored,
    reference_rows,
    rescored_row,
    row_folder,
    trained_row,
)
from mmcl.runs.comparison_tables import csv_table, latex_table, markdown_table
from mmcl.runs.jobs import Job, Tell, train_jobs
from mmcl.runs.run_folder import open_run
from mmcl.runtime import environment
from mmcl.types import BASELINES, VARIANTS

__all__ = [
    "COMPARISON",
    "REFERENCES",
    "Entry",
    "Rescored",
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
    "emotions": ("accuracy_mean", "f1_mean"),
}
"""The first one is primary: it stands first in every table and picture."""


def model_entries(
    names: Sequence[str], card: Card, *, source: str | None, overrides: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """Return a row for each model to compare, and notes on models that were left out.

    Without names all models are compared, but for those that use no modality of the corpus.

    Args:
        names: Names of models.
        card: Card of the corpus.
        source: Preset or file, for every model.
        overrides: ``section.key=value``, for every model.

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
        unable = [name for name in chosen if not set(network_class(name).takes) & set(card.dims)]
        notes = [f"{name} was left out: the corpus has none of its modalities" for name in unable]
        chosen = [name for name in chosen if name not in unable]
    configs = [resolve_config(model=n, source=source, overrides=overrides) for n in chosen]
    return [Entry(name, config) for name, config in zip(chosen, configs, strict=True)], notes


def default_metrics(task_kind: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the metrics to compare by: those asked for, or the usual ones of the task.

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
    """Train what is not trained yet, score and test it; write comparison.json and return it.

    Args:
        corpus: A corpus file, or a foreign one.
        entries: The rows to train.
        seeds: One training of every entry each.
        out: The folder described above.
        metrics: Metrics to compare by; those usual for the task by default.
        reference: The row that the others are tested against; by default ``calibrated``, or
            the first.
        kind: ``comparison`` or ``ablation``.
        command: As typed, to be kept with the result.
        workers: Trainings at a time.
        engine: Whose processes train: our own, or those of Ray.
        notes: To be kept with the result.
        rescored: Rows that are not trained, but scored with something taken away.
        tell: Called about once a second with the state of every row.

    Raises:
        UsageError: If the reference is not among the rows.
        ConfigError: If the corpus has no metric of that name.
        DatasetError: If there is nothing to train on or to score.
        RunError: If the folder holds runs with other settings or of another corpus.
        TrainingError: If a process died, or every seed of the reference diverged.
    """
    names = [entry.name for entry in entries]
    held_against = reference or ("calibrated" if "calibrated" in names else names[0])
    if held_against not in [*names, *REFERENCES]:
        near = did_you_mean(held_against, [*names, *REFERENCES])
        raise UsageError(f'--reference: no row is called "{held_against}"{near}')
    loaded, path = prepare_corpus(corpus, out)
    _check_settings(entries, loaded)
    preset = entries[0].config.evaluation.preset
    # References come first: they are quick, and refuse a corpus that cannot be scored.
    predictions: dict[str, Predictions] = {}
    references = reference_rows(loaded, preset, predictions)
    known = summable_metrics(loaded.card.task, preset=preset)
    chosen = default_metrics(loaded.card.task.kind, metrics, known)
    for entry in entries:
        folder = row_folder(out, entry.name)
        open_run(folder, loaded, entry.config, seeds=seeds, resume=True)
    jobs = [
        Job(path, entry.config, seed, row_folder(out, entry.name) / f"seed-{seed}", entry.name)
        for seed in seeds  # every row has its first seed before any has its second
        for entry in entries
    ]
    train_jobs(jobs, workers=workers, engine=engine, tell=tell)
    rows = [trained_row(entry, loaded, seeds, out, predictions) for entry in entries]
    rows += [rescored_row(entry, loaded, out, predictions) for entry in rescored]
    rows += [references[name] for name in REFERENCES if name in references]
    if held_against not in predictions:
        raise TrainingError(
            f"every seed of {held_against} diverged, and the others were to be held against it.\n"
            "  Hold them against another: --reference ridge"
        )
    task = loaded.card.task
    tested = compare_rows(held_against, predictions, task=task, metrics=chosen, preset=preset)
    content = {
        "kind": kind,
        "command": command,
        "corpus": _about(loaded),
        "preset": preset if task.kind == "regression" else None,
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
    """Return the metrics that are shown and not tested: the areas of planted corpora."""
    return [key for key in ROLE_METRICS if any(row["test"].get(key) for row in rows)]


def _check_settings(entries: Sequence[Entry], corpus: Corpus) -> None:
    """Build every network once, so that a wrong setting is known before the first training."""
    card = corpus.card
    dims = {str(m): d for m, d in card.dims.items()}
    for entry in entries:
        model, policy = entry.config.model, entry.config.policy
        try:
            build_network(dims, card.task, aligned=card.aligned, model=model, policy=policy)
        except (ConfigError, ShapeError) as fault:
            raise ConfigError(f"{entry.name}: {fault}") from None


def _about(corpus: Corpus) -> dict[str, Any]:
    about = corpus.card.model_dump(mode="json", include={"name", "task", "counts", "aligned"})
    return about | {"checksum": corpus.checksum()}


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
        write_result(stem.with_suffix(suffix), table(content, published=published))


def prepare_corpus(path: Path, out: Path) -> tuple[Corpus, Path]:
    """Open a corpus where the trainings can map it; a foreign file is converted once.

    Raises:
        DatasetError: If there is no such file, or it cannot be read.
        RunError: If the folder holds the conversion of another file.
    """
    if path.is_file() and is_corpus_file(path):
        return open_corpus(path), path
    # Every training maps the file; a pickle would be read into the memory of each.
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
