"""One corpus of the parts of an extraction, with an account of what is not in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.corpus.schema import Account, Card, Clip
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.media.extract import STAGES, card_of
from mmcl.media.folders.items import ExtractTask, Failure, Gathered
from mmcl.media.folders.leftovers import ERRORS, LeftOut
from mmcl.media.recipe import Recipe
from mmcl.types import SPLITS, Modality

__all__ = ["Outcome", "merge_parts"]

MOST_NOTES = 30  # on files, on the card of the corpus
LEAST_OUTSIDE = 0.05  # seconds outside the utterances that are worth a word


class Outcome(NamedTuple):
    """Result of a batch.

    Attributes:
        card: Card of the corpus that was written.
        failures: Items that could not be extracted.
        timings: Seconds per stage, over all files and processes.
        duration: Seconds of media in the corpus.
        file_notes: Notes on files that the card shows only as one of their kind.
    """

    card: Card
    failures: list[Failure]
    timings: dict[str, float]
    duration: float
    file_notes: tuple[Failure, ...] = ()


def merge_parts(
    gathered: Gathered,
    failures: list[Failure],
    tasks: Sequence[ExtractTask],
    out: Path,
    name: str,
) -> Outcome:
    """Write the parts as one corpus.

    Args:
        gathered: Everything that was asked for.
        failures: Items of which there is no part.
        tasks: Items of which there is one.
        out: The corpus to write.
        name: Its name.
    """
    ordered = sorted(tasks, key=lambda task: SPLITS.index(task.item.split))
    cards = [open_corpus(task.part).card for task in ordered]
    timings = {stage: sum(card.recipe["timings"][stage] for card in cards) for stage in STAGES}
    counts = dict.fromkeys(SPLITS, 0)
    for task, card in zip(ordered, cards, strict=True):
        counts[task.item.split] += sum(card.counts.values())
    on_files, file_notes = _joined_notes(ordered, cards)
    notes = [*gathered.notes, *on_files]
    if failures:
        total = len(gathered.items) + len(gathered.failures)
        notes.append(f"{len(failures)} of {total} items failed and are not in it")
    dims: dict[Modality, int] = {m: width for card in cards for m, width in card.dims.items()}
    languages = {card.language for card in cards if card.language}
    merged = card_of(
        Recipe.model_validate(cards[0].recipe["extraction"]),
        dims,
        task=gathered.task,
        counts={split: count for split, count in counts.items() if count},
        name=name,
        language=", ".join(sorted(languages)) or None,
        spans=_spans(ordered, cards),
        notes=tuple(notes),
    )
    left_out = (*_failed(failures), *gathered.left_out)
    became = f"{_counted(len(tasks), 'file')} became {_counted(sum(counts.values()), 'clip')}"
    account = Account(
        source=(*gathered.source, became),
        left_out=(*(part.phrase() for part in left_out), *_outside(ordered, cards)),
    )
    merged = merged.model_copy(update={"account": account})
    write_corpus(out, merged, _labelled_clips(ordered))
    duration = sum(card.recipe["duration"] for card in cards)
    return Outcome(merged, failures, timings, duration, file_notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _failed(failures: Sequence[Failure]) -> Iterator[LeftOut]:
    if failures:
        names = tuple(sorted(failure.item for failure in failures))
        yield LeftOut("items that failed", names)


def _outside(tasks: Sequence[ExtractTask], cards: Sequence[Card]) -> Iterator[str]:
    """Yield the seconds of files that were cut which lie in none of their utterances."""
    cut = [
        card.recipe for task, card in zip(tasks, cards, strict=True) if task.item.clip_id is None
    ]
    duration = sum(recipe["duration"] for recipe in cut)
    inside = sum(end - start for recipe in cut for start, end in recipe["spans"])
    if duration - inside > LEAST_OUTSIDE:
        yield (
            f"{duration - inside:.1f} of {duration:.1f} s of the files that were cut lie outside "
            "their utterances: no words were found there"
        )


def _labelled_clips(tasks: Sequence[ExtractTask]) -> Iterator[Clip]:
    """Yield the clips of all parts with the split, ids and labels of their items."""
    for task in tasks:
        item = task.item
        for clip in open_corpus(task.part).every_clip().clips():
            changes: dict[str, Any] = {"split": item.split}
            if item.clip_id is not None:
                changes |= {
                    "id": item.name,
                    "clip_id": item.clip_id,
                    "label": item.label,
                    "modality_labels": item.modality_labels,
                    "speaker": item.speaker or clip.speaker,
                }
            yield clip.model_copy(update=changes)


def _spans(tasks: Sequence[ExtractTask], cards: Sequence[Card]) -> dict[str, tuple[float, float]]:
    """Return start and end of every utterance in its file, for files that were cut."""
    spans: dict[str, tuple[float, float]] = {}
    for task, card in zip(tasks, cards, strict=True):
        if task.item.clip_id is None:
            ids = open_corpus(task.part).every_clip().ids
            spans |= {
                i: (start, end) for i, (start, end) in zip(ids, card.recipe["spans"], strict=True)
            }
    return spans


def _joined_notes(
    tasks: Sequence[ExtractTask], cards: Sequence[Card]
) -> tuple[list[str], tuple[Failure, ...]]:
    """Return a line for every kind of note on files, and the notes that are not shown in full."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for task, card in zip(tasks, cards, strict=True):
        for note in card.notes:
            kinds.setdefault(_kind(note), {}).setdefault(note, []).append(task.item.name)
    shown = [_shown(noted) for noted in list(kinds.values())[:MOST_NOTES]]
    if len(kinds) > MOST_NOTES:
        more = _counted(len(kinds) - MOST_NOTES, "more kind")
        shown.append(f"and {more} of notes on files: see {ERRORS}")
    hidden = [
        Failure(name, f"note: {note}")
        for number, noted in enumerate(kinds.values())
        if number >= MOST_NOTES or len(noted) > 1
        for note, names in noted.items()
        for name in names
    ]
    return shown, tuple(hidden)


def _shown(noted: Mapping[str, Sequence[str]]) -> str:
    """Return the notes of one kind as one, by the first of them.

    Args:
        noted: Notes that differ in numbers, names or examples, and their files.
    """
    (note, names), *others = noted.items()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    line = f'"{names[0]}"{more}: {note}'
    if not others:
        return line
    count = _counted(sum(len(files) for _, files in others), "more file")
    return f"{line} (the like in {count}: see {ERRORS})"


def _kind(note: str) -> str:
    """Return a note without numbers, names, examples and plural endings.

    Example:
        >>> _kind("1 sound was left out: [ah]") == _kind("3 sounds were left out: [oh], [ah]")
        True
    """
    source, _, said = note.rpartition("transcript: ")
    plain = re.sub(r'"[^"]*"|\[.*?\]|\(.*?\)', "", said).split(": ")[0]
    plain = re.sub(r"\d+(?:\.\d+)?", "#", plain).replace(" was ", " were ")
    return source + re.sub(r"\B(?:es|s)\b", "", plain)
