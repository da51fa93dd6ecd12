"""Conversion of the arrays of a foreign file to clean, checked clips and a card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.check import Fault, faults
from mmcl.corpus.known_corpora import (
    columns_of,
    compare_with_known,
    find_known,
    guess_name,
    is_known_release,
)
from mmcl.corpus.readers.account import account_of
from mmcl.corpus.readers.check_source import source_faults
from mmcl.corpus.readers.choose_task import Chosen, choose_task
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.real_steps import (
    RepairedFeatures,
    alignment_note,
    checked_masks,
    cut_padding,
    find_filler,
    is_aligned,
    repair_features,
)
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit
from mmcl.corpus.schema import Card, Clip, Label, Repairs, Source
from mmcl.errors import DatasetError
from mmcl.plain import without_controls
from mmcl.types import MODALITIES, SPLITS, Modality

__all__ = ["TEXT_ALONE", "Reading", "build_corpus"]

TEXT_ALONE = (
    "it has text and no features: a language model can read it (mmcl train CORPUS "
    "--set text.encoder=packaged), or make vectors of it once (mmcl corpus convert SRC DST "
    "--text-model packaged)"
)
"""Note on a corpus that has text and no features."""
PARTS_SHOWN = 5  # parts that are left out, in a message


class Reading(NamedTuple):
    """The card, clips and faults that were read from a foreign file."""

    card: Card
    clips: list[Clip]
    faults: list[Fault]


def build_corpus(source: SourceFile, path: Path, sha256: str, options: ReadOptions) -> Reading:
    """Check, clean and cut the arrays of a foreign file, and make clips and a card of them.

    Raises:
        DatasetError: If the file has no labels for the task that was asked for, or more of its
            clips would be left out than the user allows.
    """
    _check_lost(source, path, options)
    array_faults = list(source_faults(source))
    counts = {split.name: max(split.sizes().values(), default=0) for split in source.splits}
    name = without_controls(options.name or source.name or guess_name(path, sha256, counts))
    known = find_known(name)
    dims = _widths(source)
    is_release = known is not None and is_known_release(known, source.layout, dims, counts)
    chosen = choose_task(source, path, known, options, is_known_release=is_release)
    splits = [_cut_to_common_size(split) for split in source.splits]
    counts = {split.name: len(split.ids or ()) for split in splits}
    aligned = _is_aligned(source, splits, options, path)
    clean = _cleaned(splits, options)
    cut = cut_padding(splits, clean.features, aligned=aligned, padding=options.padding)
    if aligned and options.align is None and source.aligned is None:
        cut.notes.extend(filter(None, [alignment_note(splits, clean.features)]))
    clips: list[Clip] = []
    for split, steps in zip(splits, cut.clips, strict=True):
        clips += _clips(split, steps, chosen)
    # The first clip of a modality sets its width; a clip of another width is a fault.
    widths = {m: steps.shape[1] for clip in clips[::-1] for m, steps in clip.features.items()}
    card = Card(
        name=name,
        task=chosen.task,
        dims={m: widths[m] for m in MODALITIES if m in widths},
        counts={split: count for split, count in counts.items() if count},
        aligned=aligned,
        language=known.language if known else None,
        repairs=clean.repairs,
        source=Source(name=without_controls(path.name), layout=source.layout, sha256=sha256),
        recipe={"reader": source.layout},
        account=account_of(source, counts, chosen, cut),
    )
    notes = [*source.notes, *chosen.notes, *cut.notes, *clean.notes]
    notes += [*_notes(source, clips, card), *compare_with_known(card)]
    # Features that are absent from every clip are a fault; a file may have none at all.
    text_alone = not any(split.features for split in splits) and any(clip.text for clip in clips)
    if text_alone:
        notes.append(TEXT_ALONE)
    card = card.model_copy(
        update={"columns": columns_of(card), "notes": tuple(map(without_controls, notes))}
    )
    clip_faults = faults(clips, chosen.task, text_alone=text_alone)
    return Reading(card, clips, [*array_faults, *cut.faults, *clip_faults])


class _Clean(NamedTuple):
    """Features whose values are all finite, by split and modality."""

    features: list[dict[Modality, RepairedFeatures]]
    repairs: dict[Modality, Repairs]  # of all splits; only modalities that had any
    notes: list[str]


def _cleaned(splits: list[SourceSplit], options: ReadOptions) -> _Clean:
    """Replace values that are not finite, and remove masks that contradict the features."""
    features: list[dict[Modality, RepairedFeatures]] = [{} for _ in splits]
    repairs: dict[Modality, Repairs] = {}
    filler_notes = []
    for modality in MODALITIES:
        parts = [s.features[modality] for s in splits if modality in s.features]
        # Where there is no padding, no row can be one of padding.
        filler = find_filler(parts) if options.padding != "none" else None
        if filler is not None:
            filler_notes.append(_filler_note(modality, filler))
        for split, repaired in zip(splits, features, strict=True):
            if modality in split.features:
                repaired[modality] = repair_features(split.features[modality], filler)
        total = Repairs()
        for repaired in (of_split for of_split in features if modality in of_split):
            total = total.plus(repaired[modality].repairs)
        if total.total:
            repairs[modality] = total
    masks = [checked_masks(split, f) for split, f in zip(splits, features, strict=True)]
    mask_notes = dict.fromkeys(f"{m}: {note}" for found in masks for m, note in found.items())
    return _Clean(features, repairs, [*mask_notes, *filler_notes])


def _filler_note(modality: Modality, filler: NDArray[np.float32]) -> str:
    """Describe the row with which a modality is padded."""
    is_one_value = len(np.unique(filler)) == 1  # NaN counts as one value
    held = f"of {filler[0]:g}" if is_one_value else "that are the same in most clips, and not zero"
    return (
        f"{modality}: padded with steps {held}; they were cut "
        "(if they were measured: --padding none)"
    )


def _check_lost(source: SourceFile, path: Path, options: ReadOptions) -> None:
    """Refuse a file of which more clips would be left out than the user allows."""
    lost = [part for part in source.left_out if part.clips]
    num_lost = sum(part.clips for part in lost)
    total = num_lost + sum(max(s.sizes().values(), default=0) for s in source.splits)
    if num_lost <= options.max_lost * total:
        return
    fixes = list(dict.fromkeys(part.fix for part in lost if part.fix))
    raise DatasetError(
        f"{path}: {num_lost} of {total} clips would be left out, "
        f"more than {options.max_lost:.0%}:\n"
        + "".join(f"  {part.what}\n" for part in lost[:PARTS_SHOWN])
        + "".join(f"  {fix[0].upper()}{fix[1:]}.\n" for fix in fixes[:PARTS_SHOWN])
        + f"  To go on without them: --max-lost {np.ceil(100 * num_lost / total) / 100:g}"
    )


def _widths(source: SourceFile) -> dict[Modality, int]:
    """Return the width of every modality, by the first clip that has it."""
    widths: dict[Modality, int] = {}
    for split in source.splits:
        for modality in MODALITIES:
            sequences = split.features.get(modality, ())
            first = next((steps for steps in sequences if len(steps)), None)
            if first is not None:
                widths.setdefault(modality, int(first.shape[-1]))
    return widths


def _is_aligned(
    source: SourceFile, splits: list[SourceSplit], options: ReadOptions, path: Path
) -> bool:
    """Tell whether step i is the same moment in every modality, by choice or by the steps.

    Raises:
        DatasetError: If ``--align word`` was asked for and the numbers of steps differ.
    """
    looks_aligned = all(is_aligned(split) for split in splits)
    if options.align == "word" and not looks_aligned:
        steps = {m: split.num_steps(m) for split in splits for m in split.features}
        shown = ", ".join(f"{m} {n or 'of several lengths'}" for m, n in steps.items())
        raise DatasetError(
            f"{path}: its modalities have different numbers of steps ({shown}).\n"
            "  Expected the same number for --align word. Leave the option out, or: --align none"
        )
    if options.align is not None:
        return options.align == "word"
    # Text alone is in step with nothing.
    looks_aligned = looks_aligned and any(split.features for split in splits)
    return looks_aligned if source.aligned is None else source.aligned


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
    split: SourceSplit, steps: dict[Modality, list[NDArray[np.float32] | None]], chosen: Chosen
) -> Iterator[Clip]:
    """Make the clips of a split from its arrays."""
    labels = _labels(split, chosen)
    has_scores = chosen.task.kind == "regression" and split.modality_labels
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
            speaker=split.speakers[row] if split.speakers else None,
        )


def _labels(split: SourceSplit, chosen: Chosen) -> list[Label]:
    """Return the labels of a split, None where one is unknown."""
    count = len(split.ids or ())
    values = chosen.labels.get(split.name)
    if values is None:
        return [None] * count
    values = values[:count]
    unknown = chosen.unlabelled.get(split.name, np.zeros(count, dtype=bool))[:count].tolist()
    if chosen.task.kind == "emotions":
        judgements = np.where(np.isin(values, (0.0, 1.0)), values, -1.0).astype(np.int64)
        labels: list[Label] = [tuple(row) for row in judgements.tolist()]
    elif chosen.task.kind == "regression":
        labels = values.tolist()
    else:
        # A number that is no class stays as it is, for the checks to report.
        labels = [int(value) if value == np.floor(value) else value for value in values.tolist()]
    return [None if is_unknown else v for v, is_unknown in zip(labels, unknown, strict=True)]


def _notes(source: SourceFile, clips: list[Clip], card: Card) -> Iterator[str]:
    """Yield what a user should know: repairs, ids made from rows, absent labels and modalities."""
    for modality, repairs in card.repairs.items():
        yield (
            f"{modality}: {repairs.total} values were not finite ({repairs.minus_inf} -inf, "
            f"{repairs.plus_inf} inf, {repairs.nan} NaN) and were replaced by 0"
        )
    for name, count in card.counts.items():
        unknown = sum(clip.split == name and clip.label is None for clip in clips)
        if unknown > 0 and any(split.labels for split in source.splits):
            yield f"{name}: {unknown} of {count} clips have no label"
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
