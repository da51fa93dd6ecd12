"""Arguments and options that several commands share."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mmcl.outputs import hold_output as held_output
from mmcl.pool import Engine

__all__ = ["CorpusArgument", "EngineOption", "RunArgument", "hold_output", "release_outputs"]

CorpusArgument = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A corpus, or a file of another project.")
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="Run the processes here (local), or on Ray, also over several machines."),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or starter.")]

_outputs = ExitStack()  # of the command that runs; the program closes it


def hold_output(path: Path, *, is_folder: bool = False) -> None:
    """Let the current command alone write an output until it ends.

    Called before the work: a disk that takes nothing is noticed at once. See
    :func:`mmcl.outputs.hold_output`.
    """
    _outputs.enter_context(held_output(path, is_folder=is_folder))


def release_outputs() -> None:
    """Let other commands write the outputs of this one, which has ended."""
    _outputs.close()
