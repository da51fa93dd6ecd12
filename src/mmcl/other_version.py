"""Errors for files of another version of mmcl: values that do not fit, and what to install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import ValidationError

__all__ = ["absent_keys", "does_not_fit", "misfits", "version_of"]

_MOST_SHOWN = 8  # misfits in the text of an error


def version_of(content: Any) -> str | None:
    """Return the version of mmcl that wrote a JSON file, or None if it is not recorded."""
    try:
        version = content["environment"]["versions"]["mmcl"]
    except (LookupError, TypeError):
        return None
    return version if isinstance(version, str) else None


def misfits(fault: ValidationError) -> list[str]:
    """Return a line for every value that does not fit: its key, and what is wrong with it."""
    return sorted(_misfit(error) for error in fault.errors())


def _misfit(error: Any) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    if error["type"] == "extra_forbidden":
        reason = "not known here"
    elif error["type"] == "missing":
        reason = "missing"
    elif error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    else:
        rule = error["msg"].replace("Input should be", "must be")
        reason = f"{rule}, got {error['input']!r}"
    return f"{key[1:] or 'all of it'}: {reason}"


def absent_keys(
    saved: Mapping[str, Any], complete: Mapping[str, Any], above: str = ""
) -> list[str]:
    """Return a line for every key of a complete tree that a saved one lacks.

    Whoever saves settings saves all of them, so a key that is absent was not known then.

    Example:
        >>> absent_keys({"model": {"width": 8}}, {"model": {"width": 64, "heads": 4}})
        ['model.heads: missing']
    """
    lines: list[str] = []
    for key, value in complete.items():
        if key not in saved:
            lines.append(f"{above}{key}: missing")
        elif isinstance(value, Mapping) and value and isinstance(saved[key], Mapping):
            lines += absent_keys(saved[key], value, f"{above}{key}.")
    return lines


def does_not_fit(where: str, lines: Sequence[str], written_by: str | None, otherwise: str) -> str:
    """Return an error message: the values, the version that wrote them, and what to install.

    Args:
        where: The file, or the part of it.
        lines: A line for every value that does not fit.
        written_by: Version of mmcl that wrote the file, or None if it does not say.
        otherwise: What to do instead of installing that version, from a small letter on.
    """
    here = metadata.version("mmcl")
    count = "1 value does" if len(lines) == 1 else f"{len(lines)} values do"
    shown = [f"  {line}" for line in lines[:_MOST_SHOWN]]
    if len(lines) > _MOST_SHOWN:
        shown.append(f"  and {len(lines) - _MOST_SHOWN} more")
    by, advice = "it does not say which version wrote it", otherwise[0].upper() + otherwise[1:]
    if written_by is not None:
        by, advice = f"mmcl {written_by} wrote it", f"Or {otherwise}"
        shown.append(f'  Install the version that wrote it: pip install "mmcl=={written_by}"')
    if written_by == here:
        by += ", so it was changed since, or comes from another commit"
    first = f"{where}: {count} not fit mmcl {here}; {by}."
    return "\n".join([first, *shown, f"  {advice}"])
