"""The commands ``mmcl compare`` and ``mmcl ablate``: one table of many trained models."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmcl.cli.options import CorpusArgument, EngineOption, hold_output, refuse_other_results
from mmcl.cli.report import write_report
from mmcl.cli.train import check_learnable, fitting_workers, live_table, preset_for, read_seeds
from mmcl.errors import UsageError
from mmcl.pool import Engine, check_workers

__all__ = ["ablate_command", "compare_command"]

MARGINS = 3  # characters around a column of a table
_Out = Annotated[Path, typer.Option(help="Folder of the comparison.")]
_Seeds = Annotated[str, typer.Option(help="Number of seeds (3 means 1, 2, 3), or a list: 4,7,9.")]
_Metrics = Annotated[
    str, typer.Option(help="Metrics, as mae,corr; the first is primary. Default: by task.")
]
_Config = Annotated[str | None, typer.Option(help="A preset's name or a TOML file.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of every row, as section.key=value.")
]
_Workers = Annotated[
    int | None, typer.Option(help="Trainings at a time. Default: one per core.", min=1)
]


def compare_command(
    corpus: CorpusArgument,
    out: _Out,
    models: Annotated[str, typer.Option(help="Models, as a,b,c. Default: all.")] = "",
    seeds: _Seeds = "3",
    reference: Annotated[
        str | None, typer.Option(help="Row to compare the others with. Default: calibrated.")
    ] = None,
    metrics: _Metrics = "",
    config: _Config = None,
    overrides: _Set = None,
    workers: _Workers = None,
    engine: EngineOption = "local",
) -> None:
    """Train many models with the same seeds, and test which differences are significant.

    The epoch of every model is chosen on validation, and the test split is scored once. Rows
    that need no training (ridge, majority, constant) are always included. The same command
    continues if it was stopped: a seed that has finished is not trained again.

    OUT holds comparison.json, the table in Markdown, LaTeX and CSV, report.html, and a run
    folder per model.

    Examples:

      mmcl compare planted.arrow --out runs/compare

      mmcl compare mosi.arrow --models calibrated,released,mult,misa --seeds 5 --out runs/mosi

      mmcl compare planted.arrow --models mult,tfn --reference mult --metrics mae,corr --out c
    """
    from mmcl.runs.comparison import COMPARISON, model_entries, prepare_corpus

    refuse_other_results(out, COMPARISON)
    hold_output(out, inputs=[corpus], is_folder=True)
    loaded, path = prepare_corpus(corpus, out)
    check_learnable(corpus, loaded)
    source = config or preset_for(loaded.card)
    entries, notes = model_entries(
        _split_names(models), loaded.card, source=source, overrides=overrides or []
    )
    _compare(
        path,
        entries,
        out=out,
        seeds=seeds,
        metrics=metrics,
        workers=workers,
        engine=engine,
        reference=reference,
        notes=notes,
    )


def ablate_command(
    corpus: CorpusArgument,
    out: _Out,
    only: Annotated[str, typer.Option(help="Only these ablations, as 'DDPG,mean for min'.")] = "",
    seeds: _Seeds = "3",
    metrics: _Metrics = "",
    config: _Config = None,
    overrides: _Set = None,
    workers: _Workers = None,
    engine: EngineOption = "local",
) -> None:
    """Change one thing of calibrated at a time, and test whether it helps.

    Changed are the decoupling, calibration, alignment loss, attention, policies, reward,
    refinement steps, and the modalities used in training and at test. A row for released is
    added. The same command continues if it was stopped.

    Examples:

      mmcl ablate planted.arrow --out runs/ablate

      mmcl ablate planted.arrow --only "DDPG,RLOO" --seeds 5 --out runs/policies
    """
    from mmcl.runs.ablation import ablation_entries, modalities_left_out
    from mmcl.runs.comparison import COMPARISON, prepare_corpus

    refuse_other_results(out, COMPARISON)
    hold_output(out, inputs=[corpus], is_folder=True)
    loaded, path = prepare_corpus(corpus, out)
    check_learnable(corpus, loaded)
    source = config or preset_for(loaded.card)
    entries = ablation_entries(
        loaded.card, source=source, overrides=overrides or [], names=_split_names(only)
    )
    # These rows are not trained, so --only, which picks trainings, leaves them out.
    rescored = [] if only else modalities_left_out(entries[0].config, loaded.card)
    _compare(
        path,
        entries,
        out=out,
        seeds=seeds,
        metrics=metrics,
        workers=workers,
        engine=engine,
        kind="ablation",
        rescored=rescored,
    )


def _compare(
    path: Path,
    entries: list[Any],
    *,
    out: Path,
    seeds: str,
    metrics: str,
    workers: int | None,
    engine: Engine,
    **own: Any,
) -> None:
    """Compare and print the result; ``own`` are the options that only one command has."""
    from mmcl.runs.comparison import compare

    count = _num_workers(workers, engine)
    if entries and engine == "local":
        count = fitting_workers(count, entries[0].config)
    with live_table("model") as tell:
        content = compare(
            path,
            entries,
            seeds=_read_count_or_seeds(seeds),
            out=out,
            metrics=_split_names(metrics),
            command=shlex.join(["mmcl", *sys.argv[1:]]),
            workers=count,
            engine=engine,
            tell=tell,
            **own,
        )
    _print_result(content, out)


def _split_names(text: str) -> list[str]:
    """Return the names in a list separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _read_count_or_seeds(text: str) -> list[int]:
    """Return the seeds of ``--seeds``: ``3`` means 1, 2 and 3; ``4,7`` means these two."""
    seeds = read_seeds(text)
    if "," in text:
        return seeds
    if seeds[0] < 1:
        raise UsageError(f"--seeds: at least one seed is needed, got {text}")
    return list(range(1, seeds[0] + 1))  # the same seeds for everybody who asks for 3


def _num_workers(workers: int | None, engine: Engine) -> int:
    """Return the number of workers that was asked for, or one per core."""
    check_workers(workers or 1, engine)
    return workers or os.cpu_count() or 1


def _heading(key: str) -> str:
    """Return the name of a metric on two lines, so that more metrics fit side by side."""
    return key.replace("_", "\n", 1)


def _column(content: dict[str, Any], key: str) -> list[str]:
    """Return a metric of every row, with a dagger where it differs from the reference."""
    from mmcl.cli.show import format_summary

    # "better" names the better row of a significant difference, and is null otherwise.
    differ = {test["name"] for test in content["tests"] if test["better"] and test["metric"] == key}
    # Two spaces where a dagger is missing keep the numbers aligned.
    return [
        format_summary(row["test"].get(key)) + (" †" if row["name"] in differ else "  ")
        for row in content["rows"]
    ]


def _keys_that_fit(columns: dict[str, list[str]], room: int) -> list[list[str]]:
    """Return the metrics of each table, so that no table is wider than the terminal.

    Args:
        columns: The cells of every metric.
        room: Characters of a line beside the names of the models.
    """
    tables: list[list[str]] = []
    used = 0
    for key, cells in columns.items():
        width = max(map(len, [*_heading(key).splitlines(), *cells])) + MARGINS
        if not tables or used + width > room:
            tables.append([])
            used = 0
        tables[-1].append(key)
        used += width
    return tables


def _print_result(content: dict[str, Any], out: Path) -> None:
    """Print the table, the notes and the paths of the results."""
    from rich import box
    from rich.table import Table

    from mmcl.cli.show import console, count_of_seeds

    title = f"{content['corpus']['name']}, test split, {count_of_seeds(content)}"
    drawn, more = "seeds and clips", ""
    if len(content["seeds"]) == 1:
        drawn, more = "clips", "; another seed may differ: --seeds 5"
    caption = f"† differs from {content['reference']} (bootstrap over {drawn}, Holm, .05){more}"
    names = [row["name"] for row in content["rows"]]
    columns = {key: _column(content, key) for key in content["metrics"]}
    # A terminal that is too narrow for all metrics shows them in several tables.
    for keys in _keys_that_fit(columns, console.width - max(map(len, names)) - MARGINS):
        table = Table(title=title, caption=caption, box=box.SIMPLE)
        table.add_column("model", no_wrap=True)
        for key in keys:
            table.add_column(_heading(key), justify="right", no_wrap=True)
        for name, *cells in zip(names, *(columns[key] for key in keys), strict=True):
            table.add_row(name, *cells)
        console.print(table)
    for note in content["notes"]:
        console.print(f"note: {note}", markup=False)
    report = write_report(out)
    console.print(f"{out}/comparison.json, .md, .tex, .csv; {report}", markup=False)
