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
        int | None, typer.Option(help="Seed to export; the first of the run by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; by default RUN/seed-N/model.onnx."),
    ] = None,
    to: Annotated[str, typer.Option("--format", help="Format of the file: onnx.")] = "onnx",
) -> None:
    """Write one seed of a run as a file that runs without torch. It needs the export extra.

    The file takes any number of clips and of steps. Before it gets its name it is run beside
    torch, on random clips in batches of several sizes, and must agree within 1e-4.

    Its inputs are, per modality, the features (text) and which steps are real (text_mask); an
    absent modality has no real step. Its outputs are scores, and the commonality and
    keep_probability of every step. Its metadata names the task, modalities and feature widths.

    Examples:

      mmcl export runs/planted

      mmcl export runs/mosi --seed 3 --out mosi.onnx --format onnx
    """
    if to not in FORMATS:
        near = did_you_mean(to, FORMATS)
        raise UsageError(f'--format must be one of {", ".join(FORMATS)}, got "{to}"{near}')
    if out is not None and out.suffix != ".onnx":
        raise UsageError(f'--out must end with .onnx, got "{out.name}"')
    from mmcl.models.export import BATCHES, export_onnx
    from mmcl.runs.run import Run

    opened = Run.load(run)
    chosen = opened.seeds[0] if seed is None else seed
    if chosen not in opened.seeds:
        raise UsageError(f"--seed must be one of {list(opened.seeds)}, those of {run}, got {seed}")
    target = out or run / f"seed-{chosen}" / "model.onnx"
    difference = export_onnx(opened.model(chosen), target).difference
    batches = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    typer.echo(f"{target}: equal to torch within {difference:.0e}, in batches of {batches}")
