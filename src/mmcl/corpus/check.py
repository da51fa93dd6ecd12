"""Checks of a corpus: all faults at once, each with what was expected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import NamedTuple

import numpy as np

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import Corpus
from mmcl.types import SPLITS, Modality, SplitName

__all__ = ["Fault", "corpus_clips", "fault_message", "faults"]

FAULTS_IN_A_MESSAGE = 10
RULES_IN_A_MESSAGE = 3
# Labels are often float32 on disk, where 3 may be 3.0000002.
RANGE_TOLERANCE = 1e-6


class Fault(NamedTuple):
    """One fault of a corpus."""

    where: str  # the split, and the clip where the fault is in a single one
    problem: str  # without a full stop
    expected: str  # the rule that is broken, a sentence
    first: str = ""  # the first clip that shows the fault, a sentence

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def faults(
    corpus: Corpus | Iterable[Clip], task: Task | None = None, *, text_alone: bool = False
) -> list[Fault]:
    """Find every fault of a corpus, not only the first.

    Args:
        corpus: An opened corpus, or clips in any order.
        task: The task that labels must fit; for an opened corpus that of its card.
        text_alone: Whether the corpus has no features, and its clips need text.

    Returns:
        Faults of ids first, then those of clips, in the order of the clips.
    """
    if isinstance(corpus, Corpus):
        text_alone = not corpus.card.dims
        clip_faults = faults(corpus_clips(corpus), corpus.card.task, text_alone=text_alone)
        in_card, in_file = sum(corpus.card.counts.values()), len(corpus.every_clip())
        if in_file == in_card:
            return clip_faults
        problem = f"it counts {in_card} clips, the file holds {in_file}"
        return [Fault("card", problem, "They must be equal; convert the file again."), *clip_faults]
    ids: Counter[tuple[str, SplitName]] = Counter()
    widths: dict[Modality, int] = {}
    clip_faults = []
    for clip in corpus:
        ids[clip.id, clip.split] += 1
        where = f'split "{clip.split}", clip "{clip.id}"'
        if not text_alone:
            clip_faults += _feature_faults(clip, where, widths)
        elif not (clip.text or clip.words):
            problem = "it has neither steps nor text"
            clip_faults.append(Fault(where, problem, "A clip needs one of them at least."))
        if task is not None:
            clip_faults += _label_faults(clip, where, task)
    return [*_id_faults(ids), *clip_faults]


def corpus_clips(corpus: Corpus) -> Iterator[Clip]:
    """Yield every clip of a corpus with its label, in the order train, valid, test."""
    yield from corpus.split("train").clips()
    yield from corpus.split("valid").clips()
    yield from corpus.open_test_split().clips()


def fault_message(path: str | PathLike[str], faults: Sequence[Fault]) -> str:
    """Describe a single fault of a file in full, or list the first ten of many.

    Example:
        >>> twice = Fault('split "train"', 'id "a" is listed 2 times', "Ids must differ.")
        >>> print(fault_message("mosi.pkl", [twice]))
        mosi.pkl, split "train": id "a" is listed 2 times.
          Ids must differ.
          See them all: mmcl corpus check mosi.pkl
    """
    command = f"  See them all: mmcl corpus check {path}"
    if len(faults) == 1:
        fault = faults[0]
        details = [f"  {line}" for line in (fault.expected, fault.first) if line]
        return "\n".join([f"{path}, {fault}.", *details, command])
    lines = [f"  {fault}" for fault in faults[:FAULTS_IN_A_MESSAGE]]
    if len(faults) > FAULTS_IN_A_MESSAGE:
        lines.append(f"  and {len(faults) - FAULTS_IN_A_MESSAGE} more")
    # A rule that names an option is the way out.
    rules = dict.fromkeys(fault.expected for fault in faults if "--" in fault.expected)
    lines += [f"  {rule}" for rule in islice(rules, RULES_IN_A_MESSAGE)]
    return "\n".join([f"{path} has {len(faults)} faults", *lines, command])


def _id_faults(ids: Counter[tuple[str, SplitName]]) -> Iterator[Fault]:
    splits_by_id: defaultdict[str, set[SplitName]] = defaultdict(set)
    for (clip_id, split), times in ids.items():
        splits_by_id[clip_id].add(split)
        if times > 1:
            problem = f'id "{clip_id}" is listed {times} times'
            yield Fault(f'split "{split}"', problem, "Every clip needs an id of its own.")
    for clip_id, splits in splits_by_id.items():
        if len(splits) > 1:
            listed = " and ".join(f'"{split}"' for split in SPLITS if split in splits)
            problem = f'id "{clip_id}" is in more than one'
            yield Fault(f"splits {listed}", problem, "A clip belongs to one split only.")


def _feature_faults(clip: Clip, where: str, widths: dict[Modality, int]) -> Iterator[Fault]:
    """Check the features of a clip; ``widths`` keeps the width that each modality began with."""
    if not clip.features:
        problem = "it has no steps in any modality"
        yield Fault(where, problem, "A clip needs one step of one modality at least.")
    for modality, steps in clip.features.items():
        if steps.ndim != 2:
            problem = f"{modality} has shape {list(steps.shape)}"
            yield Fault(where, problem, "Features must be 2-D [steps, width].")
            continue
        width = widths.setdefault(modality, steps.shape[1])
        if steps.shape[1] != width:
            problem = f"{modality} is {steps.shape[1]} wide, {width} in the clips before it"
            yield Fault(where, problem, "A modality must have one width throughout the corpus.")
        if len(steps) == 0:
            problem = f"{modality} has no steps"
            yield Fault(where, problem, "Leave an absent modality out; a present one has steps.")
        not_finite = int((~np.isfinite(steps)).sum())
        if not_finite:
            problem = f"{modality} holds {not_finite} values that are not finite"
            yield Fault(where, problem, "Features must be finite; convert the source file again.")


def _label_faults(clip: Clip, where: str, task: Task) -> Iterator[Fault]:
    labels = {"label": clip.label}
    if task.kind == "regression":
        labels |= {f"{m} label": score for m, score in (clip.modality_labels or {}).items()}
    for name, label in labels.items():
        if label is None:
            continue
        fits, expected = _label_rule(label, task)
        if not fits:
            shown = f"({', '.join(map(str, label))})" if isinstance(label, tuple) else f"{label:g}"
            yield Fault(where, f"{name} is {shown}", expected)


def _label_rule(label: float | int | tuple[int, ...], task: Task) -> tuple[bool, str]:
    """Tell whether a known label fits the task, and by which rule."""
    count = len(task.names)
    if task.kind == "emotions":
        fits = isinstance(label, tuple) and len(label) == count and set(label) <= {0, 1}
        return fits, f"A label must be {count} judgements, each 0 or 1."
    number = np.nan if isinstance(label, tuple) else label
    if task.kind == "classes":
        fits = 0 <= number < count and number == int(number)
        return fits, f"A label must be a whole number from 0 to {count - 1}."
    low, high = task.score_range or (0.0, 0.0)
    fits = low - RANGE_TOLERANCE <= number <= high + RANGE_TOLERANCE
    rule = f"A label must be a number from {low:g} to {high:g}"
    return fits, f"{rule} (of another range: convert with --label-range LOW HIGH)."
