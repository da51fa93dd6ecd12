"""Measures of what the complementary features add to the common ones.

Conditional probes measure what one modality's complementary features add to a linear model that
already has the common parts and those of the other modalities. Centred kernel alignment (CKA)
measures how alike two modalities' features are: common parts should be alike, complementary
ones should not. Histograms show what the policies keep. Where the truth is planted, the
contributions are compared with it.
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

from mmcl.corpus.batches import batch_rows, labelled_rows
from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE, neutral_score
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
"""Random orders of the clips that the alignment of unrelated features is averaged over."""


class Pooled(NamedTuple):
    """Features that a network fuses, clip by clip."""

    common: NDArray[np.float64]  # pooled common part after attention, [m, clips, d]
    complementary: NDArray[np.float64]  # pooled specific part under the actions, [m, clips, d]
    present: NDArray[np.bool_]  # whether the clip has the modality, [m, clips]

    def take(self, rows: NDArray[np.int64]) -> Pooled:
        """Return the features of some clips."""
        return Pooled(self.common[:, rows], self.complementary[:, rows], self.present[:, rows])


Labelled = tuple[Pooled, NDArray[Any]]
"""Features of labelled clips, and their labels."""


class Probe(NamedTuple):
    """Score of a linear model without one modality's complementary features, and their gain.

    The score is R², or accuracy (a mean over emotions). Both are means over seeds; the interval
    of the gain resamples clips.
    """

    without: float
    increment: Estimate


def pool(model: MMCL, split: Split, *, batch_size: int = 256) -> Pooled:
    """Run a network over a split of at least one clip and keep the features it fuses."""
    parts = []
    with model.evaluating():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch = model.collate(split, rows)
            output = model(batch.features, batch.masks)
            encoded = output.encoded
            parts.append((encoded.enhanced, output.complementary, encoded.present))
    common, complementary, present = (
        torch.cat(batches, dim=1).double().cpu().numpy() for batches in zip(*parts, strict=True)
    )
    return Pooled(common, complementary, present > 0)


def labelled(split: Split, pooled: Pooled) -> Labelled:
    """Return the features and labels of the clips whose label is known."""
    rows = labelled_rows(split)
    return pooled.take(rows), split.labels()[rows]


def probes(
    task: Task,
    modalities: Sequence[Modality],
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    valid: Sequence[Labelled] | None = None,
) -> dict[Modality, Probe]:
    """Measure what each modality's complementary features add to a linear model of the rest.

    The rest is the common part of every modality and the complementary features of all
    others. The model is ridge regression, or logistic regression for classes and emotions.

    Args:
        task: What is predicted.
        modalities: In the order of the features.
        train: Per seed, features and labels to fit on.
        test: Per seed, features and labels of the same labelled clips.
        valid: Per seed, features and labels to choose the penalty on; without them it is
            chosen on the training clips, or left at its default.

    Returns:
        By modality. An increment above 0 says that its complementary features hold linear
        information that no other feature has.

    Raises:
        DatasetError: If no training clip has a label.
    """
    tuning: Sequence[Labelled | None] = [None] * len(train) if valid is None else valid
    seeds = list(zip(train, test, tuning, strict=True))

    def losses(without: int | None) -> NDArray[np.float64]:
        """Losses without one modality's features, or with all of them, ``[seeds, clips]``."""
        return np.array([_probe_losses(task, *splits, without=without) for splits in seeds])

    complete, truth = losses(None), test[0][1]
    probed = {}
    for index, modality in enumerate(modalities):
        without = losses(index)
        error, gains = float(without.mean()), (without - complete).mean(axis=0)
        if task.kind == "regression":  # R² in place of a squared error
            variance = float(truth.var())
            explained = 1 - error / variance if variance > 0 else math.nan
            probed[modality] = Probe(explained, paired_bootstrap(gains, truth=truth))
        else:
            probed[modality] = Probe(1 - error, paired_bootstrap(gains))
    return probed


def _probe_losses(
    task: Task, train: Labelled, test: Labelled, valid: Labelled | None, *, without: int | None
) -> NDArray[np.float64]:
    """Squared error of a linear model on each test clip, or its share of wrong answers."""

    def columns(pooled: Pooled) -> NDArray[np.float64]:
        kept = [index for index in range(len(pooled.common)) if index != without]
        return np.concatenate([*pooled.common, *pooled.complementary[kept]], axis=1)

    # The matrices are small: on a busy machine the threads of the linear algebra wait for each
    # other five times as long as one thread takes.
    with threadpool_limits(1, user_api="blas"):
        fitted = reference_scores(
            task,
            columns(train[0]),
            train[1],
            columns(test[0]),
            valid_features=None if valid is None else columns(valid[0]),
            valid_truth=None if valid is None else valid[1],
        )
    scores, truth = fitted["ridge"].scores, test[1]
    if task.kind == "regression":
        return np.asarray((scores - truth) ** 2)
    wrong = np.asarray(scores.argmax(axis=-1) != truth, dtype=np.float64)
    return np.asarray(wrong.reshape(len(truth), -1).mean(axis=1))


def linear_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the linear centred kernel alignment of two sets of features of the same clips.

    ``x`` is ``[clips, d]`` and ``y`` ``[clips, d']``, in any unit. Rotation, scale and shift of
    either set change nothing, nor does one order of the clips for both.

    Returns:
        0 (nothing linear in common) to 1 (equal up to rotation and scale); nan where a set
        is constant or empty. Few clips and many features raise it even where nothing is
        shared, so compare it with its value for shuffled clips.

    Raises:
        ShapeError: If the sets differ in the number of clips.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414).
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


def redundancy(modalities: Sequence[Modality], pooled: Sequence[Pooled]) -> list[dict[str, Any]]:
    """Measure the alignment of each pair of modalities, common and complementary parts apart.

    Args:
        modalities: In the order of the features.
        pooled: Per seed of the run; clips that lack one of a pair are left out of it.

    Returns:
        A row per pair: ``pair``, and for ``common`` and ``complementary`` the ``value`` and its
        ``floor``, the value where one modality's clips are shuffled; means over seeds or None.
    """
    rng = np.random.default_rng(0)
    rows = []
    for first, second in itertools.combinations(range(len(modalities)), 2):
        row: dict[str, Any] = {"pair": [modalities[first], modalities[second]]}
        for part in ("common", "complementary"):
            values, floors = [], []
            for network in pooled:
                both = network.present[first] & network.present[second]
                features = getattr(network, part)
                x, y = features[first][both], features[second][both]
                values.append(linear_cka(x, y))
                orders = [rng.permutation(len(y)) for _ in range(PERMUTATIONS)]
                floors += [linear_cka(x, y[order]) for order in orders]
            means = {"value": float(np.mean(values)), "floor": float(np.mean(floors))}
            row[part] = {k: mean if math.isfinite(mean) else None for k, mean in means.items()}
        rows.append(row)
    return rows


def label_groups(split: Split) -> dict[str, NDArray[np.bool_]]:
    """Group clips by their label, bool ``[clips]`` by name; a group may be empty.

    The groups are ``all``; then the sign of a score (``negative``, ``zero``, ``positive``; in a
    range such as 1..5 about its middle, ``middle``), the classes, or the emotions held. A clip
    without a label is in ``all`` alone.
    """
    task, labels = split.card.task, split.labels()
    groups = {"all": np.ones(len(split), dtype=np.bool_)}
    if task.kind == "regression":
        neutral = neutral_score(*task.score_range or FIELD_RANGE)
        groups |= {
            "negative": labels < neutral,
            "zero" if neutral == 0 else "middle": labels == neutral,
        }
        return groups | {"positive": labels > neutral}
    if task.kind == "classes":
        return groups | {name: labels == index for index, name in enumerate(task.names)}
    return groups | {name: labels[:, index] == 1 for index, name in enumerate(task.names)}


def action_distribution(
    models: Sequence[MMCL], scored: Sequence[Scored], split: Split
) -> dict[str, dict[Modality, dict[str, Any]]]:
    """Describe what the policies keep, per group of clips and modality, over all seeds.

    Returns:
        By group (see :func:`label_groups`; empty ones left out) and modality: ``steps``, the
        number of real ones; ``histogram``, the share of their keep probabilities in each of ten
        equal bins of 0..1, the last with its upper end; ``mean_keep_probability``; and
        ``kept_share``, the share of the steps that the policies keep (soft ones drop none: those
        above one half). A modality without a step is left out.
    """
    real = real_steps(models[0], split)
    distribution: dict[str, dict[Modality, dict[str, Any]]] = {}
    for name, members in label_groups(split).items():
        rows = np.flatnonzero(members).tolist()
        for index, modality in enumerate(models[0].modalities):
            steps = [(row, np.flatnonzero(real[row][index])) for row in rows]
            count = sum(len(own) for _, own in steps)
            if not count:
                continue
            keep, actions = (
                np.concatenate([clips[row][index, own] for clips in seeds for row, own in steps])
                for seeds in ([s.keep_probability for s in scored], [s.actions for s in scored])
            )
            keep = keep.astype(np.float64)
            least = float(np.mean([model.policy.least_kept for model in models]))
            counts, _ = np.histogram(keep, bins=BINS, range=(0.0, 1.0))
            distribution.setdefault(name, {})[modality] = {
                "steps": count,
                "histogram": (counts / len(keep)).tolist(),
                "mean_keep_probability": float(keep.mean()),
                "kept_share": float(((actions > 0) & (keep > least)).mean()),
            }
    return distribution


def planted_answers(
    models: Sequence[MMCL],
    scored: Sequence[Scored],
    split: Split,
    moments: Mapping[str, Moments],
) -> dict[str, Any] | None:
    """Compare the outputs of a run's networks with the planted truth; None where there is none.

    The moments are those of some clips of the split, by id.

    Returns:
        ``common_auroc`` and ``action_auroc`` as summaries over seeds; and for scores
        ``share``: by modality the ``correlation`` of its contribution (how far the prediction
        moves without it) with what it was planted to add of its own, and ``right_sign``, the
        share of clips in which both have the same sign. A modality's contribution includes its
        part of the common information, so even a perfect network stays below 1.
    """
    metrics = [
        role_metrics(split, seed, model.modalities)
        for model, seed in zip(models, scored, strict=True)
    ]
    if not metrics[0]:
        return None
    answers: dict[str, Any] = {k: s.as_dict() for k, s in summarise_seeds(metrics).items()}
    if split.card.task.kind == "regression":
        column = zip(split.ids, split.table.column("planted").to_pylist(), strict=True)
        planted = {name: dict(scores) for name, scores in column if name in moments}
        answers["share"] = {}
        for modality in [m for m in models[0].modalities if m not in models[0].never_seen]:
            share = np.array([moments[name].share[modality] for name in planted])
            own = np.array([scores[modality] for scores in planted.values()])
            varied = share.std() > 0 and own.std() > 0
            answers["share"][modality] = {
                "correlation": float(np.corrcoef(share, own)[0, 1]) if varied else None,
                "right_sign": float((np.sign(share) == np.sign(own)).mean()),
            }
    return answers
