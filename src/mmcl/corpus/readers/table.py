"""Tables with a clip per row: csv and tsv, Parquet, and Arrow files of other makers.

Columns (docs/data.md):

- ``split``: train, valid or test; ``label``; ``id``, ``video_id``, ``clip_id``, ``speaker``
- ``text`` or ``raw_text``: what is said
- ``features_text``, ``features_audio``, ``features_vision``, or the same without ``features_``:
  a list of numbers per clip (one step), or a list of such lists (a sequence)
- ``audio_0``, ``audio_1``, ...: one number per clip and column, which make one step (also
  ``text_0`` and ``vision_0``)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmcl.corpus.folds import split_of
from mmcl.corpus.readers.arrow_table import KIND_NAMES, is_list, is_number, read_arrow
from mmcl.corpus.readers.content import read_content
from mmcl.corpus.readers.dict_of_splits import SPLIT_FIELDS
from mmcl.corpus.readers.field_names import in_our_spelling
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import LAYOUTS, SPLIT_NAMES, LeftOut, SourceFile
from mmcl.corpus.readers.text_table import read_text_table
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES

__all__ = ["Columns", "read_columns", "read_table", "text_columns"]

Columns = dict[str, Any]
"""Columns by name: arrays, lists of strings or numbers, or lists of arrays."""

_FEATURES = "features_"
_NUMBERED = re.compile(r"(?P<name>.+)_(?P<number>\d{1,100})")  # int() refuses thousands of digits
SHOWN = 8  # columns in a message
FEWEST_NUMBERED = 2  # columns that are one array, where the name is not that of a modality
# Columns of our own files and of label.csv, by the names that the other layouts have for them.
_OTHER_NAMES = {
    f"label_{name}": f"regression_labels_{letter}"
    for letter, modality in zip("TAV", MODALITIES, strict=True)
    for name in (letter, modality)
}
# Columns whose cells are names or text, also where every cell looks like a number.
_TEXTS = frozenset(
    ("id", "ids", "video_id", "clip_id", "speaker", "text", "raw_text", *SPLIT_FIELDS)
)
_OPTIONAL = _TEXTS | frozenset(
    ("label", *_OTHER_NAMES.values())
)  # left out where no cell holds anything
_ARRAY_AS_TEXT = re.compile(r"\[[-+\d.,\s\[\]eE]+\]")


def read_table(
    path: Path, kind: Literal["text table", "parquet", "arrow"], options: ReadOptions
) -> SourceFile:
    """Read a table.

    Raises:
        DatasetError: If it cannot be read, has no split column or no features, or a column
            holds something else than its name says.
    """
    notes: list[str] = []
    if kind == "text table":
        return read_columns(text_columns(path, options, notes), "a table", options, notes)
    arrow = read_arrow(path, kind)
    columns = {name: _plain(arrow.column(name), name) for name in arrow.column_names}
    return read_columns(columns, KIND_NAMES[kind], options)


def text_columns(path: Path, options: ReadOptions, notes: list[str]) -> Columns:
    """Read the columns of a csv or tsv; ``notes`` takes what a user should know."""
    texts = {
        name for name in (*_TEXTS, *options.rename) if options.rename.get(name, name) in _TEXTS
    }
    return dict(read_text_table(path, texts, notes))


def read_columns(
    columns: Columns, kind_name: str, options: ReadOptions, notes: Sequence[str] = ()
) -> SourceFile:
    """Read the columns of a table.

    Args:
        columns: Columns by name.
        kind_name: What the table is, for messages: ``a Parquet table``.
        options: Choices of the user; only ``rename`` is used.
        notes: What is known of the table already.

    Raises:
        DatasetError: As :func:`read_table`.
    """
    columns = _grouped(columns)
    of_columns = {key: new for key, new in options.rename.items() if key in columns}
    fields = _named_as_fields(in_our_spelling(_renamed(columns, of_columns)))
    _check_columns(fields, columns, kind_name)
    fields, split_notes = _with_ids_and_splits(fields)
    # What is left to rename are the names of splits.
    of_splits = {key: new for key, new in options.rename.items() if key not in columns}
    source = read_content(fields, options._replace(rename=of_splits), layout="table")
    source.notes = [*notes, *split_notes, *source.notes]
    source.left_out += [
        LeftOut(f'column "{key}", as asked') for key, new in of_columns.items() if not new
    ]
    return source


# ---------------------------------------------------------------- columns


def _plain(column: pa.ChunkedArray, name: str) -> Any:
    """Return a column as an array, a list of strings, or a list of arrays of features."""
    kind = column.type
    if is_list(kind):
        inner = kind.value_type
        if is_number(inner) or (is_list(inner) and is_number(inner.value_type)):
            return _sequences(column, name)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    # A null becomes NaN; whole numbers stay whole where none is missing.
    return column.to_numpy() if is_number(column.type) else column.to_pylist()


def _sequences(column: pa.ChunkedArray, name: str) -> list[NDArray[np.float32]]:
    """Return the lists of a column as sequences ``[n, d]``; a missing one has no steps.

    Raises:
        DatasetError: If the steps of a clip have different widths.
    """
    sequences: list[NDArray[np.float32]] = []
    is_nested = is_list(column.type.value_type)
    for row, value in enumerate(column):
        steps = value.values
        if steps is None:
            sequences.append(np.zeros((0, 0), dtype=np.float32))
            continue
        widths = np.array([len(steps)])
        if is_nested:
            widths = pc.list_value_length(steps).fill_null(0).to_numpy(zero_copy_only=False)
        if (widths != widths[:1]).any():
            raise DatasetError(
                f'column "{name}", row {row + 1}: steps of different widths, '
                f"{widths.min()} and {widths.max()}.\n"
                f"  Expected as many numbers in every step.\n  {LAYOUTS}"
            )
        flat = steps.flatten() if is_nested else steps
        numbers = flat.to_numpy(zero_copy_only=False).astype(np.float32)
        width = int(widths[0]) if len(widths) else 0
        sequences.append(numbers.reshape(len(widths), width))
    return sequences


def _grouped(columns: Columns) -> Columns:
    """Join numbered columns of numbers, ``audio_0`` to ``audio_24``, to arrays ``[clips, d]``."""
    numbered: dict[str, dict[int, str]] = {}
    for column, values in columns.items():
        match = _NUMBERED.fullmatch(column)
        if match and isinstance(values, np.ndarray):
            numbered.setdefault(match["name"], {})[int(match["number"])] = column
    fields = dict(columns)
    for name, members in numbered.items():
        is_ours = name.removeprefix(_FEATURES) in MODALITIES
        if name in columns or (len(members) < FEWEST_NUMBERED and not is_ours):
            continue
        _check_numbering(name, members)
        for column in members.values():
            del fields[column]
        in_order = [columns[members[number]] for number in sorted(members)]
        fields[name] = np.stack([values.astype(np.float64) for values in in_order], axis=1)
    return fields


def _check_numbering(name: str, members: Mapping[int, str]) -> None:
    """Refuse numbered columns with gaps: a missing one would shift those that follow it."""
    first = min(members)
    in_order = enumerate(sorted(members), start=first)
    missing = next((expected for expected, number in in_order if number != expected), None)
    if first > 1 or missing is not None:
        absent = f"{name}_{0 if missing is None else missing}"
        raise DatasetError(
            f"the columns {members[first]} to {members[max(members)]} are numbered with gaps: "
            f'"{absent}" is missing.\n'
            f"  Expected {name}_0, {name}_1, ... without gaps.\n  {LAYOUTS}"
        )


def _renamed(columns: Columns, names: Mapping[str, str]) -> Columns:
    """Rename columns as the user said; a column that gets an empty name is left out.

    Raises:
        DatasetError: If two columns would have the same name.
    """
    fields: Columns = {}
    for column, values in columns.items():
        name = names.get(column, column)
        if name in fields or (name != column and name in columns and name not in names):
            raise DatasetError(
                f'two columns would be called "{name}".\n'
                f'  Expected one. Leave the other out: --rename "{name}="\n  {LAYOUTS}'
            )
        if name:
            fields[name] = values
    return fields


def _named_as_fields(columns: Columns) -> Columns:
    """Return the columns under the names of fields; the spoken text becomes ``raw_text``."""
    fields: Columns = {}
    for column, values in columns.items():
        name = _OTHER_NAMES.get(column, column)
        if name.startswith(_FEATURES) and name.removeprefix(_FEATURES) in MODALITIES:
            name = name.removeprefix(_FEATURES)
        elif name == "text" and not _is_features(values):
            name = "raw_text" if "raw_text" not in columns else "text beside raw_text"
        if name in _OPTIONAL and not _is_features(values) and _is_unknown(values):
            continue
        if name in fields:
            raise DatasetError(
                f'two columns hold {name}, one of them called "{column}".\n'
                f'  Expected one. Leave one out: --rename "{column}="\n  {LAYOUTS}'
            )
        fields[name] = _label_rows(values) if name == "label" else values
    return fields


def _label_rows(values: Any) -> Any:
    """Return labels of several numbers as one array ``[clips, k]``, NaN where they are unknown."""
    if not _is_features(values) or isinstance(values, np.ndarray):
        return values
    width = max(row.size for row in values)
    return [row.reshape(-1) if row.size else np.full(width, np.nan) for row in values]


def _is_features(values: Any) -> bool:
    """Tell whether a column holds arrays, not strings or one number per clip."""
    if isinstance(values, np.ndarray):
        return values.ndim > 1
    return any(isinstance(value, np.ndarray) for value in values[:1])


def _is_unknown(values: Any) -> bool:
    return all(value is None or value == "" or value != value for value in values)


def _check_columns(fields: Columns, columns: Columns, kind_name: str) -> None:
    """Refuse a table without splits or features, with what to do about it."""
    for name in (*MODALITIES, "raw_text"):
        shown = str(next(iter(fields.get(name, ())), ""))
        is_array = name in MODALITIES or _ARRAY_AS_TEXT.fullmatch(shown)
        if name in fields and is_array and not _is_features(fields[name]):
            raise DatasetError(_no_features("text" if name == "raw_text" else name, shown))
    listed = ", ".join(list(columns)[:SHOWN]) + ", ..." * (len(columns) > SHOWN)
    has_features = any(_is_features(v) for name, v in fields.items() if name != "label")
    if not has_features and "raw_text" not in fields:
        raise DatasetError(
            f"{kind_name} without features or text; its columns are {listed}.\n"
            "  Expected text, or features_text, features_audio or features_vision with lists of "
            "numbers (Parquet), or columns audio_0, audio_1, ...\n"
            "  From recordings, mmcl extract FOLDER makes them: docs/your-own-video.md\n"
            f"{_renaming_hint(columns)}"
            f"  {LAYOUTS}"
        )
    # Clips without labels can only be predicted, so their splits do not matter.
    is_labelled = any("label" in name for name in fields)
    if is_labelled and not fields.keys() & {*SPLIT_FIELDS, "video_id"}:
        near = next((name for name, values in columns.items() if _names_splits(values)), None)
        hint = f' If "{near}" is it: --rename "{near}=split"' if near else ""
        raise DatasetError(
            f"{kind_name} in which no column names the split of a clip; its columns are "
            f"{listed}.\n"
            f'  Expected a column "split" with train, valid or test.{hint}\n'
            '  Or a column "video_id": whole recordings are then split by it.\n'
            f"  {LAYOUTS}"
        )


def _renaming_hint(columns: Columns) -> str:
    """Return how to name the text of a table: a line, or nothing if no column holds strings."""
    firsts = {name: next(iter(values), None) for name, values in columns.items()}
    strings = {name: len(value) for name, value in firsts.items() if isinstance(value, str)}
    if not strings:
        return ""
    longest = max(strings, key=strings.__getitem__)
    return f'  If "{longest}" is the text: mmcl corpus convert SRC DST --rename "{longest}=text"\n'


def _with_ids_and_splits(fields: Columns) -> tuple[Columns, list[str]]:
    """Add ids (recording/clip) and splits (by whole recordings) if the table has none."""
    fields, notes = dict(fields), []
    if "id" not in fields and {"video_id", "clip_id"} <= fields.keys():
        pairs = zip(fields["video_id"], fields["clip_id"], strict=True)
        fields["id"] = [f"{video}/{clip}" for video, clip in pairs]
    if not fields.keys() & {*SPLIT_FIELDS, "video_id"}:
        fields["split"] = ["test"] * len(next(iter(fields.values())))
        notes.append("there are no labels and no column names the split: all clips are in test")
    elif not fields.keys() & set(SPLIT_FIELDS):
        fields["split"] = [split_of(str(video)) for video in fields["video_id"]]
        notes.append(
            "no column names the split: whole recordings went to train, valid and test by a hash "
            'of video_id (for others: a column "split")'
        )
    return fields, notes


def _names_splits(values: Any) -> bool:
    """Tell whether the cells of a column are names of splits."""
    return not _is_features(values) and all(str(v).strip().lower() in SPLIT_NAMES for v in values)


def _no_features(name: str, found: str) -> str:
    return (
        f'column "{name}" holds {found[:40]!r}, not numbers of each step.\n'
        "  Expected a list of numbers, or of lists. A csv file cannot hold these: write Parquet "
        f"(DataFrame.to_parquet), or columns {name}_0, {name}_1, ...\n  {LAYOUTS}"
    )
