"""Work of an extraction: files with their labels, and rows that are at fault."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmcl.corpus.schema import Label, Task
from mmcl.media.folders.leftovers import LeftOut
from mmcl.types import Modality, SplitName

__all__ = ["ExtractTask", "Failure", "Gathered", "Item"]


class Item(NamedTuple):
    """One file to extract, with its ids, split, label and text.

    Attributes:
        path: The file.
        name: What messages call it: ``video/clip`` of a row, or the file's name.
        video_id: The recording.
        clip_id: The clip, if the file is one; None if it is to be cut into utterances.
        split: Where its clips go; those without a label go to ``test``.
        label: Of the clip, None where unknown.
        modality_labels: As in :class:`~mmcl.corpus.schema.Clip`.
        text: What is said, where known.
        speaker: Who says it, where known.
    """

    path: Path
    name: str
    video_id: str
    clip_id: str | None = None
    split: SplitName = "test"
    label: Label = None
    modality_labels: dict[Modality, float] | None = None
    text: str | None = None
    speaker: str | None = None


class Failure(NamedTuple):
    """An item that could not be extracted, and why."""

    item: str
    cause: str


class Gathered(NamedTuple):
    """Items, failures and notes that were gathered from the sources.

    Attributes:
        items: What can be extracted, in order.
        failures: Faulty rows.
        task: What the labels are.
        notes: What a user should know.
        source: What was there, a phrase each.
        left_out: What was there and is not used.
    """

    items: list[Item]
    failures: list[Failure]
    task: Task
    notes: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


class ExtractTask(NamedTuple):
    """An item, the part of the corpus that it becomes, and its transcript.

    Attributes:
        item: The file and what is known of it.
        part: Corpus file of its clips.
        transcript: A file, or what is said; None if it is to be recognised.
    """

    item: Item
    part: Path
    transcript: Path | str | None
