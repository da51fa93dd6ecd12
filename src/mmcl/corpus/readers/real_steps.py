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

__all__ = ["RepairedFeatures", "Spans", "find_spans", "is_aligned", "repair_features"]

CLIPS_PER_BLOCK = 256


class RepairedFeatures(NamedTuple):
    """Features of a modality after the repair.

    Attributes:
        sequences: The features, with zeros in place of values that were not finite.
        nonzero_before: Whether a step held anything but zeros, bool ``[clips, steps]``.
        nonzero_after: The same after the repair: a step of NaN alone is zero now.
        repairs: Counts of the values that were replaced.
    """

    sequences: Sequences
    nonzero_before: NDArray[np.bool_]
    nonzero_after: NDArray[np.bool_]
    repairs: Repairs


class Spans(NamedTuple):
    """The real steps of every clip, ``start`` to ``stop - 1``; int64 ``[clips]`` each."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def repair_features(sequences: Sequences) -> RepairedFeatures:
    """Count and replace values that are not finite; note which steps hold anything.

    A padded array is changed in place where it can be: it may be most of the memory.
    """
    is_ragged = isinstance(sequences, list)
    if isinstance(sequences, list):
        sequences = list(sequences)
        longest = max((len(steps) for steps in sequences), default=0)
    else:
        longest = sequences.shape[1]
    before = np.zeros((len(sequences), longest), dtype=bool)
    after, total = before.copy(), Repairs()
    clips_per_block = 1 if is_ragged else CLIPS_PER_BLOCK
    for start in range(0, len(sequences), clips_per_block):
        rows = slice(start, start + clips_per_block)
        block = np.asarray(sequences[rows])  # [clips, steps, d_m]
        num_steps = block.shape[1]
        before[rows, :num_steps] = after[rows, :num_steps] = (block != 0).any(axis=2)
        finite = np.isfinite(block)
        if finite.all():
            continue
        total = total.plus(
            Repairs(
                minus_inf=int(np.isneginf(block).sum()),
                plus_inf=int(np.isposinf(block).sum()),
                nan=int(np.isnan(block).sum()),
            )
        )
        repaired = np.where(finite, block, np.float32(0.0))
        after[rows, :num_steps] = (repaired != 0).any(axis=2)
        if isinstance(sequences, list):
            sequences[rows] = list(repaired)
        else:
            if not sequences.flags.writeable:
                sequences = sequences.copy()
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


def find_spans(
    split: SourceSplit, features: dict[Modality, RepairedFeatures], *, aligned: bool
) -> dict[Modality, Spans]:
    """Find where the real steps of every clip begin and end.

    Lengths that the file gives are believed. Without them, an aligned corpus loses the
    steps at both ends that are zero in every modality, and an unaligned one those at the
    end, modality by modality. Zero steps in between always stay.

    Args:
        split: The split; its ``step_masks`` replace the search for nonzero steps.
        features: Result of :func:`repair_features` per modality.
        aligned: Whether all modalities are cut alike.
    """
    nonzero = {m: split.step_masks.get(m, f.nonzero_before) for m, f in features.items()}
    shared = None
    if aligned and split.lengths:
        shared = _from_start(next(iter(split.lengths.values())))
    elif aligned and nonzero:
        shared = _nonzero_spans(np.logical_or.reduce(list(nonzero.values())))
    spans = {}
    for modality, (sequences, *_) in features.items():
        if isinstance(sequences, list):
            spans[modality] = _from_start(np.array([len(s) for s in sequences], dtype=np.int64))
        elif shared is not None:
            spans[modality] = shared
        else:
            stop = split.lengths.get(modality, _nonzero_spans(nonzero[modality]).stop)
            spans[modality] = _from_start(stop)
    return spans


def _from_start(stop: NDArray[np.int64]) -> Spans:
    return Spans(np.zeros_like(stop), stop)


def _nonzero_spans(nonzero: NDArray[np.bool_]) -> Spans:
    """Return the span from the first to the last nonzero step; 0 to 0 if there is none."""
    num_steps = nonzero.shape[1]
    if num_steps == 0:
        return _from_start(np.zeros(len(nonzero), dtype=np.int64))
    has_any = nonzero.any(axis=1)
    first = np.where(has_any, nonzero.argmax(axis=1), 0)
    stop = np.where(has_any, num_steps - nonzero[:, ::-1].argmax(axis=1), 0)
    return Spans(first.astype(np.int64), stop.astype(np.int64))
