"""Where a training step and a prediction spend their time, and how that grows.

Everything runs on one thread (``runtime.threads=1``), so that ratios do not depend on how busy
the other cores are. The networks are fresh and the features random; a fresh policy of
``calibrated`` keeps nearly nine steps of ten, a trained one fewer (``benchmarks/speed.py``).

Every part of a step is timed; operations and bytes are counted part by part as torch runs
them (of ``load``, which numpy does, the bytes of what it returns, read and written). The floor
of a part is the longer of its operations over the rate of a large matrix
product and its bytes over the rate of a large copy, both measured between the rounds: bytes
are those an implementation moves that reads and writes every operand once, without fusing.
Then clips per second over lengths, widths and batches.

    python benchmarks/phases.py            (under ten minutes)
    python benchmarks/phases.py --quick    (two points of every curve)
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import mmcl.learning.learner as learner_module
from mmcl.config import Config, RuntimeSettings, resolve_config
from mmcl.corpus.batches import Batch, collate
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Split, pack_corpus
from mmcl.learning.ddpg import DdpgLearner
from mmcl.learning.inference import targets_of
from mmcl.learning.learner import Learner
from mmcl.learning.loop import build_model, make_learner
from mmcl.runtime import make_fabric, prepare_process, seed_everything
from mmcl.types import MODALITIES, VARIANTS
from output import add_out, write
from rates import copy_rate, matrix_product_rate

DIMS = dict(zip(MODALITIES, (300, 74, 35), strict=True))
EMOTIONS = ("neutral", "happy", "sad", "angry")
NUM_STEPS, WIDTH, BATCH = 20, 128, 128
ONE_THREAD = RuntimeSettings(threads=1)

LENGTHS = (20, 50, 100, 200, 500, 1000)
WIDTHS = (64, 128, 256)
BATCHES = (1, 8, 32, 128, 512)
LENGTH_BATCH = 8
"""Clips a batch of the curve over lengths: released keeps maps of n x n for every clip."""

aten = torch.ops.aten
PICKING = (aten.index, aten.index_select, aten.gather)
WHOLE = ("critic", "replay")
"""Parts that keep what happens inside them, their backward pass and optimiser included."""


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    add_out(parser)
    chosen = parser.parse_args()
    seed_everything(1)
    prepare_process(ONE_THREAD)
    rates = Rates()
    rounds = 2 if chosen.quick else chosen.rounds
    parts = {name: measure_parts(name, rates, rounds) for name in VARIANTS}
    for name, by_step in parts.items():
        for step, rows in by_step.items():
            show(f"{name}, {step}", rows)
    curves = measure_curves(quick=chosen.quick)
    write(
        {
            "settings": {"rounds": rounds, "length_batch": LENGTH_BATCH},
            "size": {"steps": NUM_STEPS, "width": WIDTH, "batch": BATCH},
            "threads": torch.get_num_threads(),
            "rates": rates.medians(),
            "parts": parts,
            "curves": curves,
        },
        chosen.out,
    )


class Rates:
    """Highest rates of this machine, measured again and again because they drift."""

    def __init__(self) -> None:
        self.products: list[float] = []
        self.copies: list[float] = []

    def measure(self) -> None:
        """One more measurement of each."""
        self.products.append(matrix_product_rate())
        self.copies.append(copy_rate())

    def medians(self) -> dict[str, float]:
        """Operations and bytes per second."""
        return {
            "flops_per_second": statistics.median(self.products),
            "bytes_per_second": statistics.median(self.copies),
        }


class Bench:
    """One variant on random clips with emotions: its training step and its prediction step.

    Args:
        variant: ``calibrated`` or ``released``.
        steps: Of every modality.
        width: Of the network.
        batch: Clips in a batch.
    """

    def __init__(
        self, variant: str, *, steps: int = NUM_STEPS, width: int = WIDTH, batch: int = BATCH
    ) -> None:
        overrides = [
            f"model.width={width}",
            f"learning.batch_size={batch}",
            f"runtime.threads={ONE_THREAD.threads}",
        ]
        self.config: Config = resolve_config(model=variant, overrides=overrides)
        self.split = random_split(steps, max(2 * batch, 16))
        corpus = pack_corpus(self.split.card, self.split.clips())
        self.model: Any = build_model(corpus, self.config)
        self.learner: Learner = make_learner(
            self.model, self.config, make_fabric(self.config.runtime)
        )
        self.targets = targets_of(self.split)

    def batch(self) -> Batch:
        """Collate a batch, as training and prediction do for every one of theirs."""
        rows = np.random.default_rng().permutation(len(self.split))
        some = rows[: self.config.learning.batch_size]
        return collate(self.split, some, self.model.modalities, self.targets)

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

    def steps(self) -> dict[str, Callable[[], None]]:
        """The two kinds of step."""
        return {"train": self.train_step, "predict": self.predict_step}


def random_split(steps: int, clips: int) -> Split:
    """Clips of the benchmark's widths with random features and emotions."""
    rng = np.random.default_rng(1)
    task = Task(kind="emotions", names=EMOTIONS)
    card = Card(name="bench", task=task, dims=DIMS, counts={"train": clips}, aligned=True)
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


class Parts(TorchDispatchMode):
    """Seconds, operations and bytes of the part of a step that is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ["other"]
        self.since = time.perf_counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:  # without gradient, operators arrive whole that are made of others
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        here = self.stack[-1]
        if func._overloadpacket in flop_registry:
            self.operations[here] += flop_registry[func._overloadpacket](
                *args, **kwargs, out_val=out
            )
        if not func.is_view:
            self.moved[here] += moved_by(func._overloadpacket, args, kwargs, out)
        return out

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside under this name; of nested parts, the inner one."""
        inside = self.stack[-1] if self.stack[-1] in WHOLE else name
        self._switch()
        self.stack.append(inside)
        try:
            yield
        finally:
            self._switch()
            self.stack.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def start(self) -> None:
        """Forget the seconds of before."""
        self.seconds.clear()
        self.since = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Seconds of every part since the start."""
        self._switch()
        return dict(self.seconds)

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Let a method of an object, or a function of a module, be a part."""
        original = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                out = original(*args, **kwargs)
                arrays = [x for x in tree_leaves(out) if isinstance(x, np.ndarray)]
                self.moved[self.stack[-1]] += 2 * sum(x.nbytes for x in arrays)
            return out

        setattr(owner, method, watched)


def moved_by(operator: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """Bytes an operator reads and writes; of a ring it picks from, the rows picked alone."""
    if operator in PICKING:
        return 2 * int(out.nbytes)
    if operator is aten.index_put_:
        return 2 * int(args[2].nbytes)
    if operator in (aten.empty, aten.empty_like, aten.empty_strided):
        return 0
    return sum(x.nbytes for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor))


def measure_parts(name: str, rates: Rates, rounds: int) -> dict[str, dict[str, Any]]:
    """Every part of a training step and of a prediction at the size of ``make bench``."""
    bench = Bench(name)
    parts = Parts()
    with watching(bench, parts):
        found = {}
        for step, run in bench.steps().items():
            for _ in range(3):
                run()
            parts.operations.clear()
            parts.moved.clear()
            with parts:
                run()
            counted = dict(parts.operations), dict(parts.moved)
            seconds: list[dict[str, float]] = []
            for _ in range(rounds):
                rates.measure()
                parts.start()
                run()
                seconds.append(parts.stop())
            found[step] = table(counted, seconds, rates.medians())
    return found


@contextmanager
def watching(bench: Bench, parts: Parts) -> Iterator[None]:
    """Let every part of the benchmark's steps be seen."""
    model, learner = bench.model, bench.learner
    parts.watch(bench, "batch", "collate")
    parts.watch(bench.split, "padded", "load")
    parts.watch(model.projection, "forward", "project")
    if model.calibration is not None:
        parts.watch(model.calibration, "unit", "decouple")
    parts.watch(model, "_decouple", "decouple")
    parts.watch(model, "_enhance", "attend")
    parts.watch(model, "decide", "act")
    parts.watch(model, "complement", "complement")
    parts.watch(model.fusion, "forward", "fuse")
    parts.watch(model.head, "forward", "head")
    parts.watch(learner.fabric, "backward", "backward")
    parts.watch(learner.fabric, "clip_gradients", "optimiser")
    parts.watch(learner.optimizer, "step", "optimiser")
    if isinstance(learner, DdpgLearner):
        parts.watch(learner, "_improve_critic", "critic")
        parts.watch(learner, "_improve_policy", "critic")
        parts.watch(learner, "_remember", "replay")
        parts.watch(learner.replay, "sample", "replay")
    unwatched = learner_module.alignment_loss
    parts.watch(learner_module, "alignment_loss", "alignment loss")
    try:
        yield
    finally:
        learner_module.alignment_loss = unwatched  # the others die with their objects


def table(
    counted: tuple[dict[str, int], dict[str, int]],
    seconds: list[dict[str, float]],
    rates: dict[str, float],
) -> dict[str, dict[str, float]]:
    """A row per part: median seconds, operations, bytes, floor and the share reached."""
    rows = {}
    for name in seconds[0]:
        spent = statistics.median(each.get(name, 0.0) for each in seconds)
        operations, moved = (each.get(name, 0) for each in counted)
        floor = max(operations / rates["flops_per_second"], moved / rates["bytes_per_second"])
        rows[name] = {
            "seconds": spent,
            "operations": operations,
            "bytes": moved,
            "floor_seconds": floor,
            "share_of_floor": floor / spent if spent else 0.0,
        }
    return dict(sorted(rows.items(), key=lambda item: -item[1]["seconds"]))


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    total = sum(row["seconds"] for row in rows.values())
    print(f"\n{title}: {total * 1e3:.0f} ms a batch of {BATCH}")
    print(f"{'':18}{'ms':>8}{'share':>7}{'MFLOP':>9}{'MB':>8}{'floor ms':>10}{'reached':>9}")
    for name, row in rows.items():
        print(
            f"{name:18}{row['seconds'] * 1e3:8.1f}{row['seconds'] / total:7.0%}"
            f"{row['operations'] / 1e6:9.0f}{row['bytes'] / 1e6:8.0f}"
            f"{row['floor_seconds'] * 1e3:10.1f}{row['share_of_floor']:9.0%}"
        )


def measure_curves(*, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Clips per second over lengths, widths and batches, one thing varied at a time."""

    def some(values: tuple[int, ...]) -> tuple[int, ...]:
        return values[:2] if quick else values

    return {
        "length": [point(n, WIDTH, LENGTH_BATCH) for n in some(LENGTHS)],
        "width": [point(NUM_STEPS, d, BATCH) for d in some(WIDTHS)],
        "batch": [point(NUM_STEPS, WIDTH, b) for b in some(BATCHES)],
    }


def point(steps: int, width: int, batch: int) -> dict[str, Any]:
    """Clips per second of both variants at one size."""
    found: dict[str, Any] = {"steps": steps, "width": width, "batch": batch}
    for name in VARIANTS:
        bench = Bench(name, steps=steps, width=width, batch=batch)
        found[name] = {step: batch / best_of(run, 3) for step, run in bench.steps().items()}
    print(steps, width, batch, {k: v for k, v in found.items() if k in VARIANTS}, flush=True)
    return found


def best_of(run: Callable[[], None], times: int) -> float:
    """Shortest time of a few runs after a warm-up, seconds."""
    run()
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main()
