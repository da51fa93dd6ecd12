"""Steps that train: comparisons, ablations, searches, validation studies and explanations.

Each of them goes on where it was stopped, and returns the summary to keep.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from corpora import Place
from kept import kept
from mmcl.config import Config, resolve_config
from mmcl.corpus.store import open_corpus
from mmcl.evaluation.summary import summarise_seeds
from mmcl.learning.start import start_settings
from mmcl.pool import Died, run_tasks
from mmcl.runs.ablation import ablation_entries, modalities_left_out
from mmcl.runs.comparison import compare, default_metrics, model_entries
from mmcl.runs.comparison_rows import Entry, row_folder
from mmcl.runs.jobs import Job, Status, train_jobs
from mmcl.runs.run import METRICS, Run, finish_run, train
from mmcl.runs.run_folder import open_run
from mmcl.runs.search import best_trial, search, with_settings

TRIED = 3
"""Models, or changes of one, where a step is only tried."""
WORKERS = 2
"""Trainings at a time, one thread each, whatever the machine: so the tables say."""


class Training(NamedTuple):
    """How a step trains.

    Attributes:
        corpus: Makes the corpus file.
        seeds: Number of seeds.
        models: Models to train; all that fit the corpus if empty.
        preset: Name of a preset.
        settings: Settings of every model, as ``section.key=value``.
        search: Step that searched for settings of some models.
        reference: Row that the others are compared with.
    """

    corpus: Callable[[Place], Path]
    seeds: int
    models: tuple[str, ...] = ()
    preset: str | None = None
    settings: tuple[str, ...] = ()
    search: str | None = None
    reference: str = "calibrated"


def seeds_of(place: Place, count: int) -> tuple[int, ...]:
    """Return the seeds of a step: 1, 2, ...; a single one if it is only tried."""
    return tuple(range(1, 2 if place.is_try else count + 1))


def settings_of(place: Place) -> tuple[str, ...]:
    """Return the settings of every training: one thread, and one epoch if it is only tried."""
    return ("runtime.threads=1", *(("learning.epochs=1",) if place.is_try else ()))


def entries_of(place: Place, training: Training, corpus: Path) -> list[Entry]:
    """Return a row per model, with the settings that a search found for it."""
    overrides = [*training.settings, *settings_of(place)]
    card = open_corpus(corpus).card
    entries, _ = model_entries(training.models, card, source=training.preset, overrides=overrides)
    entries = entries[:TRIED] if place.is_try else entries
    found = {} if training.search is None else searched(place, training.search)
    return [
        entry._replace(
            config=with_settings(entry.config, found[entry.name]),
            settings=tuple(f"{key}={value:.4g}" for key, value in found[entry.name].items()),
        )
        if entry.name in found
        else entry
        for entry in entries
    ]


def searched(place: Place, step: str) -> dict[str, dict[str, Any]]:
    """Return the settings that a search found, by model."""
    content = kept(step, place.results)
    if content is None:
        raise RuntimeError(f"the search {step} has no result yet")
    return {name: found["params"] for name, found in content["models"].items()}


# ---------------------------------------------------------------- comparisons


def comparison(place: Place, name: str, training: Training) -> dict[str, Any]:
    """Train and test every model on a corpus."""
    corpus = training.corpus(place)
    entries = entries_of(place, training, corpus)
    notes = [] if training.search is None else [_search_note(place, training.search, entries)]
    content = compare(
        corpus,
        entries,
        seeds=seeds_of(place, training.seeds),
        out=place.folder / name,
        reference=training.reference,
        workers=WORKERS,
        notes=notes,
        tell=telling(name),
    )
    return summary_of(content)


def ablation(
    place: Place, name: str, training: Training, *, beside: str, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Train ``calibrated`` with one thing changed at a time.

    Args:
        place: Where to work.
        name: Name of the step.
        training: Corpus and seeds.
        beside: Step whose ``calibrated`` and ``released`` are the same trainings.
        only: Names of the ablations; all if empty.
    """
    corpus = training.corpus(place)
    out = place.folder / name
    entries = ablation_entries(
        open_corpus(corpus).card,
        source=training.preset,
        overrides=settings_of(place),
        names=only,
    )
    entries = entries[:TRIED] if place.is_try else entries
    for same in ("calibrated", "released"):
        other = row_folder(place.folder / beside, same)
        if other.exists() and not row_folder(out, same).exists():
            shutil.copytree(other, row_folder(out, same))
    content = compare(
        corpus,
        entries,
        seeds=seeds_of(place, training.seeds),
        out=out,
        kind="ablation",
        workers=WORKERS,
        rescored=modalities_left_out(entries[0].config, open_corpus(corpus).card),
        tell=telling(name),
    )
    return summary_of(content)


def summary_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of ``comparison.json``: the metrics of its table, and the tests."""
    metrics = content["metrics"]
    rows = [
        {
            **row,
            **{
                s: {key: row[s][key] for key in metrics if key in row[s]} for s in ("valid", "test")
            },
        }
        for row in content["rows"]
    ]
    tests = [
        {key: value for key, value in test.items() if key != "notes"} for test in content["tests"]
    ]
    left_out = ("environment", "command")
    kept_parts = {key: value for key, value in content.items() if key not in left_out}
    return {**kept_parts, "rows": rows, "tests": tests}


def telling(name: str, seconds: float = 60.0) -> Callable[[list[Status]], None]:
    """Return what prints, once a minute, how many trainings of a step are done."""
    latest = time.monotonic()

    def tell(statuses: list[Status]) -> None:
        nonlocal latest
        if time.monotonic() - latest < seconds:
            return
        latest = time.monotonic()
        done = sum(status.done + status.diverged for status in statuses)
        print(f"  {name}: {done} of {sum(s.seeds for s in statuses)} trainings", flush=True)

    return tell


# ---------------------------------------------------------------- searches


def equal_search(place: Place, name: str, training: Training, *, trials: int) -> dict[str, Any]:
    """Search for settings of several models on validation, with as many trials for each.

    Two models are searched at a time, each in one process, so that the trials are the same again.
    """
    corpus = training.corpus(place)
    overrides = [*training.settings, *settings_of(place)]
    tasks = [
        (model, resolve_config(model=model, source=training.preset, overrides=overrides))
        for model in training.models[: TRIED if place.is_try else None]
    ]
    count = 2 if place.is_try else trials
    work = partial(_search_model, corpus, place.folder / name, count)
    models = {}
    for (model, _), found in run_tasks(work, tasks, workers=WORKERS, fresh=True):
        if isinstance(found, Died):
            raise RuntimeError(f"the search for {model} died: {found.cause}")
        print(f"  {name}: {model}, validation loss {found['loss']:.4f}", flush=True)
        models[model] = found
    return {
        "kind": "search",
        "trials": count,
        "corpus": open_corpus(corpus).card.name,
        "models": {model: models[model] for model, _ in tasks},
    }


def _search_model(
    corpus: Path, folder: Path, trials: int, task: tuple[str, Config], threads: int
) -> dict[str, Any]:
    model, config = task
    ended = search(
        open_corpus(corpus).development(), config, folder=_made(folder / model), trials=trials
    )
    best = best_trial(ended)
    return {
        "params": best.params,
        "loss": best.value,
        "loss_of_defaults": ended[0].value,
        "trials": len(ended),
        "stopped_early": sum(trial.state == "pruned" for trial in ended),
        "seconds": sum(trial.seconds for trial in ended),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _search_note(place: Place, step: str, entries: Sequence[Entry]) -> str:
    content = kept(step, place.results)
    assert content is not None
    names = [entry.name for entry in entries if entry.name in content["models"]]
    note = f"settings tried on validation: {content['trials']} for each of {', '.join(names)}"
    return note if len(names) == len(entries) else f"{note}; for the other models the defaults"


# ---------------------------------------------------------------- validation


class Variant(NamedTuple):
    """A row of a validation study: a model with settings of its own."""

    name: str
    model: str = "calibrated"
    settings: tuple[str, ...] = ()
    start: str | None = None  # a run whose weights it begins with


def validation(
    place: Place,
    name: str,
    corpora: Sequence[Path],
    training: Training,
    variants: Sequence[Variant],
) -> dict[str, Any]:
    """Compare variants on validation clips alone; the corpora hold no test clips.

    Args:
        place: Where to work.
        name: Name of the step.
        corpora: One corpus, or one for every fold.
        training: Seeds, preset, common settings, and the search for settings by model.
        variants: The rows, the reference first. Each is trained on every fold with every seed.
    """
    seeds = seeds_of(place, training.seeds)
    out = place.folder / name
    entries = [_variant_entry(place, training, variant, corpora[0]) for variant in variants]
    folders = {}
    for entry in entries:
        for fold, corpus in enumerate(corpora):
            folder = row_folder(out, entry.name) / f"fold-{fold}"
            open_run(folder, open_corpus(corpus), entry.config, seeds=seeds, resume=True)
            folders[entry.name, fold] = folder
    jobs = [
        Job(
            corpora[fold],
            entry.config,
            seed,
            folders[entry.name, fold] / f"seed-{seed}",
            entry.name,
        )
        for seed in seeds
        for fold in range(len(corpora))
        for entry in entries
    ]
    train_jobs(jobs, workers=WORKERS, tell=telling(name))
    runs = {
        key: Run.load(folder)
        if (folder / METRICS).exists()
        else finish_run(folder, open_corpus(corpora[key[1]]))
        for key, folder in folders.items()
    }
    card = open_corpus(corpora[0]).card
    first = next(iter(runs.values())).metrics["valid"]
    metrics = default_metrics(card.task.kind, (), list(first))
    rows = [_variant_row(entry, entries[0], runs, len(corpora), metrics) for entry in entries]
    return {
        "kind": "validation",
        "corpus": card.model_dump(mode="json", include={"name", "task", "counts", "aligned"}),
        "folds": len(corpora),
        "metrics": metrics,
        "reference": entries[0].name,
        "rows": rows,
        "notes": list(card.notes),
    }


def _variant_entry(place: Place, training: Training, variant: Variant, corpus: Path) -> Entry:
    found = {}
    if training.search is not None:
        found = searched(place, training.search).get(variant.model, {})
    base = None
    if variant.start is not None:
        base = start_settings(variant.start, open_corpus(corpus))
    own = tuple(f"{key}={value!r}" for key, value in found.items())
    config = resolve_config(
        model=variant.model,
        source=training.preset,
        overrides=[*training.settings, *own, *variant.settings, *settings_of(place)],
        base=base,
    )
    return Entry(variant.name, config, variant.settings)


def _variant_row(
    entry: Entry,
    reference: Entry,
    runs: Mapping[tuple[str, int], Run],
    folds: int,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Return every metric of a variant, and its difference from the reference, pair by pair."""

    def values(name: str) -> list[dict[str, float]]:
        reports = [runs[name, fold].metrics["valid"] for fold in range(folds)]
        count = len(reports[0][metrics[0]]["values"])
        return [
            {key: _number(report[key]["values"][seed]) for key in metrics}
            for report in reports
            for seed in range(count)
        ]

    own, other = values(entry.name), values(reference.name)
    differences = [
        {key: mine[key] - theirs[key] for key in metrics}
        for mine, theirs in zip(own, other, strict=True)
    ]
    figures = runs[entry.name, 0].metrics["training"]
    return {
        "name": entry.name,
        "model": entry.config.model.name,
        "settings": list(entry.settings),
        "valid": {key: each.as_dict() for key, each in summarise_seeds(own).items()},
        "difference": {key: each.as_dict() for key, each in summarise_seeds(differences).items()},
        "cost": {
            "parameters": figures["parameters"],
            "train_seconds": figures["seconds"]["mean"],
        },
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


# ---------------------------------------------------------------- explanations


def explanation(place: Place, name: str, training: Training, *, of: str) -> dict[str, Any]:
    """Explain ``calibrated`` of a comparison; it is trained here if that left no networks."""
    from mmcl.explain.explanation import explain

    corpus = training.corpus(place)
    entries = entries_of(place, training._replace(models=("calibrated",)), corpus)
    run = train(
        open_corpus(corpus),
        entries[0].config,
        out=row_folder(place.folder / of, "calibrated"),
        seeds=seeds_of(place, training.seeds),
        workers=WORKERS,
        resume=True,
    )
    content = explain(run, open_corpus(corpus), split="test", num_clips=EXPLAINED)
    kept_parts = (
        "corpus",
        "split",
        "model",
        "policies",
        "probes",
        "planted",
        "conclusions",
        "notes",
    )
    areas = {
        direction: {order: found["area"] for order, found in content["curves"][direction].items()}
        for direction in ("deletion", "insertion")
    }
    return {"kind": "explanation", **{key: content[key] for key in kept_parts}, "areas": areas}


EXPLAINED = 200
"""Clips of the curves of an explanation."""
