"""A corpus of several tables, one per split, as MELD's csv files are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import LAYOUTS, SPLIT_NAMES, SourceFile
from mmcl.corpus.readers.table import Columns, read_columns, text_columns
from mmcl.errors import DatasetError
from mmcl.types import SplitName

__all__ = ["read_tables", "split_in_name", "tables_of_splits"]

TABLES = (".csv", ".tsv")
_MELD = {  # column of MELD: ours
    "Utterance": "text",
    "Sentiment": "label",
    "Speaker": "speaker",
    "Dialogue_ID": "video_id",
    "Utterance_ID": "clip_id",
}


def split_in_name(path: Path) -> SplitName | None:
    """Return the split that the name of a file says.

    Example:
        >>> split_in_name(Path("dev_sent_emo.csv")), split_in_name(Path("mosi.valid.csv"))
        ('valid', 'valid')
    """
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return named.pop() if len(named) == 1 else None


def tables_of_splits(folder: Path) -> list[Path]:
    """Return the tables of a folder if each is a split by its name, else none."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
    splits = [split_in_name(path) for path in tables]
    is_one_each = None not in splits and len(set(splits)) == len(splits)
    return tables if is_one_each and "train" in splits else []


def read_tables(paths: Sequence[Path], options: ReadOptions) -> SourceFile:
    """Read tables of text, one per split.

    Raises:
        DatasetError: If a name says no split, two say the same, the columns differ, or a table
            cannot be read.
    """
    notes: list[str] = []
    tables, parts = [], []
    splits = [split_in_name(path) for path in paths]
    for path, split in zip(paths, splits, strict=True):
        if split is None or splits.count(split) > 1:
            raise DatasetError(
                f"{path}: several tables are read together, one per split, and its name says "
                f"{'no split' if split is None else f'{split}, as another does'}.\n"
                "  Expected train.csv, valid.csv and test.csv, or names such as these.\n"
                f"  {LAYOUTS}"
            )
        tables.append(columns := text_columns(path, options, notes))
        if columns.keys() != tables[0].keys():
            other = min(columns.keys() ^ tables[0].keys())
            raise DatasetError(
                f'{path}: the column "{other}" is not in this and in {paths[0].name}.\n'
                f"  Expected the same columns in every table.\n  {LAYOUTS}"
            )
        parts.append(_with_split(_of_meld(columns, options, notes), split))
    joined = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return read_columns(joined, "tables", options, notes)


def _of_meld(columns: Columns, options: ReadOptions, notes: list[str]) -> Columns:
    """Return MELD's columns under our names; its sentiment is the label."""
    if not columns.keys() >= _MELD.keys():
        return columns
    ours = {name: own for name, own in _MELD.items() if name not in options.rename}
    note = 'the label is "Sentiment" (for emotions: --rename Sentiment= --rename Emotion=label)'
    if "Sentiment" in ours and note not in notes:
        notes.append(note)
    return {ours.get(name, name): values for name, values in columns.items()}


def _with_split(columns: Columns, split: SplitName) -> Columns:
    """Add the split, also to the names of recordings, which may begin anew in every table."""
    rows = len(next(iter(columns.values())))
    added: Columns = {"split": [split] * rows}
    if "video_id" in columns:
        added["video_id"] = [f"{split}_{video}" for video in columns["video_id"]]
    return {**columns, **added}


def _joined(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in part]
