"""What networks say of each clip, how sure they are, and which moments said so.

A share is a difference of predictions: the whole clip's, less that of the same clip with
one modality, or one word, masked. Shares of modalities need not add up to the prediction,
since modalities that agree can stand in for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mmcl.corpus.batches import batch_rows, collate, move_batch
from mmcl.corpus.schema import Task
from mmcl.corpus.store import Split
from mmcl.evaluation.protocol import answers
from mmcl.learning.inference import Scored, score_split
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = [
    "Moments",
    "as_probability",
    "in_words",
    "moments_of",
    "spread_over_seeds",
    "without_modality",
]

MASKED_AT_ONCE = 64
"""Copies of one clip, each with another word masked, that go through a network together."""


class Moments(NamedTuple):
    """One clip: the prediction, its certainty and what it came from.

    Attributes:
        id: Of the clip.
        prediction: A score, the name of a class, or the names of the emotions held.
        spread: S.d. over seeds of the score, or of the predicted class's probability; None
            for a single seed.
        probability: Of what is predicted, a mean over emotions; None for a score.
        probabilities: By name of a class or emotion; empty for a score.
        share: By modality the networks use, how far it moved the score, or the
            probability of what is predicted; signed, and 0 where it is absent.
        present: Those of them the clip has.
        commonality: By modality of the clip, float32 ``[n]`` in 0..1, mean over seeds.
        action: Share of the seeds that keep the specific part of a step, ``[n]``.
        keep_probability: What the actions were decided from, ``[n]``.
        found: Whether a step was measured, bool ``[n]``.
        word_share: As ``share``, of each step of text, ``[n]``.
    """

    id: str
    prediction: float | str | list[str]
    spread: float | None
    probability: float | None
    probabilities: dict[str, float]
    share: dict[Modality, float]
    present: tuple[Modality, ...]
    commonality: dict[Modality, NDArray[np.float32]]
    action: dict[Modality, NDArray[np.float32]]
    keep_probability: dict[Modality, NDArray[np.float32]]
    found: dict[Modality, NDArray[np.bool_]]
    word_share: NDArray[np.float64]


def moments_of(models: Sequence[Network], split: Split, *, batch_size: int = 256) -> list[Moments]:
    """Predict every clip and mask it bit by bit; labels are not looked at.

    Args:
        models: Networks of one run, one per seed.
        split: The clips.
        batch_size: Clips per step; changes nothing but the speed.

    Returns:
        One per clip, in order.
    """
    if not len(split):
        return []
    task = models[0].task
    scored = [score_split(model, split, batch_size=batch_size) for model in models]
    scores = np.stack([as_probability(task, each.scores) for each in scored])
    mean = scores.mean(axis=0)
    chosen = mean.argmax(axis=-1) if task.kind != "regression" else np.zeros(0, dtype=np.int64)
    whole = _support(task, mean, chosen)
    moved = _modality_shares(models, split, whole, chosen, batch_size)
    spreads = spread_over_seeds(task, scores, mean)
    predictions = in_words(task, answers(task, mean))
    found = [_found(split, row) for row in range(len(split))]
    return [
        Moments(
            id=identifier,
            prediction=predictions[row],
            spread=spreads[row],
            probability=None if task.kind == "regression" else float(whole[row]),
            probabilities=_by_name(task, mean[row]),
            share={m: float(each[row]) if m in found[row] else 0.0 for m, each in moved.items()},
            present=tuple(m for m in moved if m in found[row]),
            found=found[row],
            **_mean_arrays(scored, models[0].modalities, found[row], row),
            word_share=_word_share(models, split, row, whole, chosen),
        )
        for row, identifier in enumerate(split.ids)
    ]


def as_probability(task: Task, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits as probabilities, so that seeds can be averaged; scores as they are."""
    if task.kind == "regression":
        return scores
    odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probability: NDArray[np.float64] = odds / odds.sum(axis=-1, keepdims=True)
    return probability


def in_words(task: Task, chosen: list[Any]) -> list[Any]:
    """Class names, and the names of the emotions held, in place of indices."""
    if task.kind == "regression":
        return chosen
    if task.kind == "classes":
        return [task.names[index] for index in chosen]
    return [[n for n, held in zip(task.names, clip, strict=True) if held] for clip in chosen]


def spread_over_seeds(
    task: Task, scores: NDArray[np.float64], mean: NDArray[np.float64]
) -> list[float | None]:
    """S.d. over seeds of a clip's score, or of its predicted class's probability.

    Args:
        task: What is predicted.
        scores: Scores or probabilities, ``[seeds, clips, ...]``.
        mean: Their mean, ``[clips, ...]``.

    Returns:
        One per clip; None where there is a single seed.
    """
    if len(scores) < 2:
        return [None] * len(mean)
    spread = scores.std(axis=0, ddof=1)
    if task.kind != "regression":
        best = mean.argmax(axis=-1)[..., None]
        spread = np.take_along_axis(spread, best, axis=-1)[..., 0]
    flat: list[float | None] = spread.reshape(len(mean), -1).mean(axis=1).tolist()
    return flat


def _support(
    task: Task, scores: NDArray[np.float64], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A number per clip that a mask can move: its score, or the probability of ``chosen``."""
    if task.kind == "regression":
        return scores
    of_chosen = np.take_along_axis(scores, chosen[..., None], axis=-1)[..., 0]
    flat: NDArray[np.float64] = of_chosen.reshape(len(scores), -1).mean(axis=1)
    return flat


def _by_name(task: Task, mean: NDArray[np.float64]) -> dict[str, float]:
    if task.kind == "regression":
        return {}
    held = mean if task.kind == "classes" else mean[:, 1]
    return dict(zip(task.names, held.tolist(), strict=True))


def _modality_shares(
    models: Sequence[Network],
    split: Split,
    whole: NDArray[np.float64],
    chosen: NDArray[np.int64],
    batch_size: int,
) -> dict[Modality, NDArray[np.float64]]:
    """By modality the networks use, how far it moved each clip's prediction: ``[clips]``."""
    task = models[0].task
    used = [m for m in models[0].modalities if m not in models[0].never_seen]
    shares = {m: np.zeros(len(split)) for m in used}
    for modality in [m for m in used if m in split.card.dims]:
        masked = without_modality(split, modality)
        each = [
            as_probability(
                task, score_split(model, masked, batch_size=batch_size, per_step=False).scores
            )
            for model in models
        ]
        shares[modality] = whole - _support(task, np.stack(each).mean(axis=0), chosen)
    return shares


def without_modality(split: Split, modality: Modality) -> Split:
    """The same clips, none of which has the modality."""
    name = f"features_{modality}"
    field = split.table.schema.field(name)
    at = split.table.column_names.index(name)
    table = split.table.set_column(at, field, pa.nulls(len(split), field.type))
    return Split(split.name, split.card, table, split.mapped)


def _found(split: Split, row: int) -> dict[Modality, NDArray[np.bool_]]:
    """By modality that has one, which steps were measured: bool ``[n]``."""
    found: dict[Modality, NDArray[np.bool_]] = {}
    for modality in split.modalities:
        steps = split.steps(modality, row)
        real: NDArray[np.bool_] = np.ones(len(steps), dtype=np.bool_)
        if split.card.missing_as_zero:
            real = np.logical_or.reduce(steps != 0, axis=1)
        if real.any():
            found[modality] = real
    return found


def _mean_arrays(
    scored: Sequence[Scored],
    modalities: Sequence[Modality],
    found: dict[Modality, NDArray[np.bool_]],
    row: int,
) -> dict[str, dict[Modality, NDArray[np.float32]]]:
    """Commonality, actions and keep probabilities of a clip's own steps, mean over seeds."""
    kinds = {
        "commonality": [each.commonality[row] for each in scored],
        "action": [each.actions[row] for each in scored],
        "keep_probability": [each.keep_probability[row] for each in scored],
    }
    arrays: dict[str, dict[Modality, NDArray[np.float32]]] = {}
    for name, values in kinds.items():
        mean = np.stack(values).mean(axis=0)  # [m, n]
        by_modality = dict(zip(modalities, mean, strict=True))
        arrays[name] = {m: by_modality[m][: len(found[m])] for m in modalities if m in found}
    return arrays


def _word_share(
    models: Sequence[Network],
    split: Split,
    row: int,
    whole: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> NDArray[np.float64]:
    """How far each step of text moved a clip's prediction, ``[n]``."""
    if "text" not in models[0].modalities or "text" not in split.card.dims:
        return np.zeros(0)
    count = len(split.steps("text", row))
    task = models[0].task
    each = [_scores_without_words(model, split, row, count) for model in models]
    without = np.stack([as_probability(task, scores) for scores in each]).mean(axis=0)
    share: NDArray[np.float64] = whole[row] - _support(
        task, without, np.repeat(chosen[row : row + 1], count, axis=0)
    )
    return share


def _scores_without_words(
    model: Network, split: Split, row: int, count: int
) -> NDArray[np.float64]:
    """Scores of a clip with each step of text masked in turn, ``[n, ...]``."""
    device = next(model.parameters()).device
    held = [m for m in model.modalities if m in split.card.dims]
    scores = [np.zeros((0, *_shape_of_scores(model.task)))]
    for block in batch_rows(np.arange(count), MASKED_AT_ONCE):
        batch = collate(split, [row] * len(block), held, keep_missing=model.released)
        at = (torch.arange(len(block)), torch.from_numpy(block))
        batch.features["text"][at] = 0.0
        if not model.released:  # it knows one length, so a masked step is a zero to it
            batch.masks["text"][at] = False
        batch = move_batch(batch, device)
        with torch.inference_mode():
            scores.append(model(batch.features, batch.masks).scores.double().cpu().numpy())
    return np.concatenate(scores)


def _shape_of_scores(task: Task) -> tuple[int, ...]:
    if task.kind == "regression":
        return ()
    return (len(task.names),) if task.kind == "classes" else (len(task.names), 2)
