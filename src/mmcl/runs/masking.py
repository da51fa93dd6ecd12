"""Predict clips with some of their steps, or whole modalities, missing.

A missing step is masked; for a network that knows one length per clip (``released``) it becomes
zeros. The missing steps are drawn from the corpus and the mask seed alone, so all networks lose
the same steps. A step that is missing at one rate is missing at all higher rates. A clip keeps at
least one step.
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
    """A way of damaging clips."""

    kept: tuple[Modality, ...]  # modalities that stay
    rate: float = 0.0  # probability that a step of them is missing, 0 to below 1
    mask_seed: int | None = None  # seed of the draw of missing steps; None if none is missing


def conditions_of(
    modalities: Sequence[Modality], rates: Sequence[float], mask_seeds: Sequence[int]
) -> list[Condition]:
    """Return the conditions of a sweep: complete clips, all rates and draws, smaller subsets."""
    used = tuple(modalities)
    damaged = [Condition(used, rate, seed) for rate in rates if rate for seed in mask_seeds]
    smaller = [Condition(kept) for kept in subsets_of(used) if kept != used]
    return [Condition(used), *damaged, *smaller]


def subsets_of(modalities: tuple[Modality, ...]) -> list[tuple[Modality, ...]]:
    """Return the subsets with at least one modality, the smallest first."""
    sizes = range(1, len(modalities) + 1)
    return [kept for size in sizes for kept in combinations(modalities, size)]


def draw_chances(split: Split, mask_seed: int) -> dict[Modality, NDArray[np.float64]]:
    """Draw a number in 0..1 for every step. The step is missing if the rate is above it.

    Returns:
        Per modality float64 ``[steps of all clips]``, clip after clip.
    """
    # A generator per modality: its numbers do not depend on which others the corpus has.
    generators = {m: np.random.default_rng([mask_seed, MODALITIES.index(m)]) for m in MODALITIES}
    return {m: generators[m].random(int(split.lengths(m).sum())) for m in split.modalities}


def missing_steps(
    real: Mapping[Modality, Tensor], chances: Mapping[Modality, Tensor], rate: float
) -> dict[Modality, Tensor]:
    """Return the real steps that are missing at a rate, per modality bool ``[b, n_m]``.

    ``real`` marks the real steps, and ``chances`` are their numbers of :func:`draw_chances`; both
    are ``[b, n_m]`` per modality.
    """
    # Padding gets -1, below all numbers, so that it is neither missing nor the step that stays.
    ranked = torch.cat([chances[m].masked_fill(~mask, -1.0) for m, mask in real.items()], dim=1)
    missing = (ranked >= 0) & (ranked < rate)  # [b, sum of n_m]
    # The step with the largest number stays at every rate, so no clip is empty.
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

    Labels are not used. ``advance`` is called with the number of clips predicted under a
    condition.

    Returns:
        By condition float64 scores of all clips, in the order of the split.
    """
    seeds = sorted({c.mask_seed for c in conditions if c.mask_seed is not None})
    chances = {seed: draw_chances(split, seed) for seed in seeds}
    scores: dict[Condition, list[NDArray[np.float64]]] = {c: [] for c in conditions}
    with model.evaluating():
        # A batch is read once and then damaged under all conditions.
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
    """Return the steps that were measured, by modality bool ``[b, n_m]``."""
    masks = {m: mask.cpu() for m, mask in batch.masks.items()}
    if not split.card.missing_as_zero:
        return masks
    # The masks of ``released`` count missing steps as real; their features are all zero.
    return {m: mask & batch.features[m].any(dim=-1).cpu() for m, mask in masks.items()}


def _pad_chances(
    chances: Mapping[Modality, NDArray[np.float64]],
    split: Split,
    rows: NDArray[np.int64],
    real: Mapping[Modality, Tensor],
) -> dict[Modality, Tensor]:
    """Return the numbers of consecutive clips as a batch, by modality ``[b, n_m]``."""
    padded = {}
    for modality, mask in real.items():
        lengths = split.lengths(modality)
        first = int(lengths[: rows[0]].sum())  # steps of all clips before these
        numbers = np.zeros(tuple(mask.shape))
        inside = np.arange(mask.shape[1]) < lengths[rows, None]  # also steps that were not measured
        numbers[inside] = chances[modality][first : first + int(inside.sum())]
        padded[modality] = torch.from_numpy(numbers)
    return padded


def _missing_under(
    condition: Condition,
    real: Mapping[Modality, Tensor],
    chances: Mapping[int, Mapping[Modality, Tensor]],
) -> dict[Modality, Tensor]:
    """Return the steps that a condition takes away, by modality bool ``[b, n_m]``."""
    kept = {m: mask for m, mask in real.items() if m in condition.kept}
    gone = {m: torch.ones_like(mask) for m, mask in real.items() if m not in kept}
    if condition.mask_seed is None or not kept:
        return gone
    return gone | missing_steps(kept, chances[condition.mask_seed], condition.rate)
