"""The command ``mmcl starter``: print the card of the model that comes with the package."""

from __future__ import annotations

import typer

__all__ = ["starter_command"]


def starter_command() -> None:
    """Print the card of the starter: its data, errors and limits.

    The starter is a run that comes with the package. It scores English words and faces without
    training. mmcl predict and mmcl serve use it when no run is given.

    Examples:

      mmcl starter

      mmcl predict talk.mp4
    """
    from mmcl.runs.starter import starter_card

    typer.echo(starter_card().rstrip("\n"))
