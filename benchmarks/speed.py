"""Clips per second of both variants, beside the machine's own arithmetic floor.

At the size of the authors' code: width 128, 20 aligned steps, batch 128, features of
300/74/35, four emotions, float32. Operations are counted by torch while a step runs; the
floor is that count over the rate of a large matrix product, measured between the rounds,
since these rates drift. Run it with: make bench
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from kept import keep
from mmcl.config import Config, RuntimeSettings, resolve_config
from mmcl.corpus.batches import Batch, collate
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Split, pack_corpus
from mmcl.learning.inference import targets_of
from mmcl.learning.learner import Learner, make_learner
from mmcl.learning.loop import build_model
from mmcl.runtime import make_fabric, prepare_process, seed_everything
from mmcl.types import MODALITIES, VARIANTS
from readme import render

DIMS = dict(zip(MODALITIES, (300, 74, 35), strict=True))
EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_STEPS, NUM_CLIPS = 20, 256


def main() -> None:
    """Measure, print a table, and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--no-save", action="store_true")
    chosen = parser.parse_args()
    seed_everything(1)
    prepare_process(RuntimeSettings())
    benches = {v: Bench(v, chosen) for v in VARIANTS}
    for bench in benches.values():
        bench.count_operations()
    rates = [matrix_product_rate()]
    for _ in range(chosen.rounds):
        for bench in benches.values():
            bench.time_round()
        rates.append(matrix_product_rate())
    rate = statistics.median(rates)
    results = {name: bench.results(rate) for name, bench in benches.items()}
    report(results, rate, benches)
    if not chosen.no_save:
        save(results, rate, chosen, ratios(benches))
        render()


class Bench:
    """One variant: its training step and its prediction step."""

    def __init__(
        self,
        variant: str,
        chosen: argparse.Namespace,
        *,
        steps: int = NUM_STEPS,
        clips: int = NUM_CLIPS,
    ) -> None:
        overrides = [
            f"model.width={chosen.width}",
            f"learning.batch_size={chosen.batch_size}",
            *chosen.overrides,
        ]
        self.config: Config = resolve_config(model=variant, overrides=overrides)
        self.split = random_split(steps, clips)
        corpus = pack_corpus(self.split.card, self.split.clips())
        fabric = make_fabric(self.config.runtime)
        self.model = build_model(corpus, self.config)
        self.learner: Learner = make_learner(self.model, self.config, fabric)
        self.targets = targets_of(self.split)
        self.operations: dict[str, int] = {}
        self.seconds: dict[str, list[float]] = {"train": [], "predict": []}

    def batch(self) -> Batch:
        """Collate a batch, as training and prediction do for every one of theirs."""
        rows = np.random.default_rng().permutation(len(self.split))[
            : self.config.learning.batch_size
        ]
        return collate(self.split, rows, self.model.modalities, self.targets)

    def train_step(self) -> None:
        """One whole training step: collate, losses, all optimisers."""
        self.model.train()
        self.learner.step(self.batch())

    def predict_step(self) -> None:
        """One batch predicted."""
        self.model.eval()
        with torch.inference_mode():
            batch = self.batch()
            self.model(batch.features, batch.masks)

    def count_operations(self) -> None:
        """Count the operations of matrix products and attention, after a warm-up."""
        for name, step in self.steps().items():
            for _ in range(3):
                step()
            with FlopCounterMode(display=False) as counter:
                step()
            self.operations[name] = counter.get_total_flops()

    def time_round(self) -> None:
        """Time a few steps of each kind."""
        for name, step in self.steps().items():
            started = time.perf_counter()
            for _ in range(3):
                step()
            self.seconds[name].append((time.perf_counter() - started) / 3)

    def steps(self) -> dict[str, Callable[[], None]]:
        """The two kinds of step."""
        return {"train": self.train_step, "predict": self.predict_step}

    def results(self, rate: float) -> dict[str, dict[str, float]]:
        """Clips per second, the floor's, and the share reached."""
        count = self.config.learning.batch_size
        out = {}
        for name, seconds in self.seconds.items():
            speed = count / statistics.median(seconds)
            floor = count * rate / self.operations[name]
            out[name] = {
                "clips_per_second": speed,
                "mflop_per_clip": self.operations[name] / count / 1e6,
                "floor_clips_per_second": floor,
                "share_of_floor": speed / floor,
            }
        return out


def random_split(steps: int, clips: int) -> Split:
    """Clips of the benchmark's widths with random features and emotions."""
    rng = np.random.default_rng(1)
    task = Task(kind="emotions", names=EMOTIONS)
    counts = {"train": clips}
    card = Card(name="bench", task=task, dims=DIMS, counts=counts, aligned=True)
    drawn = (
        Clip(
            id=str(i),
            split="train",
            features={m: rng.normal(size=(steps, d)) for m, d in DIMS.items()},
            label=tuple(int(i % len(EMOTIONS) == k) for k in range(len(EMOTIONS))),
        )
        for i in range(clips)
    )
    return pack_corpus(card, drawn).split("train")


def matrix_product_rate(size: int = 1536) -> float:
    """Operations per second of a large float32 matrix product, best of three."""
    x = torch.randn(size, size)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(x, x)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def report(results: dict[str, Any], rate: float, benches: dict[str, Bench]) -> None:
    """Print the table and the ratio."""
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    print(f"{'':12}{'':9}{'clips/s':>9}{'MFLOP/clip':>12}{'floor':>9}{'share':>8}")
    for variant, by_step in results.items():
        for step, r in by_step.items():
            print(
                f"{variant:12}{step:9}{r['clips_per_second']:9.0f}{r['mflop_per_clip']:12.1f}"
                f"{r['floor_clips_per_second']:9.0f}{r['share_of_floor']:8.0%}"
            )
    for step, ratio in ratios(benches).items():
        print(f"calibrated / released, {step}: {ratio:.2f}")


def ratios(benches: dict[str, Bench]) -> dict[str, float]:
    """How many times the clips per second of ``released``, round by round, median."""
    slow, fast = benches["released"].seconds, benches["calibrated"].seconds
    return {
        step: statistics.median(a / b for a, b in zip(slow[step], fast[step], strict=True))
        for step in slow
    }


def save(
    results: dict[str, Any], rate: float, chosen: argparse.Namespace, by_step: dict[str, float]
) -> None:
    """Write the results with the machine and the command."""
    content = {
        "command": "make bench",
        "settings": {k: v for k, v in vars(chosen).items() if k != "no_save"},
        "matrix_product_flops_per_second": rate,
        "results": results,
        "ratios": by_step,
    }
    keep("speed", content)


if __name__ == "__main__":
    main()
