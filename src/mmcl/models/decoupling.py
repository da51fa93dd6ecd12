"""Split every modality into a modality-common and a modality-specific part.

Pure functions, no parameters: the heart of the method, as released and as repaired.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmcl.errors import ShapeError

__all__ = [
    "Decoupled",
    "agreement",
    "elementwise_decoupling",
    "similarity_maps",
    "softmax_decoupling",
]

ABSENT, PADDED = 2.0, -10.0
"""Stand-ins for a cosine: above all (never the least), below all (never the best, nor in the
best mean with any two others)."""
CANDIDATES = 8
"""Partner steps looked at per step and modality in the three-way form; exact up to that length."""
_BLOCK_ELEMENTS = 1 << 22
MOST_PAIRS = 1 << 24
"""Cosines that the softmax form keeps for the gradient at once; beyond, only their parts."""
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


def similarity_maps(unit: Tensor) -> Tensor:
    """Cosine of every step of every modality with every step of every modality.

    Args:
        unit: Steps of length one, ``[m, b, n, d]``.

    Returns:
        ``[m, k, b, n, n]``: entry ``[m, k, b, i, j]`` compares step i of m with step j of k.
    """
    return torch.einsum("mbid,kbjd->mkbij", unit, unit)


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
    columns = ~step_mask[:, None, :]  # [b, 1, n]
    # A clip none of whose steps is real keeps uniform weights: no row may be empty.
    columns = columns & step_mask.any(dim=1)[:, None, None]
    rows = step_mask.to(z.dtype)
    rows = rows / rows.sum(dim=1, keepdim=True).clamp(min=1)
    m, b, n = z.shape[:3]
    per_row = m * m * b * n
    some = partial(
        _softmax_rows,
        z=z,
        unit=unit,
        columns=columns,
        temperature=temperature,
        residual=residual,
    )
    if per_row * n <= MOST_PAIRS:
        common, specific, commonality = some(unit, rows)
    else:  # some rows at a time, and once more for the gradient: the maps are never whole
        size = max(1, MOST_PAIRS_AT_ONCE // per_row)
        parts = [
            checkpoint(some, query, share, use_reentrant=False, preserve_rng_state=False)
            for query, share in zip(
                torch.split(unit, size, dim=2), torch.split(rows, size, dim=1), strict=True
            )
        ]
        commons, specifics, shares = zip(*parts, strict=True)
        common, specific = torch.cat(commons, dim=2), torch.cat(specifics, dim=2)
        commonality = torch.stack(shares).sum(dim=0)
    if residual:
        specific = z - common
    return Decoupled(common, specific, commonality * step_mask)


def _softmax_rows(
    query: Tensor,
    rows: Tensor,
    *,
    z: Tensor,
    unit: Tensor,
    columns: Tensor,
    temperature: float,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both parts of the steps ``query`` and their share of the commonality.

    Where the specific part is what the common one leaves, the common one is returned for both.

    Shapes: ``query`` ``[m, b, i, d]`` and ``rows`` ``[b, i]`` in, two of ``[m, b, i, d]`` and
    one ``[m, b, n]`` out.
    """
    sims = torch.einsum("mbid,kbjd->mkbij", query, unit)
    maps = torch.stack([_least_of_others(sims, m) for m in range(len(z))])  # [m, b, i, n]
    shares = (maps / temperature).masked_fill(columns, -torch.inf).softmax(dim=-1)
    common = shares @ z
    specific = common
    if not residual:
        specific = (1 - shares).masked_fill(columns, -torch.inf).softmax(dim=-1) @ z
    return common, specific, torch.einsum("mbij,bi->mbj", shares, rows)


def _least_of_others(sims: Tensor, m: int) -> Tensor:
    others = [sims[m, k] for k in range(len(sims)) if k != m]
    if not others:
        return sims[m, m]
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
    """How well each step is confirmed by both other modalities.

    Same index (aligned corpora): ``max_j min(cos(m_i, k_j), cos(m_i, l_j))``. Three-way
    (otherwise): ``max_jj' min(cos(m_i, k_j), cos(m_i, l_j'), cos(k_j, l_j'))``. Where one
    other modality is absent it is the best cosine with the one present; where both are, -inf.

    The partners are searched without gradient, in blocks, so that memory grows linearly
    with the lengths; gradient then flows through the cosines with the partners found, which
    is the gradient of the maximum.

    Args:
        unit: Steps of length one, ``[m, b, n, d]``, m at most 3.
        step_mask: Real steps, bool ``[m, b, n]``.
        three_way: Which of the two forms.
        confirm: ``min`` as above, or ``mean`` of the cosines in its place.
        candidates: Best partner steps tried per other modality in the three-way form.

    Returns:
        ``[m, b, n]``, in -1..1 or -inf; meaningless at padded steps.

    Source:
        METHOD 2.3. Ours; the released code takes the least of two maps entry by entry.
    """
    m = len(unit)
    if m == 1:
        return unit.new_full(unit.shape[:-1], -torch.inf)
    others = torch.tensor([[k for k in range(m) if k != i] for i in range(m)], device=unit.device)
    with torch.no_grad():
        chosen = [
            _find_partners(i, others[i].tolist(), unit, step_mask, three_way, confirm, candidates)
            for i in range(m)
        ]
    partners = _take_partners(unit, others, torch.stack(chosen))  # [m, k, b, n, d]
    cosines = (unit.unsqueeze(1) * partners).sum(dim=-1)  # [m, k, b, n]
    counted = step_mask.any(dim=2)[others].unsqueeze(-1).expand_as(cosines)
    if three_way and m == 3:
        across = (partners[:, 0] * partners[:, 1]).sum(dim=-1, keepdim=True).movedim(-1, 1)
        cosines = torch.cat([cosines, across], dim=1)
        counted = torch.cat([counted, counted.all(dim=1, keepdim=True)], dim=1)
    return _confirm(cosines, counted, confirm)


def _confirm(cosines: Tensor, counted: Tensor, confirm: str) -> Tensor:
    """Least or mean over the second axis of the cosines that count; -inf where none does."""
    if confirm == "min":
        value = cosines.masked_fill(~counted, ABSENT).amin(dim=1)
    else:
        value = (cosines * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    return value.masked_fill(~counted.any(dim=1), -torch.inf)


def _take_partners(unit: Tensor, others: Tensor, at: Tensor) -> Tensor:
    """Step ``at[m, k, b, i]`` of clip b of m's k-th other modality: ``[m, k, b, i, d]``."""
    m, b, n, d = unit.shape
    clips = torch.arange(m * b, device=unit.device).view(m, b, 1) * n
    flat = unit.reshape(m * b * n, d).index_select(0, (clips[others] + at).flatten())
    return flat.view(*at.shape, d)


def _take_steps(unit: Tensor, at: Tensor) -> Tensor:
    """Pick step ``at[b, i]`` of clip b: ``[b, n, d]``, ``[b, i] -> [b, i, d]``."""
    return _take_partners(unit.unsqueeze(0), at.new_zeros(1, 1), at[None, None])[0, 0]


def _find_partners(
    m: int,
    others: list[int],
    unit: Tensor,
    step_mask: Tensor,
    three_way: bool,
    confirm: str,
    candidates: int,
) -> Tensor:
    """For every step of m, the index of its partner in each of the k others, ``[k, b, n]``."""
    b, n, d = unit.shape[1:]
    per_row = max(b, 1) * max(n * len(others), candidates * d if three_way else 1, 1)
    block = max(1, _BLOCK_ELEMENTS // per_row)
    found: list[list[Tensor]] = [[] for _ in others]
    for start in range(0, n, block):
        query = unit[m, :, start : start + block]
        sims = [_masked_cosines(query, unit[k], step_mask[k]) for k in others]
        if three_way and len(others) == 2:
            best = _best_pair(sims, unit, others, confirm, candidates)
        else:
            best = _best_shared_index(sims, confirm)
        for column, at in zip(found, best, strict=True):
            column.append(at)
    return torch.stack([torch.cat(column, dim=1) for column in found])


def _masked_cosines(query: Tensor, unit: Tensor, mask: Tensor) -> Tensor:
    cosines = query @ unit.transpose(1, 2)  # [b, block, n]
    cosines = cosines.masked_fill(~mask[:, None, :], PADDED)
    return cosines.masked_fill(~mask.any(dim=1)[:, None, None], ABSENT)


def _best_shared_index(sims: list[Tensor], confirm: str) -> list[Tensor]:
    both = torch.stack(sims)
    score = both.amin(dim=0) if confirm == "min" else both.mean(dim=0)
    at = score.argmax(dim=-1)
    return [at] * len(sims)


def _best_pair(
    sims: list[Tensor], unit: Tensor, others: list[int], confirm: str, candidates: int
) -> list[Tensor]:
    """Best (j, j') among the best few of each; where one side is absent, the other's best."""
    b, block, n = sims[0].shape
    few = min(candidates, n)
    top = [s.topk(few, dim=-1) for s in sims]
    steps = [
        _take_steps(unit[k], t.indices.flatten(1)).view(b, block, few, unit.shape[-1])
        for k, t in zip(others, top, strict=True)
    ]
    across = steps[0] @ steps[1].transpose(-1, -2)  # [b, block, few, few]
    left, right = top[0].values.unsqueeze(-1), top[1].values.unsqueeze(-2)
    across = across.masked_fill((left == ABSENT) | (right == ABSENT), ABSENT)
    if confirm == "min":
        score = torch.minimum(across, torch.minimum(left, right))
    else:
        score = (across + left + right) / 3
    best = score.flatten(-2).argmax(dim=-1, keepdim=True)  # [b, block, 1]
    at = (best // few, best % few)
    return [t.indices.gather(-1, i).squeeze(-1) for t, i in zip(top, at, strict=True)]
