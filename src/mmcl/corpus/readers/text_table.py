"""Tables of text, csv and tsv: separator and decimal sign are found by looking."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.errors import DatasetError
from mmcl.text_files import decode_text

__all__ = ["read_text_table"]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
UNKNOWN = frozenset(("", "na", "n/a", "nan", "null", "none"))  # cells without a number
_POINT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf", re.IGNORECASE)
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")

Column = list[str] | NDArray[np.float64]


def read_text_table(path: Path, texts: Collection[str], notes: list[str]) -> dict[str, Column]:
    """Read a csv or tsv file; columns of numbers become arrays, with NaN where a cell is empty.

    Args:
        path: The file.
        texts: Columns that stay text, also where every cell looks like a number.
        notes: Takes what a user should know: a separator or decimal sign that is not the usual.

    Raises:
        DatasetError: If the text cannot be decoded, a row does not fit the header, a name is
            there twice, or numbers with commas could be read in two ways.
    """
    text = decode_text(path.read_bytes(), path.name, DatasetError).lstrip("\ufeff")
    separator, has_hint = _separator(text)
    # Excel may write a first line "sep=;", which is no header.
    lines = io.StringIO(text.partition("\n")[2] if has_hint else text, newline="")
    try:
        rows = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error as error:
        raise DatasetError(
            f"{path}: not a readable table ({error}).\n"
            f'  Expected every quoted cell to be closed by ".\n  {LAYOUTS}'
        ) from None
    blank = next((i for i, row in enumerate(rows) if any(map(str.strip, row))), len(rows))
    rows = rows[blank:]
    header = [name.strip() for name in rows[0]] if rows else []
    _check_rows(path, header, rows[1:], first=blank + 2)
    cells = [[cell.strip() for cell in row] for row in rows[1:] if any(map(str.strip, row))]
    columns = {
        name or f"(column {index + 1})": [row[index] for row in cells]
        for index, name in enumerate(header)
    }
    numeric = {
        name: values for name, values in columns.items() if not {name, name.lower()} & set(texts)
    }
    comma = _decimal_comma(path, numeric)
    if separator != ",":
        notes.append(f"{path.name}: cells are separated by {SEPARATORS[separator]}")
    if comma:
        notes.append(f"{path.name}: decimal commas; {comma} is read as {comma.replace(',', '.')}")
    return columns | {name: _numbers(values, bool(comma)) for name, values in numeric.items()}


def _separator(text: str) -> tuple[str, bool]:
    """Return the separator that divides the header most often, and whether a line names it."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lower().startswith("sep=") and first[4:] in SEPARATORS:
        return first[4:], True
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(SEPARATORS, key=unquoted.count), False


def _check_rows(path: Path, header: list[str], rows: Sequence[list[str]], *, first: int) -> None:
    """Refuse repeated columns, and rows that do not fit; ``first`` is the number of the first."""
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DatasetError(
            f'{path}: the column "{repeated[0]}" is there twice.\n'
            f"  Expected every name once.\n  {LAYOUTS}"
        )
    for number, row in enumerate(rows, start=first):
        if len(row) != len(header) and any(map(str.strip, row)):
            raise DatasetError(
                f"{path}, row {number}: {len(row)} cells, but the header has {len(header)}; it "
                f"begins {row[0][:40]!r}.\n"
                '  Expected as many cells in every row. A cell that holds the separator needs "" '
                f"around it.\n  {LAYOUTS}"
            )
    if not any(any(map(str.strip, row)) for row in rows):
        raise DatasetError(
            f"{path}: a header and no rows.\n  Expected a row per clip.\n  {LAYOUTS}"
        )


def _decimal_comma(path: Path, columns: dict[str, list[str]]) -> str | None:
    """Return a number with a decimal comma if the table writes them so, else None.

    Raises:
        DatasetError: If commas could also stand between thousands.
    """
    example, doubtful = None, None
    for name, values in columns.items():
        known = [value for value in values if value.lower() not in UNKNOWN]
        commas = [value for value in known if _COMMA.fullmatch(value)]
        if not commas or any(not _is_number(value) for value in known):
            continue
        if any("." in value for value in known):
            raise DatasetError(
                f'{path}, column "{name}": numbers with commas ({commas[0]}) and with points.\n'
                f"  Expected one decimal sign. Write points everywhere.\n  {LAYOUTS}"
            )
        certain = [value for value in commas if not _THOUSANDS.fullmatch(value)]
        example = example or next(iter(certain), None)
        doubtful = doubtful or (name, commas[0])
    if doubtful and not example:
        raise DatasetError(
            f'{path}, column "{doubtful[0]}": {doubtful[1]} could be '
            f"{doubtful[1].replace(',', '.')} or {doubtful[1].replace(',', '')}.\n"
            f"  Expected points for decimals. Write it in one of these ways.\n  {LAYOUTS}"
        )
    return example


def _is_number(value: str) -> bool:
    return bool(_POINT.fullmatch(value) or _COMMA.fullmatch(value))


def _numbers(values: list[str], comma: bool) -> Column:
    """Return an array if every known cell of a column is a number, else the cells."""
    known = [value for value in values if value.lower() not in UNKNOWN]
    if not known or not all(_is_number(value) for value in known):
        return values
    if not comma and any("," in value for value in known):
        return values
    if len(known) == len(values) and all(_WHOLE.fullmatch(value) for value in values):
        return np.array([int(value) for value in values])
    plain = [value.replace(",", ".") if comma else value for value in values]
    return np.array([float(v) if v.lower() not in UNKNOWN else np.nan for v in plain])
