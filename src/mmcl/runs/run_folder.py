"""Run folders: made before training, checked when a run continues, and read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmcl.config import Config, is_model
from mmcl.corpus.schema import Card
from mmcl.corpus.store import Corpus
from mmcl.errors import DiskError, RunError, UsageError
from mmcl.files import NO_ROOM, disk_errors, read_json, reading, write_json
from mmcl.learning.start import open_start
from mmcl.other_version import absent_keys, does_not_fit, misfits, version_of
from mmcl.runtime import environment

__all__ = [
    "RUN",
    "free_folder",
    "open_run",
    "read_description",
    "read_settings",
    "refuse_other",
    "refuse_other_version",
    "saying_how_to_go_on",
]

RUN = "run.json"
"""File of a run: configuration, seeds, versions, commit, corpus and its checksum."""

_LARGEST_SEED = 2**63 - 1  # torch takes no more than 64 bits; a process adds its rank
# Settings and sections that earlier versions did not have. Without them a run is read with their
# defaults, which do what those versions did. Any other setting that is missing is refused.
_ADDED_LATER = (
    *("runtime.strategy", "text", "learning.accumulate", "learning.step_dropout", "policy.keep"),
    "learning.start",
)
# Keys that must not change when a run or search continues, in words for the message.
_DIFFERENCES = {
    "corpus_checksum": "another corpus",
    "config": "other settings",
    "start": "other weights",
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
    if config.learning.start is not None:
        description["start"] = _start_record(folder, config.learning.start)
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


def _start_record(folder: Path, place: str) -> dict[str, Any]:
    """Return which weights the trainings of a folder start from."""
    try:
        return open_start(place).record()
    except RunError:
        # A run that goes on from its checkpoints does not need its start any more.
        with suppress(RunError):
            record: dict[str, Any] = read_description(folder)["start"]
            return record
        raise


@contextmanager
def saying_how_to_go_on(folder: Path, resume: bool) -> Iterator[None]:
    """Add the options that continue the run of a folder to the advice of a DiskError."""
    try:
        with disk_errors(folder, codes=NO_ROOM):
            yield
    except DiskError as fault:
        if not resume:
            words = f"; mmcl train also needs --out {shlex.quote(str(folder))} --resume."
            fault.advice = fault.advice.removesuffix(".") + words
        raise


def _check_resumable(folder: Path, description: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise RunError(
            f"{folder}: holds a run already; nothing was changed.\n"
            "  Continue it: --resume\n  Start another: --out with a new folder"
        )
    before = read_description(folder)
    refuse_other_version(folder / RUN, before)
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
    """Return the content of run.json.

    Raises:
        RunError: If there is none, or another version of mmcl wrote it.
    """
    try:
        description = read_json(folder / RUN)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{folder}: not a run folder (no {RUN} in it).\n"
            f"  Make one: mmcl train CORPUS --out {folder}"
        ) from None
    except OSError as fault:
        raise RunError(f"{folder / RUN}: not readable ({fault.strerror or fault}).") from None
    # Everything that opens a run reads these.
    lines = [f"{key}: missing" for key in ("config", "seeds", "corpus") if key not in description]
    seeds = description.get("seeds", [])
    is_list = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if "seeds" in description and (not is_list or not seeds or len(set(seeds)) < len(seeds)):
        lines.append(f"seeds: must be different whole numbers, one at least, got {seeds!r}")
    if lines:
        raise _other_version(folder / RUN, description, lines)
    return description


def read_settings(folder: Path, description: dict[str, Any]) -> tuple[Config, Card]:
    """Return a run's configuration and the card of its corpus.

    Raises:
        RunError: If another version of mmcl wrote them: with every value that does not fit, and
            the version to install. Or if the run's model is not installed.
    """
    path = folder / RUN
    with reading(path):
        _refuse_unknown_model(path, description["config"])
        lines = _misfits_of_config(description["config"])
        try:
            card = Card.model_validate(description["corpus"])
        except ValidationError as fault:
            lines += [f"corpus.{line}" for line in misfits(fault)]
        if lines:
            raise _other_version(path, description, lines)
        return _read_config(description["config"]), card


def refuse_other_version(path: Path, description: Mapping[str, Any]) -> None:
    """Raise a RunError if the settings of a run or search do not fit this version of mmcl."""
    lines = _misfits_of_config(description.get("config"))
    if lines:
        raise _other_version(path, description, lines)


def _refuse_unknown_model(path: Path, saved: Any) -> None:
    """Raise a RunError if the model is of a package that is not installed here."""
    try:
        name = saved["model"]["name"]
    except (LookupError, TypeError):
        return
    if not is_model(name):
        raise RunError(
            f'{path}: cannot be opened: no model "{name}" is installed here.\n'
            "  Install what it was trained with, or train it again: mmcl train CORPUS --out NEW"
        )


def _misfits_of_config(saved: Any) -> list[str]:
    """Return a line for every saved setting that is unknown, missing or wrong here."""
    if not isinstance(saved, dict):
        return [f"config: must be a table, got {saved!r}"]
    try:
        complete = _read_config(saved).model_dump(mode="json")
    except ValidationError as fault:
        return misfits(fault)
    lines = absent_keys(_renamed(saved), complete)
    return [line for line in lines if line.partition(":")[0] not in _ADDED_LATER]


def _other_version(path: Path, description: Mapping[str, Any], lines: Sequence[str]) -> RunError:
    again = "train it again: mmcl train CORPUS --out NEW"
    return RunError(does_not_fit(str(path), lines, version_of(description), again))


def _read_config(saved: dict[str, Any]) -> Config:
    return Config.model_validate(_renamed(saved))


def _renamed(saved: dict[str, Any]) -> dict[str, Any]:
    """Return saved settings by today's names: ``runtime.devices`` was ``runtime.processes``."""
    runtime = saved.get("runtime")
    if not isinstance(runtime, dict) or "processes" not in runtime:
        return saved
    others = {key: value for key, value in runtime.items() if key != "processes"}
    return {**saved, "runtime": {**others, "devices": runtime["processes"]}}
