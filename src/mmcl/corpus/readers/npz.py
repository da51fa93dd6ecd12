"""npz files: the layout to write when your own data fits none of the others.

Arrays are named ``SPLIT/FIELD`` (or ``SPLIT_FIELD``), with SPLIT one of ``train``, ``valid``
and ``test``:

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

import struct
import tokenize
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from mmcl.corpus.readers.content import read_content
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import SourceFile, as_texts
from mmcl.errors import DatasetError, UnsafePickleError
from mmcl.limits import Budget, num_places
from mmcl.types import MODALITIES

__all__ = ["read_npz"]

TEXT_FIELDS = ("id", "ids", "raw_text", "video_id", "clip_id", "speaker", "annotations", "names")


def read_npz(path: Path, options: ReadOptions) -> SourceFile:
    """Read an npz file.

    Raises:
        UnsafePickleError: If one of its arrays is a pickle.
        DatasetError: If it is damaged or its arrays have other names.
    """
    arrays = _load_arrays(path)
    content: dict[str, Any] = {}
    for key, array in arrays.items():
        split, _, field = key.partition("/")
        if field:
            content.setdefault(split, {})[field] = array
        elif key != "names":
            content[key] = array
    source = read_content(content, options, layout="npz")
    if "names" in arrays:
        source.names = tuple(as_texts(arrays["names"], 'array "names"'))
        source.fields = (*source.fields, "names")
    return source


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    key, arrays = "", {}
    budget = Budget(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # All sizes are looked at before anything is unpacked.
            budget.check(num_bytes=sum(entry.file_size for entry in archive.infolist()))
            for entry in archive.infolist():
                key = entry.filename.removesuffix(".npy")
                arrays[key] = _read_array(archive, entry, budget)
    except _DAMAGED as error:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise UnsafePickleError(
                f'{path}: array "{key}" is a pickle of objects; nothing of it was run.\n'
                "  Expected arrays of numbers or strings only.\n"
                f"  {_advice(key.rpartition('/')[2])}"
            ) from None
        raise DatasetError(
            f"{path}: the npz file is cut short or damaged ({error}).\n"
            "  Expected a whole npz file. Fetch or copy it again.\n"
            f"  Test the copy: unzip -t {path}"
        ) from None
    return arrays


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: Budget) -> NDArray[Any]:
    """Read an array, unless its header declares more than the archive holds of it.

    Raises:
        ValueError: If it does, or is no array of numbers or strings.
    """
    with archive.open(entry) as file:
        read_header = _HEADERS.get(npy.read_magic(file))
        if read_header is None:
            raise ValueError(f"{entry.filename} is of an unknown version")
        shape, _, dtype = read_header(file)
        held = entry.file_size - file.tell()
    if not dtype.hasobject and dtype.itemsize * prod(shape) > held:
        raise ValueError(
            f"{entry.filename} declares {dtype.itemsize * prod(shape):,} bytes and holds {held:,}"
        )
    budget.check(num_objects=num_places(shape))
    with archive.open(entry) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, RuntimeError, NotImplementedError, TypeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError, MemoryError),
)


def _advice(field: str) -> str:
    """Say how to save a field that was saved as an array of objects."""
    if field in MODALITIES:
        return (
            "Clips of different lengths: pad them with zeros to one array [clips, steps, width], "
            f"and save how many steps each has as {field}_lengths."
        )
    if field in TEXT_FIELDS:
        return f'Save it as strings: np.asarray({field}, "U")'
    return (
        f'Save it as numbers or strings: np.asarray({field}, "float64") or np.asarray({field}, "U")'
    )
