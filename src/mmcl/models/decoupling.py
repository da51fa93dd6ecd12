"""Split every modality into a modality-common and a modality-specific part.

Pure functions, no parameters: the heart of the method, as released and as repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
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
"""Stand-ins for a cosine: above all (never the least), below all (never the best, nor in the
best mean with any two others)."""
CANDIDATES = 8
"""Partner steps looked at per step and modality in the three-way form; exact up to that length."""
SHORT = 64
"""Steps up to which all cosines are kept for the gradient: less work than those of partners."""
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
    if traced():
        real = z * step_mask.unsqueeze(-1)
        common = commonality.unsqueeze(-1) * real
        return Decoupled(common, real - common, commonality)
    real = z if bool(step_mask.all()) else z * step_mask.unsqueeze(-1)
    common, specific = _Split.apply(real, commonality)  # type: ignore[no-untyped-call]
    return Decoupled(common, specific, commonality)


class _Split(torch.autograd.Function):
    """``common = share * z`` and ``specific = z - common``, with half of torch's passes."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z, share)
        common = share.unsqueeze(-1) * z
        return common, z - common

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_common: Tensor, of_specific: Tensor) -> Any:
        z, share = ctx.saved_tensors
        apart = of_common - of_specific
        of_share = torch.linalg.vecdot(apart, z) if ctx.needs_input_grad[1] else None
        return torch.addcmul(of_specific, share.unsqueeze(-1), apart), of_share


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
    if unit.shape[2] <= SHORT and not traced():
        return _agreement_of_short(unit, step_mask, three_way and m == 3, confirm, candidates)
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
    return _confirm(cosines.movedim(1, 0), counted.movedim(1, 0), confirm)


def _agreement_of_short(
    unit: Tensor, step_mask: Tensor, three_way: bool, confirm: str, candidates: int
) -> Tensor:
    """The same from all cosines of every two modalities, computed once, with their gradient."""
    m, each_unit = len(unit), unit.unbind(0)
    pairs = [(k, q) for q in range(m) for k in range(q)]
    cosines = {(k, q): torch.bmm(each_unit[k], each_unit[q].transpose(1, 2)) for k, q in pairs}
    cosines |= {(q, k): of_two.transpose(1, 2) for (k, q), of_two in cosines.items()}
    others = [[k for k in range(m) if k != i] for i in range(m)]
    # Of every modality's first other one, and of its second: [m, b, n, n] each.
    sims = [
        torch.stack([cosines[i, each[at]] for i, each in enumerate(others)]) for at in range(m - 1)
    ]
    seen = [s.detach() for s in sims]
    if not step_mask.all():
        masks = [step_mask[[each[at] for each in others]] for at in range(m - 1)]
        seen = [_masked(s, mask) for s, mask in zip(seen, masks, strict=True)]
    across = torch.stack([cosines[k, q] for k, q in others]) if three_way else None
    if across is None:
        places = _best_shared_index(seen, confirm)
    else:
        places = _best_pair(seen, partial(_across_of_all, across.detach()), confirm, candidates)
    found = [s.gather(-1, at.unsqueeze(-1)).squeeze(-1) for s, at in zip(sims, places, strict=True)]
    counted = step_mask.any(dim=2)[torch.tensor(others).t()].unsqueeze(-1)  # [m - 1, m, b, 1]
    if across is not None:
        one, other = (at.unsqueeze(-1) for at in places)
        found.append(_across_of_all(across, one, other).flatten(-2).squeeze(-1))
        counted = torch.cat([counted, counted.all(dim=0, keepdim=True)])
    return _confirm(torch.stack(found), counted, confirm)


def _across_of_all(cosines: Tensor, at: Tensor, at_other: Tensor) -> Tensor:
    """Cosines of some steps, from all of them ``[..., n, n]``: ``[..., i, few, few]``."""
    places = at.unsqueeze(-1) * cosines.shape[-1] + at_other.unsqueeze(-2)
    return cosines.flatten(-2).gather(-1, places.flatten(-3)).view(places.shape)


def _confirm(cosines: Tensor, counted: Tensor, confirm: str) -> Tensor:
    """Least or mean over the first axis of the cosines that count; -inf where none does."""
    if confirm == "min":
        value = cosines.masked_fill(~counted, ABSENT).amin(dim=0)
    else:
        value = (cosines * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)
    return value.masked_fill(~counted.any(dim=0), -torch.inf)


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
        sims = [_masked(query @ unit[k].transpose(1, 2), step_mask[k]) for k in others]
        if three_way and len(others) == 2:
            across = partial(_across_of_steps, unit[others[0]], unit[others[1]])
            best = _best_pair(sims, across, confirm, candidates)
        else:
            best = _best_shared_index(sims, confirm)
        for column, at in zip(found, best, strict=True):
            column.append(at)
    return torch.stack([torch.cat(column, dim=1) for column in found])


def _across_of_steps(one: Tensor, other: Tensor, at: Tensor, at_other: Tensor) -> Tensor:
    """Cosines of some steps of two modalities, ``[b, i, few]`` of each: ``[b, i, few, few]``."""
    steps = [
        _take_steps(unit, picked.flatten(1)).view(*picked.shape, unit.shape[-1])
        for unit, picked in ((one, at), (other, at_other))
    ]
    return steps[0] @ steps[1].transpose(-1, -2)


def _masked(cosines: Tensor, mask: Tensor) -> Tensor:
    """Cosines with the steps of a modality, ``[..., i, n]``: none of its padding is the best."""
    cosines = cosines.masked_fill(~mask.unsqueeze(-2), PADDED)
    return cosines.masked_fill(~mask.any(dim=-1)[..., None, None], ABSENT)


def _best_shared_index(sims: list[Tensor], confirm: str) -> list[Tensor]:
    both = torch.stack(sims)
    score = both.amin(dim=0) if confirm == "min" else both.mean(dim=0)
    at = score.argmax(dim=-1)
    return [at] * len(sims)


def _best_pair(
    sims: list[Tensor],
    across_of: Callable[[Tensor, Tensor], Tensor],
    confirm: str,
    candidates: int,
) -> list[Tensor]:
    """Best (j, j') among the best few of each; where one side is absent, the other's best.

    Args:
        sims: Masked cosines of the steps i with those of both other modalities,
            ``[..., i, n]``.
        across_of: Cosines of the few steps of the one with those of the other,
            ``[..., i, few]`` each to ``[..., i, few, few]``.
        confirm: As for :func:`agreement`.
        candidates: How many are few.
    """
    few = min(candidates, sims[0].shape[-1])
    top = [s.topk(few, dim=-1) for s in sims]
    across = across_of(top[0].indices, top[1].indices)
    left, right = top[0].values.unsqueeze(-1), top[1].values.unsqueeze(-2)
    across = across.masked_fill((left == ABSENT) | (right == ABSENT), ABSENT)
    if confirm == "min":
        score = torch.minimum(across, torch.minimum(left, right))
    else:
        score = (across + left + right) / 3
    best = score.flatten(-2).argmax(dim=-1, keepdim=True)  # [..., i, 1]
    at = (best // few, best % few)
    return [t.indices.gather(-1, i).squeeze(-1) for t, i in zip(top, at, strict=True)]
