"""Checkpoints: nested state as one safetensors file, complete or absent. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmcl.errors import RunError

__all__ = ["load_state", "replace_atomically", "save_state", "write_json"]

_TENSOR = "__tensor__"
_TREE_KEY = "tree"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors, numbers and text.

    The file appears under its name only when complete and on the disk.

    Args:
        path: Target; replaced if it exists.
        state: Keys are text or integers; tensors may share no memory.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, tensors)
    unfinished = path.with_name(f".{path.name}.unfinished")
    save_file(tensors, unfinished, metadata={_TREE_KEY: json.dumps(tree)})
    replace_atomically(unfinished, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote.

    Raises:
        RunError: If the file is not such a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads((file.metadata() or {})[_TREE_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, OSError, ValueError) as fault:
        raise RunError(
            f"{path}: not a readable checkpoint ({fault}).\n"
            "  Remove it and start again without --resume."
        ) from None
    state: dict[str, Any] = _unflatten(tree, tensors)
    return state


def write_json(path: Path, content: Any) -> None:
    """Write JSON, complete or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    replace_atomically(unfinished, path)


def replace_atomically(unfinished: Path, path: Path) -> None:
    """Bring a finished file to the disk and then under its name."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _flatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = str(len(tensors))
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(node, Mapping):
        # JSON keys are text: keep the kind of each key beside it.
        return {"items": [[key, _flatten(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_flatten(value, tensors) for value in node]
    return node


def _unflatten(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if _TENSOR in node:
            return tensors[node[_TENSOR]]
        return {key: _unflatten(value, tensors) for key, value in node["items"]}
    if isinstance(node, list):
        return [_unflatten(value, tensors) for value in node]
    return node
