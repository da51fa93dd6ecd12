"""Parquet files, and Arrow files of other makers, read batch by batch and counted on the way.

Both can be compressed, and a few bytes can stand for many equal rows: a small file unpacks to more
than the memory holds. So what it declares is looked at first, and what comes is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet

from mmcl.corpus.arrow_sizes import unpacked_bytes
from mmcl.corpus.readers.parquet_sizes import BYTES_OF_VALUE, unpacked_columns
from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.corpus.store import CARD_KEY
from mmcl.errors import DatasetError
from mmcl.limits import Budget

__all__ = ["KIND_NAMES", "is_foreign_arrow", "is_list", "is_number", "read_arrow"]

KIND_NAMES = {"parquet": "a Parquet table", "arrow": "an Arrow table (not written by mmcl)"}
"""Kinds of files, as messages name them."""
_STREAM = b"\xff\xff\xff\xff"
_FEATHER_1 = b"FEA1"
MOST_ROWS = 1024  # of a batch of a Parquet file


def is_foreign_arrow(path: Path) -> bool:
    """Tell whether a file is a readable Arrow file that was not written by mmcl."""
    try:
        with pa.memory_map(str(path)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata or {}
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return False
    return CARD_KEY not in metadata


def is_list(kind: pa.DataType) -> bool:
    """Tell whether the cells of a column are lists of one type."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def is_number(kind: pa.DataType) -> bool:
    """Tell whether the cells of a column are numbers, or yes and no."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def read_arrow(path: Path, kind: Literal["parquet", "arrow"]) -> pa.Table:
    """Read a table whole.

    Raises:
        DatasetError: If it is damaged, unpacks to more than the limits allow, or has a column
            twice or of a type that is not read.
    """
    budget = Budget(path)
    try:
        schema, batches = _parquet(path, budget) if kind == "parquet" else _arrow(path, budget)
        _check_columns(path, schema)
        return pa.Table.from_batches(list(_counted(batches, budget)), schema)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path}: {KIND_NAMES[kind]} that is cut short or damaged ({reason}).\n"
            f"  Expected a whole file. Fetch or copy it again.\n  {LAYOUTS}"
        ) from None


def _arrow(path: Path, budget: Budget) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    with path.open("rb") as file:
        start = file.read(4)
    if start == _FEATHER_1:  # never compressed
        table = pa.feather.read_table(path)
        return table.schema, iter(table.to_batches())
    content = pa.memory_map(str(path)).read_buffer()
    budget.check(num_bytes=unpacked_bytes(content))
    if start == _STREAM:
        stream = pa.ipc.open_stream(content)
        return stream.schema, iter(stream)
    file = pa.ipc.open_file(content)
    return file.schema, (file.get_batch(index) for index in range(file.num_record_batches))


def _parquet(path: Path, budget: Budget) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    with path.open("rb") as opened:
        sizes = unpacked_columns(opened)
    budget.check(num_bytes=sum(sizes))
    file = pa.parquet.ParquetFile(path)
    # One stored text may stand in every row. No text is longer than its part of a column, so a
    # batch of so many rows is within the limit.
    rows = budget.most_bytes // max([1, *sizes])
    return file.schema_arrow, file.iter_batches(min(MOST_ROWS, max(1, rows)))


def _check_columns(path: Path, schema: pa.Schema) -> None:
    """Refuse a column that is there twice, or of a type whose size cannot be told."""
    repeated = {name for name in schema.names if schema.names.count(name) > 1}
    if repeated:
        raise DatasetError(
            f'{path}: the column "{min(repeated)}" is there twice.\n'
            f"  Expected every name once.\n  {LAYOUTS}"
        )
    for field in schema:
        if _is_unread(field.type):
            raise DatasetError(
                f'{path}: the column "{field.name}" is of type {field.type}, which is not read.\n'
                f"  Expected numbers, text, or lists of them. Write it in one of these types, or "
                f"leave it out of the file.\n  {LAYOUTS}"
            )


def _is_unread(kind: pa.DataType) -> bool:
    """Tell whether cells of a type can share lists, so that their size cannot be told."""
    if pa.types.is_dictionary(kind):
        return bool(kind.value_type.num_fields) or _is_view(kind.value_type)
    tests = (
        pa.types.is_run_end_encoded,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
        pa.types.is_union,
    )
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return any(test(kind) for test in tests) or any(map(_is_unread, inner))


def _is_view(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string_view, pa.types.is_binary_view))


def _counted(batches: Iterator[pa.RecordBatch], budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield batches that are valid and do not exceed the limits together."""
    num_bytes = num_objects = 0
    for batch in batches:
        # pyarrow trusts the places that a file states until they are validated.
        batch.validate(full=True)
        num_bytes += batch.nbytes
        num_objects += batch.num_rows
        for column in batch.columns:
            objects, shared_bytes = _written_out(column)
            num_objects, num_bytes = num_objects + objects, num_bytes + shared_bytes
        budget.check(num_bytes=num_bytes, num_objects=num_objects)
        yield batch


def _written_out(column: pa.Array) -> tuple[int, int]:
    """Return the objects of a column, and the bytes of texts that its cells share.

    Numbers are no objects, since they stay arrays.
    """
    kind = column.type
    if is_number(kind):
        return 0, 0
    num_objects, num_bytes = len(column), 0
    if pa.types.is_dictionary(kind) or _is_view(kind):
        num_bytes = _bytes_of_texts(column)
    for child in _children(column):
        objects, shared_bytes = _written_out(child)
        num_objects, num_bytes = num_objects + objects, num_bytes + shared_bytes
    return num_objects, num_bytes


def _children(column: pa.Array) -> list[pa.Array]:
    kind = column.type
    if is_list(kind):
        return [column.flatten()]
    if pa.types.is_map(kind):
        return [column.keys, column.items]
    return list(column.flatten()) if pa.types.is_struct(kind) else []


def _bytes_of_texts(column: pa.Array) -> int:
    """Return the bytes of the texts of all cells, each counted as often as it is there."""
    if _is_view(column.type):
        # 16 bytes for each text, of which the first four are its length.
        views = np.frombuffer(column.buffers()[1], "<i4").reshape(-1, 4)
        return int(views[column.offset : column.offset + len(column), 0].sum(dtype=np.int64))
    if pa.types.is_primitive(column.dictionary.type):
        return BYTES_OF_VALUE * len(column)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return pc.sum(lengths).as_py() or 0
