"""Published runs: written to a folder or to the Hugging Face Hub, and opened from there.

A published run is a run folder without what training left behind, and with a model card::

    README.md                       the model card, see mmcl.runs.model_card
    run.json, metrics.json          without paths of this machine and notes about the corpus
    seed-N/done.json, history.csv
    seed-N/model/                   settings and weights (safetensors), tokenizer of an encoder

Predictions stay at home: they hold the ids and labels of the corpus.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from mmcl.config import STARTER_NAME
from mmcl.errors import RunError, UsageError
from mmcl.files import complete_file, disk_error, read_json, write_json, write_text
from mmcl.learning.fitted import DONE, MODEL
from mmcl.learning.history import HISTORY
from mmcl.models.words import FOLDER as ENCODER
from mmcl.outputs import LOCK
from mmcl.runs.model_card import model_card
from mmcl.runs.run import METRICS, Run
from mmcl.runs.run_folder import RUN

__all__ = ["check_licence", "from_pretrained", "hub_id", "upload_run", "write_published"]

CARD = "README.md"
_SEED_FILES = (
    *(DONE, HISTORY, f"{MODEL}/config.json", f"{MODEL}/model.safetensors"),
    *(f"{MODEL}/{ENCODER}/*.json", f"{MODEL}/{ENCODER}/*.txt", f"{MODEL}/{ENCODER}/*.model"),
)
"""Files of a seed, nothing of which is a pickle or a program."""
_PUBLISHED = (CARD, RUN, METRICS, *(f"seed-*/{name}" for name in _SEED_FILES))
# Of an encoder's files, those that may hold the folder it was loaded from; never the vocabulary.
_ENCODER_SETTINGS = ("settings.json", "config.json", "tokenizer_config.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def from_pretrained(name: str | Path, *, revision: str | None = None) -> Run:
    """Open a published run: a folder, or a repository of the Hugging Face Hub.

    From the Hub only settings and safetensors are downloaded, once; no code of it is run. What
    comes is checked as any run folder is.

    Args:
        name: Folder, or id on the Hub as ``owner/name``. A folder of that name wins.
        revision: Commit, tag or branch on the Hub. Default: the newest.

    Raises:
        RunError: If it cannot be downloaded, is no run, is damaged, or is of another version.
        UsageError: If the name is neither an id nor the path of a folder.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() or (repository := hub_id(str(name))) is None:
        return Run.load(folder)
    from huggingface_hub import snapshot_download

    with _hub_errors(repository, "downloaded"):
        found = snapshot_download(repository, revision=revision, allow_patterns=list(_PUBLISHED))
    return Run.load(found, repository)


def hub_id(target: str) -> str | None:
    """Return the id on the Hub that a text is; None if it is the path of a folder.

    Raises:
        UsageError: If it is neither.

    Example:
        >>> hub_id("owner/name"), hub_id("./folder")
        ('owner/name', None)
    """
    if target.startswith((".", "~")) or Path(target).is_absolute():
        return None
    if _HUB_ID.fullmatch(target):
        return target
    raise UsageError(
        f'expected owner/name or a folder such as ./folder, got "{target}".\n'
        f"  If it is meant as a folder: ./{target}"
    )


def check_licence(licence: str | None, *, is_required: bool) -> None:
    """Refuse a licence that the Hub could not read, or none where one is needed.

    Raises:
        UsageError: If it is.
    """
    if licence is None and is_required:
        raise UsageError(
            "a model on the Hub needs a licence, and the run does not say which.\n"
            "  Give it by the Hub's name: --licence apache-2.0, cc-by-nc-4.0 or other, for example"
        )
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(
            "--licence takes a name as the Hub has it, such as apache-2.0 or cc-by-nc-4.0, got "
            f'"{licence}"'
        )


def write_published(run: Run, folder: Path, *, name: str, licence: str | None) -> None:
    """Write the files of a published run into an empty folder, and its card.

    Args:
        run: A run that was scored. All its networks are loaded first, so that a damaged one is
            not published.
        folder: New or empty folder.
        name: What the card calls it, see :func:`~mmcl.runs.model_card.model_card`.
        licence: Licence of the model; None if it is not known.

    Raises:
        RunError: If the folder holds something, or the run is damaged or was not scored.
    """
    if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise RunError(
            f"{folder}: holds files already; nothing was changed.\n"
            "  Give a new folder: mmcl push RUN ./FOLDER"
        )
    metrics = _public_metrics(run)
    for seed in run.seeds:
        run.model(seed)
        _copy_seed(run.folder / f"seed-{seed}", folder / f"seed-{seed}")
    write_json(folder / METRICS, metrics)
    # A folder with run.json is a run, so it comes after what it names.
    write_json(folder / RUN, _public_description(run))
    write_text(folder / CARD, model_card(Run.load(folder), name, licence))


def upload_run(run: Run, repository: str, *, licence: str) -> str:
    """Upload a run to the Hugging Face Hub; return the address of its repository.

    A repository that exists keeps its visibility and history; a new one is public.

    Raises:
        RunError: If the run cannot be published, or the Hub does not take it.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as name:
        write_published(run, Path(name), name=repository, licence=licence)
        hub = HfApi(library_name="mmcl")
        with _hub_errors(repository, "uploaded"):
            address = hub.create_repo(repository, exist_ok=True)
            # Files of seeds that an earlier push had are removed.
            hub.upload_folder(
                repo_id=repository,
                folder_path=name,
                commit_message="Upload by mmcl push",
                delete_patterns=["seed-*"],
            )
    return str(address)


def _copy_seed(source: Path, target: Path) -> None:
    for pattern in _SEED_FILES:
        for path in sorted(source.glob(pattern)):
            copied = target / path.relative_to(source)
            if path.parent.name == ENCODER and path.name in _ENCODER_SETTINGS:
                write_json(copied, _without_paths(read_json(path)))
                continue
            with complete_file(copied) as unfinished:
                shutil.copyfile(path, unfinished)


def _public_description(run: Run) -> dict[str, Any]:
    """Return run.json with finished seeds alone, and nothing that names files of this machine."""
    content: dict[str, Any] = _without_paths(run.description)
    content["seeds"] = list(run.seeds)
    content["corpus"] = {**content["corpus"], "notes": [], "account": None}
    learning = content["config"]["learning"]
    if learning.get("start") not in (None, STARTER_NAME):
        learning["start"] = None  # the folder is elsewhere; "start" beside it says what it was
    return content


def _public_metrics(run: Run) -> dict[str, Any]:
    """Return metrics.json without the notes about the corpus, which may name its files."""
    content = run.metrics
    start = str(run.description.get("start", {}).get("run", ""))
    notes = [note for note in content["notes"] if note not in run.card.notes]
    if start:
        notes = [note.replace(start, PurePath(start).name) for note in notes]
    return {**content, "notes": notes}


def _without_paths(tree: Any) -> Any:
    """Return JSON content in which absolute paths are cut to their last part."""
    if isinstance(tree, dict):
        return {key: _without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_paths(value) for value in tree]
    if isinstance(tree, str) and Path(tree).is_absolute() and len(Path(tree).parts) > 2:
        return Path(tree).name
    return tree


@contextmanager
def _hub_errors(repository: str, done: str) -> Iterator[None]:
    """Context in which a fault of the Hub or the network is a RunError that says how to go on."""
    try:
        yield
    except Exception as fault:  # of the client, of the library below it, or of the system
        error = disk_error(fault)
        if error is not None:
            raise error from fault
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise RunError(
            f"{repository}: cannot be {done} ({reason}).\n"
            "  Check the name and the network. If you are not logged in: hf auth login"
        ) from fault
