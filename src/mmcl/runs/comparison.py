"""Comparison of many models on one corpus with the same seeds.

::

    OUT/corpus.arrow              the corpus, converted from a file of another project
    OUT/models/NAME/              one run folder per row, see mmcl.runs.run
    OUT/models/NAME/seed-N/cost.json
    OUT/comparison.json           rows with their costs, and tests of differences
    OUT/comparison.{md,tex,csv}   the table

Models are trained side by side, each training in its own process, and scored once. The same call
continues an interrupted one: a finished seed is not trained again.
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
from mmcl.errors import ConfigError, RunError, ShapeError, TrainingError, UsageError, did_you_mean
from mmcl.evaluation.item_sums import summable_metrics
from mmcl.evaluation.metrics import range_notes
from mmcl.evaluation.planted import ROLE_METRICS
from mmcl.evaluation.published_results import published_datasets, published_results
from mmcl.evaluation.significance import Predictions, compare_rows
from mmcl.evaluation.tables import write_result
from mmcl.files import write_json
from mmcl.learning.labelled_clips import check_features
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
"""File of a comparison or an ablation."""
REFERENCES = ("ridge", "majority", "constant")
"""Untrained rows of every comparison."""
# The first metric of a task is its primary one: the first column of tables and figures.
DEFAULT_METRICS = {
    "regression": ("mae", "corr", "acc2_non0", "acc7"),
    "classes": ("accuracy", "f1_weighted", "uar"),
    "emotions": ("accuracy_mean", "f1_mean"),
}


def model_entries(
    names: Sequence[str], card: Card, *, source: str | None, overrides: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """Return a row for each model to compare, and notes on models that were left out.

    Args:
        names: Names of models. Default: all that use a modality of the corpus.
        card: Card of the corpus.
        source: Preset or file, for every model.
        overrides: ``section.key=value``, for every model.

    Raises:
        UsageError: If a name is unknown or given twice.
        ConfigError: If a setting is wrong.
    """
    requested = [name for name in names if name not in REFERENCES]
    unknown = [name for name in requested if name not in model_names()]
    if unknown:
        near = did_you_mean(unknown[0], [*model_names(), *REFERENCES])
        raise UsageError(
            f'--models: unknown model "{unknown[0]}"{near}\n'
            f"  Models: {', '.join(model_names())}; always included: {', '.join(REFERENCES)}"
        )
    if len(set(requested)) < len(requested):
        raise UsageError(f"--models: a model is named twice: {', '.join(requested)}")
    notes = []
    # Only a default list may leave out models that cannot use this corpus.
    chosen = requested or [*reversed(VARIANTS), *BASELINES]
    if not requested:
        reads_words = resolve_config(source=source, overrides=overrides).text.encoder is not None
        held = {*card.dims, "text"} if reads_words else set(card.dims)
        unusable = [name for name in chosen if not set(network_class(name).takes) & held]
        notes = [f"{name} was left out: the corpus has none of its modalities" for name in unusable]
        chosen = [name for name in chosen if name not in unusable]
    configs = [resolve_config(model=n, source=source, overrides=overrides) for n in chosen]
    return [Entry(name, config) for name, config in zip(chosen, configs, strict=True)], notes


def default_metrics(task_kind: str, requested: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the metrics to compare by: the requested ones, or the defaults of the task.

    Raises:
        ConfigError: If the corpus has no metric of that name.
    """
    for key in requested:
        if key not in known:
            raise ConfigError(
                f'unknown metric "{key}"{did_you_mean(key, known)}\n'
                f"  Metrics of this corpus: {', '.join(known)}"
            )
    return list(requested) or [key for key in DEFAULT_METRICS[task_kind] if key in known]


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
    """Train the rows that are not trained yet, score and test all; write and return the result.

    Args:
        corpus: A corpus, or a file of another project.
        entries: The rows to train.
        seeds: Every row is trained with each of them.
        out: The folder described above.
        metrics: Metrics to compare by. Default: those of the task.
        reference: Row to compare the others with. Default: ``calibrated``, or the first.
        kind: ``comparison`` or ``ablation``.
        command: The command line, for the record.
        workers: Trainings at a time.
        engine: Where the processes run: on this machine, or on Ray.
        notes: Notes to keep with the result.
        rescored: Rows that are not trained, but scored without a modality.
        tell: Called about once a second with the state of every row.

    Raises:
        UsageError: If the reference is not among the rows.
        ConfigError: If the corpus has no metric of that name.
        DatasetError: If there is nothing to train on or to score.
        RunError: If the folder holds runs with other settings or of another corpus.
        TrainingError: If a process died, or every seed of the reference diverged.
    """
    names = [entry.name for entry in entries]
    reference_name = reference or ("calibrated" if "calibrated" in names else names[0])
    if reference_name not in [*names, *REFERENCES]:
        near = did_you_mean(reference_name, [*names, *REFERENCES])
        raise UsageError(f'--reference: no row is called "{reference_name}"{near}')
    loaded, path = prepare_corpus(corpus, out)
    _check_settings(entries, loaded)
    preset = entries[0].config.evaluation.preset
    # The references come first: they are quick, and refuse a corpus that cannot be scored.
    predictions: dict[str, Predictions] = {}
    references = reference_rows(loaded, preset, predictions)
    known = summable_metrics(loaded.card.task, preset=preset)
    chosen = default_metrics(loaded.card.task.kind, metrics, known)
    for entry in entries:
        folder = row_folder(out, entry.name)
        open_run(folder, loaded, entry.config, seeds=seeds, resume=True)
    jobs = [
        Job(path, entry.config, seed, row_folder(out, entry.name) / f"seed-{seed}", entry.name)
        for seed in seeds  # the first seed of every row comes before any second seed
        for entry in entries
    ]
    train_jobs(jobs, workers=workers, engine=engine, tell=tell)
    rows = [trained_row(entry, loaded, seeds, out, predictions) for entry in entries]
    rows += [rescored_row(entry, loaded, out, predictions) for entry in rescored]
    rows += [references[name] for name in REFERENCES if name in references]
    if reference_name not in predictions:
        raise TrainingError(
            f"every seed of {reference_name} diverged, so the others cannot be compared with it.\n"
            "  Compare them with another row: --reference ridge"
        )
    task = loaded.card.task
    all_notes = [*notes, *loaded.card.notes, *range_notes(task, preset=preset)]
    comparison = compare_rows(reference_name, predictions, task=task, metrics=chosen, preset=preset)
    content = {
        "kind": kind,
        "command": command,
        "corpus": _corpus_record(loaded),
        "preset": preset if task.kind == "regression" else None,
        "metrics": [*chosen, *_untested_metrics(rows)],
        "reference": reference_name,
        "seeds": list(seeds),
        "test_clips": loaded.card.counts["test"],
        "floor": comparison.floor,
        "rows": rows,
        "tests": comparison.tests,
        "best": comparison.best,
        "workers": workers,
        "notes": [*all_notes, *_divergence_notes(rows), *comparison.notes],
        "environment": environment(),
    }
    _write_result(out, content)
    return content


def _untested_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that are shown without a test: those of planted corpora."""
    return [key for key in ROLE_METRICS if any(row["test"].get(key) for row in rows)]


def _check_settings(entries: Sequence[Entry], corpus: Corpus) -> None:
    """Build every network once, so that a wrong setting fails before the first training."""
    card = corpus.card
    dims = {str(m): d for m, d in card.dims.items()}
    for entry in entries:
        check_features(corpus, entry.config)
        model, policy = entry.config.model, entry.config.policy
        # Any width will do: the encoder is not loaded for this.
        dims = {"text": model.width, **dims} if entry.config.text.encoder else dims
        try:
            build_network(dims, card.task, aligned=card.aligned, model=model, policy=policy)
        except (ConfigError, ShapeError) as fault:
            raise ConfigError(f"{entry.name}: {fault}") from None


def _corpus_record(corpus: Corpus) -> dict[str, Any]:
    record = corpus.card.model_dump(mode="json", include={"name", "task", "counts", "aligned"})
    return record | {"checksum": corpus.checksum()}


def _divergence_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['name']}: seed {seed} diverged and is in no mean ({message})"
        for row in rows
        for seed, message in row["diverged"].items()
    ]


def _write_result(out: Path, content: Mapping[str, Any]) -> None:
    write_json(out / COMPARISON, content)
    stem = (out / COMPARISON).with_suffix("")
    # Published numbers stand below the rows, for the corpora that have any.
    name = content["corpus"]["name"]
    published = published_results(name) if name in published_datasets() else []
    for table, suffix in ((markdown_table, ".md"), (latex_table, ".tex"), (csv_table, ".csv")):
        write_result(stem.with_suffix(suffix), table(content, published=published))


def prepare_corpus(path: Path, out: Path) -> tuple[Corpus, Path]:
    """Open a corpus for the trainings; a file of another project is converted once.

    Raises:
        DatasetError: If there is no such file, or it cannot be read.
        RunError: If the folder holds a corpus converted from another file.
    """
    if path.is_file() and is_corpus_file(path):
        return open_corpus(path), path
    # All trainings share a mapped corpus file; each would hold its own copy of a pickle.
    converted = out / "corpus.arrow"
    if not (converted.exists() and path.is_file()):
        convert_corpus(path, converted)
    corpus = open_corpus(converted)
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    source = corpus.card.source
    if source is None or source.sha256 != checksum:
        raise RunError(
            f"{converted}: was converted from another file than {path}; nothing was changed.\n"
            "  Start another comparison: --out with a new folder"
        )
    return corpus, converted
