"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mmcl.errors import RunError, UsageError, did_you_mean
from mmcl.outputs import hold_output as held_output
from mmcl.pool import Engine

__all__ = [
    "CORPUS_ENDING",
    "CorpusArgument",
    "EngineOption",
    "RunArgument",
    "check_run",
    "hold_corpus",
    "hold_output",
    "near_name",
    "refuse_other_results",
    "releasing_outputs",
]

CorpusArgument = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A corpus, or a file of another project.")
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="Run the processes here (local), or on Ray, also over several machines."),
]


def check_run(path: Path) -> Path:
    """Return the path of a run folder, or raise an error that says what is there instead.

    Raises:
        RunError: If it is a file, or nothing and not the word ``starter``.
    """
    if path.is_dir() or (str(path) == "starter" and not path.exists()):
        return path
    from mmcl.media.folders.raw_files import MEDIA_ENDINGS

    if not path.exists():
        raise RunError(
            f"{path}: no such run folder{near_name(path)}\n"
            f"  Make one: mmcl train CORPUS --out {path}"
        )
    kind, advice = "a file", "Expected the folder that mmcl train --out has made."
    if path.suffix.lower() in MEDIA_ENDINGS:
        kind, advice = "a recording", f"To predict it: mmcl predict {path}"
    raise RunError(f"{path}: {kind}, not a run folder.\n  {advice}")


def near_name(path: Path) -> str:
    """Return the end of a sentence about a missing path: the most similar name beside it."""
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    return did_you_mean(path.name, siblings) or "."


RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder, or starter.", callback=check_run),
]

CORPUS_ENDING = ".arrow"
_outputs = ExitStack()  # of the command that runs; the program closes it


def hold_output(path: Path, *, inputs: Iterable[Path | None], is_folder: bool = False) -> None:
    """Let the current command alone write an output until it ends.

    Called before the work: a disk that takes nothing is noticed at once. See
    :func:`mmcl.outputs.hold_output`.

    Args:
        path: The file or folder to write.
        inputs: Every file and folder that the command reads; None stands for none.
        is_folder: Whether the output is a folder.

    Raises:
        UsageError: If the output is one of the inputs, under whatever name.
        BusyError, DiskError: As :func:`mmcl.outputs.hold_output` does.
    """
    for source in inputs:
        if source is not None and _is_same(path, source):
            raise UsageError(
                f"{path}: the command reads this, so it cannot write it as well; "
                "nothing was changed.\n"
                "  Give the output another name."
            )
    from mmcl.learning.history import HISTORY

    # Without an epoch of a training there is nothing that the same command could continue.
    _outputs.enter_context(held_output(path, is_folder=is_folder, kept=HISTORY))


def _is_same(path: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file or folder, also through links."""
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def hold_corpus(path: Path, *, inputs: Iterable[Path]) -> None:
    """Let the current command alone write a corpus file, which may replace only a corpus.

    Raises:
        UsageError: If the name is not that of a corpus, or the file there is no corpus.
        UsageError, BusyError, DiskError: As :func:`hold_output` does.
    """
    if path.suffix != CORPUS_ENDING:
        raise UsageError(
            f"{path}: a corpus is an Arrow file, so its name must end in {CORPUS_ENDING}.\n"
            f"  Give it such a name: {path.parent / (path.stem or 'corpus')}{CORPUS_ENDING}"
        )
    if os.path.isfile(path) and path.stat().st_size and not _is_corpus(path):
        raise UsageError(
            f"{path}: the file exists and is no corpus; it would be replaced.\n"
            "  Expected a new name, or a corpus to replace."
        )
    hold_output(path, inputs=inputs)


def _is_corpus(path: Path) -> bool:
    """Tell whether a file may be a corpus; an Arrow file too damaged to read counts as one."""
    from mmcl.corpus.readers.arrow_table import is_foreign_arrow
    from mmcl.corpus.store import is_corpus_file

    return is_corpus_file(path) and not is_foreign_arrow(path)


def refuse_other_results(folder: Path, own: str) -> None:
    """Refuse a folder that holds results of another command, which would be mixed with new ones.

    Args:
        folder: Folder to write to.
        own: File that the command itself keeps in its folder.

    Raises:
        RunError: If it holds such results.
    """
    from mmcl.runs.comparison import COMPARISON
    from mmcl.runs.run_folder import RUN
    from mmcl.runs.search import SEARCH

    results = {RUN: "a training run", COMPARISON: "a comparison", SEARCH: "a search for settings"}
    for name, kind in results.items():
        if name != own and (folder / name).exists():
            raise RunError(
                f"{folder}: holds {kind} already; nothing was changed.\n  Give a new folder: --out"
            )


@contextmanager
def releasing_outputs() -> Iterator[None]:
    """Context of a command: at its end other commands may write its outputs."""
    with _outputs:
        yield
