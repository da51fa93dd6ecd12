"""The first steps of a training by threads and by processes: how far apart, and how fast.

``python benchmarks/processes.py``: planted data and settings of the preset ``planted``. One process
with as many threads as the group has in all, and a group of processes with one thread each: the
same number of parts of every batch, so that on a CPU nothing should differ. ``--alone 1`` gives the
one process another number of threads. Prints the largest difference of each reported number over
the steps, and clips per second, and writes both to benchmarks/results. Rates of a shared machine
drift.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from kept import keep
from mmcl.config import Config, resolve_config
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.corpus.store import Corpus
from mmcl.learning.loop import fit

CLIPS_PER_STEP, STEPS_PER_EPOCH = 64, 25
TOLERANCE = 1e-5
NUMBERS = ("loss", "task_loss", "alignment_loss", "critic_loss", "reward", "mean_action")


def main() -> None:
    """Train by the threads of one process and by several processes, and compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--alone", type=int, help="threads of the one process")
    options.add_argument("--model", default="calibrated")
    options.add_argument("--set", action="append", default=[], dest="settings")
    options.add_argument("--no-save", action="store_true")
    asked = options.parse_args()
    counts = PlantSettings(train=CLIPS_PER_STEP * STEPS_PER_EPOCH, valid=64, test=1)
    corpus = plant_corpus(counts).development()
    curves, rates = {}, {}
    for processes, threads in ((1, asked.alone or asked.processes), (asked.processes, 1)):
        overrides = [
            f"runtime.processes={processes}",
            f"runtime.threads={threads}",
            f"learning.epochs={-(-asked.steps // STEPS_PER_EPOCH)}",
            f"learning.batch_size={CLIPS_PER_STEP}",
            *asked.settings,
        ]
        config = resolve_config(model=asked.model, source="planted", overrides=overrides)
        name = f"processes {processes}, threads {threads}"
        curves[name], rates[name] = _curve(corpus, config)
    pairs = list(zip(*curves.values(), strict=True))[: asked.steps]
    apart: dict[str, Any] = {
        name: max(abs(one[name] - other[name]) for one, other in pairs) for name in NUMBERS
    }
    loss = [abs(one["loss"] - other["loss"]) for one, other in pairs]
    beyond = next((step for step, gap in enumerate(loss, start=1) if gap > TOLERANCE), None)
    apart |= {"loss_at_each_step": loss, "first_step_beyond_1e-5": beyond}
    report = {
        "model": asked.model,
        "settings": asked.settings,
        "steps": len(pairs),
        "largest_difference": apart,
        "clips_per_second": rates,
    }
    print(json.dumps(report, indent=2))
    if not asked.no_save:
        keep("processes", report)


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
