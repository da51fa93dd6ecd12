"""Limits of requests, recordings and workers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GIB", "MEDIA_TYPES", "MIB", "Limits"]

MIB, GIB = 2**20, 2**30

MEDIA_TYPES = ("video/*", "audio/*")
"""Types that the page offers to choose; the content of a file decides what it really is."""


class Limits(BaseModel):
    """Limits of a service; :mod:`mmcl.media.containers.decode` limits the size of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A recording, in bytes and seconds, its transcript, and the time of its upload.
    max_bytes: int = Field(200 * MIB, gt=0)
    max_seconds: float = Field(600.0, gt=0)
    max_transcript_bytes: int = Field(100_000, gt=0)
    upload_seconds: float = Field(600.0, gt=0)
    # A body of which fewer bytes come in this time is given up.
    idle_seconds: float = Field(20.0, gt=0)
    idle_bytes: int = Field(16 * 1024, gt=0)
    # Time from opening a connection, or from the last answer, to the end of the next headers.
    header_seconds: float = Field(10.0, gt=0)
    # Open connections; fewer where the system allows fewer files. One client may have half of them.
    max_connections: int = Field(512, gt=1)
    # Recordings that wait or are being received; more are refused. Of those that are being
    # received, one client may send three quarters.
    max_jobs: int = Field(32, gt=0)
    # The worker for recordings: seconds of one stage and of loading its models, and bytes.
    stage_seconds: float = Field(300.0, gt=0)
    load_seconds: float = Field(120.0, gt=0)
    max_memory: int = Field(3 * GIB, gt=0)
    # Results are kept this long.
    result_hours: float = Field(24.0, gt=0)
    # A request with features, and the steps of one modality of one clip.
    max_body_bytes: int = Field(16 * MIB, gt=0)
    max_clips: int = Field(256, gt=0)
    max_steps: int = Field(1000, gt=0)
    # Clips of all clients that go through a network together, and their pairs of steps
    # (clips x longest x longest), for which attention needs memory.
    clips_at_once: int = Field(64, gt=0)
    pairs_at_once: int = Field(4_000_000, gt=0)
    # Clips that may wait for their turn; more are refused.
    max_waiting_clips: int = Field(4096, gt=0)
