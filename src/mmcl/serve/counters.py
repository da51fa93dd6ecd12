"""Counters of the service, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Counters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CLIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counters:
    """Counters of one service; docs/serving.md lists them."""

    def __init__(self) -> None:
        self.registry = at = CollectorRegistry()
        self.requests = Counter(
            "mmcl_requests", "Requests answered.", ("method", "route", "status"), registry=at
        )
        self.request_seconds = Histogram(
            "mmcl_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=at
        )
        self.jobs = Counter("mmcl_jobs", "Jobs that have ended.", ("status",), registry=at)
        self.queued = Gauge("mmcl_jobs_queued", "Jobs that wait.", registry=at)
        self.running = Gauge("mmcl_jobs_running", "Jobs that are running.", registry=at)
        self.stage_seconds = Histogram(
            "mmcl_stage_seconds",
            "Time of a job's stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=at,
        )
        self.clips = Counter(
            "mmcl_clips_predicted", "Clips predicted.", ("model", "sent"), registry=at
        )
        self.batch_clips = Histogram(
            "mmcl_batch_clips", "Clips predicted together.", buckets=_CLIPS, registry=at
        )
        self.worker_starts = Counter(
            "mmcl_workshop_starts", "Starts of the process for recordings.", registry=at
        )
        self.worker_memory = Gauge(
            "mmcl_workshop_memory_bytes", "Memory of the process for recordings.", registry=at
        )

    def text(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self.registry)
