"""Checkpoints: nested state as one safetensors file, complete or absent. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmcl.errors import RunError
from mmcl.files import complete_file

__all__ = ["load_state", "save_state"]

_TENSOR = "__tensor__"
_TREE_KEY = "tree"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors, numbers and text.

    The file appears under its name only when it is complete and on the disk.

    Args:
        path: File to write; replaced if it exists.
        state: Nested dictionaries, whose keys are text or integers.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, tensors)
    with complete_file(path) as unfinished:
        save_file(tensors, unfinished, metadata={_TREE_KEY: json.dumps(tree)})


def load_state(path: Path) -> dict[str, Any]:
    """Read a file of :func:`save_state`.

    Raises:
        RunError: If the file is not such a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads((file.metadata() or {})[_TREE_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state: dict[str, Any] = _unflatten(tree, tensors)
    except (SafetensorError, LookupError, TypeError, OSError, ValueError, RecursionError) as fault:
        raise RunError(
            f"{path}: not a readable checkpoint ({fault}).\n"
            "  Remove it and start again without --resume."
        ) from None
    return state


def _flatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the node as JSON content with names for tensors; add these to ``tensors``."""
    if isinstance(node, Tensor):
        # A copy: safetensors refuses tensors that share memory.
        name = str(len(tensors))
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(node, Mapping):
        # Pairs, since JSON would turn keys that are integers into text.
        return {"items": [[key, _flatten(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_flatten(value, tensors) for value in node]
    return node


def _unflatten(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what :func:`_flatten` was given; tuples come back as lists."""
    if isinstance(node, dict):
        if _TENSOR in node:
            return tensors[node[_TENSOR]]
        return {key: _unflatten(value, tensors) for key, value in node["items"]}
    if isinstance(node, list):
        return [_unflatten(value, tensors) for value in node]
    return node
