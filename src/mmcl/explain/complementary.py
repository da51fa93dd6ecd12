"""What the complementary features hold that nothing else does.

Conditional probes ask what one modality's complementary features add to a linear model that
already has the common parts and those of the other modalities. Centred kernel alignment asks
how alike two modalities' features are: the common parts should be, the complementary ones
should not. Histograms show what the policies keep, and where the truth is planted the
contributions are held against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mmcl.corpus.batches import batch_rows, collate, labelled_rows, move_batch
from mmcl.corpus.schema import Task
from mmcl.corpus.store import Split
from mmcl.errors import ShapeError
from mmcl.evaluation.moments import Moments
from mmcl.evaluation.planted import role_metrics
from mmcl.evaluation.references import reference_scores
from mmcl.evaluation.summary import summarise_seeds
from mmcl.explain.curves import Estimate, paired_bootstrap, real_steps
from mmcl.learning.inference import Scored
from mmcl.models.mmcl import MMCL
from mmcl.types import Modality

__all__ = [
    "BINS",
    "Labelled",
    "Pooled",
    "Probe",
    "action_distribution",
    "label_groups",
    "labelled",
    "linear_cka",
    "planted_answers",
    "pool",
    "probes",
    "redundancy",
]

BINS = 10
PERMUTATIONS = 20
"""Orders of the clips whose alignment is averaged: what two unrelated features come to."""


class Pooled(NamedTuple):
    """What a network fuses, clip by clip.

    Attributes:
        common: Pooled common part of every modality after attention, float64 ``[m, clips, d]``.
        complementary: Pooled specific part under the actions, ``[m, clips, d]``.
        present: Whether the clip has the modality, bool ``[m, clips]``.
    """

    common: NDArray[np.float64]
    complementary: NDArray[np.float64]
    present: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Pooled:
        """The same of some clips."""
        return Pooled(self.common[:, rows], self.complementary[:, rows], self.present[:, rows])


Labelled = tuple[Pooled, NDArray[Any]]
"""Features of labelled clips, and their labels."""


class Probe(NamedTuple):
    """Scores of a linear model without and with one modality's complementary features.

    Attributes:
        without: R², or accuracy (a mean over emotions), mean over seeds.
        increment: What the features add to it, mean over seeds; clips are resampled.
    """

    without: float
    increment: Estimate


def pool(model: MMCL, split: Split, *, batch_size: int = 256) -> Pooled:
    """Run a network over a split and keep what it fuses.

    Args:
        model: The network, in evaluation mode.
        split: At least one clip; labels are not looked at.
        batch_size: Clips per step.
    """
    held = [m for m in model.modalities if m in split.card.dims]
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch = move_batch(collate(split, rows, held, keep_missing=model.released), device)
            output = model(batch.features, batch.masks)
            encoded = output.encoded
            parts.append((encoded.enhanced, output.complementary, encoded.present))
    joined = [torch.cat(each, dim=1).double().cpu().numpy() for each in zip(*parts, strict=True)]
    return Pooled(joined[0], joined[1], joined[2] > 0)


# ---------------------------------------------------------------- probes


def probes(
    task: Task,
    modalities: Sequence[Modality],
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    valid: Sequence[Labelled] | None = None,
) -> dict[Modality, Probe]:
    """What each modality's complementary features add to a linear model that has the rest.

    The rest is the common part of every modality and the complementary features of all
    others. The linear model is ridge regression, or logistic regression for classes and for
    each emotion.

    Args:
        task: What is predicted.
        modalities: In the order of the features.
        train: Per seed, features and labels to fit on.
        test: Per seed, features and labels of the same labelled clips.
        valid: Per seed, features and labels to choose the penalty on; without them it is
            chosen on the training clips, or left at its default.

    Returns:
        By modality. An increment above 0 says that its complementary features tell something
        linear that none of the others do.

    Raises:
        DatasetError: If no training clip has a label.
    """
    seeds = range(len(train))

    def losses(without: int | None) -> NDArray[np.float64]:
        """Of the model without one modality's features, or with all: ``[seeds, clips]``."""
        each = [(train[s], test[s], None if valid is None else valid[s]) for s in seeds]
        return np.array([_probe_losses(task, *parts, without=without) for parts in each])

    whole, truth = losses(None), test[0][1]
    return {m: _probe(task, losses(at), whole, truth) for at, m in enumerate(modalities)}


def _probe_losses(
    task: Task, train: Labelled, test: Labelled, valid: Labelled | None, *, without: int | None
) -> NDArray[np.float64]:
    """Fit one linear model and return its loss on each test clip, ``[clips]``.

    On one thread: the matrices are small, and on a busy machine the threads of the linear
    algebra wait for each other, five times as long as the work takes.
    """
    with threadpool_limits(1, user_api="blas"):
        fitted = reference_scores(
            task,
            _columns(train[0], without),
            train[1],
            _columns(test[0], without),
            valid_features=None if valid is None else _columns(valid[0], without),
            valid_truth=None if valid is None else valid[1],
        )
    return _losses(task, fitted["ridge"].scores, test[1])


def _columns(pooled: Pooled, without: int | None) -> NDArray[np.float64]:
    """Features of a probe, ``[clips, f]``."""
    kept = [k for k in range(len(pooled.common)) if k != without]
    return np.concatenate([*pooled.common, *pooled.complementary[kept]], axis=1)


def _losses(task: Task, scores: NDArray[np.float64], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Squared error of each clip, or its share of wrong answers, ``[clips]``."""
    if task.kind == "regression":
        squared: NDArray[np.float64] = (scores - truth) ** 2
        return squared
    wrong = np.asarray(scores.argmax(axis=-1) != truth, dtype=np.float64)
    return np.asarray(wrong.reshape(len(truth), -1).mean(axis=1))


def _probe(
    task: Task, without: NDArray[np.float64], with_it: NDArray[np.float64], truth: NDArray[Any]
) -> Probe:
    """Shapes: losses ``[seeds, clips]``."""
    gains = (without - with_it).mean(axis=0)
    if task.kind != "regression":
        return Probe(float(1 - without.mean()), paired_bootstrap(gains))
    variance = float(truth.var())
    explained = 1 - float(without.mean()) / variance if variance > 0 else math.nan
    return Probe(explained, paired_bootstrap(gains, truth=truth))


# ---------------------------------------------------------------- redundancy


def linear_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Linear centred kernel alignment: how alike two sets of features order the clips.

    Rotating, scaling or shifting either set changes nothing, and neither does shuffling the
    clips of both.

    Args:
        x: ``[clips, d]``, any unit.
        y: The same clips, ``[clips, d']``.

    Returns:
        0 (nothing linear in common) to 1 (equal up to rotation and scale); nan where a set
        is constant or empty. Few clips and many features raise it also where nothing is
        shared: read it beside its value for shuffled clips.

    Raises:
        ShapeError: If the sets differ in the number of clips.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414).

    Example:
        >>> x = np.array([[0.0], [1.0], [4.0]])
        >>> round(linear_cka(x, 3.0 - 2.0 * x), 6)
        1.0
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ShapeError(
            f"x and y must be 2-D [clips, features] of the same clips, "
            f"got {list(x.shape)} and {list(y.shape)}"
        )
    if not len(x):
        return math.nan
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size > 0 else math.nan


def redundancy(
    modalities: Sequence[Modality], pooled: Sequence[Pooled], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Alignment of each pair of modalities, of their common and of their complementary parts.

    Args:
        modalities: In the order of the features.
        pooled: Per seed of the run; clips that lack one of a pair are left out of it.
        seed: Of the permutations.

    Returns:
        A row per pair: ``pair``, and for ``common`` and ``complementary`` the ``value`` and
        its ``floor``, the mean where the clips of one modality are shuffled; means over
        seeds, None where they are undefined.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for first, second in itertools.combinations(range(len(modalities)), 2):
        row: dict[str, Any] = {"pair": [modalities[first], modalities[second]]}
        for part in ("common", "complementary"):
            pairs = [_both(each, part, first, second) for each in pooled]
            values = [linear_cka(x, y) for x, y in pairs]
            floors = [
                linear_cka(x, y[rng.permutation(len(y))])
                for x, y in pairs
                for _ in range(PERMUTATIONS)
            ]
            row[part] = {"value": _mean(values), "floor": _mean(floors)}
        rows.append(row)
    return rows


def _both(
    pooled: Pooled, part: str, first: int, second: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features = getattr(pooled, part)
    both = pooled.present[first] & pooled.present[second]
    return features[first][both], features[second][both]


def _mean(values: Sequence[float]) -> float | None:
    mean = float(np.mean(values))
    return mean if math.isfinite(mean) else None


# ---------------------------------------------------------------- actions


def label_groups(split: Split) -> dict[str, NDArray[np.bool_]]:
    """Clips by what their label says, bool ``[clips]`` by name; a group may be empty.

    All clips; then the sign of a score (``negative``, ``zero``, ``positive``), the classes,
    or the emotions held. A clip without a label is in ``all`` alone.
    """
    task, labels = split.card.task, split.labels()
    groups = {"all": np.ones(len(split), dtype=np.bool_)}
    if task.kind == "regression":
        return groups | {"negative": labels < 0, "zero": labels == 0, "positive": labels > 0}
    if task.kind == "classes":
        return groups | {name: labels == at for at, name in enumerate(task.names)}
    return groups | {name: labels[:, at] == 1 for at, name in enumerate(task.names)}


def action_distribution(
    models: Sequence[MMCL], scored: Sequence[Scored], split: Split
) -> dict[str, dict[Modality, dict[str, Any]]]:
    """What the policies keep, per group of clips and modality, over all seeds.

    Args:
        models: Networks of one run.
        scored: What each made of the split.
        split: The clips.

    Returns:
        By group (see :func:`label_groups`; empty ones left out) and modality: ``steps``, how
        many real ones there are; ``histogram``, the share of their keep probabilities in each
        of ten equal bins of 0..1, the last with its upper end; ``mean_keep_probability``; and
        ``kept_share``, the mean action. A modality without a step is left out.
    """
    real = real_steps(models[0], split)
    found: dict[str, dict[Modality, dict[str, Any]]] = {}
    for name, held in label_groups(split).items():
        rows = np.flatnonzero(held).tolist()
        by_modality = {
            m: _distribution(
                _steps_of([each.keep_probability for each in scored], real, rows, at),
                _steps_of([each.actions for each in scored], real, rows, at),
                sum(int(real[row][at].sum()) for row in rows),
            )
            for at, m in enumerate(models[0].modalities)
            if any(real[row][at].any() for row in rows)
        }
        if by_modality:
            found[name] = by_modality
    return found


def _steps_of(
    values: Sequence[Sequence[NDArray[np.float32]]],
    real: Sequence[NDArray[np.bool_]],
    rows: Sequence[int],
    at: int,
) -> NDArray[np.float64]:
    """Values of a modality's real steps in some clips, all seeds one after the other."""
    parts = [each[row][at, : real[row].shape[1]][real[row][at]] for each in values for row in rows]
    return np.concatenate(parts).astype(np.float64)


def _distribution(
    keep: NDArray[np.float64], actions: NDArray[np.float64], steps: int
) -> dict[str, Any]:
    counts, _ = np.histogram(keep, bins=BINS, range=(0.0, 1.0))
    return {
        "steps": steps,
        "histogram": (counts / len(keep)).tolist(),
        "mean_keep_probability": float(keep.mean()),
        "kept_share": float(actions.mean()),
    }


# ---------------------------------------------------------------- the planted truth


def planted_answers(
    models: Sequence[MMCL],
    scored: Sequence[Scored],
    split: Split,
    moments: Mapping[str, Moments],
) -> dict[str, Any] | None:
    """How much of what a run says is true; None where no truth is planted.

    Args:
        models: Networks of one run.
        scored: What each made of the split.
        split: The clips.
        moments: Of some of its clips, by id.

    Returns:
        ``common_auroc`` and ``action_auroc`` as summaries over seeds; and for scores
        ``share``: by modality the ``correlation`` of its contribution (how far the prediction
        moves without it) with what it was planted to add of its own, and ``right_sign``, the
        share of clips in which both have the same sign. A modality's contribution holds its
        part of what is common too, so that even a perfect network stays below 1.
    """
    metrics = [
        role_metrics(split, each, model.modalities)
        for model, each in zip(models, scored, strict=True)
    ]
    if not metrics[0]:
        return None
    answers: dict[str, Any] = {k: s.as_dict() for k, s in summarise_seeds(metrics).items()}
    if split.card.task.kind == "regression":
        rows = [row for row, name in enumerate(split.ids) if name in moments]
        planted = [dict(split.table.column("planted")[row].as_py()) for row in rows]
        ids = split.ids
        answers["share"] = {
            m: _rightness(
                np.array([moments[ids[row]].share[m] for row in rows]),
                np.array([each[m] for each in planted]),
            )
            for m in models[0].modalities
            if m not in models[0].never_seen
        }
    return answers


def _rightness(share: NDArray[np.float64], planted: NDArray[np.float64]) -> dict[str, Any]:
    spread = share.std() > 0 and planted.std() > 0
    return {
        "correlation": float(np.corrcoef(share, planted)[0, 1]) if spread else None,
        "right_sign": float((np.sign(share) == np.sign(planted)).mean()),
    }


def labelled(split: Split, pooled: Pooled) -> tuple[Pooled, NDArray[Any]]:
    """Features and labels of the clips whose label is known."""
    rows = labelled_rows(split)
    return pooled.take(rows), split.labels()[rows]
