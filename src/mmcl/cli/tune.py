"""``mmcl tune``: search for settings on validation, train the best with fresh seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcl.cli.report import write_report
from mmcl.pool import Engine, check_workers

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["tune_command"]


def tune_command(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A corpus, or a foreign file read as one.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the search.")],
    model: Annotated[str, typer.Option(help="calibrated, released or a baseline.")] = "calibrated",
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 30,
    workers: Annotated[int, typer.Option(min=1, help="Processes that search together.")] = 1,
    engine: Annotated[
        Engine, typer.Option(help="Search in processes of its own, or of Ray, also over machines.")
    ] = "local",
    seeds: Annotated[
        int, typer.Option(min=1, help="Fresh seeds to train the best settings with.")
    ] = 3,
    config: Annotated[
        str | None, typer.Option(help="Settings to start from: a preset's name or a TOML file.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, as section.key=value; it is not searched."),
    ] = None,
) -> None:
    """Search for good settings, then train the best of them again.

    Every trial trains once and is judged by its validation loss; the test split is not
    opened. Trials that do worse than the median so far are stopped early. The best settings
    and those the search started from are then trained with seeds the search did not use, and
    scored as mmcl train does.

    The same command again goes on where it was stopped; more --trials add to those done. One
    command at a time may use DIR, with as many --workers as there are cores.

    DIR gets best.toml (for --config), the runs best and defaults, and tuning.json.

    Examples:

      mmcl tune planted.arrow --out tuned/planted

      mmcl tune mosi.arrow --out tuned/mosi --config mosi --trials 60 --workers 4

      mmcl train mosi.arrow --out runs/mosi --config tuned/mosi/best.toml --seeds 1,2,3
    """
    from mmcl.cli.show import console, training_progress
    from mmcl.cli.train import preset_for
    from mmcl.config import resolve_config
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.tuning import tune

    check_workers(workers, engine)
    loaded = read_corpus(corpus)
    settings = resolve_config(
        model=model, source=config or preset_for(loaded.card), overrides=overrides or []
    )
    with training_progress() as progress:

        def tell_trials(done: int, total: int, best: float | None) -> None:
            progress("trials", done, total, {} if best is None else {"valid_loss": best})

        def tell_epochs(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            if stage.endswith("epochs"):
                progress(stage, done, total, numbers)

        content = tune(
            loaded,
            settings,
            out=out,
            trials=trials,
            workers=workers,
            engine=engine,
            seeds=seeds,
            fixed=[override.partition("=")[0].strip() for override in overrides or []],
            command=shlex.join(["mmcl", *_words(corpus, out, model, config, overrides or [])]),
            told=tell_trials,
            progress=tell_epochs,
        )
    console.print(_table(content))
    typer.echo(_summary(content))
    for note in content["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    typer.echo(f"{out}/best.toml")
    typer.echo(f"{out}/tuning.json")
    typer.echo(str(write_report(out)))


def _words(
    corpus: Path, out: Path, model: str, config: str | None, overrides: Sequence[str]
) -> list[str]:
    """Return the words that decide the result; it says itself how many trials it had."""
    words = ["tune", str(corpus), "--out", str(out)]
    words += [] if model == "calibrated" else ["--model", model]
    words += [] if config is None else ["--config", config]
    return words + [word for override in overrides for word in ("--set", override)]


def _table(content: Mapping[str, Any]) -> Table:
    """Return a table of the settings of the best trial and their importance."""
    from rich.table import Table

    shares = content["importance"] or {}
    best = content["best"]
    table = Table(title=f"best of {len(content['trials'])} trials: trial {best['number']}")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    if shares:
        table.add_column("importance", justify="right", no_wrap=True)
    for key in sorted(best["params"], key=lambda key: -shares.get(key, 0.0)):
        cells = [key, f"{best['params'][key]:.4g}"]
        table.add_row(*cells, *([f"{shares[key]:.2f}"] if shares else []))
    return table


def _summary(content: Mapping[str, Any]) -> str:
    """Return how the trials ended, and the validation losses of the best settings."""
    from mmcl.cli.show import format_summary

    states = [trial["state"] for trial in content["trials"]]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("complete", "pruned", "failed")
        if state in states
    )
    validation = content["validation"]
    count = len(content["fresh_seeds"])
    return (
        f"trials: {counts}\n"
        f"validation loss of the best trial: {validation['search']:.3f} (optimistic)\n"
        f"over {count} fresh seed{'s' * (count != 1)}: {format_summary(validation['best'])}; "
        f"settings before: {format_summary(validation['defaults'])}"
    )
