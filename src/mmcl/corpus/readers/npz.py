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

from mmcl.corpus.readers.dict_of_splits import read_dict_of_splits
from mmcl.corpus.readers.source_file import LAYOUTS, SPLIT_NAMES, SourceFile, as_texts, named_splits
from mmcl.errors import DatasetError, UnsafePickleError
from mmcl.types import MODALITIES

__all__ = ["read_npz"]


def read_npz(path: Path) -> SourceFile:
    """Read an npz file.

    Raises:
        UnsafePickleError: If one of its arrays is a pickle.
        DatasetError: If it is damaged or its arrays have other names.
    """
    arrays = _load_arrays(path)
    splits: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        split, _, field = key.partition("/")
        if field and split in SPLIT_NAMES:
            splits.setdefault(split, {})["id" if field == "ids" else field] = array
    if not any(modality in fields for fields in splits.values() for modality in MODALITIES):
        listed = ", ".join(sorted(arrays)[:5]) or "nothing"
        raise DatasetError(
            f"{path}: unknown layout; this npz holds {listed}.\n"
            '  Expected arrays named like "train/text", "train/audio" and "train/labels".\n'
            f"  {LAYOUTS}"
        )
    source = read_dict_of_splits(named_splits(splits), "npz")
    if "names" in arrays:
        kinds = {kind for split in source.splits for kind in split.labels}
        source.names = dict.fromkeys(kinds - {"regression"}, tuple(as_texts(arrays["names"])))
    return source


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    key, arrays = "", {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise UnsafePickleError(
                f'{path}: array "{key}" is a pickle of objects; nothing of it was run.\n'
                "  Expected arrays of numbers or strings only.\n"
                f'  Make it one before saving, for example: np.asarray({key.split("/")[-1]}, "U")'
            ) from None
        raise DatasetError(
            f"{path}: the npz file is cut short or damaged ({error}).\n"
            "  Expected a whole npz file. Fetch or copy it again.\n"
            f"  Test the copy: unzip -t {path}"
        ) from None
    return arrays
