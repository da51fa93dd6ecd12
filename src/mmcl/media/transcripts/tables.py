"""Read transcripts that are tables or plain lines: csv, tsv and txt."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from mmcl.errors import MediaError
from mmcl.media.transcripts.speakers import looks_like_a_name
from mmcl.media.transcripts.subtitles import CLOCK, seconds
from mmcl.media.utterances import Utterance, from_milliseconds

__all__ = ["find_separator", "read_lines", "read_table"]

SEPARATORS = (";", "\t", ",")

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_CLOCK = re.compile(CLOCK)
_HEADER = {  # names of columns, as letters only
    **dict.fromkeys(("start", "starttime", "begin", "from", "onset", "startms"), "start"),
    **dict.fromkeys(("tmin", "begintime", "starts"), "start"),
    **dict.fromkeys(("end", "endtime", "stop", "to", "offset", "endms"), "end"),
    **dict.fromkeys(("tmax", "ends"), "end"),
    **dict.fromkeys(("text", "transcription", "transcript", "sentence", "utterance"), "text"),
    **dict.fromkeys(("speaker", "name", "speakername"), "speaker"),
}
# A time before what is said, as "[00:03] text", and a line of a name and a time, or of a time.
_TIME_FIRST = re.compile(rf"\s*(?:[\[(]{CLOCK}[\])]\s*[-–:]?\s*|{CLOCK}(?:\s*[-–:]?\s+|$))")
_TIME_ALONE = re.compile(rf"\s*[\[(]?{CLOCK}[\])]?\s*$")
# What YouTube's page has for screen readers, below the time of a line: "1 minute, 2 seconds".
_TIME_IN_WORDS = re.compile(r"\s*\d+ (?:hour|minute|second)s?(?:, \d+ (?:minute|second)s?)*\s*$")
_HEADING = re.compile(
    rf"\s*\[?(?P<name>[^\[\]():\d]{{1,40}}?(?: \d+)?)\]?:?\s+[\[(]?{CLOCK}[\])]?:?\s*$"
)


class _Row(NamedTuple):
    number: int  # of the line
    line: str
    cells: list[str]


def find_separator(text: str) -> str | None:
    """Return what separates the start, the end and the text of every line, if it is a table."""
    for separator in SEPARATORS:
        rows, columns = _rows(text, separator)
        if columns:
            return separator
        timed = [_times(row.cells) is not None and len(row.cells) > 2 for row in rows]
        # A comma may be part of plain text, so all lines must be rows of the table.
        if timed and (all(timed) if separator == "," else timed[0]):
            return separator
    return None


def read_table(name: str, text: str, separator: str) -> tuple[list[Utterance], list[str]]:
    """Read lines of start, end and text, perhaps after a line that names the columns.

    Args:
        name: Name of the file, for messages.
        text: Content of the file.
        separator: What stands between the cells.

    Raises:
        MediaError: If a line has no start and end, or has other cells than the first line.
    """
    rows, columns = _rows(text, separator)
    columns = columns or ["start", "end", "text", "label"]
    fewest = columns.index("text") + 1  # the last cells may be left out
    utterances = []
    for row in rows:
        times = _times(row.cells)
        if times is None or not fewest <= len(row.cells) <= len(columns):
            shapes = [separator.join(columns[:count]) for count in (fewest, len(columns))]
            shape = " or ".join(dict.fromkeys(shapes)).replace("\t", "<tab>")
            raise MediaError(
                f'"{name}", line {row.number}: expected {shape} with times in seconds, '
                f'got "{row.line}".'
            )
        cells = dict(zip(columns, row.cells, strict=False))
        speaker = " ".join(cells.get("speaker", "").split()) or None
        utterances.append(Utterance(*times, cells["text"], speaker=speaker))
    notes = []
    if any("," in cell and ":" not in cell for row in rows for cell in row.cells[:2]):
        notes.append("commas in its times were read as decimal points")
    if all(cell.strip().isdigit() for row in rows for cell in row.cells[:2]):
        utterances, unit_notes = from_milliseconds(utterances)
        notes += unit_notes
    return utterances, notes


def _rows(text: str, separator: str) -> tuple[list[_Row], list[str]]:
    """Return the rows below the header, and the columns by their usual names if it has these."""
    rows = [
        _Row(number, line, next(csv.reader([line], delimiter=separator)))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not rows or _times(rows[0].cells) is not None:
        return rows, []
    titles = ["".join(filter(str.isalpha, cell.lower())) for cell in rows[0].cells]
    columns = [_HEADER.get(title, title) for title in titles]
    if {"start", "end", "text"} <= set(columns) and len(set(columns)) == len(columns):
        return _times_first(rows[1:], columns)
    # A first line with # names the columns.
    return (rows[1:] if rows[0].line.lstrip(' "').startswith("#") else rows), []


def _times_first(rows: list[_Row], columns: list[str]) -> tuple[list[_Row], list[str]]:
    """Return rows and columns with the start and the end in front."""
    order = sorted(range(len(columns)), key=lambda i: {"start": 0, "end": 1}.get(columns[i], 2))
    if order == list(range(len(columns))):
        return rows, columns
    # A row with other cells than the header keeps its order, and is refused later.
    moved = [
        row._replace(cells=[row.cells[i] for i in order] if len(row.cells) == len(order) else [])
        for row in rows
    ]
    return moved, [columns[i] for i in order]


def _times(cells: Sequence[str]) -> tuple[float, float] | None:
    """Return the first two cells as numbers; a clock as seconds. None if they are no times."""
    if len(cells) < 2:
        return None
    times = [_time(cell.strip()) for cell in cells[:2]]
    return None if times[0] is None or times[1] is None else (times[0], times[1])


def _time(cell: str) -> float | None:
    if match := _CLOCK.fullmatch(cell):
        return seconds(*match.groups())
    if not _NUMBER.fullmatch(cell):
        return None
    number = float(cell.replace(",", "."))
    return number if math.isfinite(number) else None


def read_lines(name: str, text: str) -> tuple[list[Utterance], list[str]]:
    """Read plain lines, one utterance each, whose times are found by their sound.

    Lines of a name and a time, as Otter and Zoom write, name who says the lines below. Times
    at the beginning of lines, or alone on theirs, are left out.

    Args:
        name: Name of the file, for messages.
        text: Content of the file.

    Raises:
        MediaError: If it is a table whose columns are not known.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    _refuse_unknown_table(name, lines)
    lines = [
        line
        for index, line in enumerate(lines)
        if not (_TIME_IN_WORDS.match(line) and index and _TIME_ALONE.match(lines[index - 1]))
    ]
    lines = _with_headings(lines)
    headings = [_heading(line) for line in lines]
    has_headings = sum(name is not None for name in headings) > 1 or bool(headings[:1] != [None])
    starts = [_TIME_FIRST.match(line) for line in lines]
    num_starts, num_alone = sum(map(bool, starts)), sum(bool(_TIME_ALONE.match(x)) for x in lines)
    has_times = num_starts > 1 and starts[0] is not None and num_starts >= len(lines) / 2
    if not has_times:
        starts = [_TIME_ALONE.match(line) for line in lines]
        has_times = num_alone > 1
    utterances: list[Utterance] = []
    notes: list[str] = []
    speaker: str | None = None
    num_times = 0
    for line, heading, start in zip(lines, headings, starts, strict=True):
        if has_headings and heading is not None:
            if not num_times and utterances:
                notes.append(_title_note(utterances))
                utterances = []
            speaker, num_times = heading, num_times + 1
            continue
        said = line
        if has_times and start is not None:
            said, num_times = line[start.end() :], num_times + 1
        if said.strip():
            utterances.append(Utterance(None, None, said, speaker=speaker))
    if not num_times:
        return utterances, []
    times = "1 time" if num_times == 1 else f"{num_times} times"
    notes.append(f"{times} without an end left out: when the words are said is heard")
    return utterances, notes


def _title_note(lines: Sequence[Utterance]) -> str:
    count = "1 line was" if len(lines) == 1 else f"{len(lines)} lines were"
    return f'{count} left out above the first speaker: "{lines[0].text.strip()}" and so on'


def _with_headings(lines: Sequence[str]) -> list[str]:
    """Return lines with a name and its time on one line, as ``Anna 0:03``.

    They may be on two, as Google's Recorder writes them, or the time may come first.
    """
    if len(lines) > 1 and looks_like_a_name(lines[0].strip()) and _TIME_ALONE.match(lines[1]):
        places = [at for at, line in enumerate(lines) if _TIME_ALONE.match(line)]
        if all(at and looks_like_a_name(lines[at - 1].strip()) for at in places):
            names = {at - 1 for at in places}
            joined = [
                f"{line} {lines[at + 1]}" if at in names else line for at, line in enumerate(lines)
            ]
            return [line for at, line in enumerate(joined) if at not in places]
    firsts = {at: match for at, line in enumerate(lines) if (match := _TIME_FIRST.match(line))}
    names_after = {at: lines[at][match.end() :].strip() for at, match in firsts.items()}
    comes_back = len(set(names_after.values())) < len(names_after)
    if comes_back and all(map(looks_like_a_name, names_after.values())):
        return [
            f"{names_after[at]} {firsts[at][0].strip(' -')}" if at in firsts else line
            for at, line in enumerate(lines)
        ]
    return list(lines)


def _refuse_unknown_table(name: str, lines: Sequence[str]) -> None:
    """Refuse lines with tabs and times whose columns have no names, as ELAN exports them."""
    rows = [line.split("\t") for line in lines]
    widths = {len(row) for row in rows}
    have_times = all(any(_time(cell.strip()) is not None for cell in row) for row in rows)
    if len(widths) == 1 and widths.pop() > 2 and have_times:
        raise MediaError(
            f'"{name}" is a table, and which of its {len(rows[0])} columns is which is not known.\n'
            f"  Its first line: {' | '.join(rows[0])}\n"
            "  Write a first line that names the columns, with tabs between them: start, end, "
            "text and, if wanted, speaker. Others may have any other names."
        )


def _heading(line: str) -> str | None:
    """Return the name in a line of a name and a time, as ``Anna Smith  0:03``."""
    match = _HEADING.match(line)
    return match["name"].strip() if match and looks_like_a_name(match["name"].strip()) else None
