"""Attention and transformer blocks over the steps that count, without those that do not.

A step that a policy drops, and one that only fills up a clip, can matter to nothing: its key
has no weight, it is pooled with none, and no gradient comes back from it. So it need not be
computed. The steps that count are packed into rows, those of one modality after the other; all
products and norms work on rows, and only the scores of attention on clips padded to the most
rows that any of them has.

Forward and backward pass are written out, so that every row is read and written as rarely as
can be, in few calls: on small batches it is these that take the time. What comes out is what
:class:`~mmcl.models.layers.ModalityBlock` and
:class:`~mmcl.models.attention.IntraModalAttention` give, pooled: a test holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmcl.models.attention import IntraModalAttention
from mmcl.models.layers import (
    LONG_SEQUENCE,
    NEVER,
    ModalityBlock,
    ModalityLinear,
    ModalityNorm,
    traced,
)

__all__ = ["Rows", "attend_packed", "can_pack", "is_hard", "pack", "transform_packed"]

_EPSILON = 1e-5  # of layer normalisation, torch's own


FEWEST_STEPS = 256
"""Of a batch, from which on finding those that count takes less than it saves."""


def can_pack(steps: Tensor) -> bool:
    """Whether to pack steps: many, in float32 or more, on a CPU, by torch itself, and not long.

    What is being compiled or exported must not depend on how many steps count, reduced
    precision is torch's to choose, and very long clips need attention in linear memory.
    """
    return (
        steps.device.type == "cpu"
        and steps.shape[1] * steps.shape[2] >= FEWEST_STEPS
        and steps.shape[-2] < LONG_SEQUENCE
        and not torch.is_autocast_enabled("cpu")
        and not traced()
    )


def is_hard(weight: Tensor) -> bool:
    """Whether every step, in 0..1, counts wholly or not at all, and nothing is learnt of it."""
    return not weight.requires_grad and torch.equal(weight, weight.ceil())


class Rows(NamedTuple):
    """Where the steps are that count.

    The clips of all modalities are counted through: c is m times b. A clip has k slots, at least
    as many as rows; those beyond its rows are empty.

    Attributes:
        at: Of every row, its place among all steps ``[c * n]``, in order: ``[r]``.
        clip: Of every row, its clip: ``[r]``.
        first: Of every clip, its first row: ``[c]``.
        slot: Of every row, its place among the slots ``[c * k]``: ``[r]``.
        row: Of every slot, its row; 0 where it is empty: ``[c * k]``.
        bias: What is added to the scores of a slot's key, 0 or never: ``[c, k]``.
        of_slots: The heads of queries, keys and values in the order of the slots,
            ``[3 * c * heads * k]``, among those of the rows, ``[r, 3, heads]``.
        of_rows: The heads of the rows, ``[r * heads]``, among those of the slots,
            ``[c, heads, k]``.
    """

    at: Tensor
    clip: Tensor
    first: Tensor
    slot: Tensor
    row: Tensor
    bias: Tensor
    of_slots: Tensor
    of_rows: Tensor


def pack(weight: Tensor, heads: int) -> tuple[Rows, list[int]]:
    """Find the steps that count: those with a weight above 0.

    Args:
        weight: ``[m, b, n]``.
        heads: Of the attention between the steps.

    Returns:
        Where they are, and how many rows each modality has.
    """
    m, b, n = weight.shape
    counts = (weight > 0).view(m * b, n)
    if bool(counts.all()):
        return _all_rows(m * b, n, heads, weight.dtype), [b * n] * m
    sizes: list[int] = counts.view(m, -1).sum(dim=1).tolist()
    return _find_rows(counts, heads, weight.dtype), sizes


@lru_cache(maxsize=8)
def _all_rows(clips: int, steps: int, heads: int, dtype: torch.dtype) -> Rows:
    with torch.inference_mode(False):  # it will be asked for again, perhaps with a gradient
        return _find_rows(torch.ones(clips, steps, dtype=torch.bool), heads, dtype)


def _find_rows(counts: Tensor, heads: int, dtype: torch.dtype) -> Rows:
    c, n = counts.shape
    at = counts.flatten().nonzero().squeeze(1)
    per_clip = counts.sum(dim=1)
    first = per_clip.cumsum(dim=0) - per_clip
    clip = at.div(n, rounding_mode="floor")
    k = _handy(int(per_clip.max()) if c else 0)
    number, head = torch.arange(len(at)), torch.arange(3 * heads)
    within = number - first.index_select(0, clip)
    slot = within + clip * k
    row = torch.zeros(c * k, dtype=torch.long).index_copy_(0, slot, number)
    empty = torch.arange(k) >= per_clip.unsqueeze(1)
    bias = torch.zeros(c, k, dtype=dtype).masked_fill_(empty, NEVER)
    of_slots = row.view(c, 1, k) * (3 * heads) + head.view(3, 1, heads, 1)
    of_rows = (within + clip * (k * heads)).unsqueeze(1) + head[:heads] * k
    return Rows(at, clip, first, slot, row, bias, of_slots.flatten(), of_rows.flatten())


def _handy(count: int) -> int:
    """So many slots or a few more: torch's softmax goes value by value beyond whole 16s."""
    beyond = count % 16
    return count if count > 16 and beyond <= 8 else max(count + (-count) % 16, 16)


# ---------------------------------------------------------------- parts of both functions


class _Attended(NamedTuple):
    """What the gradient of attention needs: ``[c * heads, k, d / heads]`` and scores."""

    query: Tensor
    key: Tensor
    value: Tensor
    shares: Tensor


def _attention(
    qkv: Tensor, bias: Tensor | None, rows: Rows, heads: int
) -> tuple[Tensor, _Attended]:
    """Contexts of the rows.

    Args:
        qkv: Queries, keys and values, ``[r, 3d]``.
        bias: Added to the scores of a row's key, ``[r]``; None is 0.
        rows: Where they are.
        heads: Heads H.

    Returns:
        ``[r, d]``, and what the gradient needs.
    """
    clips, k = rows.bias.shape
    width = qkv.shape[1] // (3 * heads)
    padded = qkv.view(-1, width).index_select(0, rows.of_slots)
    query, key, value = padded.view(3, clips * heads, k, width).unbind(0)
    of_key = rows.bias
    if bias is not None:
        of_key = of_key + bias.index_select(0, rows.row).view(clips, k)
    of_key = of_key.unsqueeze(1).expand(clips, heads, k).reshape(-1, 1, k)
    scores = torch.baddbmm(of_key, query, key.transpose(1, 2), alpha=width**-0.5)
    shares = torch.softmax(scores, dim=-1)
    context = torch.bmm(shares, value).view(-1, width).index_select(0, rows.of_rows)
    return context.view(-1, heads * width), _Attended(query, key, value, shares)


def _attention_backward(
    grad: Tensor, seen: _Attended, rows: Rows, *, to_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of :func:`_attention`: to ``qkv`` ``[r, 3d]``, and to the bias ``[r]``."""
    query, key, value, shares = seen
    batch, k, width = query.shape
    context = grad.new_zeros(batch * k, width)  # adding to 0 is quicker than to put
    context = context.index_add_(0, rows.of_rows, grad.view(-1, width)).view(batch, k, width)
    to_scores = torch.bmm(context, value.transpose(1, 2))
    to_scores = torch._softmax_backward_data(to_scores, shares, -1, shares.dtype)
    of_rows = None
    if to_bias:
        of_slots = to_scores.sum(dim=1).view(len(rows.bias), -1, k).sum(dim=1)
        of_rows = of_slots.flatten().index_select(0, rows.slot)
    to_scores.mul_(width**-0.5)
    padded = grad.new_empty(3, batch, k, width)
    to_query, to_key, to_value = padded.unbind(0)
    torch.bmm(to_scores, key, out=to_query)
    torch.bmm(to_scores.transpose(1, 2), query, out=to_key)
    torch.bmm(shares.transpose(1, 2), context, out=to_value)
    part = torch.arange(3).view(1, 3, 1) * (batch * k)
    at = (rows.of_rows.view(len(grad), 1, -1) + part).flatten()
    return padded.view(-1, width).index_select(0, at).view(len(grad), -1), of_rows


def _each(
    of_modalities: Sequence[Tensor], of_rows: Sequence[Tensor], sizes: list[int]
) -> Iterator[tuple[Tensor, ...]]:
    """Modality by modality, what tensors ``[m, ...]`` and tensors ``[r, ...]`` hold of it.

    Where steps are weighted in several ways, the modalities come once for each of them.
    """
    whole = (x.unbind(0) * (len(sizes) // len(x)) for x in of_modalities)
    return zip(*whole, *(x.split_with_sizes(sizes) for x in of_rows), strict=True)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
    """Every modality's own ``x W + b``: ``[r, in] -> [r, out]``."""
    if _alike(sizes, weight):
        return torch.baddbmm(bias, _by_modality(x, sizes), weight).flatten(0, 1)
    out = x.new_empty(len(x), weight.shape[2])
    for of_bias, of_weight, of_x, its in _each((bias, weight), (x, out), sizes):
        torch.addmm(of_bias, of_x, of_weight, out=its)
    return out


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, sizes: list[int], *, onto: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`_linear` to its input, added ``onto`` another, its weight and bias."""
    to_x = torch.empty_like(x) if onto is None else onto
    if _alike(sizes, weight):
        own, of_x, into = (_by_modality(each, sizes) for each in (grad, x, to_x))
        torch.baddbmm(into, own, weight.transpose(1, 2), beta=onto is not None, out=into)
        return to_x, torch.bmm(of_x.transpose(1, 2), own), own.sum(dim=1, keepdim=True)
    to_weight = torch.empty_like(weight)
    to_bias = weight.new_empty(len(weight), 1, weight.shape[2])
    given = (
        grad.split_with_sizes(sizes),
        x.t().split_with_sizes(sizes, 1),
        weight.transpose(1, 2).unbind(0),
    )
    found = to_x.split_with_sizes(sizes), to_weight.unbind(0), to_bias.unbind(0)
    for own, flat_x, back, its_x, its_weight, its_bias in zip(*given, *found, strict=True):
        torch.addmm(its_x, own, back, beta=onto is not None, out=its_x)
        torch.mm(flat_x, own, out=its_weight)
        torch.sum(own, dim=0, keepdim=True, out=its_bias)
    return to_x, to_weight, to_bias


def _alike(sizes: list[int], weight: Tensor) -> bool:
    """Whether each modality has as many rows, so that one call does for all."""
    return len(sizes) == len(weight) and len(set(sizes)) == 1


def _by_modality(x: Tensor, sizes: list[int]) -> Tensor:
    return x.view(len(sizes), sizes[0], x.shape[1])


class _Normal(NamedTuple):
    """What the gradient of layer normalisation needs."""

    x: Tensor
    mean: Tensor
    slope: Tensor


def _normal(x: Tensor) -> tuple[Tensor, _Normal]:
    """Layer normalisation without gain and shift (with ones and zeros torch is quicker)."""
    ones, zeros = x.new_ones(x.shape[1]), x.new_zeros(x.shape[1])
    out, mean, slope = torch.native_layer_norm(x, x.shape[-1:], ones, zeros, _EPSILON)
    return out, _Normal(x, mean, slope)


def _normal_backward(grad: Tensor, seen: _Normal) -> Tensor:
    """Gradient of :func:`_normal`."""
    ones = grad.new_ones(grad.shape[1])
    to_x: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, seen.x, grad.shape[-1:], seen.mean, seen.slope, ones, ones, [True, False, False]
    )[0]
    return to_x


def _scale(normal: Tensor, gain: Tensor, shift: Tensor, sizes: list[int]) -> Tensor:
    """Every modality's own gain and shift."""
    out = torch.empty_like(normal)
    for of_shift, of_gain, of_normal, its in _each((shift, gain), (normal, out), sizes):
        torch.addcmul(of_shift, of_normal, of_gain, out=its)
    return out


def _scale_backward(
    grad: Tensor, seen: _Normal, gain: Tensor, shift: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`_normal` and :func:`_scale`: to the input, the gain and the shift."""
    each = _each((gain, shift), (grad, *seen), sizes)
    found = [
        torch.ops.aten.native_layer_norm_backward(
            own, x, grad.shape[-1:], mean, slope, of_gain, of_shift, [True, True, True]
        )
        for of_gain, of_shift, own, x, mean, slope in each
    ]
    to_x, to_gain, to_shift = zip(*found, strict=True)
    return torch.cat(to_x), torch.stack(to_gain), torch.stack(to_shift)


def _pool(x: Tensor, share: Tensor, rows: Rows) -> Tensor:
    """Sum of every clip's rows by their shares, ``[c, d]``."""
    number = torch.arange(len(x))
    return F.embedding_bag(number, x, rows.first, mode="sum", per_sample_weights=share)


def _pool_backward(
    grad: Tensor, x: Tensor, share: Tensor, rows: Rows, *, to_share: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of :func:`_pool` to the rows and to their shares."""
    of_rows = grad.index_select(0, rows.clip)
    shares = torch.linalg.vecdot(of_rows, x) if to_share else None
    return of_rows.mul_(share.unsqueeze(1)), shares


# ---------------------------------------------------------------- the two functions


class _Given(NamedTuple):
    """All rows, how much they count, where they are, and what dropout leaves of them."""

    x: Tensor
    bias: Tensor | None
    share: Tensor
    rows: Rows
    sizes: list[int]
    heads: int
    kept: Sequence[Tensor]
    scale: float


def _attend(given: _Given, weights: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``LayerNorm(ctx + Linear(ctx))`` without gain and shift, pooled: ``[c, d]``."""
    qkv_weight, qkv_bias, weight, bias = weights
    qkv = _linear(given.x, qkv_weight, qkv_bias, given.sizes)
    context, attended = _attention(qkv, given.bias, given.rows, given.heads)
    whole = weight + torch.eye(weight.shape[2], dtype=weight.dtype)  # ctx W + ctx
    last, seen = _normal(_linear(context, whole, bias, given.sizes))
    return _pool(last, given.share, given.rows), (context, whole, last, *seen, *attended)


def _attend_backward(
    grad: Tensor,
    given: _Given,
    seen: Sequence[Tensor],
    weights: Sequence[Tensor],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor]]:
    """Gradients of :func:`_attend`: to the rows, their bias, their shares and the weights."""
    context, whole, last, *normal, query, key, value, shares = seen
    rows, (to_bias, to_share) = given.rows, wanted
    grad, of_share = _pool_backward(grad, last, given.share, rows, to_share=to_share)
    grad = _normal_backward(grad, _Normal(*normal))
    grad, *of_linear = _linear_backward(grad, context, whole, given.sizes)
    attended = _Attended(query, key, value, shares)
    grad, of_bias = _attention_backward(grad, attended, rows, to_bias=to_bias)
    grad, *of_qkv = _linear_backward(grad, given.x, weights[0], given.sizes)
    return grad, of_bias, of_share, [*of_qkv, *of_linear]


def _transform(given: _Given, weights: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A post-norm transformer block without the last gain and shift, pooled: ``[c, d]``."""
    (qkv_weight, qkv_bias, out_weight, out_bias, gain, shift,
     inner_weight, inner_bias, outer_weight, outer_bias) = weights  # fmt: skip
    qkv = _linear(given.x, qkv_weight, qkv_bias, given.sizes)
    context, attended = _attention(qkv, given.bias, given.rows, given.heads)
    mixed = _linear(context, out_weight, out_bias, given.sizes)
    _drop(mixed, given.kept, 0)
    normal, first = _normal(mixed.add_(given.x))
    between = _scale(normal, gain, shift, given.sizes)
    inner = _linear(between, inner_weight, inner_bias, given.sizes).clamp_(min=0)
    _drop(inner, given.kept, 1)
    outer = _linear(inner, outer_weight, outer_bias, given.sizes)
    _drop(outer, given.kept, 2)
    last, second = _normal(outer.add_(between))
    seen = (context, *first, between, inner, *second, last, *attended)
    return _pool(last, given.share, given.rows), seen


def _drop(x: Tensor, kept: Sequence[Tensor], place: int) -> None:
    """Drop values of the rows that are learnt of, which come first."""
    if kept:
        x[: len(kept[place])].mul_(kept[place])


def _transform_backward(
    grad: Tensor,
    given: _Given,
    seen: Sequence[Tensor],
    weights: Sequence[Tensor],
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor]]:
    """Gradients of :func:`_transform`: to the rows, their bias, their shares and the weights."""
    context, first, (between, inner) = seen[0], _Normal(*seen[1:4]), seen[4:6]
    second, last, attended = _Normal(*seen[6:9]), seen[9], _Attended(*seen[10:])
    qkv_weight, _, out_weight, _, gain, shift, inner_weight, _, outer_weight, _ = weights
    rows, sizes, kept, (to_bias, to_share) = given.rows, given.sizes, given.kept, wanted
    grad, of_share = _pool_backward(grad, last, given.share, rows, to_share=to_share)
    onward = _normal_backward(grad, second)
    grad = onward * kept[2] if kept else onward
    if kept:  # what is left between the two layers was scaled up
        outer_weight = outer_weight * given.scale
    grad, *of_outer = _linear_backward(grad, inner, outer_weight, sizes)
    # A value is 0 behind the ramp as behind the dropout, and nothing goes back through either.
    grad = torch.ops.aten.threshold_backward(grad, inner, 0)
    onward, *of_inner = _linear_backward(grad, between, inner_weight, sizes, onto=onward)
    onward, *of_norm = _scale_backward(onward, first, gain, shift, sizes)
    grad = onward * kept[0] if kept else onward
    grad, *of_out = _linear_backward(grad, context, out_weight, sizes)
    grad, of_bias = _attention_backward(grad, attended, rows, to_bias=to_bias)
    onward, *of_qkv = _linear_backward(grad, given.x, qkv_weight, sizes, onto=onward)
    return onward, of_bias, of_share, [*of_qkv, *of_out, *of_norm, *of_inner, *of_outer]


class _Packed(torch.autograd.Function):
    """One of the two: ``[m, b, n, d]`` weighted in s ways in, ``[s, m, b, d]`` out.

    Gradients are those of the first way alone, whose rows come first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        work: Any,
        heads: int,
        packed: tuple[Rows, list[int]],
        dropout: tuple[Sequence[Tensor], float],
        steps: Tensor,
        bias: Tensor | None,
        share: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        (rows, sizes), (kept, scale) = packed, dropout
        m, b, _, d = ctx.shape = steps.shape
        ways = len(share)
        ctx.gradient, ctx.heads, ctx.sizes, ctx.weighing = work[1], heads, sizes[:m], share.shape
        ctx.num_weights, ctx.num_kept, ctx.scale = len(weights), len(kept), scale
        learnt = sum(sizes[:m])
        if not learnt:
            ctx.save_for_backward(*weights)
        if not len(rows.at):
            return steps.new_zeros(ways, m, b, d)
        of_keys = None if bias is None else _take(bias.unsqueeze(-1), rows.at).squeeze(-1)
        shares = _take(share.unsqueeze(-1), rows.at).squeeze(-1)
        left = [_take(mask, rows.at[:learnt]).to(steps.dtype).mul_(scale) for mask in kept]
        x = _take(steps, rows.at) if ways == 1 else _take_again(steps, rows.at)
        given = _Given(x, of_keys, shares, rows, sizes, heads, left, scale)
        pooled: Tensor
        pooled, seen = work[0](given, weights)
        if ways > 1:
            x, shares, rows = x[:learnt], shares[:learnt], _of_first(rows, m * b, learnt)
            *seen, query, key, value, of_scores = seen
            attended = (each[: m * b * heads] for each in (query, key, value, of_scores))
            seen = [*(each[:learnt] for each in seen), *attended]
        if learnt:
            ctx.save_for_backward(*weights, x, of_keys, shares, *rows, *left, *seen)
        return pooled.view(ways, m, b, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[5:7]
        weights, saved = saved[: ctx.num_weights], saved[ctx.num_weights :]
        of_bias, of_share = (grad.new_zeros(ctx.weighing) if each else None for each in wanted)
        if not saved:
            of_weights = [torch.zeros_like(weight) for weight in weights]
            nothing = grad.new_zeros(ctx.shape)
            return None, None, None, None, nothing, of_bias, of_share, *of_weights
        rows, rest = Rows(*saved[3:11]), saved[11:]
        left, seen = rest[: ctx.num_kept], rest[ctx.num_kept :]
        given = _Given(saved[0], saved[1], saved[2], rows, ctx.sizes, ctx.heads, left, ctx.scale)
        of_x, *of_weighing, of_weights = ctx.gradient(
            grad[0].flatten(0, 1), given, seen, weights, wanted
        )
        whole = len(of_x) == math.prod(ctx.shape[:-1])
        of_steps = of_x.view(ctx.shape) if whole else _put(grad.new_zeros(ctx.shape), of_x, rows)
        for onto, values in zip((of_bias, of_share), of_weighing, strict=True):
            if onto is not None:
                _put(onto.unsqueeze(-1), values.unsqueeze(-1), rows)
        return None, None, None, None, of_steps, of_bias, of_share, *of_weights


def _of_first(rows: Rows, clips: int, count: int) -> Rows:
    """Rows of the first clips only; where their slots are read from is not needed again."""
    slots, heads = clips * rows.bias.shape[1], len(rows.of_rows) // len(rows.at)
    return Rows(
        rows.at[:count],
        rows.clip[:count],
        rows.first[:clips],
        rows.slot[:count],
        rows.row[:slots],
        rows.bias[:clips],
        rows.of_slots[:0],
        rows.of_rows[: count * heads],
    )


def _take(steps: Tensor, at: Tensor) -> Tensor:
    """Some of the steps, ``[..., n, d] -> [r, d]``."""
    flat = steps.reshape(-1, steps.shape[-1])
    return flat if len(flat) == len(at) else flat.index_select(0, at)


def _take_again(steps: Tensor, at: Tensor) -> Tensor:
    """The same of steps that are weighted in several ways: each way has them all."""
    flat = steps.reshape(-1, steps.shape[-1])
    return flat.index_select(0, at % len(flat))


def _put(steps: Tensor, values: Tensor, rows: Rows) -> Tensor:
    """Rows to where they are from, steps that are 0."""
    steps.view(-1, steps.shape[-1]).index_add_(0, rows.at, values)
    return steps


def attend_packed(attention: IntraModalAttention, common: Tensor, weight: Tensor) -> Tensor:
    """What intra-modal attention makes of every clip: its steps enhanced and pooled.

    Args:
        attention: Its weights.
        common: ``[m, b, n, d]``.
        weight: How much every step counts, as a key and in the mean, ``[m, b, n]`` in 0..1.

    Returns:
        ``[m, b, d]``.
    """
    inner, linear = attention.attention, attention.linear
    weights = (inner.qkv.weight, inner.qkv.bias, linear.weight, linear.bias)
    work = (_attend, _attend_backward)
    ways = weight.unsqueeze(0)
    nothing: tuple[list[Tensor], float] = ([], 1.0)
    return _run(work, inner.heads, nothing, common, ways, weights, attention.norm).squeeze(0)


def transform_packed(block: ModalityBlock, steps: Tensor, weight: Tensor) -> Tensor:
    """What a transformer block makes of every clip, pooled, for one or several weightings.

    Args:
        block: Its weights, and the dropout of its three places.
        steps: ``[m, b, n, d]``.
        weight: As for :func:`attend_packed`, each way of weighting the steps by itself,
            ``[s, m, b, n]``. Nothing is learnt, nor dropped out, of any but the first.

    Returns:
        ``[s, m, b, d]``.
    """
    inner, out, norm = block.attention, block.attention.out, block.norm1
    assert isinstance(out, ModalityLinear)
    widths = (steps.shape[-1], block.inner.bias.shape[-1], steps.shape[-1])
    drawn = [block.dropout.kept((*steps.shape[:-1], width)) for width in widths]
    dropout = [each for each in drawn if each is not None], block.dropout.scale
    layers = (inner.qkv, out, norm, block.inner, block.outer)
    weights = [each for layer in layers for each in (layer.weight, layer.bias)]
    work = (_transform, _transform_backward)
    return _run(work, inner.heads, dropout, steps, weight, weights, block.norm2)


def _run(
    work: Any,
    heads: int,
    dropout: tuple[Sequence[Tensor], float],
    steps: Tensor,
    weight: Tensor,
    weights: Sequence[Tensor],
    norm: ModalityNorm,
) -> Tensor:
    packed = pack(weight.detach().flatten(0, 1), heads)
    total = weight.sum(dim=-1, keepdim=True)
    most = total.clamp(min=1.0)
    bias = None if is_hard(weight) else weight.where(weight > 0, 1.0).log()
    pooled: Tensor = _Packed.apply(  # type: ignore[no-untyped-call]
        work, heads, packed, dropout, steps, bias, weight / most, *weights
    )
    # Gain and shift come after the mean, where they are the same as before it.
    return pooled * norm.weight.unsqueeze(1) + (total / most) * norm.bias.unsqueeze(1)
