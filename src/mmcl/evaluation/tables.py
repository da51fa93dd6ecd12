"""Tables and texts as files, complete or not at all: csv, jsonl or parquet by their ending."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from mmcl.errors import DatasetError
from mmcl.learning.checkpoints import replace_atomically

__all__ = ["write_table", "write_text"]


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table; lists become words separated by spaces in csv.

    Args:
        table: Any table of numbers, text and lists of them.
        path: Its ending says how: ``.csv``, ``.jsonl`` or ``.parquet``.

    Raises:
        DatasetError: If the file cannot be written.
    """
    with _whole(path) as unfinished:
        if path.suffix == ".parquet":
            parquet.write_table(table, unfinished)
        elif path.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
            unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            csv.write_csv(_without_lists(table), unfinished)


def write_text(text: str, path: Path) -> None:
    """Write a text file.

    Raises:
        DatasetError: If it cannot be written.
    """
    with _whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when it is complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        replace_atomically(unfinished, path)
    except OSError as fault:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise DatasetError(f"{path}: cannot be written ({fault.strerror or fault}).") from None


def _without_lists(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            words = [
                None if value is None else " ".join(map(str, value))
                for value in table.column(at).to_pylist()
            ]
            table = table.set_column(at, field.name, pa.array(words, pa.string()))
    return table
