"""The content of a pickle, finished and measured: what it is when every part is written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmcl.corpus.plain_data import ArrayParts
from mmcl.limits import Budget, limit, num_places, over_limit

__all__ = ["BYTES_OF_ITEM", "Finisher"]

BYTES_OF_ITEM = 8
"""Bytes that a list needs for each of its items."""
# Tuples made once: a union of types would be built again for every item.
_TEXTS = (str, bytes)
_PLAIN_CONTAINERS = (list, dict, tuple)
_CONTAINERS = (*_PLAIN_CONTAINERS, ArrayParts, np.ndarray)


class Finisher:
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
        return self._finish(value)[0] if isinstance(value, _CONTAINERS) else value

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
        container = value.array if isinstance(value, ArrayParts) else value
        if container is None:
            raise ValueError("an array without content")
        if isinstance(container, np.ndarray):
            self._budget.check(num_objects=num_places(container.shape))
            if container.dtype != object:
                return container, 1, container.nbytes
        items = _items(container)
        num_objects, num_bytes = 1 + len(items), BYTES_OF_ITEM * len(items)
        for index, item in enumerate(items):
            if isinstance(item, _TEXTS):
                num_bytes += len(item)
            elif isinstance(item, _PLAIN_CONTAINERS) and not item:
                num_objects += 1  # a file may hold millions, a byte each
            elif isinstance(item, _CONTAINERS):
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
