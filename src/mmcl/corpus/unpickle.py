"""Safe reading of pickles: arrays, containers, text and numbers come out, and nothing runs.

A pickle is a program that calls functions by name. Here every name is answered by a
stand-in that can only build plain data, and an unknown name is refused. The stand-ins never
call numpy's own reconstruction functions: a dtype with forged flags, or a list that is too
short, makes those read memory that is not theirs.
"""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import DatasetError, UnsafePickleError

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


_PLAIN_TYPES = (dict, list, tuple, set, frozenset, str, bytes, bytearray, bool, int, float, complex)
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("numpy", "ndarray"): _StandIn(_not_callable),
    ("_codecs", "encode"): _StandIn(_encode),
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "unicode"): str,
    ("__builtin__", "long"): int,
}
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    _KNOWN.update({(_module, kind.__name__): kind for kind in _PLAIN_TYPES})
for _module in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _KNOWN[f"{_module}.multiarray", "_reconstruct"] = _StandIn(_Array)
    _KNOWN[f"{_module}.multiarray", "scalar"] = _StandIn(_scalar)
    _KNOWN[f"{_module}.numeric", "_frombuffer"] = _StandIn(_from_buffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Refused(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a persistent id")


def load_pickle(path: Path) -> Any:
    """Read a pickle of Python 2 or 3, plain or gzip'd, without running anything in it.

    Text of Python 2 is read as latin-1, which keeps every byte.

    Raises:
        UnsafePickleError: If it asks for anything that is not plain data; the message
            names it, and it was not run.
        DatasetError: If the file is empty, cut short or no pickle.
    """
    with path.open("rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if is_gzip else path.open("rb") as content:
        return _load(path, content)


def _load(path: Path, file: IO[bytes] | gzip.GzipFile) -> Any:
    try:
        content = _Unpickler(file, encoding="latin1").load()
        rest = file.read(_DRAIN_BYTES)
        while file.read(_DRAIN_BYTES):  # to the end, where gzip keeps its checksum
            pass
        if rest.strip(b"\x00\r\n "):
            raise DatasetError(_second_object(path))
        return _finish(content, {})
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
        if isinstance(file, gzip.GzipFile) and isinstance(error, OSError | EOFError | zlib.error):
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


def _finish(value: Any, finished: dict[int, Any]) -> Any:
    """Replace arrays under construction by their arrays, at every depth, in place.

    ``finished`` holds results by the identity of their values: a value may contain itself.
    """
    if not isinstance(value, _Array | dict | list | tuple | np.ndarray):
        return value
    if id(value) in finished:
        return finished[id(value)]
    finished[id(value)] = value
    if isinstance(value, dict):
        value.update({key: _finish(item, finished) for key, item in value.items()})
    elif isinstance(value, list):
        value[:] = [_finish(item, finished) for item in value]
    elif isinstance(value, tuple):
        finished[id(value)] = tuple(_finish(item, finished) for item in value)
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            for index, item in enumerate(value.reshape(-1)):
                value.flat[index] = _finish(item, finished)
    else:
        if value.array is None:
            raise ValueError("an array without content")
        finished[id(value)] = value.array
        _finish(value.array, finished)
    return finished[id(value)]
