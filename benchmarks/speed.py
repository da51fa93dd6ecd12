"""Clips per second beside the machine's own arithmetic floor and beside plain torch.

Four things take turns: ``released`` and ``calibrated`` at the size of the authors' code (width
128, batch 128), the default configuration (preset ``planted`` as it is), and the authors' loop
as plain torch code writes it, in a process of its own (``benchmarks/reference.py``). The clips
are planted, 20 aligned steps of 300/74/35 features, float32, a score to predict: what a trained
policy drops is not computed, so the rate is measured of networks that learn. All of a
configuration's training is spread over the rounds; ``released``, which drops nothing, is given
fewer epochs.

Operations are those that torch counts in a step on one thread. The floor is that count over the
rate of a large matrix product on all threads, measured before and after every turn, since these
rates drift. Then the trained networks predict clips in batches as ``mmcl predict`` does, and one
clip alone on one thread.

    python benchmarks/speed.py            (eight minutes on 2 cores)
    python benchmarks/speed.py --quick    (few clips and rounds)
    python benchmarks/speed.py --one-thread --json ratios.json   (benchmarks/one_thread.py)
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcl.config import Config, RuntimeSettings, resolve_config
from mmcl.corpus.batches import Batch, batch_rows, collate, epoch_order
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.corpus.store import Corpus, Split
from mmcl.learning.inference import score_split, targets_of
from mmcl.learning.learner import Learner
from mmcl.learning.loop import build_model, make_learner
from mmcl.models.network import Network
from mmcl.runtime import make_fabric, prepare_process, seed_everything
from mmcl.types import MODALITIES
from one_thread import measure_ratios
from output import add_out, write
from rates import matrix_product_rate
from reference import BATCH, Apart

WIDTHS = (300, 74, 35)
CONFIGURATIONS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "released": ("released", None, ("learning.epochs=5",)),
    "calibrated": ("calibrated", "planted", ("model.width=128", "learning.batch_size=128")),
    "default": ("calibrated", "planted", ()),
}
"""Model, preset and single settings of everything that is measured."""

PRECISIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {"float32": nullcontext}
"""In which networks predict, and what is entered for it."""

PREDICT_BATCH = 256
REFERENCE_BATCHES = (BATCH, PREDICT_BATCH)
"""Clips in a batch that the reference predicts; the faster of them is compared with."""
REFERENCE_STEPS = 4
"""Steps of the reference in a turn; it is measured only, so that they need not be many."""


class Turn(NamedTuple):
    """Result of a turn.

    Attributes:
        seconds: Per clip.
        rate: Of a large matrix product before and after it, operations per second.
        kept: Mean action of the steps; nan where there are no actions.
        operations: Per clip, as counted last; nan where they are not counted.
    """

    seconds: float
    rate: float
    kept: float = math.nan
    operations: float = math.nan


class Trainee:
    """A configuration in training: its steps, what they cost, and its predictions.

    Args:
        settings: Of :data:`CONFIGURATIONS`.
        corpus: The planted clips.
        rounds: Turns its training is cut into.
    """

    def __init__(
        self,
        settings: tuple[str, str | None, Sequence[str]],
        corpus: Corpus,
        rounds: int,
        overrides: Sequence[str] = (),
    ) -> None:
        model, source, own = settings
        self.config: Config = resolve_config(
            model=model, source=source, overrides=[*own, *overrides]
        )
        self.corpus, self.train_split = corpus, corpus.split("train")
        self.targets = targets_of(self.train_split)
        self.model: Network = build_model(corpus, self.config)
        self.learner: Learner = make_learner(
            self.model, self.config, make_fabric(self.config.runtime)
        )
        learning = self.config.learning
        steps = learning.epochs * math.ceil(len(self.train_split) / learning.batch_size)
        self.steps_of_a_turn = max(1, steps // rounds)
        self.blocks = self._blocks()
        self.operations = math.nan

    def train(self, steps: int | None = None) -> Turn:
        """Some steps of training, collating included."""
        blocks = list(itertools.islice(self.blocks, steps or self.steps_of_a_turn))
        self.model.train()
        before = matrix_product_rate()
        started = time.perf_counter()
        kept = self.learn(blocks)
        seconds = (time.perf_counter() - started) / sum(map(len, blocks))
        rate = (before + matrix_product_rate()) / 2
        return Turn(seconds, rate, statistics.mean(kept), self.operations)

    def learn(self, blocks: Sequence[np.ndarray]) -> list[float]:
        """Take a step per block, collating included; return the mean actions."""
        return [self.learner.step(self._batch(block)).mean_action for block in blocks]

    def score(self, split: Split) -> None:
        """Predict the clips of a split, as ``mmcl predict`` does."""
        score_split(self.model, split, batch_size=PREDICT_BATCH, per_step=False)

    @property
    def batch_size(self) -> int:
        """Clips per step."""
        return self.config.learning.batch_size

    def count_training(self) -> None:
        """Count the operations of a step by a copy of the learner, on one thread."""
        config = self.config.model_copy(
            update={"runtime": self.config.runtime.model_copy(update={"threads": 1})}
        )
        rows = np.random.default_rng(1).permutation(len(self.train_split))
        batch = self._batch(rows[: config.learning.batch_size])
        with one_thread():
            model = build_model(self.corpus, config)
            learner = make_learner(model, config, make_fabric(config.runtime))
            learner.load_state_dict(copy.deepcopy(self.learner.state_dict()))
            model.train()
            with FlopCounterMode(display=False) as counter:
                learner.step(batch)
        self.operations = counter.get_total_flops() / len(batch.rows)

    def predict(self, split: Split) -> Turn:
        """The clips of a split in batches, as ``mmcl predict`` runs it."""
        before = matrix_product_rate()
        started = time.perf_counter()
        self.score(split)
        seconds = (time.perf_counter() - started) / len(split)
        return Turn(seconds, (before + matrix_product_rate()) / 2, operations=self.operations)

    def count_prediction(self, split: Split) -> float:
        """Count the operations of predicting on one thread; the share of steps kept."""
        with one_thread(), FlopCounterMode(display=False) as counter:
            scored = score_split(self.model, split, batch_size=PREDICT_BATCH)
        self.operations = counter.get_total_flops() / len(split)
        return float(np.mean(scored.actions))

    def one_clip(self, split: Split, calls: int = 50) -> float:
        """Median seconds of the network on one clip, one thread."""
        batch = collate(split, [0], self.model.modalities)
        self.model.eval()
        seconds = []
        with one_thread(), torch.inference_mode():
            for _ in range(calls):
                started = time.perf_counter()
                self.model(batch.features, batch.masks)
                seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def _batch(self, rows: np.ndarray) -> Batch:
        keeps = self.config.model.name == "released"
        modalities = self.model.modalities
        return collate(self.train_split, rows, modalities, self.targets, keep_missing=keeps)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Batches of one epoch after the other, step sizes as the training loop sets them."""
        learning = self.config.learning
        rows = np.arange(len(self.train_split))
        for epoch in itertools.count():
            self.learner.start_epoch(epoch)
            if learning.schedule == "cosine":
                done = min(epoch, learning.epochs - 1) / learning.epochs
                for group in self.learner.optimizer.param_groups:
                    group["lr"] = learning.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            order = epoch_order(rows, seed=1, epoch=epoch)
            yield from batch_rows(order, learning.batch_size, drop_last=learning.drop_last)


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything happens in the calling thread, and leaves the state of chance as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--predict-rounds", type=int, default=12)
    parser.add_argument("--train-clips", type=int, default=2048)
    parser.add_argument("--test-clips", type=int, default=1024)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--quick", action="store_true")
    add_out(parser)
    parser.add_argument("--one-thread", action="store_true", help="ratios in CPU time alone")
    parser.add_argument("--json", type=Path, default=Path("ratios.json"), help="with --one-thread")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.predict_rounds, chosen.train_clips = 3, 2, 256
    seed_everything(1)
    prepare_process(RuntimeSettings())
    if chosen.one_thread:
        ratios = measure_ratios(Trainee, CONFIGURATIONS, WIDTHS)
        print(json.dumps(ratios, indent=2))
        chosen.json.write_text(json.dumps(ratios, indent=2) + "\n")
        return
    content = measure(chosen)
    show(content)
    if not chosen.quick:
        content["one_thread"] = measure_ratios(Trainee, CONFIGURATIONS, WIDTHS)
    write(content, chosen.out)


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """All rounds of training, then all rounds of prediction."""
    corpus = plant_corpus(
        PlantSettings(train=chosen.train_clips, valid=1, test=chosen.test_clips, widths=WIDTHS)
    )
    trainees = {
        name: Trainee(settings, corpus, chosen.rounds, chosen.overrides)
        for name, settings in CONFIGURATIONS.items()
    }
    batch = collate(corpus.split("train"), range(chosen.train_clips), MODALITIES)
    reference = Apart([batch.features[m] for m in MODALITIES])
    training = train_rounds(trainees, reference, chosen.rounds)
    test = corpus.open_test_split()  # to predict its clips; no label is looked at
    predicting, kept = predict_rounds(trainees, reference, test, chosen.predict_rounds)
    results = {}
    for name, trainee in trainees.items():
        predicted = {p: result_of(predicting[f"{name} {p}"]) for p in PRECISIONS}
        alone = [1e3 * trainee.one_clip(test) for _ in range(chosen.predict_rounds)]
        results[name] = {
            "width": trainee.config.model.width,
            "batch_size": trainee.config.learning.batch_size,
            "train": training_result(training[name]),
            "predict": {"share_kept": kept[name], **predicted},
            "one_clip_ms": spread(alone),
        }
    turns = [turn for each in (*training.values(), *predicting.values()) for turn in each]
    settings = {
        k: v for k, v in vars(chosen).items() if k not in ("quick", "out", "one_thread", "json")
    }
    return {
        "settings": settings | {"widths": WIDTHS, "steps": 20, "predict_batch": PREDICT_BATCH},
        "threads": torch.get_num_threads(),
        "matrix_product_flops_per_second": spread([turn.rate for turn in turns]),
        "reference": {
            "batch_size": BATCH,
            "train_clips_per_second": rates_of(training["reference"]),
            "predict_clips_per_second": {
                str(size): rates_of(predicting[f"reference {size}"]) for size in REFERENCE_BATCHES
            },
        },
        "configurations": results,
        "ratios": {"train": training_ratios(training), "predict": prediction_ratios(predicting)},
    }


def train_rounds(
    trainees: dict[str, Trainee], reference: Apart, rounds: int
) -> dict[str, list[Turn]]:
    """Turns of everything, round by round, after three steps that warm up."""
    found: dict[str, list[Turn]] = {name: [] for name in (*trainees, "reference")}
    for trainee in trainees.values():
        trainee.train(3)
    reference.seconds("train_step", 3)
    for at in range(rounds):
        for name, trainee in trainees.items():
            if at == 0 or trainee.config.policy.kind == "rloo":
                trainee.count_training()  # fewer as policies learn to drop; soft ones drop nothing
            found[name].append(trainee.train())
        found["reference"].append(reference_turn(reference, "train_step", BATCH))
        tell(f"round {at + 1}", {name: turns[-1] for name, turns in found.items()})
    return found


def predict_rounds(
    trainees: dict[str, Trainee], reference: Apart, split: Split, rounds: int
) -> tuple[dict[str, list[Turn]], dict[str, float]]:
    """Turns of every trained network in every precision; and the share of steps each keeps."""
    kept = {name: trainee.count_prediction(split) for name, trainee in trainees.items()}
    found: dict[str, list[Turn]] = {}
    for at in range(rounds + 1):
        turns: dict[str, Turn] = {}
        for name, trainee in trainees.items():
            for precision, entered in PRECISIONS.items():
                with entered():
                    turns[f"{name} {precision}"] = trainee.predict(split)
        for size in REFERENCE_BATCHES:
            turns[f"reference {size}"] = reference_turn(reference, "predict_step", size, size)
        if at == 0:
            continue  # it warmed up
        tell(f"prediction {at}", turns)
        for name, turn in turns.items():
            found.setdefault(name, []).append(turn)
    return found, kept


def reference_turn(reference: Apart, method: str, clips: int, *given: int) -> Turn:
    """Some steps of the reference."""
    before = matrix_product_rate()
    seconds = reference.seconds(method, REFERENCE_STEPS, *given) / (REFERENCE_STEPS * clips)
    return Turn(seconds, (before + matrix_product_rate()) / 2)


def tell(label: str, turns: dict[str, Turn]) -> None:
    """A line about a round."""
    parts = []
    for name, turn in turns.items():
        kept = "" if math.isnan(turn.kept) else f" (keeps {turn.kept:.0%})"
        parts.append(f"{name} {1 / turn.seconds:.0f}{kept}")
    rate = statistics.median(turn.rate for turn in turns.values()) / 1e9
    print(f"{label}: clips/s: {', '.join(parts)}; {rate:.0f} GFLOP/s", flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def rates_of(turns: list[Turn]) -> dict[str, float]:
    """Clips per second."""
    return spread([1 / turn.seconds for turn in turns])


def training_result(turns: list[Turn]) -> dict[str, Any]:
    """Changes in the first, the middle and the last round, and medians of the rates."""
    at = {"first": turns[0], "middle": turns[len(turns) // 2], "last": turns[-1]}
    return result_of(turns) | {
        "share_kept": {key: turn.kept for key, turn in at.items()},
        "mflop_per_clip": {key: turn.operations / 1e6 for key, turn in at.items()},
    }


def result_of(turns: list[Turn]) -> dict[str, Any]:
    """Clips per second, the floor's, and the share reached, round by round."""
    floors = [turn.operations / turn.rate for turn in turns]  # seconds a clip
    shares = [floor / turn.seconds for floor, turn in zip(floors, turns, strict=True)]
    return {
        "clips_per_second": rates_of(turns),
        "floor_clips_per_second": spread([1 / floor for floor in floors]),
        "share_of_floor": spread(shares),
        "mflop_per_clip": turns[-1].operations / 1e6,
    }


def training_ratios(turns: dict[str, list[Turn]]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times the clips per second of ``released`` and of the reference."""
    return {
        name: {slow: times(turns[slow], turns[name]) for slow in ("released", "reference")}
        for name in CONFIGURATIONS
    }


def prediction_ratios(turns: dict[str, list[Turn]]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times the clips per second of the reference, in the faster of its batches."""
    sizes = [turns[f"reference {size}"] for size in REFERENCE_BATCHES]
    fastest = [min(each, key=lambda turn: turn.seconds) for each in zip(*sizes, strict=True)]
    return {
        name: {precision: times(fastest, turns[f"{name} {precision}"]) for precision in PRECISIONS}
        for name in CONFIGURATIONS
    }


def times(slow: list[Turn], fast: list[Turn]) -> dict[str, float]:
    """Ratios of two, round by round."""
    return spread([a.seconds / b.seconds for a, b in zip(slow, fast, strict=True)])


def show(content: dict[str, Any]) -> None:
    """Print a table."""
    rate = content["matrix_product_flops_per_second"]
    print(
        f"\nmatrix products: {rate['median'] / 1e9:.0f} GFLOP/s ({rate['least'] / 1e9:.0f} to "
        f"{rate['most'] / 1e9:.0f}) on {content['threads']} threads"
    )
    print(f"{'':12}{'':9}{'clips/s':>9}{'MFLOP/clip':>12}{'floor':>9}{'share':>8}{'kept':>7}")
    for name, found in content["configurations"].items():
        train, predict = found["train"], found["predict"]
        row(name, "train", train, train["mflop_per_clip"]["last"], train["share_kept"]["last"])
        for precision in PRECISIONS:
            each = predict[precision]
            row(name, "predict", each, each["mflop_per_clip"], predict["share_kept"])
        print(f"{name:12}one clip, one thread: {found['one_clip_ms']['median']:.2f} ms")


def row(name: str, step: str, found: dict[str, Any], mflop: float, kept: float) -> None:
    """Print a row of the table."""
    print(
        f"{name:12}{step:9}{found['clips_per_second']['median']:9.0f}{mflop:12.1f}"
        f"{found['floor_clips_per_second']['median']:9.0f}"
        f"{found['share_of_floor']['median']:8.0%}{kept:7.0%}"
    )


if __name__ == "__main__":
    main()
