"""Pickles read as data: arrays, containers, text and numbers, and nothing that runs.

A pickle is a program. Here its every call is answered by a stand-in of our own that can
only build plain data; numpy's own reconstruction functions are never used, since a dtype
with forged flags or a list that is too short makes them read memory that is not theirs.
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
_DRAIN = 1 << 20
_Order = Literal["C", "F"]
_PLAIN_KINDS = frozenset("biufcSUO")
_LISTED = "numpy arrays, dicts, lists, tuples, strings and numbers"


class _Refused(Exception):  # noqa: N818 - caught here, never seen by a caller
    """A name the pickle asked for; carried out of the unpickling machine."""


class _StandIn:
    """A callable that takes the place of one the pickle names.

    It has no attributes a pickle's BUILD could overwrite, and refuses a state.
    """

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *values: Any) -> Any:
        return self._call(*values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _Refused(f"change of {name}")

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused("change of a function")


class _Dtype:
    """A dtype under construction; of its pickled state only the byte order counts."""

    __slots__ = ("kind",)

    def __init__(self, code: Any, *_: Any) -> None:
        kind = np.dtype(_as_text(code)) if isinstance(code, str | bytes) else None
        if kind is None or kind.kind not in _PLAIN_KINDS or kind.fields or kind.subdtype:
            raise _Refused(f"numpy.dtype of {code!r}")
        self.kind: np.dtype[Any] = kind

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _as_text(state[1])
        if any(part is not None for part in state[2:5]):
            raise _Refused("numpy.dtype with fields")
        if order in ("<", ">"):
            self.kind = self.kind.newbyteorder("<" if order == "<" else ">")


class _Array:
    """An array under construction: its checked state, until the whole pickle is read."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        order: _Order = "F" if is_fortran else "C"
        if _kind(dtype).hasobject:
            self.array = _of_objects(raw, _shape(shape), order)
        else:
            self.array = _of_bytes(_as_bytes(raw), _kind(dtype), _shape(shape), order)


def _of_objects(raw: Any, shape: tuple[int, ...], order: _Order) -> NDArray[Any]:
    if not isinstance(raw, list) or len(raw) != prod(shape):
        raise ValueError("an object array without a list of its objects")
    flat = np.empty(len(raw), dtype=object)
    for at, item in enumerate(raw):
        flat[at] = item
    return flat.reshape(shape, order=order)


def _of_bytes(
    raw: bytes, kind: np.dtype[Any], shape: tuple[int, ...], order: _Order
) -> NDArray[Any]:
    if kind.itemsize * prod(shape) != len(raw) or kind.itemsize == 0:
        raise ValueError(f"an array of shape {list(shape)} in {len(raw)} bytes")
    if not raw:
        return np.zeros(shape, dtype=kind)
    if kind.kind == "b":
        truth: NDArray[Any] = np.frombuffer(raw, dtype=np.uint8) != 0
        return truth.reshape(shape, order=order)
    array: NDArray[Any] = np.frombuffer(raw, dtype=kind).reshape(shape, order=order)
    if kind.kind == "U":
        array.tolist()  # fails here, not later, where it holds what is no character
    return array


def _kind(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a dtype")
    return dtype.kind


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"an array of shape {list(sizes)}")
    return sizes


def _as_text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _as_bytes(value: Any) -> bytes:
    """Raw array content; Python 2 wrote it as text, read back here as latin-1."""
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if _kind(dtype).hasobject:
        raise _Refused("numpy object array from raw bytes")
    chosen: _Order = "F" if order == "F" else "C"
    return _of_bytes(_as_bytes(raw), _kind(dtype), _shape(shape), chosen)


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    kind = _kind(dtype)
    if kind.hasobject:
        raise _Refused("numpy scalar of an object")
    return _of_bytes(_as_bytes(raw), kind, (1,), "C")[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if _as_text(encoding).replace("-", "").lower() not in ("latin1", "ascii", "utf8"):
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return str(text).encode(_as_text(encoding))


def _not_callable(*_: Any) -> NoReturn:
    raise _Refused("numpy.ndarray")


def _stand_ins() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _StandIn(_Dtype),
        ("numpy", "ndarray"): _StandIn(_not_callable),
        ("_codecs", "encode"): _StandIn(_encode),
        ("collections", "OrderedDict"): OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = _StandIn(_reconstruct)
        known[f"{core}.multiarray", "scalar"] = _StandIn(_scalar)
        known[f"{core}.numeric", "_frombuffer"] = _StandIn(_from_buffer)
    plain = (dict, list, tuple, set, frozenset, str, bytes, bytearray, bool, int, float, complex)
    for module in ("builtins", "__builtin__"):
        known.update({(module, kind.__name__): kind for kind in plain})
    known["__builtin__", "unicode"] = str
    known["__builtin__", "long"] = int
    return known


_KNOWN = _stand_ins()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a persistent id")


def load_pickle(path: Path) -> Any:
    """Read a pickle, plain or gzip'd, of Python 2 or 3, without running anything in it.

    Args:
        path: The file; whether it is gzip'd is seen from its first bytes.

    Returns:
        What was pickled. Text of Python 2 is read as latin-1, which keeps every byte.

    Raises:
        UnsafePickleError: If it asks for anything that is not plain data; the message
            names it, and it was not run.
        DatasetError: If the file is empty, cut short or no pickle.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.pkl"
        >>> _ = path.write_bytes(pickle.dumps({"train": [1, 2.5, "x"]}))
        >>> load_pickle(path)
        {'train': [1, 2.5, 'x']}
    """
    with path.open("rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not is_gzip:
            return _load(path, file)
        with gzip.GzipFile(fileobj=file) as unzipped:
            return _load(path, unzipped)


def _load(path: Path, file: IO[bytes] | gzip.GzipFile) -> Any:
    try:
        content = _Unpickler(file, encoding="latin1").load()
        while file.read(_DRAIN):  # to the end, where gzip keeps its checksum
            pass
        return _finished(content, {})
    except _Refused as refused:
        raise UnsafePickleError(
            f'{path}: this pickle asks for "{refused}", which is not plain data; '
            "nothing of it was run.\n"
            f"  Expected only {_LISTED}.\n"
            "  If you trust its maker, load it where it was made and save its arrays as npz.\n"
            "  The layouts that can be read: mmcl corpus convert --help"
        ) from None
    except (OSError, EOFError, zlib.error) as fault:
        if isinstance(file, gzip.GzipFile):
            raise DatasetError(_broken_gzip(path, fault)) from None
        raise DatasetError(_broken_pickle(path, fault)) from None
    except Exception as fault:  # a broken pickle can fail in any way
        raise DatasetError(_broken_pickle(path, fault)) from None


def _finished(value: Any, seen: dict[int, Any]) -> Any:
    """Put arrays in the place of those under construction, all the way down.

    Args:
        value: What was unpickled; dicts, lists and object arrays are changed in place.
        seen: By identity, what was visited and what came of it (a value may hold itself).
    """
    if not isinstance(value, _Array | dict | list | tuple | np.ndarray):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = value
    if isinstance(value, dict):
        value.update({key: _finished(item, seen) for key, item in value.items()})
    elif isinstance(value, list):
        value[:] = [_finished(item, seen) for item in value]
    elif isinstance(value, tuple):
        seen[id(value)] = tuple(_finished(item, seen) for item in value)
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            for at, item in enumerate(value.reshape(-1)):
                value.flat[at] = _finished(item, seen)
    else:
        if value.array is None:
            raise ValueError("an array without content")
        seen[id(value)] = value.array
        _finished(value.array, seen)
    return seen[id(value)]


def _broken_gzip(path: Path, fault: Exception) -> str:
    return (
        f"{path}: the gzip stream is cut short or damaged ({_reason(fault)}).\n"
        "  Expected a whole gzip'd pickle. Fetch or copy the file again.\n"
        f"  Test the copy: gzip -t {path}"
    )


def _broken_pickle(path: Path, fault: Exception) -> str:
    return (
        f"{path}: not a readable pickle ({_reason(fault)}).\n"
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd) or an npz file; "
        "fetch or copy the file again.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def _reason(fault: Exception) -> str:
    return str(fault).rstrip(".").splitlines()[0] if str(fault) else type(fault).__name__
