"""Checks of a foreign file's arrays, before clips are made of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmcl.corpus.check import Fault
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit
from mmcl.types import MODALITIES

__all__ = ["source_faults"]


def source_faults(source: SourceFile) -> Iterator[Fault]:
    """Find the faults that are lost once clips are made: sizes, masks, lengths and words."""
    if not any(max(split.sizes().values(), default=0) for split in source.splits):
        yield Fault("every split", "it holds no clips", "A corpus needs one clip at least.")
    for split in source.splits:
        where = f'split "{split.name}"'
        yield from _size_faults(split, where)
        yield from _mask_faults(split, where)
        yield from _length_faults(split, where)
        yield from _word_faults(split, where)


def _size_faults(split: SourceSplit, where: str) -> Iterator[Fault]:
    sizes = split.sizes()
    # The part with the most clips is the standard; of equals a modality.
    longest = max(sizes, key=lambda part: (sizes[part], part in MODALITIES), default="")
    for part, size in sizes.items():
        if size != sizes[longest]:
            problem = f"{part} has {size} clips, {longest} has {sizes[longest]}"
            kind = "modality" if part in MODALITIES else "field"
            expected = f"Every {kind} must list the same clips in the same order."
            first = f'First clip without {part}: "{split.clip_name(size)}".'
            yield Fault(where, problem, expected, first)


def _mask_faults(split: SourceSplit, where: str) -> Iterator[Fault]:
    for modality, mask in split.step_masks.items():
        steps = split.num_steps(modality)
        if steps is not None and mask.shape[1] != steps:
            problem = f"the mask of {modality} has {mask.shape[1]} steps, its features {steps}"
            yield Fault(where, problem, "A mask must cover the same steps as the features.")


def _length_faults(split: SourceSplit, where: str) -> Iterator[Fault]:
    for modality, lengths in split.lengths.items():
        steps = split.num_steps(modality)
        if steps is None:
            continue
        for row in np.flatnonzero((lengths < 0) | (lengths > steps)).tolist():
            problem = f"{modality} length is {lengths[row]}, the array has {steps} steps"
            clip = f'{where}, clip "{split.clip_name(row)}"'
            yield Fault(clip, problem, "A length must be from 0 to the steps of the array.")


def _word_faults(split: SourceSplit, where: str) -> Iterator[Fault]:
    """Find clips with another number of steps than words; MAG-BERT's have one step per word."""
    for modality, sequences in split.features.items():
        for row, (words, steps) in enumerate(zip(split.words or (), sequences, strict=False)):
            if len(words) != len(steps):
                problem = f"{modality} has {len(steps)} steps for {len(words)} words"
                clip = f'{where}, clip "{split.clip_name(row)}"'
                yield Fault(clip, problem, "Every word needs one step of every modality.")
