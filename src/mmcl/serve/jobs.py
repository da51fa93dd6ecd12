"""Jobs: recordings to predict, from their upload until their results are removed."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmcl.serve.problems import Problem

__all__ = ["STAGES", "Job", "new_id"]

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
"""Names of the stages that clients read; not every recording has every stage."""


class Job(BaseModel):
    """A recording to predict.

    Attributes:
        id: 128 random bits, which nobody can guess.
        model: Name of the run.
        name: Name of the recording.
        status: ``queued``, ``running``, then one of ``done``, ``failed``, ``cancelled``.
        stage: The stage that is running now.
        stages: The stages that are done.
        position: Place in the queue, 1 is next; null unless queued.
        created: When it was received, in seconds since 1970.
        started: When it was last started.
        ended: When it ended.
        problem: Why it failed.
        language: Language of the speech, where it was given.
        attempts: How often it was started.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    name: str
    status: Literal["queued", "running", "done", "failed", "cancelled"]
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
        """True once the job has ended."""
        return self.status in ("done", "failed", "cancelled")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that clients receive."""
        return self.model_dump(mode="json")


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(16)
