"""How many times faster than the authors' loop, on one thread each, in CPU time.

The default configuration, and ``calibrated`` at the size of the authors' code (width 128, batch
128), take turns with the authors' loop (``benchmarks/reference.py``, a process of its own). Every
round gives a ratio of CPU seconds per clip; the medians of the rounds are what is reported.

    python benchmarks/speed.py --one-thread --json ratios.json
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from mmcl.corpus.batches import collate
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.types import MODALITIES
from reference import BATCH, Apart

__all__ = ["measure_ratios"]

NAMES = {"default": "default", "calibrated128": "calibrated"}
"""Names of the ratios, and their configurations in ``benchmarks/speed.py``."""

ROUNDS, WARM_UP = 15, 3
CLIPS_OF_A_TURN = 512
PREDICT_BATCH = 256


def measure_ratios(
    make: Callable[..., Any], configurations: dict[str, Any], widths: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """Measure the ratios, in training and in prediction.

    Args:
        make: Makes a trainee of ``benchmarks/speed.py``.
        configurations: Its settings by name.
        widths: Feature widths of the planted clips.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = PlantSettings(train=2048, valid=1, test=CLIPS_OF_A_TURN, widths=widths)
    corpus = plant_corpus(settings)
    trainees = {
        name: make(configurations[own], corpus, ROUNDS, ["runtime.threads=1"])
        for name, own in NAMES.items()
    }
    batch = collate(corpus.split("train"), range(1024), MODALITIES)
    reference = Apart([batch.features[m] for m in MODALITIES], threads=1)
    test = corpus.open_test_split()  # to predict its clips; no label is looked at

    def train_plain() -> float:
        return reference.cpu_seconds("train_step", CLIPS_OF_A_TURN // BATCH) / CLIPS_OF_A_TURN

    def train(name: str) -> float:
        trainee = trainees[name]
        blocks = list(itertools.islice(trainee.blocks, CLIPS_OF_A_TURN // trainee.batch_size))
        trainee.model.train()
        return _cpu_seconds(lambda: trainee.learn(blocks)) / sum(map(len, blocks))

    def predict_plain() -> float:
        steps = CLIPS_OF_A_TURN // PREDICT_BATCH
        return reference.cpu_seconds("predict_step", steps, PREDICT_BATCH) / CLIPS_OF_A_TURN

    def predict(name: str) -> float:
        return _cpu_seconds(lambda: trainees[name].score(test)) / CLIPS_OF_A_TURN

    try:
        return {"train": _ratios(train_plain, train), "predict": _ratios(predict_plain, predict)}
    finally:
        torch.set_num_threads(threads)


def _ratios(plain: Callable[[], float], ours: Callable[[str], float]) -> dict[str, float]:
    """Median over the rounds of plain CPU time over ours, by configuration."""
    ratios: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range(WARM_UP + ROUNDS):
        seconds = plain()
        turns = {name: ours(name) for name in NAMES}
        if number >= WARM_UP:
            for name, own in turns.items():
                ratios[name].append(seconds / own)
    return {f"{name}_over_plain": round(statistics.median(r), 2) for name, r in ratios.items()}


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
