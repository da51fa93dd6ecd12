"""Optional packages: import one, or name the extra of mmcl that installs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmcl.errors import MissingExtraError

__all__ = ["load"]


def load(module: str, purpose: str, *, extra: str = "media") -> Any:
    """Import a module of an optional extra.

    Args:
        module: Name of the module, for example ``av``.
        purpose: Start of the error message, for example ``reading video and sound``.
        extra: Extra of mmcl that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as fault:
        # The missing module may be one that this module imports.
        package = (fault.name or module).partition(".")[0].replace("_", "-")
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed.\n"
            f'  Install it: pip install "mmcl[{extra}]"'
        ) from None
