"""Public functions that open, check or convert a file, whether it is ours or foreign."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.corpus.check import Fault, corpus_clips, fault_message, faults
from mmcl.corpus.readers.arrow_table import is_foreign_arrow
from mmcl.corpus.readers.build_corpus import Reading, build_corpus
from mmcl.corpus.readers.csd import CsdSource, parse_source
from mmcl.corpus.readers.file_type import READABLE, csd_files
from mmcl.corpus.readers.layouts import read_source_files
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.corpus.readers.table_per_split import tables_of_splits
from mmcl.corpus.schema import Card, Clip
from mmcl.corpus.store import Corpus, is_corpus_file, open_corpus, pack_corpus, write_corpus
from mmcl.errors import DatasetError, MMCLError, did_you_mean
from mmcl.limits import check_regular
from mmcl.types import TaskKind

__all__ = ["check_file", "convert_corpus", "read_corpus"]

PathLike = str | os.PathLike[str]
FLOAT16_MAX = float(np.finfo(np.float16).max)
_EXPECTED = f"Expected a corpus written by mmcl, {READABLE}"


def read_corpus(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
    **options: Any,
) -> Corpus:
    """Open a corpus file, or read a foreign one into memory.

    A foreign corpus comes out clean: every value finite, every clip with a step, every id
    unique, every label in its range. Its card lists what was repaired.

    Args:
        path: An Arrow file written by mmcl (mapped, not read), or a foreign file.
        name: Name of the corpus; guessed from a foreign file where it is None.
        task: Which labels of a foreign file to take where it has several kinds.
        label_range: Range of a foreign file's regression labels, where it is not known.
        options: The other choices of :class:`~mmcl.corpus.readers.ReadOptions`.

    Raises:
        DatasetError: If the file is missing, empty, damaged, of an unknown layout, or
            inconsistent; the last lists every fault.
        UnsafePickleError: If a pickle asks for anything that is not plain data.
    """
    sources = _sources(path)
    if not _is_ours(sources):
        choices = ReadOptions(name, task, label_range, **options)
        reading = _read_foreign(sources, choices, refuse_faults=True)
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
    sources = _sources(path)
    if _is_ours(sources):
        corpus = open_corpus(path)
        return corpus.card, faults(corpus)
    reading = _read_foreign(sources, ReadOptions())
    return reading.card, reading.faults


def convert_corpus(
    source: PathLike | Sequence[PathLike],
    target: PathLike,
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
    dtype: str = "float32",
    progress: Callable[[Iterable[Clip], int], Iterable[Clip]] | None = None,
    change: Callable[[Card, Iterable[Clip]], tuple[Card, Iterable[Clip]]] | None = None,
    **options: Any,
) -> Card:
    """Write a foreign file, or a corpus in another precision, as a corpus file.

    The target is complete or untouched, whatever happens.

    Args:
        source: A file; or the ``.csd`` files of one corpus, each alone or as ``audio=FILE``.
        target: The corpus file to write.
        name: As in :func:`read_corpus`; so are ``task``, ``label_range`` and ``options``.
        task: Which labels of a foreign file to take where it has several kinds.
        label_range: Range of a foreign file's regression labels, where it is not known.
        dtype: Precision of the features, ``float32`` or ``float16``.
        progress: Wraps the clips on their way to disk and is told their number.
        change: Called with the card and the clips that were read; returns those to write.
        options: The other choices of :class:`~mmcl.corpus.readers.ReadOptions`.

    Returns:
        The card of the written corpus.

    Raises:
        DatasetError: If the source is at fault, the target cannot be written, or a value
            is too large for float16.
    """
    sources = _sources(source)
    path = _named_for_messages(sources)
    clips: Iterable[Clip]
    if _is_ours(sources):
        corpus = read_corpus(path, name=name)
        card, clips = corpus.card, corpus_clips(corpus)
    else:
        choices = ReadOptions(name, task, label_range, **options)
        reading = _read_foreign(sources, choices, refuse_faults=True)
        card, clips = reading.card, reading.clips
    if change is not None:
        card, clips = change(card, clips)
    if dtype == "float16":
        clips = _check_float16(clips, path)
    if progress is not None:
        clips = progress(clips, sum(card.counts.values()))
    write_corpus(target, card, clips, dtype=dtype)
    return card


def _sources(source: PathLike | Sequence[PathLike]) -> list[CsdSource]:
    """Return the files of a source: those given, or the tables or .csd files of a folder."""
    parts = [source] if isinstance(source, str | os.PathLike) else source
    if not isinstance(parts, list | tuple):
        raise DatasetError(
            f"expected the path of a file, got one {type(source).__name__}.\n"
            "  Arrays in memory become a corpus by mmcl.Corpus.from_arrays(data)"
        )
    sources = [parse_source(os.fspath(part)) for part in parts]
    if len(sources) == 1 and sources[0].path.is_dir():
        folder = sources[0].path
        sources = [CsdSource(path) for path in tables_of_splits(folder) or csd_files(folder)]
    return [part._replace(path=_checked_path(part.path)) for part in sources]


def _named_for_messages(sources: Sequence[CsdSource]) -> Path:
    """Return the path of a single source, or the folder of several, which can be read as well."""
    folders = {source.path.parent for source in sources}
    is_folder = len(sources) > 1 and len(folders) == 1
    return min(folders) if is_folder and min(folders).name else sources[-1].path


def _is_ours(sources: Sequence[CsdSource]) -> bool:
    """Tell whether the source is one file that mmcl has written."""
    path = sources[0].path
    return len(sources) == 1 and is_corpus_file(path) and not is_foreign_arrow(path)


def _read_foreign(
    sources: Sequence[CsdSource], options: ReadOptions, *, refuse_faults: bool = False
) -> Reading:
    path = _named_for_messages(sources)
    try:
        sums = [_sha256(source.path) for source in sources]
        # Several files have one checksum: that of their checksums.
        sha256 = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        reading = build_corpus(read_source_files(sources, options), path, sha256, options)
    except OSError as error:
        raise DatasetError(_cannot_read(path, error)) from None
    except MMCLError:
        raise
    except Exception as error:  # damaged content can be of any kind in any place
        raise DatasetError(_unforeseen(path, error)) from error
    if refuse_faults and reading.faults:
        message = fault_message(path, reading.faults)
        # ``mmcl corpus check`` takes no choices, so it would read the file in another way.
        is_by_default = options == ReadOptions()
        raise DatasetError(message if is_by_default else message.rsplit("\n", 1)[0])
    return reading


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be read and is not empty, or raise DatasetError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise DatasetError(f"{path}: a folder.\n  {_EXPECTED}.\n  {LAYOUTS}")
        check_regular(path, DatasetError)
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


def _unforeseen(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else "no reason given"
    return (
        f"{path}: its content cannot be read as a corpus ({type(error).__name__}: {reason}).\n"
        "  It is damaged, or has a form that mmcl does not foresee. Fetch or copy it again.\n"
        f"  If it is as docs/data.md says, report what this shows: mmcl --debug corpus check {path}"
    )


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
