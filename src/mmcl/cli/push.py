"""The command ``mmcl push``: publish a run with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.cli.options import RunArgument, hold_output

__all__ = ["push_command"]


def push_command(
    run: RunArgument,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="owner/name on the Hugging Face Hub, or a folder as ./folder."
        ),
    ],
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Licence of the model by its name on the Hub, as apache-2.0; needed for the Hub.",
        ),
    ] = None,
) -> None:
    """Publish a run on the Hugging Face Hub, or write the folder that would be uploaded.

    The folder holds the networks of all seeds (safetensors), the settings, the scores, and a
    model card that is written from them: data, settings, scores with intervals, how to use it,
    what it cannot do, licence. Predictions, labels and paths of this machine stay here.

    A new repository is public. For a private one make it on the Hub first. Log in before:
    hf auth login. mmcl.from_pretrained("owner/name") opens a published run, and so does
    mmcl.from_pretrained("./folder").

    Examples:

      mmcl push runs/planted ./published

      mmcl push runs/planted owner/name --licence apache-2.0
    """
    from mmcl.runs.publishing import check_licence, hub_id, upload_run, write_published
    from mmcl.runs.run import Run

    repository = hub_id(target)
    check_licence(licence, is_required=repository is not None)
    opened = Run.load(run)
    if repository is not None and licence is not None:
        typer.echo(upload_run(opened, repository, licence=licence))
        return
    folder = Path(target).expanduser()
    # Only an empty folder is written to, so it cannot be the run.
    hold_output(folder, inputs=[], is_folder=True)
    write_published(opened, folder, name=f"./{folder.name}", licence=licence)
    typer.echo(f"{folder}: read the card: {folder / 'README.md'}")
