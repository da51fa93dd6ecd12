"""Checks of a corpus file before it is used: damage that Arrow itself does not look for.

Arrow believes the offsets and lengths of a file, so that reading a damaged one may end the
process. Batch by batch, so that a file may be larger than memory.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcl.corpus.arrow_columns import corpus_schema
from mmcl.corpus.arrow_sizes import unpacked_bytes
from mmcl.corpus.memory_mapped import MappedFile
from mmcl.corpus.schema import Card
from mmcl.limits import Budget
from mmcl.types import MODALITIES, SPLITS

__all__ = ["DamagedError", "check_batches", "check_columns"]

# Columns without which a clip has no place.
_NEVER_NULL = ("id", "split")
# Columns that files of earlier versions do not have.
_ADDED_LATER = ("speaker",)
_FLOATS = {pa.float32(): "float32", pa.float16(): "float16"}


class DamagedError(ValueError):
    """A corpus file is damaged; the text says where, a phrase."""


def check_columns(schema: pa.Schema, card: Card) -> None:
    """Compare the columns of a file with those that its card describes.

    Raises:
        DamagedError: If one is missing, of another type, there twice or not known.
    """
    types: dict[str, pa.DataType] = dict(zip(schema.names, schema.types, strict=True))
    if len(types) < len(schema.names):
        raise DamagedError("a column is there twice")
    first = next((types[f"features_{m}"] for m in MODALITIES if f"features_{m}" in types), None)
    expected = corpus_schema(card, _FLOATS.get(_number_type(first), "float32"))
    missing = set(expected.names) - types.keys() - set(_ADDED_LATER)
    unknown = types.keys() - set(expected.names)
    if missing or unknown:
        name = min(missing or unknown)
        raise DamagedError(f"the column {name!r} is {'missing' if missing else 'not in its card'}")
    for field in expected:
        if field.name in types and not types[field.name].equals(field.type):
            raise DamagedError(
                f"the column {field.name!r} holds {types[field.name]}, its card says {field.type}"
            )


def _number_type(features: pa.DataType | None) -> pa.DataType | None:
    """Return the type of the numbers in a column of features."""
    if features is None or not pa.types.is_list(features):
        return None
    step = features.value_type
    return step.value_type if pa.types.is_fixed_size_list(step) else None


def check_batches(reader: pa.RecordBatchFileReader, card: Card, mapped: MappedFile) -> None:
    """Check every batch of a file whose columns fit the card.

    Raises:
        DamagedError: If a place is beyond its column, a text is no UTF-8, a clip has no id or
            split, features have gaps, or a label has another number of emotions than the card.
        DatasetError: If it is compressed, and unpacks to more than the limits allow.
    """
    Budget(mapped.path).check(num_bytes=unpacked_bytes(mapped.buffer))
    if any(count < 0 for count in card.counts.values()):
        raise DamagedError("its card counts less than no clips")
    latest_split = 0
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except (pa.ArrowException, ValueError) as error:
                raise DamagedError(f"column {name!r}: {_first_line(error)}") from None
            _check_content(name, column, card)
            if name == "split":
                latest_split = _check_order(column, latest_split)
        # Of features only the lengths were read, not the numbers.
        names = [name for name in batch.schema.names if not name.startswith("features_")]
        mapped.count(batch.select(names).nbytes, places=batch.num_columns)


def _check_content(name: str, column: pa.Array, card: Card) -> None:
    """Check what Arrow's own types cannot say."""
    if name in _NEVER_NULL and column.null_count:
        raise DamagedError(f"column {name!r}: a clip has none")
    if name.startswith(("features_", "role_")):
        steps = column.values
        inner = steps.values if pa.types.is_fixed_size_list(steps.type) else steps
        if steps.null_count or inner.null_count:
            raise DamagedError(f"column {name!r}: a step or value is missing")
    elif name == "label" and card.task.kind == "emotions":
        counts = set(pc.unique(pc.list_value_length(column)).to_pylist()) - {None}
        if counts - {len(card.task.names)} or column.values.null_count:
            raise DamagedError(f"column 'label': not {len(card.task.names)} judgements in a label")
    elif name == "words" and column.values.field("text").null_count:
        raise DamagedError("column 'words': a word without text")
    elif name == "planted" and (column.keys.null_count or column.items.null_count):
        raise DamagedError("column 'planted': a part without a number")


def _check_order(column: pa.DictionaryArray, latest: int) -> int:
    """Check that the splits come in their order; return the number of the last one."""
    names = column.dictionary.to_pylist()
    if not set(names) <= set(SPLITS):
        raise DamagedError("column 'split': a split that is not train, valid or test")
    numbers = np.array([SPLITS.index(name) for name in names], dtype=np.int64)
    splits = np.concatenate([[latest], numbers[column.indices.to_numpy(zero_copy_only=False)]])
    if (np.diff(splits) < 0).any():
        raise DamagedError("column 'split': the clips are not in the order train, valid, test")
    return int(splits[-1])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
