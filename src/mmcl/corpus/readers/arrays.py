"""Corpora from arrays in memory: dicts, lists of ragged arrays, DataFrames, and single clips."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.check import fault_message, faults
from mmcl.corpus.readers.build_corpus import build_corpus
from mmcl.corpus.readers.content import read_content
from mmcl.corpus.readers.open_or_convert import read_corpus
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.table import read_columns
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, Modality

__all__ = [
    *("CorpusLike", "any_corpus", "corpus_of_arrays", "corpus_of_clips", "is_clip", "is_frame"),
]

CorpusLike = Corpus | str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A corpus, its path, arrays, one clip or a list of clips; a DataFrame too."""


def any_corpus(given: CorpusLike, task: Task) -> Corpus:
    """Return a corpus, a file, arrays or clips as a corpus.

    Args:
        given: A corpus; a path; arrays, as :func:`corpus_of_arrays` takes them; one clip,
            ``{"text": [n, d], ...}``; or a list of clips.
        task: Task of single clips, which have no labels.

    Raises:
        DatasetError: If it is none of these.
    """
    if isinstance(given, Corpus):
        return given
    if isinstance(given, str | Path):
        return read_corpus(given)
    if isinstance(given, Mapping):
        if is_clip(given):
            return corpus_of_clips([given], task, "one clip")
    elif isinstance(given, list | tuple):
        return corpus_of_clips(given, task, "clips")
    return corpus_of_arrays(given, ReadOptions())


def is_frame(value: Any) -> bool:
    """Tell whether a value is a DataFrame, of pandas or of a library that imitates it."""
    return hasattr(value, "columns") and hasattr(value, "iloc")


def is_clip(value: Any) -> bool:
    """Tell whether a value is a dict with the features ``[n, d]`` of a single clip."""
    features = [value[m] for m in MODALITIES if m in value] if isinstance(value, Mapping) else []
    return bool(features) and all(_has_two_axes(steps) for steps in features)


def _has_two_axes(steps: Any) -> bool:
    try:
        return np.asarray(steps).ndim == 2
    except ValueError:  # rows of different lengths
        return False


def corpus_of_arrays(data: Any, options: ReadOptions) -> Corpus:
    """Make a corpus of arrays; the arrays are not changed.

    Raises:
        DatasetError: If the data have none of the forms of
            :mod:`~mmcl.corpus.readers.content`, or are inconsistent.
    """
    path = Path("arrays")
    try:
        if is_frame(data):
            columns = {str(name): _column(data[name]) for name in data.columns}
            source = read_columns(columns, "a DataFrame", options)
        else:
            source = read_content(_protected(data), options, layout="arrays")
    except DatasetError as error:
        raise type(error)(f"{path}: {error}") from None
    sha256 = hashlib.sha256(repr(source.fields).encode()).hexdigest()
    name = options.name or "arrays"
    reading = build_corpus(source, path, sha256, options._replace(name=name))
    if reading.faults:
        raise DatasetError(fault_message(path, reading.faults).rsplit("\n", 1)[0])
    # There is no file that could be looked at again.
    return pack_corpus(reading.card.model_copy(update={"source": None}), reading.clips)


def _protected(value: Any) -> Any:
    """Return views of arrays and tensors that cannot be written, so that repairs copy them."""
    if isinstance(value, Mapping):
        return {key: _protected(item) for key, item in value.items()}
    if isinstance(value, list) and value and _is_tensor(value[0]):
        return [_protected(item) for item in value]
    if _is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray) and value.ndim > 1:
        return np.ma.filled(value.astype(np.float64), np.nan)  # masked values are unknown
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    return value


def _is_tensor(value: Any) -> bool:
    """Tell whether a value is a torch tensor, without importing torch."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def _column(series: Any) -> Any:
    """Return a column of a DataFrame as an array of numbers, or a list of anything else."""
    values = series.to_numpy()
    if values.dtype != object:
        return _protected(values)
    is_missing = series.isna().to_numpy()  # None, NaN and pandas.NA
    items = [None if gone else item for item, gone in zip(values, is_missing, strict=True)]
    if any(isinstance(item, np.ndarray | list | tuple) for item in items):
        return [np.zeros((0, 0), np.float32) if item is None else _steps(item) for item in items]
    return items


def _steps(item: Any) -> Any:
    """Return a cell of numbers, or of lists of numbers, as an array; strings stay."""
    return item if isinstance(item, str) else np.asarray(item)


def corpus_of_clips(clips: Sequence[Mapping[str, Any]], task: Task, name: str) -> Corpus:
    """Make a corpus of single clips without labels, all in the split ``test``.

    Args:
        clips: Features ``[n, d]`` by modality; with them, if wanted, ``id`` and ``raw_text``.
        task: What is to be predicted.
        name: Name of the corpus.

    Raises:
        DatasetError: If a clip has no features, or they are not finite numbers ``[n, d]``.
    """
    made = list(_clips(clips))
    found = faults(made, task)
    if found:
        raise DatasetError(fault_message(name, found).rsplit("\n", 1)[0])
    widths = {m: steps.shape[1] for clip in made for m, steps in clip.features.items()}
    lengths = [{len(steps) for steps in clip.features.values()} for clip in made]
    card = Card(
        name=name,
        task=task,
        dims={m: widths[m] for m in MODALITIES if m in widths},
        counts={"test": len(made)},
        aligned=all(len(steps) == 1 for steps in lengths),
    )
    return pack_corpus(card, made)


def _clips(clips: Sequence[Mapping[str, Any]]) -> Iterator[Clip]:
    for number, clip in enumerate(clips):
        if not is_clip(clip):
            found = ", ".join(map(str, clip)) if isinstance(clip, Mapping) else type(clip).__name__
            raise DatasetError(
                f"clip {number}: {found or 'nothing'}.\n"
                '  Expected a dict with the features [steps, width] of "text", "audio" or "vision"'
            )
        features: dict[Modality, NDArray[Any]] = {
            m: np.asarray(clip[m], dtype=np.float32) for m in MODALITIES if m in clip
        }
        unknown = [str(key) for key in clip if key not in (*MODALITIES, "id", "raw_text")]
        if unknown:
            raise DatasetError(
                f'clip {number}: "{unknown[0]}" is not read.\n'
                f"  Expected {', '.join(MODALITIES)}, and if wanted id and raw_text."
            )
        yield Clip(
            id=str(clip.get("id", f"clip_{number:04d}")),
            split="test",
            features={m: steps for m, steps in features.items() if len(steps)},
            text=clip.get("raw_text"),
        )
