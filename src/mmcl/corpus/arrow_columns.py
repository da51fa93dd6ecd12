"""Arrow columns of a corpus: from clips to record batches, and views of them as numpy arrays.

Features are ``list<fixed_size_list<float>>`` columns: ragged over steps, null where a clip
lacks the modality.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmcl.corpus.schema import Card, Clip
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, SPLITS

__all__ = ["RaggedColumn", "corpus_schema", "record_batch", "view_ragged"]

_FLOATS = {"float32": pa.float32(), "float16": pa.float16()}
_LABELS = {"regression": pa.float64(), "classes": pa.int32(), "emotions": pa.list_(pa.int8())}
_WORD = pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())])


class RaggedColumn(NamedTuple):
    """A ragged column whose clip i is ``chunks[chunk[i]][start[i] : start[i] + length[i]]``."""

    chunks: list[NDArray[Any]]  # per record batch [steps of all its clips, d_m]
    chunk: NDArray[np.int64]  # [clips]
    start: NDArray[np.int64]  # [clips]
    length: NDArray[np.int64]  # [clips]


def corpus_schema(card: Card, dtype: str) -> pa.Schema:
    """Return the columns of a corpus with this card.

    Raises:
        DatasetError: If ``dtype`` is neither ``float32`` nor ``float16``.
    """
    if dtype not in _FLOATS:
        raise DatasetError(f'dtype must be "float32" or "float16", got {dtype!r}')
    present = [m for m in MODALITIES if m in card.dims]
    fields = [
        ("id", pa.string()),
        ("split", pa.dictionary(pa.int8(), pa.string())),
        ("label", _LABELS[card.task.kind]),
        *((f"label_{m}", pa.float64()) for m in MODALITIES),
        ("video_id", pa.string()),
        ("clip_id", pa.string()),
        ("text", pa.string()),
        ("words", pa.list_(_WORD)),
        ("speaker", pa.string()),
        *((f"features_{m}", pa.list_(pa.list_(_FLOATS[dtype], card.dims[m]))) for m in present),
    ]
    if "planted" in card.recipe:
        fields += [("planted", pa.map_(pa.string(), pa.float64()))]
        fields += [(f"role_{m}", pa.list_(pa.int8())) for m in present]
    return pa.schema(fields)


def record_batch(schema: pa.Schema, clips: list[Clip]) -> pa.RecordBatch:
    """Turn clips into one record batch."""
    return pa.RecordBatch.from_arrays([_column(field, clips) for field in schema], schema=schema)


def _column(field: pa.Field, clips: list[Clip]) -> pa.Array:
    name, _, modality = field.name.partition("_")
    if name == "features":
        return _ragged_array([clip.features.get(modality) for clip in clips], field.type)
    if name == "role":
        roles = [clip.planted.roles.get(modality) if clip.planted else None for clip in clips]
        return _ragged_array(roles, field.type)
    if name == "label" and modality:
        scores = [(clip.modality_labels or {}).get(modality) for clip in clips]
        return pa.array(scores, field.type)
    if name == "planted":
        parts = [list(c.planted.scores.items()) if c.planted else None for c in clips]
        return pa.array(parts, field.type)
    if name == "words":
        words = [None if c.words is None else [w.model_dump() for w in c.words] for c in clips]
        return pa.array(words, field.type)
    if name == "split":
        # All batches share one dictionary: an Arrow file cannot hold a second one.
        numbers = pa.array([SPLITS.index(clip.split) for clip in clips], pa.int8())
        return pa.DictionaryArray.from_arrays(numbers, pa.array(SPLITS))
    return pa.array([getattr(clip, field.name) for clip in clips], field.type)


def _ragged_array(sequences: list[NDArray[Any] | None], kind: pa.ListType) -> pa.Array:
    """Pack sequences ``[n]`` or ``[n, d]`` into one list array; None becomes null."""
    step = kind.value_type
    is_vector = pa.types.is_fixed_size_list(step)
    scalar = step.value_type if is_vector else step
    dtype = scalar.to_pandas_dtype()
    present = [np.asarray(s).reshape(-1) for s in sequences if s is not None]
    # The empty array at the end lets a batch in which all clips lack the modality be joined.
    flat = np.concatenate([*present, np.zeros(0, dtype=dtype)], dtype=dtype, casting="unsafe")
    values = pa.array(flat, type=scalar)
    if is_vector:
        values = pa.FixedSizeListArray.from_arrays(values, type=step)
    lengths = [0 if s is None else len(s) for s in sequences]
    offsets = pa.array(np.cumsum([0, *lengths]).astype(np.int32))
    missing = pa.array([s is None for s in sequences])
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=missing)


def view_ragged(column: pa.ChunkedArray) -> RaggedColumn:
    """View a column of sequences ``[n]`` or ``[n, d]`` as numpy arrays, without a copy."""
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    offsets = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks]
    empty = np.zeros(0, dtype=np.int64)
    return RaggedColumn(
        [_view_steps(chunk.values) for chunk in chunks],
        np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks]),
        np.concatenate([empty, *(bounds[:-1] for bounds in offsets)]),
        np.concatenate([empty, *(np.diff(bounds) for bounds in offsets)]),
    )


def _view_steps(steps: pa.Array) -> NDArray[Any]:
    is_vector = pa.types.is_fixed_size_list(steps.type)
    numbers = np.asarray((steps.values if is_vector else steps).to_numpy(zero_copy_only=True))
    return numbers.reshape(-1, steps.type.list_size) if is_vector else numbers
