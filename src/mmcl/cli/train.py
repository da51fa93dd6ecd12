"""The command ``mmcl train``: train a model with one or several seeds, and score it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcl.cli.options import CorpusArgument, hold_output, refuse_other_results
from mmcl.errors import DatasetError, UsageError
from mmcl.pool import check_workers

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.config import Config
    from mmcl.corpus.schema import Card
    from mmcl.corpus.store import Corpus
    from mmcl.runs.jobs import Status, Tell

__all__ = [
    "check_learnable",
    "fitting_workers",
    "live_table",
    "preset_for",
    "read_seeds",
    "train_command",
]


def train_command(
    corpus: CorpusArgument,
    out: Annotated[Path, typer.Option(help="Run folder to create.")],
    model: Annotated[
        str | None, typer.Option(help="calibrated (default), released or a baseline; see below.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "1",
    workers: Annotated[
        int | None,
        typer.Option(help="Seeds to train at a time. Default: one per core.", min=1),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A preset's name or a TOML file; see below.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.key=value.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="Start from the weights of a run, or starter."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped.")
    ] = False,
) -> None:
    """Train a model on a corpus.

    The best epoch is chosen on the validation split; the test split is scored once, at the
    end. The run folder gets metrics.json, predictions.parquet, and a folder per seed.

    Several seeds are trained side by side, each in its own process with its share of the
    cores. A single seed uses all cores.

    Without --config the preset with the name of the corpus is used, if there is one: planted,
    mosi, mosei, iemocap, sims. For a corpus made by mmcl extract it is video.

    Models: calibrated and released (MMCL, repaired and as its authors released it); ef_lstm,
    lf_dnn, tfn, lmf, mult, misa, self_mm, almt, mvcl, caml, co_sa; late_fusion, text_only,
    audio_only, vision_only; and those that other packages register.

    With --from the network begins with the weights of a run of the same model, as far as they
    fit, and has its settings unless --set changes them. starter is the model that comes with
    the package.

    Examples:

      mmcl train planted.arrow --out runs/planted --seeds 1,2,3

      mmcl train unaligned_50.pkl --out runs/mosi --config mosi --set model.width=128

      mmcl train planted.arrow --out runs/released --model released

      mmcl train rated.csv --out runs/rated --from starter

      mmcl train mosei.arrow --out runs/mosei --set runtime.devices=4
    """
    from mmcl.cli.show import console, metrics_table, training_progress
    from mmcl.config import resolve_config
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.run import train
    from mmcl.runs.run_folder import RUN
    from mmcl.runtime import is_first_process

    # Options are checked before the corpus is read, which may take a while.
    chosen_seeds = read_seeds(seeds)
    check_workers(workers or 1)
    refuse_other_results(out, RUN)
    hold_output(out, inputs=[corpus], is_folder=True)
    loaded = read_corpus(corpus)
    check_learnable(corpus, loaded)
    source = config or preset_for(loaded.card)
    base = None
    if start is not None:
        from mmcl.learning.start import start_settings

        base = start_settings(start, loaded)
    settings = resolve_config(model=model, source=source, overrides=overrides or [], base=base)
    count = fitting_workers(min(workers or _default_workers(settings), len(chosen_seeds)), settings)
    train_corpus = partial(train, loaded, settings, out=out, seeds=chosen_seeds, resume=resume)
    # Several devices train one network together, so its seeds cannot run side by side.
    if count > 1 and settings.runtime.devices == 1:
        with live_table("seed") as tell:
            run = train_corpus(workers=count, tell=tell)
    else:
        with training_progress() as progress:
            run = train_corpus(progress=progress)
    if not is_first_process():
        return  # only one of the processes that train together prints the result
    report = run.metrics
    console.print(metrics_table(report))
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)
    console.print(f"{run.folder}/metrics.json", markup=False, soft_wrap=True)


def check_learnable(path: Path, corpus: Corpus) -> None:
    """Refuse a corpus that has no labelled clips to learn from, or none to choose the epoch by.

    Raises:
        DatasetError: If it has none. It says whether the labels are missing or the split.
    """
    from mmcl.corpus.batches import labelled_rows

    faults = []
    for name in ("train", "valid"):
        count = corpus.card.counts.get(name, 0)
        if not count:
            faults.append(f'no clip is in the split "{name}"')
        elif not len(labelled_rows(corpus.split(name))):
            faults.append(f'no clip of the split "{name}" has a label (clips: {count})')
    if faults:
        notes = [
            f"  {note}" for note in corpus.card.notes if note.startswith("there are no labels")
        ]
        raise DatasetError(
            "\n".join([f"{path}: not fit for training: {'; '.join(faults)}.", *notes]) + "\n"
            "  Training learns from labelled clips in train, and chooses the epoch by those in "
            'valid.\n  A table needs a column "label", and either "split" (train, valid, test) or '
            '"video_id",\n  by which whole recordings are split.\n'
            f"  See what there is: mmcl corpus describe {path}"
        )


def preset_for(card: Card) -> str | None:
    """Return the preset with the name of a corpus, or ``video`` if mmcl extract made it."""
    from mmcl.config import preset_names

    if card.name in preset_names():
        return card.name
    return "video" if "extraction" in card.recipe else None


def read_seeds(text: str) -> list[int]:
    """Return the numbers of a text like ``1,2,3``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f'--seeds takes whole numbers as 1,2,3, got "{text}"') from None


def fitting_workers(wanted: int, settings: Config) -> int:
    """Return how many trainings to run at a time; say so if memory allows fewer than wanted."""
    from mmcl.runs.memory import workers_that_fit

    count, note = workers_that_fit(wanted, settings)
    if note:
        typer.echo(f"note: {note}", err=True)
    return count


def _default_workers(settings: Config) -> int:
    """Return one worker per core, or a single one on a GPU, which seeds would have to share."""
    return (os.cpu_count() or 1) if settings.runtime.accelerator == "cpu" else 1


@contextmanager
def live_table(heading: str) -> Iterator[Tell]:
    """Show the progress of trainings on stderr, in a table with a row per seed or model."""
    from rich.console import Console
    from rich.live import Live

    screen = Console(file=sys.stderr)
    if screen.is_terminal:
        with Live(console=screen, transient=True, auto_refresh=False) as live:
            yield lambda states: live.update(_status_table(heading, states), refresh=True)
        return
    # Without a terminal, print one line when all trainings of a row have ended.
    reported = set()

    def report_finished(states: list[Status]) -> None:
        for state in states:
            if state.name not in reported and state.done + state.diverged == state.seeds:
                reported.add(state.name)
                loss = "diverged" if state.valid_loss is None else f"{state.valid_loss:.3f}"
                typer.echo(f"{heading} {state.name}: best validation loss {loss}", err=True)

    yield report_finished


def _status_table(heading: str, states: list[Status]) -> Table:
    from rich.table import Table

    done = sum(state.done + state.diverged for state in states)
    table = Table(title=f"{done} of {sum(state.seeds for state in states)} trainings finished")
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
