"""What is counted, for Prometheus: one registry per service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Meters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CLIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Every meter of a service, by name."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "mmcl_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "mmcl_request_seconds",
            "From request to answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.jobs = Counter("mmcl_jobs", "Jobs that are over.", ("status",), registry=registry)
        self.queued = Gauge("mmcl_jobs_queued", "Jobs that wait.", registry=registry)
        self.running = Gauge("mmcl_jobs_running", "Jobs that are worked on.", registry=registry)
        self.stage_seconds = Histogram(
            "mmcl_stage_seconds",
            "Of each stage of a job.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.clips = Counter(
            "mmcl_clips_predicted",
            "Clips predicted, by what was sent.",
            ("model", "sent"),
            registry=registry,
        )
        self.batch_clips = Histogram(
            "mmcl_batch_clips",
            "Clips that were predicted together.",
            buckets=_CLIPS,
            registry=registry,
        )
        self.workshop_starts = Counter(
            "mmcl_workshop_starts",
            "Times the process for recordings was begun.",
            registry=registry,
        )
        self.workshop_memory = Gauge(
            "mmcl_workshop_memory_bytes",
            "What that process holds, when last looked at.",
            registry=registry,
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
