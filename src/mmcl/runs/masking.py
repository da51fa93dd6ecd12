"""Predict clips with some of their steps, or whole modalities, missing.

A missing step is masked; a network that knows one length per clip (``released``) is given
zeros. The draw of missing steps depends on the corpus and the mask seed alone, so all networks
lose the same steps. A step missing at one rate is missing at every higher rate, and a clip
keeps at least one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows
from mmcl.corpus.store import Split
from mmcl.models.network import Network
from mmcl.types import MODALITIES, Modality

__all__ = ["Condition", "conditions_of", "missing_steps", "score_damaged", "subsets_of"]


class Condition(NamedTuple):
    """The part of every clip that is left.

    Attributes:
        kept: Modalities that stay.
        rate: Probability that a step of them is missing, 0 to below 1.
        mask_seed: Seed of the draw of missing steps; None where no step is missing.
    """

    kept: tuple[Modality, ...]
    rate: float = 0.0
    mask_seed: int | None = None


def conditions_of(
    modalities: Sequence[Modality], rates: Sequence[float], mask_seeds: Sequence[int]
) -> list[Condition]:
    """List the conditions of a sweep: complete clips, every rate and draw, every smaller subset."""
    used = tuple(modalities)
    damaged = [Condition(used, rate, seed) for rate in rates if rate for seed in mask_seeds]
    smaller = [Condition(kept) for kept in subsets_of(used) if kept != used]
    return [Condition(used), *damaged, *smaller]


def subsets_of(modalities: tuple[Modality, ...]) -> list[tuple[Modality, ...]]:
    """List the subsets with at least one modality, the smallest first."""
    sizes = range(1, len(modalities) + 1)
    return [kept for size in sizes for kept in combinations(modalities, size)]


def draw_chances(split: Split, mask_seed: int) -> dict[Modality, NDArray[np.float64]]:
    """Draw a number in 0..1 for every step; at a rate above its number a step is missing.

    Returns:
        Per modality float64 ``[steps of all clips]``, clip after clip.
    """
    # Seeded by modality, so that a corpus without one gives the others the same numbers.
    generators = {m: np.random.default_rng([mask_seed, MODALITIES.index(m)]) for m in MODALITIES}
    return {m: generators[m].random(int(split.lengths(m).sum())) for m in split.modalities}


def missing_steps(
    real: Mapping[Modality, Tensor], chances: Mapping[Modality, Tensor], rate: float
) -> dict[Modality, Tensor]:
    """Return the real steps that are missing at a rate, per modality bool ``[b, n_m]``.

    Args:
        real: Per modality bool ``[b, n_m]``.
        chances: Numbers of :func:`draw_chances`, per modality float ``[b, n_m]``.
        rate: Probability that a step is missing.
    """
    ranked = torch.cat([chances[m].masked_fill(~mask, -1.0) for m, mask in real.items()], dim=1)
    missing = (ranked >= 0) & (ranked < rate)  # [b, sum of n_m]
    # The step with the largest number stays, whatever the rate.
    missing.scatter_(1, ranked.argmax(dim=1, keepdim=True), False)
    parts = torch.split(missing, [mask.shape[1] for mask in real.values()], dim=1)
    return dict(zip(real, parts, strict=True))


def score_damaged(
    model: Network,
    split: Split,
    conditions: Sequence[Condition],
    *,
    batch_size: int = 256,
    advance: Callable[[int], None] | None = None,
) -> dict[Condition, NDArray[np.float64]]:
    """Predict every clip of a split under every condition.

    Labels are not looked at. The batch size changes nothing but the speed. ``advance`` is
    called with the number of clips done under a condition.

    Returns:
        By condition float64 scores of every clip, in order.
    """
    seeds = sorted({c.mask_seed for c in conditions if c.mask_seed is not None})
    chances = {seed: draw_chances(split, seed) for seed in seeds}
    scores: dict[Condition, list[NDArray[np.float64]]] = {c: [] for c in conditions}
    with model.evaluating():
        # Every batch is read from the corpus once and damaged in all ways.
        for rows in batch_rows(np.arange(len(split)), batch_size):
            batch = model.collate(split, rows)
            real = _real_steps(batch, split)
            padded = {seed: _pad_chances(chances[seed], split, rows, real) for seed in seeds}
            for condition in conditions:
                damaged = model.take_away(batch, _missing_under(condition, real, padded))
                output = model(damaged.features, damaged.masks)
                scores[condition].append(output.scores.double().cpu().numpy())
                if advance is not None:
                    advance(len(rows))
    return {condition: np.concatenate(parts) for condition, parts in scores.items()}


def _real_steps(batch: Batch, split: Split) -> dict[Modality, Tensor]:
    """Measured steps by modality, also where the network takes a missing step for a real one."""
    masks = {m: mask.cpu() for m, mask in batch.masks.items()}
    if not split.card.missing_as_zero:
        return masks
    return {m: mask & batch.features[m].any(dim=-1).cpu() for m, mask in masks.items()}


def _pad_chances(
    chances: Mapping[Modality, NDArray[np.float64]],
    split: Split,
    rows: NDArray[np.int64],
    real: Mapping[Modality, Tensor],
) -> dict[Modality, Tensor]:
    """Numbers of neighbouring clips in the shape of their batch, by modality ``[b, n_m]``."""
    padded = {}
    for modality, mask in real.items():
        lengths = split.lengths(modality)
        first = int(lengths[: rows[0]].sum())
        numbers = np.zeros(tuple(mask.shape))
        inside = np.arange(mask.shape[1]) < lengths[rows, None]  # also steps not measured
        numbers[inside] = chances[modality][first : first + int(inside.sum())]
        padded[modality] = torch.from_numpy(numbers)
    return padded


def _missing_under(
    condition: Condition,
    real: Mapping[Modality, Tensor],
    chances: Mapping[int, Mapping[Modality, Tensor]],
) -> dict[Modality, Tensor]:
    """Steps that a condition takes away, by modality bool ``[b, n_m]``."""
    kept = {m: mask for m, mask in real.items() if m in condition.kept}
    gone = {m: torch.ones_like(mask) for m, mask in real.items() if m not in kept}
    if condition.mask_seed is None or not kept:
        return gone
    return gone | missing_steps(kept, chances[condition.mask_seed], condition.rate)
