"""Errors as a client gets them: RFC 9457, with the very texts of the command line.

Where a text names a folder of this machine, the client reads the name that he knows it by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict

from mmcl.errors import (
    ConfigError,
    MissingExtraError,
    MMCLError,
    TrainingError,
    UsageError,
)

__all__ = ["PROBLEM_TYPE", "Problem", "ServiceError", "problem_of", "unknown_problem"]

PROBLEM_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[MMCLError], int], ...] = (
    (UsageError, 400),
    (ConfigError, 400),
    (MissingExtraError, 501),
    (TrainingError, 500),
    (MMCLError, 422),
)
"""The first that fits; whatever else is wrong lies in what was sent."""


class Problem(BaseModel):
    """What went wrong, as ``application/problem+json``."""

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
    """What only a service can say: too large, too many, no such job.

    Args:
        message: The text, in the tone of every other.
        status: Of HTTP.
        kind: Ends the problem's type.
    """

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def problem_of(fault: MMCLError, names: Mapping[str, str] | None = None) -> Problem:
    """An error as a problem.

    Args:
        fault: The error.
        names: By what stands in its text, what the client reads instead: folders of this
            machine, the place of an upload. The longest is replaced first.

    Example:
        >>> from mmcl.errors import RunError
        >>> problem_of(RunError("/srv/runs/a: broken"), {"/srv/runs/a": "a"}).detail
        'a: broken'
    """
    if isinstance(fault, ServiceError):
        status, kind = fault.status, fault.kind
    else:
        status = next(number for each, number in _STATUS if isinstance(fault, each))
        kind = _kebab(type(fault).__name__)
    text = str(fault)
    for found in sorted(names or {}, key=len, reverse=True):
        text = text.replace(found, (names or {})[found])
    return Problem(type=f"urn:mmcl:{kind}", title=_title(status), status=status, detail=text)


def unknown_problem(status: int = 500) -> Problem:
    """A problem that says no more than its status: its cause is in the service's log."""
    return Problem(type="about:blank", title=_title(status), status=status)


def _title(status: int) -> str:
    return HTTPStatus(status).phrase


def _kebab(name: str) -> str:
    """``MediaError`` as ``media-error``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
