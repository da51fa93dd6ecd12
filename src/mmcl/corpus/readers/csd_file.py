"""A computational sequence of CMU-MultimodalSDK (``.csd``), read from HDF5 as plain data.

The file holds one feature set of a whole corpus::

    <name>/data/<video>/features    [n, d] numbers, or byte strings for words
    <name>/data/<video>/intervals   [n, 2] start and end in seconds from the video's start
    <name>/metadata/...             "dataset name" among others

A video may be several entries ``<video>[0]``, ``<video>[1]``, ... as the SDK writes them after an
alignment.

HDF5 can point to other files (external links, external or virtual data sets) and can declare
arrays much larger than the file. Here only arrays that lie in the file itself are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.errors import DatasetError
from mmcl.limits import MOST_DIGITS

__all__ = ["CsdFile", "Entry", "Frames", "open_csd"]

MOST_COMPRESSED = 1100  # deflate makes arrays at most 1032 times smaller
FREE_BYTES = 1 << 20  # arrays up to this size may be declared without being stored
_WHOLE = "Expected NAME/data/VIDEO/features and intervals, as CMU-MultimodalSDK writes them."


class Frames(NamedTuple):
    """The steps of one video.

    Attributes:
        intervals: Start and end of each step in seconds, float64 ``[n, 2]``, sorted by start.
        features: Numbers or strings ``[n, d]``.
        numbers: Number of each step's segment where the file's entries are segments, int64
            ``[n]``; else its row.
    """

    intervals: NDArray[np.float64]
    features: NDArray[Any]
    numbers: NDArray[np.int64]


class Entry(NamedTuple):
    """One group of ``data``: a video, or a numbered part of one."""

    key: str
    number: int | None


@dataclass(frozen=True)
class CsdFile:
    """An open file.

    Attributes:
        path: The file.
        name: Name of the sequence, ``COVAREP`` for example.
        dataset: Name of the corpus as the file's metadata has it; may be empty.
        videos: Entries by video.
        data: The open group that holds the entries.
    """

    path: Path
    name: str
    dataset: str
    videos: dict[str, list[Entry]]
    data: h5py.Group

    def read(self, video: str) -> Frames:
        """Read the steps of a video; the arrays are empty if the file does not have it.

        Raises:
            DatasetError: If an array is missing, not plain, or does not fit the other.
        """
        parts = [self._read_entry(entry) for entry in self.videos.get(video, ())]
        if not parts:
            return Frames(np.zeros((0, 2)), np.zeros((0, 0), np.float32), np.zeros(0, np.int64))
        widths = {part.features.shape[1] for part in parts}
        if len(widths) > 1:
            raise self._error(video, f"features are {sorted(widths)} wide", "one width")
        intervals, features, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(intervals[:, 0], kind="stable")
        return Frames(intervals[order], features[order], numbers[order])

    def _read_entry(self, entry: Entry) -> Frames:
        group = self._hard(self.data, entry.key, h5py.Group)
        intervals = self._array(group, "intervals", entry.key)
        features = self._array(group, "features", entry.key)
        if intervals.ndim == 1 and intervals.shape == (2,):
            intervals, features = intervals[np.newaxis], features[np.newaxis]
        features = features[:, np.newaxis] if features.ndim == 1 else features
        if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype.kind not in "fiu":
            found = f"intervals are {intervals.dtype} {list(intervals.shape)}"
            raise self._error(entry.key, found, "numbers [steps, 2]: start and end in seconds")
        count = len(intervals)
        if features.ndim != 2 or len(features) != count or not features.shape[1]:
            found = f"features have shape {list(features.shape)} for {count} intervals"
            raise self._error(entry.key, found, "[steps, width] with as many steps")
        times = intervals.astype(np.float64)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.isfinite(times).all(axis=1) & (times[:, 0] <= times[:, 1]))
        if wrong.any():
            row = int(wrong.argmax())
            found = f"interval {row} is {times[row, 0]:g} to {times[row, 1]:g} seconds"
            raise self._error(entry.key, found, "a start before an end, both finite")
        numbers = np.arange(count) if entry.number is None else np.full(count, entry.number)
        return Frames(times, features, numbers.astype(np.int64))

    def _array(self, group: h5py.Group, key: str, where: str) -> NDArray[Any]:
        stored = self._hard(group, key, h5py.Dataset)
        is_string = h5py.check_string_dtype(stored.dtype) is not None
        if stored.is_virtual or stored.external:
            raise self._error(where, f"{key} lies in another file", "arrays in the file itself")
        if stored.dtype.kind not in "fiu" and not is_string:
            raise self._error(where, f"{key} is of type {stored.dtype}", "numbers or strings")
        size = math.prod(stored.shape or ()) * stored.dtype.itemsize
        if size > FREE_BYTES + MOST_COMPRESSED * stored.id.get_storage_size():
            found = f"{key} declares {size:,} bytes and stores {stored.id.get_storage_size():,}"
            raise self._error(where, found, "no more than the file holds")
        if not is_string:
            return np.asarray(stored[()])
        texts = np.asarray(stored.asstr(errors="replace")[()], dtype=object)
        return np.array([str(text).rstrip("\x00") for text in texts.ravel()], dtype="U").reshape(
            texts.shape
        )

    def _hard(self, group: h5py.Group, key: str, kind: type[Any]) -> Any:
        """Return a member that lies in this file and is of the kind that is expected."""
        link = group.get(key, getlink=True)
        member = group[key] if isinstance(link, h5py.HardLink) else None
        if not isinstance(member, kind):
            what = "missing" if link is None else "no plain array or group of this file"
            raise self._error(group.name.rpartition("/")[2], f'"{key}" is {what}', "a plain one")
        return member

    def _error(self, where: str, found: str, expected: str) -> DatasetError:
        return DatasetError(
            f'{self.path}, "{where}": {found}.\n  Expected {expected}. {_WHOLE}\n  {LAYOUTS}'
        )


@contextmanager
def open_csd(path: Path) -> Iterator[CsdFile]:
    """Open a file for the block.

    Raises:
        DatasetError: If it is damaged, or HDF5 of another make.
    """
    try:
        with h5py.File(path, "r") as file:
            root = _root(file)
            if root is None:
                names = ", ".join(map(str, list(file)[:5])) or "nothing"
                raise DatasetError(
                    f"{path}: an HDF5 file with {names}, but no .csd file of CMU-MultimodalSDK.\n"
                    f"  {_WHOLE}\n  Save its arrays as npz with the names of their splits and "
                    f"fields.\n  {LAYOUTS}"
                )
            videos: dict[str, list[Entry]] = {}
            for key in root["data"]:
                if not isinstance(key, str):  # h5py returns it as bytes
                    raise DatasetError(
                        f"{path}: the name of a video is no UTF-8, {key!r}.\n"
                        f"  {_WHOLE} Fetch or copy it again.\n  {LAYOUTS}"
                    )
                video = key.partition("[")[0]
                videos.setdefault(video, []).append(Entry(key, _segment_number(path, key)))
            name = root.name.strip("/")
            yield CsdFile(path, name, _dataset_name(root), videos, root["data"])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path}: an HDF5 file (CMU-MultimodalSDK's .csd files are HDF5) that is cut short or "
            f"damaged ({reason}).\n"
            "  Expected a whole file. Fetch or copy it again; then give all .csd files of the "
            "corpus at once:\n"
            "  mmcl corpus convert text.csd audio.csd vision.csd labels.csd --out DST\n"
            f"  {LAYOUTS}"
        ) from None


def _segment_number(path: Path, key: str) -> int | None:
    """Return the number in a key ``video[number]``, or None where there is none.

    After two alignments a key is ``video[word][segment]``; the first number is kept.

    Raises:
        DatasetError: If the number has more digits than a machine computes with.
    """
    number = key.partition("[")[2].partition("]")[0]
    if not number.isdecimal():
        return None
    if len(number) > MOST_DIGITS:
        raise DatasetError(
            f'{path}, "{key}": a segment number of {len(number)} digits.\n'
            f"  Expected at most {MOST_DIGITS}. {_WHOLE}\n  {LAYOUTS}"
        )
    return int(number)


def _root(file: h5py.File) -> h5py.Group | None:
    """Return the first group that has a group ``data``, all by links inside the file."""
    for name in file:
        if isinstance(name, str) and isinstance(file.get(name, getlink=True), h5py.HardLink):
            group = file[name]
            if isinstance(group, h5py.Group):
                link = group.get("data", getlink=True)
                if isinstance(link, h5py.HardLink) and isinstance(group["data"], h5py.Group):
                    return group
    return None


def _dataset_name(root: h5py.Group) -> str:
    """Return the corpus that the metadata names, which the SDK stores as JSON in a string."""
    try:
        link = root["metadata"].get("dataset name", getlink=True)
        stored = root["metadata"]["dataset name"] if isinstance(link, h5py.HardLink) else None
        if stored is None or stored.size != 1 or h5py.check_string_dtype(stored.dtype) is None:
            return ""
        text = str(np.ravel(stored.asstr(errors="replace")[()])[0])
    except (KeyError, TypeError, AttributeError):
        return ""
    try:
        return str(json.loads(text))
    except ValueError:
        return text
