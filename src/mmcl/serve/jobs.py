"""A job: one recording, from the moment it was received to the day its result is thrown away."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmcl.serve.problems import Problem

__all__ = ["ENDED", "STAGES", "Job", "Status", "new_id"]

Status = Literal["queued", "running", "done", "failed", "cancelled"]

ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})

STAGES: dict[str, str] = {
    "decode": "opening the file",
    "audio": "measuring the voice",
    "recognise": "hearing the words",
    "align": "finding when each word is said",
    "vision": "following the face",
    "text": "reading the words",
    "predict": "predicting",
    "write": "writing the result",
}
"""What a stage is called; not every recording has every one of them."""


class Job(BaseModel):
    """A recording that is predicted.

    Attributes:
        id: Cannot be guessed.
        model: Name of the run.
        name: Of the recording.
        status: ``queued``, ``running``, then one of ``done``, ``failed``, ``cancelled``.
        stage: What is being done now.
        stages: What has been done.
        position: Place in the queue, 1 is next; null unless queued.
        created: When it was received, in seconds since 1970.
        started: When it was last taken up.
        ended: When it was over.
        problem: Why it failed.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    name: str
    status: Status
    stage: str | None = None
    stages: tuple[str, ...] = ()
    position: int | None = None
    created: float
    started: float | None = None
    ended: float | None = None
    problem: Problem | None = None
    language: str | None = Field(None, exclude=True)
    attempts: int = Field(0, exclude=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED

    def as_dict(self) -> dict[str, Any]:
        """What a client gets of it."""
        return self.model_dump(mode="json")


def new_id() -> str:
    """An id that nobody guesses: 128 random bits."""
    return secrets.token_hex(16)
