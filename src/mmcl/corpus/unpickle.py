"""Safe reading of pickles: arrays, containers, text and numbers come out, and nothing runs.

A pickle is a program that calls functions by name. Here every name is answered by a stand-in
(:mod:`~mmcl.corpus.plain_data`) that can only build plain data, and an unknown name is refused.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from mmcl.corpus.plain_data import (
    STAND_INS,
    ArrayParts,
    DtypeParts,
    RefusedError,
    StandIn,
    check_keys,
)
from mmcl.corpus.written_out import BYTES_OF_ITEM, Finisher
from mmcl.errors import DatasetError, UnsafePickleError
from mmcl.limits import Budget

__all__ = ["load_pickle"]

GZIP_MAGIC = b"\x1f\x8b"
_DRAIN_BYTES = 1 << 20


class _CountedFile:
    """A file that counts what is read of it: a gzip'd file may unpack to anything."""

    def __init__(self, file: IO[bytes], budget: Budget) -> None:
        self._file, self._budget = file, budget
        self._bytes_left = budget.most_bytes

    def read(self, size: int) -> bytes:
        # Before reading, since memory is reserved for a length that the file only declares.
        if size > self._bytes_left:
            self._budget.refuse_bytes()
        content = self._file.read(size)
        self._bytes_left -= size
        if len(content) < size:
            raise pickle.UnpicklingError("pickle data was truncated") if content else EOFError(_END)
        return content

    def readline(self) -> bytes:
        line = self._file.readline(self._bytes_left + 1)
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            self._budget.refuse_bytes()
        return line

    def rest(self) -> bytes:
        """Read to the end, where gzip keeps its checksum; return the first part."""
        first = part = self._file.read(_DRAIN_BYTES)
        while part:
            self._bytes_left -= len(part)
            if self._bytes_left < 0:
                self._budget.refuse_bytes()
            part = self._file.read(_DRAIN_BYTES)
        return first


class _CountedOpcodes:
    """The unpickler's table of opcodes, which counts them: every object takes one at least."""

    def __init__(self, table: Mapping[int, Any], budget: Budget) -> None:
        self._table, self._budget = table, budget
        self._left = budget.most_objects

    def __getitem__(self, opcode: int) -> Any:
        self._left -= 1
        if self._left < 0:
            self._budget.refuse_objects()
        try:
            return self._table[opcode]
        except KeyError:
            raise pickle.UnpicklingError(f"invalid load key, {chr(opcode)!a}") from None


class _Unpickler(pickle._Unpickler):
    """The unpickler of the standard library in Python, whose every step can be looked at.

    The one in C is two to ten times faster where a pickle has many small objects, but computes
    hashes of nested keys, copies and tables of any size before anything here is asked.
    """

    stack: list[Any]
    metastack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]

    def __init__(self, file: _CountedFile, budget: Budget) -> None:
        super().__init__(file, encoding="latin1")
        self._budget = budget
        self._bytes_made = 0
        self.dispatch = _CountedOpcodes(_OPCODES, budget)  # type: ignore[assignment, misc]

    def find_class(self, module: str, name: str) -> StandIn:
        if (module, name) not in STAND_INS:
            raise RefusedError(f"{module}.{name}")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise RefusedError("a persistent id")

    def count_copy(self, value: Any) -> None:
        """Count what a call has made: a few bytes can copy a large value again and again."""
        value = value.array if isinstance(value, ArrayParts) else value
        size = value.nbytes if isinstance(value, np.ndarray) else BYTES_OF_ITEM * _length(value)
        self._bytes_made += size
        self._budget.check(num_bytes=self._bytes_made)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 1


def _with_count(name: str) -> Callable[[_Unpickler], None]:
    """Return an opcode that calls or builds something, and counts the result."""
    original = getattr(pickle._Unpickler, name)

    def load(unpickler: _Unpickler) -> None:
        original(unpickler)
        unpickler.count_copy(unpickler.stack[-1])

    return load


def _load_build(unpickler: _Unpickler) -> None:
    """Set the state of an array or dtype; other values of a pickle have no state."""
    if not isinstance(unpickler.stack[-2], ArrayParts | DtypeParts | StandIn):
        raise RefusedError(f"state of {type(unpickler.stack[-2]).__name__}")
    _BUILD(unpickler)


def _with_check(name: str, check: Callable[[_Unpickler], None]) -> Callable[[_Unpickler], None]:
    """Return an opcode that puts keys into a dict or set, after a look at them."""
    original = getattr(pickle._Unpickler, name)

    def load(unpickler: _Unpickler) -> None:
        check(unpickler)
        original(unpickler)

    return load


def _check_setting(target: Any, keys: list[Any]) -> None:
    if not isinstance(target, dict):
        raise ValueError(f"items for {type(target).__name__}")
    check_keys(keys)


def _load_bytearray(unpickler: _Unpickler) -> None:
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(size)))


_END = "Ran out of input"
_BUILD = _with_count("load_build")
_OPCODES: dict[int, Any] = {
    **pickle._Unpickler.dispatch,
    pickle.REDUCE[0]: _with_count("load_reduce"),
    pickle.BUILD[0]: _load_build,
    pickle.SETITEM[0]: _with_check(
        "load_setitem", lambda u: _check_setting(u.stack[-3], u.stack[-2:-1])
    ),
    pickle.SETITEMS[0]: _with_check(
        "load_setitems", lambda u: _check_setting(u.metastack[-1][-1], u.stack[::2])
    ),
    pickle.DICT[0]: _with_check("load_dict", lambda u: check_keys(u.stack[::2])),
    pickle.ADDITEMS[0]: _with_check("load_additems", lambda u: check_keys(u.stack)),
    pickle.FROZENSET[0]: _with_check("load_frozenset", lambda u: check_keys(u.stack)),
    pickle.BYTEARRAY8[0]: _load_bytearray,
}
# Other ways to make objects, which no pickle of plain data needs.
_MAKERS = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST)
for _opcode in (*_MAKERS, pickle.EXT1, pickle.EXT2, pickle.EXT4):
    del _OPCODES[_opcode[0]]


def load_pickle(path: Path) -> Any:
    """Read a pickle of Python 2 or 3, plain or gzip'd, without running anything in it.

    Text of Python 2 is read as latin-1, which keeps every byte.

    Raises:
        UnsafePickleError: If it asks for anything that is not plain data; the message
            names it, and it was not run.
        DatasetError: If the file is empty, cut short or no pickle, or unpacks to more than
            the limits allow (:mod:`mmcl.limits`).
    """
    budget = Budget(path)
    with path.open("rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    # GzipFile itself is slow at reading single bytes.
    with io.BufferedReader(gzip.open(path)) if is_gzip else path.open("rb") as content:
        return _load(path, content, budget, is_gzip=is_gzip)


def _load(path: Path, file: IO[bytes], budget: Budget, *, is_gzip: bool) -> Any:
    counted = _CountedFile(file, budget)
    try:
        content = _Unpickler(counted, budget).load()
        if counted.rest().strip(b"\x00\r\n "):
            raise DatasetError(_second_object(path))
        return Finisher(budget).finish(content)
    except DatasetError:
        raise
    except RefusedError as refused:
        raise UnsafePickleError(
            f'{path}: this pickle asks for "{refused}", which is not plain data; '
            "nothing of it was run.\n"
            "  Expected only numpy arrays, dicts, lists, tuples, strings and numbers.\n"
            f"  {_advice(str(refused))}\n"
            "  The layouts that can be read: mmcl corpus convert --help"
        ) from None
    except Exception as error:  # a broken pickle can fail in any way
        reason = str(error).rstrip(".").splitlines()[0] if str(error) else type(error).__name__
        if is_gzip and isinstance(error, OSError | EOFError | zlib.error):
            raise DatasetError(
                f"{path}: the gzip stream is cut short or damaged ({reason}).\n"
                "  Expected a whole gzip'd pickle. Fetch or copy the file again.\n"
                f"  Test the copy: gzip -t {path}"
            ) from None
        raise DatasetError(
            f"{path}: not a readable pickle ({reason}).\n"
            "  Expected a pickle of one object, plain or gzip'd; "
            "fetch or copy the file again.\n"
            "  The layouts that can be read: mmcl corpus convert --help"
        ) from None


def _second_object(path: Path) -> str:
    return (
        f"{path}: more follows the first object of the pickle; it would be lost.\n"
        "  Expected one object. If the splits were dumped one after the other, load each and dump "
        'them together: {"train": ..., "valid": ..., "test": ...}\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def _advice(refused: str) -> str:
    """Say how to save what a pickle holds as plain data."""
    if refused.startswith("pandas."):
        return (
            "It holds a DataFrame. If you trust its maker, load it where it was made and save it "
            'as a table: frame.to_parquet("table.parquet")'
        )
    if refused.startswith("torch.") or refused == "a persistent id":
        return (
            "It holds torch tensors. If you trust its maker, load it where it was made and save "
            "them as npz: tensor.numpy()"
        )
    return "If you trust its maker, load it where it was made and save its arrays as npz."
