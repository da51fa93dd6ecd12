"""From the arrays of a foreign file to checked clips and their card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.cards import KnownCorpus, columns_of, compare_with_known, find_known, guess_name
from mmcl.corpus.check import Fault, faults
from mmcl.corpus.readers.foreign import Foreign, ForeignSplit
from mmcl.corpus.readers.steps import Scan, Spans, find_spans, is_aligned, scan
from mmcl.corpus.readers.tasks import TaskChoice, choose_task
from mmcl.corpus.schema import Card, Clip, Label, Repairs, Source, Task
from mmcl.types import MODALITIES, SPLITS, Modality, TaskKind

__all__ = ["Reading", "assemble"]


@dataclass(frozen=True)
class Reading:
    """A foreign file, read: its card, its clips and what is wrong with it."""

    card: Card
    clips: list[Clip]
    faults: list[Fault]


def assemble(
    foreign: Foreign,
    path: Path,
    sha256: str,
    *,
    name: str | None = None,
    task: TaskKind | None = None,
    label_range: tuple[float, float] | None = None,
) -> Reading:
    """Clean, cut, name and check what a reader brought.

    Args:
        foreign: The arrays.
        path: Where they came from.
        sha256: Checksum of that file.
        name: Name of the corpus; guessed where it is None.
        task: Which labels to take where the file has several kinds.
        label_range: Range of regression labels; known by name or inferred where it is None.

    Raises:
        DatasetError: If the file has no labels for ``task``.
    """
    structural = list(_structural_faults(foreign.splits))
    splits = [_even(split) for split in foreign.splits]
    counts = {split.name: len(split.ids or ()) for split in splits}
    name = name or guess_name(path, sha256, counts)
    known = find_known(name)
    choice = choose_task(foreign, path, known, wanted=task, label_range=label_range)
    aligned = all(is_aligned(split) for split in splits)
    clips, repairs = _clips(splits, choice, aligned=aligned)
    card = Card(
        name=name,
        task=choice.task,
        dims=_dims(clips),
        counts={split: count for split, count in counts.items() if count},
        aligned=aligned,
        language=known.language if known else None,
        repairs=repairs,
        source=Source(name=path.name, layout=foreign.layout, sha256=sha256),
        recipe={"reader": foreign.layout},
    )
    notes = [*choice.notes, *_notes(foreign, clips, card), *_known_notes(card, known)]
    card = card.model_copy(update={"columns": columns_of(card), "notes": tuple(notes)})
    return Reading(card, clips, structural + faults(clips, card.task))


def _structural_faults(splits: Sequence[ForeignSplit]) -> Iterator[Fault]:
    if not any(max(split.sizes().values(), default=0) for split in splits):
        yield Fault("every split", "it holds no clips", "A corpus needs one clip at least.")
    for split in splits:
        where = f'split "{split.name}"'
        yield from _size_faults(split, where)
        yield from _mask_faults(split, where)
        yield from _length_faults(split, where)
        yield from _word_faults(split, where)


def _mask_faults(split: ForeignSplit, where: str) -> Iterator[Fault]:
    for modality, mask in split.step_masks.items():
        steps = _steps(split, modality)
        if steps is not None and mask.shape[1] != steps:
            found = f"the mask of {modality} has {mask.shape[1]} steps, its features {steps}"
            yield Fault(where, found, "A mask must cover the same steps as the features.")


def _length_faults(split: ForeignSplit, where: str) -> Iterator[Fault]:
    for modality, lengths in split.lengths.items():
        steps = _steps(split, modality)
        if steps is None:
            continue
        for row in np.flatnonzero((lengths < 0) | (lengths > steps)).tolist():
            found = f"{modality} length is {lengths[row]}, the array has {steps} steps"
            at = f'{where}, clip "{_id(split, row)}"'
            yield Fault(at, found, "A length must be from 0 to the steps of the array.")


def _word_faults(split: ForeignSplit, where: str) -> Iterator[Fault]:
    """Clips whose features do not lie word by word, where words are all they lie beside."""
    for modality, sequences in split.features.items():
        for row, (words, steps) in enumerate(zip(split.words or (), sequences, strict=False)):
            if len(words) != len(steps):
                found = f"{modality} has {len(steps)} steps for {len(words)} words"
                at = f'{where}, clip "{_id(split, row)}"'
                yield Fault(at, found, "Every word needs one step of every modality.")


def _size_faults(split: ForeignSplit, where: str) -> Iterator[Fault]:
    sizes = split.sizes()
    longest = max(sizes, key=lambda part: (sizes[part], part in MODALITIES), default=None)
    for part, size in sizes.items():
        if longest is None or size == sizes[longest]:
            continue
        found = f"{part} has {size} clips, {longest} has {sizes[longest]}"
        if part in MODALITIES:
            expected = "Every modality must list the same clips in the same order."
        else:
            expected = "Every field must list the same clips in the same order."
        first = f'First clip without {part}: "{_id(split, size)}".'
        yield Fault(where, found, expected, first)


def _steps(split: ForeignSplit, modality: Modality) -> int | None:
    sequences = split.features.get(modality)
    return sequences.shape[1] if isinstance(sequences, np.ndarray) else None


def _id(split: ForeignSplit, row: int) -> str:
    if split.ids is not None and row < len(split.ids):
        return split.ids[row]
    return f"{split.name}_{row:04d}"


def _even(split: ForeignSplit) -> ForeignSplit:
    """Cut every part to the clips that all parts list, so that the checks can go on."""
    count = min(split.sizes().values(), default=0)

    def by_key(parts: dict[Any, Any]) -> dict[Any, Any]:
        return {key: part[:count] for key, part in parts.items()}

    def cut(listed: list[Any] | None) -> list[Any] | None:
        return None if listed is None else listed[:count]

    lengths = {}
    for modality, values in by_key(split.lengths).items():
        steps = _steps(split, modality)
        lengths[modality] = values if steps is None else np.clip(values, 0, steps)
    masks = by_key(split.step_masks)
    return replace(
        split,
        features=by_key(split.features),
        labels=by_key(split.labels),
        lengths={m: values for m, values in lengths.items() if m in split.features},
        step_masks={m: mask for m, mask in masks.items() if mask.shape[1] == _steps(split, m)},
        present=by_key(split.present),
        modality_labels=by_key(split.modality_labels),
        ids=[_id(split, row) for row in range(count)],
        video_ids=cut(split.video_ids),
        clip_ids=cut(split.clip_ids),
        texts=cut(split.texts),
        words=cut(split.words),
    )


def _clips(
    splits: list[ForeignSplit], choice: TaskChoice, *, aligned: bool
) -> tuple[list[Clip], dict[Modality, Repairs]]:
    clips: list[Clip] = []
    repairs: dict[Modality, Repairs] = {}
    for split in splits:
        scans = {m: scan(split.features[m]) for m in MODALITIES if m in split.features}
        for modality, found in scans.items():
            before = repairs.get(modality, Repairs())
            repairs[modality] = before.plus(found.repairs)
        spans = find_spans(split, scans, aligned=aligned)
        clips += _clips_of(split, scans, spans, choice)
    return clips, {m: found for m, found in repairs.items() if found != Repairs()}


def _clips_of(
    split: ForeignSplit,
    scans: dict[Modality, Scan],
    spans: dict[Modality, Spans],
    choice: TaskChoice,
) -> Iterator[Clip]:
    kept = {m: _kept(scans[m], spans[m], split.present.get(m)) for m in scans}
    labels = _labels(split, choice.task)
    for row, clip_id in enumerate(split.ids or ()):
        yield Clip(
            id=clip_id,
            split=split.name,
            features={m: rows[row] for m, rows in kept.items() if rows[row] is not None},
            label=labels[row],
            modality_labels=_modality_labels(split, choice.task, row),
            video_id=split.video_ids[row] if split.video_ids else None,
            clip_id=split.clip_ids[row] if split.clip_ids else None,
            text=(split.texts[row] or None) if split.texts else None,
            words=split.words[row] if split.words else None,
        )


def _kept(
    found: Scan, spans: Spans, present: NDArray[np.bool_] | None
) -> list[NDArray[np.float32] | None]:
    """The real steps of every clip as views; None where the modality is absent."""
    kept: list[NDArray[np.float32] | None] = []
    starts, stops = spans.start.tolist(), spans.stop.tolist()
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        is_there = present is None or bool(present[row])
        told = is_there and bool(found.told[row, start:stop].any())
        kept.append(found.sequences[row][start:stop] if told else None)
    return kept


def _labels(split: ForeignSplit, task: Task) -> list[Label]:
    values = split.labels.get(task.kind)
    if values is None:
        return [None] * len(split.ids or ())
    if task.kind == "regression":
        scores: list[Label] = values.tolist()
        return scores
    if task.kind == "classes":
        return [int(value) if value == np.floor(value) else value for value in values.tolist()]
    whole = np.where(np.isin(values, (0.0, 1.0)), values, -1.0).astype(np.int64)
    return [tuple(row) for row in whole.tolist()]


def _modality_labels(split: ForeignSplit, task: Task, row: int) -> dict[Modality, float] | None:
    if task.kind != "regression" or not split.modality_labels:
        return None
    return {m: float(labels[row]) for m, labels in split.modality_labels.items()}


def _dims(clips: Iterable[Clip]) -> dict[Modality, int]:
    dims: dict[Modality, int] = {}
    for clip in clips:
        for modality, steps in clip.features.items():
            dims.setdefault(modality, steps.shape[1])
    return {m: dims[m] for m in MODALITIES if m in dims}


def _notes(foreign: Foreign, clips: list[Clip], card: Card) -> Iterator[str]:
    for modality, found in card.repairs.items():
        yield (
            f"{modality}: {found.total} values were not finite ({found.minus_inf} -inf, "
            f"{found.plus_inf} inf, {found.nan} NaN) and were replaced by 0"
        )
    for split in foreign.splits:
        if split.ids is None:
            yield f'{split.name}: no ids in the file; made from the row, as in "{_id(split, 0)}"'
    yield from (f'no "{name}" split in the file' for name in SPLITS if name not in card.counts)
    yield from _missing_notes(foreign, clips, card)
    if foreign.ignored:
        yield f"fields not kept: {', '.join(foreign.ignored)}"


def _missing_notes(foreign: Foreign, clips: list[Clip], card: Card) -> Iterator[str]:
    offered = {m for split in foreign.splits for m in split.features}
    for modality in MODALITIES:
        if modality in offered and modality not in card.dims:
            yield f"{modality}: absent from every clip, so left out"
    for name in card.counts:
        of_split = [clip for clip in clips if clip.split == name]
        for modality in card.dims:
            missing = sum(modality not in clip.features for clip in of_split)
            if missing:
                yield f"{modality}: missing in {missing} of {len(of_split)} {name} clips"


def _known_notes(card: Card, known: KnownCorpus | None) -> list[str]:
    return compare_with_known(card) if known else []
