"""``mmcl train``: train, choose on validation, score once, save everything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcl.errors import UsageError

if TYPE_CHECKING:
    from mmcl.corpus.schema import Card

__all__ = ["preset_for", "read_seeds", "train_command"]


def train_command(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A corpus, or a foreign file read as one.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    model: Annotated[
        str | None, typer.Option(help="calibrated (default), released or a baseline; see below.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
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

    Without --config the preset named like the corpus is used, if there is one: planted,
    mosi, mosei, iemocap, sims; for a corpus that mmcl extract has made, video.

    Models: calibrated and released (MMCL, repaired and as its authors released it); ef_lstm,
    lf_dnn, tfn, lmf, mult, misa, self_mm, almt, mvcl, caml, co_sa; late_fusion, text_only,
    audio_only, vision_only; and those that other packages register.

    Examples:

      mmcl train planted.arrow --out runs/planted --seeds 1,2,3

      mmcl train unaligned_50.pkl --out runs/mosi --config mosi --set model.width=128

      mmcl train planted.arrow --out runs/released --model released

      mmcl train mosei.arrow --out runs/mosei --set runtime.processes=4
    """
    from mmcl.cli.show import console, metrics_table, training_progress
    from mmcl.config import resolve_config
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.run import train
    from mmcl.runtime import is_first_process

    chosen_seeds = read_seeds(seeds)
    loaded = read_corpus(corpus)
    source = config or preset_for(loaded.card)
    settings = resolve_config(model=model, source=source, overrides=overrides or [])
    with training_progress() as progress:
        run = train(loaded, settings, out=out, seeds=chosen_seeds, resume=resume, progress=progress)
    if not is_first_process():
        return  # where several train together one of them speaks
    report = run.metrics
    console.print(metrics_table(report))
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)
    console.print(f"{run.folder}/metrics.json", markup=False, soft_wrap=True)


def preset_for(card: Card) -> str | None:
    """The preset named like a corpus, or that of corpora made from recordings."""
    from mmcl.config import preset_names

    if card.name in preset_names():
        return card.name
    return "video" if "extraction" in card.recipe else None


def read_seeds(text: str) -> list[int]:
    """Seeds as typed: ``1,2,3``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f'--seeds takes whole numbers as 1,2,3, got "{text}"') from None
