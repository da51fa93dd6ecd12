"""The command ``mmcl extract``: make a corpus from recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmcl.cli.options import EngineOption, hold_corpus
from mmcl.errors import UsageError
from mmcl.pool import check_workers

if TYPE_CHECKING:
    from mmcl.media.merge import Outcome
    from mmcl.media.recipe import Recipe

__all__ = ["extract_command"]

SHOWN = 10  # failures printed on the terminal


def extract_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC...", help="Media files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="CORPUS", help="Corpus file to write.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the corpus. Default: that of the file.")
    ] = None,
    task: Annotated[
        Literal["regression", "classes"] | None,
        typer.Option(help="Kind of labels. Default: scores, which is regression."),
    ] = None,
    label_range: Annotated[
        tuple[float, float] | None, typer.Option(help="LOW HIGH of the scores. Default: -3 3.")
    ] = None,
    alignment: Annotated[
        Literal["word", "native"],
        typer.Option(help="One step per word, or each modality at its own rate."),
    ] = "word",
    frame_rate: Annotated[float, typer.Option(help="Pictures analysed per second.")] = 10.0,
    voice: Annotated[
        Literal["mfcc", "egemaps"],
        typer.Option(help="Features of the voice; egemaps needs openSMILE (research licence)."),
    ] = "mfcc",
    language: Annotated[str | None, typer.Option(help="Language of the speech, as en.")] = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="starter, packaged, or a hub id or folder. "
            "Default: starter for --language en, otherwise packaged."
        ),
    ] = None,
    speech_model: Annotated[str | None, typer.Option(help="Hub id or folder of a model.")] = None,
    face_model: Annotated[str | None, typer.Option(help="A file face_landmarker.task.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    engine: EngineOption = "local",
    max_failures: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of items that may fail.")
    ] = 0.1,
    timings: Annotated[bool, typer.Option("--timings", help="Show seconds by stage.")] = False,
) -> None:
    """Turn recordings into a corpus: words, voice and face of every utterance.

    A folder with label.csv and Raw/VIDEO_ID/CLIP_ID.mp4 gives one clip per row of label.csv.
    Its columns are video_id, clip_id, text and label, and if wanted label_T, label_A, label_V,
    mode and speaker. Commas, semicolons or tabs may stand between them. Without mode, 70% of the
    videos go to train, 15% to valid and 15% to test. Any other file is cut into utterances
    at its pauses. A transcript beside it (.srt, .vtt, .sbv, .json, .txt, .csv, .tsv) is used;
    if there is none, the speech is recognised. Of talk.en.srt and talk.de.srt the one of
    --language is used.

    Files that fail are listed in errors.csv beside CORPUS. What else was left out is printed
    at the end. If the command was stopped, give it again: finished files are not extracted
    again.

    Examples:

      mmcl extract talk.mp4 --out talk.arrow

      mmcl extract MOSI --out mosi.arrow --workers 4

      mmcl extract RAVDESS --out ravdess.arrow --task classes --alignment native --timings
    """
    from mmcl.cli.show import training_progress
    from mmcl.media.batch import extract_batch
    from mmcl.media.folders.gather import gather

    recipe = _recipe(
        alignment=alignment,
        frame_rate=frame_rate,
        voice=voice,
        language=language,
        text_model=_text_model(text_model, language),
        speech_model=speech_model,
        face_model=face_model,
    )
    # Options are checked before the sources are searched for files.
    check_workers(workers, engine)
    if task == "classes" and label_range is not None:
        raise UsageError("--label-range is the range of scores; --task classes has none")
    hold_corpus(out, inputs=sources)
    _refuse_foreign_errors(out)
    gathered = gather(
        sources, kind=task, label_range=_checked_range(label_range), language=language
    )
    with training_progress() as progress:

        def show_progress(done: int, total: int, failed: int) -> None:
            stage = f"extracting, {failed} failed" if failed else "extracting"
            progress(stage, done, total, {})

        outcome = extract_batch(
            gathered,
            out,
            recipe,
            name=name,
            workers=workers,
            engine=engine,
            max_failures=max_failures,
            progress=show_progress,
        )
    _print_outcome(outcome, out)
    if timings:
        _print_timings(outcome)


def _refuse_foreign_errors(out: Path) -> None:
    """Refuse to write the list of failures over a file that no extraction made.

    Raises:
        UsageError: If there is such a file beside the corpus.
    """
    from mmcl.media.batch import is_list_of_errors
    from mmcl.media.folders.leftovers import ERRORS

    errors = out.with_name(ERRORS)
    if errors.exists() and not is_list_of_errors(errors):
        raise UsageError(
            f"{errors}: mmcl did not make this file, and the list of failures would replace it.\n"
            "  Give a corpus in another folder: --out CORPUS"
        )


def _text_model(name: str | None, language: str | None) -> str | None:
    """Return the text model of a recipe; None is the packaged one."""
    from mmcl.media.text_vectors import PACKAGED
    from mmcl.media.weights import STARTER_NAME

    if name is None and language == "en":
        return STARTER_NAME
    return None if name == PACKAGED else name


def _recipe(**settings: object) -> Recipe:
    from pydantic import ValidationError

    from mmcl.media.recipe import Recipe

    # pydantic names fields; users know options.
    try:
        return Recipe.model_validate(settings)
    except ValidationError as fault:
        first = fault.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {first['msg']}, got {first['input']!r}") from None


def _checked_range(label_range: tuple[float, float] | None) -> tuple[float, float] | None:
    if label_range is not None and not label_range[0] < label_range[1]:
        low, high = label_range
        raise UsageError(f"--label-range takes LOW HIGH, low below high, got {low:g} {high:g}")
    return label_range


def _print_outcome(outcome: Outcome, out: Path) -> None:
    from mmcl.cli.show import print_card, print_notes, say
    from mmcl.media.folders.leftovers import ERRORS

    print_notes(outcome.card)
    for failure in outcome.failures[:SHOWN]:
        say(f"failed: {failure.item}: {failure.cause.splitlines()[0]}", err=True)
    if outcome.failures:
        number = len(outcome.failures)
        count = "the failure in full" if number == 1 else f"all {number} failures"
        typer.echo(f"{count}: {out.with_name(ERRORS)}", err=True)
    print_card(outcome.card, out)


def _print_timings(outcome: Outcome) -> None:
    from rich.table import Table

    from mmcl.cli.show import console

    table = Table(title=f"seconds for {outcome.duration:.1f} s of media")
    for heading in ("stage", "seconds", "per second of media"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    # The time of all processes together, so it may exceed the time on the clock.
    rows = {**outcome.timings, "all": sum(outcome.timings.values())}
    for stage, seconds in rows.items():
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / outcome.duration:.3f}")
    console.print(table)
