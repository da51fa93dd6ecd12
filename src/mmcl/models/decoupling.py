"""Decoupling: split every modality into a modality-common and a modality-specific part.

This is the heart of the method, as released and as repaired: pure functions without parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmcl.errors import ShapeError
from mmcl.models.layers import traced

__all__ = [
    "Decoupled",
    "agreement",
    "elementwise_decoupling",
    "similarity_maps",
    "softmax_decoupling",
]

ABSENT, PADDED = 2.0, -10.0
"""Stand-ins for a cosine in the search for partners. ABSENT, of a missing modality, is above every
cosine and never the minimum. PADDED is so low that it is never in the best minimum or mean."""
CANDIDATES = 8
"""Partner steps tried per step and modality in the three-way form; exact for clips this short."""
_BLOCK_ELEMENTS = 1 << 22
"""Numbers in the largest tensor of the search for partners."""
MOST_PAIRS = 1 << 24
"""Cosines that are kept for the gradient: 64 MiB, and as much again for each result derived from
them. More are computed block by block, and a second time for the gradient."""
MOST_PAIRS_AT_ONCE = 1 << 22
"""Cosines in such a block."""


class Decoupled(NamedTuple):
    """The two parts of every modality.

    Attributes:
        common: ``[m, b, n, d]``.
        specific: ``[m, b, n, d]``.
        commonality: How common each step is, ``[m, b, n]``, in 0..1; 0 where padded.
    """

    common: Tensor
    specific: Tensor
    commonality: Tensor


def similarity_maps(rows: Tensor, unit: Tensor) -> Tensor:
    """Return the cosines of some steps of every modality with all steps of every modality.

    Args:
        rows: Some steps of length one, ``[m, b, i, d]``.
        unit: All steps of length one, ``[m, b, n, d]``.

    Returns:
        ``[m, k, b, i, n]``: entry ``[m, k, b, i, j]`` compares row i of m with step j of k.
    """
    return torch.einsum("mbid,kbjd->mkbij", rows, unit)


def softmax_decoupling(
    z: Tensor,
    unit: Tensor,
    step_mask: Tensor,
    *,
    temperature: float = 1.0,
    residual: bool = False,
) -> Decoupled:
    """Decouple by softmax maps, as the released code does.

    ``A_m = softmax(min over the two others of the cosines)``, ``C_m = A_m Z_m`` and
    ``S_m = softmax(1 - A_m) Z_m``. Columns of A_m index the steps of the *other* modalities
    and yet multiply Z_m, so lengths must be equal. This is fault F10, kept as part of the method.

    Args:
        z: Projected steps, ``[m, b, n, d]``.
        unit: Steps of length one for the cosines, same shape; ``z`` itself, normalised, as
            released.
        step_mask: Real steps, bool ``[b, n]``, the same for every modality; a padded column
            gets no weight (mends fault F7).
        temperature: Divides the map before the softmax; 1 as released.
        residual: ``S_m = Z_m - C_m`` in place of the double softmax.

    Returns:
        The parts. Commonality of step j is the mean weight of column j.

    Raises:
        ShapeError: If the mask does not fit.

    Source:
        docs/method.md, decoupling. The double softmax is nearly uniform (fault F3): at n = 20
        the weights of ``softmax(1 - A)`` lay between .0493 and .0506, and no input can
        bring the ratio of two of them above 1.27.
    """
    if step_mask.shape != z.shape[1:3]:
        raise ShapeError(
            f"step_mask must have shape {list(z.shape[1:3])} [clips, steps], "
            f"got {list(step_mask.shape)}"
        )
    padded = ~step_mask[:, None, :]  # columns, [b, 1, n]
    # A clip without any real step keeps uniform weights: the softmax of no column is NaN.
    padded = padded & step_mask.any(dim=1)[:, None, None]
    # Share of each row in the mean over the real rows of its clip.
    share = step_mask.to(z.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    decouple = partial(
        _decouple_rows, z=z, unit=unit, padded=padded, temperature=temperature, residual=residual
    )
    m, b, n = z.shape[:3]
    per_row = m * m * b * n
    if per_row * n <= MOST_PAIRS:
        common, specific, commonality = decouple(unit, share)
    else:  # block by block, and again for the gradient: no complete map is held in memory
        size = max(1, MOST_PAIRS_AT_ONCE // per_row)
        blocks = [
            checkpoint(decouple, rows, part, use_reentrant=False, preserve_rng_state=False)
            for rows, part in zip(
                torch.split(unit, size, dim=2), torch.split(share, size, dim=1), strict=True
            )
        ]
        commons, specifics, weights = zip(*blocks, strict=True)
        common, specific = torch.cat(commons, dim=2), torch.cat(specifics, dim=2)
        commonality = torch.stack(weights).sum(dim=0)
    if residual:
        specific = z - common
    return Decoupled(common, specific, commonality * step_mask)


def _decouple_rows(
    rows: Tensor,
    share: Tensor,
    *,
    z: Tensor,
    unit: Tensor,
    padded: Tensor,
    temperature: float,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return common part, specific part and commonality from some rows of the maps.

    With ``residual`` the caller makes the specific part; the common part is returned in its place.

    Shapes: ``rows`` ``[m, b, i, d]`` and ``share`` ``[b, i]`` in, two of ``[m, b, i, d]`` and
    one ``[m, b, n]`` out.
    """
    cosines = similarity_maps(rows, unit)
    # M_m: minimum over the two other modalities.
    maps = torch.stack([_minimum_of_others(cosines, m) for m in range(len(z))])  # [m, b, i, n]
    # A_m = softmax(M_m), C_m = A_m Z_m.
    weights = (maps / temperature).masked_fill(padded, -torch.inf).softmax(dim=-1)
    common = weights @ z
    specific = common
    if not residual:  # S_m = softmax(1 - A_m) Z_m
        specific = (1 - weights).masked_fill(padded, -torch.inf).softmax(dim=-1) @ z
    return common, specific, torch.einsum("mbij,bi->mbj", weights, share)


def _minimum_of_others(cosines: Tensor, m: int) -> Tensor:
    """Return the minimum over the other modalities of m's cosines; if m is alone, its own."""
    others = [cosines[m, k] for k in range(len(cosines)) if k != m] or [cosines[m, m]]
    return torch.stack(others).amin(dim=0)


def elementwise_decoupling(
    z: Tensor, agreed: Tensor, step_mask: Tensor, threshold: Tensor, temperature: Tensor
) -> Decoupled:
    """Decouple step by step, exactly: ``C + S = Z``.

    Args:
        z: Projected steps, ``[m, b, n, d]``.
        agreed: How well the other modalities confirm each step, ``[m, b, n]``, see
            :func:`agreement`; -inf where nothing can.
        step_mask: Real steps, bool ``[m, b, n]``.
        threshold: Agreement at which a step is half common, scalar.
        temperature: Width of the passage from specific to common, scalar above 0.

    Returns:
        ``commonality = sigmoid((agreed - threshold) / temperature)``,
        ``common = commonality * z``, ``specific = z - common``; padded steps are 0 in both.

    Source:
        docs/method.md, decoupling: our answer to faults F3 and F10.
    """
    # Minus infinity would make the gradient NaN: replace it by 0, and mask the result.
    confirmed = agreed > -torch.inf
    level = (agreed.where(confirmed, 0.0) - threshold) / temperature
    commonality = torch.sigmoid(level) * (step_mask & confirmed)
    real = z * step_mask.unsqueeze(-1)
    common = commonality.unsqueeze(-1) * real
    return Decoupled(common, real - common, commonality)


def agreement(
    unit: Tensor,
    step_mask: Tensor,
    *,
    three_way: bool,
    confirm: str = "min",
    candidates: int = CANDIDATES,
) -> Tensor:
    """Measure how well each step is confirmed by both other modalities.

    Same index (aligned corpora): ``max_j min(cos(m_i, k_j), cos(m_i, l_j))``. Three-way
    (otherwise): ``max_jj' min(cos(m_i, k_j), cos(m_i, l_j'), cos(k_j, l_j'))``. If one other
    modality is absent, it is the best cosine with the one present. It is -inf if both are absent,
    or if the same index is asked for and the two have no real step at the same index.

    The best steps j and j' are called the partners of step i. They are searched without gradient
    and in blocks, so that memory grows linearly with the lengths. Then the cosines with them are
    computed with gradient, which is the gradient of the maximum. Where no gradient is wanted, the
    value that the search has found is enough.

    Args:
        unit: Steps of length one, ``[m, b, n, d]``, m at most 3.
        step_mask: Real steps, bool ``[m, b, n]``.
        three_way: Use the three-way form.
        confirm: ``min`` as above, or the ``mean`` of the cosines instead.
        candidates: Partners tried per other modality in the three-way form.

    Returns:
        ``[m, b, n]``, in -1..1 or -inf; meaningless at padded steps.

    Source:
        docs/method.md, agreement. Ours; the released code takes the minimum of two maps.
    """
    if len(unit) == 1:
        return unit.new_full(unit.shape[:-1], -torch.inf)
    is_padded = traced() or not bool(step_mask.all())
    agreed = []
    for m, steps in enumerate(unit):
        others = [k for k in range(len(unit)) if k != m]
        units, masks = [unit[k] for k in others], [step_mask[k] for k in others]
        paired = three_way and len(others) == 2
        if not paired and confirm == "min" and not torch.is_grad_enabled():
            agreed.append(_best_minimum(steps, units, masks))
            continue
        # Search: an index [b, n] of the partner in each other modality.
        with torch.no_grad():
            indices = _find_partners(steps, units, masks, paired, confirm, candidates)
        # Score: the cosines with these partners, now with gradient.
        partners = [_steps_at(*pair) for pair in zip(units, indices, strict=True)]
        cosines = [(steps * partner).sum(dim=-1) for partner in partners]  # [b, n] each
        present = [mask.any(dim=1, keepdim=True) for mask in masks]  # [b, 1] each
        if not paired and is_padded:  # no index may be real in both other modalities
            padded = [~mask.gather(1, index) for mask, index in zip(masks, indices, strict=True)]
            cosines = [
                cosine.masked_fill(padding & has_steps, -torch.inf)
                for cosine, padding, has_steps in zip(cosines, padded, present, strict=True)
            ]
        if paired:  # the partners must agree with each other, too
            cosines.append((partners[0] * partners[1]).sum(dim=-1))
            present.append(present[0] & present[1])
        agreed.append(_minimum_or_mean(torch.stack(cosines), torch.stack(present), confirm))
    return torch.stack(agreed)


def _minimum_or_mean(cosines: Tensor, present: Tensor, confirm: str) -> Tensor:
    """Return the minimum or mean over the first axis of what is present; -inf without any."""
    if confirm == "min":
        value = cosines.masked_fill(~present, ABSENT).amin(dim=0)
    else:
        value = (cosines * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)
    return value.masked_fill(~present.any(dim=0), -torch.inf)


def _steps_at(unit: Tensor, index: Tensor) -> Tensor:
    """Return step ``index[b, i]`` of clip b: ``[b, n, d]`` and ``[b, i]`` to ``[b, i, d]``."""
    first = torch.arange(unit.shape[0], device=unit.device).unsqueeze(-1) * unit.shape[1]
    # As an embedding look-up: on a CPU several times faster than gather, also backwards.
    return F.embedding(index + first, unit.flatten(0, 1))


def _find_partners(
    steps: Tensor,
    units: list[Tensor],
    masks: list[Tensor],
    paired: bool,
    confirm: str,
    candidates: int,
) -> list[Tensor]:
    """Find the partner of every step in each other modality: an index ``[b, n]`` for each."""
    b, n, d = steps.shape
    blocks = []
    per_step = b * max(n * len(units), candidates * d if paired else 1)
    for cosines in _cosines_in_blocks(steps, units, masks, per_step):
        if paired:
            blocks.append(_best_pair(cosines, units, confirm, candidates))
        else:  # one index for all other modalities: the best after minimum or mean
            score = torch.stack(cosines)
            score = score.amin(dim=0) if confirm == "min" else score.mean(dim=0)
            blocks.append([score.argmax(dim=-1)] * len(units))
    return [torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True)]


def _best_minimum(steps: Tensor, units: list[Tensor], masks: list[Tensor]) -> Tensor:
    """Return the agreement at the same index, ``[b, n]``, with ``confirm="min"``: no gradient."""
    b, n = steps.shape[:2]
    blocks = []
    # In full precision: the search alone may round, but this is the result.
    with torch.autocast(steps.device.type, enabled=False):
        for cosines in _cosines_in_blocks(steps, units, masks, b * n * len(units)):
            best = torch.stack(cosines).amin(dim=0).amax(dim=-1)
            # No step is real in all other modalities, or all of them are absent.
            is_alone = (best == PADDED) | (best == ABSENT)
            blocks.append(best.masked_fill(is_alone, -torch.inf))
    return torch.cat(blocks, dim=1)


def _cosines_in_blocks(
    steps: Tensor, units: list[Tensor], masks: list[Tensor], per_step: int
) -> Iterator[list[Tensor]]:
    """Yield the masked cosines of some steps with every other modality, ``[b, i, n]`` each.

    ``per_step`` is how many numbers the largest tensor of the search has for each step. Blocks are
    cut so that this tensor has at most a fixed size.
    """
    size = max(1, _BLOCK_ELEMENTS // max(per_step, 1))
    for start in range(0, steps.shape[1], size):
        query = steps[:, start : start + size]
        yield [
            _mask_cosines(query @ unit.transpose(1, 2), mask)
            for unit, mask in zip(units, masks, strict=True)
        ]


def _mask_cosines(cosines: Tensor, mask: Tensor) -> Tensor:
    """Replace the cosines with padded steps and with absent modalities by their stand-ins."""
    if not traced() and bool(mask.all()):
        return cosines
    cosines = cosines.masked_fill(~mask.unsqueeze(-2), PADDED)
    return cosines.masked_fill(~mask.any(dim=-1)[..., None, None], ABSENT)


def _best_pair(
    cosines: list[Tensor], units: list[Tensor], confirm: str, candidates: int
) -> list[Tensor]:
    """Find the best pair (j, j') among the candidates of two modalities: two ``[b, i]``."""
    # Candidates: the steps of each modality with the highest cosines.
    few = min(candidates, cosines[0].shape[-1])
    best = [cosine.topk(few, dim=-1) for cosine in cosines]
    left, right = best[0].values.unsqueeze(-1), best[1].values.unsqueeze(-2)
    # Cosines of the candidates of one modality with those of the other, [b, i, few, few].
    left_steps, right_steps = (
        _steps_at(unit, top.indices.flatten(1)).view(*top.indices.shape, -1)
        for unit, top in zip(units, best, strict=True)
    )
    across = left_steps @ right_steps.transpose(-1, -2)
    # An absent modality must not lower the score of the one present.
    across = across.masked_fill((left == ABSENT) | (right == ABSENT), ABSENT)
    if confirm == "min":
        score = torch.minimum(across, torch.minimum(left, right))
    else:
        score = (across + left + right) / 3
    pair = score.flatten(-2).argmax(dim=-1, keepdim=True)  # [b, i, 1], counted row by row
    # From the number of the pair to the two candidates, and from these to their steps.
    choices = (pair // few, pair % few)
    return [
        top.indices.gather(-1, choice).squeeze(-1)
        for top, choice in zip(best, choices, strict=True)
    ]
