"""Plain data of a pickle: stand-ins for the functions and types that a pickle names.

The stand-ins never call numpy's own reconstruction functions: a dtype with forged flags, or a
list that is too short, makes those read memory that is not theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import prod
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["STAND_INS", "ArrayParts", "DtypeParts", "RefusedError", "StandIn", "check_keys"]

_Order = Literal["C", "F"]
_PLAIN_KINDS = frozenset("biufcSUO")


class RefusedError(Exception):
    """A pickle asks for what is not plain data; the text names it."""


class StandIn:
    """A function in the place of one that the pickle names.

    It has no attributes that a pickle's BUILD could overwrite, and refuses a state.
    """

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *values: Any) -> Any:
        """Call the stand-in."""
        return self._function(*values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise RefusedError(f"change of {name}")

    def __setstate__(self, state: object) -> NoReturn:
        raise RefusedError("change of a function")


class DtypeParts:
    """A dtype under construction; only the byte order of its pickled state is used."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        dtype = np.dtype(_as_text(code)) if isinstance(code, str | bytes) else None
        if dtype is None or dtype.kind not in _PLAIN_KINDS or dtype.fields or dtype.subdtype:
            raise RefusedError(f"numpy.dtype of {code!r}")
        self.dtype: np.dtype[Any] = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _as_text(state[1])
        if any(part is not None for part in state[2:5]):
            raise RefusedError("numpy.dtype with fields")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class ArrayParts:
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
    if not isinstance(dtype, DtypeParts):
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
        raise RefusedError("numpy object array from raw bytes")
    return _plain_array(raw, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if _checked_dtype(dtype).hasobject:
        raise RefusedError("numpy scalar of an object")
    return _plain_array(raw, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if _as_text(encoding).replace("-", "").lower() not in ("latin1", "ascii", "utf8"):
        raise RefusedError(f"_codecs.encode to {encoding!r}")
    return str(text).encode(_as_text(encoding))


def _not_callable(*_: Any) -> NoReturn:
    raise RefusedError("numpy.ndarray")


def _number(kind: type[Any]) -> Callable[..., Any]:
    """Return a stand-in for a type of numbers or text, which takes one of these alone."""

    def make(*values: Any) -> Any:
        if not all(isinstance(value, _ATOMS) for value in values):
            raise RefusedError(f"{kind.__name__} of a list or array")
        # bytes(n) would be n zero bytes that the file does not hold.
        if kind in (bytes, bytearray) and any(isinstance(value, int) for value in values[:1]):
            raise RefusedError(f"{kind.__name__} of a size")
        return kind(*values)

    return make


def _container(kind: type[Any]) -> Callable[..., Any]:
    """Return a stand-in for a type of containers, which takes the items of another one."""

    def make(*values: Any) -> Any:
        items: Any = values[0] if values else ()
        if isinstance(items, dict):
            items = list(items.items() if issubclass(kind, dict) else items)
        if len(values) > 1 or not isinstance(items, list | tuple | set | frozenset | str | bytes):
            raise RefusedError(f"{kind.__name__} of {type(items).__name__}")
        if issubclass(kind, dict):
            pairs: Any = items
            check_keys(key for key, _ in pairs)
            return kind(pairs)
        if kind in (set, frozenset):
            check_keys(items)
        return kind(items)

    return make


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that are nested: their hash may take for ever, or more stack than there is."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _KEYS) for part in parts):
            raise ValueError("a key of a dict that is neither text nor a number")


_ATOMS = (str, bytes, bytearray, bool, int, float, complex, np.generic)
_KEYS = (*_ATOMS, type(None))
STAND_INS: dict[tuple[str, str], StandIn] = {
    ("numpy", "dtype"): StandIn(DtypeParts),
    ("numpy", "ndarray"): StandIn(_not_callable),
    ("_codecs", "encode"): StandIn(_encode),
    ("collections", "OrderedDict"): StandIn(_container(OrderedDict)),
    ("__builtin__", "unicode"): StandIn(_number(str)),
    ("__builtin__", "long"): StandIn(_number(int)),
}
"""Stand-in for each name that a pickle of plain data may ask for."""
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    for _atom in (str, bytes, bytearray, bool, int, float, complex):
        STAND_INS[_module, _atom.__name__] = StandIn(_number(_atom))
    for _kind in (dict, list, tuple, set, frozenset):
        STAND_INS[_module, _kind.__name__] = StandIn(_container(_kind))
for _module in ("numpy.core", "numpy._core"):  # before and since numpy 2
    STAND_INS[f"{_module}.multiarray", "_reconstruct"] = StandIn(ArrayParts)
    STAND_INS[f"{_module}.multiarray", "scalar"] = StandIn(_scalar)
    STAND_INS[f"{_module}.numeric", "_frombuffer"] = StandIn(_from_buffer)
