"""Choice of the labels to take from a foreign file, and of the range they must lie in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmcl.corpus.known_corpora import KnownCorpus
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit
from mmcl.corpus.schema import Task
from mmcl.errors import DatasetError
from mmcl.types import TaskKind

__all__ = ["ReadOptions", "choose_task"]

RANGES = ((-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0))
# Three classes beside a score are its sign (MMSA); more are a task of their own.
FEWEST_CLASSES_OF_THEIR_OWN = 4


def choose_task(
    source: SourceFile, path: Path, known: KnownCorpus | None, options: ReadOptions
) -> tuple[Task, tuple[str, ...]]:
    """Choose the task of a foreign file; return it with notes for the user.

    The user's choice comes first, then the usual task of the known corpus, then the labels
    of the file: emotions, four classes or more, scores, fewer classes.

    Raises:
        DatasetError: If the file has no labels of the kind that was asked for.
    """
    kinds = {kind for split in source.splits for kind in split.labels}
    if options.task is not None and kinds and options.task not in kinds:
        raise DatasetError(
            f'{path}: no labels for the task "{options.task}".\n'
            f"  Its labels are: {', '.join(sorted(kinds))}.\n"
            f"  Take one of these: mmcl corpus convert {path} DST --task {min(kinds)}"
        )
    kind = options.task or _usual_kind(source, known, kinds)
    if kind != "regression":
        return Task(kind=kind, names=_names(source, known, kind)), ()
    bounds = options.label_range
    if bounds is None and known is not None:
        bounds = known.score_range or known.task.score_range
    if bounds is not None:
        return Task(kind=kind, low=bounds[0], high=bounds[1]), ()
    low, high, evidence = _inferred_range(source.splits)
    note = f"label range {low:g}..{high:g} inferred from {evidence}"
    return Task(kind=kind, low=low, high=high), (note,)


def _usual_kind(source: SourceFile, known: KnownCorpus | None, kinds: set[TaskKind]) -> TaskKind:
    if known is not None and (known.task.kind in kinds or not kinds):
        return known.task.kind
    if "emotions" in kinds:
        return "emotions"
    has_own_classes = len(_names(source, known, "classes")) >= FEWEST_CLASSES_OF_THEIR_OWN
    if "classes" in kinds and (has_own_classes or "regression" not in kinds):
        return "classes"
    return "regression"


def _names(source: SourceFile, known: KnownCorpus | None, kind: TaskKind) -> tuple[str, ...]:
    """Return class or emotion names: the file's, the known corpus's, or numbered ones."""
    names = source.names.get(kind, ())
    if not names and known is not None and known.task.kind == kind:
        names = known.task.names
    labels = [split.labels[kind] for split in source.splits if kind in split.labels]
    if kind == "classes":
        count = max(2, int(_highest(labels)) + 1)
        return names or tuple(f"class_{index}" for index in range(count))
    count = labels[0].shape[1] if labels else max(1, len(names))
    return names if len(names) == count else tuple(f"emotion_{index}" for index in range(count))


def _highest(parts: Iterable[np.ndarray]) -> float:
    finite = [part[np.isfinite(part)] for part in parts]
    return max((float(part.max()) for part in finite if part.size), default=0.0)


def _inferred_range(splits: list[SourceSplit]) -> tuple[float, float, str]:
    """Return the smallest usual range that holds the training labels, or else the widest."""
    labelled = [split for split in splits if "regression" in split.labels]
    if not labelled:
        return *RANGES[-1], "nothing: the file has no labels"
    training = [split for split in labelled if split.name == "train"]
    evidence = "the training split" if training else "every split, since none is for training"
    largest = _highest(np.abs(split.labels["regression"]) for split in training or labelled)
    low, high = next((bounds for bounds in RANGES if largest <= bounds[1]), RANGES[-1])
    return low, high, evidence
