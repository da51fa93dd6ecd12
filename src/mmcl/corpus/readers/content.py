"""The content of a foreign file, or arrays in memory, as a source file: names and layout.

These forms are understood:

- ``{split: {field: values}}``: the common layout, MMSA's and MulT's
- ``{field: {split: values}}``
- ``{"train_text": values, "train_labels": values, ...}``: split and field in one name
- ``{field: values}`` with a field ``split`` (or ``mode``) that names the split of every clip
- ``{split: [{field: value}, ...]}`` or ``{split: {id: {field: value}}}``: a dict per clip
- ``[{"split": split, field: value}, ...]``: the same without a dict of splits
- ``{split: [((words, visual, acoustic), label, segment), ...]}``: MAG-BERT's
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmcl.corpus.readers.dict_of_splits import (
    FIELDS,
    SPLIT_FIELDS,
    DictLayout,
    is_split,
    layout_of,
    read_dict_of_splits,
)
from mmcl.corpus.readers.field_names import (
    check_field_names,
    check_renaming,
    in_our_spelling,
    renamed,
    suggested_name,
)
from mmcl.corpus.readers.magbert import read_magbert
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    SPLIT_NAMES,
    LeftOut,
    SourceFile,
    as_texts,
    free_splits,
    named_splits,
    split_of,
    text_of,
)
from mmcl.errors import DatasetError, did_you_mean
from mmcl.types import SPLITS, SplitName

__all__ = ["read_content"]

_VALUES = (np.ndarray, str, bytes, int, float)
SEPARATORS = "/_.-"  # between split and field in one name
NAMES_SHOWN = 3  # in a message
LONGEST_NAME = 200  # letters


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
    content = _fields_of_clips(content) if _lists_clips(content) else content
    if isinstance(content, Mapping):
        content = _renamed_content(_with_text_keys(content), options.rename)
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
            free = free_splits(split_keys)
            source.left_out += [*left_out, *(_other_key(*item, free) for item in others.items())]
            return source
    raise DatasetError(_unknown_layout(content, layout))


# ---------------------------------------------------------------- one form for all


def _lists_clips(value: Any) -> bool:
    """Tell whether a value is a list with a dict of fields for every clip."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_split, value))


def _fields_of_clips(clips: Collection[Mapping[Any, Any]]) -> dict[str, Any]:
    """Turn a dict per clip into a list per field; None where a clip does not have the field."""
    fields = dict.fromkeys(key for clip in clips for key in clip)
    return {text_of(field): [clip.get(field) for clip in clips] for field in fields}


def _with_text_keys(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a dict whose keys are strings, as are those of dicts in it; clips become fields."""
    plain = {text_of(key): value for key, value in content.items()}
    clips = plain.values()
    if clips and all(is_split(clip) and any(f in clip for f in SPLIT_FIELDS) for clip in clips):
        return {"id": list(plain), **_fields_of_clips(clips)}
    has_fields = any(key in FIELDS for key in plain)
    return plain if has_fields else {key: _as_fields(value) for key, value in plain.items()}


def _as_fields(value: Any) -> Any:
    """Return the clips of a split, listed or by their ids, as fields; anything else as it is."""
    if _lists_clips(value):
        return _fields_of_clips(value)
    if not isinstance(value, Mapping):
        return value
    if value and all(is_split(clip) for clip in value.values()):
        return {"id": [text_of(key) for key in value], **_fields_of_clips(value.values())}
    return {text_of(key): values for key, values in value.items()}


def _divided(content: dict[str, Any]) -> dict[str, Any]:
    """Divide names such as ``train_text`` or ``text_train`` into splits of fields."""
    if any(key in FIELDS for key in content) or named_splits(content):
        return content
    parts = {key: _split_and_field(key) for key in content}
    if not any(split_of(split) and suggested_name(field) for split, field in parts.values()):
        return content
    divided: dict[str, Any] = {}
    for key, value in content.items():
        split, field = parts[key]
        if field:
            divided.setdefault(split, {})[field] = value
        else:
            divided[key] = value
    return divided


def _split_and_field(key: str) -> tuple[str, str]:
    """Return the parts of a name that holds a split, or else a field; two empty ones if neither.

    Example:
        >>> _split_and_field("train_text"), _split_and_field("audio_lengths_dev")
        (('train', 'text'), ('dev', 'audio_lengths'))
        >>> _split_and_field("train_set_id"), _split_and_field("eval/labels")
        (('train_set', 'id'), ('eval', 'labels'))
    """
    # In a name of a million letters there would be a million places to divide it at.
    places = [place for place, letter in enumerate(key[:LONGEST_NAME]) if letter in SEPARATORS]
    pairs = [(key[:place], key[place + 1 :]) for place in places]
    pairs += [(end, start) for start, end in pairs]
    ranked = sorted(pairs, key=lambda pair: (pair[1] not in FIELDS, not split_of(pair[0])))
    # A known field and a known split, else one of them.
    found = [pair for pair in ranked if pair[1] in FIELDS or (split_of(pair[0]) and pair[1])]
    return found[0] if found else ("", "")


def _renamed_content(content: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename splits and their fields as the user said, and spell fields as we do."""
    divided = _divided(renamed(content, names))
    inner = [key for value in divided.values() if isinstance(value, Mapping) for key in value]
    column = next((content[key] for key in SPLIT_FIELDS if key in content), ())
    of_clips = as_texts(column, f'field "{"/".join(SPLIT_FIELDS)}"') if names else ()
    check_renaming(names, [*content, *divided, *inner, *of_clips])
    return in_our_spelling(
        {
            key: in_our_spelling(renamed(value, names)) if isinstance(value, Mapping) else value
            for key, value in renamed(divided, names).items()
        }
    )


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
        names_of_rows = as_texts(content[column], f'field "{column}"')
        return _splits_of_rows(fields, column, names_of_rows, names)
    return content, []


def _splits_of_rows(
    fields: Mapping[str, Any], column: str, split_of_row: Sequence[str], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[LeftOut]]:
    """Divide fields that list all clips into splits; return these, and the clips of no split.

    Raises:
        DatasetError: If a field lists another number of clips, or no clip is of a split.
    """
    for field, values in fields.items():
        if not _is_listed(values) or len(values) != len(split_of_row):
            count = len(values) if _is_listed(values) else "no list of"
            raise DatasetError(
                f'field "{field}" has {count} clips, the names of the splits '
                f"{len(split_of_row)}.\n  Every field must list the same clips."
            )
    rows_of: dict[str, list[int]] = {}
    spelled: dict[str, str] = {}  # "Train" and "TRAIN" are one split
    for row, found in enumerate(split_of_row):
        name = names.get(found.strip(), found.strip())
        name = spelled.setdefault(name.lower() if split_of(name) else name, name)
        rows_of.setdefault(name, []).append(row)
    if not named_splits(rows_of) and not set(rows_of) & set(names.values()):
        raise DatasetError(_no_split_named(column, list(rows_of)))
    splits: dict[str, Any] = {}
    left_out, free = [], free_splits(rows_of)
    for name, rows in rows_of.items():
        if split_of(name):
            splits[name] = {field: _taken(values, rows) for field, values in fields.items()}
        elif name not in names.values():
            what = f'clips of split "{name}"'
            left_out.append(_no_split(what, name, len(rows), next(free, "train")))
    return splits, left_out


def _is_listed(values: Any) -> bool:
    """Tell whether values are a list or array with an item per clip."""
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)


def _no_split_named(column: str, names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:NAMES_SHOWN]) or "none"
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    renaming = " ".join(
        f'--rename "{name}={split}"' for name, split in zip(names, SPLITS, strict=False)
    )
    return (
        f'field "{column}" holds no name of a split, but {shown}{more}.\n'
        f"  Expected train, valid or test for every clip.\n"
        f"  If these are the splits, say which is which: {renaming}\n  {LAYOUTS}"
    )


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
    named = check_field_names(fields)
    if not any(is_split(split) for split in splits.values()):
        return None
    source = read_dict_of_splits(splits, layout or layout_of(splits))
    hinted = {part.what: part for part in named}
    source.left_out = [hinted.get(part.what, part) for part in source.left_out]
    return source


def _is_magbert_split(split: Any) -> bool:
    """Tell whether a split is a list whose first clip, if any, has three parts."""
    return isinstance(split, list | tuple) and all(
        isinstance(clip, list | tuple) and len(clip) == 3 for clip in split[:1]
    )


def _other_key(key: str, value: Any, free: Iterator[SplitName]) -> LeftOut:
    """Describe a key beside the splits: perhaps a split by another name."""
    clips = 0
    if isinstance(value, Mapping):
        listed = (values for field, values in value.items() if str(field) in FIELDS)
        clips = max((len(v) for v in listed if _is_listed(v)), default=0)
    elif isinstance(value, list | tuple) and value and _is_magbert_split(value):
        clips = len(value)
    if clips:
        return _no_split(f'key "{key}"', key, clips, next(free, None))
    return LeftOut(f'key "{key}", which is no split')


def _no_split(what: str, name: str, clips: int, free: SplitName | None) -> LeftOut:
    """Describe clips of no split; ``free`` is a split that they could be."""
    near = did_you_mean(name.lower(), SPLIT_NAMES).rstrip("?")
    which = f'say which it is: --rename "{name}={free}"; ' if free else ""
    fix = f'{which}to leave it out: --rename "{name}="'
    if not name:  # an empty cell, which no option can name
        fix = "write train, valid or test for these clips"
    clips_text = f"{clips} clip{'s' * (clips != 1)}"
    return LeftOut(f"{what}, {clips_text}, since it names no split{near}", clips, fix)


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
    """Say what a value holds: its keys, and what the first of its values is."""
    if not isinstance(content, Mapping):
        kind = "ndarray" if isinstance(content, np.ndarray) else type(content).__name__
        is_list = isinstance(content, list | tuple) and len(content) > 0
        return f"one {kind}" + (f" of {type(content[0]).__name__}s" if is_list else "")
    keys = [repr(text_of(key)) for key in content]
    more = ", ..." if len(keys) > 5 else ""
    inner = next(iter(content.values()), None)
    within = (
        ""
        if inner is None or isinstance(inner, _VALUES)
        else f", and in the first of them {_outline(inner)}"
    )
    return f"a dict with {', '.join(keys[:5]) or 'no keys'}{more}{within}"
