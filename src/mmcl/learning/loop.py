"""The training loop: epochs, validation, early stopping, checkpoints, history.

One loop serves every learner. It takes a corpus without test clips and writes a folder::

    FOLDER/checkpoint.safetensors   complete state after the latest epoch, for --resume
    FOLDER/history.csv              a row per epoch
    FOLDER/model/                   the network of the best validation loss, when done
    FOLDER/done.json                written last: the best epoch and its loss
    FOLDER/start.json               weights that learning.start gave, if it names a run
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmcl.config import Config, PolicySettings
from mmcl.corpus.batches import (
    Batch,
    batch_rows,
    drop_modalities,
    drop_steps,
    epoch_order,
    of_like_length,
    share_of_process,
    shuffle_window,
)
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import ConfigError, DatasetError, DiskError, DivergedError, RunError, TrainingError
from mmcl.files import disk_errors, make_folder, remove_unfinished, sync_folder, write_json
from mmcl.learning.checkpoints import load_state, save_state
from mmcl.learning.ddpg import DdpgLearner
from mmcl.learning.fitted import DONE, MODEL, Fitted, read_fitted
from mmcl.learning.history import EpochRow, tensorboard_loggers, write_history
from mmcl.learning.inference import validation_loss
from mmcl.learning.labelled_clips import check_clips, labelled_clips, too_large
from mmcl.learning.learner import BaselineLearner, Learner, PolicyLearner, StepReport
from mmcl.learning.schedule import Schedule
from mmcl.learning.start import START, Start, first_encoder, open_start
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.models.registry import build_network
from mmcl.models.words import WordEncoder
from mmcl.runtime import (
    gather_from_processes,
    in_first_process,
    launch,
    prepare_process,
    seed_everything,
)
from mmcl.types import Modality

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Progress",
    "build_model",
    "fit",
    "make_learner",
]

CHECKPOINT = "checkpoint.safetensors"
MOST_STEPS_FOR_STATISTICS = 200_000
_OWN_STATE = ("network", "replay", "target_critic")
"""Parts of a learner's state in which several processes differ: memories of their own clips, and
batch statistics of a target critic, which no DistributedDataParallel keeps alike."""
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|(out of|not enough) memory|ALLOC_FAILED", re.IGNORECASE
)
"""Messages of torch on CPUs and GPUs when an allocation fails."""

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called as ``progress(stage, done, total, numbers)`` after steps and epochs."""


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
    the CPU, even if training was killed at any moment and resumed. Several processes
    (``runtime.devices``, or ``torchrun``) train by DistributedDataParallel, each on its share
    of every batch. The same number of processes gives the same weights.

    Args:
        development: The corpus without its test clips.
        config: All settings.
        seed: Seeds weights, order, dropout and actions.
        folder: Folder for the files listed above.
        resume: Go on from the folder's checkpoint, if it has one.
        progress: Called after steps and epochs.

    Returns:
        The best network and its history.

    Raises:
        DatasetError: If the corpus still has test clips, or has no labelled clip to train or
            validate on.
        ConfigError: If there are more processes than cores, GPUs or clips of a batch, or the
            reward does not exist for the policy or the task.
        TrainingError: If a batch does not fit into memory, or the loss stops being finite.
        DiskError: If the disk takes no more. It says up to which epoch the training is kept.
    """
    if development.card.counts.get("test"):
        raise DatasetError("fit takes a corpus without test clips: pass corpus.development()")
    # From here on several processes may run these lines; only the first one writes.
    fabric = launch(config.runtime)
    if not (resume and (folder / DONE).exists()):
        resume = resume and (folder / CHECKPOINT).exists()
        # A checkpoint holds all weights: the start is needed no more, and may be gone.
        begins = config.learning.start is not None and not resume
        start = open_start(str(config.learning.start)) if begins else None
        with disk_errors(folder):
            make_folder(folder)
            training = _Training(development, config, seed, folder, fabric, progress, start)
        _train(training, resume)
    fabric.barrier()
    return read_fitted(folder)


def _train(training: _Training, resume: bool) -> None:
    """Run the remaining epochs; the first process writes."""
    folder, fabric = training.folder, training.fabric
    if resume:
        _restore(training, load_state(folder / CHECKPOINT))
    elif fabric.is_global_zero:  # one that is stopped now must not be resumed from an earlier one
        for name in (DONE, CHECKPOINT, START):
            (folder / name).unlink(missing_ok=True)
        if training.taken is not None:
            with disk_errors(folder):
                write_json(folder / START, training.taken)
    if fabric.is_global_zero:
        remove_unfinished(folder)
    kept = training.epoch
    try:
        while not training.is_over():
            training.run_epoch()
            # All processes take part in collecting the state.
            save = partial(training.save, training.state_dict())
            in_first_process(fabric, save)
            kept = training.epoch
        in_first_process(fabric, training.finish)
    except DiskError as fault:
        fault.kept = f"The training in {folder} is kept up to epoch {kept}."
        if not kept:
            fault.kept = f"The training in {folder} had not finished an epoch; it starts afresh."
        raise


def _restore(training: _Training, state: dict[str, Any]) -> None:
    """Go on from a checkpoint, or refuse one of another version."""
    try:
        training.restore(state)
    except (LookupError, TypeError, ValueError, RuntimeError) as fault:
        here, before = metadata.version("mmcl"), state.get("version")
        by = (
            "it does not say which version wrote it"
            if before is None
            else f"mmcl {before} wrote it"
        )
        install = f'Install that version: pip install "mmcl=={before}"'
        again = "Train it again: mmcl train CORPUS --out NEW"
        raise RunError(
            f"{training.folder / CHECKPOINT}: mmcl {here} cannot go on from it; {by} "
            f"({type(fault).__name__}: {str(fault).splitlines()[0]}).\n"
            f"  {again if before in (None, here) else install}"
        ) from fault


def make_learner(model: Network, config: Config, fabric: Fabric) -> Learner:
    """Return the learner that the settings ask for.

    Raises:
        ConfigError: If the reward does not exist for the policy or the task.
    """
    if not isinstance(model, MMCL):
        return BaselineLearner(model, config, fabric)
    _check_reward(config.policy, model)
    if config.policy.kind == "ddpg" and config.learning.accumulate > 1:
        raise ConfigError(
            'learning.accumulate cuts a batch, and policy.kind "ddpg" remembers whole ones\n'
            "  Use: --set learning.accumulate=1"
        )
    return (DdpgLearner if config.policy.kind == "ddpg" else PolicyLearner)(model, config, fabric)


def _check_reward(policy: PolicySettings, model: MMCL) -> None:
    """Refuse rewards that the policy cannot learn from, or that the task does not have."""
    if policy.reward == "separate" and policy.kind != "rloo":
        raise ConfigError(
            f'policy.reward "separate" needs policy.kind "rloo", got "{policy.kind}": '
            "the DDPG critic is joint\n  Use: --set policy.kind=rloo"
        )
    if policy.reward == "as-released" and model.task.kind != "emotions":
        raise ConfigError(
            'policy.reward "as-released" exists for emotions only, '
            f"the corpus has {model.task.kind}\n"
            "  Use: --set policy.reward=joint"
        )


def build_model(corpus: Corpus, config: Config, words: WordEncoder | None = None) -> Network:
    """Build an untrained network for a corpus, with the statistics of its training split.

    Args:
        corpus: The corpus; with ``words`` one of word pieces.
        config: All settings.
        words: The encoder that reads the text, if ``text.encoder`` names one.
    """
    card = corpus.card
    model = build_network(
        {str(m): d for m, d in card.dims.items()},
        card.task,
        aligned=card.aligned,
        model=config.model,
        policy=config.policy,
        words=words,
    )
    train = corpus.split("train")
    model.fit_standardisation({m: _all_steps(train, m) for m in model.modalities})
    return model


def _all_steps(split: Split, modality: Modality) -> Tensor:
    """Return real steps of a split, ``[k, d_m]``: every k-th one of more than 200,000.

    Missing steps are left out for every model, since zeros would shift the centres.
    """
    lengths = split.lengths(modality)
    stride = max(1, math.ceil(int(lengths.sum()) / MOST_STEPS_FOR_STATISTICS))
    rows = np.flatnonzero(lengths)
    # A clip may be so short that it gives a single step. That must not always be its first.
    rotates = len(rows) > 0 and 2 * stride > lengths[rows].mean()
    largest = int((-(-lengths // stride)).sum())
    # Copied clip by clip, since views would keep the whole file in memory.
    kept, filled = np.empty((largest, split.card.dims[modality]), dtype=np.float32), 0
    for row in rows:
        steps = split.steps(modality, int(row))[int(row) % stride if rotates else 0 :: stride]
        if split.card.missing_as_zero:
            steps = steps[steps.any(axis=1)]
        kept[filled : filled + len(steps)] = steps
        filled += len(steps)
    return torch.from_numpy(kept[:filled])


class _Training:
    """State of one training, between epochs."""

    def __init__(
        self,
        corpus: Corpus,
        config: Config,
        seed: int,
        folder: Path,
        fabric: Fabric,
        progress: Progress | None,
        start: Start | None = None,
    ) -> None:
        prepare_process(config.runtime)
        seed_everything(seed)
        self.config, self.seed, self.folder = config, seed, folder
        self.fabric, self.progress = fabric, progress or (lambda *_: None)
        words, card = first_encoder(config.text, start), corpus.card
        corpus = corpus if words is None else words.corpus(corpus)
        self.train = labelled_clips(corpus, "train")
        self.valid = labelled_clips(corpus, "valid")
        self.window = shuffle_window(self.train.split)
        self.processes = fabric.world_size
        check_clips(self.processes, config.learning.batch_size, len(self.train.rows))
        self.loggers = tensorboard_loggers(config, folder) if fabric.is_global_zero else []
        # The order matters for the random numbers: first the weights, then the learner's own.
        self.model = build_model(corpus, config, words)
        self.taken = None if start is None else start.give(self.model, card, config)
        self.model.prepare_training(self.train.targets)
        self.learner = make_learner(self.model, config, fabric)
        self.schedule = Schedule(self.learner.optimizer, config.learning, warmup=config.text.warmup)
        self.history: list[EpochRow] = []
        self.best_epoch, self.best_loss = -1, math.inf
        self.best_weights: dict[str, Tensor] = {}
        if self.processes > 1:
            # All processes begin with the same weights, but draw dropout and actions of their own.
            torch.manual_seed(seed + fabric.global_rank)

    @property
    def epoch(self) -> int:
        """Number of the current epoch, from 0."""
        return len(self.history)

    def is_over(self) -> bool:
        """Return True after the last epoch, or when validation has not improved for too long."""
        patience = self.config.learning.patience
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.config.learning.epochs or (self.epoch > 0 and waited >= patience)

    def run_epoch(self) -> None:
        """Train on every batch once, then validate."""
        rate = self.schedule.start_epoch(self.epoch)
        blocks = self._blocks(self.epoch)
        self.model.train()
        self.learner.start_epoch(self.epoch)
        reports, counts = [], []
        started = time.perf_counter()
        for done, block in enumerate(blocks, start=1):
            steps_before = self.epoch * len(blocks) + done - 1
            self.schedule.start_step(steps_before, self.config.learning.epochs * len(blocks))
            report = self._step(block)
            self._check_finite("loss", report.loss, f"at epoch {self.epoch + 1}, step {done}")
            reports.append(report)
            counts.append(len(block))
            self.progress(f"epoch {self.epoch + 1}", done, len(blocks), report._asdict())
        speed = self.processes * sum(counts) / (time.perf_counter() - started)
        means = np.average(np.array(reports), axis=0, weights=counts)
        self._conclude_epoch(means, speed, rate)

    def _step(self, block: np.ndarray) -> StepReport:
        """Learn from one batch; if it does not fit into memory, name the setting to lower."""
        try:
            return self.learner.step(self._batch(block))
        except (RuntimeError, MemoryError) as fault:
            if not isinstance(fault, MemoryError) and not _OUT_OF_MEMORY.search(str(fault)):
                raise
            raise TrainingError(too_large(self.train.split, self.config, block)) from fault

    def _blocks(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of this process's share of every batch of an epoch."""
        learning = self.config.learning
        # Same order in all processes, so that their shares do not overlap.
        order = epoch_order(self.train.rows, seed=self.seed, epoch=epoch, window=self.window)
        if self.model.words is not None:
            lengths, size = self.train.split.lengths("text"), learning.batch_size
            order = of_like_length(order, lengths, size, seed=self.seed, epoch=epoch)
        own = share_of_process(order, self.fabric.global_rank, self.processes)
        size = learning.batch_size // self.processes
        return list(batch_rows(own, size, drop_last=learning.drop_last))

    def _conclude_epoch(self, means: np.ndarray, speed: float, rate: float) -> None:
        """Validate, add a row to the history, and keep the weights if they are the best."""
        if self.processes > 1:
            mean: Any = self.fabric.all_reduce(torch.from_numpy(means), reduce_op="mean")
            means = mean.cpu().numpy()
            # Before each step DDP copies the running statistics of the first process to all, but
            # not after the last: without this the processes would validate different networks.
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
        size = self.config.evaluation.batch_size
        valid_loss = validation_loss(self.model, *self.valid, batch_size=size, fabric=self.fabric)
        self._check_finite("validation loss", valid_loss, f"after epoch {self.epoch + 1}")
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
        if valid_loss < self.best_loss:
            self.best_epoch, self.best_loss = row.epoch, valid_loss
            # Copies, since training goes on to change the weights in place.
            state = self.model.state_dict()
            self.best_weights = {k: v.detach().cpu().clone() for k, v in state.items()}
        self.progress("epochs", self.epoch, self.config.learning.epochs, row._asdict())

    def _batch(self, rows: np.ndarray) -> Batch:
        """Return the clips of some rows; modality dropout masks modalities of some of them."""
        batch = self.model.collate(self.train.split, rows, self.train.targets)
        rate = self.config.learning.modality_dropout
        if rate and len(batch.masks) > 1:
            batch = batch._replace(masks=drop_modalities(batch.masks, rate))
        if self.config.learning.step_dropout:
            left = drop_steps(batch.masks, self.config.learning.step_dropout)
            missing = {m: mask & ~left[m] for m, mask in batch.masks.items()}
            batch = self.model.take_away(batch, missing)
        return batch

    def _check_finite(self, name: str, loss: float, when: str) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the {name} is {loss} {when}.\n"
                "  Lower the step size: --set learning.learning_rate="
                f"{self.config.learning.learning_rate / 10:g}\n"
                "  Look for faults in the corpus: mmcl corpus check CORPUS"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on; only the first process, which writes it, gets all."""
        learner, random = self.learner.state_dict(), torch.get_rng_state()
        state = {
            "learner": learner,
            "schedule": self.schedule.state_dict(),
            "history": [list(row) for row in self.history],
            "best": [self.best_epoch, self.best_loss],
            "best_weights": self.best_weights,
            "random": random,
            "version": metadata.version("mmcl"),
        }
        if self.processes > 1:
            # Each process has its own random state and memory of clips.
            own = {key: learner[key] for key in _OWN_STATE if key in learner}
            state["processes"] = gather_from_processes({"learner": own, "random": random})
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a result of :meth:`state_dict`."""
        # One process alone writes no list: all of its state is in the common part.
        processes = state.get("processes", [{"learner": {}, "random": state["random"]}])
        if len(processes) != self.processes:
            raise TrainingError(
                f"{self.folder / CHECKPOINT}: was written by {len(processes)} "
                f"process{'es' * (len(processes) != 1)}, this training has {self.processes}.\n"
                f"  Go on with as many as before: --set runtime.devices={len(processes)}"
            )
        own = processes[self.fabric.global_rank]
        self.learner.load_state_dict(state["learner"] | own["learner"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = [EpochRow(*row) for row in state["history"]]
        self.best_epoch, self.best_loss = state["best"]
        self.best_weights = state["best_weights"]
        torch.set_rng_state(own["random"])

    def save(self, state: dict[str, Any]) -> None:
        """Write the state and the history after an epoch."""
        with disk_errors(self.folder):
            for logger in self.loggers:
                logger.log_metrics(self.history[-1]._asdict(), step=self.epoch - 1)
            save_state(self.folder / CHECKPOINT, state)
            write_history(self.folder, self.history)

    def finish(self) -> None:
        """Write the best network, and last the file that says that training is done."""
        self.model.load_state_dict(self.best_weights)
        done = {
            "seed": self.seed,
            "clips": self.processes * sum(len(block) for block in self._blocks(0)),
            "best_epoch": self.best_epoch,
            "best_valid_loss": self.best_loss,
            "never_seen": list(self.model.never_seen),
        }
        with disk_errors(self.folder / MODEL):
            try:
                self.model.eval().save_pretrained(self.folder / MODEL)
                sync_folder(self.folder / MODEL)
            except Exception:  # half a network is of no use, and the space is wanted
                shutil.rmtree(self.folder / MODEL, ignore_errors=True)
                raise
        with disk_errors(self.folder):
            # Once more: a training may have been killed between its last checkpoint and history.
            write_history(self.folder, self.history)
            write_json(self.folder / DONE, done)
