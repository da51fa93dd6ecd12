"""Choice of the labels to take from a foreign file, and of the range they must lie in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.known_corpora import KnownCorpus
from mmcl.corpus.readers.label_columns import LabelColumn, label_columns
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import LAYOUTS, SourceFile
from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE
from mmcl.errors import DatasetError
from mmcl.limits import limit
from mmcl.types import SplitName, TaskKind

__all__ = ["Chosen", "choose_task"]

# Highest scores of the usual ranges about 0, and of those without negative scores.
SYMMETRIC = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 50.0, 100.0)
FROM_ONE = (5.0, 7.0, 9.0, 10.0)
FROM_ZERO = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 100.0)
# Three classes beside a score are its sign (MMSA); more are a task of their own.
FEWEST_CLASSES_OF_THEIR_OWN = 4
ENOUGH = 20  # training labels of which one would be negative in a corpus with negative labels

_Labels = dict[SplitName, NDArray[np.float64]]


class Chosen(NamedTuple):
    """The task of a foreign file, and its labels for that task.

    Attributes:
        task: What is predicted.
        labels: By split, for the task: scores or class numbers ``[clips]``, or judgements
            ``[clips, emotions]``. What fits no class stays for the checks.
        unlabelled: Clips whose label is unknown, by split, ``[clips]``.
        field: The field they were taken from; None without labels.
        notes: What could be wrong, with the option that settles it.
    """

    task: Task
    labels: _Labels
    unlabelled: dict[SplitName, NDArray[np.bool_]]
    field: str | None
    notes: tuple[str, ...]


def choose_task(
    source: SourceFile,
    path: Path,
    known: KnownCorpus | None,
    options: ReadOptions,
    *,
    is_known_release: bool = False,
) -> Chosen:
    """Choose the task of a foreign file by the user's choice, or by looking at its labels.

    Without a choice: scores if their range was given; else the usual task of a known corpus,
    emotions, four classes or more, scores, fewer classes, in this order.

    Args:
        source: The file.
        path: Its path, for messages.
        known: The published corpus of its name.
        options: Choices of the user.
        is_known_release: Whether the file's sizes are those of the published corpus.

    Raises:
        DatasetError: If the file has no labels of the kind that was asked for, or their range
            cannot be told.
    """
    columns = label_columns(source, path)
    if not columns:
        return _without_labels(known, path, options)
    kind = options.task or _usual_kind(columns, known)
    if (
        options.task is None
        and options.label_range
        and any("regression" in c.kinds for c in columns)
    ):
        kind = "regression"  # only scores have a range
    column = _column_of(kind, columns, path)
    notes = _doubts(column, columns, kind, options)
    field = column.field
    unlabelled = {s.name: s.unlabelled[field] for s in source.splits if field in s.unlabelled}
    if kind == "regression":
        labels = {name: values.astype(np.float64) for name, values in column.values.items()}
        low, high, note = _score_range(source, labels, known, options, path)
        task = Task(kind=kind, low=low, high=high)
        return Chosen(task, labels, unlabelled, field, (*notes, *note))
    names = source.names
    if names:
        _check_names(names, column, kind, path)
    elif known is not None and known.task.kind == kind and is_known_release:
        # Fewer classes than the published corpus has may be other ones.
        names = known.task.names if _num_classes(column) >= len(known.task.names) else ()
    if kind == "classes":
        names = names or _annotated_names(column, columns)
        task, labels = _classes(column, names, path)
        is_numbered = not _is_text(column.joined) and column.joined.ndim == 1
        if is_numbered and task.names[0] not in (*names, "class_0"):
            hint = " (of a label that is unknown, write None)" if task.names[0] == "-1" else ""
            numbers = ", ".join(task.names)
            notes = (*notes, f"{field}: the classes are the numbers {numbers}{hint}")
    else:
        task, labels = _emotions(column, names)
    _check_number(task, names, field, path)
    return Chosen(task, labels, unlabelled, field, notes)


def _check_names(names: tuple[str, ...], column: LabelColumn, kind: TaskKind, path: Path) -> None:
    """Refuse names in the file that are fewer than its classes, or not as many as its emotions."""
    if _is_text(column.joined):
        return
    is_one = column.joined.ndim == 1
    count = 1 if is_one and kind == "emotions" else _num_classes(column)
    if count == len(names) or (is_one and kind == "classes" and count < len(names)):
        return
    raise DatasetError(
        f'{path}, field "{column.field}" holds {count} classes or emotions, but "names" has '
        f"{len(names)}: {', '.join(names)}.\n"
        f"  Expected a name for each, in the order of the labels.\n  {LAYOUTS}"
    )


def _without_labels(known: KnownCorpus | None, path: Path, options: ReadOptions) -> Chosen:
    """Return the task of a file without labels: that of the known corpus, else scores."""
    if (
        options.label_range is None
        and known is not None
        and options.task in (None, known.task.kind)
    ):
        return Chosen(known.task, {}, {}, None, ())
    if options.task in ("classes", "emotions"):
        raise DatasetError(
            f"{path}: no labels, so that the {options.task} are not known.\n"
            "  Expected a field of labels, or no --task"
        )
    low, high = options.label_range or FIELD_RANGE
    notes = (f"label range {low:g}..{high:g} inferred from nothing: the file has no labels",)
    task = Task(kind="regression", low=low, high=high)
    return Chosen(task, {}, {}, None, () if options.label_range else notes)


def _usual_kind(columns: list[LabelColumn], known: KnownCorpus | None) -> TaskKind:
    """Choose among the likeliest kinds of all fields."""
    guesses = {column.kinds[0]: column for column in columns if column.field != "annotations"}
    if known is not None and known.task.kind in guesses:
        return known.task.kind
    if "emotions" in guesses:
        return "emotions"
    classes = guesses.get("classes")
    if classes is not None and _num_classes(classes) >= FEWEST_CLASSES_OF_THEIR_OWN:
        return "classes"
    return "regression" if "regression" in guesses else "classes"


def _num_classes(column: LabelColumn) -> int:
    """Count the classes or emotions of a field, classes by their highest number."""
    joined = column.joined
    if joined.ndim > 1:
        return int(joined.shape[1])
    if joined.dtype.kind == "U":
        return len(set(joined.tolist()) - {""})
    numbers = joined.astype(np.float64)
    return int(numbers[np.isfinite(numbers)].max(initial=0)) + 1


def _column_of(kind: TaskKind, columns: list[LabelColumn], path: Path) -> LabelColumn:
    """Return the field whose labels are most likely of a kind."""
    able = [column for column in columns if kind in column.kinds]
    if able:
        return min(able, key=lambda column: column.kinds.index(kind))
    shown = [f"{c.field}, {c.looks}: {' or '.join(c.kinds)}" for c in columns]
    raise DatasetError(
        f'{path}: no labels for the task "{kind}".\n'
        f"  Its labels are: {'; '.join(shown)}.\n"
        f"  Take one of these: mmcl corpus convert {path} DST --task {columns[0].kinds[0]}"
    )


def _doubts(
    column: LabelColumn, columns: list[LabelColumn], kind: TaskKind, options: ReadOptions
) -> tuple[str, ...]:
    """Say what else could be predicted, where the user did not choose."""
    others: list[TaskKind] = [k for k in column.kinds if k not in (kind, "emotions")]
    if column.kinds == ("classes", "emotions"):
        others = ["emotions"]
    if options.task is not None or options.label_range is not None:
        return ()
    scores = [c.field for c in columns if c.kinds[0] == "regression"]
    if kind == "classes" and scores:
        return (
            f"{column.field}: taken, since they are more than three classes; "
            f"{scores[0]} holds scores. To take these: --task regression",
        )
    if not column.reason or not others:
        return ()
    names = {"regression": "scores", "classes": "classes", "emotions": "yes or no per emotion"}
    return (
        f"{column.field}: taken as {names[kind]}, but {column.reason}; "
        f"are they {names[others[0]]}? Then: --task {others[0]}",
    )


# ---------------------------------------------------------------- scores


def _score_range(
    source: SourceFile,
    labels: _Labels,
    known: KnownCorpus | None,
    options: ReadOptions,
    path: Path,
) -> tuple[float, float, tuple[str, ...]]:
    """Return lowest and highest score, and a note where they were inferred."""
    if options.label_range is not None:
        return *options.label_range, ()
    evidence = "the training split"
    used = ["train"] if len(labels.get("train", ())) else list(labels)
    if used != ["train"]:
        evidence = "every split, since none is for training"
    parts = [values for name, values in labels.items() if name in used]
    parts += [v for s in source.splits if s.name in used for v in s.modality_labels.values()]
    scores = np.concatenate(parts)
    scores = scores[np.isfinite(scores)]
    lowest, highest = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
    of_known = (known.score_range or known.task.score_range) if known else None
    # Many labels without a negative one are hardly those of a corpus that has such.
    if of_known and (lowest < 0 or len(scores) < ENOUGH):
        return *of_known, ()
    bounds = _usual_range(lowest, highest, is_whole=bool((scores == np.floor(scores)).all()))
    if bounds is None:
        raise DatasetError(
            f"{path}: the range of the scores cannot be told; those of {evidence} lie in "
            f"{lowest:g}..{highest:g}.\n"
            "  Say what they can be: --label-range LOW HIGH"
        )
    low, high = bounds
    note = f"label range {low:g}..{high:g} inferred from {evidence}"
    if low >= 0:
        note += ", which has no negative label"
    return low, high, (f"{note}; if it is another: --label-range LOW HIGH",)


def _usual_range(lowest: float, highest: float, *, is_whole: bool) -> tuple[float, float] | None:
    """Return the smallest usual range that holds the scores, or None."""
    if lowest < 0 or lowest == highest == 0:
        largest = max(-lowest, highest)
        return next(((-bound, bound) for bound in SYMMETRIC if largest <= bound), None)
    low, bounds = (1.0, FROM_ONE) if lowest >= 1 and is_whole else (0.0, FROM_ZERO)
    if highest > bounds[-1]:
        low, bounds = 0.0, FROM_ZERO
    return next(((low, bound) for bound in bounds if highest <= bound), None)


# ---------------------------------------------------------------- classes and emotions


def _classes(column: LabelColumn, names: tuple[str, ...], path: Path) -> tuple[Task, _Labels]:
    """Number the classes from 0 and name them.

    Whole numbers from 0 stay as they are. Other numbers, and names, are numbered in their order.
    """
    joined = column.joined
    if joined.ndim == 2:
        labels = {name: _of_one_hot(rows) for name, rows in column.values.items()}
        return _named_classes(names, joined.shape[1]), labels
    found = np.unique(joined[joined != ""] if _is_text(joined) else joined[~np.isnan(joined)])
    if _counts_from_zero(found, names):
        labels = {name: values.astype(np.float64) for name, values in column.values.items()}
        return _named_classes(names, int(found.max(initial=0)) + 1), labels
    order = [value if _is_text(joined) else f"{value:g}" for value in found.tolist()]
    most = limit("MMCL_MAX_CLASSES")
    if not 2 <= len(order) <= most:
        raise DatasetError(
            f'{path}, field "{column.field}" holds {len(order)} different classes, '
            f'"{order[0]}" for example.\n  Expected 2 to {most}.\n'
            "  Look at the labels: mmcl corpus convert --help says which kinds there are"
            + f"\n  If there are so many: export MMCL_MAX_CLASSES={len(order)}"
            * (len(order) > most)
        )
    order = list(names) if set(order) <= set(names) else order
    numbers = {name: float(number) for number, name in enumerate(order)}
    labels = {
        split: np.array(
            [numbers.get(v if _is_text(joined) else f"{v:g}", np.nan) for v in values.tolist()]
        )
        for split, values in column.values.items()
    }
    return Task(kind="classes", names=tuple(order)), labels


def _check_number(task: Task, names: tuple[str, ...], field: str, path: Path) -> None:
    """Refuse more classes or emotions than the limit, unless the file names each of them."""
    most, count = limit("MMCL_MAX_CLASSES"), len(task.names)
    if count > most and not names:
        raise DatasetError(
            f'{path}, field "{field}" holds {count:,} classes or emotions without names.\n'
            f'  Expected at most {most}, or a field "names" with a name for each.\n'
            f"  If there are so many: export MMCL_MAX_CLASSES={count}"
        )


def _is_text(labels: NDArray[np.generic]) -> bool:
    return labels.dtype.kind == "U"


def _counts_from_zero(found: NDArray[np.generic], names: tuple[str, ...]) -> bool:
    """Tell whether numbers are those of classes that are counted from 0."""
    if _is_text(found):
        return False
    lowest, highest = float(found.min(initial=0)), float(found.max(initial=0))
    has_fractions = bool((found != np.floor(found)).any())
    if names:
        return True
    return ((lowest == 0 and 0 in found) or has_fractions) and 0 <= highest <= limit(
        "MMCL_MAX_CLASSES"
    )


def _named_classes(names: tuple[str, ...], count: int) -> Task:
    """Return the task of so many classes; without names they are numbered."""
    names = names or tuple(f"class_{index}" for index in range(max(2, count)))
    return Task(kind="classes", names=names)


def _of_one_hot(rows: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the place of the 1 in every row, ``[clips]``.

    A row of NaN is NaN; any other row without a single 1 is -1, which the checks report.
    """
    numbers = rows.astype(np.float64)
    is_one_hot = np.isin(numbers, (0.0, 1.0)).all(axis=1) & (numbers.sum(axis=1) == 1)
    places = np.where(is_one_hot, numbers.argmax(axis=1), -1.0)
    return np.where(np.isnan(numbers).all(axis=1), np.nan, places)


def _annotated_names(column: LabelColumn, columns: list[LabelColumn]) -> tuple[str, ...]:
    """Name class numbers after the annotations, if the two correspond one to one."""
    annotations = next((other for other in columns if other.field == "annotations"), None)
    if annotations is None or annotations is column or column.joined.ndim > 1:
        return ()
    numbers, texts = column.joined, annotations.joined
    if len(numbers) != len(texts) or not _is_text(texts) or _is_text(numbers):
        return ()
    pairs = sorted(set(zip(numbers.tolist(), texts.tolist(), strict=True)))
    names = tuple(str(text) for _, text in pairs)
    is_one_to_one = [number for number, _ in pairs] == list(range(len(set(names))))
    return names if is_one_to_one and len(names) > 1 else ()


def _emotions(column: LabelColumn, names: tuple[str, ...]) -> tuple[Task, _Labels]:
    """Return judgements of 0 or 1, ``[clips, emotions]``; NaN for anything else."""
    labels = {}
    for split, found in column.values.items():
        values = found.astype(np.float64)
        if values.ndim == 1:
            values = values[:, np.newaxis]
        if values.ndim == 3:  # one-hot pairs (no, yes)
            is_pair = np.isin(values, (0.0, 1.0)).all(axis=2) & (values.sum(axis=2) == 1)
            values = np.where(is_pair, values[:, :, 1], np.nan)
        labels[split] = values
    count = next(iter(labels.values())).shape[1]
    if len(names) != count:
        names = tuple(f"emotion_{index}" for index in range(count))
    return Task(kind="emotions", names=names), labels
