"""Run folders: made before training, checked when a run continues, and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmcl.config import Config, model_names
from mmcl.corpus.schema import Card
from mmcl.corpus.store import Corpus
from mmcl.errors import RunError, UsageError
from mmcl.files import write_json
from mmcl.runtime import environment

__all__ = [
    "RUN",
    "free_folder",
    "open_run",
    "read_description",
    "read_settings",
    "refuse_other",
]

RUN = "run.json"  # configuration, seeds, versions, commit, corpus and its checksum

_LARGEST_SEED = 2**63 - 1  # torch takes no more than 64 bits; a process adds its rank
# Keys that must not change when a run or search continues, in words for the message.
_DIFFERENCES = {
    "corpus_checksum": "another corpus",
    "config": "other settings",
    "space": "other settings to search",
    "seed": "another seed",
}


def free_folder(corpus: Corpus, config: Config) -> Path:
    """Return the first ``runs/<corpus>-<model>-<k>`` that does not exist."""
    names = (f"{corpus.card.name}-{config.model.name}-{number}" for number in count(1))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())


def open_run(
    folder: Path, corpus: Corpus, config: Config, *, seeds: Sequence[int], resume: bool
) -> None:
    """Make a folder for trainings, or check that the run in it has the same settings.

    Raises:
        UsageError: If a seed is negative, too large or repeated.
        RunError: If the folder holds a run and ``resume`` is not set, or a run with another
            configuration or corpus.
        DiskError: If the disk has no room for it.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds must be different whole numbers from 0 on, got {list(seeds)}")
    if max(seeds) > _LARGEST_SEED:
        raise UsageError(f"seeds must be at most {_LARGEST_SEED:,}, got {max(seeds)}")
    description = {
        "config": config.model_dump(mode="json"),
        "seeds": list(seeds),
        "corpus": corpus.card.model_dump(mode="json"),
        "corpus_checksum": corpus.checksum(),
        "environment": environment(),
    }
    if (folder / RUN).exists():
        _check_resumable(folder, description, resume)
        # Other seeds may be added to a run; then its description is written again.
        if list(seeds) == read_description(folder)["seeds"]:
            return
    try:
        write_json(folder / RUN, description)
    except OSError as fault:
        raise RunError(
            f"{folder}: no run can be kept here ({fault.strerror or fault}).\n"
            "  Give a new folder where you may write: --out"
        ) from None


def _check_resumable(folder: Path, description: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise RunError(
            f"{folder}: holds a run already; nothing was changed.\n"
            "  Continue it: --resume\n  Start another: --out with a new folder"
        )
    before = read_description(folder)
    refuse_other(before, description, folder, f"Its settings: {folder / RUN}")


def refuse_other(
    before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, where: str
) -> None:
    """Raise a RunError if a run or search was started with other settings or another corpus."""
    # Settings may have had other names in an earlier version.
    with suppress(ValidationError, KeyError):
        before = {**before, "config": _read_config(before["config"]).model_dump(mode="json")}
    for key, difference in _DIFFERENCES.items():
        if key in now and before.get(key) != now[key]:
            raise RunError(
                f"{folder}: was started with {difference}; nothing was changed.\n"
                f"  {where}\n  Start another: --out with a new folder"
            )


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of run.json, or raise a RunError."""
    try:
        description: dict[str, Any] = json.loads((folder / RUN).read_text())
    except FileNotFoundError:
        raise RunError(
            f"{folder}: not a run folder (no {RUN} in it).\n"
            f"  Make one: mmcl train CORPUS --out {folder}"
        ) from None
    except (OSError, ValueError) as fault:
        raise RunError(f"{folder / RUN}: not readable ({fault}).") from None
    return description


def read_settings(folder: Path, description: dict[str, Any]) -> tuple[Config, Card]:
    """Return a run's configuration and the card of its corpus, or raise a RunError."""
    try:
        config = _read_config(description["config"])
        return config, Card.model_validate(description["corpus"])
    except (KeyError, ValidationError) as fault:
        # A model of a package that is not installed here is the usual cause.
        name = description.get("config", {}).get("model", {}).get("name")
        why = "its settings are of another version"
        if isinstance(fault, ValidationError) and name not in (None, *model_names()):
            why = f'no model "{name}" is installed here'
        raise RunError(
            f"{folder / RUN}: cannot be opened: {why}.\n"
            "  Install what it was trained with, or train it again: mmcl train CORPUS --out NEW"
        ) from fault


def _read_config(saved: dict[str, Any]) -> Config:
    """Read saved settings; earlier versions called ``runtime.devices`` ``runtime.processes``."""
    runtime = dict(saved.get("runtime", {}))
    if "processes" in runtime:
        runtime["devices"] = runtime.pop("processes")
    return Config.model_validate({**saved, "runtime": runtime})
