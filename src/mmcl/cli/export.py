"""The command ``mmcl export``: write a trained network to a file that runs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.cli.options import RunArgument, hold_output
from mmcl.errors import UsageError, did_you_mean

__all__ = ["export_command"]

FORMATS = ("onnx",)


def export_command(
    run: RunArgument,
    seed: Annotated[
        int | None, typer.Option(help="Seed to export. Default: the first of the run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write. Default: RUN/seed-N/model.onnx."),
    ] = None,
    to: Annotated[str, typer.Option("--format", help="Format of the file: onnx.")] = "onnx",
) -> None:
    """Write the network of one seed to a file that runs without torch.

    This needs the extra export. The file takes any number of clips and steps. It is checked
    against torch on random clips: both must agree within 1e-4.

    Inputs, for each modality: its features (such as text) and a mask of the real steps (such
    as text_mask). An absent modality has no real step. Outputs: scores, and the commonality
    and keep_probability of every step. The metadata of the file names the task, the
    modalities and the feature widths.

    Examples:

      mmcl export runs/planted

      mmcl export runs/mosi --seed 3 --out mosi.onnx --format onnx
    """
    # Options are checked before torch is imported, so that a mistake shows at once.
    if to not in FORMATS:
        near = did_you_mean(to, FORMATS)
        raise UsageError(f'--format must be one of {", ".join(FORMATS)}, got "{to}"{near}')
    if out is not None and out.suffix != ".onnx":
        raise UsageError(f'--out must end with .onnx, got "{out.name}"')
    from mmcl.models.export import BATCHES, export_onnx
    from mmcl.runs.starter import run_or_starter

    opened = run_or_starter(run)
    chosen = opened.seeds[0] if seed is None else seed
    if chosen not in opened.seeds:
        raise UsageError(f"--seed must be one of {list(opened.seeds)}, those of {run}, got {seed}")
    target = out or run / f"seed-{chosen}" / "model.onnx"
    hold_output(target, inputs=[run])
    difference = export_onnx(opened.model(chosen), target).difference
    batches = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    typer.echo(f"{target}: equal to torch within {difference:.0e}, in batches of {batches}")
