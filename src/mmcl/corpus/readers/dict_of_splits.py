"""Dicts of splits, each a dict of fields: the common layout, MMSA's, MulT's, tables and npz files.

Fields, which every layout has in part (:data:`FIELDS`):

- ``text``, ``audio``, ``vision``: ``[clips, steps, d]``, or ``[clips, d]`` for one step per clip
- ``<modality>_lengths``, ``<modality>_present``: real steps, and 0 where it is absent, ``[clips]``
- ``text_bert`` (MMSA): token ids, mask and segments, ``[clips, 3, steps]``
- ``regression_labels``, ``classification_labels``, ``labels`` or ``label``, ``annotations``
  (class names): as :mod:`~mmcl.corpus.readers.choose_task` takes them
- ``regression_labels_T``, ``_A``, ``_V`` (CH-SIMS): scores of single modalities, ``[clips]``
- ``id`` or ``ids``: names, MMSA's ``video$_$clip``, or MulT's rows of (video, start, end)
- ``video_id``, ``clip_id``: the recording, and the name of the clip in it
- ``raw_text``: the spoken text; ``speaker``: who says it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    LeftOut,
    SourceFile,
    SourceSplit,
    as_features,
    as_label_array,
    as_numbers,
    as_texts,
    is_unlabelled,
)
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, Modality, SplitName

__all__ = ["FIELDS", "LABEL_FIELDS", "SPLIT_FIELDS", "DictLayout", "is_split", "layout_of"]
__all__ += ["read_dict_of_splits", "split_ids"]

DictLayout = Literal["plain", "mmsa", "mult", "npz", "table", "arrays"]
"""Layout of a dictionary of splits."""
ID_SEPARATOR = "$_$"
TOKEN_ROWS, MASK_ROW = 3, 1
FIELDS_SHOWN = 8  # in a message
CLIPS_LOOKED_AT = 64  # for token ids in the place of features
FEWEST_TOKENS = 100  # of a vocabulary: smaller whole numbers may be counts of words
MODALITY_LABELS: Mapping[str, Modality] = {
    "regression_labels_T": "text",
    "regression_labels_A": "audio",
    "regression_labels_V": "vision",
}
LABEL_FIELDS = ("regression_labels", "classification_labels", "labels", "label", "annotations")
"""Fields that can hold what is to be predicted."""
FIELDS = frozenset(
    (
        *(f"{m}{ending}" for m in MODALITIES for ending in ("", "_lengths", "_present")),
        *("id", "ids", "video_id", "clip_id", "raw_text", "speaker", "text_bert"),
        *(*LABEL_FIELDS, *MODALITY_LABELS),
    )
)
"""Fields that are read."""
SPLIT_FIELDS = ("split", "mode")
"""Fields or columns that name the split of every clip."""


def is_split(value: Any) -> bool:
    """Tell whether a value is a dict with at least one field that is read."""
    return isinstance(value, Mapping) and any(str(key) in FIELDS for key in value)


def layout_of(splits: Mapping[SplitName, Mapping[str, Any]]) -> DictLayout:
    """Return the layout of a pickled dict of splits, by its fields."""
    for fields in splits.values():
        ids = fields.get("id")
        is_listed = isinstance(ids, list | tuple) or (isinstance(ids, np.ndarray) and ids.ndim)
        first = next(iter(ids), "") if ids is not None and is_listed else ""
        has_mmsa_ids = ID_SEPARATOR in str(first)
        if has_mmsa_ids or any(key in fields for key in ("text_bert", *MODALITY_LABELS)):
            return "mmsa"
    return "mult" if any("labels" in fields for fields in splits.values()) else "plain"


def read_dict_of_splits(
    splits: Mapping[SplitName, Mapping[str, Any]], layout: DictLayout
) -> SourceFile:
    """Read a dict of splits; fields that are unknown are left out and listed."""
    source = SourceFile(layout, [_read_split(*split) for split in splits.items()])
    if layout == "table":  # an empty cell of numbers is NaN
        for split in source.splits:
            numbers = {key: v for key, v in split.labels.items() if v.dtype.kind == "f"}
            split.unlabelled |= {
                key: np.isnan(v.reshape(len(v), -1)).all(axis=1) for key, v in numbers.items()
            }
    keys = {str(key): value for fields in splits.values() for key, value in fields.items()}
    has_content = any(split.features or any(split.texts or ()) for split in source.splits)
    if not has_content and "text_bert" not in keys:
        raise DatasetError(
            "there are neither features nor text; its fields are "
            f"{', '.join(sorted(keys)[:FIELDS_SHOWN])}.\n"
            "  Expected text, audio, vision or raw_text, one of them at least. "
            f'If one has another name: --rename "{min(keys, default="")}=text"\n  {LAYOUTS}'
        )
    source.fields = tuple(sorted(keys.keys() & FIELDS))
    source.left_out = [
        LeftOut(f"field {key}, which is not read") for key in sorted(keys.keys() - FIELDS)
    ]
    for modality in MODALITIES:
        field = f"{modality}_lengths"
        if field in source.fields and modality not in keys:
            source.fields = tuple(other for other in source.fields if other != field)
            source.left_out.append(LeftOut(f"field {field}, since there is no field {modality}"))
    source.notes += _doubtful_features(source)
    if "text_bert" in keys and "text" not in keys:
        what = "text_bert, which holds token ids: there are no vectors of words"
        source.fields = tuple(field for field in source.fields if field != "text_bert")
        source.left_out.append(LeftOut(what))
        source.notes.append(
            "text: absent, since text_bert holds token ids and no vectors; "
            'expected vectors of words as a field "text", [clips, steps, width]'
        )
    return source


def _doubtful_features(source: SourceFile) -> Iterator[str]:
    """Ask about features that are more likely token ids, or steps of a single value."""
    split = max(source.splits, key=lambda split: len(split.features.get("text", ())))
    text = [steps for steps in split.features.get("text", ())[:CLIPS_LOOKED_AT] if steps.size]
    values = np.concatenate([steps.reshape(-1) for steps in text]) if text else np.zeros(0)
    if len(values) and values.max() >= FEWEST_TOKENS and (values == np.abs(np.floor(values))).all():
        yield (
            f"text: whole numbers up to {values.max():g} were read as features; if they are token "
            'ids, leave them out: --rename "text="'
        )
    steps = {m: split.num_steps(m) for m in split.features}
    for modality, sequences in split.features.items():
        width = sequences.shape[2] if isinstance(sequences, np.ndarray) else 0
        if steps[modality] == 1 and width > 1 and width in steps.values():
            yield (
                f"{modality}: read as one step of {width} values; if it is {width} steps of one "
                f"value, store it as [clips, {width}, 1]"
            )


def _read_split(name: SplitName, all_fields: Mapping[str, Any]) -> SourceSplit:
    where = f'split "{name}"'
    fields = {str(key): value for key, value in all_fields.items() if value is not None}
    features = {m: fields[m] for m in MODALITIES if m in fields}
    split = SourceSplit(name, {m: as_features(v, f"{where}: {m}") for m, v in features.items()})

    def numbers(key: str) -> NDArray[np.float64]:
        return as_numbers(fields[key], f"{where}: {key}")

    def texts(key: str) -> list[str]:
        return as_texts(fields[key], f"{where}: {key}")

    split.labels = {
        key: as_label_array(fields[key], f"{where}: {key}") for key in LABEL_FIELDS if key in fields
    }
    split.unlabelled = {key: is_unlabelled(fields[key]) for key in split.labels}
    split.modality_labels = {m: numbers(key) for key, m in MODALITY_LABELS.items() if key in fields}
    for modality in MODALITIES:
        if f"{modality}_lengths" in fields:
            lengths = numbers(f"{modality}_lengths")
            split.lengths[modality] = _whole(lengths, f"{where}: {modality}_lengths")
        if f"{modality}_present" in fields:
            split.present[modality] = numbers(f"{modality}_present") != 0
    if "text_bert" in fields and "text" in split.features:
        split.step_masks["text"] = _text_mask(fields["text_bert"], where)
    ids = fields.get("id", fields.get("ids"))
    if ids is not None:
        split.ids, split.video_ids, split.clip_ids = split_ids(ids, f"{where}: id")
    if "video_id" in fields:
        split.video_ids = texts("video_id")
    if "clip_id" in fields:
        split.clip_ids = texts("clip_id")
    if "raw_text" in fields:
        split.texts = [text or None for text in texts("raw_text")]
    if "speaker" in fields:
        split.speakers = [text or None for text in texts("speaker")]
    return split


def _whole(lengths: NDArray[np.float64], part: str) -> NDArray[np.int64]:
    """Return lengths as whole numbers; NaN becomes -1, which the checks report."""
    known = np.nan_to_num(lengths, nan=-1.0)
    fractions = known[known != np.floor(known)]
    if len(fractions):
        raise DatasetError(
            f"{part} holds {fractions[0]:g}.\n"
            "  Expected the number of real steps of every clip, a whole number. If these are "
            "shares, multiply them by the steps of the array.\n"
            f'  To leave them out: --rename "{part.rpartition(": ")[2]}="'
        )
    return known.astype(np.int64)


def _text_mask(tokens: Any, where: str) -> NDArray[np.bool_]:
    try:
        tokens = np.asarray(tokens)
    except (ValueError, OverflowError):  # rows of different lengths
        tokens = np.zeros(0)
    if tokens.ndim != 3 or tokens.shape[1] != TOKEN_ROWS or tokens.dtype.kind not in "fiub":
        raise DatasetError(
            f"{where}: text_bert has shape {list(tokens.shape)}.\n"
            f"  Expected [clips, {TOKEN_ROWS}, steps]: token ids, mask and segments.\n  {LAYOUTS}"
        )
    mask: NDArray[np.bool_] = tokens[:, MASK_ROW] != 0
    return mask


def split_ids(ids: Any, part: str) -> tuple[list[str], list[str] | None, list[str] | None]:
    """Return ids, recordings and clips; the latter two are None where an id does not name them.

    The ids are ``video$_$clip``, or an array ``[clips, parts]`` whose first part is the recording.
    ``part`` names them in an error.
    """
    listed = ids.tolist() if isinstance(ids, np.ndarray) else ids
    is_list = isinstance(listed, list | tuple)
    listed = listed if is_list else ()
    rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in listed]
    if rows and all(isinstance(row, list | tuple) and row for row in rows):
        parts = [as_texts(row, part) for row in rows]
        if all(len(names) == 1 for names in parts):  # [clips, 1]
            return split_ids([names[0] for names in parts], part)
        videos = [names[0] for names in parts]
        names = ["_".join(names[1:]) for names in parts]
        joined = [f"{v}{ID_SEPARATOR}{n}" if n else v for v, n in zip(videos, names, strict=True)]
        return joined, videos, names
    texts = as_texts(rows if is_list else ids, part)
    if not texts or not all(ID_SEPARATOR in text for text in texts):
        return texts, None, None
    halves = [text.split(ID_SEPARATOR, 1) for text in texts]
    return texts, [half[0] for half in halves], [half[1] for half in halves]
