"""Sizes that an Arrow file declares for its compressed parts, read without unpacking any.

pyarrow reserves and fills whatever a file declares, and a small file can declare terabytes. Every
compressed buffer begins with its length when it is unpacked; where the buffers lie is in
metadata in the format of flatbuffers, which no function of pyarrow shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["unpacked_bytes"]

_MAGIC = b"ARROW1"
_FOOTER_END = 10  # bytes: the length of the footer, and the magic once more
_CONTINUES = 0xFFFFFFFF  # stands before the length of a message, but not in files before 2019
_LENGTH = 8  # bytes before a compressed buffer: its length when it is unpacked
_DICTIONARY, _BATCH = 2, 3  # kinds of messages that have buffers
_OLD_COMPRESSION = b"ARROW:experimental_compression"  # in the metadata of a message, in 2020
# Places of fields in the tables of Arrow's Message.fbs and File.fbs.
_KIND, _HEADER, _BODY_LENGTH = 1, 2, 3
_BATCH_OF_DICTIONARY = 1
_BUFFERS, _COMPRESSION = 2, 3
_BLOCKS_OF_DICTIONARIES, _BLOCKS_OF_BATCHES = 2, 3
_BUFFER = np.dtype([("start", "<i8"), ("length", "<i8")])
_BLOCK = np.dtype([("start", "<i8"), ("metadata", "<i4"), ("_", "<i4"), ("body", "<i8")])


def unpacked_bytes(content: pa.Buffer) -> int:
    """Return the bytes that the compressed parts of an Arrow file or stream unpack to.

    Without compression they are 0, since columns are read where they lie.

    Raises:
        ValueError: If its metadata are damaged.
    """
    raw = memoryview(content)
    try:
        messages = _of_file(raw) if raw[: len(_MAGIC)] == _MAGIC else _of_stream(raw)
        return sum(_unpacked(metadata, body) for metadata, body in messages)
    except (struct.error, ValueError, IndexError) as error:
        raise ValueError(f"its metadata are damaged: {error}") from None


class _Table:
    """A table of a flatbuffer, which finds its fields by their numbers; any may be absent."""

    def __init__(self, raw: memoryview, start: int) -> None:
        self._raw, self._start = raw, start

    @classmethod
    def first(cls, raw: memoryview) -> _Table:
        """Return the table that holds the others."""
        return cls(raw, struct.unpack_from("<I", raw)[0])

    def has(self, field: int) -> bool:
        """Tell whether a field is there."""
        return self._place(field) is not None

    def number(self, field: int, form: str) -> int:
        """Return a whole number; 0 where it is absent."""
        place = self._place(field)
        return 0 if place is None else int(struct.unpack_from(form, self._raw, place)[0])

    def table(self, field: int) -> _Table:
        """Return a table inside this one."""
        return _Table(self._raw, self._pointed_at(field))

    def vector(self, field: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """Return a list of equal parts; empty where it is absent."""
        if not self.has(field):
            return np.zeros(0, kind)
        start = self._pointed_at(field)
        (count,) = struct.unpack_from("<I", self._raw, start)
        return np.frombuffer(self._raw, kind, count, start + 4) if count else np.zeros(0, kind)

    def _place(self, field: int) -> int | None:
        """Return where a field lies, by the list of places that the table points back to."""
        places = self._start - struct.unpack_from("<i", self._raw, self._start)[0]
        (size,) = struct.unpack_from("<H", self._raw, places)
        if 4 + 2 * field >= size:
            return None
        (offset,) = struct.unpack_from("<H", self._raw, places + 4 + 2 * field)
        return self._start + offset if offset else None

    def _pointed_at(self, field: int) -> int:
        place = self._place(field)
        if place is None:
            raise ValueError(f"field {field} is missing")
        return place + int(struct.unpack_from("<I", self._raw, place)[0])


def _of_file(raw: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield metadata and body of the messages that the footer of a file lists."""
    end = len(raw) - _FOOTER_END
    (length,) = struct.unpack_from("<i", raw, end)
    if not 0 < length <= end:
        raise ValueError(f"a footer of {length} bytes")
    footer = _Table.first(raw[end - length : end])
    for field in (_BLOCKS_OF_DICTIONARIES, _BLOCKS_OF_BATCHES):
        for start, metadata_length, _, body_length in footer.vector(field, _BLOCK).tolist():
            metadata, _ = _metadata(raw, start)
            body = start + metadata_length
            yield metadata, raw[body : body + body_length]


def _of_stream(raw: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield metadata and body of one message after the other."""
    start = 0
    while start + 4 <= len(raw):
        metadata, body = _metadata(raw, start)
        if not metadata:
            return
        start = body + max(0, _Table.first(metadata).number(_BODY_LENGTH, "<q"))
        yield metadata, raw[body:start]


def _metadata(raw: memoryview, start: int) -> tuple[memoryview, int]:
    """Return the metadata of the message at a place, and where they end."""
    (length,) = struct.unpack_from("<I", raw, start)
    start += 4
    if length == _CONTINUES:
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4
    return raw[start : start + length], start + length


def _unpacked(metadata: memoryview, body: memoryview) -> int:
    """Return the bytes that the buffers of a message unpack to."""
    message = _Table.first(metadata)
    kind = message.number(_KIND, "<B")
    if kind not in (_DICTIONARY, _BATCH):
        return 0
    batch = message.table(_HEADER)
    if kind == _DICTIONARY:
        batch = batch.table(_BATCH_OF_DICTIONARY)
    if not batch.has(_COMPRESSION) and _OLD_COMPRESSION not in bytes(metadata):
        return 0
    buffers = batch.vector(_BUFFERS, _BUFFER).tolist()
    sizes = [struct.unpack_from("<q", body, s)[0] for s, length in buffers if length >= _LENGTH]
    return sum(size for size in sizes if size > 0)  # -1: stored as it is
