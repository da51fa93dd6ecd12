"""Batches: clips of a split as padded tensors, with a mask of the real steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcl.corpus.store import Split
from mmcl.types import Modality

__all__ = [
    "Batch",
    "batch_rows",
    "collate",
    "drop_modalities",
    "drop_steps",
    "epoch_order",
    "labelled_rows",
    "move_batch",
    "of_like_length",
    "share_of_process",
    "shuffle_window",
]

WINDOW_BYTES = 1 << 30
"""Bytes of features that are shuffled together."""
BLOCKS_PER_WINDOW = 64
BATCHES_SORTED_TOGETHER = 16


class Batch(NamedTuple):
    """Some clips, padded to one length per modality.

    Attributes:
        features: Per modality float32 ``[b, n_m, d_m]``; padded steps and absent
            modalities are zero.
        masks: Per modality bool ``[b, n_m]``, True = a real step.
        targets: Regression float32 ``[b]``, classes int64 ``[b]``, emotions int64
            ``[b, e]``; None if labels were not asked for.
        rows: Row of every clip in its split, int64 ``[b]``.
    """

    features: dict[Modality, Tensor]
    masks: dict[Modality, Tensor]
    targets: Tensor | None
    rows: Tensor


def collate(
    split: Split,
    rows: Sequence[int] | np.ndarray,
    modalities: Sequence[Modality],
    targets: Tensor | None = None,
    *,
    keep_missing: bool = False,
) -> Batch:
    """Pad some clips of a split to the longest of them, modality by modality.

    If the card says that steps of zeros are missing, their mask is False.

    Args:
        split: Split that holds the clips.
        rows: Rows of the clips, ``[b]``.
        modalities: Modalities to read; the corpus must have them.
        targets: Targets of the whole split, ``[clips, ...]``, or None.
        keep_missing: Treat missing steps as real steps of zeros, for ``released``, which
            requires one length per clip.

    Returns:
        A batch; features are float32, whatever their type in the file.
    """
    features: dict[Modality, Tensor] = {}
    masks: dict[Modality, Tensor] = {}
    for modality in modalities:
        padded, lengths = split.padded(modality, rows)
        mask = np.arange(padded.shape[1]) < lengths[:, None]
        if split.card.missing_as_zero and not keep_missing:
            mask &= padded.any(axis=2)
        # Converted by torch: numpy is ten times slower.
        features[modality] = torch.from_numpy(padded).float()
        masks[modality] = torch.from_numpy(mask)
    index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
    return Batch(features, masks, None if targets is None else targets[index], index)


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to another device; its rows stay on the CPU."""
    if device.type == "cpu":
        return batch
    return Batch(
        {m: x.to(device, non_blocking=True) for m, x in batch.features.items()},
        {m: x.to(device, non_blocking=True) for m, x in batch.masks.items()},
        None if batch.targets is None else batch.targets.to(device, non_blocking=True),
        batch.rows,
    )


def drop_modalities(masks: Mapping[Modality, Tensor], rate: float) -> dict[Modality, Tensor]:
    """Mask modalities of clips at random; every clip keeps one that it has.

    Args:
        masks: Real steps, bool ``[b, n_m]`` per modality; not changed.
        rate: Probability that a modality of a clip is masked.
    """
    present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # [m, b]
    drop = torch.rand(present.shape, device=present.device) < rate
    # One modality that the clip has is spared: the one with the highest draw.
    draws = torch.rand(present.shape, device=present.device)
    spared = draws.masked_fill(~present, -1.0).argmax(dim=0)
    drop = drop.scatter(0, spared.unsqueeze(0), False)
    return {m: mask & ~drop[i].unsqueeze(1) for i, (m, mask) in enumerate(masks.items())}


def drop_steps(masks: Mapping[Modality, Tensor], rate: float) -> dict[Modality, Tensor]:
    """Mask steps of some clips at random: of each a share between 0 and 1, drawn anew.

    Args:
        masks: Real steps, bool ``[b, n_m]`` per modality; not changed.
        rate: Probability that a clip loses steps. One that would lose all keeps them.
    """
    first = next(iter(masks.values()))
    draw = torch.rand(2, len(first), 1, device=first.device)
    share = draw[0] * (draw[1] < rate)  # [b, 1]
    left = {
        m: mask & (torch.rand(mask.shape, device=mask.device) >= share) for m, mask in masks.items()
    }
    has_some = torch.stack([mask.any(dim=1) for mask in left.values()]).any(dim=0)  # [b]
    return {m: torch.where(has_some.unsqueeze(1), left[m], mask) for m, mask in masks.items()}


def labelled_rows(split: Split) -> np.ndarray:
    """Return the rows whose label is known, int64 ``[k]``."""
    # Unknown is NaN in regression, and a negative class otherwise.
    labels = split.labels()
    if split.card.task.kind == "regression":
        return np.flatnonzero(np.isfinite(labels))
    return np.flatnonzero((labels >= 0).all(axis=tuple(range(1, labels.ndim))))


def shuffle_window(split: Split) -> int:
    """Return how many clips are shuffled together: one GiB of features, at least one clip."""
    clips = max(len(split), 1)
    return max(1, WINDOW_BYTES * clips // max(split.feature_bytes(), 1))


def epoch_order(
    rows: np.ndarray, *, seed: int, epoch: int, window: int | None = None
) -> np.ndarray:
    """Shuffle the rows for one epoch; the same seed and epoch give the same order.

    A full permutation of a file larger than memory would read single clips from all over it.
    So if there are more rows than a window holds, the rows are cut into blocks of neighbours, the
    blocks are shuffled and dealt into windows, and the rows of each window are shuffled. At any
    time only the blocks of one window are read.

    Args:
        rows: Rows in the order they lie on disk, ``[k]``.
        seed: Seed of the training.
        epoch: Epoch, counted from 0.
        window: Rows shuffled together, see :func:`shuffle_window`; None for all.
    """
    rng = np.random.default_rng([seed, epoch])
    if window is None or len(rows) <= window:
        return rng.permutation(rows)
    size = max(1, window // BLOCKS_PER_WINDOW)
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    mixed = np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
    windows = np.array_split(mixed, -(-len(rows) // window))
    return np.concatenate([rng.permutation(rows_of_window) for rows_of_window in windows])


def of_like_length(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int
) -> np.ndarray:
    """Reorder the rows of an epoch so that the clips of a batch have like lengths.

    A batch is padded to its longest clip, which costs a language model a lot. So the rows of
    16 batches at a time are sorted by length and cut into batches anew, and the batches of the
    epoch are shuffled. A last, smaller batch stays the last.

    Args:
        rows: Rows in the order of the epoch, ``[k]``.
        lengths: Length of every row of the split, ``[clips]``.
        batch_size: Clips per batch.
        seed: Seed of the training.
        epoch: Epoch, counted from 0.
    """
    rng = np.random.default_rng([seed, epoch, 1])  # other draws than those of the order
    whole = len(rows) // batch_size * batch_size
    batches = []
    for part in batch_rows(rows[:whole], BATCHES_SORTED_TOGETHER * batch_size):
        batches += list(batch_rows(part[np.argsort(lengths[part], kind="stable")], batch_size))
    mixed = [batches[index] for index in rng.permutation(len(batches))]
    return np.concatenate([*mixed, rows[whole:]])


def share_of_process(rows: np.ndarray, rank: int, processes: int) -> np.ndarray:
    """Return the rows of an epoch that one of several processes trains on.

    All get the same number, so that they take the same number of steps. If the rows cannot be
    divided evenly, the first ones are repeated, as by torch's DistributedSampler.

    Args:
        rows: Rows in the order of the epoch, equal in every process.
        rank: Number of the process, from 0.
        processes: Number of processes.

    Example:
        >>> [share_of_process(np.arange(5), rank, 2).tolist() for rank in (0, 1)]
        [[0, 2, 4], [1, 3, 0]]
    """
    total = -(-len(rows) // processes) * processes
    return np.resize(rows, total)[rank::processes]


def batch_rows(
    rows: np.ndarray, batch_size: int, *, drop_last: bool = False
) -> Iterator[np.ndarray]:
    """Cut rows into batches; ``drop_last`` leaves out a smaller last one, if it is not the only."""
    for start in range(0, len(rows), batch_size):
        block = rows[start : start + batch_size]
        if len(block) == batch_size or not drop_last or len(rows) < batch_size:
            yield block
