"""Tuning: a search for settings, and the best of them trained again with fresh seeds.

The search itself is :mod:`mmcl.runs.search`; it sees no test clip. This module then trains the
best settings, and those the search started from, with seeds that the search did not use, and
scores both by the protocol. DIR holds what the search leaves there, and::

    DIR/best.toml      the best settings, for --config
    DIR/best/          a run of them, over fresh seeds
    DIR/defaults/      a run of the settings the search started from, over the same seeds
    DIR/tuning.json    the result

``tuning.json``::

    command, corpus, model, environment, search_seed, fresh_seeds
    trials       number, state, value (validation loss), params, seconds, fault
    best         number, value and params of the best trial
    importance   by setting the share of the differences it explains; null with few trials
    validation   validation loss: search (of the best trial), best and defaults (summaries)
    metrics      best and defaults: by split and metric a summary over the fresh seeds
    references   the rows every result carries
    notes        what a reader should know
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
from mmcl.runs.run_folder import RUN
from mmcl.runs.search import (
    SEARCH_SEED,
    Told,
    Trial,
    best_trial,
    importance,
    search,
    with_settings,
)
from mmcl.runtime import environment

__all__ = ["FIRST_FRESH_SEED", "config_toml", "tune"]

FIRST_FRESH_SEED = 101
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
    told: Told | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search for settings on validation, train the best with fresh seeds, return ``tuning.json``.

    The same call again goes on where it was stopped, and changes nothing when it was done.

    Args:
        corpus: The corpus; the search gets no test clip of it.
        config: The settings to start from.
        out: Folder of the search.
        trials: Trials in all.
        workers: Processes that search together, and then train seeds side by side.
        engine: Whose processes search. The seeds at the end are trained on this machine.
        seeds: Fresh seeds to train the best settings with: 101, 102, ...
        fixed: Keys that are not searched.
        command: As typed, for the record.
        told: Called whenever a trial has ended.
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
    ended = search(
        corpus.development(),
        config,
        folder=out,
        trials=trials,
        workers=workers,
        engine=engine,
        fixed=fixed,
        told=told,
        progress=progress,
    )
    best = best_trial(ended)
    chosen = with_settings(config, best.params)
    write_result(out / BEST_FILE, _best_text(chosen, best, len(ended)))
    fresh = tuple(range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + seeds))
    side_by_side = workers if engine == "local" else 1
    runs = {
        name: _train_again(corpus, settings, out / name, fresh, side_by_side, progress)
        for name, settings in ((BEST, chosen), (DEFAULTS, config))
    }
    content = {
        "command": command,
        "corpus": corpus.card.name,
        "model": config.model.name,
        "environment": environment(),
        "search_seed": SEARCH_SEED,
        "fresh_seeds": list(fresh),
        "trials": [trial._asdict() for trial in ended],
        "best": {"number": best.number, "value": best.value, "params": best.params},
        "importance": importance(out),
        "validation": {
            "search": best.value,
            **{name: _validation(run).as_dict() for name, run in runs.items()},
        },
        "metrics": {
            name: {split: run.metrics[split] for split in ("valid", "test")}
            for name, run in runs.items()
        },
        "references": runs[BEST].metrics["references"],
        "notes": [*_notes(ended, fresh), *runs[BEST].metrics["notes"]],
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
    """Train with some settings, or open the run that has them; one of a shorter search goes."""
    if (folder / RUN).exists():
        before = json.loads((folder / RUN).read_text())
        if before["config"] != config.model_dump(mode="json") or before["seeds"] != list(seeds):
            shutil.rmtree(folder)
    if (folder / "metrics.json").exists():
        return Run.load(folder)
    return train(
        corpus, config, out=folder, seeds=seeds, workers=workers, resume=True, progress=progress
    )


def _validation(run: Run) -> Summary:
    """Return the best validation loss of every seed, summarised."""
    histories = [run.fitted(seed).history for seed in run.seeds]
    return summarise([min(row.valid_loss for row in history) for history in histories])


def _notes(ended: list[Trial], fresh: tuple[int, ...]) -> list[str]:
    count = len(ended)
    notes = [
        f"the validation loss of the best of {count} trial{'s' * (count != 1)} is optimistic: it "
        "was picked for being the smallest. What the settings are worth is the mean over the "
        f"fresh seeds {', '.join(map(str, fresh))}"
    ]
    failed = [trial.number for trial in ended if trial.state == "failed"]
    if failed:
        notes.append(f"failed, and counted: trials {', '.join(map(str, failed))}")
    return notes


def _best_text(config: Config, best: Trial, count: int) -> str:
    return (
        f"# The best of {count} trials (trial {best.number}), chosen by its validation loss "
        f"{best.value:.6g}.\n{config_toml(config)}"
    )


def config_toml(config: Config) -> str:
    """Return a configuration as TOML, which :func:`mmcl.config.resolve_config` reads again.

    Example:
        >>> print(config_toml(Config()).splitlines()[1])
        name = "calibrated"
    """
    lines = []
    for section, settings in config.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        # TOML has no word for None, which is every such setting's default.
        lines += [f"{key} = {_toml(v)}" for key, v in settings.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + "}"
    return json.dumps(value)
