"""A path in, a corpus out: which reader a file needs, and what becomes of what it found."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.corpus.check import Fault, corpus_clips, faults, raise_faults
from mmcl.corpus.readers.assemble import Reading, assemble
from mmcl.corpus.readers.foreign import LAYOUTS, Foreign, named_splits
from mmcl.corpus.readers.magbert import read_magbert
from mmcl.corpus.readers.mmsa import is_mmsa, read_mmsa
from mmcl.corpus.readers.mult import read_mult
from mmcl.corpus.readers.npz import read_npz
from mmcl.corpus.readers.plain import read_plain
from mmcl.corpus.schema import Card, Clip
from mmcl.corpus.store import Corpus, is_corpus_file, open_corpus, pack_corpus, write_corpus
from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError, did_you_mean
from mmcl.types import TaskKind

__all__ = ["check_file", "convert_corpus", "read_corpus", "read_foreign"]

ZIP_MAGIC = b"PK\x03\x04"
FLOAT16_MAX = float(np.finfo(np.float16).max)
ClipProgress = Callable[[Iterable[Clip], int], Iterable[Clip]]
"""Wraps clips on their way to disk, told how many there are: a progress bar."""

EXPECTED = "Expected a corpus written by mmcl, a pickle (plain or gzip'd) or an npz file"


def read_corpus(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
) -> Corpus:
    """Open a corpus file, or read a foreign one into memory.

    A foreign corpus comes out clean: every value finite, every clip with a step, every id
    once, every label in its range. What was repaired stands on its card.

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
    path = must_be_file(path)
    if is_corpus_file(path):
        corpus = open_corpus(path)
        if name is not None:
            corpus.card = corpus.card.model_copy(update={"name": name})
        return corpus
    reading = read_foreign(path, name=name, task=task, label_range=label_range)
    raise_faults(path, reading.faults)
    return pack_corpus(reading.card, reading.clips)


def read_foreign(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
) -> Reading:
    """Read a foreign file into clips and a card, with its faults listed and not raised.

    Raises:
        DatasetError: If the file cannot be read at all; see :func:`read_corpus`.
    """
    path = must_be_file(path)
    try:
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        with _naming(path):
            foreign = _read_arrays(path)
        return assemble(foreign, path, checksum, name=name, task=task, label_range=label_range)
    except OSError as fault:
        raise DatasetError(_cannot_read(path, fault)) from None


def check_file(path: str | os.PathLike[str]) -> tuple[Card, list[Fault]]:
    """Everything that is wrong with a corpus file or a foreign file, and its card.

    Raises:
        DatasetError: If the file cannot be read at all.
    """
    path = must_be_file(path)
    if is_corpus_file(path):
        corpus = open_corpus(path)
        return corpus.card, faults(corpus)
    reading = read_foreign(path)
    return reading.card, reading.faults


def convert_corpus(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    dtype: str = "float32",
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
    progress: ClipProgress | None = None,
) -> Card:
    """Write a foreign file, or a corpus in another precision, as a corpus file.

    The target is complete or untouched, whatever happens.

    Args:
        source: File to read; see :func:`read_corpus`.
        target: File to write; an existing one is replaced.
        name: Name of the corpus; guessed where it is None.
        dtype: ``float32`` or ``float16``.
        task: Which labels to take where the file has several kinds.
        label_range: Range of regression labels, where it is not known.
        progress: Wraps the clips on their way to disk.

    Returns:
        The card of what was written.

    Raises:
        DatasetError: If the source is at fault, the target cannot be written, or a value
            is too large for float16.
    """
    source = must_be_file(source)
    clips: Iterable[Clip]
    if is_corpus_file(source):
        corpus = read_corpus(source, name=name)
        card, clips = corpus.card, corpus_clips(corpus)
    else:
        reading = read_foreign(source, name=name, task=task, label_range=label_range)
        raise_faults(source, reading.faults)
        card, clips = reading.card, reading.clips
    if dtype == "float16":
        clips = _fitting_float16(clips, source)
    if progress is not None:
        clips = progress(clips, sum(card.counts.values()))
    write_corpus(target, card, clips, dtype=dtype)
    return card


def must_be_file(path: str | os.PathLike[str]) -> Path:
    """The path of a readable file that is not empty.

    Raises:
        DatasetError: If it is none.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DatasetError(f"{path}: a folder.\n  {EXPECTED}.\n  {LAYOUTS}")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise DatasetError(
            f"{path}: no such file{near or '.'}\n  {EXPECTED}.\n"
            "  Make one to try things on: mmcl corpus plant planted.arrow"
        ) from None
    except OSError as fault:
        raise DatasetError(_cannot_read(path, fault)) from None
    if is_empty:
        raise DatasetError(
            f"{path}: the file is empty.\n  {EXPECTED}; fetch or copy it again.\n  {LAYOUTS}"
        )
    return path


def _cannot_read(path: Path, fault: OSError) -> str:
    reason = os.strerror(fault.errno) if fault.errno else str(fault)
    return f"{path}: cannot be read ({reason}).\n  {EXPECTED}, which you may read.\n  {LAYOUTS}"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what a reader says of one of its parts."""
    try:
        yield
    except DatasetError as fault:
        if str(fault).startswith(str(path)):
            raise
        raise type(fault)(f"{path}, {fault}") from None


def _read_arrays(path: Path) -> Foreign:
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if is_zip:
        return read_npz(path)
    content = load_pickle(path)
    splits = named_splits(content) if isinstance(content, Mapping) else []
    parts = [part for _, part in splits]
    if parts and all(isinstance(part, Mapping) for part in parts):
        if any("labels" in part for part in parts):
            return read_mult(content)
        if any(key in part for part in parts for key in ("text", "audio", "vision")):
            return read_mmsa(content) if is_mmsa(content) else read_plain(content)
    elif parts and all(_is_listed(part) for part in parts):
        return read_magbert(content)
    raise DatasetError(
        f"{path}: unknown layout; it holds {_shown(content)}.\n"
        '  Expected a dict of splits "train", "valid" (or "dev", "val") and "test", each a dict '
        'with "text", "audio" or "vision", or a list of ((words, visual, acoustic), label, '
        f"segment).\n  {LAYOUTS}"
    )


def _is_listed(part: Any) -> bool:
    return isinstance(part, list | tuple) and all(
        isinstance(item, list | tuple) and len(item) == 3 for item in part[:1]
    )


def _shown(content: Any) -> str:
    if not isinstance(content, Mapping):
        kind = "ndarray" if isinstance(content, np.ndarray) else type(content).__name__
        return f"one {kind}"
    keys = [repr(str(key)) for key in content]
    more = ", ..." if len(keys) > 5 else ""
    inner = next((v for v in content.values() if isinstance(v, Mapping)), None)
    within = f", and in the first of them {_shown(inner)}" if inner else ""
    return f"a dict with {', '.join(keys[:5]) or 'no keys'}{more}{within}"


def _fitting_float16(clips: Iterable[Clip], source: Path) -> Iterator[Clip]:
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
