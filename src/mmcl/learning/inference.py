"""Run a trained network over a split, batch by batch, without gradient."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows, collate_share, move_batch
from mmcl.corpus.store import Split
from mmcl.learning.objectives import item_losses
from mmcl.models.mmcl import Output
from mmcl.models.network import Network, Scoring
from mmcl.processes import Share, add_up, cut_batch, own_clips, sharing
from mmcl.threads import in_order
from mmcl.types import Modality

__all__ = ["Scored", "score_split", "targets_of", "validation_loss"]

MOST_CLIPS_AT_ONCE = 128
"""Clips that go through the network together: fewer spend their time in calls (64 were a fifth
slower at width 64), and a batch of the usual size has some for two cores."""

MOST_STEPS_AT_ONCE = 1 << 13
"""Steps of one modality in what goes through together, padding included."""

MOST_STEPS_IN_WORK = 1 << 15
"""Of all that threads have in work, unless one clip alone has more."""


class Scored(NamedTuple):
    """Scores of a split, and what the network saw in each clip.

    Attributes:
        scores: float64 ``[clips]``, ``[clips, c]`` or ``[clips, e, 2]``.
        actions: Per clip ``[m, n]`` float32, n of the longest modality in its portion; steps
            are the corpus's own, also where ``released`` worked on another number of them.
        commonality: Per clip ``[m, n]`` float32.
        keep_probability: Per clip ``[m, n]`` float32: what the actions were decided from.

    The last three are empty for a network that has no policies, and where they were not asked
    for.
    """

    scores: NDArray[np.float64]
    actions: list[NDArray[np.float32]]
    commonality: list[NDArray[np.float32]]
    keep_probability: list[NDArray[np.float32]]


def targets_of(split: Split) -> Tensor:
    """Labels as training targets: float32 for regression, int64 otherwise."""
    labels = torch.from_numpy(split.labels())
    return labels.float() if split.card.task.kind == "regression" else labels


def score_split(
    model: Network,
    split: Split,
    *,
    batch_size: int = 256,
    per_step: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Scored:
    """Predict every clip of a split, in order.

    Portions of the clips are predicted side by side, one per thread that torch may use here. What
    is predicted of several portions is the same for any number of threads, bit for bit.

    Args:
        model: The network; its mode is restored afterwards.
        split: The clips; labels are not looked at.
        batch_size: Clips per batch; changes nothing but the speed.
        per_step: Keep what the network saw in every step too; for many clips that is most of
            what is kept.
        advance: Called with the number of clips done after every portion, in order.
    """
    scores: list[NDArray[np.float64]] = []
    seen: tuple[list[NDArray[np.float32]], ...] = ([], [], [])
    for _, output in _outputs(model, split, np.arange(len(split)), batch_size):
        scores.append(output.scores.double().cpu().numpy())
        if per_step and isinstance(output, Output):
            decision, parts = output.decision, output.encoded.parts
            kinds = (decision.actions, parts.commonality, decision.keep_probability)
            for held, values in zip(seen, kinds, strict=True):
                held.extend(values.transpose(0, 1).float().cpu().numpy())
        if advance is not None:
            advance(len(output.scores))
    if per_step and model.released and not model.aligned:
        seen = tuple(_own_steps(held, model, split) for held in seen)
    if not scores:
        return Scored(np.zeros(0), *seen)
    return Scored(np.concatenate(scores), *seen)


def _own_steps(
    held: list[NDArray[np.float32]], model: Network, split: Split
) -> list[NDArray[np.float32]]:
    """Values of equalised steps, handed back to the steps they were made of."""
    lengths = np.stack([split.lengths(m) for m in model.modalities], axis=1)  # [clips, m]
    original = []
    for values, length in zip(held, lengths, strict=True):
        num_steps = values.shape[1]
        own = np.zeros((len(length), max(int(length.max()), 1)), dtype=np.float32)
        for m, n in enumerate(length):
            own[m, :n] = values[m, np.arange(n) * num_steps // max(int(n), 1)]
        original.append(own)
    return original


def validation_loss(
    model: Network,
    split: Split,
    rows: NDArray[np.int64],
    targets: Tensor,
    batch_size: int,
    *,
    processes: int = 1,
    rank: int = 0,
) -> float:
    """Task loss averaged over the clips, not over the batches.

    Args:
        model: The network.
        split: The validation split.
        rows: Its labelled clips.
        targets: Targets of the whole split.
        batch_size: Clips per step.
        processes: That share every batch, all of which must call this.
        rank: Which of them this one is.
    """
    total = 0.0
    for block, output in _outputs(model, split, rows, batch_size, processes, rank):
        wanted = own_clips(targets[torch.from_numpy(block)]).to(output.scores.device)
        (losses,) = add_up(item_losses(output.scores, wanted, model.task).double().sum())
        total += float(losses)
    return total / max(len(rows), 1)


class _Portion(NamedTuple):
    """Clips that go through the network together.

    Attributes:
        rows: Of all processes that share them.
        share: Which of them are this process's; None where it has all.
        batch: Those.
    """

    rows: NDArray[np.int64]
    share: Share | None
    batch: Batch


def _portions(
    split: Split,
    rows: NDArray[np.int64],
    modalities: Sequence[Modality],
    batch_size: int,
    processes: int,
) -> Iterator[NDArray[np.int64]]:
    """Batches of rows in portions that so many processes share, smaller ones of long clips."""
    lengths = np.max([np.ones(len(split)), *map(split.lengths, modalities)], axis=0)  # [clips]
    for block in batch_rows(rows, batch_size):
        most = max(1, MOST_STEPS_AT_ONCE // int(lengths[block].max()))
        yield from batch_rows(block, min(most, MOST_CLIPS_AT_ONCE) * processes)


def _share(clips: int, processes: int, rank: int) -> Share | None:
    return None if processes == 1 else cut_batch(clips, processes)[rank]


def _outputs(
    model: Network,
    split: Split,
    rows: NDArray[np.int64],
    batch_size: int,
    processes: int = 1,
    rank: int = 0,
) -> Iterator[tuple[NDArray[np.int64], Scoring]]:
    """Rows and outputs portion by portion, in evaluation mode; the model's own mode comes back.

    The outputs are those of this process's share of the portion.
    """
    device = next(model.parameters()).device
    was_training = model.training
    held = [m for m in model.modalities if m in split.card.dims]  # a corpus may lack one
    portions = list(_portions(split, rows, held, batch_size, processes))

    def collated() -> Iterator[_Portion]:
        for block in portions:
            share = _share(len(block), processes, rank)
            batch = collate_share(split, block, share, held, keep_missing=model.released)
            yield _Portion(block, share, move_batch(batch, device))

    model.eval()
    try:
        # A policy that acts at random (an ablation) neither depends on what was drawn before
        # nor changes what is drawn after.
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            threads = max(1, min(_threads_for(model, device), len(portions)))
            with closing(_predicted(model, collated(), threads)) as outputs:
                for block, output in zip(portions, outputs, strict=True):
                    with sharing(_share(len(block), processes, rank)):
                        yield block, output
    finally:
        model.train(was_training)


def _threads_for(model: Network, device: torch.device) -> int:
    """Portions that may be predicted side by side.

    What is drawn at random comes from one generator, in the order of the clips.
    """
    at_random = model.policy_settings.kind == "random"
    together = model.shares_batches and not at_random and device.type == "cpu"
    return torch.get_num_threads() if together else 1


def _predicted(
    model: Network, portions: Iterator[_Portion], threads: int
) -> Generator[Scoring, None, None]:
    def predict(portion: _Portion) -> Scoring:
        with torch.inference_mode(), sharing(portion.share):
            output: Scoring = model(portion.batch.features, portion.batch.masks)
            return output

    if threads == 1:
        yield from map(predict, portions)
        return
    outputs = in_order(predict, portions, threads=threads, cost=_steps, most=MOST_STEPS_IN_WORK)
    with closing(outputs):
        yield from outputs


def _steps(portion: _Portion) -> int:
    """Steps of its longest modality, padding included."""
    return max(mask.numel() for mask in portion.batch.masks.values())
