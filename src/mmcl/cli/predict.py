"""The command ``mmcl predict``: predict the clips of a corpus, or a recording."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcl.cli.options import check_run, hold_output, near_name
from mmcl.errors import UsageError
from mmcl.pool import Engine, check_workers

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from mmcl.corpus.store import Corpus
    from mmcl.runs.recordings import Timeline
    from mmcl.runs.run import Run

__all__ = ["predict_command"]

ENDINGS = (".csv", ".jsonl", ".parquet")
OUTPUTS = (*ENDINGS, ".srt", ".html")
NOTES_OF_LABELS_AND_SPLITS = re.compile(
    r'there are no labels|label range|no "(train|valid|test)" split'
)
"""Notes of a reader that are not printed here: a prediction uses neither labels nor splits."""
SHOWN = 40  # characters of an utterance in the table on the terminal


def predict_command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN] SRC",
            help="A run folder (default: the starter), and a video or sound file or a corpus "
            "(any layout).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: .csv, .jsonl, .parquet; recordings also .srt, .html."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Only for recordings: picture to draw, .png.")
    ] = None,
    means: Annotated[
        Path | None,
        typer.Option(
            help="Only for recordings: file with the means of every minute and speaker, "
            ".csv, .jsonl, .parquet."
        ),
    ] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(
            help="Only for recordings: transcript, .srt, .vtt, .sbv, .json, .txt, .csv, .tsv."
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Only for recordings: language, as es. Default: that of the run."),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Only for a corpus: run it here (local), or on Ray, also over several machines."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Only for a corpus: number of processes. Default: 1; with Ray one per core.", min=1
        ),
    ] = None,
) -> None:
    """Predict a recording, utterance by utterance, or every clip of a corpus.

    Without a run the starter is used, which comes with the package: see mmcl starter.

    A recording is extracted with the settings of the run's corpus, so mmcl extract must have
    made that corpus. The table shows what drove each prediction: how far it moves when a
    modality or a word is masked. An .html plays the recording beside its words.

    A corpus needs no labels, but --out is required. With several seeds the prediction is made
    from their mean scores, and spread is the standard deviation over seeds. The texts of the
    corpus, if it has any, are written beside their predictions.

    Examples:

      mmcl predict talk.mp4

      mmcl predict reviews.csv --out scores.csv

      mmcl predict runs/talks talk.mp4

      mmcl predict runs/talks talk.mp4 --transcript talk.srt --out talk.html --plot talk.png

      mmcl predict runs/talks talk.mp4 --out talk.csv --means talk-means.csv

      mmcl predict runs/planted planted.arrow --out predictions.csv
    """
    from mmcl.media.folders.raw_files import MEDIA_ENDINGS

    run, source = _run_and_source(sources or [])
    _check_source(run, source)
    # The ending says whether SRC is a recording; the options of the other kind are refused.
    if source.suffix.lower() in MEDIA_ENDINGS:
        if engine == "ray" or workers is not None:
            option = "--engine ray" if engine == "ray" else "--workers"
            raise UsageError(f'{option} is only for a corpus, and "{source.name}" is a recording')
        _predict_media(run, source, out, plot, means, transcript, language)
        return
    recording_options = {
        "--plot": plot,
        "--means": means,
        "--transcript": transcript,
        "--language": language,
    }
    for option, value in recording_options.items():
        if value is not None:
            raise UsageError(f'{option} is only for recordings, and "{source.name}" is not one')
    check_workers(workers or 1, engine)
    count = workers or (1 if engine == "local" else os.cpu_count() or 1)
    _predict_corpus(run, source, out, engine, count)


def _run_and_source(sources: list[Path]) -> tuple[Path | None, Path]:
    """Return the run, None where the starter is to be used, and what is predicted."""
    if len(sources) == 2:
        return sources[0], sources[1]
    if len(sources) != 1:
        given = " ".join(f'"{path}"' for path in sources) or "nothing"
        raise UsageError(
            f"expected a recording or a corpus, with or without a run before it, got {given}.\n"
            "  With the starter: mmcl predict SRC\n  With a run: mmcl predict RUN SRC"
        )
    is_word = str(sources[0]) == "starter" and not sources[0].exists()
    if is_word or (sources[0] / "run.json").is_file():
        raise UsageError(
            f'"{sources[0]}" is a run, and a recording or a corpus is missing.\n'
            f"  Give it after the run: mmcl predict {sources[0]} SRC"
        )
    return None, sources[0]


def _check_source(run: Path | None, source: Path) -> None:
    """Refuse an address, a run that stands after its recording, and a RUN that is no folder.

    Raises:
        UsageError: For the first two.
        RunError: For the third.
    """
    if re.match(r"[a-z]+:/", str(source)):  # Path makes one slash of the two of an address
        raise UsageError(
            f"{source}: addresses on the net are not read.\n"
            "  Download the file, and give its path: mmcl predict talk.mp4"
        )
    if run is None:
        return
    if (source / "run.json").is_file() and not (run / "run.json").is_file():
        raise UsageError(
            f'"{source}" is a run, and the run comes first: mmcl predict {source} {run}'
        )
    check_run(run)


def _open(run: Path | None) -> tuple[Run, tuple[str, ...]]:
    """Open a run, or the starter with what the user must know of it."""
    from mmcl.runs.starter import run_or_starter, starter_notice

    opened = run_or_starter(run)
    return opened, (starter_notice(opened),) if run is None else ()


def _predict_corpus(
    run: Path | None, corpus: Path, out: Path | None, engine: Engine, workers: int
) -> None:
    if out is None:
        if not os.path.exists(corpus):
            raise UsageError(
                f"{corpus}: no such file{near_name(corpus)}\n"
                "  Expected a recording, a corpus, or a table of texts."
            )
        raise UsageError(
            f"{corpus}: its ending is not that of a recording, and predictions of a corpus or of "
            f"a table of texts need a file.\n  Give one: --out with {', '.join(ENDINGS)}"
        )
    # Endings are checked before torch is imported, so that a mistake shows at once.
    _check_ending("--out", out, ENDINGS)
    from mmcl.cli.show import say, training_progress
    from mmcl.corpus.readers import read_corpus
    from mmcl.evaluation.tables import write_table
    from mmcl.runs.prediction_blocks import predict_in_blocks
    from mmcl.runs.run import PREDICTIONS

    (opened, notices), loaded = _open(run), read_corpus(corpus)
    hold_output(out, inputs=[*_files_of(corpus), opened.folder / PREDICTIONS])
    for notice in notices:
        say(notice, err=True)
    loaded = opened.prepared(loaded)
    # Every seed has a network, and each of them predicts every clip.
    total = sum(loaded.card.counts.values()) * len(opened.seeds)
    with training_progress() as progress:
        done = 0

        def advance(clips: int) -> None:
            nonlocal done
            done += clips
            progress("predicting", done, total, {})

        # One process needs no blocks: it predicts here, without opening the files again.
        if engine == "local" and workers == 1:
            table = opened.predict(loaded, advance=advance)
        else:
            table = predict_in_blocks(
                opened, loaded, corpus, workers=workers, engine=engine, advance=advance
            )
    write_table(_with_texts(table, loaded), out)
    for note in opened.notes(loaded):
        if not NOTES_OF_LABELS_AND_SPLITS.match(note):
            say(f"note: {note}", err=True)
    typer.echo(f"{table.num_rows} prediction{'s' * (table.num_rows != 1)} in {out}")


def _with_texts(table: pa.Table, corpus: Corpus) -> pa.Table:
    """Add the text of every clip as a column, if the corpus holds texts."""
    clips = corpus.every_clip().table
    if "text" not in clips.column_names or clips["text"].null_count == clips.num_rows:
        return table
    return table.append_column("text", clips["text"].cast("string"))


def _files_of(corpus: Path) -> list[Path]:
    """Return the files that a corpus is read from: itself, or the tables of its folder."""
    from mmcl.corpus.readers.table_per_split import tables_of_splits

    return tables_of_splits(corpus) if corpus.is_dir() else [corpus]


def _predict_media(
    run: Path | None,
    media: Path,
    out: Path | None,
    plot: Path | None,
    means: Path | None,
    transcript: Path | None,
    language: str | None,
) -> None:
    _check_ending("--out", out, OUTPUTS)
    _check_ending("--plot", plot, (".png",))
    _check_ending("--means", means, ENDINGS)
    outputs = [path for path in (out, means, plot) if path is not None]
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise UsageError("two outputs have one name; give each another: --out, --means, --plot")
    from mmcl.cli.show import console
    from mmcl.evaluation.tables import write_table
    from mmcl.explain.timeline import draw_timeline
    from mmcl.explain.timeline_means import means_table, speaker_sentences
    from mmcl.runs.recordings import predict_media
    from mmcl.runs.run import PREDICTIONS

    # The stages take seconds to minutes and have no steps to count: a line says which one runs.
    with _show_stage() as stage:
        opened, notices = _open(run)
        for path in outputs:
            hold_output(path, inputs=[media, transcript, opened.folder / PREDICTIONS])
        timeline = predict_media(
            opened, media, transcript=transcript, language=language, progress=stage
        )
        timeline = timeline._replace(notes=(*notices, *timeline.notes))
        if out is not None:
            stage(f"writing {out}")
            _write_timeline(timeline, out, media)
        if means is not None:
            write_table(means_table(timeline), means)
        if plot is not None:
            stage(f"drawing {plot}")
            draw_timeline(timeline, plot)
    console.print(_utterance_table(timeline))
    for name, said in speaker_sentences(timeline):
        console.print(f"{name}: {said}", markup=False, highlight=False)
    for note in timeline.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    for path in outputs:
        typer.echo(str(path))


def _check_ending(option: str, path: Path | None, endings: tuple[str, ...]) -> None:
    if path is not None and path.suffix not in endings:
        raise UsageError(f'{option} must end in {", ".join(endings)}, got "{path.name}"')


@contextmanager
def _show_stage() -> Iterator[Callable[[str], None]]:
    """Show the current stage on stderr, if it is a terminal."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda stage: None
        return
    with console.status("loading the run") as status:
        yield lambda stage: status.update(stage)


def _write_timeline(timeline: Timeline, out: Path, media: Path) -> None:
    from mmcl.evaluation.tables import write_result, write_table
    from mmcl.explain.timeline import subtitles, timeline_table
    from mmcl.explain.timeline_page import timeline_page

    if out.suffix == ".html":
        write_result(out, timeline_page(timeline, media=media, beside=out.parent))
    elif out.suffix == ".srt":
        write_result(out, subtitles(timeline))
    else:
        write_table(timeline_table(timeline), out)


def _utterance_table(timeline: Timeline) -> Table:
    """Return a table with the time, text and prediction of every utterance, and its reasons."""
    from rich.markup import escape
    from rich.table import Table

    from mmcl.explain.sentences import brief, headline, label
    from mmcl.explain.timeline import clock
    from mmcl.explain.timeline_means import speaker_sentences

    task = timeline.task
    speakers = speaker_sentences(timeline)
    spread = any(m.spread is not None for m in timeline.moments)
    table = Table(
        title=escape(f"{timeline.name}: {headline(task, timeline.moments)}"),
        caption=_caption(timeline, spread=spread),
    )
    table.add_column("time", justify="right", no_wrap=True)
    if speakers:
        table.add_column("speaker", ratio=1)
    table.add_column("text", ratio=3)
    table.add_column("prediction", no_wrap=True)
    if spread:
        table.add_column("± seeds", justify="right", no_wrap=True)
    table.add_column("what drove it", ratio=3)
    rows = zip(timeline.clips, timeline.spans, timeline.moments, strict=True)
    for clip, (start, _), moments in rows:
        spread_cell = [] if moments.spread is None else [f"{moments.spread:.2f}"]
        said = [*([clip.speaker or ""] if speakers else []), _shorten(clip.text or "")]
        cells = (label(task, moments), *spread_cell, brief(task, clip, moments))
        table.add_row(clock(start), *(escape(cell) for cell in (*said, *cells)))
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


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1].rstrip()}…"
