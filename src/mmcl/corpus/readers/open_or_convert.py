"""The public way in: open, check or convert a file, whether it is ours or foreign."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mmcl.corpus.check import Fault, corpus_clips, fault_message, faults
from mmcl.corpus.readers.build_corpus import Reading, build_corpus
from mmcl.corpus.readers.choose_task import ReadOptions
from mmcl.corpus.readers.layouts import read_source_file
from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.corpus.schema import Card, Clip
from mmcl.corpus.store import Corpus, is_corpus_file, open_corpus, pack_corpus, write_corpus
from mmcl.errors import DatasetError, did_you_mean
from mmcl.types import TaskKind

__all__ = ["check_file", "convert_corpus", "read_corpus"]

FLOAT16_MAX = float(np.finfo(np.float16).max)
_EXPECTED = "Expected a corpus written by mmcl, a pickle (plain or gzip'd) or an npz file"


def read_corpus(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
) -> Corpus:
    """Open a corpus file, or read a foreign one into memory.

    A foreign corpus comes out clean: every value finite, every clip with a step, every id
    unique, every label in its range. Its card lists what was repaired.

    Args:
        path: An Arrow file written by mmcl (mapped, not read), or a foreign file.
        name: Name of the corpus; guessed from a foreign file where it is None.
        task: Which labels of a foreign file to take where it has several kinds.
        label_range: Range of a foreign file's regression labels, where it is not known.

    Raises:
        DatasetError: If the file is missing, empty, damaged, of an unknown layout, or
            inconsistent; the last lists every fault.
        UnsafePickleError: If a pickle asks for anything that is not plain data.
    """
    path = _checked_path(path)
    if not is_corpus_file(path):
        reading = _read_foreign(path, ReadOptions(name, task, label_range), refuse_faults=True)
        return pack_corpus(reading.card, reading.clips)
    corpus = open_corpus(path)
    if name is not None:
        corpus.card = corpus.card.model_copy(update={"name": name})
    return corpus


def check_file(path: str | os.PathLike[str]) -> tuple[Card, list[Fault]]:
    """Return the card and all faults of a corpus file or a foreign file.

    Raises:
        DatasetError: If the file cannot be read at all.
    """
    path = _checked_path(path)
    if is_corpus_file(path):
        corpus = open_corpus(path)
        return corpus.card, faults(corpus)
    reading = _read_foreign(path, ReadOptions())
    return reading.card, reading.faults


def convert_corpus(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    dtype: str = "float32",
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
    progress: Callable[[Iterable[Clip], int], Iterable[Clip]] | None = None,
) -> Card:
    """Write a foreign file, or a corpus in another precision, as a corpus file.

    The target is complete or untouched, whatever happens. ``name``, ``task`` and
    ``label_range`` are those of :func:`read_corpus`; ``dtype`` is ``float32`` or ``float16``;
    ``progress`` wraps the clips on their way to disk and is told their number.

    Returns:
        The card of the written corpus.

    Raises:
        DatasetError: If the source is at fault, the target cannot be written, or a value
            is too large for float16.
    """
    source = _checked_path(source)
    clips: Iterable[Clip]
    if is_corpus_file(source):
        corpus = read_corpus(source, name=name)
        card, clips = corpus.card, corpus_clips(corpus)
    else:
        reading = _read_foreign(source, ReadOptions(name, task, label_range), refuse_faults=True)
        card, clips = reading.card, reading.clips
    if dtype == "float16":
        clips = _check_float16(clips, source)
    if progress is not None:
        clips = progress(clips, sum(card.counts.values()))
    write_corpus(target, card, clips, dtype=dtype)
    return card


def _read_foreign(path: Path, options: ReadOptions, *, refuse_faults: bool = False) -> Reading:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        reading = build_corpus(read_source_file(path), path, sha256, options)
    except OSError as error:
        raise DatasetError(_cannot_read(path, error)) from None
    if refuse_faults and reading.faults:
        raise DatasetError(fault_message(path, reading.faults))
    return reading


def _checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be read and is not empty, or raise DatasetError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise DatasetError(f"{path}: a folder.\n  {_EXPECTED}.\n  {LAYOUTS}")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise DatasetError(
            f"{path}: no such file{near or '.'}\n  {_EXPECTED}.\n"
            "  Make one to try things on: mmcl corpus plant planted.arrow"
        ) from None
    except OSError as error:
        raise DatasetError(_cannot_read(path, error)) from None
    if is_empty:
        raise DatasetError(
            f"{path}: the file is empty.\n  {_EXPECTED}; fetch or copy it again.\n  {LAYOUTS}"
        )
    return path


def _cannot_read(path: Path, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{path}: cannot be read ({reason}).\n  {_EXPECTED}, which you may read.\n  {LAYOUTS}"


def _check_float16(clips: Iterable[Clip], source: Path) -> Iterator[Clip]:
    for clip in clips:
        for modality, steps in clip.features.items():
            largest = float(np.abs(steps).max(initial=0.0))
            if largest > FLOAT16_MAX:
                raise DatasetError(
                    f'{source}, clip "{clip.id}": {modality} holds {largest:g}, '
                    f"and float16 ends at {FLOAT16_MAX:g}.\n"
                    "  Expected values that fit; keep full precision: --dtype float32"
                )
        yield clip
