"""``mmcl predict``: a prediction for every clip of a corpus, or for a recording."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcl.errors import UsageError
from mmcl.pool import Engine, check_workers

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.runs.recordings import Timeline

__all__ = ["predict_command"]

ENDINGS = (".csv", ".jsonl", ".parquet")
OUTPUTS = (*ENDINGS, ".srt", ".html")
SHOWN = 40
"""Characters of an utterance that a table on the terminal shows."""


def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="A video or sound file, or a corpus (any layout)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: .csv, .jsonl or .parquet; of a recording .srt, .html."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Of a recording: a picture, .png.")] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(help="Of a recording: what is said, .srt, .vtt, .json or .txt."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of a recording's speech, as es; the run's by default.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Of a corpus: its own processes or Ray's, also over machines.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Of a corpus: processes; this one alone, with Ray one per core.", min=1),
    ] = None,
) -> None:
    """Predict a recording, utterance by utterance, or every clip of a corpus.

    A recording is extracted as the run's own corpus was, which mmcl extract has made. It is
    shown with what drove each prediction: how far it moves when a modality or a word is
    masked. An .html plays it beside its words.

    Of a corpus labels are not needed, and --out is. With several seeds the prediction is that
    of their mean, and spread says how far they are apart.

    Examples:

      mmcl predict runs/talks talk.mp4

      mmcl predict runs/talks talk.mp4 --transcript talk.srt --out talk.html --plot talk.png

      mmcl predict runs/planted planted.arrow --out predictions.csv
    """
    from mmcl.media.folder import MEDIA_ENDINGS

    if source.suffix.lower() in MEDIA_ENDINGS:
        if engine == "ray" or workers is not None:
            option = "--engine ray" if engine == "ray" else "--workers"
            raise UsageError(f'{option} is of a corpus, and "{source.name}" is a recording')
        _predict_media(run, source, out, plot, transcript, language)
        return
    of_recordings = {"--plot": plot, "--transcript": transcript, "--language": language}
    for option, given in of_recordings.items():
        if given is not None:
            raise UsageError(f'{option} is of a recording, and "{source.name}" is none')
    check_workers(workers or 1, engine)
    count = workers or (1 if engine == "local" else os.cpu_count() or 1)
    _predict_corpus(run, source, out, engine, count)


def _predict_corpus(
    run: Path, corpus: Path, out: Path | None, engine: Engine, workers: int
) -> None:
    if out is None:
        raise UsageError(f"predictions of a corpus need a file: --out with {', '.join(ENDINGS)}")
    _check_ending("--out", out, ENDINGS)
    from mmcl.cli.show import training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.evaluation.tables import write_table
    from mmcl.runs.prediction_blocks import predict_in_blocks
    from mmcl.runs.run import Run

    opened, loaded = Run.load(run), read_corpus(corpus)
    total = sum(loaded.card.counts.values()) * len(opened.seeds)
    with training_progress() as progress:
        done = 0

        def advance(clips: int) -> None:
            nonlocal done
            done += clips
            progress("predicting", done, total, {})

        if engine == "local" and workers == 1:
            table = opened.predict(loaded, advance=advance)
        else:
            table = predict_in_blocks(
                opened, loaded, corpus, workers=workers, engine=engine, advance=advance
            )
    write_table(table, out)
    typer.echo(f"{table.num_rows} predictions in {out}")


def _predict_media(
    run: Path,
    media: Path,
    out: Path | None,
    plot: Path | None,
    transcript: Path | None,
    language: str | None,
) -> None:
    _check_ending("--out", out, OUTPUTS)
    _check_ending("--plot", plot, (".png",))
    from mmcl.cli.show import console
    from mmcl.explain.timeline import draw_timeline
    from mmcl.runs.recordings import predict_media
    from mmcl.runs.run import Run

    with _stages() as stage:
        opened = Run.load(run)
        timeline = predict_media(
            opened, media, transcript=transcript, language=language, progress=stage
        )
        if out is not None:
            stage(f"writing {out}")
            _write(timeline, out, media)
        if plot is not None:
            stage(f"drawing {plot}")
            draw_timeline(timeline, plot)
    console.print(_table(timeline))
    for note in timeline.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    for path in (out, plot):
        if path is not None:
            typer.echo(str(path))


def _check_ending(option: str, path: Path | None, endings: tuple[str, ...]) -> None:
    if path is not None and path.suffix not in endings:
        raise UsageError(f'{option} must end in {", ".join(endings)}, got "{path.name}"')


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """Show on a terminal's error stream what is being done."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda stage: None
        return
    with console.status("loading the run") as status:
        yield lambda stage: status.update(stage)


def _write(timeline: Timeline, out: Path, media: Path) -> None:
    from mmcl.evaluation.tables import write_result, write_table
    from mmcl.explain.timeline import subtitles, timeline_table
    from mmcl.explain.timeline_page import timeline_page

    if out.suffix == ".html":
        write_result(out, timeline_page(timeline, media=media, beside=out.parent))
    elif out.suffix == ".srt":
        write_result(out, subtitles(timeline))
    else:
        write_table(timeline_table(timeline), out)


def _table(timeline: Timeline) -> Table:
    """Return a table with a row per utterance: time, text, prediction, and what drove it."""
    from rich.markup import escape
    from rich.table import Table

    from mmcl.explain.sentences import brief, headline, label
    from mmcl.explain.timeline import clock

    task = timeline.task
    spread = any(m.spread is not None for m in timeline.moments)
    table = Table(
        title=escape(f"{timeline.name}: {headline(task, timeline.moments)}"),
        caption=_caption(timeline, spread=spread),
    )
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("text", ratio=3)
    table.add_column("prediction", no_wrap=True)
    if spread:
        table.add_column("± seeds", justify="right", no_wrap=True)
    table.add_column("what drove it", ratio=3)
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    for clip, (start, _), moments in rows:
        sure = [] if moments.spread is None else [f"{moments.spread:.2f}"]
        cells = (label(task, moments), *sure, brief(task, clip, moments))
        table.add_row(clock(start), *(escape(c) for c in (_short(clip.text or ""), *cells)))
    return table


def _caption(timeline: Timeline, *, spread: bool) -> str:
    parts = []
    if timeline.error is not None:
        parts.append(f"mean error on validation: ±{timeline.error:.2f}")
    if spread:
        parts.append("± seeds: s.d. over seeds")
    unit = "the score" if timeline.task.kind == "regression" else "the probability, in points,"
    parts.append(f"what drove it: how far {unit} moves when it is masked")
    return "; ".join(parts)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1].rstrip()}…"
