"""One corpus of the parts of an extraction, with an account of what is not in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.corpus.schema import Account, Card, Clip
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.media.extract import STAGES, card_of
from mmcl.media.items import ExtractTask, Failure, Gathered
from mmcl.media.leftovers import LeftOut
from mmcl.media.recipe import Recipe
from mmcl.types import SPLITS, Modality

__all__ = ["Outcome", "merge_parts"]

MOST_NOTES = 20  # on the card of the corpus
LEAST_OUTSIDE = 0.05  # seconds outside the utterances that are worth a word


class Outcome(NamedTuple):
    """Result of a batch.

    Attributes:
        card: Card of the corpus that was written.
        failures: Items that could not be extracted.
        timings: Seconds per stage, over all files and processes.
        duration: Seconds of media in the corpus.
    """

    card: Card
    failures: list[Failure]
    timings: dict[str, float]
    duration: float


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
    notes = [*gathered.notes, *_joined_notes(ordered, cards)]
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
    return Outcome(merged, failures, timings, duration)


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
            "their utterances: nothing was said there"
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


def _joined_notes(tasks: Sequence[ExtractTask], cards: Sequence[Card]) -> Iterator[str]:
    """Yield the notes of all files, each only once."""
    noted: dict[str, list[str]] = {}
    for task, card in zip(tasks, cards, strict=True):
        for note in card.notes:
            noted.setdefault(note, []).append(task.item.name)
    for note, names in islice(noted.items(), MOST_NOTES):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f'"{names[0]}"{more}: {note}'
    if len(noted) > MOST_NOTES:
        yield f"and {len(noted) - MOST_NOTES} more notes on files"
