"""A corpus larger than memory may be: planted to disk, read, trained on and predicted.

Clips of MOSEI's aligned shape (50 steps of 300/74/35 features) in float16. Every stage is a
process of its own; its resident memory is what it adds to the loaded libraries and the built
network, in all, of its own (RssAnon) and mapped of files (RssFile). Before the first reading
the file is dropped from the system's cache. What training and prediction hold does not grow
with the batches behind them, so that ``--batches`` shortens both.
Run it with: python benchmarks/streaming.py
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from output import add_out, write
from resident import Resident

STEPS, WIDTHS = 50, (300, 74, 35)
HELD_OUT = 10
"""One clip in ten is a validation clip, one a test clip."""
CORPUS, RUN, MODEL = "clips.arrow", "run", "model"


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/streaming"))
    parser.add_argument(
        "--batches", type=int, help="train and predict only so many; all of them by default"
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    add_out(parser)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        print(json.dumps(STAGES[chosen.stage](chosen)))
        return
    chosen.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    try:
        for stage in STAGES:
            results[stage] = in_a_process(stage, sys.argv[1:])
            print(stage, results[stage], flush=True)
    finally:
        shutil.rmtree(chosen.folder)
    for way in ("cold", "warm"):
        rate = results[way]["clips_per_second"] / results["train"]["clips_per_second"]
        results[way]["times_training"] = rate
        print(f"reading, {way}: {rate:.1f} times what training consumes")
    settings = {key: vars(chosen)[key] for key in ("clips", "batches", "overrides")}
    write({"settings": settings, "results": results}, chosen.out)


def in_a_process(stage: str, options: list[str]) -> dict[str, Any]:
    """Run a stage and return its result; it writes its result in its last line."""
    command = [sys.executable, __file__, *options, "--stage", stage]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---------------------------------------------------------------- stages


def plant(chosen: argparse.Namespace) -> dict[str, Any]:
    """As ``mmcl corpus plant --dtype float16`` does."""
    from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
    from mmcl.corpus.store import write_corpus

    held = max(chosen.clips // HELD_OUT, 1)
    train = chosen.clips - 2 * held
    settings = PlantSettings(train=train, valid=held, test=held, steps=STEPS, widths=WIDTHS)
    path = chosen.folder / CORPUS
    with Resident() as resident:
        started = time.perf_counter()
        write_corpus(path, plant_card(settings), plant_clips(settings), dtype="float16")
        seconds = time.perf_counter() - started
    return {
        "gigabytes": path.stat().st_size / 1e9,
        "seconds": seconds,
        "clips_per_second": chosen.clips / seconds,
        "resident_mib": resident.above(),
    }


def cold(chosen: argparse.Namespace) -> dict[str, Any]:
    """Batches of one epoch in training's order, nothing of the file in the system's cache."""
    with (chosen.folder / CORPUS).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return warm(chosen)


def warm(chosen: argparse.Namespace) -> dict[str, Any]:
    """Batches of one epoch in training's order."""
    from mmcl.corpus.batches import batch_rows, collate, epoch_order, labelled_rows, shuffle_window
    from mmcl.corpus.store import open_corpus

    split = open_corpus(chosen.folder / CORPUS).split("train")
    window = shuffle_window(split)
    with Resident() as resident:
        started = time.perf_counter()
        order = epoch_order(labelled_rows(split), seed=1, epoch=0, window=window)
        for rows in batch_rows(order, 64):
            collate(split, rows, split.modalities)
        seconds = time.perf_counter() - started
    return {
        "clips_per_window": window,
        "seconds": seconds,
        "clips_per_second": len(split) / seconds,
        "megabytes_per_second": split.feature_bytes() / 1e6 / seconds,
        "resident_mib": resident.above(),
    }


class EnoughError(Exception):
    """As many batches as were asked for."""


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """``mmcl train`` for one epoch: checksum, statistics, training, scores, reference rows.

    Or for some batches of it, and then the reference rows by themselves.
    """
    from mmcl.config import resolve_config
    from mmcl.corpus.store import open_corpus
    from mmcl.evaluation.protocol import reference_metrics
    from mmcl.models.registry import build_network
    from mmcl.runs.run import train as train_run

    overrides = ["learning.epochs=1", *chosen.overrides]
    config = resolve_config(model="calibrated", overrides=overrides)
    corpus = open_corpus(chosen.folder / CORPUS)
    card = corpus.card
    model = build_network(
        {str(m): d for m, d in card.dims.items()},
        card.task,
        aligned=card.aligned,
        model=config.model,
        policy=config.policy,
    )
    times = []

    def tell(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        times.append(time.perf_counter())
        if done == chosen.batches:
            raise EnoughError

    with Resident() as resident:
        started = time.perf_counter()
        with suppress(EnoughError):
            train_run(corpus, config, out=chosen.folder / RUN, seeds=(1,), progress=tell)
        if chosen.batches:
            reference_metrics(corpus, "valid", preset="mmsa")
            model.save_pretrained(chosen.folder / MODEL)
        seconds = time.perf_counter() - started
    num_batches = chosen.batches or -(-card.counts["train"] // config.learning.batch_size)
    of_training = times[num_batches - 1] - times[0]
    return {
        "seconds": seconds,
        "seconds_before_the_first_step": times[0] - started,
        "clips_per_second": (num_batches - 1) * config.learning.batch_size / of_training,
        "resident_mib": resident.above(),
    }


def predict(chosen: argparse.Namespace) -> dict[str, Any]:
    """``mmcl predict`` on every clip, or what it does on the clips of some batches."""
    from mmcl.corpus.store import open_corpus
    from mmcl.learning.inference import score_split
    from mmcl.models.registry import load_network
    from mmcl.runs.run import Run

    corpus = open_corpus(chosen.folder / CORPUS)
    run = None if chosen.batches else Run.load(chosen.folder / RUN)
    model = load_network(chosen.folder / MODEL) if run is None else run.model()
    predicted = 0

    def advance(clips: int) -> None:
        nonlocal predicted
        predicted += clips
        if predicted >= (chosen.batches or math.inf) * 256:
            raise EnoughError

    with Resident() as resident:
        started = time.perf_counter()
        with suppress(EnoughError):
            if run is None:
                score_split(model, corpus.every_clip(), per_step=False, advance=advance)
            else:
                run.predict(corpus, advance=advance)
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "clips_per_second": predicted / seconds,
        "resident_mib": resident.above(),
    }


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    each.__name__: each for each in (plant, cold, warm, train, predict)
}


if __name__ == "__main__":
    main()
