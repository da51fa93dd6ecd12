"""Which of a file's labels are taken, and in which range they must lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcl.corpus.cards import KnownCorpus
from mmcl.corpus.readers.foreign import Foreign, ForeignSplit
from mmcl.corpus.schema import Task
from mmcl.errors import DatasetError
from mmcl.types import TaskKind

__all__ = ["TaskChoice", "choose_task"]

RANGES = ((-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0))
# Three classes beside a score are its sign (MMSA); more are a task of their own.
FEWEST_CLASSES_OF_THEIR_OWN = 4


class TaskChoice(NamedTuple):
    """The task of a corpus, and what a user should know about how it was chosen."""

    task: Task
    notes: tuple[str, ...] = ()


def choose_task(
    foreign: Foreign,
    path: Path,
    known: KnownCorpus | None,
    *,
    wanted: TaskKind | None,
    label_range: tuple[float, float] | None,
) -> TaskChoice:
    """Choose the task of a foreign file.

    What was asked for comes first, then what the corpus of that name is known for, then
    what the file has: emotions, four classes or more, scores, fewer classes.

    Raises:
        DatasetError: If the file has no labels of the kind that was asked for.
    """
    offered = {kind for split in foreign.splits for kind in split.labels}
    if wanted is not None and offered and wanted not in offered:
        listed = ", ".join(sorted(offered))
        raise DatasetError(
            f'{path}: no labels for the task "{wanted}".\n'
            f"  Its labels are: {listed}.\n"
            f"  Take one of these: mmcl corpus convert {path} DST --task {min(offered)}"
        )
    kind = wanted or _usual_kind(foreign, known, offered)
    if kind == "classes":
        return TaskChoice(Task(kind=kind, names=_class_names(foreign, known)))
    if kind == "emotions":
        return TaskChoice(Task(kind=kind, names=_emotion_names(foreign, known)))
    return _score_task(foreign, known, label_range)


def _usual_kind(foreign: Foreign, known: KnownCorpus | None, offered: set[TaskKind]) -> TaskKind:
    if known is not None and (known.task.kind in offered or not offered):
        return known.task.kind
    if "emotions" in offered:
        return "emotions"
    enough = len(_class_names(foreign, known)) >= FEWEST_CLASSES_OF_THEIR_OWN
    if "classes" in offered and (enough or "regression" not in offered):
        return "classes"
    return "regression"


def _class_names(foreign: Foreign, known: KnownCorpus | None) -> tuple[str, ...]:
    if "classes" in foreign.names:
        return foreign.names["classes"]
    if known is not None and known.task.kind == "classes":
        return known.task.names
    highest = _highest(split.labels.get("classes") for split in foreign.splits)
    return tuple(f"class_{index}" for index in range(max(2, int(highest) + 1)))


def _emotion_names(foreign: Foreign, known: KnownCorpus | None) -> tuple[str, ...]:
    width = next(
        (s.labels["emotions"].shape[1] for s in foreign.splits if "emotions" in s.labels), None
    )
    named = foreign.names.get("emotions", ())
    if not named and known is not None and known.task.kind == "emotions":
        named = known.task.names
    if named and width in (None, len(named)):
        return named
    return tuple(f"emotion_{index}" for index in range(width or 1))


def _highest(parts: Iterable[np.ndarray | None]) -> float:
    finite = [part[np.isfinite(part)] for part in parts if part is not None]
    return max((float(part.max()) for part in finite if part.size), default=0.0)


def _score_task(
    foreign: Foreign, known: KnownCorpus | None, label_range: tuple[float, float] | None
) -> TaskChoice:
    of_known = None
    if known is not None:
        task = known.task
        bounds = None if task.low is None or task.high is None else (task.low, task.high)
        of_known = known.score_range or bounds
    given = label_range or of_known
    if given is not None:
        return TaskChoice(Task(kind="regression", low=given[0], high=given[1]))
    low, high, where = _inferred_range(foreign.splits)
    note = f"label range {low:g}..{high:g} inferred from {where}"
    return TaskChoice(Task(kind="regression", low=low, high=high), (note,))


def _inferred_range(splits: list[ForeignSplit]) -> tuple[float, float, str]:
    """The smallest usual range that holds the training labels; the widest where none does."""
    labelled = [split for split in splits if "regression" in split.labels]
    if not labelled:
        return *RANGES[-1], "nothing: the file has no labels"
    training = [split for split in labelled if split.name == "train"]
    where = "the training split" if training else "every split, since none is for training"
    largest = _highest(np.abs(split.labels["regression"]) for split in training or labelled)
    for low, high in RANGES:
        if largest <= high:
            return low, high, where
    return *RANGES[-1], where
