"""Deletion and insertion curves: does the error follow the steps that a score ranks first?

The steps of all modalities of a clip are ranked together. Deletion takes the best ones away,
a tenth at a time, and insertion starts from nothing and adds the best ones first. A score that
knows the telling steps makes the error rise early under deletion and fall early under
insertion. The error is the loss of the task, clip by clip: the absolute error of a score, or
the cross-entropy of classes and emotions, which moves with every step where an accuracy would
move only at the border between two answers.

A deleted step is masked. ``released`` knows no masks: there its features become zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows, collate, move_batch
from mmcl.corpus.store import Split
from mmcl.errors import DatasetError
from mmcl.learning.inference import Scored, targets_of
from mmcl.learning.objectives import item_losses
from mmcl.models.mmcl import MMCL
from mmcl.types import Modality

__all__ = [
    "FRACTIONS",
    "Curves",
    "Estimate",
    "areas",
    "curves_along",
    "importance_of",
    "paired_bootstrap",
    "policy_errors",
    "rank_steps",
    "real_steps",
    "shuffle_actions",
]

TENTHS = 10
FRACTIONS: tuple[float, ...] = tuple(tenth / TENTHS for tenth in range(TENTHS + 1))
"""Shares of a clip's steps that are deleted, or inserted."""

RESAMPLES = 2000
CONFIDENCE = 0.95
POLICY_DRAWS = 5
"""Random policies whose errors are averaged."""


class Curves(NamedTuple):
    """Errors of every clip along both curves of one ranking.

    Attributes:
        deletion: float64 ``[clips, 11]``, error without the best share of the steps.
        insertion: float64 ``[clips, 11]``, error with the best share of the steps alone.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and how sure it is.

    Attributes:
        value: The number.
        low: Lower end of its 95% bootstrap interval.
        high: Upper end.
        p: Two-sided, for the number being 0.
    """

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    gains: NDArray[np.float64], *, truth: NDArray[np.float64] | None = None, seed: int = 0
) -> Estimate:
    """Mean of differences between two treatments of the same clips, with its interval.

    Clips are drawn again one by one: those of one recording are taken to be independent.

    Args:
        gains: Difference of each clip, any unit, ``[clips]``, at least one.
        truth: Labels ``[clips]``; given, the sum of gains is divided by the labels' sum of
            squares around their mean, which makes gains of squared errors a gain of R².
        seed: Of the resampling; two calls with one seed draw the same clips.

    Returns:
        The mean, its percentile interval, and p from the share of resamples on the far side
        of 0, at least ``2 / (resamples + 1)``; 1 where every gain is 0.

    Example:
        >>> paired_bootstrap(np.array([1.0, 1.0, 1.0])).low
        1.0
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(gains), size=(RESAMPLES, len(gains)))
    means = _scaled_mean(gains[drawn], None if truth is None else truth[drawn])
    value = float(_scaled_mean(gains, truth))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Estimate(value, float(low), float(high), min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1)))


def _scaled_mean(
    gains: NDArray[np.float64], truth: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Mean over the last axis, over the labels' variance where they are given."""
    mean = np.asarray(gains.mean(axis=-1))
    if truth is None:
        return mean
    variance = np.asarray(truth.var(axis=-1))
    return np.where(variance > 0, mean, 0.0) / np.where(variance > 0, variance, 1.0)


def areas(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under curves over :data:`FRACTIONS`, in the unit of the error: ``[..., 11] -> [...]``.

    Example:
        >>> float(areas(np.full(11, 0.5)))
        0.5
    """
    return np.asarray(np.trapezoid(errors, FRACTIONS, axis=-1), dtype=np.float64)


def real_steps(model: MMCL, split: Split) -> list[NDArray[np.bool_]]:
    """Steps a network is given and that were measured, per clip bool ``[m, n]``.

    Modalities are the network's own, n is the longest of the clip. A modality that training
    never saw has no step.
    """
    used = [m for m in model.modalities if m in split.card.dims and m not in model.never_seen]
    real = []
    for row in range(len(split)):
        measured = {m: _measured(split, m, row) for m in used}
        longest = max((len(each) for each in measured.values()), default=0)
        clip = np.zeros((len(model.modalities), longest), dtype=np.bool_)
        for at, modality in enumerate(model.modalities):
            if modality in measured:
                clip[at, : len(measured[modality])] = measured[modality]
        real.append(clip)
    return real


def _measured(split: Split, modality: Modality, row: int) -> NDArray[np.bool_]:
    steps = split.steps(modality, row)
    if split.card.missing_as_zero:
        return np.asarray(np.any(steps != 0, axis=1))
    return np.ones(len(steps), dtype=np.bool_)


def importance_of(scored: Scored) -> dict[str, list[NDArray[np.float32]]]:
    """What a network itself says of the importance of each step, per clip ``[m, n]``.

    Returns:
        ``actions``: the keep probability. It is high where a step's *specific* part tells
        something, so deleting by it leaves the common steps in place. ``moments``: of either
        part, ``keep * (1 - commonality) + commonality``.
    """
    pairs = zip(scored.keep_probability, scored.commonality, strict=True)
    moments = [keep * (1 - common) + common for keep, common in pairs]
    return {"actions": scored.keep_probability, "moments": moments}


def rank_steps(
    importance: Sequence[NDArray[np.floating]],
    real: Sequence[NDArray[np.bool_]],
    *,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Rank the real steps of each clip, all modalities together.

    Args:
        importance: Per clip ``[m, n]`` or longer; equal values are ranked at random, so that
            no modality is favoured by its place.
        real: Per clip bool ``[m, n]``.
        seed: Of the ties.

    Returns:
        Per clip int64 ``[m, n]``: 0 is the most important step; -1 where there is none.
    """
    rng = np.random.default_rng(seed)
    ranks = []
    for values, steps in zip(importance, real, strict=True):
        at = np.flatnonzero(steps)
        own = values[:, : steps.shape[1]].ravel()[at]
        order = np.lexsort((rng.random(len(at)), -own))
        rank = np.full(steps.size, -1, dtype=np.int64)
        rank[at[order]] = np.arange(len(at))
        ranks.append(rank.reshape(steps.shape))
    return ranks


def curves_along(
    model: MMCL,
    split: Split,
    ranks: Sequence[NDArray[np.int64]],
    *,
    batch_size: int = 256,
) -> Curves:
    """Measure the error along deletion and insertion in the order of a ranking.

    Args:
        model: The network, in evaluation mode.
        split: Labelled clips.
        ranks: Per clip ``[m, n]``, see :func:`rank_steps`.
        batch_size: Clips per step; changes nothing but the speed.
    """
    deletion, insertion = [], []
    with torch.inference_mode():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch = _batch(model, split, rows)
            rank = _stacked(model, [ranks[int(row)] for row in rows], batch)
            total = torch.tensor([int(ranks[int(row)].max(initial=-1)) + 1 for row in rows])
            left, entered = [], []
            for tenth in range(TENTHS + 1):
                count = ((total * tenth + TENTHS // 2) // TENTHS).view(-1, 1)
                left.append(_errors(model, batch, {m: r >= count for m, r in rank.items()}))
                entered.append(_errors(model, batch, {m: r < count for m, r in rank.items()}))
            deletion.append(np.stack(left, axis=1))
            insertion.append(np.stack(entered, axis=1))
    return Curves(np.concatenate(deletion), np.concatenate(insertion))


def policy_errors(
    model: MMCL, split: Split, *, seed: int, batch_size: int = 256
) -> dict[str, NDArray[np.float64]]:
    """Error of every clip under the learned actions, and under others in their place.

    Args:
        model: The network, in evaluation mode.
        split: Labelled clips.
        seed: Of the random policies.
        batch_size: Clips per step.

    Returns:
        Float64 ``[clips]`` of ``learned``; ``ones``, which keeps every step; ``random``, whose
        actions are the learned ones at other steps of the same clip and modality, so that
        their mean is equal to the last bit (mean over five draws); and ``none``, which keeps
        no step, so that the common parts speak alone.
    """
    generator = torch.Generator().manual_seed(seed)
    errors: dict[str, list[NDArray[np.float64]]] = {}
    with torch.inference_mode():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch = _batch(model, split, rows)
            encoded = model.encode(batch.features, batch.masks)
            decision = model.decide(encoded)
            learned, mask = decision.actions, encoded.step_mask
            tried = {
                "learned": [learned],
                "ones": [mask.to(learned.dtype)],
                "random": [shuffle_actions(learned, mask, generator) for _ in range(POLICY_DRAWS)],
                "none": [torch.zeros_like(learned)],
            }
            for name, choices in tried.items():
                outputs = [model.conclude(encoded, decision._replace(actions=a)) for a in choices]
                each = [_item_errors(model, output.scores, batch) for output in outputs]
                errors.setdefault(name, []).append(np.mean(each, axis=0))
    return {name: np.concatenate(parts) for name, parts in errors.items()}


def shuffle_actions(actions: Tensor, step_mask: Tensor, generator: torch.Generator) -> Tensor:
    """Hand the actions of each clip and modality to other real steps of it.

    Args:
        actions: ``[m, b, n]``.
        step_mask: Real steps, bool ``[m, b, n]``.
        generator: Draws the order.

    Returns:
        ``[m, b, n]``, the same values per clip and modality; steps that are not real keep
        their own.
    """
    draw = torch.rand(actions.shape, generator=generator).to(actions.device)
    source = draw.masked_fill(~step_mask, torch.inf).argsort(dim=-1, stable=True)
    places = (~step_mask).to(torch.uint8).argsort(dim=-1, stable=True)
    return torch.zeros_like(actions).scatter_(-1, places, actions.gather(-1, source))


def _batch(model: MMCL, split: Split, rows: NDArray[np.int64]) -> Batch:
    held = [m for m in model.modalities if m in split.card.dims]
    batch = collate(split, rows, held, targets_of(split), keep_missing=model.released)
    return move_batch(batch, next(model.parameters()).device)


def _stacked(
    model: MMCL, ranks: Sequence[NDArray[np.int64]], batch: Batch
) -> dict[Modality, Tensor]:
    """Ranks of a batch by modality, ``[b, n_m]``; -1 where there is no step."""
    stacked = {}
    for at, modality in enumerate(model.modalities):
        if modality in batch.masks:
            padded = torch.full(batch.masks[modality].shape, -1, dtype=torch.int64)
            for i, rank in enumerate(ranks):
                own = torch.from_numpy(rank[at, : padded.shape[1]])
                padded[i, : len(own)] = own
            stacked[modality] = padded
    return stacked


def _errors(model: MMCL, batch: Batch, kept: Mapping[Modality, Tensor]) -> NDArray[np.float64]:
    """Error of each clip with the steps that are not kept deleted, ``[b]``."""
    kept = {m: mask.to(batch.masks[m].device) for m, mask in kept.items()}
    features = {m: x * kept[m].unsqueeze(-1) for m, x in batch.features.items()}
    masks = dict(batch.masks)
    if not model.released:  # it knows one length, so a deleted step is a zero to it
        masks = {m: mask & kept[m] for m, mask in masks.items()}
    return _item_errors(model, model(features, masks).scores, batch)


def _item_errors(model: MMCL, scores: Tensor, batch: Batch) -> NDArray[np.float64]:
    if batch.targets is None:
        raise DatasetError("errors are measured on labelled clips, and no label was given")
    return item_losses(scores, batch.targets, model.task).double().cpu().numpy()
