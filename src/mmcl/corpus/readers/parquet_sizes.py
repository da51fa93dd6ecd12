"""Sizes that the pages of a Parquet file declare, read without unpacking any.

pyarrow reserves and fills whatever a page declares: a page of some kilobytes can declare two
gigabytes, or two billion equal values. pyarrow crashes when it shows some damaged footers, and does
not show pages. Both are written in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from typing import IO, Any

__all__ = ["BYTES_OF_VALUE", "unpacked_columns"]

_FOOTER_END = 8  # bytes: the length of the footer, and the magic once more
_HEAD = 1 << 12  # bytes read for the header of a page; statistics of long texts make it longer
BYTES_OF_VALUE = 8
"""Bytes that a value takes once it is written out."""
DEEPEST = 32  # structs, lists and maps inside each other
# Fields of parquet.thrift, by their numbers.
_ROW_GROUPS, _COLUMNS, _COLUMN = 4, 1, 3
_COLUMN_LENGTH, _DATA_START, _INDEX_START, _DICTIONARY_START = 7, 9, 10, 11
_PAGE_UNPACKED, _PAGE_LENGTH = 2, 3
_PAGE_KINDS, _NUM_VALUES = (5, 7, 8), 1  # data, dictionary, and data of version 2
# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _TEXT, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_WHOLE_NUMBERS = (4, 5, 6)


def unpacked_columns(file: IO[bytes]) -> list[int]:
    """Return the bytes that each part of a column unpacks to, with its values written out.

    Raises:
        ValueError: If the footer or the header of a page is damaged.
    """
    try:
        footer = _footer(file)
        groups = footer.get(_ROW_GROUPS, [])
        columns = [column[_COLUMN] for group in groups for column in group[_COLUMNS]]
        return [_unpacked(file, column) for column in columns]
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise ValueError(f"its metadata are damaged: {type(error).__name__}") from None


def _footer(file: IO[bytes]) -> dict[int, Any]:
    end = file.seek(0, 2) - _FOOTER_END
    file.seek(end)
    (length,) = struct.unpack("<I", file.read(4))
    if not 0 < length <= end:
        raise ValueError(f"a footer of {length} bytes")
    file.seek(end - length)
    return _Compact(file.read(length)).struct()


def _unpacked(file: IO[bytes], column: dict[int, Any]) -> int:
    """Return what the pages of a column unpack to, one after the other."""
    starts = [column.get(field, 0) for field in (_DATA_START, _INDEX_START, _DICTIONARY_START)]
    if max(starts) <= 0:
        raise ValueError("a column that begins nowhere")
    place = min(start for start in starts if start > 0)
    end, num_bytes = place + column[_COLUMN_LENGTH], 0
    while place < end:
        page, header_length = _page(file, place)
        values = max([0, *(page[kind][_NUM_VALUES] for kind in _PAGE_KINDS if kind in page)])
        num_bytes += max(0, page[_PAGE_UNPACKED]) + BYTES_OF_VALUE * values
        place += header_length + max(0, page[_PAGE_LENGTH])
    return num_bytes


def _page(file: IO[bytes], place: int) -> tuple[dict[int, Any], int]:
    """Return the header of a page, and its length."""
    size = _HEAD
    while True:
        file.seek(place)
        raw = file.read(size)
        compact = _Compact(raw)
        try:
            return compact.struct(), compact.place
        except IndexError:
            if len(raw) < size:
                raise
        size *= 16


class _Compact:
    """A reader of Thrift's compact protocol; structs become dicts by the numbers of fields."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self.place, self._depth = raw, 0, 0

    def struct(self) -> dict[int, Any]:
        """Read a struct."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            # The value of a field of yes or no is in its type.
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} values inside each other")
        value = self._of_kind(kind)
        self._depth -= 1
        return value

    def _of_kind(self, kind: int) -> Any:
        if kind in _WHOLE_NUMBERS:
            return self._whole()
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._skip(8)
        if kind == _TEXT:
            return self._skip(self._number())
        if kind in (_LIST, _SET):
            return self._list()
        if kind == _MAP:
            return self._map()
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"a type {kind}")

    def _list(self) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._number()
        return [self._value(head & 15) for _ in range(count)]

    def _map(self) -> None:
        count = self._number()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4)
            self._value(kinds & 15)

    def _byte(self) -> int:
        value = self._raw[self.place]
        self.place += 1
        return value

    def _number(self) -> int:
        """Read a number without a sign, seven bits a byte."""
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _whole(self) -> int:
        """Read a number with a sign, which is its last bit."""
        number = self._number()
        return (number >> 1) ^ -(number & 1)

    def _skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self._raw):
            raise IndexError("beyond the end")
