"""Limits of requests, recordings and workers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GIB", "MEDIA_TYPES", "MIB", "Limits"]

MIB, GIB = 2**20, 2**30

MEDIA_TYPES = ("video/*", "audio/*")
"""Types that the page offers to choose; the content of a file decides what it really is."""


class Limits(BaseModel):
    """Limits of a service; the size of pictures is limited by :mod:`mmcl.media.decode`.

    Attributes:
        max_bytes: Size of a recording.
        max_seconds: Length of a recording.
        max_transcript_bytes: Size of a transcript.
        upload_seconds: Time an upload may take.
        max_jobs: Recordings that wait or are being received; more are turned away.
        stage_seconds: Time one stage of a job may take (hearing the words, for example).
        load_seconds: Time that the worker for recordings may take to load its models.
        max_memory: Bytes that this worker may hold while it works on a job.
        result_hours: How long a result is kept.
        max_body_bytes: Size of a request with features.
        max_clips: Clips of a request with features.
        max_steps: Steps of one modality of such a clip.
        clips_at_once: Clips of all clients that go through a network together.
        pairs_at_once: Pairs of steps (clips x longest x longest) that go through a network
            together; attention needs memory for them.
        max_waiting_clips: Clips that may wait for their turn; more are turned away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(200 * MIB, gt=0)
    max_seconds: float = Field(600.0, gt=0)
    max_transcript_bytes: int = Field(100_000, gt=0)
    upload_seconds: float = Field(600.0, gt=0)
    max_jobs: int = Field(32, gt=0)
    stage_seconds: float = Field(300.0, gt=0)
    load_seconds: float = Field(120.0, gt=0)
    max_memory: int = Field(3 * GIB, gt=0)
    result_hours: float = Field(24.0, gt=0)
    max_body_bytes: int = Field(16 * MIB, gt=0)
    max_clips: int = Field(256, gt=0)
    max_steps: int = Field(1000, gt=0)
    clips_at_once: int = Field(64, gt=0)
    pairs_at_once: int = Field(4_000_000, gt=0)
    max_waiting_clips: int = Field(4096, gt=0)
