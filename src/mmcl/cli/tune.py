"""The command ``mmcl tune``: search for settings, and train the best with fresh seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcl.cli.options import CorpusArgument, EngineOption, hold_output, refuse_other_results
from mmcl.cli.report import write_report
from mmcl.pool import check_workers

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["tune_command"]


def tune_command(
    corpus: CorpusArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the search.")],
    model: Annotated[str, typer.Option(help="calibrated, released or a baseline.")] = "calibrated",
    trials: Annotated[int, typer.Option(min=1, help="Trials, counting earlier ones.")] = 30,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 1,
    engine: EngineOption = "local",
    seeds: Annotated[
        int, typer.Option(min=1, help="Fresh seeds to train the best settings with.")
    ] = 3,
    config: Annotated[
        str | None, typer.Option(help="Settings to start from: a preset's name or a TOML file.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Fixed setting, as section.key=value; not searched."),
    ] = None,
) -> None:
    """Search for good settings, then train the best of them again.

    Every trial trains once and is judged by its validation loss; the test split is not
    opened. Trials that do worse than the median so far are stopped early. Then the best
    settings and the initial ones are trained with seeds that the search did not use, and
    scored as mmcl train does.

    Give the same command again to continue; a larger --trials adds trials. One command at a
    time may use DIR. To use all cores, give their number as --workers.

    DIR gets best.toml (for --config), the runs best and defaults, and tuning.json.

    Examples:

      mmcl tune planted.arrow --out tuned/planted

      mmcl tune mosi.arrow --out tuned/mosi --config mosi --trials 60 --workers 4

      mmcl train mosi.arrow --out runs/mosi --config tuned/mosi/best.toml --seeds 1,2,3
    """
    from mmcl.cli.show import console, training_progress
    from mmcl.cli.train import check_learnable, fitting_workers, preset_for
    from mmcl.config import resolve_config
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.search import SEARCH
    from mmcl.runs.tuning import tune

    check_workers(workers, engine)
    refuse_other_results(out, SEARCH)
    hold_output(out, inputs=[corpus], is_folder=True)
    loaded = read_corpus(corpus)
    check_learnable(corpus, loaded)
    settings = resolve_config(
        model=model, source=config or preset_for(loaded.card), overrides=overrides or []
    )
    with training_progress() as progress:

        def tell_trials(done: int, total: int, best: float | None) -> None:
            progress("trials", done, total, {} if best is None else {"valid_loss": best})

        def tell_epochs(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            # Batches are left out: they would replace the trials in the second bar.
            if stage.endswith("epochs"):
                progress(stage, done, total, numbers)

        content = tune(
            loaded,
            settings,
            out=out,
            trials=trials,
            workers=workers if engine == "ray" else fitting_workers(workers, settings),
            engine=engine,
            seeds=seeds,
            fixed=[override.partition("=")[0].strip() for override in overrides or []],
            # For the record: options whose values the result itself holds are left out.
            command=_command_line(corpus, out, model, config, overrides or []),
            on_trial=tell_trials,
            progress=tell_epochs,
        )
    console.print(_table(content))
    typer.echo(_summary(content))
    for note in content["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    typer.echo(f"{out}/best.toml")
    typer.echo(f"{out}/tuning.json")
    typer.echo(str(write_report(out)))


def _command_line(
    corpus: Path, out: Path, model: str, config: str | None, overrides: Sequence[str]
) -> str:
    """Return the command line without the numbers of trials, workers and seeds."""
    words = ["mmcl", "tune", str(corpus), "--out", str(out)]
    words += [] if model == "calibrated" else ["--model", model]
    words += [] if config is None else ["--config", config]
    words += [word for override in overrides for word in ("--set", override)]
    return shlex.join(words)


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
    # The most important setting stands first.
    for key in sorted(best["params"], key=lambda key: -shares.get(key, 0.0)):
        cells = [key, f"{best['params'][key]:.4g}"]
        table.add_row(*cells, *([f"{shares[key]:.2f}"] if shares else []))
    return table


def _summary(content: Mapping[str, Any]) -> str:
    """Return how many trials were completed, pruned or failed, and the validation losses."""
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
        f"initial settings: {format_summary(validation['defaults'])}"
    )
