"""Real steps of padded features, and the repair of values that are not finite.

Works in blocks of clips, so that a corpus of gigabytes needs only megabytes beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.source_file import Sequences, SourceSplit
from mmcl.corpus.schema import Repairs
from mmcl.types import Modality

__all__ = ["RepairedFeatures", "cut_padding", "is_aligned", "repair_features"]

CLIPS_PER_BLOCK = 256


class RepairedFeatures(NamedTuple):
    """Features of a modality, with zeros in place of values that were not finite.

    A step counts as nonzero if it holds anything but zeros. A step that held only NaN is
    nonzero before the repair and zero after it.
    """

    sequences: Sequences
    nonzero_before: NDArray[np.bool_]  # [clips, steps]
    nonzero_after: NDArray[np.bool_]  # [clips, steps]
    repairs: Repairs


def repair_features(sequences: Sequences) -> RepairedFeatures:
    """Count and replace values that are not finite; note which steps hold anything.

    A padded array is changed in place where it can be: it may be most of the memory.
    """
    if isinstance(sequences, list):
        sequences, clips_per_block = list(sequences), 1
        longest = max(map(len, sequences), default=0)
    else:
        longest, clips_per_block = sequences.shape[1], CLIPS_PER_BLOCK
    before = np.zeros((len(sequences), longest), dtype=bool)
    after, total = before.copy(), Repairs()
    for start in range(0, len(sequences), clips_per_block):
        rows = slice(start, start + clips_per_block)
        block = np.asarray(sequences[rows])  # [clips, steps, d_m]
        steps = slice(block.shape[1])
        before[rows, steps] = after[rows, steps] = (block != 0).any(axis=2)
        finite = np.isfinite(block)
        if finite.all():
            continue
        minus_inf, plus_inf = int(np.isneginf(block).sum()), int(np.isposinf(block).sum())
        nan = int(np.isnan(block).sum())
        total = total.plus(Repairs(minus_inf=minus_inf, plus_inf=plus_inf, nan=nan))
        repaired = np.where(finite, block, np.float32(0.0))
        after[rows, steps] = (repaired != 0).any(axis=2)
        if isinstance(sequences, list):
            sequences[rows] = list(repaired)
        else:
            sequences = sequences if sequences.flags.writeable else sequences.copy()
            sequences[rows] = repaired
    return RepairedFeatures(sequences, before, after, total)


def is_aligned(split: SourceSplit) -> bool:
    """Tell whether step i is the same stretch of time in every modality of a split.

    It is taken to be so if all arrays have the same number of steps and the lengths that
    the file gives, if any, agree.
    """
    if any(isinstance(sequences, list) for sequences in split.features.values()):
        clip_lengths = [[len(steps) for steps in seqs] for seqs in split.features.values()]
        return all(lengths == clip_lengths[0] for lengths in clip_lengths)
    num_steps = {split.num_steps(modality) for modality in split.features}
    lengths = list(split.lengths.values())
    return len(num_steps) <= 1 and all(np.array_equal(values, lengths[0]) for values in lengths)


def cut_padding(
    split: SourceSplit, features: dict[Modality, RepairedFeatures], *, aligned: bool
) -> dict[Modality, list[NDArray[np.float32] | None]]:
    """Cut the padding of every clip.

    Lengths that the file gives are believed. Without them, an aligned corpus loses the
    steps at both ends that are zero in every modality, and an unaligned one those at the
    end, modality by modality. Zero steps in between always stay, and a step that the file's
    mask marks as real counts as nonzero.

    Returns:
        Per modality and clip a view of the real steps; None where the modality is absent,
        because the file says so or all its steps are zero.
    """
    nonzero = {m: split.step_masks.get(m, f.nonzero_before) for m, f in features.items()}
    shared = None
    if aligned and split.lengths:
        shared = [(0, length) for length in next(iter(split.lengths.values())).tolist()]
    elif aligned and nonzero:
        shared = _nonzero_spans(np.logical_or.reduce(list(nonzero.values())))
    clips: dict[Modality, list[NDArray[np.float32] | None]] = {}
    for m, (sequences, _, nonzero_after, _) in features.items():
        if isinstance(sequences, list):
            spans = [(0, len(steps)) for steps in sequences]
        elif shared is not None:
            spans = shared
        elif m in split.lengths:
            spans = [(0, length) for length in split.lengths[m].tolist()]
        else:
            spans = [(0, stop) for _, stop in _nonzero_spans(nonzero[m])]
        present = split.present.get(m, np.ones(len(sequences), dtype=bool))
        clips[m] = []
        for row, (start, stop) in enumerate(spans):
            is_present = present[row] and nonzero_after[row, start:stop].any()
            clips[m].append(sequences[row][start:stop] if is_present else None)
    return clips


def _nonzero_spans(nonzero: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first nonzero step of every clip and the step after the last; 0, 0 if none."""
    num_steps = nonzero.shape[1]
    if num_steps == 0:
        return [(0, 0)] * len(nonzero)
    has_any = nonzero.any(axis=1)
    start = np.where(has_any, nonzero.argmax(axis=1), 0)
    stop = np.where(has_any, num_steps - nonzero[:, ::-1].argmax(axis=1), 0)
    return list(zip(start.tolist(), stop.tolist(), strict=True))
