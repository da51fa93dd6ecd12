"""Highest rates of this machine, from which the benchmarks compute their floors."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def matrix_product_rate(size: int = 1536) -> float:
    """Operations per second of a large float32 matrix product, best of three."""
    x = torch.randn(size, size)
    return 2 * size**3 / _best_of_three(lambda: torch.mm(x, x))


def copy_rate(size: int = 2**25) -> float:
    """Bytes per second read and written by a copy of 128 MiB, best of three."""
    x, y = torch.ones(size), torch.empty(size)
    return 2 * x.nbytes / _best_of_three(lambda: y.copy_(x))


def _best_of_three(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best
