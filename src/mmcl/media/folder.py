"""Find what to extract: files, folders of files, and the field's ``label.csv``.

The field's layout is a folder with ``label.csv`` and ``Raw/<video_id>/<clip_id>.mp4``, where
each row is a clip. A faulty row is a failed item and does not stop the others.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Literal, NamedTuple

from mmcl.corpus.schema import Label, Task
from mmcl.errors import MediaError, did_you_mean
from mmcl.media.transcripts import TRANSCRIPT_ENDINGS
from mmcl.types import SPLITS, Modality, SplitName

__all__ = ["MEDIA_ENDINGS", "Failure", "Gathered", "Item", "gather", "read_labels", "split_of"]

LABELS, RAW = "label.csv", "Raw"
REQUIRED = ("video_id", "clip_id", "text", "label")
MODALITY_LABELS: dict[str, Modality] = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
OPTIONAL = (*MODALITY_LABELS, "mode", "annotation")
MODES: dict[str, SplitName] = {**{name: name for name in SPLITS}, "val": "valid", "dev": "valid"}
MEDIA_ENDINGS = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"),
)
"""Endings by which media files are found, the preferred first."""

TRAIN_SHARE, VALID_SHARE = 0.70, 0.15
MOST_CLASSES = 20
DEFAULT_RANGE = (-3.0, 3.0)

_Row = Mapping[str, str]


class Item(NamedTuple):
    """One file to extract, and what is known of it.

    Attributes:
        path: The file.
        name: What messages call it: ``video/clip`` of a row, or the file's name.
        video_id: The recording.
        clip_id: The clip, if the file is one; None if it is to be cut into utterances.
        split: Where its clips go; those without a label go to ``test``.
        label: Of the clip, None where unknown.
        modality_labels: As in :class:`~mmcl.corpus.schema.Clip`.
        text: What is said, where known.
    """

    path: Path
    name: str
    video_id: str
    clip_id: str | None = None
    split: SplitName = "test"
    label: Label = None
    modality_labels: dict[Modality, float] | None = None
    text: str | None = None


class Failure(NamedTuple):
    """An item that could not be extracted, and why."""

    item: str
    cause: str


class Gathered(NamedTuple):
    """Everything that was asked for.

    Attributes:
        items: What can be extracted, in order.
        failures: Faulty rows.
        task: What the labels are.
        notes: What a user should know.
    """

    items: list[Item]
    failures: list[Failure]
    task: Task
    notes: tuple[str, ...] = ()


def gather(
    sources: Sequence[Path],
    *,
    kind: Literal["regression", "classes"] = "regression",
    label_range: tuple[float, float] | None = None,
) -> Gathered:
    """Find what there is to extract.

    Args:
        sources: Media files, folders of them (and of folders), and at most one folder with a
            ``label.csv``.
        kind: What the labels are.
        label_range: Lowest and highest score; -3..3 by default.

    Raises:
        MediaError: If a source does not exist or holds nothing, its ``label.csv`` cannot be
            read, or more than one has a ``label.csv``.
    """
    labelled = [source for source in sources if (source / LABELS).is_file()]
    if len(labelled) > 1:
        raise MediaError(
            f'"{labelled[0].name}" and "{labelled[1].name}" both have a {LABELS}; '
            "a corpus has one.\n  Extract them one by one, or join the two."
        )
    unlabelled = _unlabelled_items(source for source in sources if source not in labelled)
    if not labelled:
        note = f"no {LABELS}: the clips have no labels and are all in the test split"
        low, high = label_range or DEFAULT_RANGE
        return Gathered(unlabelled, [], Task(kind="regression", low=low, high=high), (note,))
    gathered = read_labels(labelled[0], kind=kind, label_range=label_range)
    return gathered._replace(items=gathered.items + unlabelled)


def _unlabelled_items(sources: Iterable[Path]) -> list[Item]:
    paths = list(dict.fromkeys(path for source in sources for path in _media_files(source)))
    stems = Counter(path.stem for path in paths)
    items = []
    for path in paths:
        video_id = path.stem if stems[path.stem] == 1 else path.as_posix()
        items.append(Item(path, _storable(path.name), _storable(video_id)))
    return items


def _storable(name: str) -> str:
    """Return the name of a file, which may be no UTF-8 on disk, as text that can be stored."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _media_files(source: Path) -> list[Path]:
    if not source.exists():
        raise MediaError(
            f'"{source}": no such file or folder.\n'
            "  Give a media file, a folder of them, or a folder with a label.csv."
        )
    if not source.is_dir():
        return [source]
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in MEDIA_ENDINGS)
    if not paths:
        raise MediaError(
            f'"{source}": neither a {LABELS} nor a media file in this folder.\n'
            f"  Looked for files that end in {', '.join(MEDIA_ENDINGS)}."
        )
    return paths


def read_labels(
    folder: Path,
    *,
    kind: Literal["regression", "classes"] = "regression",
    label_range: tuple[float, float] | None = None,
) -> Gathered:
    """Read a ``label.csv`` and find its files.

    Columns: ``video_id``, ``clip_id``, ``text`` (if empty, it is recognised) and ``label`` (if
    empty, it is unknown); optionally ``label_T``, ``label_A``, ``label_V`` and ``mode``; others
    are ignored. Without ``mode`` a video's split is :func:`split_of` its id.

    Args:
        folder: Folder with ``label.csv`` and ``Raw``.
        kind: What the labels are; classes are numbered in the order of their names.
        label_range: Lowest and highest score; -3..3 by default.

    Raises:
        MediaError: If the file cannot be read as a table, or columns are missing.
    """
    rows = _table_rows(folder / LABELS)
    task = _task(rows, kind, label_range or DEFAULT_RANGE)
    items, failures = [], []
    first_rows: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=2):  # the names of the columns are row 1
        reader = _RowReader(folder, row, task)
        ids = (row["video_id"], row["clip_id"])
        if ids in first_rows:
            reader.faults.append(f"the same video_id and clip_id are in row {first_rows[ids]}")
        first_rows.setdefault(ids, number)
        item = reader.item()
        if reader.faults:
            cause = f"{LABELS}, row {number}: {'; '.join(reader.faults)}"
            failures.append(Failure(item.name, cause))
        else:
            items.append(item)
    if "mode" in rows[0]:
        return Gathered(items, failures, task)
    counts = Counter(item.split for item in items)
    note = (
        f'{LABELS} has no column "mode": whole videos went to train, valid and test '
        f"by a hash of video_id, {'/'.join(str(counts[name]) for name in SPLITS)} clips"
    )
    return Gathered(items, failures, task, (note,))


def split_of(video_id: str) -> SplitName:
    """Return the split of a whole video if none is given: 70% train, 15% valid, 15% test.

    The sha256 of the id decides, so the split is the same on every machine and does not depend
    on the other videos.

    Example:
        >>> [split_of(f"video{number}") for number in range(1, 6)]
        ['train', 'test', 'train', 'train', 'valid']
    """
    share = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") / 2**64
    if share < TRAIN_SHARE:
        return "train"
    return "valid" if share < TRAIN_SHARE + VALID_SHARE else "test"


def _table_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            _check_columns(columns)
            rows = [
                {key: value.strip() for key, value in row.items() if isinstance(value, str)}
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise MediaError(
            f'"{path.name}" cannot be read as a table ({fault}).\n'
            "  Expected commas between columns and the encoding UTF-8."
        ) from None
    if not rows:
        raise MediaError(f'"{path.name}" has no rows.\n  Expected one per clip.')
    return rows


def _check_columns(columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if not missing:
        return
    others = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    lines = [f"  {name}: not there{did_you_mean(name, others)}\n" for name in missing]
    raise MediaError(
        f'"{LABELS}" lacks {len(missing)} column{"s" * (len(missing) > 1)}.\n'
        f"{''.join(lines)}"
        f"  Found: {', '.join(columns) or 'nothing'}. "
        f"Expected: {', '.join(REQUIRED)}; with them, if wanted: {', '.join(OPTIONAL)}."
    )


def _task(rows: Sequence[_Row], kind: str, label_range: tuple[float, float]) -> Task:
    if kind == "regression":
        return Task(kind="regression", low=label_range[0], high=label_range[1])
    classes = {row["label"] for row in rows if row["label"]}
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise MediaError(
            f'"{LABELS}": column "label" holds {len(classes)} different values; '
            f"classes are 2 to {MOST_CLASSES}.\n  For scores: --task regression"
        )
    # Numbers first, by value; then names, by the alphabet.
    names = sorted(classes, key=lambda name: (_number(name) is None, _number(name) or 0.0, name))
    return Task(kind="classes", names=tuple(names))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class _RowReader:
    """Reader of one row that collects the row's faults."""

    def __init__(self, folder: Path, row: _Row, task: Task) -> None:
        self.folder, self.row, self.task = folder, row, task
        self.faults: list[str] = []

    def item(self) -> Item:
        video_id, clip_id = self.row["video_id"], self.row["clip_id"]
        path, split = self._path(video_id, clip_id), self._split(video_id)
        is_score, text = self.task.kind == "regression", self.row["label"]
        label: Label = None
        if text:
            label = self._score("label") if is_score else self.task.names.index(text)
        modality_labels = {
            modality: score
            for column, modality in MODALITY_LABELS.items()
            if is_score and self.row.get(column) and (score := self._score(column)) is not None
        }
        return Item(
            path=path,
            name=f"{video_id}/{clip_id}",
            video_id=video_id,
            clip_id=clip_id,
            split=split,
            label=label,
            modality_labels=modality_labels or None,
            text=self.row["text"] or None,
        )

    def _path(self, video_id: str, clip_id: str) -> Path:
        wanted = self.folder / RAW / video_id / f"{clip_id}{MEDIA_ENDINGS[0]}"
        self.faults += [
            f"{name} is empty" for name in ("video_id", "clip_id") if not self.row[name]
        ]
        if self.faults:
            return wanted
        # The preferred ending wins where a clip has several files.
        for ending in MEDIA_ENDINGS:
            for path in (wanted.with_name(clip_id + e) for e in (ending, ending.upper())):
                if path.is_file():
                    return path
        fault = f'no file "{RAW}/{video_id}/{clip_id}{MEDIA_ENDINGS[0]}", '
        # A file of the same name that is neither media nor a transcript, as a picture.
        for path in sorted(wanted.parent.glob(f"{escape(clip_id)}.*")):
            if path.stem == clip_id and path.suffix.lower() not in TRANSCRIPT_ENDINGS:
                self.faults.append(
                    f'{fault}but "{path.name}", whose ending is of no video or sound'
                )
                return wanted
        self.faults.append(f"{fault}nor one with another ending")
        return wanted

    def _split(self, video_id: str) -> SplitName:
        if "mode" not in self.row:
            return split_of(video_id)
        mode = self.row["mode"]
        if mode.lower() not in MODES:
            near = did_you_mean(mode, SPLITS)
            self.faults.append(f'mode is "{mode}", expected train, valid or test{near}')
        return MODES.get(mode.lower(), "test")

    def _score(self, column: str) -> float | None:
        text = self.row[column]
        score, low, high = _number(text), self.task.low or 0.0, self.task.high or 0.0
        if score is None:
            self.faults.append(f'{column} is "{text}", not a number (for classes: --task classes)')
        elif not low <= score <= high:
            self.faults.append(
                f"{column} is {score:g}, outside {low:g}..{high:g} "
                "(for another range: --label-range LOW HIGH)"
            )
        return score
