"""Split every modality into a modality-common and a modality-specific part.

Pure functions, no parameters: the heart of the method, as released and as repaired.
"""

from __future__ import annotations

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
"""Values in place of a cosine: above all others, so never the minimum; and below all others,
so never the best, nor part of the best mean of three."""
CANDIDATES = 8
"""Partner steps tried per step and modality in the three-way form; exact up to that length."""
_BLOCK_ELEMENTS = 1 << 22
MOST_PAIRS = 1 << 24
"""Cosines the softmax form keeps for the gradient; of longer clips they are computed again."""
MOST_PAIRS_AT_ONCE = 1 << 22


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


def similarity_maps(unit: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cosine of every step of every modality with every step of every modality.

    Args:
        unit: Steps of length one, ``[m, b, n, d]``.
        rows: Compare only these of them, ``[m, b, i, d]``; all by default.

    Returns:
        ``[m, k, b, i, n]``: entry ``[m, k, b, i, j]`` compares row i of m with step j of k.
    """
    return torch.einsum("mbid,kbjd->mkbij", unit if rows is None else rows, unit)


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
    and yet multiply Z_m, so lengths must be equal: fault F10, kept, since it is the method.

    Args:
        z: Projected steps, ``[m, b, n, d]``.
        unit: Steps of length one the cosines are taken of (of ``z`` itself as released), same
            shape.
        step_mask: Real steps, bool ``[b, n]``, the same for every modality; a padded column
            gets no weight (mends fault F7).
        temperature: Divides the map before the softmax; 1 as released.
        residual: ``S_m = Z_m - C_m`` in place of the double softmax.

    Returns:
        The parts. Commonality of step j is the mean weight of column j.

    Raises:
        ShapeError: If the mask does not fit.

    Source:
        METHOD 1. The double softmax is nearly uniform (fault F3): at n = 20 the weights of
        ``softmax(1 - A)`` were seen within about .0493-.0506, and no input can part two of
        them by more than 1.27:1.
    """
    if step_mask.shape != z.shape[1:3]:
        raise ShapeError(
            f"step_mask must have shape {list(z.shape[1:3])} [clips, steps], "
            f"got {list(step_mask.shape)}"
        )
    padded = ~step_mask[:, None, :]  # columns, [b, 1, n]
    # A clip without any real step keeps uniform weights: a row of nothing would be NaN.
    padded = padded & step_mask.any(dim=1)[:, None, None]
    # Share of each row in the mean over the real rows of its clip.
    share = step_mask.to(z.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    decouple = partial(
        _softmax_rows, z=z, unit=unit, padded=padded, temperature=temperature, residual=residual
    )
    m, b, n = z.shape[:3]
    per_row = m * m * b * n
    if per_row * n <= MOST_PAIRS:
        common, specific, commonality = decouple(unit, share)
    else:  # block by block, and again for the gradient: no whole map is ever held
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


def _softmax_rows(
    rows: Tensor,
    share: Tensor,
    *,
    z: Tensor,
    unit: Tensor,
    padded: Tensor,
    temperature: float,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Common part, specific part and commonality from some rows of the maps.

    With ``residual`` the caller makes the specific part; the common one is returned for it.

    Shapes: ``rows`` ``[m, b, i, d]`` and ``share`` ``[b, i]`` in, two of ``[m, b, i, d]`` and
    one ``[m, b, n]`` out.
    """
    cosines = similarity_maps(unit, rows)
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
    """Minimum over the other modalities of m's cosines; those with itself if it is alone."""
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
        temperature: Width of the passage, scalar above 0.

    Returns:
        ``commonality = sigmoid((agreed - threshold) / temperature)``,
        ``common = commonality * z``, ``specific = z - common``; padded steps are 0 in both.

    Source:
        METHOD 2.3, the answer to faults F3 and F10. Ours.
    """
    # Infinity over a temperature has no gradient but NaN: fill it in, then mask it out.
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
    (otherwise): ``max_jj' min(cos(m_i, k_j), cos(m_i, l_j'), cos(k_j, l_j'))``. Where one
    other modality is absent it is the best cosine with the one present; where both are, -inf.

    The best steps j and j', the partners of a step, are searched without gradient and in
    blocks, so that memory grows linearly with the lengths. The gradient flows through the
    cosines with the partners that were found, which is the gradient of the maximum.

    Args:
        unit: Steps of length one, ``[m, b, n, d]``, m at most 3.
        step_mask: Real steps, bool ``[m, b, n]``.
        three_way: Use the three-way form.
        confirm: ``min`` as above, or the ``mean`` of the cosines instead.
        candidates: Best partner steps tried per other modality in the three-way form.

    Returns:
        ``[m, b, n]``, in -1..1 or -inf; meaningless at padded steps.

    Source:
        METHOD 2.3. Ours; the released code takes the minimum of two maps entry by entry.
    """
    if len(unit) == 1:
        return unit.new_full(unit.shape[:-1], -torch.inf)
    agreed = []
    for m, steps in enumerate(unit):
        others = [k for k in range(len(unit)) if k != m]
        units, masks = [unit[k] for k in others], [step_mask[k] for k in others]
        paired = three_way and len(others) == 2
        with torch.no_grad():
            indices = _find_partners(steps, units, masks, paired, confirm, candidates)
        partners = [_take_steps(*pair) for pair in zip(units, indices, strict=True)]
        cosines = [(steps * partner).sum(dim=-1) for partner in partners]  # [b, n] each
        present = [mask.any(dim=1, keepdim=True) for mask in masks]  # [b, 1] each
        if paired:  # the partners must agree with each other, too
            cosines.append((partners[0] * partners[1]).sum(dim=-1))
            present.append(present[0] & present[1])
        agreed.append(_combine(torch.stack(cosines), torch.stack(present), confirm))
    return torch.stack(agreed)


def _combine(cosines: Tensor, present: Tensor, confirm: str) -> Tensor:
    """Minimum or mean over the first axis of the cosines that are present; -inf without any."""
    if confirm == "min":
        value = cosines.masked_fill(~present, ABSENT).amin(dim=0)
    else:
        value = (cosines * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)
    return value.masked_fill(~present.any(dim=0), -torch.inf)


def _take_steps(unit: Tensor, index: Tensor) -> Tensor:
    """Pick step ``index[b, i]`` of clip b: ``[b, n, d]`` and ``[b, i]`` to ``[b, i, d]``."""
    first = torch.arange(unit.shape[0], device=unit.device).unsqueeze(-1) * unit.shape[1]
    # The look-up of an embedding: on a CPU several times faster than gather, also backwards.
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
    # As many steps at a time as keep the largest tensor of the search below a fixed size.
    per_step = max(b * max(n * len(units), candidates * d if paired else 1), 1)
    size = max(1, _BLOCK_ELEMENTS // per_step)
    blocks = []
    for start in range(0, n, size):
        query = steps[:, start : start + size]
        cosines = [
            _mask_cosines(query @ unit.transpose(1, 2), mask)  # [b, i, n]
            for unit, mask in zip(units, masks, strict=True)
        ]
        if paired:
            blocks.append(_best_pair(cosines, units, confirm, candidates))
        else:  # the same index in every other modality
            score = torch.stack(cosines)
            score = score.amin(dim=0) if confirm == "min" else score.mean(dim=0)
            blocks.append([score.argmax(dim=-1)] * len(units))
    return [torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True)]


def _mask_cosines(cosines: Tensor, mask: Tensor) -> Tensor:
    """Let padding never be the best partner, nor an absent modality the least to agree."""
    if not traced() and bool(mask.all()):
        return cosines
    cosines = cosines.masked_fill(~mask.unsqueeze(-2), PADDED)
    return cosines.masked_fill(~mask.any(dim=-1)[..., None, None], ABSENT)


def _best_pair(
    cosines: list[Tensor], units: list[Tensor], confirm: str, candidates: int
) -> list[Tensor]:
    """Find the best (j, j') among the best candidates of two modalities: two ``[b, i]``."""
    few = min(candidates, cosines[0].shape[-1])
    best = [cosine.topk(few, dim=-1) for cosine in cosines]
    left, right = best[0].values.unsqueeze(-1), best[1].values.unsqueeze(-2)
    # Cosines of the candidates of one modality with those of the other, [b, i, few, few].
    ahead, behind = (
        _take_steps(unit, top.indices.flatten(1)).view(*top.indices.shape, -1)
        for unit, top in zip(units, best, strict=True)
    )
    across = ahead @ behind.transpose(-1, -2)
    across = across.masked_fill((left == ABSENT) | (right == ABSENT), ABSENT)
    if confirm == "min":
        score = torch.minimum(across, torch.minimum(left, right))
    else:
        score = (across + left + right) / 3
    pair = score.flatten(-2).argmax(dim=-1, keepdim=True)  # [b, i, 1], counting row by row
    choices = (pair // few, pair % few)
    return [
        top.indices.gather(-1, choice).squeeze(-1)
        for top, choice in zip(best, choices, strict=True)
    ]
