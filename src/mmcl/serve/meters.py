"""What is counted, for Prometheus: one registry per service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Meters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CLIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Every meter of a service, by name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.requests = Counter(
            "mmcl_requests", "Requests answered.", ("method", "route", "status"), **given
        )
        self.request_seconds = Histogram(
            "mmcl_request_seconds", "From request to answer.", ("route",), buckets=_SECONDS, **given
        )
        self.jobs = Counter("mmcl_jobs", "Jobs that are over.", ("status",), **given)
        self.queued = Gauge("mmcl_jobs_queued", "Jobs that wait.", **given)
        self.running = Gauge("mmcl_jobs_running", "Jobs that are worked on.", **given)
        self.stage_seconds = Histogram(
            "mmcl_stage_seconds", "Of each stage of a job.", ("stage",), buckets=_SECONDS, **given
        )
        self.clips = Counter(
            "mmcl_clips_predicted", "Clips predicted, by what was sent.", ("model", "sent"), **given
        )
        self.batch_clips = Histogram(
            "mmcl_batch_clips", "Clips that were predicted together.", buckets=_CLIPS, **given
        )
        self.workshop_starts = Counter(
            "mmcl_workshop_starts", "Times the process for recordings was begun.", **given
        )
        self.workshop_memory = Gauge(
            "mmcl_workshop_memory_bytes", "What that process holds, when last looked at.", **given
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
