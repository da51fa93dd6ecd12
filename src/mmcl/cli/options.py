"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.pool import Engine

__all__ = ["CorpusArgument", "EngineOption", "RunArgument"]

CorpusArgument = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A corpus, or a file of another project.")
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="Run the processes here (local), or on Ray, also over several machines."),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
