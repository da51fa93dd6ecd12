"""Inference: run a network over a split, batch by batch, without gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import batch_rows
from mmcl.corpus.store import Split
from mmcl.errors import RunError
from mmcl.learning.objectives import item_losses
from mmcl.models.mmcl import Output
from mmcl.models.network import Network, Scoring
from mmcl.types import Modality

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Scored", "score_split", "targets_of", "validation_loss"]

MOST_STEPS_AT_ONCE = 2560
"""Steps of one modality, padding included, in a batch: 128 clips of 20 steps. What a network
computes of more does not fit the cache of a core, and takes longer per clip."""


class Scored(NamedTuple):
    """Scores of a split, and the values of every step of each clip.

    Attributes:
        scores: float64 ``[clips]``, ``[clips, c]`` or ``[clips, e, 2]``.
        actions: Per clip ``[m, n]`` float32, n at least the length of its longest modality.
            Steps are those of the corpus, even if ``released`` worked on another number.
        commonality: Per clip ``[m, n]`` float32.
        keep_probability: Per clip ``[m, n]`` float32: the policy's probability of each step.

    The last three are empty for a network without policies, or if they were not asked for.
    """

    scores: NDArray[np.float64]
    actions: list[NDArray[np.float32]]
    commonality: list[NDArray[np.float32]]
    keep_probability: list[NDArray[np.float32]]


def targets_of(split: Split) -> Tensor:
    """Return labels as training targets: float32 for regression, int64 otherwise."""
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

    Args:
        model: The network; its mode is restored afterwards.
        split: The clips; labels are not read.
        batch_size: Clips per batch; affects the speed only.
        per_step: Also keep commonality and actions of every step, which take most of the memory.
        advance: Called with the number of clips done after every batch.
    """
    scores: list[NDArray[np.float64]] = []
    # Actions, commonality and keep probability, clip by clip.
    per_clip: tuple[list[NDArray[np.float32]], ...] = ([], [], [])
    for _, output in _outputs(model, split, np.arange(len(split)), batch_size):
        scores.append(_finite(output.scores.double().cpu().numpy(), split))
        if per_step and isinstance(output, Output):
            decision, parts = output.decision, output.encoded.parts
            kinds = (decision.actions, parts.commonality, decision.keep_probability)
            for clips, values in zip(per_clip, kinds, strict=True):
                clips.extend(values.transpose(0, 1).float().cpu().numpy())
        if advance is not None:
            advance(len(output.scores))
    if per_step and model.released and not model.aligned:
        per_clip = tuple(_original_steps(values, model, split) for values in per_clip)
    return Scored(np.concatenate(scores) if scores else np.zeros(0), *per_clip)


def _finite(scores: NDArray[np.float64], split: Split) -> NDArray[np.float64]:
    """Return scores of a batch, which must be numbers.

    Raises:
        RunError: If one is not: the weights are damaged, or features are far too large.
    """
    if np.isfinite(scores).all():
        return scores
    raise RunError(
        f"a prediction of corpus {split.card.name!r} is not a finite number.\n"
        "  Its features are too large for the network, or the network is damaged. Look at the "
        "features: mmcl corpus describe CORPUS; or copy the run folder again"
    )


def _original_steps(
    equalised: list[NDArray[np.float32]], model: Network, split: Split
) -> list[NDArray[np.float32]]:
    """Return for each original step the value of the equalised step that it became part of."""
    lengths = np.stack([split.lengths(m) for m in model.modalities], axis=1)  # [clips, m]
    original = []
    for values, length in zip(equalised, lengths, strict=True):
        num_steps = values.shape[1]
        by_step = np.zeros((len(length), max(int(length.max()), 1)), dtype=np.float32)
        for m, n in enumerate(length):
            # Original step i of n is part of equalised step floor(i * num_steps / n).
            by_step[m, :n] = values[m, np.arange(n) * num_steps // max(int(n), 1)]
        original.append(by_step)
    return original


def validation_loss(
    model: Network,
    split: Split,
    rows: NDArray[np.int64],
    targets: Tensor,
    batch_size: int,
    *,
    fabric: Fabric | None = None,
) -> float:
    """Return the mean task loss of the clips, however they are batched.

    Args:
        model: The network.
        split: The validation split.
        rows: Its labelled clips.
        targets: Targets of the whole split.
        batch_size: Clips per batch.
        fabric: Fabric of several processes. All of them must call this; they share the clips.
    """
    own = rows if fabric is None else rows[fabric.global_rank :: fabric.world_size]
    total = torch.zeros((), dtype=torch.float64)
    for block, output in _outputs(model, split, own, batch_size):
        block_targets = targets[torch.from_numpy(block)].to(output.scores.device)
        total += item_losses(output.scores, block_targets, model.task).double().sum().cpu()
    # Sums add up over processes, where means would not: shares differ in size.
    if fabric is not None and fabric.world_size > 1:
        summed: Any = fabric.all_reduce(total, reduce_op="sum")
        total = summed
    return float(total) / max(len(rows), 1)


def _outputs(
    model: Network, split: Split, rows: NDArray[np.int64], batch_size: int
) -> Iterator[tuple[NDArray[np.int64], Scoring]]:
    """Yield rows and outputs batch by batch; the mode of the model is restored afterwards."""
    # A corpus may lack a modality of the network.
    available = [m for m in model.modalities if m in split.card.dims]
    with model.evaluating():
        for block in _blocks(split, rows, available, batch_size):
            batch = model.collate(split, block)
            yield block, model(batch.features, batch.masks)


def _blocks(
    split: Split, rows: NDArray[np.int64], modalities: list[Modality], batch_size: int
) -> Iterator[NDArray[np.int64]]:
    """Cut rows into batches, and batches of long clips into smaller ones that fit into memory."""
    lengths = np.max([np.ones(len(split)), *map(split.lengths, modalities)], axis=0)  # [clips]
    for block in batch_rows(rows, batch_size):
        fitting = max(1, MOST_STEPS_AT_ONCE // int(lengths[block].max()))
        yield from batch_rows(block, fitting)
