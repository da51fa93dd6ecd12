"""The way from the arrays of a foreign file to clean, checked clips and their card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.check import Fault, faults
from mmcl.corpus.known_corpora import columns_of, compare_with_known, find_known, guess_name
from mmcl.corpus.readers.check_source import source_faults
from mmcl.corpus.readers.choose_task import ReadOptions, choose_task
from mmcl.corpus.readers.real_steps import cut_padding, is_aligned, repair_features
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit
from mmcl.corpus.schema import Card, Clip, Label, Repairs, Source, Task
from mmcl.types import MODALITIES, SPLITS, Modality

__all__ = ["Reading", "build_corpus"]


class Reading(NamedTuple):
    """The card, clips and faults that were read from a foreign file."""

    card: Card
    clips: list[Clip]
    faults: list[Fault]


def build_corpus(source: SourceFile, path: Path, sha256: str, options: ReadOptions) -> Reading:
    """Check, clean and cut the arrays of a foreign file, and make clips and a card of them.

    Raises:
        DatasetError: If the file has no labels for the task that was asked for.
    """
    array_faults = list(source_faults(source))
    splits = [_cut_to_common_size(split) for split in source.splits]
    counts = {split.name: len(split.ids or ()) for split in splits}
    name = options.name or guess_name(path, sha256, counts)
    known = find_known(name)
    task, task_notes = choose_task(source, path, known, options)
    aligned = all(is_aligned(split) for split in splits)
    clips: list[Clip] = []
    repairs: dict[Modality, Repairs] = {}
    for split in splits:
        features = {m: repair_features(steps) for m, steps in split.features.items()}
        for modality, repaired in features.items():
            repairs[modality] = repairs.get(modality, Repairs()).plus(repaired.repairs)
        clips += _clips(split, cut_padding(split, features, aligned=aligned), task)
    # The first clip of a modality sets its width; a clip of another width is a fault.
    widths = {m: steps.shape[1] for clip in clips[::-1] for m, steps in clip.features.items()}
    card = Card(
        name=name,
        task=task,
        dims={m: widths[m] for m in MODALITIES if m in widths},
        counts={split: count for split, count in counts.items() if count},
        aligned=aligned,
        language=known.language if known else None,
        repairs={m: counted for m, counted in repairs.items() if counted.total},
        source=Source(name=path.name, layout=source.layout, sha256=sha256),
        recipe={"reader": source.layout},
    )
    notes = (*task_notes, *_notes(source, clips, card), *compare_with_known(card))
    card = card.model_copy(update={"columns": columns_of(card), "notes": notes})
    return Reading(card, clips, array_faults + faults(clips, task))


def _cut_to_common_size(split: SourceSplit) -> SourceSplit:
    """Cut all parts to the clips that every part lists, so that the checks can go on."""
    count = min(split.sizes().values(), default=0)

    def cut(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: values[:count] for key, values in part.items()}
        return None if part is None else part[:count]

    parts = {part.name: cut(getattr(split, part.name)) for part in fields(split)}
    ids = [split.clip_name(row) for row in range(count)]
    result = SourceSplit(**parts | {"name": split.name, "ids": ids})
    # Lengths and masks that do not fit the features were reported; they must not be used.
    for modality, values in list(result.lengths.items()):
        if modality not in result.features:
            del result.lengths[modality]
        elif (steps := split.num_steps(modality)) is not None:
            result.lengths[modality] = np.clip(values, 0, steps)
    for modality, mask in list(result.step_masks.items()):
        if mask.shape[1] != split.num_steps(modality):
            del result.step_masks[modality]
    return result


def _clips(
    split: SourceSplit, steps: dict[Modality, list[NDArray[np.float32] | None]], task: Task
) -> Iterator[Clip]:
    labels = _labels(split, task)
    has_scores = task.kind == "regression" and split.modality_labels
    for row, clip_id in enumerate(split.ids or ()):
        scores = {m: float(values[row]) for m, values in split.modality_labels.items()}
        yield Clip(
            id=clip_id,
            split=split.name,
            features={m: rows[row] for m, rows in steps.items() if rows[row] is not None},
            label=labels[row],
            modality_labels=scores if has_scores else None,
            video_id=split.video_ids[row] if split.video_ids else None,
            clip_id=split.clip_ids[row] if split.clip_ids else None,
            text=(split.texts[row] or None) if split.texts else None,
            words=split.words[row] if split.words else None,
        )


def _labels(split: SourceSplit, task: Task) -> list[Label]:
    values = split.labels.get(task.kind)
    if values is None:
        return [None] * len(split.ids or ())
    if task.kind == "regression":
        scores: list[Label] = values.tolist()
        return scores
    if task.kind == "classes":
        # A number that is no class stays as it is, for the checks to report.
        return [int(value) if value == np.floor(value) else value for value in values.tolist()]
    judgements = np.where(np.isin(values, (0.0, 1.0)), values, -1.0).astype(np.int64)
    return [tuple(row) for row in judgements.tolist()]


def _notes(source: SourceFile, clips: list[Clip], card: Card) -> Iterator[str]:
    """Yield what a user should know: repairs, made-up ids, absent parts, fields not kept."""
    for modality, repairs in card.repairs.items():
        yield (
            f"{modality}: {repairs.total} values were not finite ({repairs.minus_inf} -inf, "
            f"{repairs.plus_inf} inf, {repairs.nan} NaN) and were replaced by 0"
        )
    for split in source.splits:
        if split.ids is None:
            first = split.clip_name(0)
            yield f'{split.name}: no ids in the file; made from the row, as in "{first}"'
    yield from (f'no "{name}" split in the file' for name in SPLITS if name not in card.counts)
    in_file = {modality for split in source.splits for modality in split.features}
    for modality in MODALITIES:
        if modality in in_file and modality not in card.dims:
            yield f"{modality}: absent from every clip, so left out"
    for name, count in card.counts.items():
        for modality in card.dims:
            missing = sum(c.split == name and modality not in c.features for c in clips)
            if missing:
                yield f"{modality}: missing in {missing} of {count} {name} clips"
    if source.ignored:
        yield f"fields not kept: {', '.join(source.ignored)}"
