"""``mmcl train``: train, choose on validation, score once, save everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcl.errors import UsageError
from mmcl.pool import check_workers

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.config import Config
    from mmcl.corpus.schema import Card
    from mmcl.runs.jobs import Status, Tell

__all__ = ["live_table", "preset_for", "read_seeds", "train_command"]


def train_command(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A corpus, or a foreign file read as one.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    model: Annotated[
        str | None, typer.Option(help="calibrated (default), released or a baseline; see below.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
    workers: Annotated[
        int | None,
        typer.Option(help="Seeds trained at a time; one per core by default.", min=1),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A preset's name or a TOML file; see below.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.key=value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was stopped.")] = False,
) -> None:
    """Train a model on a corpus.

    The best epoch is chosen on the validation split; the test split is scored once, at the
    end. RUN holds metrics.json, predictions.parquet, and a folder per seed.

    Several seeds are trained side by side, each in a process of its own with its share of the
    cores. A seed alone has all of them.

    Without --config the preset named like the corpus is used, if there is one: planted,
    mosi, mosei, iemocap, sims; for a corpus that mmcl extract has made, video.

    Models: calibrated and released (MMCL, repaired and as its authors released it); ef_lstm,
    lf_dnn, tfn, lmf, mult, misa, self_mm, almt, mvcl, caml, co_sa; late_fusion, text_only,
    audio_only, vision_only; and those that other packages register.

    Examples:

      mmcl train planted.arrow --out runs/planted --seeds 1,2,3

      mmcl train unaligned_50.pkl --out runs/mosi --config mosi --set model.width=128

      mmcl train planted.arrow --out runs/released --model released

      mmcl train mosei.arrow --out runs/mosei --set runtime.devices=4
    """
    from mmcl.cli.show import console, metrics_table, training_progress
    from mmcl.config import resolve_config
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.run import train
    from mmcl.runtime import is_first_process

    chosen_seeds = read_seeds(seeds)
    check_workers(workers or 1)
    loaded = read_corpus(corpus)
    source = config or preset_for(loaded.card)
    settings = resolve_config(model=model, source=source, overrides=overrides or [])
    count = min(workers or _default_workers(settings), len(chosen_seeds))
    train_here = partial(train, loaded, settings, out=out, seeds=chosen_seeds, resume=resume)
    if count > 1 and settings.runtime.devices == 1:
        with live_table("seed") as tell:
            run = train_here(workers=count, tell=tell)
    else:
        with training_progress() as progress:
            run = train_here(progress=progress)
    if not is_first_process():
        return  # where several train together one of them speaks
    report = run.metrics
    console.print(metrics_table(report))
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)
    console.print(f"{run.folder}/metrics.json", markup=False, soft_wrap=True)


def preset_for(card: Card) -> str | None:
    """Return the preset named like a corpus, or that of corpora made from recordings."""
    from mmcl.config import preset_names

    if card.name in preset_names():
        return card.name
    return "video" if "extraction" in card.recipe else None


def read_seeds(text: str) -> list[int]:
    """Read seeds as typed: ``1,2,3``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f'--seeds takes whole numbers as 1,2,3, got "{text}"') from None


def _default_workers(settings: Config) -> int:
    """Return a worker for each core; one for a GPU, which seeds would have to share."""
    return (os.cpu_count() or 1) if settings.runtime.accelerator == "cpu" else 1


@contextmanager
def live_table(heading: str) -> Iterator[Tell]:
    """Show a table on stderr that follows trainings; without a terminal a line for each end."""
    from rich.console import Console
    from rich.live import Live

    screen = Console(file=sys.stderr)
    if screen.is_terminal:
        with Live(console=screen, transient=True, auto_refresh=False) as live:
            yield lambda states: live.update(_status_table(heading, states), refresh=True)
        return
    said = set()

    def say(states: list[Status]) -> None:
        for state in states:
            if state.name not in said and state.done + state.diverged == state.seeds:
                said.add(state.name)
                loss = "diverged" if state.valid_loss is None else f"{state.valid_loss:.3f}"
                typer.echo(f"{heading} {state.name}: best validation loss {loss}", err=True)

    yield say


def _status_table(heading: str, states: list[Status]) -> Table:
    from rich.table import Table

    done = sum(state.done + state.diverged for state in states)
    table = Table(title=f"{done} of {sum(state.seeds for state in states)} trainings are over")
    for column in (heading, "done", "diverged", "epoch", "best validation loss"):
        table.add_column(column, justify="left" if column == heading else "right")
    for state in states:
        table.add_row(
            state.name,
            f"{state.done} of {state.seeds}",
            str(state.diverged or ""),
            "" if state.epoch is None else str(state.epoch),
            "" if state.valid_loss is None else f"{state.valid_loss:.3f}",
        )
    return table
