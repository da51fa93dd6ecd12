"""The training loop: epochs, validation, early stopping, checkpoints, history.

One loop for every learner. It is given a corpus without test clips and leaves a folder::

    FOLDER/checkpoint.safetensors   the whole state after the latest epoch, to go on from
    FOLDER/history.csv              a row per epoch
    FOLDER/model/                   the network of the best validation loss, when done
    FOLDER/done.json                written last: what training came to
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcl.config import Config, LearningSettings
from mmcl.corpus.batches import (
    Batch,
    batch_rows,
    collate_share,
    drop_modalities,
    epoch_order,
    labelled_rows,
    move_batch,
    shuffle_window,
)
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import ConfigError, DatasetError, MissingExtraError, TrainingError
from mmcl.learning.checkpoints import load_state, replace_atomically, save_state, write_json
from mmcl.learning.inference import targets_of, validation_loss
from mmcl.learning.learner import Learner, StepReport, make_learner
from mmcl.learning.memory import check_memory
from mmcl.learning.together import Progress, run_together
from mmcl.models.network import Network
from mmcl.models.registry import build_network, load_network
from mmcl.processes import Share, joined, sharing, wait_for_all
from mmcl.runtime import (
    is_first_process,
    make_fabric,
    num_processes,
    prepare_process,
    seed_everything,
)
from mmcl.types import Modality

__all__ = [
    "DONE",
    "EpochRow",
    "Fitted",
    "Progress",
    "build_model",
    "fit",
    "read_fitted",
    "read_history",
]

CHECKPOINT, HISTORY, MODEL, DONE = "checkpoint.safetensors", "history.csv", "model", "done.json"
MOST_STEPS_FOR_STATISTICS = 200_000


class EpochRow(NamedTuple):
    """One row of the history; means over clips, seconds of training alone."""

    epoch: int
    loss: float
    task_loss: float
    alignment_loss: float
    critic_loss: float
    reward: float
    mean_action: float
    valid_loss: float
    learning_rate: float
    clips_per_second: float


class Fitted(NamedTuple):
    """What training came to.

    Attributes:
        model: The network of the best validation loss, in evaluation mode.
        history: A row per epoch.
        best_epoch: The epoch it is from.
        clips_per_second: Clips trained on per second, median over epochs.
        seconds: Spent on training alone, all epochs together.
        never_seen: Modalities no training clip had.
    """

    model: Network
    history: list[EpochRow]
    best_epoch: int
    clips_per_second: float
    seconds: float
    never_seen: tuple[Modality, ...]


def fit(
    development: Corpus,
    config: Config,
    *,
    seed: int,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Train one network with one seed.

    The same corpus, settings, seed and thread count give the same weights, bit for bit on
    the CPU, also when training was killed at any moment and resumed. Several processes, and the
    threads of each, share every batch: as many parts in all give the same curve, another number
    of them one that differs by rounding alone.

    Args:
        development: The corpus without its test clips.
        config: All settings.
        seed: Seeds weights, order, dropout and actions.
        folder: Where to leave the files listed above.
        resume: Go on from the folder's checkpoint, if it has one.
        progress: Told how far it is.

    Returns:
        The best network and its history.

    Raises:
        DatasetError: If the corpus still has test clips, or has no labelled clip to train or
            validate on.
        ConfigError: If there are more processes than cores, GPUs or clips of a batch, or the
            model can be trained by one process only.
        TrainingError: If a batch cannot fit into memory, the loss stops being finite, or a
            process is killed.
    """
    if development.card.counts.get("test"):
        raise DatasetError("fit takes a corpus without test clips: pass corpus.development()")
    folder.mkdir(parents=True, exist_ok=True)
    if resume and (folder / DONE).exists():
        return read_fitted(folder)
    if config.runtime.processes > 1 and num_processes() == 1:
        given = {"development": development, "seed": seed, "folder": folder, "resume": resume}
        run_together(fit, given, config, progress)
        return read_fitted(folder)
    training = _Training(development, config, seed, folder, progress)
    if resume and (folder / CHECKPOINT).exists():
        training.restore(load_state(folder / CHECKPOINT))
    while not training.is_over():
        training.run_epoch()
        if is_first_process():
            save_state(folder / CHECKPOINT, training.state_dict())
            _write_history(folder / HISTORY, training.history)
    if is_first_process():
        training.finish()
    wait_for_all()
    return read_fitted(folder)


def build_model(corpus: Corpus, config: Config) -> Network:
    """A fresh network for a corpus, with the statistics of its training split."""
    card = corpus.card
    model = build_network(
        {str(m): d for m, d in card.dims.items()},
        card.task,
        aligned=card.aligned,
        model=config.model,
        policy=config.policy,
    )
    train = corpus.split("train")
    model.fit_standardisation({m: _all_steps(train, m) for m in model.modalities})
    return model


def _all_steps(split: Split, modality: Modality) -> Tensor:
    """Real steps of a split, ``[k, d_m]``; evenly thinned out beyond 200,000.

    Steps that are missing are no steps, whatever the model: zeros in their place would
    pull every centre towards them.
    """
    lengths = split.lengths(modality)
    stride = max(1, math.ceil(int(lengths.sum()) / MOST_STEPS_FOR_STATISTICS))
    rows = np.flatnonzero(lengths)
    # Where a clip gives a step or none, its first must not stand for it in every clip.
    turns = len(rows) > 0 and 2 * stride > lengths[rows].mean()
    most = int((-(-lengths // stride)).sum())
    kept, at = np.empty((most, split.card.dims[modality]), dtype=np.float32), 0
    for row in rows:  # copied clip by clip: a view of each would hold the whole file
        steps = split.steps(modality, int(row))[int(row) % stride if turns else 0 :: stride]
        if split.card.missing_as_zero:
            steps = steps[steps.any(axis=1)]
        kept[at : at + len(steps)] = steps
        at += len(steps)
    return torch.from_numpy(kept[:at])


class _Part(NamedTuple):
    split: Split
    rows: np.ndarray
    targets: Tensor


class _Training:
    """State of one training run, between epochs."""

    def __init__(
        self,
        corpus: Corpus,
        config: Config,
        seed: int,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        seed_everything(seed)
        self.config, self.seed, self.folder, self.progress = config, seed, folder, progress
        self.train, self.valid = _part(corpus, "train"), _part(corpus, "valid")
        self.window = shuffle_window(self.train.split)
        self.processes = num_processes()
        _check_clips(self.processes, config.learning.batch_size, len(self.train.rows))
        self.fabric = make_fabric(config.runtime, loggers=_loggers(config, folder))
        self.fabric.launch()
        prepare_process(config.runtime)  # launching has set a number of threads of its own
        self.model = build_model(corpus, config)
        _check_shares(self.model, config, self.processes)
        if self.fabric.device.type == "cpu":
            check_memory(self.model, self.train.split, config.learning)
        self.model.prepare_training(self.train.targets)
        self.learner: Learner = make_learner(self.model, config, self.fabric)
        self.schedule = _Schedule(self.learner.optimizer, config.learning)
        self.history: list[EpochRow] = []
        self.best_epoch, self.best_loss = -1, math.inf
        self.best_weights: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        return len(self.history)

    def is_over(self) -> bool:
        patience = self.config.learning.patience
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.config.learning.epochs or (self.epoch > 0 and waited >= patience)

    def run_epoch(self) -> None:
        rate = self.schedule.start_epoch(self.epoch)
        blocks = self._blocks(self.epoch)
        self.model.train()
        self.learner.start_epoch(self.epoch)
        reports, counts = [], []
        started = time.perf_counter()
        for done, block in enumerate(blocks, start=1):
            share = self._share(len(block))
            with sharing(share):
                report = self.learner.step(self._batch(block, share))
            self._check_finite("loss", report.loss, f"at epoch {self.epoch + 1}, step {done}")
            reports.append(report)
            counts.append(len(block))
            self._tell(f"epoch {self.epoch + 1}", done, len(blocks), report._asdict())
        seconds = time.perf_counter() - started
        self._conclude_epoch(reports, counts, seconds, rate)

    def _blocks(self, epoch: int) -> list[np.ndarray]:
        learning = self.config.learning
        order = epoch_order(self.train.rows, seed=self.seed, epoch=epoch, window=self.window)
        return list(batch_rows(order, learning.batch_size, drop_last=learning.drop_last))

    def _conclude_epoch(
        self, reports: list[StepReport], counts: list[int], seconds: float, rate: float
    ) -> None:
        means = np.average(np.array(reports), axis=0, weights=counts)
        valid_loss = validation_loss(
            self.model,
            *self.valid,
            batch_size=self.config.evaluation.batch_size,
            processes=self.processes,
            rank=self.fabric.global_rank,
        )
        self._check_finite("validation loss", valid_loss, f"after epoch {self.epoch + 1}")
        speed = sum(counts) / seconds
        report = StepReport(*(float(mean) for mean in means))
        row = EpochRow(
            epoch=self.epoch,
            valid_loss=valid_loss,
            learning_rate=rate,
            clips_per_second=speed,
            **report._asdict(),
        )
        self.history.append(row)
        self.schedule.end_epoch(valid_loss)
        self.fabric.log_dict(row._asdict(), step=row.epoch)
        if valid_loss < self.best_loss:
            self.best_epoch, self.best_loss = row.epoch, valid_loss
            state = self.model.state_dict()
            self.best_weights = {k: v.detach().cpu().clone() for k, v in state.items()}
        self._tell("epochs", self.epoch, self.config.learning.epochs, row._asdict())

    def _share(self, clips: int) -> Share | None:
        """What of a batch is this process's."""
        return None if self.processes == 1 else joined(self.learner.shares(clips))

    def _batch(self, rows: np.ndarray, share: Share | None) -> Batch:
        batch = collate_share(
            self.train.split,
            rows,
            share,
            self.model.modalities,
            self.train.targets,
            keep_missing=self.model.released,
        )
        rate = self.config.learning.modality_dropout
        if rate and len(batch.masks) > 1:
            batch = batch._replace(masks=drop_modalities(batch.masks, rate))
        return move_batch(batch, self.fabric.device)

    def _check_finite(self, name: str, loss: float, when: str) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the {name} is {loss} {when}.\n"
                "  Lower the step size: --set learning.learning_rate="
                f"{self.config.learning.learning_rate / 10:g}\n"
                "  Look for faults in the corpus: mmcl corpus check CORPUS"
            )

    def _tell(self, stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if self.progress is not None:
            self.progress(stage, done, total, numbers)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": [list(row) for row in self.history],
            "best": [self.best_epoch, self.best_loss],
            "best_weights": self.best_weights,
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = [EpochRow(*row) for row in state["history"]]
        self.best_epoch, self.best_loss = state["best"]
        self.best_weights = state["best_weights"]
        torch.set_rng_state(state["random"])

    def finish(self) -> None:
        """Write the best network, and then that it is done."""
        self.model.load_state_dict(self.best_weights)
        self.model.eval().save_pretrained(self.folder / MODEL)
        _write_history(self.folder / HISTORY, self.history)
        write_json(
            self.folder / DONE,
            {
                "seed": self.seed,
                "clips": sum(len(block) for block in self._blocks(0)),
                "best_epoch": self.best_epoch,
                "best_valid_loss": self.best_loss,
                "never_seen": list(self.model.never_seen),
            },
        )


def read_fitted(folder: Path) -> Fitted:
    """What a finished training left in its folder."""
    done = json.loads((folder / DONE).read_text())
    rows = read_history(folder)
    speed = float(np.median([row.clips_per_second for row in rows]))
    model = load_network(folder / MODEL)
    seconds = sum(done["clips"] / row.clips_per_second for row in rows)
    return Fitted(model, rows, done["best_epoch"], speed, seconds, tuple(done["never_seen"]))


def read_history(folder: Path) -> list[EpochRow]:
    """The epochs a training has behind it, none where it has not ended its first."""
    try:
        with (folder / HISTORY).open(newline="") as file:
            table = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    numbers = EpochRow._fields[1:]
    return [EpochRow(int(row["epoch"]), *(float(row[key]) for key in numbers)) for row in table]


def _part(corpus: Corpus, name: Any) -> _Part:
    split = corpus.split(name)
    rows = labelled_rows(split)
    if not len(rows):
        raise DatasetError(
            f'{corpus.card.name}, split "{name}": no clip with a label ({len(split)} clips).\n'
            "  Training needs labelled clips to learn from and others to choose by.\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )
    return _Part(split, rows, targets_of(split))


def _check_clips(processes: int, batch_size: int, clips: int) -> None:
    if batch_size < processes:
        raise ConfigError(
            f"learning.batch_size is {batch_size}, fewer clips than the {processes} processes "
            f"that share them\n  Use fewer processes: --set runtime.processes={batch_size}"
        )
    if clips < processes:
        raise DatasetError(
            f'split "train": {clips} clip{"s" * (clips != 1)} with a label, fewer than the '
            f"{processes} processes that share them\n"
            f"  Use fewer processes: --set runtime.processes={clips}"
        )


def _check_shares(model: Network, config: Config, processes: int) -> None:
    if processes > 1 and not model.shares_batches:
        raise ConfigError(
            f"runtime.processes is {processes}, but {config.model.name} looks at all clips of a "
            "batch at once: one process trains it\n"
            "  Use one: --set runtime.processes=1\n"
            "  Train several models or seeds side by side: mmcl compare --workers"
        )


class _Schedule:
    """The step size of every epoch."""

    def __init__(self, optimizer: Any, learning: LearningSettings) -> None:
        self.optimizer, self.learning = optimizer, learning
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def start_epoch(self, epoch: int) -> float:
        factor = self.factor
        if self.learning.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / self.learning.epochs))
        rate = self.learning.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def end_epoch(self, valid_loss: float) -> None:
        self.waited = 0 if valid_loss < self.best else self.waited + 1
        self.best = min(self.best, valid_loss)
        if self.learning.schedule == "plateau" and self.waited > self.learning.plateau_patience:
            self.factor, self.waited = self.factor * self.learning.plateau_factor, 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]


def _write_history(path: Path, history: list[EpochRow]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(EpochRow._fields)
    writer.writerows(history)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text.getvalue())
    replace_atomically(unfinished, path)


def _loggers(config: Config, folder: Path) -> list[Any]:
    if not config.runtime.tensorboard:
        return []
    try:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        return [TensorBoardLogger(folder, name="tensorboard", version="")]
    except ModuleNotFoundError:
        raise MissingExtraError(
            "writing TensorBoard files needs tensorboard, which is not installed.\n"
            '  Install it: pip install "mmcl[track]"'
        ) from None
