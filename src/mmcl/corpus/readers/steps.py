"""Which steps of a padded array are real, and which of its values are no numbers.

Works in blocks of clips, so that a corpus of gigabytes needs only megabytes beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.foreign import ForeignSplit, Sequences
from mmcl.corpus.schema import Repairs
from mmcl.types import Modality

__all__ = ["Scan", "Spans", "find_spans", "is_aligned", "scan"]

CLIPS_PER_BLOCK = 256


class Scan(NamedTuple):
    """What one pass over the features of a modality found.

    Attributes:
        sequences: The same features, non-finite values replaced by zero.
        written: Whether a step holds anything but zeros, bool ``[clips, steps]``.
        told: The same after the repair: a step that held only NaN tells nothing.
        repairs: What was replaced.
    """

    sequences: Sequences
    written: NDArray[np.bool_]
    told: NDArray[np.bool_]
    repairs: Repairs


class Spans(NamedTuple):
    """The steps of every clip that are kept: ``[start, stop)``; int64 ``[clips]`` each."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def scan(sequences: Sequences) -> Scan:
    """Count and replace what is not finite; note which steps hold anything."""
    if isinstance(sequences, list):
        return _scan_ragged(sequences)
    written = np.zeros(sequences.shape[:2], dtype=bool)
    told = np.zeros(sequences.shape[:2], dtype=bool)
    total = Repairs()
    for begin in range(0, len(sequences), CLIPS_PER_BLOCK):
        block = slice(begin, begin + CLIPS_PER_BLOCK)
        written[block] = (sequences[block] != 0).any(axis=2)
        told[block] = written[block]
        mended, found = _repair(sequences[block])
        if mended is None:
            continue
        if not sequences.flags.writeable:
            sequences = sequences.copy()
        sequences[block] = mended
        told[block] = (mended != 0).any(axis=2)
        total = total.plus(found)
    return Scan(sequences, written, told, total)


def _scan_ragged(sequences: list[NDArray[np.float32]]) -> Scan:
    longest = max((len(item) for item in sequences), default=0)
    written = np.zeros((len(sequences), longest), dtype=bool)
    told = np.zeros((len(sequences), longest), dtype=bool)
    total, cleaned = Repairs(), []
    for row, item in enumerate(sequences):
        written[row, : len(item)] = (item != 0).any(axis=1)
        mended, found = _repair(item)
        cleaned.append(item if mended is None else mended)
        total = total.plus(found)
        told[row, : len(item)] = (cleaned[-1] != 0).any(axis=1)
    return Scan(cleaned, written, told, total)


def _repair(block: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, Repairs]:
    finite = np.isfinite(block)
    if finite.all():
        return None, Repairs()
    counts = Repairs(
        minus_inf=int(np.isneginf(block).sum()),
        plus_inf=int(np.isposinf(block).sum()),
        nan=int(np.isnan(block).sum()),
    )
    return np.where(finite, block, np.float32(0.0)), counts


def is_aligned(split: ForeignSplit) -> bool:
    """Whether step i is the same stretch of time in every modality of a split.

    So it is where all arrays have as many steps, and no lengths say otherwise.
    """
    if any(isinstance(sequences, list) for sequences in split.features.values()):
        per_clip = [[len(item) for item in sequences] for sequences in split.features.values()]
        return all(lengths == per_clip[0] for lengths in per_clip)
    steps = {sequences.shape[1] for sequences in map(np.asarray, split.features.values())}
    lengths = list(split.lengths.values())
    return len(steps) <= 1 and all(np.array_equal(item, lengths[0]) for item in lengths)


def find_spans(
    split: ForeignSplit, scans: dict[Modality, Scan], *, aligned: bool
) -> dict[Modality, Spans]:
    """Where the real steps of every clip begin and end.

    Lengths that the file gives are believed. Without them, an aligned corpus loses the
    steps at both ends that are zero in every modality, and an unaligned one those at the
    end, modality by modality. Zero steps in between always stay.

    Args:
        split: The split; its ``step_masks`` count as written steps.
        scans: What :func:`scan` found, per modality.
        aligned: Whether all modalities are cut alike.
    """
    spans = {}
    written = {m: split.step_masks.get(m, found.written) for m, found in scans.items()}
    shared = _shared_spans(split, written) if aligned else None
    for modality, found in scans.items():
        if isinstance(found.sequences, list):
            stop = np.array([len(item) for item in found.sequences], dtype=np.int64)
            spans[modality] = Spans(np.zeros_like(stop), stop)
        elif shared is not None:
            spans[modality] = shared
        else:
            stop = split.lengths.get(modality, _ends(written[modality]).stop)
            spans[modality] = Spans(np.zeros_like(stop), stop)
    return spans


def _shared_spans(split: ForeignSplit, written: dict[Modality, NDArray[np.bool_]]) -> Spans | None:
    if split.lengths:
        stop = next(iter(split.lengths.values()))
        return Spans(np.zeros_like(stop), stop)
    masks = list(written.values())
    return _ends(np.logical_or.reduce(masks)) if masks else None


def _ends(written: NDArray[np.bool_]) -> Spans:
    """First written step and the one after the last, ``[clips]`` each; 0 and 0 for none."""
    count = written.shape[1]
    if count == 0:
        empty = np.zeros(len(written), dtype=np.int64)
        return Spans(empty, empty)
    some = written.any(axis=1)
    first = np.where(some, written.argmax(axis=1), 0)
    stop = np.where(some, count - written[:, ::-1].argmax(axis=1), 0)
    return Spans(first.astype(np.int64), stop.astype(np.int64))
