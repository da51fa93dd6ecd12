"""Optional packages: import one, or say which extra of mmcl brings it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmcl.errors import MissingExtraError

__all__ = ["load"]


def load(module: str, purpose: str, *, extra: str = "media") -> Any:
    """Import a module of an optional extra.

    Args:
        module: Its name, ``av`` for example.
        purpose: What it is needed for; opens the message: ``reading video and sound``.
        extra: The extra of this project that brings it.

    Returns:
        The module.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as fault:
        package = (fault.name or module).partition(".")[0].replace("_", "-")
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed.\n"
            f'  Install it: pip install "mmcl[{extra}]"'
        ) from None
