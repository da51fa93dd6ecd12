"""Attention and transformer blocks over the steps that count, without those that do not.

A step that a policy drops, and one that only fills up a clip, can matter to nothing: its key
has no weight, it is pooled with none, and no gradient comes back from it. So it need not be
computed. The steps of a modality that count are packed into rows; all products and norms work
on rows, and only the scores of attention on clips padded to the most rows that any of them has.

Forward and backward pass are written out, one modality after the other, so that what they read
and write stays in the cache and is read and written once. What comes out is what
:class:`~mmcl.models.layers.ModalityBlock` and
:class:`~mmcl.models.attention.IntraModalAttention` give, pooled: a test holds them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
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
    """Whether every step counts wholly or not at all, and nothing is learnt of how much."""
    return not weight.requires_grad and bool(((weight == 0) | (weight == 1)).all())


class Rows(NamedTuple):
    """Where the steps of one modality are that count.

    A clip has k slots, at least as many as rows; those beyond its rows are empty.

    Attributes:
        at: Of every row, its place among all steps ``[b * n]``, in order: ``[r]``.
        clip: Of every row, its clip: ``[r]``.
        first: Of every clip, its first row: ``[b]``.
        slot: Of every row, its place among the slots ``[b * k]``: ``[r]``.
        row: Of every slot, its row; 0 where it is empty: ``[b * k]``.
        bias: What is added to the scores of a slot's key, 0 or never: ``[b, k]``.
        of_slots: The heads of queries, keys and values in the order of the slots,
            ``[3 * b * heads * k]``, among those of the rows, ``[r, 3, heads]``.
        of_rows: The heads of the rows, ``[r * heads]``, among those of the slots,
            ``[b, heads, k]``.
    """

    at: Tensor
    clip: Tensor
    first: Tensor
    slot: Tensor
    row: Tensor
    bias: Tensor
    of_slots: Tensor
    of_rows: Tensor


def pack(weight: Tensor, heads: int) -> list[Rows]:
    """Find the steps of every modality that count: those with a weight above 0.

    Args:
        weight: ``[m, b, n]``.
        heads: Of the attention between the steps.
    """
    counts = weight > 0
    if bool(counts.all()):
        return [_all_rows(*weight.shape[1:], heads, weight.dtype)] * len(weight)
    return [_find_rows(each, heads, weight.dtype) for each in counts]


@lru_cache(maxsize=8)
def _all_rows(clips: int, steps: int, heads: int, dtype: torch.dtype) -> Rows:
    with torch.inference_mode(False):  # it will be asked for again, perhaps with a gradient
        return _find_rows(torch.ones(clips, steps, dtype=torch.bool), heads, dtype)


def _find_rows(counts: Tensor, heads: int, dtype: torch.dtype) -> Rows:
    b, n = counts.shape
    at = counts.flatten().nonzero().squeeze(1)
    per_clip = counts.sum(dim=1)
    first = per_clip.cumsum(dim=0) - per_clip
    clip = at.div(n, rounding_mode="floor")
    k = _handy(int(per_clip.max()) if b else 0)
    number, head = torch.arange(len(at)), torch.arange(3 * heads)
    within = number - first.index_select(0, clip)
    slot = within + clip * k
    row = torch.zeros(b * k, dtype=torch.long).index_copy_(0, slot, number)
    empty = torch.arange(k) >= per_clip.unsqueeze(1)
    bias = torch.zeros(b, k, dtype=dtype).masked_fill_(empty, NEVER)
    of_slots = row.view(b, 1, k) * (3 * heads) + head.view(3, 1, heads, 1)
    of_rows = (within + clip * (k * heads)).unsqueeze(1) + head[:heads] * k
    return Rows(at, clip, first, slot, row, bias, of_slots.flatten(), of_rows.flatten())


def _handy(count: int) -> int:
    """So many slots or a few more: torch's softmax goes value by value beyond whole 16s."""
    beyond = count % 16
    return count if count > 16 and beyond <= 8 else max(count + (-count) % 16, 16)


# ---------------------------------------------------------------- parts of both functions


class _Attended(NamedTuple):
    """What the gradient of attention needs: ``[b * heads, k, d / heads]`` and scores."""

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
    context = grad.new_zeros(batch * k, width)
    context = context.index_copy_(0, rows.of_rows, grad.view(-1, width)).view(batch, k, width)
    to_scores = torch.bmm(context, value.transpose(1, 2))
    to_scores = torch._softmax_backward_data(to_scores, shares, -1, shares.dtype)
    of_rows = None
    if to_bias:
        of_slots = to_scores.sum(dim=1).view(len(rows.bias), -1, k).sum(dim=1)
        of_rows = of_slots.flatten().index_select(0, rows.slot)
    to_scores.mul_(width**-0.5)
    padded = torch.stack(
        [
            torch.bmm(to_scores, key),
            torch.bmm(to_scores.transpose(1, 2), query),
            torch.bmm(shares.transpose(1, 2), context),
        ]
    )
    part = torch.arange(3).view(1, 3, 1) * (batch * k)
    at = (rows.of_rows.view(len(grad), 1, -1) + part).flatten()
    return padded.view(-1, width).index_select(0, at).view(len(grad), -1), of_rows


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, *, onto: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x W + b`` to its input, added ``onto`` another, its weight and its bias."""
    to_x = torch.mm(grad, weight.t()) if onto is None else onto.addmm_(grad, weight.t())
    return to_x, torch.mm(x.t(), grad), grad.sum(dim=0, keepdim=True)


class _Normal(NamedTuple):
    """What the gradient of layer normalisation needs."""

    x: Tensor
    mean: Tensor
    slope: Tensor


def _normal(
    x: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
) -> tuple[Tensor, _Normal]:
    """Layer normalisation; where there are no gain and shift torch is quicker with 1 and 0."""
    gain = x.new_ones(x.shape[1]) if gain is None else gain
    shift = x.new_zeros(x.shape[1]) if shift is None else shift
    out, mean, slope = torch.native_layer_norm(x, x.shape[-1:], gain, shift, _EPSILON)
    return out, _Normal(x, mean, slope)


def _normal_backward(grad: Tensor, seen: _Normal, gain: Tensor | None = None) -> Any:
    """Gradients of :func:`_normal` to its input, gain and shift; the last two of a given gain."""
    one = grad.new_ones(grad.shape[1]) if gain is None else gain
    wanted = [True, gain is not None, gain is not None]
    return torch.ops.aten.native_layer_norm_backward(
        grad, seen.x, grad.shape[-1:], seen.mean, seen.slope, one, one, wanted
    )


def _pool(x: Tensor, share: Tensor, rows: Rows) -> Tensor:
    """Sum of every clip's rows by their shares, ``[b, d]``."""
    number = torch.arange(len(x))
    return F.embedding_bag(number, x, rows.first, mode="sum", per_sample_weights=share)


def _pool_backward(
    grad: Tensor, x: Tensor, share: Tensor, rows: Rows, *, to_share: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of :func:`_pool` to the rows and to their shares."""
    of_rows = grad.index_select(0, rows.clip)
    shares = torch.linalg.vecdot(of_rows, x) if to_share else None
    return of_rows.mul_(share.unsqueeze(1)), shares


# ---------------------------------------------------------------- one modality


class _Given(NamedTuple):
    """One modality's rows, how much they count, and what dropout leaves of them."""

    x: Tensor
    bias: Tensor | None
    share: Tensor
    rows: Rows
    kept: Sequence[Tensor]


def _attend(given: _Given, heads: int, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
    """``LayerNorm(ctx + Linear(ctx))`` without gain and shift, pooled: ``[b, d]``."""
    qkv_weight, qkv_bias, weight, bias = weights
    qkv = torch.addmm(qkv_bias, given.x, qkv_weight)
    context, attended = _attention(qkv, given.bias, given.rows, heads)
    whole = weight + torch.eye(len(weight), dtype=weight.dtype)  # ctx W + ctx
    last, seen = _normal(torch.addmm(bias, context, whole))
    return _pool(last, given.share, given.rows), (context, *attended, whole, last, *seen)


def _attend_backward(
    grad: Tensor, given: _Given, seen: Any, weights: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor]]:
    """Gradients of :func:`_attend`: to the rows, their bias, their shares and the weights."""
    context, *attended, whole, last = seen[:7]
    to_bias, to_share = wanted
    grad, of_share = _pool_backward(grad, last, given.share, given.rows, to_share=to_share)
    grad, _, _ = _normal_backward(grad, _Normal(*seen[7:]))
    grad, *of_linear = _linear_backward(grad, context, whole)
    attended = _Attended(*attended)
    grad, of_bias = _attention_backward(grad, attended, given.rows, to_bias=to_bias)
    grad, *of_qkv = _linear_backward(grad, given.x, weights[0])
    return grad, of_bias, of_share, [*of_qkv, *of_linear]


def _transform(given: _Given, heads: int, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
    """A post-norm transformer block without the last gain and shift, pooled: ``[b, d]``."""
    (qkv_weight, qkv_bias, out_weight, out_bias, gain, shift,
     inner_weight, inner_bias, outer_weight, outer_bias) = weights  # fmt: skip
    qkv = torch.addmm(qkv_bias, given.x, qkv_weight)
    context, attended = _attention(qkv, given.bias, given.rows, heads)
    mixed = torch.addmm(out_bias, context, out_weight)
    if given.kept:
        mixed.mul_(given.kept[0])
    between, first = _normal(mixed.add_(given.x), gain, shift)
    inner = torch.addmm(inner_bias, between, inner_weight).clamp_(min=0)
    if given.kept:
        inner.mul_(given.kept[1])
    outer = torch.addmm(outer_bias, inner, outer_weight)
    if given.kept:
        outer.mul_(given.kept[2])
    last, second = _normal(outer.add_(between))
    seen = (context, *attended, *first, between, inner, *second, last)
    return _pool(last, given.share, given.rows), seen


def _transform_backward(
    grad: Tensor, given: _Given, seen: Any, weights: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor]]:
    """Gradients of :func:`_transform`: to the rows, their bias, their shares and the weights."""
    context, attended, first = seen[0], _Attended(*seen[1:5]), _Normal(*seen[5:8])
    between, inner, second, last = *seen[8:10], _Normal(*seen[10:13]), seen[13]
    qkv_weight, _, out_weight, _, gain, _, inner_weight, _, outer_weight, _ = weights
    to_bias, to_share = wanted
    grad, of_share = _pool_backward(grad, last, given.share, given.rows, to_share=to_share)
    onward, _, _ = _normal_backward(grad, second)
    grad = onward * given.kept[2] if given.kept else onward
    grad, *of_outer = _linear_backward(grad, inner, outer_weight)
    # A value is 0 behind the ramp as behind the dropout, and nothing goes back through either.
    grad = torch.ops.aten.threshold_backward(grad, inner, 0)
    onward, *of_inner = _linear_backward(grad, between, inner_weight, onto=onward)
    onward, *of_norm = _normal_backward(onward, first, gain)
    grad = onward * given.kept[0] if given.kept else onward
    grad, *of_out = _linear_backward(grad, context, out_weight)
    grad, of_bias = _attention_backward(grad, attended, given.rows, to_bias=to_bias)
    onward, *of_qkv = _linear_backward(grad, given.x, qkv_weight, onto=onward)
    return onward, of_bias, of_share, [*of_qkv, *of_out, *of_norm, *of_inner, *of_outer]


# ---------------------------------------------------------------- all modalities


class _Packed(torch.autograd.Function):
    """One of the two, modality by modality: ``[m, b, n, d]`` in, ``[m, b, d]`` out."""

    @staticmethod
    def forward(
        ctx: Any,
        work: Any,
        heads: int,
        rows: Sequence[Rows],
        kept: Sequence[Tensor],
        steps: Tensor,
        bias: Tensor | None,
        share: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        pooled: list[Tensor] = []
        seen_of_all: list[tuple[Tensor | None, ...]] = []
        for m, its in enumerate(rows):
            if not len(its.at):
                pooled.append(steps.new_zeros(steps.shape[1], steps.shape[3]))
                seen_of_all.append(())
                continue
            given = _Given(
                _take(steps[m], its),
                None if bias is None else _take(bias[m].unsqueeze(-1), its).squeeze(-1),
                _take(share[m].unsqueeze(-1), its).squeeze(-1),
                its,
                [_take(each[m], its) for each in kept],
            )
            out, seen = work[0](given, heads, [weight[m] for weight in weights])
            pooled.append(out)
            seen_of_all.append((given.x, given.bias, given.share, *its, *given.kept, *seen))
        ctx.save_for_backward(*weights, *(each for seen in seen_of_all for each in seen))
        ctx.gradient, ctx.steps, ctx.num_kept = work[1], steps.shape, len(kept)
        ctx.counts = [len(weights), *map(len, seen_of_all)]
        return torch.stack(pooled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = iter(ctx.saved_tensors)
        weights, *seen_of_all = [list(islice(saved, count)) for count in ctx.counts]
        wanted = ctx.needs_input_grad[5:7]
        of_steps = grad.new_zeros(ctx.steps)
        of_bias, of_share = (grad.new_zeros(ctx.steps[:-1]) if each else None for each in wanted)
        of_weights: list[Any] = []
        for m, each in enumerate(seen_of_all):
            own = [weight[m] for weight in weights]
            if not each:
                of_weights.append([torch.zeros_like(weight) for weight in own])
                continue
            rows, rest = Rows(*each[3:11]), each[11:]
            given = _Given(*each[:3], rows, rest[: ctx.num_kept])
            seen = rest[ctx.num_kept :]
            of_x, *of_weighing, found = ctx.gradient(grad[m], given, seen, own, wanted)
            _put(of_steps[m], of_x, given.rows)
            for whole, values in zip((of_bias, of_share), of_weighing, strict=True):
                if whole is not None:
                    _put(whole[m].unsqueeze(-1), values.unsqueeze(-1), given.rows)
            of_weights.append([g.view_as(weight) for g, weight in zip(found, own, strict=True)])
        stacked = [torch.stack(each) for each in zip(*of_weights, strict=True)]
        return None, None, None, None, of_steps, of_bias, of_share, *stacked


def _take(steps: Tensor, rows: Rows) -> Tensor:
    """The rows of one modality's steps, ``[b, n, d] -> [r, d]``."""
    flat = steps.reshape(-1, steps.shape[-1])
    return flat if len(flat) == len(rows.at) else flat.index_select(0, rows.at)


def _put(steps: Tensor, values: Tensor, rows: Rows) -> None:
    """Rows to where they are from."""
    steps.view(-1, steps.shape[-1]).index_copy_(0, rows.at, values)


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
    return _run(work, inner.heads, (), common, weight, weights, attention.norm)


def transform_packed(block: ModalityBlock, steps: Tensor, weight: Tensor) -> Tensor:
    """What a transformer block makes of every clip, pooled.

    Args:
        block: Its weights, and the dropout of its three places.
        steps: ``[m, b, n, d]``.
        weight: As for :func:`attend_packed`.

    Returns:
        ``[m, b, d]``.
    """
    inner, out = block.attention, block.attention.out
    assert isinstance(out, ModalityLinear)
    widths = (steps.shape[-1], block.inner.bias.shape[-1], steps.shape[-1])
    drawn = [block.dropout.kept((*steps.shape[:-1], width)) for width in widths]
    kept = [each for each in drawn if each is not None]
    # What dropout leaves is scaled up: the weights before it are, once for all rows.
    scale = block.dropout.scale if kept else 1.0
    before = [
        each if scale == 1 else each * scale
        for layer in (out, block.inner, block.outer)
        for each in (layer.weight, layer.bias)
    ]
    norm = block.norm1
    weights = (inner.qkv.weight, inner.qkv.bias, *before[:2], norm.weight, norm.bias, *before[2:])
    work = (_transform, _transform_backward)
    return _run(work, inner.heads, kept, steps, weight, weights, block.norm2)


def _run(
    work: Any,
    heads: int,
    kept: Sequence[Tensor],
    steps: Tensor,
    weight: Tensor,
    weights: Sequence[Tensor],
    norm: ModalityNorm,
) -> Tensor:
    rows = pack(weight.detach(), heads)
    total = weight.sum(dim=-1, keepdim=True)
    most = total.clamp(min=1.0)
    bias = None if is_hard(weight) else weight.where(weight > 0, 1.0).log()
    pooled: Tensor = _Packed.apply(  # type: ignore[no-untyped-call]
        work, heads, rows, kept, steps, bias, weight / most, *weights
    )
    # Gain and shift come after the mean, where they are the same as before it.
    return pooled * norm.weight.unsqueeze(1) + (total / most) * norm.bias.unsqueeze(1)
