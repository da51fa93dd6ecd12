"""Long, unaligned sequences: whether they train, in how much memory, and how cost grows.

Text 50, audio 500 and vision 375 steps, 32 clips a batch: one epoch with validation, in a
process of its own. Then training steps of eight clips whose three modalities have the same
length, doubled again and again, each length in a process of its own. Memory is what is added
to the loaded libraries and the built network. Run it with: python benchmarks/long_sequences.py
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from mmcl.config import resolve_config
from mmcl.corpus.batches import collate
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.learning.inference import targets_of
from mmcl.learning.loop import build_model, fit, make_learner
from mmcl.runtime import make_fabric, prepare_process, seed_everything
from mmcl.types import MODALITIES, SplitName
from output import add_out, write
from resident import Resident

WIDTHS = (300, 74, 35)
LONG = (50, 500, 375)
GROWING = (250, 500, 1000, 2000)


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=96, help="training clips of the epoch")
    parser.add_argument("--longest", type=int, default=GROWING[-1])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    add_out(parser)
    parser.add_argument("--steps-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--epoch", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.epoch or chosen.steps_of:
        print(json.dumps(epoch(chosen) if chosen.epoch else steps(chosen)))
        return
    content: dict[str, Any] = {"epoch": in_a_process("--epoch")}
    print("epoch", content["epoch"], flush=True)
    lengths = [n for n in GROWING if n <= chosen.longest]
    content["by_length"] = {}
    for n in lengths:
        content["by_length"][n] = in_a_process("--steps-of", str(n))
        print(n, content["by_length"][n], flush=True)
    content["exponents"] = exponents(content["by_length"])
    for key, found in content["exponents"].items():
        print(f"{key} grows with the length to the power of", *found)
    write(content, chosen.out)


def in_a_process(*what: str) -> dict[str, Any]:
    """Run one measurement and return its result; it writes its result in its last line."""
    command = [sys.executable, __file__, *sys.argv[1:], *what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def epoch(chosen: argparse.Namespace) -> dict[str, Any]:
    """One epoch of 32 clips a batch, as ``mmcl train`` runs it."""
    overrides = ["learning.epochs=1", "learning.batch_size=32", *chosen.overrides]
    config = resolve_config(model="calibrated", overrides=overrides)
    corpus = random_corpus(LONG, chosen.clips, 32)
    build_model(random_corpus((5, 5, 5), 2, 1), config)
    with Resident() as resident, tempfile.TemporaryDirectory() as folder:
        fitted = fit(corpus.development(), config, seed=1, folder=Path(folder))
    return {
        "steps": LONG,
        "clips_per_second": fitted.clips_per_second,
        "valid_loss": fitted.history[-1].valid_loss,
        "resident_mib": resident.above(),
    }


def steps(chosen: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a training step of eight clips, and what it takes of memory."""
    n, size = chosen.steps_of, 8
    config = resolve_config(model="calibrated", overrides=chosen.overrides)
    prepare_process(config.runtime)
    seed_everything(1)
    corpus = random_corpus((n, n, n), size, 1)
    split = corpus.split("train")
    model = build_model(corpus, config)
    learner = make_learner(model, config, make_fabric(config.runtime))
    batch = collate(split, range(size), model.modalities, targets_of(split))
    model.train()
    seconds = []
    with Resident() as resident:
        for _ in range(3):
            started = time.perf_counter()
            learner.step(batch)
            seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "resident_mib": resident.above()["total"]}


def random_corpus(lengths: tuple[int, int, int], train: int, valid: int) -> Corpus:
    """Clips of the given lengths with random features and scores, not aligned."""
    rng = np.random.default_rng(1)
    counts: dict[SplitName, int] = {"train": train, "valid": valid}
    card = Card(
        name="long",
        task=Task(kind="regression", low=-3, high=3),
        dims=dict(zip(MODALITIES, WIDTHS, strict=True)),
        counts=counts,
        aligned=False,
    )
    shapes = list(zip(MODALITIES, lengths, WIDTHS, strict=True))
    clips = (
        Clip(
            id=f"{split}-{i}",
            split=split,
            features={m: rng.normal(size=(n, d)).astype(np.float32) for m, n, d in shapes},
            label=float(rng.uniform(-3, 3)),
        )
        for split, count in counts.items()
        for i in range(count)
    )
    return pack_corpus(card, clips)


def exponents(by_length: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """Between a length and the next: 1 is linear, 2 quadratic."""
    found: dict[str, list[float]] = {}
    for key in ("seconds", "resident_mib"):
        found[key] = [
            round(math.log(by_length[b][key] / by_length[a][key]) / math.log(b / a), 2)
            for a, b in pairwise(by_length)
        ]
    return found


if __name__ == "__main__":
    main()
