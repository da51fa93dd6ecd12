"""Deletion and insertion curves of a ranking of steps.

The steps of all modalities of a clip are ranked together. Deletion takes the best ones away, a
tenth at a time. Insertion starts from nothing and adds the best ones first. If a score knows
the telling steps, the error rises early under deletion and falls early under insertion. The
error is the loss of the task, clip by clip: the absolute error of a score, or the cross-entropy
of classes and emotions. An accuracy would move only where the answer changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows
from mmcl.corpus.store import Split
from mmcl.evaluation.moments import measured_steps
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
    "keep_curve",
    "paired_bootstrap",
    "policy_errors",
    "rank_steps",
    "real_steps",
]

TENTHS = 10
FRACTIONS: tuple[float, ...] = tuple(tenth / TENTHS for tenth in range(TENTHS + 1))
"""Parts of a clip's steps that are deleted, or inserted."""

RESAMPLES = 2000
CONFIDENCE = 0.95
POLICY_DRAWS = 5
"""Random policies whose errors are averaged."""


class Curves(NamedTuple):
    """Errors of every clip along both curves of one ranking, ``[clips, 11]``."""

    deletion: NDArray[np.float64]  # without the best part of the steps
    insertion: NDArray[np.float64]  # with the best part of the steps alone


class Estimate(NamedTuple):
    """A number with its 95% bootstrap interval, and the two-sided p of its being 0."""

    value: float
    low: float
    high: float
    p: float

    def as_row(self, name: str) -> dict[str, float]:
        """Return the row of a result file: the value under its name, then low, high and p."""
        return {name: self.value, "low": self.low, "high": self.high, "p": self.p}


def paired_bootstrap(
    gains: NDArray[np.float64], *, truth: NDArray[np.float64] | None = None
) -> Estimate:
    """Return the mean difference between two treatments of the same clips, with its interval.

    Clips are resampled one by one, as if those of one recording were independent. Two calls
    draw the same clips.

    Args:
        gains: Difference of each clip, any unit, ``[clips]``, at least one.
        truth: Labels ``[clips]``; given, the sum of gains is divided by the labels' sum of
            squares around their mean, which makes gains of squared errors a gain of R².

    Returns:
        The mean, its percentile interval, and p from the share of resamples on the far side
        of 0: at least ``2 / (resamples + 1)``, and 1 where every gain is 0.
    """
    drawn = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    means = _scaled_mean(gains[drawn], None if truth is None else truth[drawn])
    value = float(_scaled_mean(gains, truth))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Estimate(value, float(low), float(high), min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1)))


def _scaled_mean(
    gains: NDArray[np.float64], truth: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Mean over the last axis, divided by the labels' variance where they are given."""
    mean = np.asarray(gains.mean(axis=-1))
    if truth is None:
        return mean
    variance = np.asarray(truth.var(axis=-1))
    return np.where(variance > 0, mean, 0.0) / np.where(variance > 0, variance, 1.0)


def areas(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under curves over :data:`FRACTIONS`: ``[..., 11] -> [...]``."""
    return np.asarray(np.trapezoid(errors, FRACTIONS, axis=-1), dtype=np.float64)


def real_steps(model: MMCL, split: Split) -> list[NDArray[np.bool_]]:
    """Say which steps of each clip a network is given and were measured, bool ``[m, n]``.

    Modalities are the network's own, n is the longest of the clip. A modality that training
    never saw has no step.
    """
    used = [m for m in model.modalities if m in split.card.dims and m not in model.never_seen]
    real = []
    for row in range(len(split)):
        measured = {m: measured_steps(split, m, row) for m in used}
        longest = max((len(steps) for steps in measured.values()), default=0)
        clip = np.zeros((len(model.modalities), longest), dtype=np.bool_)
        for modality, steps in measured.items():
            clip[model.modalities.index(modality), : len(steps)] = steps
        real.append(clip)
    return real


def importance_of(scored: Scored) -> dict[str, list[NDArray[np.float32]]]:
    """Return the importance that a network itself gives to each step, per clip ``[m, n]``.

    Returns:
        ``actions``: the keep probability. It is high where a step's *specific* part tells
        something, so deletion by it leaves the common steps in place. ``moments``: the
        importance of either part, ``action * (1 - commonality) + commonality``.
    """
    pairs = zip(scored.actions, scored.commonality, strict=True)
    moments = [action * (1 - common) + common for action, common in pairs]
    return {"actions": scored.keep_probability, "moments": moments}


def rank_steps(
    importance: Sequence[NDArray[np.floating]], real: Sequence[NDArray[np.bool_]], *, seed: int
) -> list[NDArray[np.int64]]:
    """Rank the real steps of each clip, all modalities together.

    Steps of equal importance are ranked at random, so that no modality is favoured.

    Args:
        importance: Per clip ``[m, n]`` or longer.
        real: Per clip bool ``[m, n]``.
        seed: Of the random order.

    Returns:
        Per clip int64 ``[m, n]``: 0 is the most important step; -1 where there is none.
    """
    rng = np.random.default_rng(seed)
    ranks = []
    for values, steps in zip(importance, real, strict=True):
        places = np.flatnonzero(steps)
        own = values[:, : steps.shape[1]].ravel()[places]
        order = np.lexsort((rng.random(len(places)), -own))  # by importance, then at random
        rank = np.full(steps.size, -1, dtype=np.int64)
        rank[places[order]] = np.arange(len(places))
        ranks.append(rank.reshape(steps.shape))
    return ranks


def curves_along(
    model: MMCL, split: Split, ranks: Sequence[NDArray[np.int64]], *, batch_size: int = 256
) -> Curves:
    """Measure the errors of labelled clips along deletion and insertion in the order of ``ranks``.

    The ranks are those of :func:`rank_steps`, per clip ``[m, n]``.
    """
    targets = targets_of(split)
    deletion, insertion = [], []
    with model.evaluating():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch, truth = model.collate(split, rows), targets[torch.from_numpy(rows)]
            own = [ranks[row] for row in rows.tolist()]
            rank = _padded_ranks(model, own, batch)
            total = torch.tensor([int(clip.max(initial=-1)) + 1 for clip in own])
            without, alone = [], []  # errors without the best steps, and with them alone
            for tenth in range(TENTHS + 1):
                # The nearest whole number of steps.
                count = ((total * tenth + TENTHS // 2) // TENTHS).view(-1, 1)
                best = {m: r < count for m, r in rank.items()}
                rest = {m: r >= count for m, r in rank.items()}
                without.append(_errors(model, _scores_without(model, batch, best), truth))
                alone.append(_errors(model, _scores_without(model, batch, rest), truth))
            deletion.append(np.stack(without, axis=1))
            insertion.append(np.stack(alone, axis=1))
    return Curves(np.concatenate(deletion), np.concatenate(insertion))


def policy_errors(
    model: MMCL, split: Split, *, seed: int, batch_size: int = 256
) -> dict[str, NDArray[np.float64]]:
    """Measure the error of labelled clips under the learned actions and under others instead.

    Returns:
        Float64 ``[clips]`` of ``learned``; ``ones``, which keeps every step; ``random``, the
        mean over five draws of the learned actions at other steps of the same clip and
        modality, which have exactly the same mean; and ``none``, which keeps no step, so that
        only the common parts count.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = targets_of(split)
    errors: dict[str, list[NDArray[np.float64]]] = {}
    with model.evaluating():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch, truth = model.collate(split, rows), targets[torch.from_numpy(rows)]
            encoded = model.encode(batch.features, batch.masks)
            decision = model.decide(encoded)
            learned, mask = decision.actions, encoded.step_mask
            policies = {
                "learned": [learned],
                "ones": [mask.to(learned.dtype)],
                "random": [shuffle_actions(learned, mask, generator) for _ in range(POLICY_DRAWS)],
                "none": [torch.zeros_like(learned)],
            }
            for name, draws in policies.items():
                outputs = [model.conclude(encoded, decision._replace(actions=a)) for a in draws]
                losses = [_errors(model, out.scores, truth) for out in outputs]
                errors.setdefault(name, []).append(np.mean(losses, axis=0))
    return {name: np.concatenate(parts) for name, parts in errors.items()}


def keep_curve(
    model: MMCL, split: Split, *, batch_size: int = 256
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure the error while the policies keep ever more steps, those of large actions first.

    The common parts stay complete: only specific parts are taken away.

    Returns:
        Both ``[clips, 11]``: the share of a clip's steps that is kept, from none to all that the
        policies keep, and the loss of the task.
    """
    targets = targets_of(split)
    shares, errors = [], []
    with model.evaluating():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch, truth = model.collate(split, rows), targets[torch.from_numpy(rows)]
            encoded = model.encode(batch.features, batch.masks)
            decision = model.decide(encoded)
            actions = decision.actions
            # Rank of every step among those of its clip, all modalities together.
            flat = actions.transpose(0, 1).flatten(1)  # [b, m n]
            rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            rank = rank.view(len(rows), len(actions), -1).transpose(0, 1)  # [m, b, n]
            kept = (actions > 0).sum(dim=(0, 2))  # [b]
            steps = encoded.step_mask.sum(dim=(0, 2)).clamp(min=1)
            for tenth in range(TENTHS + 1):
                count = (kept * tenth + TENTHS // 2) // TENTHS
                left = torch.where(rank < count.view(1, -1, 1), actions, 0.0)
                output = model.conclude(encoded, decision._replace(actions=left))
                shares.append((count / steps).double().cpu().numpy())
                errors.append(_errors(model, output.scores, truth))
    return _by_clip(shares), _by_clip(errors)


def _by_clip(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Join values of all tenths of each batch, one batch after the other, to ``[clips, 11]``."""
    batches = [values[start : start + TENTHS + 1] for start in range(0, len(values), TENTHS + 1)]
    return np.concatenate([np.stack(tenths, axis=1) for tenths in batches])


def shuffle_actions(actions: Tensor, step_mask: Tensor, generator: torch.Generator) -> Tensor:
    """Hand the actions of each clip and modality to other real steps of it, ``[m, b, n]``."""
    draw = torch.rand(actions.shape, generator=generator).to(actions.device)
    # Both orders list the real steps first: one shuffled, one as they lie in the clip.
    source = draw.masked_fill(~step_mask, torch.inf).argsort(dim=-1, stable=True)
    places = (~step_mask).to(torch.uint8).argsort(dim=-1, stable=True)
    return torch.zeros_like(actions).scatter_(-1, places, actions.gather(-1, source))


def _padded_ranks(
    model: MMCL, ranks: Sequence[NDArray[np.int64]], batch: Batch
) -> dict[Modality, Tensor]:
    """Ranks in the shape of a batch, by modality ``[b, n_m]``; -1 where there is no step."""
    padded = {m: torch.full(mask.shape, -1) for m, mask in batch.masks.items()}
    for modality, stacked in padded.items():
        index = model.modalities.index(modality)
        for clip, rank in zip(stacked, ranks, strict=True):
            own = torch.from_numpy(rank[index, : len(clip)])
            clip[: len(own)] = own
    return padded


def _scores_without(model: MMCL, batch: Batch, missing: dict[Modality, Tensor]) -> Tensor:
    left = model.take_away(batch, missing)
    scores: Tensor = model(left.features, left.masks).scores
    return scores


def _errors(model: MMCL, scores: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """Loss of each clip, ``[b]``."""
    losses = item_losses(scores, targets.to(scores.device), model.task)
    return losses.double().cpu().numpy()
