"""Real steps of padded features, and the repair of values that are not finite.

Works in blocks of clips, so that a corpus of gigabytes needs only megabytes beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.check import Fault
from mmcl.corpus.readers.options import Padding
from mmcl.corpus.readers.padding import (
    FEW,
    Edges,
    Place,
    find_edges,
    find_place,
    leave_out,
    spans_of,
)
from mmcl.corpus.readers.source_file import Sequences, SourceSplit
from mmcl.corpus.schema import Repairs
from mmcl.types import MODALITIES, Modality

__all__ = [
    "alignment_note",
    *("Cut", "RepairedFeatures", "checked_masks", "cut_padding", "find_filler", "is_aligned"),
    "repair_features",
]

CLIPS_PER_BLOCK = 256
MANY = 0.5  # share of clips: of those with the same two rows at an end, or with other ends
ENOUGH = 20  # clips of which a share means something


class RepairedFeatures(NamedTuple):
    """Features of a modality, with zeros in place of values that were not finite.

    A step counts as nonzero if it holds anything but zeros. A step that held only NaN is
    nonzero before the repair and zero after it.
    """

    sequences: Sequences
    nonzero_before: NDArray[np.bool_]  # [clips, steps]
    nonzero_after: NDArray[np.bool_]  # [clips, steps]
    repairs: Repairs


def find_filler(parts: list[Sequences]) -> NDArray[np.float32] | None:
    """Find the row with which a modality is padded, if it is not one of zeros.

    Features that were padded and standardised afterwards, for example, end with the same row
    in every clip. A row counts as such if half of the clips begin or end with it twice and
    hold other rows too, and if it hardly ever lies between other rows.

    Args:
        parts: The sequences of every split.

    Returns:
        The row ``[d_m]``; None where the padding is zeros or where there is none.
    """
    rows: Counter[bytes] = Counter()
    clips = 0
    for sequences in parts:
        for steps in sequences:
            clips += 1
            ends = (steps[:2], steps[-2:]) if len(steps) > 2 else ()
            twice = {p[0].tobytes() for p in ends if p[0].tobytes() == p[1].tobytes()}
            whole = steps.tobytes() if twice else b""
            found = [row for row in twice if row * len(steps) != whole]
            if any(not np.frombuffer(row, np.float32).any() for row in found):
                return None  # the padding is zeros
            rows.update(found)
    if not rows:
        return None
    row, count = rows.most_common(1)[0]
    filler = np.frombuffer(row, np.float32)
    is_padding = count > max(MANY * clips, 1) and _num_inside(parts, filler) <= FEW * clips
    return filler if is_padding else None


def _num_inside(parts: list[Sequences], filler: NDArray[np.float32]) -> int:
    """Count the clips that hold a row between other rows; a row of padding is not there."""
    count = 0
    for steps in (steps for sequences in parts for steps in sequences):
        others = np.flatnonzero(_differs(steps[np.newaxis], filler)[0])
        count += len(others) > 0 and others[-1] - others[0] >= len(others)
    return count


def repair_features(
    sequences: Sequences, filler: NDArray[np.float32] | None = None
) -> RepairedFeatures:
    """Count and replace values that are not finite; note which steps hold anything.

    A padded array is changed in place where it can be: it may be most of the memory.

    Args:
        sequences: As the file has them.
        filler: Row of padding ``[d_m]``; a step that equals it holds nothing.
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
        holds = _differs(block, filler)  # [clips, steps]
        steps = slice(block.shape[1])
        before[rows, steps] = after[rows, steps] = holds & (block != 0).any(axis=2)
        finite = np.isfinite(block)
        if finite.all():
            continue
        counted = block[holds]
        minus_inf, plus_inf = int(np.isneginf(counted).sum()), int(np.isposinf(counted).sum())
        nan = int(np.isnan(counted).sum())
        total = total.plus(Repairs(minus_inf=minus_inf, plus_inf=plus_inf, nan=nan))
        repaired = np.where(finite, block, np.float32(0.0))
        after[rows, steps] = holds & (repaired != 0).any(axis=2)
        if isinstance(sequences, list):
            sequences[rows] = list(repaired)
        else:
            sequences = sequences if sequences.flags.writeable else sequences.copy()
            sequences[rows] = repaired
    return RepairedFeatures(sequences, before, after, total)


def _differs(block: NDArray[np.float32], filler: NDArray[np.float32] | None) -> NDArray[np.bool_]:
    """Tell which steps of ``[clips, steps, d_m]`` differ from a row, NaN being equal to NaN."""
    if filler is None or block.shape[2] != len(filler):
        return np.ones(block.shape[:2], dtype=bool)
    differs: NDArray[np.bool_] = (block.view(np.int32) != filler.view(np.int32)).any(axis=2)
    return differs


def is_aligned(split: SourceSplit) -> bool:
    """Tell whether step i is the same stretch of time in every modality of a split.

    It is taken to be so if all arrays have the same number of steps and the lengths that
    the file gives, if any, agree. A length of 0 says that a modality is absent.
    """
    if any(isinstance(sequences, list) for sequences in split.features.values()):
        clip_steps = [[len(steps) for steps in seqs] for seqs in split.features.values()]
        has_equal_steps = all(steps == clip_steps[0] for steps in clip_steps)
    else:
        has_equal_steps = len({split.num_steps(modality) for modality in split.features}) <= 1
    if not has_equal_steps or not split.lengths:
        return has_equal_steps
    lengths = np.array(list(split.lengths.values()))  # [m, clips]
    return bool(((lengths == lengths.max(axis=0)) | (lengths == 0)).all())


class Cut(NamedTuple):
    """Features without their padding.

    Attributes:
        clips: By split, modality and clip a view of the real steps ``[n, d_m]``; None where the
            modality is absent, because the file says so or all its steps are zero.
        found: Where the padding was, phrases.
        notes: What could be wrong.
        faults: Lengths that contradict the steps.
    """

    clips: list[dict[Modality, list[NDArray[np.float32] | None]]]
    found: list[str]
    notes: list[str]
    faults: list[Fault]


def cut_padding(
    splits: list[SourceSplit],
    features: list[dict[Modality, RepairedFeatures]],
    *,
    aligned: bool,
    padding: Padding | None,
) -> Cut:
    """Cut the padding of every clip.

    Where it lies is found from all splits together: see :mod:`~mmcl.corpus.readers.padding`.
    Lengths that the file gives are believed if they fit. Without them, an aligned corpus
    loses the steps at both ends that are zero in every modality, and an unaligned one those
    at the end that is padded, modality by modality. Zero steps in between always stay, and a
    step that the file's mask marks as real counts as nonzero.

    Args:
        splits: The splits of a file.
        features: Their repaired features.
        aligned: Whether step i is the same stretch of time in every modality.
        padding: The user's choice of the side.
    """
    cut = Cut([{} for _ in splits], [], [], [])
    present = [m for m in MODALITIES if any(m in split for split in features)]
    groups = [present] if aligned and present else [[modality] for modality in present]
    for group in groups:
        edges = [_group_edges(split, f, group) for split, f in zip(splits, features, strict=True)]
        judged = _judged(group, splits, edges)
        place = _place_of(group, judged, padding)
        cut.notes.extend(f"{', '.join(group)}: {note}" for note in place.notes)
        if place.evidence and place.side != "none":
            end = {"both": "both ends", "left": "the left", "right": "the right"}[place.side]
            cut.found.append(f"{', '.join(group)} padded at {end} ({place.evidence})")
        cut.faults.extend(_length_faults(place, judged, group))
        for clips, split, repaired, split_edges in zip(
            cut.clips, splits, features, edges, strict=True
        ):
            spans = spans_of(split_edges, place.side)
            for modality in group:
                if modality in repaired:
                    flags = split.present.get(modality)
                    clips[modality] = _real_steps(repaired[modality], spans, flags)
    return cut


def _group_edges(
    split: SourceSplit, features: dict[Modality, RepairedFeatures], group: list[Modality]
) -> Edges:
    """Return the first and last steps at which any modality of a group holds something."""
    there = [modality for modality in group if modality in features]
    if not there:
        none = np.zeros(len(split.ids or ()), dtype=np.int64)
        return Edges(none, none, none)
    nonzero = [split.step_masks.get(m, features[m].nonzero_before) for m in there]
    width = max(mask.shape[1] for mask in nonzero)
    padded = [np.pad(mask, ((0, 0), (0, width - mask.shape[1]))) for mask in nonzero]
    given = [split.lengths[m] for m in there if m in split.lengths]
    lengths = np.max(given, axis=0) if given else None
    first = features[there[0]].sequences
    total = np.array([len(steps) for steps in first], dtype=np.int64)
    return find_edges(np.logical_or.reduce(padded), total, lengths)


def _judged(
    group: list[Modality], splits: list[SourceSplit], edges: list[Edges]
) -> list[tuple[SourceSplit, Edges]]:
    """Return the splits that show where the padding is: those with lengths, if there are any."""
    pairs = list(zip(splits, edges, strict=True))
    pairs = [pair for pair in pairs if any(m in pair[0].features for m in group)]
    return [pair for pair in pairs if pair[1].lengths is not None] or pairs


def _place_of(
    group: list[Modality], judged: list[tuple[SourceSplit, Edges]], padding: Padding | None
) -> Place:
    """Find the padding of a group of modalities from all splits."""
    splits = [split for split, _ in judged]
    every = judged[0][1]
    for _, other in judged[1:]:
        every = every.joined(other)
    has_mask = any(m in split.step_masks for m in group for split in splits)
    # Sequences of different lengths need no padding.
    is_known = every.lengths is not None or padding is not None or has_mask
    if not is_known and _is_ragged(group, splits) and len(set(every.total.tolist())) > 1:
        return Place("none")
    fields = [f"{m}_lengths" for split in splits for m in group if m in split.lengths]
    both_ends = len(group) > 1 or has_mask
    field = ", ".join(dict.fromkeys(fields))
    place = find_place(every, padding, lengths_field=field, both_ends=both_ends)
    is_by_mask = place.evidence and has_mask and len(group) == 1 and every.lengths is None
    return place._replace(evidence="the mask of text_bert") if is_by_mask else place


def _is_ragged(group: list[Modality], splits: list[SourceSplit]) -> bool:
    return any(isinstance(split.features.get(m), list) for split in splits for m in group)


def _length_faults(
    place: Place, judged: list[tuple[SourceSplit, Edges]], group: list[Modality]
) -> Iterator[Fault]:
    """Report clips whose length contradicts the steps that hold something."""
    if not place.contradicting:
        return
    rows = [(split, found, row) for split, found in judged for row in range(len(found.total))]
    for split, found, row in (rows[index] for index in place.contradicting):
        length = 0 if found.lengths is None else found.lengths[row]
        yield Fault(
            f'split "{split.name}", clip "{split.clip_name(row)}"',
            f"{', '.join(group)} length is {length}, but the steps {found.start[row]} to "
            f"{found.stop[row] - 1} of {found.total[row]} hold something",
            "Real steps must fit into the length, at the left or at the right. Correct the "
            f"lengths, or leave them out: {leave_out(place.evidence)}",
        )


def _real_steps(
    features: RepairedFeatures, spans: list[tuple[int, int]], flags: NDArray[np.bool_] | None
) -> list[NDArray[np.float32] | None]:
    clips: list[NDArray[np.float32] | None] = []
    for row, (start, stop) in enumerate(spans):
        is_present = flags is None or bool(flags[row])
        is_present = is_present and bool(features.nonzero_after[row, start:stop].any())
        clips.append(features.sequences[row][start:stop] if is_present else None)
    return clips


def alignment_note(
    splits: list[SourceSplit], features: list[dict[Modality, RepairedFeatures]]
) -> str | None:
    """Ask whether a file is aligned if only its numbers of steps say so.

    Returns:
        A note if the modalities of many clips begin or end at different steps and no lengths
        say that they are equally long; else None.
    """
    differs, clips = 0, 0
    names = {m for repaired in features for m in repaired}
    for split, repaired in zip(splits, features, strict=True):
        if split.lengths:
            return None
        edges = [_group_edges(split, repaired, [m]) for m in repaired if m not in split.step_masks]
        if len(edges) > 1:
            spans = np.stack([np.stack([e.start, e.stop]) for e in edges])  # [m, 2, clips]
            held = spans[:, 1] > spans[:, 0]
            first = np.where(held[:, np.newaxis], spans, spans.max(axis=0)).min(axis=0)
            last = np.where(held[:, np.newaxis], spans, spans.min(axis=0)).max(axis=0)
            both = held.sum(axis=0) > 1
            differs += int(((first != last).any(axis=0) & both).sum())
            clips += int(both.sum())
    # Of many clips some begin or end with a step that one modality lacks.
    if differs <= (MANY * clips if clips >= ENOUGH else 0):
        return None
    listed = ", ".join(sorted(names, key=MODALITIES.index))
    return (
        f"{listed}: taken as aligned, since all modalities have the same number of steps; but in "
        f"{differs} of {clips} clips they begin or end at different ones "
        "(if step i is not the same moment in all of them: --align none)"
    )


def checked_masks(
    split: SourceSplit, features: dict[Modality, RepairedFeatures]
) -> dict[Modality, str]:
    """Remove masks that contradict the features; return the reasons, by modality."""
    problems: dict[Modality, str] = {}
    for modality, mask in list(split.step_masks.items()):
        if modality not in features:
            continue
        total = np.full(len(mask), mask.shape[1], dtype=np.int64)
        marked = find_edges(mask, total, None)
        held = find_edges(features[modality].nonzero_before, total, None)
        both = (marked.stop > marked.start) & (held.stop > held.start)
        outside = both & ((marked.start < held.start) | (marked.stop > held.stop))
        if not mask.any():
            problems[modality] = "the mask of text_bert marks no step as real, so it was not used"
        elif outside.sum() > FEW * both.sum() and (
            (marked.stop - marked.start == held.stop - held.start)[both].mean() > 1 - FEW
        ):
            problems[modality] = (
                "the mask of text_bert marks other steps as real than those that hold something; "
                "the latter were taken"
            )
        if modality in problems:
            del split.step_masks[modality]
    return problems
