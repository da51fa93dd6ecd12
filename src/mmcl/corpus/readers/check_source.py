"""Checks of a foreign file's arrays, before clips are made of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmcl.corpus.check import Fault
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit
from mmcl.types import MODALITIES, Modality

__all__ = ["source_faults"]


def source_faults(source: SourceFile) -> Iterator[Fault]:
    """Find the faults that are lost once clips are made: sizes, masks, lengths and words."""
    if not any(max(split.sizes().values(), default=0) for split in source.splits):
        yield Fault("every split", "it holds no clips", "A corpus needs one clip at least.")
    yield from _numbered_ids(source)
    for split in source.splits:
        where = f'split "{split.name}"'
        yield from _size_faults(split, where)
        for modality in split.features:
            yield from _step_faults(split, modality, where)


def _numbered_ids(source: SourceFile) -> Iterator[Fault]:
    """Find ids that only number the clips of each split, so that splits share them."""
    numbered = [set(s.ids) for s in source.splits if s.ids and all(map(str.isdecimal, s.ids))]
    if len(set().union(*numbered)) < sum(map(len, numbered)):
        field = "id" if "id" in source.fields else "ids"
        problem = f'"{field}" numbers the clips of each split, so that the splits share ids'
        fix = f'To name the clips by their split and row: --rename "{field}="'
        yield Fault("every split", problem, f"Every clip needs an id of its own. {fix}")


def _size_faults(split: SourceSplit, where: str) -> Iterator[Fault]:
    sizes = split.sizes()
    # The part with the most clips is the standard; if several have as many, a modality.
    longest = max(sizes, key=lambda part: (sizes[part], part in MODALITIES), default="")
    for part, size in sizes.items():
        if size != sizes[longest]:
            problem = f"{part} has {size} clips, {longest} has {sizes[longest]}"
            kind = "modality" if part in MODALITIES else "field"
            expected = f"Every {kind} must list the same clips in the same order."
            first = f'First clip without {part}: "{split.clip_name(size)}".'
            yield Fault(where, problem, expected, first)


def _step_faults(split: SourceSplit, modality: Modality, where: str) -> Iterator[Fault]:
    """Compare the steps of a modality with its mask, its lengths and the words."""
    steps = split.num_steps(modality)
    mask, lengths = split.step_masks.get(modality), split.lengths.get(modality)
    if steps is not None and mask is not None and mask.shape[1] != steps:
        problem = f"the mask of {modality} has {mask.shape[1]} steps, its features {steps}"
        rule = "A mask must cover the same steps as the features."
        fix = 'Correct it, or go without it: --rename "text_bert="'
        yield Fault(where, problem, f"{rule} {fix}")
    if steps is not None and lengths is not None:
        for row in np.flatnonzero((lengths < 0) | (lengths > steps)).tolist():
            problem = f"{modality} length is {lengths[row]}, the array has {steps} steps"
            clip = f'{where}, clip "{split.clip_name(row)}"'
            rule = (
                "A length must be from 0 to the steps of the array. Correct the lengths, or leave"
            )
            yield Fault(clip, problem, f'{rule} them out: --rename "{modality}_lengths="')
    # Words without times come with one step each (MAG-BERT).
    words = split.words or []
    if any(word.start is not None for spoken in words for word in spoken):
        return
    for row, pair in enumerate(zip(words, split.features[modality], strict=False)):
        num_words, num_steps = map(len, pair)
        if num_words != num_steps:
            problem = f"{modality} has {num_steps} steps for {num_words} words"
            clip = f'{where}, clip "{split.clip_name(row)}"'
            yield Fault(clip, problem, "Every word needs one step of every modality.")
