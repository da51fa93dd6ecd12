"""The first steps of a training by one process and by two: how far apart, and how fast.

``python benchmarks/processes.py``: planted data and settings of the preset ``planted``, both
numbers of processes with one thread each. Prints the largest difference of each reported number
over the steps, and clips per second. Rates of a shared machine drift.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from mmcl.config import Config, resolve_config
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.corpus.store import Corpus
from mmcl.learning.loop import fit
from mmcl.runtime import environment

CLIPS_PER_STEP, STEPS_PER_EPOCH = 64, 25
TOLERANCE = 1e-5
NUMBERS = ("loss", "task_loss", "alignment_loss", "critic_loss", "reward", "mean_action")


def main() -> None:
    """Train by one process and by several, and compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--model", default="calibrated")
    options.add_argument("--set", action="append", default=[], dest="settings")
    asked = options.parse_args()
    counts = PlantSettings(train=CLIPS_PER_STEP * STEPS_PER_EPOCH, valid=64, test=1)
    corpus = plant_corpus(counts).development()
    curves, rates = {}, {}
    for processes in (1, asked.processes):
        overrides = [
            f"runtime.processes={processes}",
            "runtime.threads=1",
            f"learning.epochs={-(-asked.steps // STEPS_PER_EPOCH)}",
            f"learning.batch_size={CLIPS_PER_STEP}",
            *asked.settings,
        ]
        config = resolve_config(model=asked.model, source="planted", overrides=overrides)
        curves[processes], rates[processes] = _curve(corpus, config)
    pairs = list(zip(*curves.values(), strict=True))[: asked.steps]
    apart: dict[str, Any] = {
        name: max(abs(one[name] - other[name]) for one, other in pairs) for name in NUMBERS
    }
    loss = [abs(one["loss"] - other["loss"]) for one, other in pairs]
    beyond = next((step for step, gap in enumerate(loss, start=1) if gap > TOLERANCE), None)
    apart |= {"loss_at_each_step": loss, "first_step_beyond_1e-5": beyond}
    report = {"model": asked.model, "steps": len(pairs), "largest_difference": apart}
    print(json.dumps(report | {"clips_per_second": rates, "environment": environment()}, indent=2))


def _curve(corpus: Corpus, config: Config) -> tuple[list[dict[str, float]], float]:
    steps: list[dict[str, float]] = []

    def progress(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage != "epochs":
            steps.append(numbers)

    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(corpus, config, seed=1, folder=Path(folder), progress=progress)
    return steps, fitted.clips_per_second


if __name__ == "__main__":
    main()
