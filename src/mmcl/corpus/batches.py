"""Batches: clips of a split as padded tensors, with a mask of the real steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcl.corpus.store import Split
from mmcl.processes import Share, own_clips, shape_of_all
from mmcl.types import Modality

__all__ = [
    "Batch",
    "batch_rows",
    "collate",
    "collate_share",
    "drop_modalities",
    "epoch_order",
    "labelled_rows",
    "move_batch",
    "shuffle_window",
]

WINDOW_BYTES = 1 << 30
BLOCKS_PER_WINDOW = 64


class Batch(NamedTuple):
    """Clips side by side.

    Attributes:
        features: Per modality float32 ``[b, n_m, d_m]``; padded steps and absent
            modalities are zero.
        masks: Per modality bool ``[b, n_m]``, True = a real step.
        targets: Regression float32 ``[b]``, classes int64 ``[b]``, emotions int64
            ``[b, e]``; None where labels were not asked for.
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
    """Pad the given clips to their longest, modality by modality.

    Where the card says that a step of zeros is missing, its mask is False.

    Args:
        split: Where the clips lie.
        rows: Their rows, ``[b]``.
        modalities: Those wanted, each one the corpus has.
        targets: Targets of the whole split, ``[clips, ...]``, or None.
        keep_missing: Let missing steps be real ones, zeros: for ``released``, which knows
            one length per clip.

    Returns:
        A batch; features are converted to float32 whatever the file holds.
    """
    features: dict[Modality, Tensor] = {}
    masks: dict[Modality, Tensor] = {}
    for modality in modalities:
        padded, lengths = split.padded(modality, rows)
        mask = np.arange(padded.shape[1]) < lengths[:, None]
        if split.card.missing_as_zero and not keep_missing:
            mask &= padded.any(axis=2)
        features[modality] = torch.from_numpy(padded).float()  # numpy's is ten times slower
        masks[modality] = torch.from_numpy(mask)
    at = torch.as_tensor(np.asarray(rows, dtype=np.int64))
    return Batch(features, masks, None if targets is None else targets[at], at)


def collate_share(
    split: Split,
    rows: np.ndarray,
    share: Share | None,
    modalities: Sequence[Modality],
    targets: Tensor | None = None,
    *,
    keep_missing: bool = False,
) -> Batch:
    """Pad the clips of one process as the whole batch would be padded.

    Args:
        split: Where the clips lie.
        rows: Rows of the whole batch, ``[clips]``.
        share: Which of them are wanted; None for all of them.
        modalities: As for :func:`collate`.
        targets: As for :func:`collate`.
        keep_missing: As for :func:`collate`.
    """
    if share is None:
        return collate(split, rows, modalities, targets, keep_missing=keep_missing)
    own = rows[share.start : share.stop]
    batch = collate(split, own, modalities, targets, keep_missing=keep_missing)
    features, masks = dict(batch.features), dict(batch.masks)
    for modality in modalities:
        longest = max(int(split.lengths(modality)[rows].max(initial=0)), 1)
        missing = longest - features[modality].shape[1]
        features[modality] = F.pad(features[modality], (0, 0, 0, missing))
        masks[modality] = F.pad(masks[modality], (0, missing))
    return batch._replace(features=features, masks=masks)


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device; rows stay where they are."""
    if device.type == "cpu":
        return batch
    return Batch(
        {m: x.to(device, non_blocking=True) for m, x in batch.features.items()},
        {m: x.to(device, non_blocking=True) for m, x in batch.masks.items()},
        None if batch.targets is None else batch.targets.to(device, non_blocking=True),
        batch.rows,
    )


def drop_modalities(masks: Mapping[Modality, Tensor], rate: float) -> dict[Modality, Tensor]:
    """Mask one or more modalities of some clips; one that the clip has always stays.

    Args:
        masks: Real steps, bool ``[b, n_m]`` per modality; not changed.
        rate: Chance of every modality.
    """
    present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # [m, b]
    shape = shape_of_all(present.shape, 1)
    drop = own_clips(torch.rand(shape, device=present.device) < rate, 1)
    drawn = own_clips(torch.rand(shape, device=present.device), 1)
    spared = drawn.masked_fill(~present, -1.0).argmax(dim=0)
    drop = drop.scatter(0, spared.unsqueeze(0), False)
    return {m: mask & ~drop[i].unsqueeze(1) for i, (m, mask) in enumerate(masks.items())}


def labelled_rows(split: Split) -> np.ndarray:
    """Rows whose label is known, int64 ``[k]``."""
    labels = split.labels()
    if split.card.task.kind == "regression":
        return np.flatnonzero(np.isfinite(labels))
    return np.flatnonzero((labels >= 0).all(axis=tuple(range(1, labels.ndim))))


def shuffle_window(split: Split) -> int:
    """Clips that are shuffled together: as many as a gibibyte of features holds, at least 1."""
    clips = max(len(split), 1)
    return max(1, WINDOW_BYTES * clips // max(split.feature_bytes(), 1))


def epoch_order(
    rows: np.ndarray, *, seed: int, epoch: int, window: int | None = None
) -> np.ndarray:
    """The rows in the random order of one epoch; the same seed and epoch, the same order.

    Where there are more rows than a window holds, a full permutation would read a file that
    does not fit into memory in single clips from everywhere. There the rows are cut into
    blocks of neighbours, the blocks are shuffled and dealt into windows, and the rows of a
    window are shuffled among each other: at any time only one window's blocks are read.

    Args:
        rows: Rows in the order they lie on disk, ``[k]``.
        seed: Of the training.
        epoch: Counted from 0.
        window: Rows shuffled together, see :func:`shuffle_window`; None is all.
    """
    rng = np.random.default_rng([seed, epoch])
    if window is None or len(rows) <= window:
        return rng.permutation(rows)
    size = max(1, window // BLOCKS_PER_WINDOW)
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    mixed = np.concatenate([blocks[at] for at in rng.permutation(len(blocks))])
    windows = np.array_split(mixed, -(-len(rows) // window))
    return np.concatenate([rng.permutation(each) for each in windows])


def batch_rows(
    rows: np.ndarray, batch_size: int, *, drop_last: bool = False
) -> Iterator[np.ndarray]:
    """Cut rows into batches; ``drop_last`` leaves out a smaller last one unless it is all."""
    for start in range(0, len(rows), batch_size):
        block = rows[start : start + batch_size]
        if len(block) == batch_size or not drop_last or len(rows) < batch_size:
            yield block
