"""Tuning: a search for settings, and the best of them trained again with fresh seeds.

:mod:`mmcl.runs.search` searches without test clips. This module then trains the best settings and
the initial ones with seeds that the search did not use, and scores both. DIR holds the files of
the search, and::

    DIR/best.toml      the best settings, for --config
    DIR/best/          a run with the best settings and fresh seeds
    DIR/defaults/      a run with the initial settings and the same seeds
    DIR/tuning.json    the result

``tuning.json``::

    command, corpus, model, environment, search_seed, fresh_seeds
    trials       number, state, value (validation loss), params, seconds, fault
    best         number, value and params of the best trial
    importance   by setting the share of the variation it explains; null with few trials
    validation   validation loss: search (of the best trial), best and defaults (summaries)
    metrics      best and defaults: by split and metric a summary over the fresh seeds
    references   scores of ridge, majority and constant
    notes        remarks for the reader
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmcl.config import Config
from mmcl.corpus.store import Corpus
from mmcl.errors import UsageError
from mmcl.evaluation.summary import Summary, summarise
from mmcl.evaluation.tables import write_result
from mmcl.files import write_json
from mmcl.learning.loop import Progress
from mmcl.pool import Engine
from mmcl.runs.run import Run, train
from mmcl.runs.run_folder import RUN, read_description, read_settings
from mmcl.runs.search import (
    SEARCH_SEED,
    OnTrial,
    Trial,
    best_trial,
    importance,
    search,
    with_settings,
)
from mmcl.runtime import environment

__all__ = ["FIRST_FRESH_SEED", "config_toml", "tune"]

FIRST_FRESH_SEED = 101
"""First seed of the last trainings, far from the seed of the search."""
BEST, DEFAULTS, BEST_FILE, RESULT = "best", "defaults", "best.toml", "tuning.json"


def tune(
    corpus: Corpus,
    config: Config,
    *,
    out: Path,
    trials: int = 30,
    workers: int = 1,
    engine: Engine = "local",
    seeds: int = 3,
    fixed: Collection[str] = (),
    command: str = "",
    on_trial: OnTrial | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search for settings on validation, train the best with fresh seeds, return ``tuning.json``.

    The same call continues one that was stopped, and trains nothing if all is done.

    Args:
        corpus: The corpus; the search gets no test clips.
        config: Initial settings.
        out: Folder of the search.
        trials: Trials in all.
        workers: Trials at a time, and then seeds at a time.
        engine: Where the search runs. The fresh seeds are trained on this machine.
        seeds: Number of fresh seeds: 101, 102, ...
        fixed: Keys that are not searched.
        command: The command line, for the record.
        on_trial: Called after every trial.
        progress: Called as a training advances.

    Raises:
        UsageError: If trials, workers or seeds are fewer than 1.
        MissingExtraError: If Optuna is not installed.
        RunError: If the folder holds something else.
        TrainingError: If no trial was completed, or processes died.
    """
    for name, count in (("trials", trials), ("workers", workers), ("seeds", seeds)):
        if count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}")
    trials_ended = search(
        corpus.development(),
        config,
        folder=out,
        trials=trials,
        workers=workers,
        engine=engine,
        fixed=fixed,
        on_trial=on_trial,
        progress=progress,
    )
    best = best_trial(trials_ended)
    chosen = with_settings(config, best.params)
    write_result(out / BEST_FILE, _best_toml(chosen, best, len(trials_ended)))
    fresh_seeds = tuple(range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + seeds))
    # With Ray, workers counts processes of other machines, which train no seeds.
    side_by_side = workers if engine == "local" else 1
    runs = {
        name: _train_again(corpus, settings, out / name, fresh_seeds, side_by_side, progress)
        for name, settings in ((BEST, chosen), (DEFAULTS, config))
    }
    content = {
        "command": command,
        "corpus": corpus.card.name,
        "model": config.model.name,
        "environment": environment(),
        "search_seed": SEARCH_SEED,
        "fresh_seeds": list(fresh_seeds),
        "trials": [trial._asdict() for trial in trials_ended],
        "best": {"number": best.number, "value": best.value, "params": best.params},
        "importance": importance(out),
        "validation": {
            "search": best.value,
            **{name: _validation_summary(run).as_dict() for name, run in runs.items()},
        },
        "metrics": {
            name: {split: run.metrics[split] for split in ("valid", "test")}
            for name, run in runs.items()
        },
        "references": runs[BEST].metrics["references"],
        "notes": [*_notes(trials_ended, fresh_seeds), *runs[BEST].metrics["notes"]],
    }
    write_json(out / RESULT, content)
    return content


def _train_again(
    corpus: Corpus,
    config: Config,
    folder: Path,
    seeds: tuple[int, ...],
    workers: int,
    progress: Progress | None,
) -> Run:
    """Train with settings and fresh seeds, or open the run that has them already."""
    # More trials may have found better settings; the run of the earlier ones is removed.
    if (folder / RUN).exists():
        saved = read_description(folder)
        if read_settings(folder, saved)[0] != config or saved["seeds"] != list(seeds):
            shutil.rmtree(folder)
    if (folder / "metrics.json").exists():
        return Run.load(folder)
    return train(
        corpus, config, out=folder, seeds=seeds, workers=workers, resume=True, progress=progress
    )


def _validation_summary(run: Run) -> Summary:
    """Return the summary of the best validation losses of the seeds."""
    histories = [run.fitted(seed).history for seed in run.seeds]
    return summarise([min(row.valid_loss for row in history) for history in histories])


def _notes(trials_ended: list[Trial], fresh_seeds: tuple[int, ...]) -> list[str]:
    count = len(trials_ended)
    notes = [
        f"the validation loss of the best of {count} trial{'s' * (count != 1)} is optimistic: it "
        "was chosen as the smallest. A fair estimate is the mean over the "
        f"fresh seeds {', '.join(map(str, fresh_seeds))}"
    ]
    failed = [trial.number for trial in trials_ended if trial.state == "failed"]
    if failed:
        notes.append(f"trials that failed, and are counted: {', '.join(map(str, failed))}")
    return notes


def _best_toml(config: Config, best: Trial, count: int) -> str:
    return (
        f"# The best of {count} trials (trial {best.number}), chosen by its validation loss "
        f"{best.value:.6g}.\n{config_toml(config)}"
    )


def config_toml(config: Config) -> str:
    """Return a configuration as TOML, which :func:`mmcl.config.resolve_config` can read.

    Example:
        >>> print(config_toml(Config()).splitlines()[1])
        name = "calibrated"
    """
    lines = []
    for section, settings in config.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        # TOML has no null; settings that can be None have it as their default.
        lines += [f"{key} = {_toml_value(v)}" for key, v in settings.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_value(v)}" for key, v in value.items()) + "}"
    return json.dumps(value)
