"""Safe reading of pickles: arrays, containers, text and numbers come out, and nothing runs.

A pickle is a program that calls functions by name. Here every name is answered by a
stand-in that can only build plain data, and an unknown name is refused. The stand-ins never
call numpy's own reconstruction functions: a dtype with forged flags, or a list that is too
short, makes those read memory that is not theirs.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sized
from math import prod
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import DatasetError, UnsafePickleError
from mmcl.limits import Budget, limit, num_places, over_limit

__all__ = ["load_pickle"]

GZIP_MAGIC = b"\x1f\x8b"
_DRAIN_BYTES = 1 << 20
_Order = Literal["C", "F"]
_PLAIN_KINDS = frozenset("biufcSUO")


class _Refused(Exception):  # noqa: N818 - caught in this module, never seen by a caller
    """Carries the refused name out of the unpickler."""


class _StandIn:
    """A function in the place of one that the pickle names.

    It has no attributes that a pickle's BUILD could overwrite, and refuses a state.
    """

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *values: Any) -> Any:
        return self._function(*values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _Refused(f"change of {name}")

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused("change of a function")


class _Dtype:
    """A dtype under construction; only the byte order of its pickled state is used."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        dtype = np.dtype(_as_text(code)) if isinstance(code, str | bytes) else None
        if dtype is None or dtype.kind not in _PLAIN_KINDS or dtype.fields or dtype.subdtype:
            raise _Refused(f"numpy.dtype of {code!r}")
        self.dtype: np.dtype[Any] = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _as_text(state[1])
        if any(part is not None for part in state[2:5]):
            raise _Refused("numpy.dtype with fields")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class _Array:
    """An array under construction; :func:`_finish` puts the array in its place."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        order: _Order = "F" if is_fortran else "C"
        if _checked_dtype(dtype).hasobject:
            self.array = _object_array(raw, _checked_shape(shape), order)
        else:
            self.array = _plain_array(raw, dtype, shape, order)


def _object_array(raw: Any, shape: tuple[int, ...], order: _Order) -> NDArray[Any]:
    if not isinstance(raw, list) or len(raw) != prod(shape):
        raise ValueError("an object array without a list of its objects")
    flat = np.empty(len(raw), dtype=object)
    for index, item in enumerate(raw):
        flat[index] = item
    return flat.reshape(shape, order=order)


def _plain_array(raw: Any, dtype: Any, shape: Any, order: _Order) -> NDArray[Any]:
    """Build an array of numbers or strings from its bytes."""
    # Python 2 wrote the bytes as text, which was read as latin-1.
    content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    kind, shape = _checked_dtype(dtype), _checked_shape(shape)
    if kind.itemsize * prod(shape) != len(content) or kind.itemsize == 0:
        raise ValueError(f"an array of shape {list(shape)} in {len(content)} bytes")
    if not content:
        return np.zeros(shape, dtype=kind)
    if kind.kind == "b":
        truth: NDArray[Any] = np.frombuffer(content, dtype=np.uint8) != 0
        return truth.reshape(shape, order=order)
    array: NDArray[Any] = np.frombuffer(content, dtype=kind).reshape(shape, order=order)
    if kind.kind == "U":
        array.tolist()  # fails here, not later, if it holds an invalid character
    return array


def _checked_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a dtype")
    return dtype.dtype


def _checked_shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"an array of shape {list(sizes)}")
    return sizes


def _as_text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if _checked_dtype(dtype).hasobject:
        raise _Refused("numpy object array from raw bytes")
    return _plain_array(raw, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if _checked_dtype(dtype).hasobject:
        raise _Refused("numpy scalar of an object")
    return _plain_array(raw, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if _as_text(encoding).replace("-", "").lower() not in ("latin1", "ascii", "utf8"):
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return str(text).encode(_as_text(encoding))


def _not_callable(*_: Any) -> NoReturn:
    raise _Refused("numpy.ndarray")


def _number(kind: type[Any]) -> Callable[..., Any]:
    """Return a stand-in for a type of numbers or text, which takes one of these alone."""

    def make(*values: Any) -> Any:
        if not all(isinstance(value, _ATOMS) for value in values):
            raise _Refused(f"{kind.__name__} of a list or array")
        # bytes(n) would be n zero bytes that the file does not hold.
        if kind in (bytes, bytearray) and any(isinstance(value, int) for value in values[:1]):
            raise _Refused(f"{kind.__name__} of a size")
        return kind(*values)

    return make


def _container(kind: type[Any]) -> Callable[..., Any]:
    """Return a stand-in for a type of containers, which takes the items of another one."""

    def make(*values: Any) -> Any:
        items = values[0] if values else ()
        if isinstance(items, dict):
            items = list(items.items() if issubclass(kind, dict) else items)
        if len(values) > 1 or not isinstance(items, list | tuple | set | frozenset | str | bytes):
            raise _Refused(f"{kind.__name__} of {type(items).__name__}")
        if issubclass(kind, dict):
            items = [(key, value) for key, value in items]
            _check_keys(key for key, _ in items)
        elif kind in (set, frozenset):
            _check_keys(items)
        return kind(items)

    return make


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that are nested: their hash may take for ever, or more stack than there is."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _KEYS) for part in parts):
            raise ValueError("a key of a dict that is neither text nor a number")


_ATOMS = (str, bytes, bytearray, bool, int, float, complex, np.generic)
_KEYS = (*_ATOMS, type(None))
_KNOWN: dict[tuple[str, str], _StandIn] = {
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("numpy", "ndarray"): _StandIn(_not_callable),
    ("_codecs", "encode"): _StandIn(_encode),
    ("collections", "OrderedDict"): _StandIn(_container(OrderedDict)),
    ("__builtin__", "unicode"): _StandIn(_number(str)),
    ("__builtin__", "long"): _StandIn(_number(int)),
}
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    for _kind in (str, bytes, bytearray, bool, int, float, complex):
        _KNOWN[_module, _kind.__name__] = _StandIn(_number(_kind))
    for _kind in (dict, list, tuple, set, frozenset):
        _KNOWN[_module, _kind.__name__] = _StandIn(_container(_kind))
for _module in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _KNOWN[f"{_module}.multiarray", "_reconstruct"] = _StandIn(_Array)
    _KNOWN[f"{_module}.multiarray", "scalar"] = _StandIn(_scalar)
    _KNOWN[f"{_module}.numeric", "_frombuffer"] = _StandIn(_from_buffer)


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


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """The unpickler of the standard library in Python, whose every step can be looked at.

    The one in C is two to ten times faster where a pickle has many small objects, but computes
    hashes of nested keys, copies and tables of any size before anything here is asked.
    """

    def __init__(self, file: _CountedFile, budget: Budget) -> None:
        super().__init__(file, encoding="latin1")
        self._budget = budget
        self._bytes_made = 0
        self.dispatch = _CountedOpcodes(_OPCODES, budget)

    def find_class(self, module: str, name: str) -> _StandIn:
        if (module, name) not in _KNOWN:
            raise _Refused(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a persistent id")

    def count_copy(self, value: Any) -> None:
        """Count what a call has made: a few bytes can copy a large value again and again."""
        value = value.array if isinstance(value, _Array) else value
        size = value.nbytes if isinstance(value, np.ndarray) else _BYTES_OF_ITEM * _length(value)
        self._bytes_made += size
        self._budget.check(num_bytes=self._bytes_made)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 1


def _with_count(name: str) -> Callable[[_Unpickler], None]:
    """Return an opcode that calls or builds something, and counts the result."""
    original = getattr(pickle._Unpickler, name)  # type: ignore[attr-defined]

    def load(unpickler: _Unpickler) -> None:
        original(unpickler)
        unpickler.count_copy(unpickler.stack[-1])

    return load


def _load_build(unpickler: _Unpickler) -> None:
    """Set the state of an array or dtype; other values of a pickle have no state."""
    if not isinstance(unpickler.stack[-2], _Array | _Dtype | _StandIn):
        raise _Refused(f"state of {type(unpickler.stack[-2]).__name__}")
    _BUILD(unpickler)


def _load_setitem(unpickler: _Unpickler) -> None:
    _check_setting(unpickler.stack[-3], unpickler.stack[-2:-1])
    pickle._Unpickler.load_setitem(unpickler)  # type: ignore[attr-defined]


def _load_setitems(unpickler: _Unpickler) -> None:
    _check_setting(unpickler.metastack[-1][-1], unpickler.stack[::2])
    pickle._Unpickler.load_setitems(unpickler)  # type: ignore[attr-defined]


def _check_setting(target: Any, keys: list[Any]) -> None:
    if not isinstance(target, dict):
        raise ValueError(f"items for {type(target).__name__}")
    _check_keys(keys)


def _load_dict(unpickler: _Unpickler) -> None:
    _check_keys(unpickler.stack[::2])
    pickle._Unpickler.load_dict(unpickler)  # type: ignore[attr-defined]


def _load_additems(unpickler: _Unpickler) -> None:
    _check_keys(unpickler.stack)
    pickle._Unpickler.load_additems(unpickler)  # type: ignore[attr-defined]


def _load_frozenset(unpickler: _Unpickler) -> None:
    _check_keys(unpickler.stack)
    pickle._Unpickler.load_frozenset(unpickler)  # type: ignore[attr-defined]


def _load_bytearray(unpickler: _Unpickler) -> None:
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(size)))


_BYTES_OF_ITEM = 8
_END = "Ran out of input"
_BUILD = _with_count("load_build")
_OPCODES: dict[int, Any] = {
    **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
    pickle.REDUCE[0]: _with_count("load_reduce"),
    pickle.BUILD[0]: _load_build,
    pickle.SETITEM[0]: _load_setitem,
    pickle.SETITEMS[0]: _load_setitems,
    pickle.DICT[0]: _load_dict,
    pickle.ADDITEMS[0]: _load_additems,
    pickle.FROZENSET[0]: _load_frozenset,
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
    with io.BufferedReader(gzip.open(path)) if is_gzip else path.open("rb") as content:  # type: ignore[arg-type]
        return _load(path, content, budget, is_gzip=is_gzip)


def _load(path: Path, file: IO[bytes], budget: Budget, *, is_gzip: bool) -> Any:
    counted = _CountedFile(file, budget)
    try:
        content = _Unpickler(counted, budget).load()
        if counted.rest().strip(b"\x00\r\n "):
            raise DatasetError(_second_object(path))
        return _Finisher(budget).finish(content)
    except DatasetError:
        raise
    except _Refused as refused:
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


class _Finisher:
    """Replaces arrays under construction by their arrays, at every depth, in place.

    It also counts what the content would be if every part were written out, once per place that
    holds it: ten lists of ten lists of ... of one list take few bytes, and no reader ends.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._most_depth = limit("MMCL_MAX_DEPTH")
        # By identity: the finished value, its objects and its bytes.
        self._finished: dict[int, tuple[Any, int, int]] = {}
        self._open: set[int] = set()  # containers that hold what is being looked at

    def finish(self, value: Any) -> Any:
        """Return a value with arrays in place of those under construction.

        Raises:
            DatasetError: If it contains itself, is nested too deep, or is too large when it is
                written out.
        """
        if not isinstance(value, _Array | dict | list | tuple | np.ndarray):
            return value
        return self._finish(value)[0]

    def _finish(self, value: Any) -> tuple[Any, int, int]:
        """Return a finished container, and its objects and bytes when it is written out."""
        if id(value) in self._open:
            raise ValueError(f"a {type(value).__name__} that contains itself")
        if id(value) not in self._finished:
            if len(self._open) >= self._most_depth:
                problem = f"it has more than {self._most_depth} lists or dicts inside each other"
                raise over_limit(self._budget.path, problem, "MMCL_MAX_DEPTH")
            self._open.add(id(value))
            self._finished[id(value)] = self._counted(value)
            self._open.discard(id(value))
        return self._finished[id(value)]

    def _counted(self, value: Any) -> tuple[Any, int, int]:
        container = value.array if isinstance(value, _Array) else value
        if container is None:
            raise ValueError("an array without content")
        if isinstance(container, np.ndarray):
            self._budget.check(num_objects=num_places(container.shape))
            if container.dtype != object:
                return container, 1, container.nbytes
        items = _items(container)
        num_objects, num_bytes = 1 + len(items), _BYTES_OF_ITEM * len(items)
        for index, item in enumerate(items):
            if isinstance(item, str | bytes):
                num_bytes += len(item)
            elif isinstance(item, _Array | dict | list | tuple | np.ndarray):
                items[index], objects_inside, bytes_inside = self._finish(item)
                num_objects, num_bytes = num_objects + objects_inside, num_bytes + bytes_inside
        self._budget.check(num_bytes=num_bytes, num_objects=num_objects)
        return _refilled(container, items), num_objects, num_bytes


def _items(container: Any) -> list[Any]:
    """Return the items of a container: those of a list itself, else a list of them."""
    if isinstance(container, np.ndarray):
        return list(container.reshape(-1))
    if isinstance(container, dict):
        return list(container.values())
    return container if isinstance(container, list) else list(container)


def _refilled(container: Any, items: list[Any]) -> Any:
    """Put finished items into their container; a tuple is made again."""
    if isinstance(container, dict):
        container.update(zip(list(container), items, strict=True))
    elif isinstance(container, tuple):
        return tuple(items)
    elif isinstance(container, np.ndarray):
        for index, item in enumerate(items):
            container.flat[index] = item
    return container
