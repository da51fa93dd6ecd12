"""``mmcl predict``: a prediction for every clip of a corpus, labelled or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmcl.errors import UsageError

__all__ = ["predict_command"]

ENDINGS = (".csv", ".jsonl", ".parquet")


def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A corpus, or a foreign file read as one.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
) -> None:
    """Predict every clip of a corpus; labels are not needed.

    With several seeds the prediction is that of their mean, and spread says how far they
    are apart.

    Examples:

      mmcl predict runs/planted planted.arrow --out predictions.csv

      mmcl predict runs/mosi new_clips.pkl --out predictions.parquet
    """
    if out.suffix not in ENDINGS:
        raise UsageError(f'--out must end in {", ".join(ENDINGS)}, got "{out.name}"')
    from mmcl.cli.show import training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.evaluation.run import Run
    from mmcl.evaluation.tables import write_table

    opened, loaded = Run.load(run), read_corpus(corpus)
    total = sum(loaded.card.counts.values()) * len(opened.seeds)
    with training_progress() as progress:
        done = 0

        def advance(clips: int) -> None:
            nonlocal done
            done += clips
            progress("predicting", done, total, {})

        table = opened.predict(loaded, advance=advance)
    write_table(table, out)
    typer.echo(f"{table.num_rows} predictions in {out}")
