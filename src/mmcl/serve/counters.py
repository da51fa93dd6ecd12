"""Counters of the service, for Prometheus."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Counters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CLIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counters:
    """Counters of one service; docs/serving.md lists them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        seconds = partial(Histogram, registry=self._registry, buckets=_SECONDS)
        clips = partial(Histogram, registry=self._registry, buckets=_CLIPS)
        self.requests = counter("mmcl_requests", "Requests.", ("method", "route", "status"))
        self.request_seconds = seconds("mmcl_request_seconds", "Time to answer.", ("route",))
        self.jobs = counter("mmcl_jobs", "Jobs that have ended.", ("status",))
        self.queued = gauge("mmcl_jobs_queued", "Jobs that wait.")
        self.running = gauge("mmcl_jobs_running", "Jobs that are running.")
        self.stage_seconds = seconds("mmcl_stage_seconds", "Time of a job's stage.", ("stage",))
        self.clips = counter("mmcl_clips_predicted", "Clips predicted.", ("model", "sent"))
        self.batch_clips = clips("mmcl_batch_clips", "Clips predicted together.")
        # The names of these two are older than that of the worker.
        self.worker_starts = counter("mmcl_workshop_starts", "Starts of the recordings' worker.")
        self.worker_memory = gauge("mmcl_workshop_memory_bytes", "Memory of the same worker.")

    def text(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self._registry)
