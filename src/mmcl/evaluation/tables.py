"""Results as files, complete or absent: tables as csv, jsonl or parquet, and plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from mmcl.errors import DatasetError
from mmcl.files import complete_file, csv_cell

__all__ = ["write_result", "write_table"]


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of numbers, text and lists.

    In csv a list becomes words with spaces, and a text that a spreadsheet would run as a formula
    gets an apostrophe in front.

    Args:
        table: The table.
        path: Its ending gives the format: ``.csv``, ``.jsonl`` or ``.parquet``.

    Raises:
        DatasetError: If the file cannot be written.
    """
    with _complete_result(path) as unfinished:
        if path.suffix == ".parquet":
            parquet.write_table(table, unfinished)
        elif path.suffix == ".jsonl":
            rows = _known(table.to_pylist())
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
            unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            csv.write_csv(_as_csv(_without_nan(table)), unfinished)


def write_result(path: Path, text: str) -> None:
    """Write a text file; raise DatasetError if it cannot be written."""
    with _complete_result(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def _complete_result(path: Path) -> Iterator[Path]:
    try:
        with complete_file(path) as unfinished:
            yield unfinished
    except OSError as fault:
        raise DatasetError(f"{path}: cannot be written ({fault.strerror or fault}).") from None


def _known(value: Any) -> Any:
    """Return rows with None in place of what is no finite number, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_nan(table: pa.Table) -> pa.Table:
    """Leave cells empty that hold no finite number."""
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(index)
            known = pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type))
            table = table.set_column(index, field.name, known)
    return table


def _as_csv(table: pa.Table) -> pa.Table:
    """Return a table without lists and formulas."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_string(field.type):
            values = _known(table.column(index).to_pylist())
            texts = [" ".join(map(str, v)) if isinstance(v, list) else v for v in values]
            cells = [None if text is None else csv_cell(text) for text in texts]
            table = table.set_column(index, field.name, pa.array(cells, pa.string()))
    return table
