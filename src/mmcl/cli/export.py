"""``mmcl export``: a trained network as a file that runs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.errors import UsageError, did_you_mean

__all__ = ["export_command"]

FORMATS = ("onnx",)


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    seed: Annotated[
        int | None, typer.Option(help="Which of its seeds; the first by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; by default RUN/seed-N/model.onnx."),
    ] = None,
    to: Annotated[str, typer.Option("--format", help="Of the file: onnx.")] = "onnx",
) -> None:
    """Write one seed of a run as a file that runs without torch. It needs the export extra.

    Numbers of clips and of steps are free. Before the file gets its name it is run beside
    torch, on random clips in batches of several sizes, and must agree within 1e-4.

    Per modality it takes features, as text, and which steps are real, as text_mask; of
    an absent modality none is. It returns scores, and the commonality and keep_probability of
    every step. Its metadata says which task, modalities and feature widths it is for.

    Examples:

      mmcl export runs/planted

      mmcl export runs/mosi --seed 3 --out mosi.onnx --format onnx
    """
    _check_format(to)
    if out is not None and out.suffix != ".onnx":
        raise UsageError(f'--out must end with .onnx, got "{out.name}"')
    from mmcl.models.export import BATCHES, export_onnx
    from mmcl.runs.run import Run

    opened = Run.load(run)
    chosen = opened.seeds[0] if seed is None else seed
    if chosen not in opened.seeds:
        raise UsageError(f"--seed must be one of {list(opened.seeds)}, those of {run}, got {seed}")
    target = run / f"seed-{chosen}" / "model.onnx" if out is None else out
    written = export_onnx(opened.model(chosen), target)
    *sizes, last = BATCHES
    typer.echo(
        f"{target}: equal to torch within {written.difference:.0e}, "
        f"in batches of {', '.join(map(str, sizes))} and {last}"
    )


def _check_format(text: str) -> None:
    if text not in FORMATS:
        near = did_you_mean(text, FORMATS)
        raise UsageError(f'--format must be one of {", ".join(FORMATS)}, got "{text}"{near}')
