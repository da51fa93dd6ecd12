"""What is wrong with a corpus: every fault at once, each with what was expected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import Corpus
from mmcl.errors import DatasetError
from mmcl.types import SPLITS, Modality, SplitName

__all__ = ["Fault", "corpus_clips", "fault_message", "faults", "raise_faults"]

FAULTS_IN_A_MESSAGE = 10
# Labels are often float32 on disk: 3.0000002 is 3.
RANGE_TOLERANCE = 1e-6


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        where: The split, and the clip where it is one clip's fault.
        found: What is there.
        expected: What should be there, a whole sentence.
        first: The first clip that shows it, a whole sentence; may be empty.
    """

    where: str
    found: str
    expected: str
    first: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}"


def faults(corpus: Corpus | Iterable[Clip], task: Task | None = None) -> list[Fault]:
    """Find everything that is wrong with a corpus, not only the first thing.

    Args:
        corpus: An opened corpus, or clips in any order.
        task: What the labels must fit; taken from the card of an opened corpus.

    Returns:
        Faults: those of ids first, then those of clips, in the order of the clips.
    """
    if isinstance(corpus, Corpus):
        return [*_count_faults(corpus), *faults(corpus_clips(corpus), corpus.card.task)]
    ids: Counter[tuple[str, SplitName]] = Counter()
    widths: dict[Modality, int] = {}
    of_clips: list[Fault] = []
    for clip in corpus:
        ids[clip.id, clip.split] += 1
        where = f'split "{clip.split}", clip "{clip.id}"'
        of_clips += _feature_faults(clip, where, widths)
        of_clips += _label_faults(clip, where, task)
    return [*_id_faults(ids), *of_clips]


def corpus_clips(corpus: Corpus) -> Iterator[Clip]:
    """Every clip of an opened corpus with its labels, of train, valid and test in this order."""
    yield from corpus.split("train").clips()
    yield from corpus.split("valid").clips()
    yield from corpus.open_test_split().clips()


def raise_faults(path: str | PathLike[str], found: Sequence[Fault]) -> None:
    """Raise one error that lists the faults, or return where there are none.

    Raises:
        DatasetError: See :func:`fault_message`.
    """
    if found:
        raise DatasetError(fault_message(path, found))


def fault_message(path: str | PathLike[str], found: Sequence[Fault]) -> str:
    """Say what is wrong with a file: one fault in full, or the first ten in a line each.

    Example:
        >>> twice = Fault('split "train"', 'id "a" is listed 2 times', "Ids must differ.")
        >>> print(fault_message("mosi.pkl", [twice]))
        mosi.pkl, split "train": id "a" is listed 2 times.
          Ids must differ.
          See them all: mmcl corpus check mosi.pkl
    """
    command = f"  See them all: mmcl corpus check {path}"
    if len(found) == 1:
        fault = found[0]
        details = [f"  {line}" for line in (fault.expected, fault.first) if line]
        return "\n".join([f"{path}, {fault}.", *details, command])
    lines = [f"  {fault}" for fault in found[:FAULTS_IN_A_MESSAGE]]
    if len(found) > FAULTS_IN_A_MESSAGE:
        lines.append(f"  and {len(found) - FAULTS_IN_A_MESSAGE} more")
    return "\n".join([f"{path} has {len(found)} faults", *lines, command])


def _count_faults(corpus: Corpus) -> Iterator[Fault]:
    promised, held = sum(corpus.card.counts.values()), len(corpus.every_clip())
    if held != promised:
        found = f"it counts {promised} clips, the file holds {held}"
        yield Fault("card", found, "They must be equal; convert the file again.")


def _id_faults(ids: Counter[tuple[str, SplitName]]) -> Iterator[Fault]:
    homes: defaultdict[str, set[SplitName]] = defaultdict(set)
    for (name, split), times in ids.items():
        homes[name].add(split)
        if times > 1:
            found = f'id "{name}" is listed {times} times'
            yield Fault(f'split "{split}"', found, "Every clip needs an id of its own.")
    for name, splits in homes.items():
        if len(splits) > 1:
            listed = " and ".join(f'"{split}"' for split in SPLITS if split in splits)
            found = f'id "{name}" is in more than one'
            yield Fault(f"splits {listed}", found, "A clip belongs to one split only.")


def _feature_faults(clip: Clip, where: str, widths: dict[Modality, int]) -> Iterator[Fault]:
    if not clip.features:
        found = "it has no steps in any modality"
        yield Fault(where, found, "A clip needs one step of one modality at least.")
    for modality, steps in clip.features.items():
        if steps.ndim != 2:
            found = f"{modality} has shape {list(steps.shape)}"
            yield Fault(where, found, "Features must be 2-D [steps, width].")
            continue
        width = widths.setdefault(modality, steps.shape[1])
        if steps.shape[1] != width:
            found = f"{modality} is {steps.shape[1]} wide, {width} in the clips before it"
            yield Fault(where, found, "A modality must have one width throughout the corpus.")
        if len(steps) == 0:
            found = f"{modality} has no steps"
            yield Fault(where, found, "Leave an absent modality out; a present one has steps.")
        if not np.isfinite(steps).all():
            count = int(steps.size - np.isfinite(steps).sum())
            found = f"{modality} holds {count} values that are not finite"
            yield Fault(where, found, "Features must be finite; convert the source file again.")


def _label_faults(clip: Clip, where: str, task: Task | None) -> Iterator[Fault]:
    if task is None:
        return
    if clip.label is not None:
        yield from _one_label_fault("label", clip.label, where, task)
    for modality, score in (clip.modality_labels or {}).items():
        if task.kind == "regression":
            yield from _one_label_fault(f"{modality} label", score, where, task)


def _one_label_fault(
    name: str, label: float | int | tuple[int, ...], where: str, task: Task
) -> Iterator[Fault]:
    fits, expected = _LABEL_RULES[task.kind](label, task)
    if not fits:
        shown = f"({', '.join(map(str, label))})" if isinstance(label, tuple) else f"{label:g}"
        yield Fault(where, f"{name} is {shown}", expected)


def _is_score(label: float | int | tuple[int, ...], task: Task) -> tuple[bool, str]:
    low, high = task.low or 0.0, task.high or 0.0
    fits = not isinstance(label, tuple) and (
        low - RANGE_TOLERANCE <= label <= high + RANGE_TOLERANCE
    )
    return fits, f"A label must be a number from {low:g} to {high:g}."


def _is_class(label: float | int | tuple[int, ...], task: Task) -> tuple[bool, str]:
    last = len(task.names) - 1
    fits = not isinstance(label, tuple) and 0 <= label <= last and label == int(label)
    return fits, f"A label must be a whole number from 0 to {last}."


def _is_emotions(label: float | int | tuple[int, ...], task: Task) -> tuple[bool, str]:
    count = len(task.names)
    fits = isinstance(label, tuple) and len(label) == count and set(label) <= {0, 1}
    return fits, f"A label must be {count} judgements, each 0 or 1."


_LABEL_RULES = {"regression": _is_score, "classes": _is_class, "emotions": _is_emotions}
