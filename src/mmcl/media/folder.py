"""What there is to extract: files, folders of files, and the field's ``label.csv``.

The field's layout is a folder with ``label.csv`` and ``Raw/<video_id>/<clip_id>.mp4``, each
row a clip. A row that is at fault is a failed item and stops nothing else.
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
OF_MODALITY: dict[str, Modality] = {
    "label_T": "text",
    "label_A": "audio",
    "label_V": "vision",
}
OPTIONAL = (*OF_MODALITY, "mode", "annotation")
MODES: dict[str, SplitName] = {
    **{name: name for name in SPLITS},
    "val": "valid",
    "dev": "valid",
}
MEDIA_ENDINGS = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"),
)
"""Endings by which media files are found, the preferred first."""

TRAIN_SHARE, VALID_SHARE = 0.70, 0.15
MOST_CLASSES = 20
DEFAULT_RANGE = (-3.0, 3.0)


class Item(NamedTuple):
    """One file to extract, and what is known of it.

    Attributes:
        path: The file.
        name: What messages call it: ``video/clip`` of a row, or the file's name.
        video_id: The recording.
        clip_id: The clip, where the file is one; None where it is to be cut into utterances.
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
    """An item that came to nothing, and why."""

    item: str
    cause: str


class Gathered(NamedTuple):
    """Everything that was asked for.

    Attributes:
        items: What can be extracted, in order.
        failures: Rows that are at fault.
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
        sources: Media files, folders of them (and of folders), and folders with a
            ``label.csv``, of which one may be given.
        kind: What the labels are.
        label_range: Lowest and highest score; -3..3 by default.

    Raises:
        MediaError: If a source is not there, holds nothing, or its ``label.csv`` cannot be
            read; or if more than one has a ``label.csv``.
    """
    labelled = [source for source in sources if (source / LABELS).is_file()]
    if len(labelled) > 1:
        raise MediaError(
            f'"{labelled[0].name}" and "{labelled[1].name}" both have a {LABELS}; '
            "a corpus has one.\n  Extract them one by one, or join the two."
        )
    plain = _plain_items(source for source in sources if source not in labelled)
    if not labelled:
        note = f"no {LABELS}: the clips have no labels and are all in the test split"
        low, high = label_range or DEFAULT_RANGE
        return Gathered(plain, [], Task(kind="regression", low=low, high=high), (note,))
    found = read_labels(labelled[0], kind=kind, label_range=label_range)
    return found._replace(items=found.items + plain)


def _plain_items(sources: Iterable[Path]) -> list[Item]:
    paths = list(dict.fromkeys(path for source in sources for path in _media_of(source)))
    stems = Counter(path.stem for path in paths)
    return [
        Item(
            path,
            _legible(path.name),
            _legible(path.stem if stems[path.stem] == 1 else path.as_posix()),
        )
        for path in paths
    ]


def _legible(name: str) -> str:
    """The name of a file, which may be no UTF-8 on disk, as text that can be stored."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _media_of(source: Path) -> list[Path]:
    if not source.exists():
        raise MediaError(
            f'"{source}": no such file or folder.\n'
            "  Give a media file, a folder of them, or a folder with a label.csv."
        )
    if not source.is_dir():
        return [source]
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in MEDIA_ENDINGS)
    if not found:
        raise MediaError(
            f'"{source}": neither a {LABELS} nor a media file in this folder.\n'
            f"  Looked for files that end in {', '.join(MEDIA_ENDINGS)}."
        )
    return found


def read_labels(
    folder: Path,
    *,
    kind: Literal["regression", "classes"] = "regression",
    label_range: tuple[float, float] | None = None,
) -> Gathered:
    """Read a ``label.csv`` and find its files.

    Columns: ``video_id``, ``clip_id``, ``text`` (may be empty: it is recognised then) and
    ``label`` (may be empty: unknown); where wanted ``label_T``, ``label_A``, ``label_V`` and
    ``mode``; others are ignored. Without ``mode`` a video's split is :func:`split_of` its id.

    Args:
        folder: Where ``label.csv`` and ``Raw`` lie.
        kind: What the labels are; classes are numbered in the order of their names.
        label_range: Lowest and highest score; -3..3 by default.

    Raises:
        MediaError: If the file cannot be read as a table, or columns are missing.
    """
    rows = _rows(folder / LABELS)
    task = _task(rows, kind, label_range or DEFAULT_RANGE)
    items, failures = [], []
    first_rows: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=2):  # the names of the columns are row 1
        reader = _Row(folder, row, task)
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
    return Gathered(items, failures, task, _split_notes(rows, items))


def split_of(video_id: str) -> SplitName:
    """The split of a whole video where none is given: 70% train, 15% valid, 15% test.

    It is the sha256 of the id, so it is the same on every machine and does not depend on
    what other videos there are.

    Example:
        >>> [split_of(f"video{number}") for number in range(1, 6)]
        ['train', 'test', 'train', 'train', 'valid']
    """
    share = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") / 2**64
    if share < TRAIN_SHARE:
        return "train"
    return "valid" if share < TRAIN_SHARE + VALID_SHARE else "test"


def _rows(path: Path) -> list[dict[str, str]]:
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
    lines = [f"  {name}: not there{did_you_mean(name, others)}" for name in missing]
    raise MediaError(
        "\n".join(
            [
                f'"{LABELS}" lacks {len(missing)} column{"s" * (len(missing) > 1)}.',
                *lines,
                f"  Found: {', '.join(columns) or 'nothing'}. "
                f"Expected: {', '.join(REQUIRED)}; with them, if wanted: {', '.join(OPTIONAL)}.",
            ]
        )
    )


def _task(rows: Sequence[Mapping[str, str]], kind: str, span: tuple[float, float]) -> Task:
    if kind == "regression":
        return Task(kind="regression", low=span[0], high=span[1])
    found = {row["label"] for row in rows if row["label"]}
    if not 2 <= len(found) <= MOST_CLASSES:
        raise MediaError(
            f'"{LABELS}": column "label" holds {len(found)} different values; '
            f"classes are 2 to {MOST_CLASSES}.\n  For scores: --task regression"
        )
    names = sorted(found, key=lambda name: (_number(name) is None, _number(name) or 0.0, name))
    return Task(kind="classes", names=tuple(names))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class _Row:
    """Reads one row and remembers what is wrong with it."""

    def __init__(self, folder: Path, row: Mapping[str, str], task: Task) -> None:
        self.folder, self.row, self.task = folder, row, task
        self.faults: list[str] = []

    def item(self) -> Item:
        video_id, clip_id = self.row["video_id"], self.row["clip_id"]
        return Item(
            path=self._path(video_id, clip_id),
            name=f"{video_id}/{clip_id}",
            video_id=video_id,
            clip_id=clip_id,
            split=self._split(video_id),
            label=self._label(),
            modality_labels=self._modality_labels(),
            text=self.row["text"] or None,
        )

    def _path(self, video_id: str, clip_id: str) -> Path:
        wanted = self.folder / RAW / video_id / f"{clip_id}{MEDIA_ENDINGS[0]}"
        for name in ("video_id", "clip_id"):
            if not self.row[name]:
                self.faults.append(f"{name} is empty")
        if self.faults:
            return wanted
        for ending in MEDIA_ENDINGS:
            for path in (wanted.with_name(clip_id + e) for e in (ending, ending.upper())):
                if path.is_file():
                    return path
        shown = f"{RAW}/{video_id}/{clip_id}{MEDIA_ENDINGS[0]}"
        other = _other(wanted)
        if other is None:
            self.faults.append(f'no file "{shown}", nor one with another ending')
        else:
            self.faults.append(
                f'no file "{shown}", but "{other.name}", whose ending is of no video or sound'
            )
        return wanted

    def _split(self, video_id: str) -> SplitName:
        if "mode" not in self.row:
            return split_of(video_id)
        mode = self.row["mode"]
        if mode.lower() not in MODES:
            near = did_you_mean(mode, SPLITS)
            self.faults.append(f'mode is "{mode}", expected train, valid or test{near}')
        return MODES.get(mode.lower(), "test")

    def _label(self) -> Label:
        text = self.row["label"]
        if not text:
            return None
        if self.task.kind == "classes":
            return self.task.names.index(text)
        return self._score("label", text)

    def _modality_labels(self) -> dict[Modality, float] | None:
        if self.task.kind == "classes":
            return None
        scores = {
            modality: self._score(column, self.row[column])
            for column, modality in OF_MODALITY.items()
            if self.row.get(column)
        }
        return {m: score for m, score in scores.items() if score is not None} or None

    def _score(self, column: str, text: str) -> float | None:
        score, low, high = _number(text), self.task.low or 0.0, self.task.high or 0.0
        if score is None:
            self.faults.append(f'{column} is "{text}", not a number (for classes: --task classes)')
        elif not low <= score <= high:
            self.faults.append(
                f"{column} is {score:g}, outside {low:g}..{high:g} "
                "(for another range: --label-range LOW HIGH)"
            )
        return score


def _other(wanted: Path) -> Path | None:
    """A file of the same name that is neither media nor a transcript, as a picture."""
    for path in sorted(wanted.parent.glob(f"{escape(wanted.stem)}.*")):
        if path.stem == wanted.stem and path.suffix.lower() not in TRANSCRIPT_ENDINGS:
            return path
    return None


def _split_notes(rows: Sequence[Mapping[str, str]], items: Sequence[Item]) -> tuple[str, ...]:
    if "mode" in rows[0]:
        return ()
    counts = Counter(item.split for item in items)
    shown = "/".join(str(counts[name]) for name in SPLITS)
    return (
        f'{LABELS} has no column "mode": whole videos went to train, valid and test '
        f"by a hash of video_id, {shown} clips",
    )
