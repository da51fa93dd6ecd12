"""The content of a foreign file, or arrays in memory, as a source file: names and layout.

Four forms are understood:

- ``{split: {field: values}}``: the common layout, MMSA's and MulT's
- ``{field: {split: values}}``
- ``{field: values}`` with a field ``split`` (or ``mode``) that names the split of every clip
- ``{split: [((words, visual, acoustic), label, segment), ...]}``: MAG-BERT's
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcl.corpus.readers.dict_of_splits import (
    FIELDS,
    DictLayout,
    is_split,
    layout_of,
    read_dict_of_splits,
)
from mmcl.corpus.readers.field_names import check_field_names, check_renaming, renamed
from mmcl.corpus.readers.magbert import read_magbert
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    SPLIT_NAMES,
    LeftOut,
    SourceFile,
    as_texts,
    named_splits,
)
from mmcl.errors import DatasetError, did_you_mean
from mmcl.types import SplitName

__all__ = ["SPLIT_FIELDS", "read_content"]

SPLIT_FIELDS = ("split", "mode")
"""Fields or columns that name the split of every clip."""


def read_content(
    content: Any, options: ReadOptions, *, layout: DictLayout | None = None
) -> SourceFile:
    """Read plain data in one of the forms above; nothing is checked but names.

    Args:
        content: The data.
        options: Choices of the user; only ``rename`` is used.
        layout: Name of the layout; found by looking where it is None.

    Raises:
        DatasetError: If it has none of the forms, or a name is near to one that would be read.
    """
    left_out: list[LeftOut] = []
    if isinstance(content, Mapping):
        content = _renamed_content(content, options.rename)
        content, left_out = _splits_first(content, options.rename)
        left_out += [
            LeftOut(f'"{key}", as asked') for key, new in options.rename.items() if not new
        ]
        split_keys = named_splits(content)
        splits = {name: content[key] for name, key in split_keys.items()}
        others = {k: v for k, v in content.items() if k not in split_keys.values()}
        source = _read_splits(splits, layout)
        if source is not None:
            source.split_keys = split_keys
            source.left_out += [*left_out, *(_other_key(*item) for item in others.items())]
            return source
    raise DatasetError(_unknown_layout(content, layout))


def _renamed_content(content: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename splits and their fields as the user said."""
    inner = [str(key) for value in content.values() if isinstance(value, Mapping) for key in value]
    column = next((content[key] for key in SPLIT_FIELDS if key in content), ())
    check_renaming(names, [*map(str, content), *inner, *as_texts(column)])
    return {
        key: renamed(value, names) if isinstance(value, Mapping) else value
        for key, value in renamed(content, names).items()
    }


def _splits_first(
    content: dict[str, Any], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[LeftOut]]:
    """Turn fields of splits, or fields with a field ``split``, into splits of fields."""
    if named_splits(content):
        return content, []
    has_fields = any(key in FIELDS for key in content)
    by_split = {k: v for k, v in content.items() if isinstance(v, Mapping) and named_splits(v)}
    if has_fields and by_split:
        keys = dict.fromkeys(key for values in by_split.values() for key in values)
        splits = {key: {f: v[key] for f, v in by_split.items() if key in v} for key in keys}
        return splits | {k: v for k, v in content.items() if k not in by_split}, []
    column = next((name for name in SPLIT_FIELDS if name in content), None)
    if has_fields and column is not None:
        fields = {key: values for key, values in content.items() if key != column}
        return _splits_of_rows(fields, as_texts(content[column]), names)
    return content, []


def _splits_of_rows(
    fields: Mapping[str, Any], split_of_row: Sequence[str], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[LeftOut]]:
    """Divide fields that list all clips into splits; return these, and the clips of no split.

    Raises:
        DatasetError: If a field lists another number of clips.
    """
    for field, values in fields.items():
        if len(values) != len(split_of_row):
            raise DatasetError(
                f'field "{field}" has {len(values)} clips, the names of the splits '
                f"{len(split_of_row)}.\n  Every field must list the same clips."
            )
    rows_of: dict[str, list[int]] = {}
    for row, found in enumerate(split_of_row):
        rows_of.setdefault(names.get(found.strip(), found.strip()), []).append(row)
    splits: dict[str, Any] = {}
    left_out = []
    for name, rows in rows_of.items():
        if name.lower() in SPLIT_NAMES:
            splits[name] = {field: _taken(values, rows) for field, values in fields.items()}
        elif name not in names.values():
            left_out.append(_no_split(f'clips of split "{name}"', name, len(rows)))
    return splits, left_out


def _taken(values: Any, rows: list[int]) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def _read_splits(splits: dict[SplitName, Any], layout: DictLayout | None) -> SourceFile | None:
    """Read splits of either kind; None if they are of neither."""
    if not splits:
        return None
    if all(_is_magbert_split(split) for split in splits.values()):
        return read_magbert(splits)
    if not all(isinstance(split, Mapping) for split in splits.values()):
        return None
    fields = {key: value for split in splits.values() for key, value in split.items()}
    left_out = check_field_names(fields, [])
    if not any(is_split(split) for split in splits.values()):
        return None
    source = read_dict_of_splits(splits, layout or layout_of(splits))
    hinted = {part.what: part for part in left_out}
    source.left_out = [hinted.get(part.what, part) for part in source.left_out]
    return source


def _is_magbert_split(split: Any) -> bool:
    """Tell whether a split is a list whose first clip, if any, has three parts."""
    return isinstance(split, list | tuple) and all(
        isinstance(clip, list | tuple) and len(clip) == 3 for clip in split[:1]
    )


def _other_key(key: str, value: Any) -> LeftOut:
    """Describe a key beside the splits: perhaps a split by another name."""
    clips = 0
    if isinstance(value, Mapping):
        listed = (values for field, values in value.items() if str(field) in FIELDS)
        clips = max((len(v) for v in listed if isinstance(v, np.ndarray | list)), default=0)
    elif isinstance(value, list | tuple) and value and _is_magbert_split(value):
        clips = len(value)
    if clips:
        return _no_split(f'key "{key}"', key, clips)
    return LeftOut(f'key "{key}", which is no split')


def _no_split(what: str, name: str, clips: int) -> LeftOut:
    near = did_you_mean(name.lower(), SPLIT_NAMES)
    clips_text = f"{clips} clip{'s' * (clips != 1)}"
    return LeftOut(
        f"{what}, {clips_text}, since it names no split{near}".rstrip("?"),
        clips,
        f'say which it is: --rename "{name}=test" (or train, valid; nothing after = leaves it out)',
    )


def _unknown_layout(content: Any, layout: DictLayout | None) -> str:
    hint = ""
    if isinstance(content, Mapping):
        candidates = [str(key) for key, value in content.items() if is_split(value)]
        if candidates:
            hint = f'  Say which split each one is: --rename "{candidates[0]}=train"\n'
        elif any(str(key) in FIELDS for key in content):
            hint = (
                '  It has fields and no splits: put them into a dict {"train": ..., "test": ...}, '
                'or add a field "split" that names the split of every clip.\n'
            )
    expected = (
        'a dict of splits "train", "valid" (or "dev", "val") and "test", each a dict with '
        '"text", "audio" or "vision", or a list of ((words, visual, acoustic), label, segment)'
    )
    if layout == "npz":
        expected = 'arrays named like "train/text", "train/audio" and "train/labels"'
    return (
        f"unknown layout; it holds {_outline(content)}.\n  Expected {expected}.\n{hint}  {LAYOUTS}"
    )


def _outline(content: Any) -> str:
    if not isinstance(content, Mapping):
        kind = "ndarray" if isinstance(content, np.ndarray) else type(content).__name__
        return f"one {kind}"
    keys = [repr(str(key)) for key in content]
    more = ", ..." if len(keys) > 5 else ""
    inner = next((v for v in content.values() if isinstance(v, Mapping)), None)
    within = f", and in the first of them {_outline(inner)}" if inner else ""
    return f"a dict with {', '.join(keys[:5]) or 'no keys'}{more}{within}"
