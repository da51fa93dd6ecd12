"""npz files: the layout to write when your own data fits none of the others.

Arrays are named ``SPLIT/FIELD``, with SPLIT one of ``train``, ``valid``, ``test``:

==================  =========================================================
``train/text``      numbers ``[clips, steps, width]`` or ``[clips, width]``;
                    ``audio`` and ``vision`` the same; leave out what is absent
``train/text_lengths``  whole numbers ``[clips]``: the real steps of each clip
``train/labels``    floating ``[clips]``: scores; whole ``[clips]``: classes;
                    ``[clips, emotions]``: 0 or 1 for each emotion
``train/ids``       strings ``[clips]``
``train/raw_text``  strings ``[clips]``
``names``           strings: of the classes or emotions, in label order
==================  =========================================================

Every array must be of numbers or strings: an array of objects is a pickle and is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.foreign import (
    LAYOUTS,
    SPLIT_NAMES,
    Foreign,
    ForeignSplit,
    as_emotions,
    as_numbers,
    as_texts,
    named_splits,
)
from mmcl.corpus.readers.plain import ignored_fields, split_of_fields
from mmcl.errors import DatasetError, UnsafePickleError
from mmcl.types import MODALITIES, SplitName, TaskKind

__all__ = ["read_npz"]

_KEPT = frozenset((*MODALITIES, *(f"{m}_lengths" for m in MODALITIES), "labels", "ids", "raw_text"))


def read_npz(path: Path) -> Foreign:
    """Read an npz file.

    Raises:
        UnsafePickleError: If one of its arrays is a pickle.
        DatasetError: If it is damaged or its arrays are named otherwise.
    """
    arrays = _load(path)
    nested: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        split, _, field = key.partition("/")
        if field and split in SPLIT_NAMES:
            nested.setdefault(split, {})[field] = array
    found = named_splits(nested)
    if not any(m in fields for _, fields in found for m in MODALITIES):
        listed = ", ".join(sorted(arrays)[:5]) or "nothing"
        raise DatasetError(
            f"{path}: unknown layout; this npz holds {listed}.\n"
            '  Expected arrays named like "train/text", "train/audio" and "train/labels".\n'
            f"  {LAYOUTS}"
        )
    splits = [_split(name, fields) for name, fields in found]
    return Foreign("npz", splits, _names(arrays, splits), ignored_fields(found, _KEPT))


def _load(path: Path) -> dict[str, NDArray[Any]]:
    key = ""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {}
            for key in archive.files:
                arrays[key] = archive[key]
            return arrays
    except ValueError as fault:
        if "allow_pickle" in str(fault):
            raise UnsafePickleError(
                f'{path}: array "{key}" is a pickle of objects; nothing of it was run.\n'
                "  Expected arrays of numbers or strings only.\n"
                f'  Make it one before saving, for example: np.asarray({key.split("/")[-1]}, "U")'
            ) from None
        raise DatasetError(_damaged(path, fault)) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as fault:
        raise DatasetError(_damaged(path, fault)) from None


def _damaged(path: Path, fault: Exception) -> str:
    return (
        f"{path}: the npz file is cut short or damaged ({fault}).\n"
        "  Expected a whole npz file. Fetch or copy it again.\n"
        f"  Test the copy: unzip -t {path}"
    )


def _split(name: SplitName, fields: dict[str, Any]) -> ForeignSplit:
    renamed = {("id" if key == "ids" else key): value for key, value in fields.items()}
    split = split_of_fields(name, {k: v for k, v in renamed.items() if k != "labels"})
    labels = fields.get("labels")
    if labels is not None:
        what = f'split "{name}": labels'
        if labels.ndim > 1 and labels.size != len(labels):
            split.labels["emotions"] = as_emotions(labels, what)
        else:
            kind: TaskKind = "classes" if labels.dtype.kind in "iub" else "regression"
            split.labels[kind] = as_numbers(labels, what)
    return split


def _names(
    arrays: dict[str, NDArray[Any]], splits: list[ForeignSplit]
) -> dict[TaskKind, tuple[str, ...]]:
    if "names" not in arrays:
        return {}
    names = tuple(as_texts(arrays["names"]))
    kinds = {kind for split in splits for kind in split.labels if kind != "regression"}
    return dict.fromkeys(kinds, names)
