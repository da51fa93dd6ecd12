"""``mmcl compare`` and ``mmcl ablate``: many trainings, one table, and tests of differences."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmcl.cli.report import write_report
from mmcl.cli.train import live_table, preset_for, read_seeds
from mmcl.errors import UsageError
from mmcl.pool import Engine, check_workers

__all__ = ["ablate_command", "compare_command"]

_Corpus = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A corpus, or a foreign file read as one.")
]
_Out = Annotated[Path, typer.Option(help="Folder of the comparison.")]
_Seeds = Annotated[str, typer.Option(help="How many seeds (3 means 1, 2, 3), or which: 4,7,9.")]
_Metrics = Annotated[
    str, typer.Option(help="Metrics as mae,corr; the first is primary. Default: the task's usual.")
]
_Config = Annotated[str | None, typer.Option(help="A preset's name or a TOML file.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of every row, as section.key=value.")
]
_Workers = Annotated[
    int | None, typer.Option(help="Trainings at a time; one per core by default.", min=1)
]
_Engine = Annotated[
    Engine, typer.Option(help="Train in processes of its own, or of Ray, also over machines.")
]


def compare_command(
    corpus: _Corpus,
    out: _Out,
    models: Annotated[str, typer.Option(help="Models as a,b,c; every one by default.")] = "",
    seeds: _Seeds = "3",
    reference: Annotated[
        str | None, typer.Option(help="Row the others are held against; default calibrated.")
    ] = None,
    metrics: _Metrics = "",
    config: _Config = None,
    overrides: _Set = None,
    workers: _Workers = None,
    engine: _Engine = "local",
) -> None:
    """Train many models with the same seeds, and test which differences are real.

    Every model is chosen on validation and scored on the test split once. Rows that need no
    training (ridge, majority, constant) are always there. The same command goes on where it
    was stopped: a seed that has finished is not trained again.

    OUT holds comparison.json, the table in Markdown, LaTeX and CSV, report.html, and a run
    folder per model.

    Examples:

      mmcl compare planted.arrow --out runs/compare

      mmcl compare mosi.arrow --models calibrated,released,mult,misa --seeds 5 --out runs/mosi

      mmcl compare planted.arrow --models mult,tfn --reference mult --metrics mae,corr --out c
    """
    from mmcl.runs.comparison import compare, model_entries, prepare_corpus

    loaded, path = prepare_corpus(corpus, out)
    source = config or preset_for(loaded.card)
    entries, notes = model_entries(
        _words(models), loaded.card, source=source, overrides=overrides or []
    )
    with live_table("model") as tell:
        content = compare(
            path,
            entries,
            seeds=_seeds(seeds),
            out=out,
            metrics=_words(metrics),
            reference=reference,
            command=_typed(),
            workers=_checked(workers, engine),
            engine=engine,
            notes=notes,
            tell=tell,
        )
    _show(content, out)


def ablate_command(
    corpus: _Corpus,
    out: _Out,
    only: Annotated[str, typer.Option(help="Only these ablations, as 'DDPG,mean for min'.")] = "",
    seeds: _Seeds = "3",
    metrics: _Metrics = "",
    config: _Config = None,
    overrides: _Set = None,
    workers: _Workers = None,
    engine: _Engine = "local",
) -> None:
    """Change one thing of calibrated at a time, and test what it earned.

    Decoupling, calibration, alignment loss, attention, policies, reward, refinement steps,
    each modality in training and at test, and released as a whole. The same command goes on
    where it was stopped.

    Examples:

      mmcl ablate planted.arrow --out runs/ablate

      mmcl ablate planted.arrow --only "DDPG,task loss only" --seeds 5 --out runs/policies
    """
    from mmcl.runs.ablation import ablation_entries, modalities_left_out
    from mmcl.runs.comparison import compare, prepare_corpus

    loaded, path = prepare_corpus(corpus, out)
    source = config or preset_for(loaded.card)
    entries = ablation_entries(
        loaded.card, source=source, overrides=overrides or [], names=_words(only)
    )
    rescored = [] if only else modalities_left_out(entries[0].config, loaded.card)
    with live_table("model") as tell:
        content = compare(
            path,
            entries,
            seeds=_seeds(seeds),
            out=out,
            metrics=_words(metrics),
            kind="ablation",
            command=_typed(),
            workers=_checked(workers, engine),
            engine=engine,
            rescored=rescored,
            tell=tell,
        )
    _show(content, out)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    """Read seeds as typed: ``3`` is three seeds, ``4,7`` are these two."""
    seeds = read_seeds(text)
    if "," in text:
        return seeds
    if seeds[0] < 1:
        raise UsageError(f"--seeds: at least one seed is needed, got {text}")
    return list(range(1, seeds[0] + 1))


def _checked(workers: int | None, engine: Engine) -> int:
    """Return the workers that were asked for, or one for each core."""
    check_workers(workers or 1, engine)
    return workers or os.cpu_count() or 1


def _typed() -> str:
    return shlex.join(["mmcl", *sys.argv[1:]])


def _show(content: dict[str, Any], out: Path) -> None:
    """Print the table, the notes and where everything lies."""
    from rich import box
    from rich.table import Table

    from mmcl.cli.show import console, format_summary

    count = len(content["seeds"])
    title = f"{content['corpus']['name']}, test split, {count} seed{'s' * (count != 1)}"
    caption = f"† differs from {content['reference']} (bootstrap over seeds and clips, Holm, .05)"
    table = Table(title=f"{title} (mean ± s.d.)", caption=caption, box=box.SIMPLE)
    table.add_column("model", no_wrap=True)
    for key in content["metrics"]:
        table.add_column(key.replace("_", "\n", 1), justify="right")
    differ = {(t["name"], t["metric"]) for t in content["tests"] if t["better"]}
    for row in content["rows"]:
        cells = [
            format_summary(row["test"].get(key)) + (" †" if (row["name"], key) in differ else "  ")
            for key in content["metrics"]
        ]
        table.add_row(row["name"], *cells)
    console.print(table)
    for note in content["notes"]:
        console.print(f"note: {note}", markup=False)
    report = write_report(out)
    console.print(f"{out}/comparison.json, .md, .tex, .csv; {report}", markup=False)
