"""The command ``mmcl demo``: plant a corpus, train both variants, and write the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mmcl.cli.options import hold_output
from mmcl.cli.report import REPORT, write_report
from mmcl.errors import DatasetError, DiskError, MediaError, MissingExtraError, RunError
from mmcl.types import VARIANTS

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.corpus.plant import PlantSettings
    from mmcl.corpus.store import Corpus
    from mmcl.runs.run import Run

__all__ = ["Plan", "demo_command", "make_plan", "run_demo"]

SEED = 1
EPOCHS, QUICK_EPOCHS = 10, 6
CORPUS, METRICS, TIMELINE = "planted.arrow", "metrics.json", "timeline.html"


class Plan(NamedTuple):
    """Settings of a demo."""

    settings: PlantSettings  # of the planted corpus
    overrides: tuple[str, ...]  # on top of the preset ``planted``, the same for both variants


def demo_command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use fewer clips and epochs; this takes half a minute.")
    ] = False,
) -> None:
    """Make a synthetic corpus, train both variants of MMCL on it, and write a report.

    Both variants get the same number of epochs. This takes up to three minutes on two cores. DIR
    gets report.html (open it in a browser), metrics.json, the corpus planted.arrow, and the run
    folders released and calibrated. mmcl report DIR writes the same report again. timeline.html
    shows what the starter, a model that comes with mmcl, says of a small recording; it needs the
    extra media-offline. Files of an earlier demo are replaced.

    Examples:

      mmcl demo

      mmcl demo --quick --out /tmp/demo
    """
    hold_output(out, inputs=[], is_folder=True)
    run_demo(out, make_plan(quick=quick))


def make_plan(*, quick: bool) -> Plan:
    """Return the settings of the demo, which takes half a minute (quick) or three minutes."""
    from mmcl.corpus.plant import PlantSettings

    settings = PlantSettings(train=600, valid=150, test=200) if quick else PlantSettings()
    return Plan(settings, (f"learning.epochs={QUICK_EPOCHS if quick else EPOCHS}",))


def run_demo(out: Path, plan: Plan) -> None:
    """Make the demo in a folder, replace an earlier demo there, and print a table.

    Raises:
        RunError: If the folder cannot be written, or a file that no demo made has the name of
            one that the demo writes. Nothing is changed then.
    """
    from mmcl.cli.show import console
    from mmcl.explain.planted_figures import metric_rows
    from mmcl.files import write_json

    try:
        # First of all, since it may refuse the folder.
        _remove_earlier_demo(out)
        corpus = _plant(out / CORPUS, plan)
        runs = {variant: _train(corpus, variant, out / variant, plan) for variant in VARIANTS}
        rows = metric_rows(runs)
        write_json(out / METRICS, {variant: rows[variant] for variant in VARIANTS})
        report = write_report(out)
        timeline = _show_starter(out / TIMELINE)
    except DiskError as fault:
        # The next demo trains again, so nothing of this one is continued.
        fault.kept = "The demo is not complete; the next one starts afresh."
        fault.advice = fault.advice.partition(";")[0].removesuffix(".") + "."
        raise
    except OSError as fault:
        raise RunError(
            f"{out}: cannot be written ({fault.strerror or fault}).\n"
            "  Give a folder you may write to: mmcl demo --out DIR"
        ) from None
    console.print(_table(rows, runs["calibrated"].config.learning.epochs))
    console.print(f"The report: {report}", markup=False, highlight=False, soft_wrap=True)
    console.print(timeline, markup=False, highlight=False, soft_wrap=True)


def _plant(path: Path, plan: Plan) -> Corpus:
    from mmcl.corpus.plant import plant_card, plant_clips
    from mmcl.corpus.store import open_corpus, write_corpus

    write_corpus(path, plant_card(plan.settings), plant_clips(plan.settings))
    return open_corpus(path)


def _train(corpus: Corpus, variant: str, folder: Path, plan: Plan) -> Run:
    from mmcl.cli.show import training_progress
    from mmcl.config import resolve_config
    from mmcl.runs.run import train

    config = resolve_config(model=variant, source="planted", overrides=plan.overrides)
    with training_progress() as tell:

        def tell_variant(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            # The stage begins with the seed, which is the same in every demo.
            tell(f"{variant}, {stage.rpartition(', ')[2]}", done, total, numbers)

        return train(corpus, config, out=folder, seeds=[SEED], progress=tell_variant)


def _show_starter(path: Path) -> str:
    """Write the timeline of the example recording by the starter, and return a line about it."""
    from mmcl.evaluation.tables import write_result
    from mmcl.explain.timeline_page import timeline_page
    from mmcl.runs.recordings import predict_media
    from mmcl.runs.starter import load_starter
    from mmcl.serve.page_files import EXAMPLE_CLIP, EXAMPLE_TRANSCRIPT

    try:
        timeline = predict_media(load_starter(), EXAMPLE_CLIP, transcript=EXAMPLE_TRANSCRIPT)
    except MissingExtraError:
        return (
            f'{path.name} is left out: reading a recording needs pip install "mmcl[media-offline]"'
        )
    except MediaError as fault:  # the report does not need what is missing here
        return f"{path.name} is left out: {fault}"
    write_result(path, timeline_page(timeline, media=EXAMPLE_CLIP))
    return f"What the starter says of a small recording: {path}"


def _table(rows: Mapping[str, Mapping[str, float | None]], epochs: int) -> Table:
    from rich.table import Table

    from mmcl.explain.planted_figures import SHOWN

    title = f"planted data, test split, seed {SEED}, {epochs} epochs each"
    table = Table("metric", title=title)
    for name in rows:
        table.add_column(name, justify="right")
    for metric in SHOWN:
        values = [row[metric.key] for row in rows.values()]
        cells = ["-" if value is None else f"{value:.{metric.decimals}f}" for value in values]
        table.add_row(metric.key, *cells)
    return table


def _remove_earlier_demo(out: Path) -> None:
    """Remove the files of an earlier demo; refuse if another file is in the way."""
    paths = [out / name for name in (METRICS, REPORT, TIMELINE, CORPUS, *VARIANTS)]
    paths = [path for path in paths if path.exists() or path.is_symlink()]
    in_the_way = [path.name for path in paths if not _is_from_demo(path)]
    if (out / "run.json").exists():  # then metrics.json belongs to a run, too
        in_the_way.append("run.json")
    if in_the_way:
        raise RunError(
            f"{out}: holds {', '.join(in_the_way)}, which no demo made; nothing was changed.\n"
            "  Give another folder: mmcl demo --out DIR"
        )
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_from_demo(path: Path) -> bool:
    """Return whether the content of a file or folder is what a demo writes under its name."""
    from mmcl.corpus.store import open_corpus

    if path.is_symlink() or path.is_dir() != (path.name in VARIANTS):
        return False
    try:
        # Each file is known by its content.
        if path.name == METRICS:
            return set(json.loads(path.read_text())) == set(VARIANTS)
        if path.name in (REPORT, TIMELINE):  # the pages of earlier versions have no other mark
            return '<meta name="generator" content="mmcl">' in path.read_text("utf-8")[:1000]
        if path.name == CORPUS:
            return "planted" in open_corpus(path).card.recipe
        if not any(path.iterdir()):  # a run that was killed before it began
            return True
        run = json.loads((path / "run.json").read_text())
        return run["seeds"] == [SEED] and "planted" in run["corpus"]["recipe"]
    except (DatasetError, OSError, ValueError, KeyError, TypeError):
        return False
