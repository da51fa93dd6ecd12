"""The command ``mmcl robustness``: score a run when parts of the clips are missing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmcl.cli.options import CorpusArgument, RunArgument, hold_output
from mmcl.cli.report import write_report
from mmcl.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

__all__ = ["robustness_command"]

RESULT = "robustness.json"


def robustness_command(
    run: RunArgument,
    corpus: CorpusArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write to. Default: RUN/robustness."),
    ] = None,
    split: Annotated[Literal["test", "valid"], typer.Option(help="Clips to score.")] = "test",
) -> None:
    """Score a run while steps or modalities are missing.

    Random steps are removed at rates of 0, 0.1, ... 0.9. Each rate is tried with three random
    draws, the same for every run. Then each subset of the modalities is tried. The scores
    of the best constant on the same clips are shown for comparison.

    DIR gets report.html and robustness.json. Both hold each metric at each rate, its mean
    over the rates (area), its value for each subset, and the rates and subsets at which the
    run is no better than the constant.

    Examples:

      mmcl robustness runs/planted planted.arrow

      mmcl robustness runs/mosi mosi.arrow --split valid --out robust/mosi
    """
    from mmcl.cli.show import console, training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.robustness import crossing_sentences, robustness
    from mmcl.runs.starter import run_or_starter

    opened, loaded = run_or_starter(run), read_corpus(corpus)
    folder = run / "robustness" if out is None else out
    hold_output(folder, inputs=[run, corpus], is_folder=True)
    with training_progress() as tell:
        content = robustness(
            opened,
            loaded,
            split=split,
            command=_command(run, corpus, out, split),
            progress=lambda done, total: tell("predicting", done, total, {}),
        )
    write_json(folder / RESULT, content)
    console.print(_table(content))
    for line in [*crossing_sentences(content), *(f"note: {note}" for note in content["notes"])]:
        console.print(line, markup=False, highlight=False)
    typer.echo(str(folder / RESULT))
    typer.echo(str(write_report(folder)))


def _command(run: Path, corpus: Path, out: Path | None, split: str) -> str:
    """Return the command line, without options that have their default."""
    words = ["mmcl", "robustness", str(run), str(corpus)]
    words += [] if out is None else ["--out", str(out)]
    words += [] if split == "test" else ["--split", split]
    return shlex.join(words)


def _table(content: Mapping[str, Any]) -> Table:
    """Return a table of metrics: a row per rate, their area, per subset, and the constant."""
    from rich import box
    from rich.table import Table

    from mmcl.runs.robustness import headline

    keys, count = headline(content), len(content["seeds"])
    table = Table(
        title=f"{content['model']} on {content['corpus']}, {content['split']} split, "
        f"mean of {count} seed{'s' * (count != 1)}",
        caption=f"all metrics, with their spread over seeds: {RESULT}",
        box=box.SIMPLE,
    )
    table.add_column("missing steps", no_wrap=True)
    for key in keys:
        # Names on two lines, so that nine metrics fit into 80 columns.
        table.add_column(key.replace("_", "\n", 1), justify="right", no_wrap=True)

    def add_row(name: str, values: list[float | None]) -> None:
        table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))

    for index, rate in enumerate(content["rates"]):
        add_row(f"{rate:g}", [content["steps"][key][index]["mean"] for key in keys])
    add_row("area (mean)", [content["areas"][key]["mean"] for key in keys])
    table.add_section()
    for row in content["subsets"]:
        add_row("+".join(row["modalities"]), [row["metrics"][key]["mean"] for key in keys])
    table.add_section()
    lines = [content["line"][key] for key in keys]
    add_row("best constant", [line["value"] if line else None for line in lines])
    return table
