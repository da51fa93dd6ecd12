"""The command ``mmcl evaluate``: show the scores of a run, or score it on another corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.cli.options import RunArgument
from mmcl.errors import DatasetError

__all__ = ["evaluate_command"]


def evaluate_command(
    run: RunArgument,
    corpus: Annotated[
        Path | None, typer.Option(help="Score on this corpus instead of the one it was trained on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the metrics of a run, or score it on another corpus.

    Examples:

      mmcl evaluate runs/planted

      mmcl evaluate runs/mosi --corpus mosei.arrow --json
    """
    import json

    from mmcl.cli.show import console, metrics_table
    from mmcl.corpus.readers import read_corpus
    from mmcl.files import reading
    from mmcl.runs.run import METRICS
    from mmcl.runs.starter import run_or_starter

    opened = run_or_starter(run)
    # Training has saved the scores on its own corpus.
    report = opened.metrics if corpus is None else opened.evaluate(read_corpus(corpus))
    summaries = [*report["valid"].values(), *report["test"].values()]
    if corpus is not None and all(summary["mean"] is None for summary in summaries):
        raise DatasetError(
            f"{corpus}: no clip in valid or test has a label, so there is nothing to score.\n"
            f"  To predict its clips: mmcl predict {run} {corpus} --out scores.csv"
        )
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    with reading(opened.folder / METRICS):
        table, notes = metrics_table(report), [f"note: {note}" for note in report["notes"]]
    console.print(table)
    for note in notes:
        console.print(note, markup=False)
