"""Read the field's layout: a folder with ``label.csv`` and ``Raw/<video_id>/<clip_id>.mp4``.

Each row is a clip. A faulty row is a failed item and does not stop the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mmcl.corpus.folds import split_of
from mmcl.corpus.readers.source_file import SPLIT_NAMES
from mmcl.corpus.schema import Label, Task
from mmcl.errors import did_you_mean
from mmcl.media.folders.items import Failure, Gathered, Item
from mmcl.media.folders.label_table import (
    LABELS,
    OPTIONAL,
    REQUIRED,
    LabelTable,
    Row,
    read_label_table,
)
from mmcl.media.folders.label_values import (
    UNKNOWN,
    Kind,
    decimal_comma_note,
    find_task,
    may_be_classes,
    read_score,
)
from mmcl.media.folders.leftovers import LISTED, LeftOut, list_files, unused_files
from mmcl.media.folders.raw_files import RawFiles
from mmcl.media.transcripts.reading import find_transcript
from mmcl.types import SPLITS, Modality, SplitName

__all__ = ["read_labels"]

MODALITY_LABELS: dict[str, Modality] = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
_DATE = re.compile(r"\d{1,2}[-. ]+[^\W\d_]{3,}|[^\W\d_]{3,}[-. ]+\d{1,4}")  # 01. Mai, May-01


def read_labels(
    folder: Path,
    *,
    kind: Kind = None,
    label_range: tuple[float, float] | None = None,
    language: str | None = None,
) -> Gathered:
    """Read a ``label.csv`` and find its files.

    Columns: ``video_id``, ``clip_id``, ``text`` (if empty, it is recognised) and ``label`` (if
    empty, it is unknown); optionally ``label_T``, ``label_A``, ``label_V``, ``mode`` and
    ``speaker``; others are not read. Without ``mode`` a video's split is :func:`split_of` its id.

    Args:
        folder: Folder with ``label.csv`` and ``Raw``.
        kind: What the labels are; classes are numbered in the order of their names.
        label_range: Lowest and highest score; -3..3 by default.
        language: Language of the speech, which transcripts beside files may name.

    Raises:
        MediaError: If the file cannot be read as a table, columns are missing, the labels
            cannot be what ``kind`` says, or there is no folder ``Raw``.
    """
    table = read_label_table(folder / LABELS)
    readable = [row for row in table.rows if row.fault is None]
    comma_notes = [] if kind == "classes" else list(_comma_notes(readable))
    labels = [row.cells["label"] for row in readable if row.cells["label"]]
    task, task_notes = find_task(labels, kind, label_range)
    files = RawFiles(folder, {_ids(row) for row in readable})
    readers = [_RowReader(files, row, task, _range_advice(labels, kind)) for row in table.rows]
    _fault_repeated_ids(readers)
    items = [reader.item() for reader in readers]
    good = [item for item, reader in zip(items, readers, strict=True) if not reader.faults]
    named = {item.path for item in items}
    return Gathered(
        good,
        [reader.failure() for reader in readers if reader.faults],
        task,
        notes=(*table.notes, *comma_notes, *task_notes, *_split_notes(table, good)),
        source=(_described(table),),
        left_out=(*_unread(table, task), *_unused(folder, named, good, language)),
    )


def _comma_notes(rows: Sequence[Row]) -> Iterator[str]:
    for column in ("label", *MODALITY_LABELS):
        cells = {_short(row): row.cells[column] for row in rows if row.cells.get(column)}
        if note := decimal_comma_note(column, cells):
            yield note


def _range_advice(labels: Sequence[str], kind: Kind) -> str:
    scores = [score for label in labels if (score := read_score(label)) is not None]
    classes = "; for classes: --task classes" if may_be_classes(scores, kind) else ""
    return f"for another range: --label-range LOW HIGH{classes}"


def _split_notes(table: LabelTable, items: Sequence[Item]) -> Iterator[str]:
    if "mode" not in table.columns:
        counts = Counter(item.split for item in items)
        yield (
            f'{LABELS} has no column "mode": whole videos went to train, valid and test '
            f"by a hash of video_id, {'/'.join(str(counts[name]) for name in SPLITS)} clips"
        )
        return
    splits = {(item.video_id, item.split) for item in items}
    shared = [video for video, count in Counter(video for video, _ in splits).items() if count > 1]
    if shared:
        names = ", ".join(sorted(shared)[:LISTED])
        more = f" and {len(shared) - LISTED} more" if len(shared) > LISTED else ""
        yield (
            f"{len(shared)} video{'s have' if len(shared) > 1 else ' has'} clips in several splits "
            f"({names}{more}): people who are known from training are easier to predict"
        )


# ---------------------------------------------------------------- what is there, and not used


def _described(table: LabelTable) -> str:
    count = len(table.rows)
    columns = ", ".join(name or "one without a name" for name in table.columns)
    return f"{count} row{'s' * (count != 1)} of {LABELS}, columns {columns}"


def _unread(table: LabelTable, task: Task) -> Iterator[LeftOut]:
    """Yield the columns that are not read and the rows that are empty."""
    read = {*REQUIRED, "mode", "speaker", *(MODALITY_LABELS if task.kind == "regression" else ())}
    absent = [name for name in OPTIONAL if name not in table.columns]
    names = [
        f"{name or 'without a name'}{'' if name in OPTIONAL else did_you_mean(name, absent)}"
        for name in table.columns
        if name not in read
    ]
    if names:
        yield LeftOut(f"columns of {LABELS} that are not read", tuple(names))
    if table.empty_rows:
        yield LeftOut(f"rows of {LABELS} without any text", table.empty_rows)


def _unused(
    folder: Path, named: Collection[Path], items: Sequence[Item], language: str | None
) -> Iterator[LeftOut]:
    silent = [item.path for item in items if item.text is None]
    transcripts = {find_transcript(path, language) for path in silent} - {None}
    used = {folder / LABELS, *named, *(path for path in transcripts if path)}
    unnamed = f"media files that no row of {LABELS} names"
    yield from unused_files(folder, list_files(folder), used, unnamed)


# ---------------------------------------------------------------- rows


def _short(row: Row) -> str:
    """Return the place of a row, without the name of the table."""
    return row.place.removeprefix(f"{LABELS}, ")


def _ids(row: Row) -> tuple[str, str]:
    return row.cells["video_id"], row.cells["clip_id"]


class _RowReader:
    """Reader of one row that collects the row's faults."""

    def __init__(self, files: RawFiles, row: Row, task: Task, range_advice: str) -> None:
        self.files, self.row, self.task = files, row, task
        self.range_advice = range_advice
        self.video_id, self.clip_id = _ids(row)
        self.name = f"{self.video_id}/{self.clip_id}"
        self.faults = [row.fault] if row.fault else []

    def failure(self) -> Failure:
        return Failure(self.name, f"{self.row.place}: {'; '.join(self.faults)}")

    def item(self) -> Item:
        path = self._path()
        if self.row.fault:  # the cells may belong to other columns
            return Item(path, self.name, self.video_id, self.clip_id)
        return Item(
            path=path,
            name=self.name,
            video_id=self.video_id,
            clip_id=self.clip_id,
            split=self._split(),
            label=self._label(),
            modality_labels=self._modality_labels() or None,
            text=self.row.cells["text"] or None,
            speaker=self.row.cells.get("speaker") or None,
        )

    def _path(self) -> Path:
        if not (self.video_id and self.clip_id):
            if not self.row.fault:
                empty = [name for name in REQUIRED[:2] if not self.row.cells[name]]
                self.faults += [f"{name} is empty" for name in empty]
            return self.files.raw
        found = self.files.find(self.video_id, self.clip_id)
        if found.fault and not self.row.fault:
            self.faults.append(found.fault)
        return found.path

    def _split(self) -> SplitName:
        mode = self.row.cells.get("mode")
        if mode is None:
            return split_of(self.video_id)
        if mode.lower() not in SPLIT_NAMES:
            shown = f'"{mode}"' if mode else "empty"
            near = did_you_mean(mode.lower(), SPLITS)
            self.faults.append(f"mode is {shown}, expected train, valid or test{near}")
        return SPLIT_NAMES.get(mode.lower(), "test")

    def _label(self) -> Label:
        text = self.row.cells["label"]
        if not text:
            return None
        if self.task.kind == "regression":
            return self._score("label", self.range_advice)
        if text.lower() in UNKNOWN:
            self.faults.append(_not_known("label", text))
            return None
        return self.task.names.index(text)

    def _modality_labels(self) -> dict[Modality, float]:
        if self.task.kind != "regression":
            return {}
        advice = "for another range: --label-range LOW HIGH"
        return {
            modality: score
            for column, modality in MODALITY_LABELS.items()
            if self.row.cells.get(column) and (score := self._score(column, advice)) is not None
        }

    def _score(self, column: str, range_advice: str) -> float | None:
        text = self.row.cells[column]
        score, (low, high) = read_score(text), self.task.score_range or (0.0, 0.0)
        if text.lower() in UNKNOWN:
            self.faults.append(_not_known(column, text))
        elif score is None:
            date = " (a spreadsheet may have made a date of it)" if _DATE.match(text) else ""
            self.faults.append(f'{column} is "{text}", not a number{date}')
        elif not low <= score <= high:
            self.faults.append(f"{column} is {score:g}, outside {low:g}..{high:g} ({range_advice})")
        return score


def _not_known(column: str, text: str) -> str:
    return f'{column} is "{text}"; where it is not known, leave the cell empty'


def _fault_repeated_ids(readers: Sequence[_RowReader]) -> None:
    first: dict[tuple[str, str], Row] = {}
    for reader in readers:
        if reader.row.fault is None:
            earlier = first.setdefault(_ids(reader.row), reader.row)
            if earlier is not reader.row:
                reader.faults.append(f"the same video_id and clip_id are in {_short(earlier)}")
