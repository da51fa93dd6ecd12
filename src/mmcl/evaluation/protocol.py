"""The protocol of scoring, and the only door to the test split.

A learner chooses a network on validation data alone. Here the network is scored once on the
validation and once on the test split, with the same code. Outside ``corpus/`` no other module
asks a corpus for its test clips; a test of this project reads the sources to prove it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.schema import Task
from mmcl.corpus.store import Corpus, Split
from mmcl.evaluation.metrics import Metrics, task_metrics
from mmcl.evaluation.planted import role_metrics
from mmcl.evaluation.references import Reference, reference_scores
from mmcl.learning.inference import Scored, score_split
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = [
    "JUDGED",
    "Judged",
    "JudgedSplit",
    "answers",
    "judge",
    "judged_split",
    "pooled_features",
    "prediction_table",
    "reference_metrics",
    "reference_notes",
    "reference_predictions",
]

JudgedSplit = Literal["valid", "test"]
"""A split that is scored."""
JUDGED: tuple[JudgedSplit, ...] = ("valid", "test")
"""The splits that are scored, in the order of reports."""
MOST_VALUES_FOR_REFERENCES = 1 << 24
"""Most clips times features to fit the reference rows on: fitting takes several times the
128 MiB that these are."""

_FITTED: WeakKeyDictionary[Corpus, dict[str, dict[str, Reference]]] = WeakKeyDictionary()


class Judged(NamedTuple):
    """Clips of a split, a network's output for each, and the metrics (with AUROCs if planted)."""

    split: Split
    scored: Scored
    metrics: Metrics


def judged_split(corpus: Corpus, name: JudgedSplit) -> Split:
    """Return the validation or the test split, for scoring."""
    return corpus.open_test_split() if name == "test" else corpus.split("valid")


def judge(
    model: Network, corpus: Corpus, name: JudgedSplit, *, preset: str, batch_size: int
) -> Judged:
    """Score a network, already chosen, on a split; clips without a label do not count.

    ``preset`` defines the regression metrics, ``batch_size`` is in clips per step.
    """
    split = judged_split(corpus, name)
    scored = score_split(model, split, batch_size=batch_size)
    metrics = task_metrics(corpus.card.task, split.labels(), scored.scores, preset=preset)
    if scored.actions:
        metrics.values.update(role_metrics(split, scored, model.modalities))
    return Judged(split, scored, metrics)


def reference_metrics(corpus: Corpus, name: JudgedSplit, *, preset: str) -> dict[str, Metrics]:
    """Score constant, majority and ridge, the rows that every result carries, on the same clips.

    Ridge (logistic regression for classes and emotions) sees the mean over time of every
    modality; its penalty is chosen on the validation split.
    """
    labels = judged_split(corpus, name).labels()
    rows = {}
    for row, reference in reference_predictions(corpus, name).items():
        metrics = task_metrics(corpus.card.task, labels, reference.scores, preset=preset)
        rows[row] = metrics._replace(warnings=reference.warnings + metrics.warnings)
    return rows


def reference_predictions(corpus: Corpus, name: JudgedSplit) -> dict[str, Reference]:
    """Return the scores behind :func:`reference_metrics`, without looking at the split's labels."""
    # Fitted once per corpus: a comparison asks for them with every row.
    fitted = _FITTED.setdefault(corpus, {})
    if name not in fitted:
        train, valid = corpus.split("train"), corpus.split("valid")
        rows = _rows_for_references(train)
        with threadpool_limits(1, user_api="blas"):  # threads wait for each other here
            fitted[name] = reference_scores(
                corpus.card.task,
                pooled_features(train, rows=rows),
                train.labels()[rows],
                pooled_features(judged_split(corpus, name)),
                valid_features=pooled_features(valid),
                valid_truth=valid.labels(),
            )
        if not train.modalities:  # there is nothing that a regression could be fitted on
            del fitted[name]["ridge"]
    return fitted[name]


def reference_notes(corpus: Corpus) -> list[str]:
    """Say so if the reference rows are fitted on fewer than all training clips."""
    train = corpus.split("train")
    fitted, labelled = len(_rows_for_references(train)), len(labelled_rows(train))
    if not train.modalities:
        return ["no row ridge: the corpus has words and no features"]
    if fitted == labelled:
        return []
    return [
        f"the reference rows are fitted on {fitted:,} of {labelled:,} training clips, evenly spaced"
    ]


def _rows_for_references(train: Split) -> NDArray[np.int64]:
    """Return all labelled training clips, or as many as can be fitted on, evenly spaced."""
    rows = labelled_rows(train)
    num_features = max(1, sum(train.card.dims[modality] for modality in train.modalities))
    limit = max(1, MOST_VALUES_FOR_REFERENCES // num_features)
    return rows if len(rows) <= limit else rows[np.arange(limit) * len(rows) // limit]


def pooled_features(
    split: Split,
    modalities: Sequence[Modality] | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return the mean over time of every modality, side by side: float64 ``[clips, sum of d_m]``.

    Missing steps do not count, and an absent modality is zeros. By default all clips (``rows``)
    and the split's own modalities are taken.
    """
    rows = np.arange(len(split)) if rows is None else rows
    columns = []
    for modality in modalities or split.modalities:
        pooled = np.zeros((len(rows), split.card.dims[modality]))
        for index in np.flatnonzero(split.lengths(modality)[rows]):
            steps = split.steps(modality, int(rows[index]))
            # In such a corpus a step of zeros is a missing one.
            if split.card.missing_as_zero and steps.any():
                steps = steps[steps.any(axis=1)]
            pooled[index] = steps.mean(axis=0, dtype=np.float64)
        columns.append(pooled)
    # A corpus of text alone has no features: one column that tells nothing.
    return np.concatenate(columns or [np.zeros((len(rows), 1))], axis=1)


def answers(task: Task, scores: NDArray[np.float64]) -> list[Any]:
    """Turn scores into answers: a number, a class index, or 0/1 per emotion."""
    if task.kind == "regression":
        return [float(score) for score in scores]
    if task.kind == "classes":
        return [int(choice) for choice in scores.argmax(axis=-1)]
    return [[int(held) for held in clip] for clip in scores.argmax(axis=-1)]


def prediction_table(judged: Judged, seed: int) -> pa.Table:
    """Return a row per clip: seed, id, split, truth (null if unknown), prediction, raw scores."""
    task = judged.split.card.task
    scores = judged.scored.scores
    kind = {"regression": pa.float64(), "classes": pa.int64()}.get(task.kind, pa.list_(pa.int64()))
    # Without a truth: nan, -1, or a -1 among the emotions.
    unknown = np.isnan if task.kind == "regression" else lambda value: np.min(value) < 0
    truth = [None if unknown(value) else value for value in judged.split.labels().tolist()]
    count = len(judged.split)
    return pa.table(
        {
            "seed": pa.array([seed] * count, pa.int64()),
            "id": pa.array(judged.split.ids, pa.string()),
            "split": pa.array([judged.split.name] * count, pa.string()),
            "truth": pa.array(truth, kind),
            "prediction": pa.array(answers(task, scores), kind),
            "scores": pa.array(scores.reshape(count, -1).tolist(), pa.list_(pa.float64())),
        }
    )
