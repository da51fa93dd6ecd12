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
from output import add_out, write

DIMS = {"text": 768, "audio": 74, "vision": 35}
NUM_STEPS, ROUNDS, CALLS = 20, 7, 60


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    add_out(parser)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for aligned in (True, False):
        for width in chosen.widths:
            rounds = measure(width, chosen.rounds, aligned=aligned)
            results.append({"aligned": aligned, "width": width, **summary(rounds)})
            show(results[-1])
    settings = {"widths": chosen.widths, "rounds": chosen.rounds, "steps": NUM_STEPS}
    write({"settings": settings, "results": results}, chosen.out)


def summary(rounds: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of both, and how many times as fast onnxruntime is, round by round."""
    eager, onnx = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = [e / o for e, o in rounds]
    ratio = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return {"torch_ms": eager, "onnxruntime_ms": onnx, "ratio": ratio}


def show(found: dict[str, Any]) -> None:
    """Print a line."""
    ratio = found["ratio"]
    print(
        f"{'aligned' if found['aligned'] else 'not aligned'}, width {found['width']}: torch "
        f"{found['torch_ms']:.2f} ms, onnxruntime {found['onnxruntime_ms']:.2f} ms, "
        f"{ratio['median']:.1f} times as fast ({ratio['least']:.1f} to {ratio['most']:.1f})"
    )


def measure(width: int, rounds: int, *, aligned: bool) -> list[tuple[float, float]]:
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
        return [(median_ms(calls[0]), median_ms(calls[1])) for _ in range(rounds)]


def median_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
