"""``mmcl demo``: plant a corpus, train both variants, show what they found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mmcl.errors import DatasetError, RunError
from mmcl.types import VARIANTS

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.corpus.plant import PlantSettings
    from mmcl.corpus.store import Corpus
    from mmcl.runs.run import Run

__all__ = ["Plan", "demo_command", "make_plan", "run_demo"]

SEED = 1
CORPUS, REPORT, METRICS = "planted.arrow", "report.html", "metrics.json"


class Plan(NamedTuple):
    """What a demo plants and how long it trains.

    Attributes:
        settings: Of the planted corpus.
        overrides: Settings on top of the preset ``planted``, by variant.
    """

    settings: PlantSettings
    overrides: Mapping[str, tuple[str, ...]]


def demo_command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer clips and epochs: half a minute.")
    ] = False,
) -> None:
    """Plant a corpus, train both variants on it, and write a report.

    Takes up to three minutes on two cores. DIR gets report.html (open it in a browser),
    metrics.json, planted.arrow and the run folders released and calibrated; those of an
    earlier demo are replaced.

    Examples:

      mmcl demo

      mmcl demo --quick --out /tmp/demo
    """
    command = f"mmcl demo --out {shlex.quote(str(out))}{' --quick' * quick}"
    run_demo(out, make_plan(quick=quick), command=command)


def make_plan(*, quick: bool) -> Plan:
    """The demo's plan: the default corpus, or less of everything.

    Args:
        quick: Half a minute in place of three. The architectures stay as they are.
    """
    from mmcl.corpus.plant import PlantSettings

    if quick:
        return Plan(
            PlantSettings(train=600, valid=150, test=200),
            {"released": ("learning.epochs=2",), "calibrated": ("learning.epochs=7",)},
        )
    return Plan(
        PlantSettings(), {"released": ("learning.epochs=5",), "calibrated": ("learning.epochs=13",)}
    )


def run_demo(out: Path, plan: Plan, *, command: str) -> None:
    """Make the demo in a folder and print its table.

    Args:
        out: The folder; files of an earlier demo in it are replaced, others are not touched.
        plan: What to plant and how long to train.
        command: The command to name in the report.

    Raises:
        RunError: If the folder cannot be written, or holds something under one of the demo's
            names that no demo made; nothing is changed then.
    """
    from mmcl.cli.show import console
    from mmcl.explain.page import comparison, demo_page, write_page
    from mmcl.files import write_json

    _clear(out)
    with _explained(out):
        corpus = _plant(out / CORPUS, plan)
        runs: dict[str, Run] = {
            variant: _train(corpus, variant, out / variant, plan) for variant in VARIANTS
        }
        rows = comparison(runs)
        write_page(out / REPORT, demo_page(corpus, runs, command=command))
        write_json(out / METRICS, {variant: rows[variant] for variant in VARIANTS})
    console.print(_table(rows))
    console.print(f"The report: {out / REPORT}", markup=False, highlight=False, soft_wrap=True)


def _plant(path: Path, plan: Plan) -> Corpus:
    from mmcl.corpus.plant import plant_card, plant_clips
    from mmcl.corpus.store import open_corpus, write_corpus

    write_corpus(path, plant_card(plan.settings), plant_clips(plan.settings))
    return open_corpus(path)


def _train(corpus: Corpus, variant: str, folder: Path, plan: Plan) -> Run:
    from mmcl.cli.show import training_progress
    from mmcl.config import resolve_config
    from mmcl.runs.run import train

    config = resolve_config(
        model=variant, source="planted", overrides=plan.overrides.get(variant, ())
    )
    with training_progress() as tell:

        def name_variant(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            tell(f"{variant}, {stage.rpartition(', ')[2]}", done, total, numbers)

        return train(corpus, config, out=folder, seeds=[SEED], progress=name_variant)


def _table(rows: Mapping[str, Mapping[str, float | None]]) -> Table:
    from rich.table import Table

    from mmcl.explain.page import METRICS as SHOWN

    table = Table(title=f"planted data, test split, seed {SEED}")
    table.add_column("metric")
    for name in rows:
        table.add_column(name, justify="right")
    for metric in SHOWN:
        values = [row[metric.key] for row in rows.values()]
        cells = ["-" if value is None else f"{value:.{metric.decimals}f}" for value in values]
        table.add_row(metric.key, *cells)
    return table


def _clear(out: Path) -> None:
    """Remove an earlier demo, and refuse to remove anything else."""
    import shutil

    with _explained(out):
        if out.exists() and not out.is_dir():
            raise RunError(
                f"{out}: is a file, and the demo needs a folder.\n"
                "  Give another: mmcl demo --out DIR"
            )
        in_the_way = [path.name for path in _own_paths(out) if not _is_of_a_demo(path)]
        if (out / "run.json").exists():  # then its metrics.json is that of a run, too
            in_the_way.append("run.json")
        if in_the_way:
            raise RunError(
                f"{out}: holds {', '.join(in_the_way)}, which no demo made; nothing was changed.\n"
                "  Give another folder: mmcl demo --out DIR"
            )
        out.mkdir(parents=True, exist_ok=True)
        for path in _own_paths(out):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _own_paths(out: Path) -> list[Path]:
    names = (METRICS, REPORT, CORPUS, *VARIANTS)
    return [out / name for name in names if (out / name).exists() or (out / name).is_symlink()]


def _is_of_a_demo(path: Path) -> bool:
    """Whether a demo can have made what lies under one of its names."""
    if path.is_symlink() or path.is_dir() != (path.name in VARIANTS):
        return False
    checks = {METRICS: _is_metrics, REPORT: _is_report, CORPUS: _is_planted}
    try:
        return checks.get(path.name, _is_run)(path)
    except (DatasetError, OSError, ValueError, KeyError, TypeError):
        return False


def _is_metrics(path: Path) -> bool:
    import json

    return set(json.loads(path.read_text())) == set(VARIANTS)


def _is_report(path: Path) -> bool:
    with path.open(encoding="utf-8") as page:
        return '<meta name="generator" content="mmcl">' in page.read(1000)


def _is_planted(path: Path) -> bool:
    from mmcl.corpus.store import open_corpus

    return "planted" in open_corpus(path).card.recipe


def _is_run(folder: Path) -> bool:
    """A run of one planted corpus with the demo's seed, or one killed before it began."""
    import json

    if not any(folder.iterdir()):
        return True
    described = json.loads((folder / "run.json").read_text())
    return described["seeds"] == [SEED] and "planted" in described["corpus"]["recipe"]


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn a refusal of the file system into a message."""
    try:
        yield
    except OSError as fault:
        raise RunError(
            f"{out}: cannot be written ({fault.strerror or fault}).\n"
            "  Give a folder you may write to: mmcl demo --out DIR"
        ) from None
