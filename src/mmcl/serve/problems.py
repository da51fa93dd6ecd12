"""Errors as clients receive them: RFC 9457 problems with the texts of the command line.

Where a text names a folder of this machine, the client reads the name that he knows instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict

from mmcl.errors import (
    ConfigError,
    DiskError,
    MissingExtraError,
    MMCLError,
    TrainingError,
    UsageError,
)

__all__ = [
    "PROBLEM_TYPE",
    "Problem",
    "ServiceError",
    "problem_of",
    "replace_names",
    "unknown_problem",
]

_log = logging.getLogger("mmcl.serve")

PROBLEM_TYPE = "application/problem+json"
"""Media type of an error (RFC 9457)."""

_STATUS: tuple[tuple[type[MMCLError], int], ...] = (
    (UsageError, 400),
    (ConfigError, 400),
    (MissingExtraError, 501),
    (TrainingError, 500),
    (MMCLError, 422),
)
"""Status by class of error; the first that fits counts. Other faults lie in what was sent."""


class Problem(BaseModel):
    """An error, as ``application/problem+json``."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "example": {
                "type": "urn:mmcl:media-error",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": '"talk.mp4" is empty (0 bytes); expected a video or a sound.\n'
                "  Copy or download it again.",
            }
        },
    )

    type: str
    title: str
    status: int
    detail: str | None = None


class ServiceError(MMCLError):
    """An error that only a service can have: too large, too many, no such job.

    ``status`` is that of the HTTP answer; ``kind`` is the last part of the problem's type.
    """

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


_NO_ROOM = ServiceError(
    "the disk of the service takes no more, so this cannot be stored.\n"
    "  Send it again later, or tell the owner of the service, whose log says more.",
    status=507,
    kind="disk-error",
)


def problem_of(fault: MMCLError, names: Mapping[str, str] | None = None) -> Problem:
    """Return an error as a problem; see :func:`replace_names` for ``names``.

    Example:
        >>> from mmcl.errors import RunError
        >>> problem_of(RunError("/srv/runs/a: broken"), {"/srv/runs/a": "a"}).detail
        'a: broken'
    """
    if isinstance(fault, DiskError):
        _log.error("%s", fault)  # for the owner of the service, who can do something about it
        fault = _NO_ROOM
    if isinstance(fault, ServiceError):
        status, kind = fault.status, fault.kind
    else:
        status = next(number for error, number in _STATUS if isinstance(fault, error))
        # MediaError becomes media-error.
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(fault).__name__).lower()
    text = replace_names(str(fault), names or {})
    return Problem(
        type=f"urn:mmcl:{kind}", title=HTTPStatus(status).phrase, status=status, detail=text
    )


def replace_names(text: str, names: Mapping[str, str]) -> str:
    """Replace quoted names, and absolute paths where they stand alone or begin a longer path.

    Anything else could be a part of some word: a relative path such as ``.`` or ``st``.

    Example:
        >>> replace_names("/srv/a/run.json, /srv/ab and . there", {"/srv/a": "a", ".": "here"})
        'a/run.json, /srv/ab and . there'
    """
    for old, new in sorted(names.items(), key=lambda pair: len(pair[0]), reverse=True):
        if old.startswith('"'):
            text = text.replace(old, new)
        elif PurePath(old).is_absolute() and PurePath(old).name:
            whole = rf"(?<![\w./~-]){re.escape(old)}(?![\w-]|\.\w)"
            text = re.sub(whole, lambda _, new=new: new, text)  # type: ignore[misc]
    return text


def unknown_problem(status: int = 500) -> Problem:
    """Return a problem without a detail; its cause is in the service's log."""
    return Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status)
