"""The commands ``mmcl corpus``: convert, check, describe and plant corpora."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmcl.cli.options import CORPUS_ENDING, hold_corpus
from mmcl.errors import UsageError
from mmcl.plain import without_controls
from mmcl.types import TaskKind

if TYPE_CHECKING:
    from mmcl.corpus.schema import Card, Clip

__all__ = ["app"]

# In the docstrings below, \b tells typer to keep the line breaks of a paragraph.
app = typer.Typer(
    help="Convert, check, describe and plant corpora.", no_args_is_help=True, rich_markup_mode=None
)

_Paths = Annotated[
    list[str], typer.Argument(metavar="SRC... [DST]", help="File to read; several only for .csd.")
]
_Target = Annotated[Path, typer.Argument(metavar="DST", help="Corpus file to write.")]
_Path = Annotated[Path, typer.Argument(metavar="PATH", help="A corpus or a foreign file.")]
_Precision = Annotated[
    Literal["float32", "float16"], typer.Option(help="Precision of the features on disk.")
]


@app.command()
def convert(
    paths: _Paths,
    out: Annotated[
        Path | None, typer.Option(metavar="DST", help="Corpus file to write; else the last path.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the corpus: mosi, mosei, iemocap, sims, simsv2, or yours."),
    ] = None,
    dtype: _Precision = "float32",
    task: Annotated[
        TaskKind | None, typer.Option(help="What the labels are, if the file does not tell.")
    ] = None,
    label_range: Annotated[
        tuple[float, float] | None,
        typer.Option(help="LOW HIGH of the scores, if the corpus is not a known one."),
    ] = None,
    align: Annotated[
        Literal["word", "none"] | None,
        typer.Option(help="word: one step per word in every modality; none: each at its rate."),
    ] = None,
    padding: Annotated[
        Literal["left", "right", "both", "none"] | None,
        typer.Option(help="Side of the real steps that is filled up, if it cannot be seen."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Read the split, field or column KEY as NAME; repeatable."
        ),
    ] = None,
    max_lost: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the clips that may be left out.")
    ] = 0.1,
    text_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Make vectors of the words: packaged, or a hub id or folder of an encoder.",
        ),
    ] = None,
) -> None:
    """Convert a file of another project into a corpus file.

    \b
    Files that can be read, told apart by their content:
      MMSA     {split: {text, audio, vision, text_bert, id, regression_labels, ...}}
      MulT     {split: {text, audio, vision, labels, id}}, also IEMOCAP
      MAG-BERT {split: [((words, visual, acoustic), label, segment), ...]}
      plain    {split: {text, audio, vision, classification_labels, ...}}
      npz      arrays train/text (or train_text), train/labels, train/text_lengths, ...
      table    csv, tsv, Parquet or Arrow with a clip per row and columns split, label, text,
               features_text (lists of numbers), or audio_0, audio_1, ...
      csd      CMU-MultimodalSDK: text, audio, vision and labels, one file each
    The first four are pickles, also compressed with gzip. No code in a pickle is run.
    Splits are train, valid (or dev, val) and test. docs/data.md has the details.

    \b
    Examples:
      mmcl corpus convert MOSI/Processed/unaligned_50.pkl mosi.arrow
      mmcl corpus convert sims.pkl sims.arrow --dtype float16
      mmcl corpus convert mine.npz mine.arrow --name mine --label-range -2 2
      mmcl corpus convert mine.pkl mine.arrow --rename video=vision --rename dev2=valid
      mmcl corpus convert glove.csd covarep.csd facet.csd labels.csd --out mosi.arrow
      mmcl corpus convert rated.csv rated.arrow --text-model packaged
      mmcl corpus convert text=a.csd audio=b.csd labels=c.csd --out x.arrow --align none
    """
    from mmcl.cli.show import print_card, print_notes
    from mmcl.corpus.readers import convert_corpus
    from mmcl.corpus.readers.csd import parse_source

    sources, target = _sources_and_target(paths, out)
    names = _renaming(rename or ())
    hold_corpus(target, inputs=[parse_source(source).path for source in sources])
    with _progress(f"reading {' '.join(sources)}") as progress:
        card = convert_corpus(
            sources,
            target,
            name=name,
            task=task,
            label_range=label_range,
            align=align,
            padding=padding,
            rename=names,
            max_lost=max_lost,
            dtype=dtype,
            progress=progress,
            change=_text_vectors(text_model),
        )
    print_notes(card)
    print_card(card, target)


def _text_vectors(
    model: str | None,
) -> Callable[[Card, Iterable[Clip]], tuple[Card, Iterable[Clip]]] | None:
    """Return what adds vectors of the words to a corpus, or None if it was not asked for."""
    if model is None:
        return None
    from mmcl.media.text_vectors import with_text_vectors

    return partial(with_text_vectors, model=model)


def _sources_and_target(paths: list[str], out: Path | None) -> tuple[list[str], Path]:
    """Return what to read and what to write: ``--out``, or the last of two paths.

    Raises:
        UsageError: If there is nothing to write to, or it is not certain what.
    """
    if out is not None:
        return paths, out
    # A file that exists and has no corpus's name may have been meant as a second source.
    if len(paths) == 2 and (paths[1].endswith(CORPUS_ENDING) or not Path(paths[1]).exists()):
        return paths[:1], Path(paths[1])
    given = "one path" if len(paths) == 1 else f"{len(paths)} paths"
    raise UsageError(
        f"{given} without --out: it is not certain which file to write.\n"
        "  Expected SRC DST, or one or more SRC and --out DST: "
        f"mmcl corpus convert {' '.join(paths)} --out corpus.arrow"
    )


def _renaming(pairs: Sequence[str]) -> dict[str, str]:
    """Return names by key from ``KEY=NAME``.

    Raises:
        UsageError: If one is not of this form, or a key is there twice.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        key, equals, new = (part.strip() for part in pair.rpartition("="))
        if not equals or not key or key in names:
            problem = f'"{key}" is renamed twice' if key in names else f'"{pair}" is not KEY=NAME'
            raise UsageError(
                f"--rename: {problem}.\n"
                "  Expected a name of the file and ours for it: --rename video=vision"
            )
        names[key] = new
    return names


@app.command()
def check(path: _Path) -> None:
    """List all faults of a corpus. The exit code is 1 if there are any.

    \b
    Examples:
      mmcl corpus check mosi.arrow
      mmcl corpus check unaligned_50.pkl
    """
    from mmcl.cli.show import print_notes, say
    from mmcl.corpus.readers import check_file

    # A file of another project is read as convert would read it.
    with _progress(f"checking {path}"):
        card, faults = check_file(path)
    print_notes(card)
    if not faults:
        say(f"{path}: no faults in {sum(card.counts.values())} clips")
        return
    for fault in faults:
        say(f"{fault}\n  {fault.expected}")
        if fault.first:
            say(f"  {fault.first}")
    say(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
    raise typer.Exit(1)


@app.command()
def describe(
    path: _Path, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show how many clips there are, how long they are, and what is missing.

    Also shown: the labels, and the scores of a constant prediction.

    \b
    Examples:
      mmcl corpus describe mosi.arrow
      mmcl corpus describe mosi.arrow --json
    """
    from mmcl.cli.show import PlainConsole
    from mmcl.corpus.describe import describe as summarise
    from mmcl.corpus.describe import render
    from mmcl.corpus.readers import read_corpus

    with _progress(f"reading {path}"):
        summary = summarise(read_corpus(path))
    if as_json:
        typer.echo(without_controls(json.dumps(summary, indent=2, ensure_ascii=False)))
    else:
        PlainConsole(highlight=False, markup=False, soft_wrap=True).print(render(summary))


@app.command()
def plant(
    target: _Target,
    train: Annotated[int, typer.Option(min=1, help="Training clips.")] = 2000,
    valid: Annotated[int, typer.Option(min=1, help="Validation clips.")] = 400,
    test: Annotated[int, typer.Option(min=1, help="Test clips.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the clips.")] = 1,
    heterogeneity: Annotated[
        float, typer.Option(min=0.0, help="How much features differ in scale and centre.")
    ] = 1.0,
    aligned: Annotated[
        bool, typer.Option("--aligned/--unaligned", help="Same steps for all modalities, or not.")
    ] = True,
    task: Annotated[TaskKind, typer.Option(help="Kind of label.")] = "regression",
    steps: Annotated[int, typer.Option(min=14, help="Steps of a clip.")] = 20,
    widths: Annotated[
        tuple[int, int, int], typer.Option(min=1, help="Features of a step: TEXT AUDIO VISION.")
    ] = (96, 48, 24),
    dtype: _Precision = "float32",
) -> None:
    """Make a synthetic corpus whose common and complementary steps are known.

    The corpus may be larger than memory.

    \b
    Examples:
      mmcl corpus plant planted.arrow
      mmcl corpus plant hard.arrow --unaligned --heterogeneity 2 --seed 7
      mmcl corpus plant small.arrow --train 64 --valid 16 --test 16 --task emotions
      mmcl corpus plant wide.arrow --train 160000 --steps 50 --widths 300 74 35 --dtype float16
    """
    from mmcl.cli.show import print_card
    from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
    from mmcl.corpus.store import write_corpus

    settings = PlantSettings(
        train=train,
        valid=valid,
        test=test,
        seed=seed,
        heterogeneity=heterogeneity,
        aligned=aligned,
        task=task,
        steps=steps,
        widths=widths,
    )
    card = plant_card(settings)
    hold_corpus(target, inputs=[])
    with _progress(f"planting {target}") as progress:
        # Clips are made one at a time and written at once: few are in memory.
        clips = progress(plant_clips(settings), train + valid + test)
        write_corpus(target, card, clips, dtype=dtype)
    print_card(card, target)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Iterable[Clip], int], Iterable[Clip]]]:
    """Show a progress bar on stderr, if it is a terminal; the bar counts the clips written."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    name = TextColumn("{task.description}", markup=False)
    with Progress(
        *(SpinnerColumn(), name, BarColumn(), MofNCompleteColumn()),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        bar = bars.add_task(title, total=None)

        # The bar counts while the writer takes clips from this generator.
        def count(clips: Iterable[Clip], total: int) -> Iterator[Clip]:
            bars.update(bar, total=total)
            for clip in clips:
                yield clip
                bars.advance(bar)

        yield count
