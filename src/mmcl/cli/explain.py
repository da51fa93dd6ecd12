"""``mmcl explain``: what complementary features are worth, and what each clip was judged by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcl.cli.report import write_report
from mmcl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.evaluation.protocol import JudgedSplit

__all__ = ["explain_command"]

_NAMES = {
    "actions": "what the policies keep",
    "moments": "what is common or kept",
    "integrated_gradients": "integrated gradients",
    "random": "random",
}


def explain_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="Its corpus, or one that fits it.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default RUN/explanation.")
    ] = None,
    split: Annotated[str, typer.Option(help="Clips to assess it on: test or valid.")] = "test",
    clips: Annotated[
        int, typer.Option(min=1, help="Most clips for curves, and to show one by one.")
    ] = 200,
) -> None:
    """Assess the complementary features of a run.

    Steps are deleted and inserted in the order of the policies, at random and by integrated
    gradients; probes tell what each modality adds; and every clip is listed with the steps
    and words that were kept. It needs the research extra.

    The folder holds explanation.json and clips.jsonl.

    Examples:

      mmcl explain runs/planted planted.arrow

      mmcl explain runs/mosi mosi.arrow --split valid --out assessed --clips 500
    """
    import shlex

    from mmcl.cli.show import console, training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.explain.explanation import CLIPS, EXPLANATION, explain, write_explanation
    from mmcl.runs.run import Run

    judged = _split(split)
    folder = run / "explanation" if out is None else out
    options = ["--split", split, "--clips", str(clips), "--out", str(folder)]
    opened, loaded = Run.load(run), read_corpus(corpus)
    with training_progress() as progress:
        content = explain(
            opened,
            loaded,
            split=judged,
            num_clips=clips,
            command=shlex.join(["mmcl", "explain", str(run), str(corpus), *options]),
            progress=lambda part, done, total: progress(f"explaining, {part}", done, total, {}),
        )
    write_explanation(content, folder)
    console.print(_table(content))
    for line in content["conclusions"]:
        console.print(line, markup=False, highlight=False)
    for note in content["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    for name in (EXPLANATION, CLIPS):
        typer.echo(str(folder / name))
    typer.echo(str(write_report(folder)))


def _split(text: str) -> JudgedSplit:
    if text == "test":
        return "test"
    if text == "valid":
        return "valid"
    near = did_you_mean(text, ["test", "valid"])
    raise UsageError(f'--split must be "test" or "valid", got "{text}"{near}')


def _table(content: dict[str, Any]) -> Table:
    """Areas under both curves, a row per ranking."""
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
        cells = [_area(curves[direction][score]) for direction in ("deletion", "insertion")]
        table.add_row(name, *cells)
    return table


def _area(curve: dict[str, Any]) -> str:
    spread = curve.get("area_std")
    return f"{curve['area']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
