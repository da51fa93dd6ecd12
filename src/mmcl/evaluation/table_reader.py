"""Reader of a table to be checked: a csv file, or the pipe tables of a markdown file.

(:mod:`mmcl.evaluation.published_results` is something else: numbers that come with this package.)
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from mmcl.corpus.known_corpora import KNOWN, find_known
from mmcl.errors import ConfigError, DatasetError, UsageError, did_you_mean
from mmcl.evaluation.table_linter import TEST_COUNTS, Counts, Printed
from mmcl.limits import check_regular

__all__ = ["COLUMNS", "PublishedRow", "PublishedRows", "read_published"]

COLUMNS = ("model", "dataset", "metric", "accuracy", "f1")
"""Columns that a table must have, in any order and any case; ``runs`` is welcome."""

ENDINGS = (".csv", ".md", ".markdown")
NOTHING = frozenset({"", "-", "–", "—", "n/a", "na"})

_DELIMITER = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_FENCE = re.compile(r"\s*(```|~~~)")
_NUMBER = re.compile(r"(\d+)(?:\.(\d*))?\s*%?(?:\s*(?:±|\+-|\+/-|\()\s*[\d.]+\s*%?\s*\)?)?")


class PublishedRow(NamedTuple):
    """A row with an accuracy and an F1.

    Attributes:
        line: Line of the file, from 1.
        model: As printed.
        dataset: Name of the corpus, as in :data:`~mmcl.evaluation.table_linter.TEST_COUNTS`.
        metric: Name of the metric there.
        accuracy: In percent.
        f1: In percent.
        runs: Number of runs behind it; None where it does not say.
    """

    line: int
    model: str
    dataset: str
    metric: str
    accuracy: Printed
    f1: Printed
    runs: int | None

    @property
    def counts(self) -> Counts:
        """Return the label counts of its test set."""
        return TEST_COUNTS[self.dataset][self.metric]


class PublishedRows(NamedTuple):
    """Rows of a file, the number of rows without an accuracy or F1, and of unfit tables."""

    rows: tuple[PublishedRow, ...]
    incomplete: int
    other_tables: int


class _Table(NamedTuple):
    header: list[str]
    rows: list[tuple[int, dict[str, str]]]  # line in the file, cells by column

    def faults(self) -> list[str]:
        """Name what keeps the table from being checked."""
        unknown = [name for name in self.header if name not in COLUMNS]
        missing = [name for name in COLUMNS if name not in self.header]
        repeated = [name for name in (*COLUMNS, "runs") if self.header.count(name) > 1]
        return [
            *(f'no column "{name}"{did_you_mean(name, unknown)}' for name in missing),
            *(f'more than one column "{name}"' for name in repeated),
        ]


def read_published(path: Path) -> PublishedRows:
    """Read the tables of a file that have the columns of :data:`COLUMNS`.

    A number may carry a percent sign, a spread (``84.2 ± .3``, ``84.2 (.3)``) and the stars of
    bold print. The digits after its point say how it was rounded, so that 84.2 for 84.20 is
    judged more leniently. A row without an accuracy or an F1 (a dash, nothing) is only counted.

    Args:
        path: A ``.csv`` file, or a ``.md`` or ``.markdown`` file with any number of tables.

    Raises:
        UsageError: If the file's name ends in something else.
        DatasetError: If the file cannot be read, or no table in it has the columns.
        ConfigError: If rows name an unknown data set or metric, or hold no percentage; it
            lists all of them.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f'FILE must end in {", ".join(ENDINGS)}, got "{path.name}"')
    text = _text(path)
    tables = _csv_tables(text, path) if path.suffix.lower() == ".csv" else _markdown_tables(text)
    fitting = [table for table in tables if not table.faults()]
    if not fitting:
        raise DatasetError(_no_table(path, tables))
    problems: list[str] = []
    read = [_row(line, cell, problems) for table in fitting for line, cell in table.rows]
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise ConfigError("\n  ".join([f"{path} has {count}", *problems]))
    rows = tuple(row for row in read if row is not None)
    return PublishedRows(rows, len(read) - len(rows), len(tables) - len(fitting))


def _text(path: Path) -> str:
    check_regular(path, DatasetError)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        names = [file.name for file in path.parent.glob("*") if file.suffix.lower() in ENDINGS]
        hint = did_you_mean(path.name, sorted(names))
        raise DatasetError(f"{path}: no such file{hint}") from None
    except OSError as fault:
        raise DatasetError(f"{path}: cannot be read ({fault.strerror or fault}).") from None
    except UnicodeDecodeError as fault:
        raise DatasetError(f"{path}: not UTF-8 text (byte {fault.start}).") from None


def _no_table(path: Path, tables: Sequence[_Table]) -> str:
    expected = f"  Expected columns, in any order: {', '.join(COLUMNS)}; runs is welcome."
    if not tables:
        return f"{path}: no table in it.\n{expected}"
    # The table that lacks least is the one that was meant.
    lines = [f"  {fault}" for fault in min((table.faults() for table in tables), key=len)]
    return "\n".join([f"{path}: no table in it can be checked.", *lines, expected])


def _clean(cell: str) -> str:
    return cell.replace("\\|", "|").replace("**", "").replace("`", "").strip()


def _table(header: Sequence[str], lines: Sequence[tuple[int, Sequence[str]]]) -> _Table:
    names = [_clean(name).lower() for name in header]
    blank = [""] * len(names)  # a line may have fewer cells than the header
    rows = [
        (line, dict(zip(names, [*map(_clean, cells), *blank], strict=False)))
        for line, cells in lines
        if any(cells)
    ]
    return _Table(names, rows)


def _csv_tables(text: str, path: Path) -> list[_Table]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as fault:
        raise DatasetError(f"{path}, line {reader.line_num}: not csv ({fault}).") from None
    return [_table(lines[0][1], lines[1:])] if lines else []


def _markdown_tables(text: str) -> list[_Table]:
    """Find pipe tables: a line of names, a line of dashes, and lines up to one without a pipe."""
    tables: list[tuple[list[str], list[tuple[int, Sequence[str]]]]] = []
    before, fenced, within = "", False, False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):  # a table within a block of code is an example
            fenced = not fenced
        if fenced or "|" not in line:
            within, before = False, ""
        elif within:
            tables[-1][1].append((number, _cells(line)))
        elif before and _DELIMITER.fullmatch(line):
            tables.append((_cells(before), []))
            within = True
        else:
            before = line
    return [_table(header, lines) for header, lines in tables]


def _cells(line: str) -> list[str]:
    inner = re.sub(r"(?<!\\)\|$", "", line.strip().removeprefix("|"))
    return re.split(r"(?<!\\)\|", inner)


def _row(line: int, cell: Mapping[str, str], problems: list[str]) -> PublishedRow | None:
    """Read a row; None where there is nothing to check, or after noting a problem."""
    if cell["accuracy"].lower() in NOTHING or cell["f1"].lower() in NOTHING:
        return None
    faults: list[str] = []
    dataset = _dataset(cell["dataset"], faults)
    metric = _metric(cell["metric"], dataset, faults)
    accuracy = _percentage("accuracy", cell["accuracy"], faults)
    f1 = _percentage("f1", cell["f1"], faults)
    runs = _runs(cell.get("runs", ""), faults)
    problems += [f"line {line}, {fault}" for fault in faults]
    if dataset is None or metric is None or accuracy is None or f1 is None:
        return None
    return PublishedRow(line, cell["model"], dataset, metric, accuracy, f1, runs)


def _dataset(text: str, faults: list[str]) -> str | None:
    known = find_known(text)
    name = next((name for name, corpus in KNOWN.items() if corpus is known), None)
    if name in TEST_COUNTS:
        return name
    names = sorted(TEST_COUNTS, key=lambda name: -SequenceMatcher(None, text.lower(), name).ratio())
    problem = "unknown data set" if name is None else "no label counts are known of"
    faults.append(f'dataset: {problem} "{text}"; known: {", ".join(names)}')
    return None


def _metric(text: str, dataset: str | None, faults: list[str]) -> str | None:
    metric = text.lower()
    if dataset is None or metric in TEST_COUNTS[dataset]:
        return metric
    names = ", ".join(TEST_COUNTS[dataset])
    faults.append(f'metric: {dataset} has no metric "{text}"; it has: {names}')
    return None


def _percentage(name: str, text: str, faults: list[str]) -> Printed | None:
    match = _NUMBER.fullmatch(text.strip("*_ "))
    if match is None:
        faults.append(f'{name}: expected a percentage such as 84.25, got "{text}"')
        return None
    decimals = match[2] or ""
    value = Fraction(f"{match[1]}.{decimals or 0}")
    # A number up to 1 is a fraction, most likely, and would be judged as a percentage.
    if not (value == 0 or 1 < value <= 100):
        faults.append(f'{name}: expected a percentage above 1 and up to 100, got "{text}"')
        return None
    return Printed(value, len(decimals))


def _runs(text: str, faults: list[str]) -> int | None:
    if text.lower() in NOTHING:
        return None
    if not text.isdecimal() or int(text) < 1:
        faults.append(f'runs: expected a whole number from 1 on, got "{text}"')
        return None
    return int(text)
