"""The command ``mmcl explain``: test whether complementary features help, and list them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmcl.cli.options import RunArgument, hold_output
from mmcl.cli.report import write_report

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["explain_command"]

# Names of the orders in which steps are deleted and inserted.
_NAMES = {
    "actions": "what the policies keep",
    "moments": "what is common or kept",
    "integrated_gradients": "integrated gradients",
    "random": "random",
}


def explain_command(
    run: RunArgument,
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS", help="The corpus of the run, or one with the same features."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: RUN/explanation.")
    ] = None,
    split: Annotated[
        Literal["test", "valid"], typer.Option(help="Split whose clips are used.")
    ] = "test",
    clips: Annotated[
        int, typer.Option(min=1, help="Largest number of clips in the curves and clips.jsonl.")
    ] = 200,
) -> None:
    """Test whether the policies of a run found complementary features.

    Steps are deleted and inserted in four orders: by the policies, by how far either part uses
    them, by integrated gradients, and at random. Linear probes measure what each modality
    adds. The steps and words that were kept are listed for each clip. This needs the extra
    research.

    The folder gets explanation.json, clips.jsonl and report.html.

    Examples:

      mmcl explain runs/planted planted.arrow

      mmcl explain runs/mosi mosi.arrow --split valid --out assessed --clips 500
    """
    import shlex

    from mmcl.cli.show import console, training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.explain.explanation import CLIPS, EXPLANATION, explain, write_explanation
    from mmcl.runs.starter import run_or_starter

    # The recorded command names all options, so that it can be repeated under other defaults.
    folder = run / "explanation" if out is None else out
    options = ["--split", split, "--clips", str(clips), "--out", str(folder)]
    opened, loaded = run_or_starter(run), read_corpus(corpus)
    hold_output(folder, inputs=[run, corpus], is_folder=True)
    with training_progress() as progress:
        content = explain(
            opened,
            loaded,
            split=split,
            num_clips=clips,
            command=shlex.join(["mmcl", "explain", str(run), str(corpus), *options]),
            progress=lambda part, done, total: progress(f"explaining, {part}", done, total, {}),
        )
    write_explanation(content, folder)
    console.print(_table(content))
    for line in [*content["conclusions"], *(f"note: {note}" for note in content["notes"])]:
        console.print(line, markup=False, highlight=False)
    for name in (EXPLANATION, CLIPS):
        typer.echo(str(folder / name))
    typer.echo(str(write_report(folder)))


def _table(content: dict[str, Any]) -> Table:
    """Return the areas under both curves, a row per order of the steps."""
    from rich.table import Table

    curves = content["curves"]
    table = Table(
        title=f"{content['model']} on {content['corpus']}: steps in the order of …",
        caption=f"area under the {curves['unit']}, {curves['clips']} clips",
    )
    table.add_column("order", no_wrap=True)
    table.add_column("deleted (higher is better)", justify="right")
    table.add_column("inserted (lower is better)", justify="right")
    for score, name in _NAMES.items():
        table.add_row(
            name, *(_format_area(curves[way][score]) for way in ("deletion", "insertion"))
        )
    return table


def _format_area(curve: dict[str, Any]) -> str:
    spread = curve.get("area_std")
    return f"{curve['area']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
