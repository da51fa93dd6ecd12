"""One clip through torch and through onnxruntime: median milliseconds, one thread each.

Rounds of both are interleaved, since a machine's rate drifts. Features of 768/74/35 as from
BERT, COVAREP and OpenFace. It needs the export extra. Run it with: python benchmarks/export.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import onnxruntime
import torch

from mmcl.config import resolve_config
from mmcl.corpus.schema import Task
from mmcl.models.export import export_onnx
from mmcl.models.registry import build_network

DIMS = {"text": 768, "audio": 74, "vision": 35}
NUM_STEPS, ROUNDS, CALLS = 20, 7, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    widths = parser.parse_args().widths
    torch.set_num_threads(1)
    for aligned in (True, False):
        for width in widths:
            rounds = measure(width, aligned=aligned)
            eager, onnx = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratios = [e / o for e, o in rounds]
            print(
                f"{'aligned' if aligned else 'not aligned'}, width {width}: torch {eager:.2f} ms, "
                f"onnxruntime {onnx:.2f} ms, {statistics.median(ratios):.1f} times as fast "
                f"({min(ratios):.1f} to {max(ratios):.1f} over {ROUNDS} rounds)"
            )


def measure(width: int, *, aligned: bool) -> list[tuple[float, float]]:
    """Milliseconds of torch and of onnxruntime, per round."""
    config = resolve_config(model="calibrated", overrides=[f"model.width={width}"])
    task = Task(kind="regression", low=-3, high=3)
    model = build_network(DIMS, task, aligned=aligned, model=config.model, policy=config.policy)
    model.eval()
    features: dict[Any, torch.Tensor] = {m: torch.randn(1, NUM_STEPS, d) for m, d in DIMS.items()}
    masks: dict[Any, torch.Tensor] = {m: torch.ones(1, NUM_STEPS, dtype=torch.bool) for m in DIMS}
    given = {m: x.numpy() for m, x in features.items()}
    given |= {f"{m}_mask": mask.numpy() for m, mask in masks.items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with TemporaryDirectory() as folder:
        path = export_onnx(model, Path(folder) / "model.onnx").path
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    with torch.inference_mode():
        calls = (lambda: model(features, masks), lambda: session.run(None, given))
        for call in calls:
            median_ms(call)  # warm both up
        return [(median_ms(calls[0]), median_ms(calls[1])) for _ in range(ROUNDS)]


def median_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
