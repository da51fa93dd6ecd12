"""Read ``label.csv`` as a table: its encoding, its separator, its columns and its rows.

Nothing is shifted or cut: a row with another number of cells than the header is at fault.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from mmcl.corpus.readers.source_file import SPLIT_NAMES
from mmcl.errors import MediaError, did_you_mean
from mmcl.limits import check_regular
from mmcl.text_files import read_text_file

__all__ = ["LABELS", "OPTIONAL", "REQUIRED", "LabelTable", "Row", "read_label_table"]

LABELS = "label.csv"
"""Name of the table of a folder of clips."""
REQUIRED = ("video_id", "clip_id", "text", "label")
"""Columns that the table must have."""
OPTIONAL = ("label_T", "label_A", "label_V", "mode", "annotation", "speaker")
"""Columns that the table may have."""
MODE_NAMES = ("split", "subset", "partition", "set", "fold")
"""Other names of the column ``mode``; believed only if every cell is the name of a split."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAVE = "Open it in its program and save it as CSV UTF-8."
_OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel workbook or another zip file", _SAVE),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (xls)", _SAVE),
    (b"<", "a web page or another file of HTML or XML", "Download the table itself, as CSV."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the table: git lfs pull"),
    (b"[", "a list in JSON", "Save it as CSV UTF-8."),
    (b"{", "JSON", "Save it as CSV UTF-8."),
    (b"PAR1", "a parquet file", _SAVE),
    (b"\x1f\x8b", "compressed by gzip", "Unpack it with gunzip."),
)
FIRST = 6  # lines in which the names of the columns are looked for
_SHOWN = 80  # letters of a line in a message
_WHOLE = re.compile(r"[+-]?\d+")


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        place: Where it is, as ``label.csv, row 3``.
        cells: Its cells by column, without spaces around them; ``""`` where it has none.
        fault: Why it cannot be read, None if it can.
    """

    place: str
    cells: dict[str, str]
    fault: str | None = None


class LabelTable(NamedTuple):
    """A table with every required column and at least one row.

    Attributes:
        columns: Their names: ours where they are known, else as they were found.
        rows: All rows that are not empty.
        empty_rows: Places of the rows that have only empty cells.
        notes: What was guessed.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    empty_rows: tuple[str, ...]
    notes: tuple[str, ...]


class _Record(NamedTuple):
    number: int  # the row in a spreadsheet
    line: int  # its first line in the file
    cells: list[str]
    text: str


def read_label_table(path: Path) -> LabelTable:
    """Read the table.

    Commas, semicolons, tabs or vertical bars may stand between cells: the one with which the
    header has the most required columns. Names of columns may differ in case and in spaces.

    Raises:
        MediaError: If the file is no table, its encoding is not certain, a quote is not
            closed, a required column is missing, or a column is there twice.
    """
    _check_kind(path)
    text = read_text_file(path, MediaError)
    separator = _separator(text)
    records = [record for record in _records(text, separator) if _is_data(record)]
    filled = [record for record in records if any(record.cells)]
    _check_header_is_first(filled)
    header, *rows = filled or [_Record(1, 1, [], "")]
    columns = _column_names(header.cells, separator)
    if not rows:
        raise MediaError(f'"{LABELS}" has no rows.\n  Expected one per clip.')
    columns, notes = _with_mode(columns, rows)
    return LabelTable(
        tuple(columns),
        tuple(_rows(columns, rows, separator)),
        tuple(f"row {record.number}" for record in records if not any(record.cells)),
        tuple(notes),
    )


def _check_kind(path: Path) -> None:
    check_regular(path, MediaError)
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as fault:
        raise MediaError(f'"{path.name}" cannot be read: {fault.strerror}.') from None
    for magic, kind, advice in _OTHER_KINDS:
        if start.startswith(magic):
            raise MediaError(
                f'"{path.name}" is no table of text, but {kind}, whatever its name says.\n'
                f"  Expected a header and a row per clip, with commas between cells. {advice}"
            )


def _separator(text: str) -> str:
    """Return the separator with which one of the first lines has the most known columns."""
    lines = [line for line in text.split("\n") if line.strip()]
    # Excel reads and writes a first line such as "sep=;".
    if lines and re.fullmatch(r"sep=.", lines[0].strip("\n")) and lines[0][4] in _SEPARATORS:
        return lines[0][4]

    def known_columns(separator: str) -> tuple[int, int]:
        rows = csv.reader(lines[:FIRST], delimiter=separator)
        counts = ((sum(_known_name(cell) in REQUIRED for cell in row), len(row)) for row in rows)
        return max(counts, default=(0, 0))

    return max(_SEPARATORS, key=known_columns)


def _check_header_is_first(filled: Sequence[_Record]) -> None:
    """Raise a MediaError if the columns are named below a title or a comment."""
    for record in filled[1:FIRST]:
        if {_known_name(cell) for cell in record.cells}.issuperset(REQUIRED):
            raise MediaError(
                f'"{LABELS}": its columns are named in row {record.number}, below '
                f"{_shortened(filled[0].text)}.\n"
                "  Expected them in the first row. Take the rows above away."
            )


def _records(text: str, separator: str) -> Iterator[_Record]:
    lines = text.split("\n")
    reader = csv.reader(
        StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    number, end = 0, 0
    try:
        for number, cells in enumerate(reader, start=1):
            source = " ".join(lines[end : reader.line_num])
            yield _Record(number, end + 1, [cell.strip() for cell in cells], source)
            end = reader.line_num
    except csv.Error as fault:
        raise MediaError(
            f'"{LABELS}", row {number + 1} (line {end + 1}): its quotes (") do not fit: {fault}.\n'
            f"  Found: {_shortened(lines[end])}\n"
            '  A text in quotes must end with a quote. Write a quote inside it twice: "".'
        ) from None


def _is_data(record: _Record) -> bool:
    is_separator_line = record.number == 1 and record.text[:4] == "sep="
    return bool(record.cells) and not is_separator_line


def _known_name(name: str) -> str:
    """Return our name of a column, whatever its case, spaces and hyphens; else its own name."""
    plain = re.sub(r"[\s-]+", "_", name.strip()).lower()
    return {known.lower(): known for known in (*REQUIRED, *OPTIONAL)}.get(plain, name.strip())


def _column_names(header: Sequence[str], separator: str) -> list[str]:
    columns = [_known_name(name) for name in header]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise MediaError(_missing_text(missing, columns, separator))
    for name in columns:
        if name and columns.count(name) > 1:
            places = [str(place) for place, other in enumerate(columns, 1) if other == name]
            raise MediaError(
                f'"{LABELS}" has the column "{name}" {len(places)} times: columns '
                f"{', '.join(places)}.\n"
                "  It is not known which one is meant. Take the others away, or rename them."
            )
    return columns


def _missing_text(missing: Sequence[str], columns: Sequence[str], separator: str) -> str:
    others = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    lines = []
    for name in missing:
        near = did_you_mean(name, others)
        lines.append(f"  {name}: not there{near}{' Then rename it.' if near else ''}\n")
    found = ", ".join(columns) or "nothing"
    if len(columns) > 1:
        found += f", with {_SEPARATORS[separator]} between them"
    elif any(separator in found for separator in _SEPARATORS):
        found += " (the whole header is in quotes: take them away)"
    return (
        f'"{LABELS}" lacks {len(missing)} column{"s" * (len(missing) > 1)}.\n'
        f"{''.join(lines)}"
        f"  Found: {found}. "
        f"Expected: {', '.join(REQUIRED)}; with them, if wanted: {', '.join(OPTIONAL)}."
    )


def _with_mode(columns: list[str], records: Sequence[_Record]) -> tuple[list[str], list[str]]:
    """Return the columns with another name of ``mode`` replaced, and a note if one was."""
    if "mode" in columns:
        return columns, []
    for place, name in enumerate(columns):
        cells = {record.cells[place].lower() for record in records if place < len(record.cells)}
        if name.lower() in MODE_NAMES and cells <= SPLIT_NAMES.keys():
            note = (
                f'{LABELS} has no column "mode": the splits are those of its column "{name}" '
                "(if that is wrong, rename it)"
            )
            return [*columns[:place], "mode", *columns[place + 1 :]], [note]
    return columns, []


# ---------------------------------------------------------------- rows


def _rows(columns: Sequence[str], records: Sequence[_Record], separator: str) -> Iterator[Row]:
    surplus = _empty_surplus(len(columns), records)
    video_column = columns.index("video_id")
    videos = {r.cells[video_column] for r in records if len(r.cells) == len(columns) + surplus}
    starts = tuple(f"{video}{separator}" for video in videos if video)
    for record in records:
        cells = record.cells[: len(record.cells) - surplus]
        place = f"{LABELS}, row {record.number}"
        if record.line != record.number:
            place += f" (line {record.line})"
        fault = _width_fault(columns, record._replace(cells=cells), separator)
        fault = fault or _swallowed_rows(cells, starts)
        # The cells of a row at fault may belong to other columns: they only name it.
        by_column = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        yield Row(place, by_column, fault)


def _empty_surplus(width: int, records: Sequence[_Record]) -> int:
    """Return how many empty cells end every row beyond the header, where all have them."""
    widths = {len(record.cells) for record in records}
    if len(widths) == 1 and not any(any(record.cells[width:]) for record in records):
        return max(widths.pop() - width, 0)
    return 0


def _width_fault(columns: Sequence[str], record: _Record, separator: str) -> str | None:
    count, width = len(record.cells), len(columns)
    if count == width:
        return None
    found = f"{count} cell{'s' * (count != 1)} where the header has {width} columns"
    cause = _cause_of_width(columns, record, separator)
    return f"{found} ({cause}): {_shortened(record.text)}"


def _cause_of_width(columns: Sequence[str], record: _Record, separator: str) -> str:
    cells, name = record.cells, _SEPARATORS[separator][:-1]
    if len(cells) == 1 and separator in cells[0]:
        return "the whole row is in quotes: take them away"
    for other in _SEPARATORS:
        if len(cells) < len(columns) == record.text.count(other) + 1:
            return f"its cells have {_SEPARATORS[other]} between them, the header {name}s"
    if len(cells) < len(columns):
        missing = ", ".join(columns[len(cells) :])
        return f"nothing for {missing}: an empty cell needs its {name}, too"
    place = columns.index("label")
    if separator == "," and all(_WHOLE.fullmatch(cell) for cell in cells[place : place + 2]):
        if any(column.startswith("label_") for column in columns):
            return 'decimal commas? Write scores as 1.5, or as "1,5" in quotes'
        first, second = cells[place : place + 2]
        return f'a decimal comma? Write {first}.{second}, or "{first},{second}" in quotes'
    return f"a {name} inside a text? Put such a text in quotes"


def _swallowed_rows(cells: Sequence[str], starts: tuple[str, ...]) -> str | None:
    """Return a fault if a cell holds a line that begins as another row does."""
    for cell in cells:
        for line in cell.split("\n")[1:]:
            if starts and line.startswith(starts):
                return (
                    'a quote (") is not closed, so that a cell goes on over the next row: '
                    f"{_shortened(line)}"
                )
    return None


def _shortened(text: str) -> str:
    return f'"{text}"' if len(text) <= _SHOWN else f'"{text[:_SHOWN]}..."'
