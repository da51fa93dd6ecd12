"""Tables of published results, read from csv or from the pipe tables of a markdown file."""

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

__all__ = ["COLUMNS", "PublishedRow", "PublishedRows", "read_published"]

COLUMNS = ("model", "dataset", "metric", "accuracy", "f1")
"""Columns that a table must have, in any order and any case; ``runs`` is welcome."""

ENDINGS = (".csv", ".md", ".markdown")
NOTHING = frozenset({"", "-", "–", "—", "n/a", "na"})

_DELIMITER = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_FENCE = re.compile(r"\s*(```|~~~)")
_NUMBER = re.compile(r"(\d+)(?:\.(\d*))?\s*%?(?:\s*(?:±|\+-|\+/-|\()\s*[\d.]+\s*%?\s*\)?)?")


class PublishedRow(NamedTuple):
    """A row whose two numbers can be held against each other.

    Attributes:
        line: Where it begins in the file, from 1.
        model: As printed.
        dataset: Name of the corpus, as in :data:`~mmcl.evaluation.table_linter.TEST_COUNTS`.
        metric: Name of the metric there.
        accuracy: In percent.
        f1: In percent.
        runs: Runs behind it; None where it does not say.
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
        """Label counts of its test set."""
        return TEST_COUNTS[self.dataset][self.metric]


class PublishedRows(NamedTuple):
    """What a file holds.

    Attributes:
        rows: Rows with an accuracy and an F1.
        incomplete: Rows without one of them.
        other_tables: Tables without the columns of :data:`COLUMNS`.
    """

    rows: tuple[PublishedRow, ...]
    incomplete: int
    other_tables: int


class _Table(NamedTuple):
    header: tuple[str, ...]
    lines: tuple[tuple[int, tuple[str, ...]], ...]  # line in the file, cells

    def faults(self) -> list[str]:
        """What keeps the table from being checked."""
        others = [name for name in self.header if name not in COLUMNS]
        missing = [name for name in COLUMNS if name not in self.header]
        repeated = [name for name in (*COLUMNS, "runs") if self.header.count(name) > 1]
        return [
            *(f'no column "{name}"{did_you_mean(name, others)}' for name in missing),
            *(f'more than one column "{name}"' for name in repeated),
        ]


def read_published(path: Path) -> PublishedRows:
    """Read the tables of a file that have the columns of :data:`COLUMNS`.

    A number may carry a percent sign, a spread (``84.2 ± .3``, ``84.2 (.3)``) and the stars of
    bold print; the digits after its point say how it was rounded, so that 84.2 for 84.20 is
    judged more leniently. A row without an accuracy or an F1 (a dash, nothing) is counted,
    not read.

    Args:
        path: A ``.csv`` file, or a ``.md`` or ``.markdown`` file with any number of tables.

    Returns:
        The rows, and how much was left out.

    Raises:
        UsageError: If the file's name ends in something else.
        DatasetError: If the file cannot be read, or no table in it has the columns.
        ConfigError: If rows name an unknown data set or metric or hold what is no percentage:
            all of them at once.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f'FILE must end in {", ".join(ENDINGS)}, got "{path.name}"')
    text = _text(path)
    tables = _csv_tables(text, path) if path.suffix.lower() == ".csv" else _markdown_tables(text)
    fitting = [table for table in tables if not table.faults()]
    if not fitting:
        raise DatasetError(_no_table(path, tables))
    problems: list[str] = []
    rows: list[PublishedRow] = []
    num_rows = 0
    for table in fitting:
        for line, cells in table.lines:
            num_rows += 1
            cell = dict(zip(table.header, (*cells, *[""] * len(table.header)), strict=False))
            row = _row(line, cell, problems)
            if row is not None:
                rows.append(row)
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise ConfigError("\n  ".join([f"{path} has {count}", *problems]))
    return PublishedRows(tuple(rows), num_rows - len(rows), len(tables) - len(fitting))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [each.name for each in path.parent.glob("*") if each.suffix.lower() in ENDINGS]
        hint = did_you_mean(path.name, sorted(beside))
        raise DatasetError(f"{path}: no such file{hint}") from None
    except OSError as fault:
        raise DatasetError(f"{path}: cannot be read ({fault.strerror or fault}).") from None
    except UnicodeDecodeError as fault:
        raise DatasetError(f"{path}: not UTF-8 text (byte {fault.start}).") from None


def _no_table(path: Path, tables: Sequence[_Table]) -> str:
    expected = f"  Expected columns, in any order: {', '.join(COLUMNS)}; runs is welcome."
    if not tables:
        return f"{path}: no table in it.\n{expected}"
    faults = min((table.faults() for table in tables), key=len)
    lines = [f"  {fault}" for fault in faults]
    return "\n".join([f"{path}: no table in it can be checked.", *lines, expected])


# ---------------------------------------------------------------- layouts


def _clean(cell: str) -> str:
    return cell.replace("\\|", "|").replace("**", "").replace("`", "").strip()


def _table(header: Sequence[str], lines: Sequence[tuple[int, Sequence[str]]]) -> _Table:
    return _Table(
        tuple(_clean(name).lower() for name in header),
        tuple((line, tuple(map(_clean, cells))) for line, cells in lines if any(cells)),
    )


def _csv_tables(text: str, path: Path) -> list[_Table]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as fault:
        raise DatasetError(f"{path}, line {reader.line_num}: not csv ({fault}).") from None
    return [_table(lines[0][1], lines[1:])] if lines else []


def _markdown_tables(text: str) -> list[_Table]:
    """Pipe tables: a line of names, a line of dashes, and lines up to one without a pipe."""
    tables: list[tuple[list[str], list[tuple[int, Sequence[str]]]]] = []
    before, fenced, within = "", False, False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
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


# ---------------------------------------------------------------- a row


def _row(line: int, cell: Mapping[str, str], problems: list[str]) -> PublishedRow | None:
    """Read a row; None where there is nothing to check, or where a problem was noted."""
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
    name = next((name for name, each in KNOWN.items() if each is known), None)
    if name in TEST_COUNTS:
        return name
    like = text.lower()
    nearest = sorted(TEST_COUNTS, key=lambda each: -SequenceMatcher(None, like, each).ratio())
    what = "unknown data set" if name is None else "no label counts are known of"
    faults.append(f'dataset: {what} "{text}"; known: {", ".join(nearest)}')
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
