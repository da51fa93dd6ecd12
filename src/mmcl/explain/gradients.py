"""Integrated gradients: the importance of steps by another method, to be compared with."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows, collate, move_batch
from mmcl.corpus.store import Split
from mmcl.errors import MissingExtraError
from mmcl.models.mmcl import MMCL
from mmcl.types import Modality

__all__ = ["NUM_POINTS", "gradient_importance", "load_captum"]

NUM_POINTS = 16
"""Points between baseline and clip at which gradients are taken."""

CLIPS_AT_ONCE = 16
ROWS_AT_ONCE = 64


def load_captum() -> Any:
    """The module of attribution methods.

    Raises:
        MissingExtraError: If captum is not installed.
    """
    try:
        return import_module("captum.attr")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "mmcl explain compares with integrated gradients, which need captum, "
            "which is not installed.\n"
            '  Install it: pip install "mmcl[research]"'
        ) from None


def gradient_importance(model: MMCL, split: Split) -> list[NDArray[np.float64]]:
    """How far each step moved the prediction, by integrated gradients.

    The baseline is a step that tells nothing: all features at the centre the network
    standardises them by, so zero after standardisation; plain zeros where it does not
    standardise. The masks stay as they are on the way, since a mask has no gradient.

    Args:
        model: The network, in evaluation mode.
        split: The clips; labels are not looked at.

    Returns:
        Per clip float64 ``[m, n]``, n of the longest in its batch: the sum over features of a
        step's absolute attributions to the score, or to the probability of what is predicted
        (a mean over emotions).

    Raises:
        MissingExtraError: If captum is not installed.

    Source:
        Sundararajan, Taly and Yan 2017 (arXiv 1703.01365), as captum has it. The absolute
        value is taken before the sum: on planted validation clips that ranked the steps
        better than the absolute value of the sum, and a rival should be at its best. Hard actions
        are steps of the function: the gradient passes them by, and says what a step does
        while the decisions stay as they are.
    """
    method = load_captum().IntegratedGradients
    importance: list[NDArray[np.float64]] = []
    for rows in batch_rows(np.arange(len(split)), CLIPS_AT_ONCE):
        held = [m for m in model.modalities if m in split.card.dims]
        batch = collate(split, rows, held, keep_missing=model.released)
        batch = move_batch(batch, next(model.parameters()).device)
        importance.extend(_batch_importance(method, model, batch, held))
    return importance


def _batch_importance(
    method: Any, model: MMCL, batch: Batch, held: list[Modality]
) -> NDArray[np.float64]:
    """Absolute attributions of a batch, ``[b, m, n]``."""
    masks = tuple(batch.masks[m] for m in held)
    inputs = tuple(batch.features[m] for m in held)
    chosen = _chosen(model, batch)

    def support(*given: Tensor) -> Tensor:
        features = dict(zip(held, given[: len(held)], strict=True))
        kept = dict(zip(held, given[len(held) : 2 * len(held)], strict=True))
        return _support(model, model(features, kept).scores, given[-1])

    attributions = method(support).attribute(
        inputs,
        baselines=tuple(_baseline(model, m, x) for m, x in zip(held, inputs, strict=True)),
        additional_forward_args=(*masks, chosen),
        n_steps=NUM_POINTS,
        internal_batch_size=max(ROWS_AT_ONCE, len(batch.rows)),
    )
    by_modality = {m: a.abs().sum(dim=-1) for m, a in zip(held, attributions, strict=True)}
    longest = max(x.shape[1] for x in inputs)
    stacked = np.zeros((len(batch.rows), len(model.modalities), longest))
    for at, modality in enumerate(model.modalities):
        if modality in by_modality:
            values = by_modality[modality].detach().double().cpu().numpy()
            stacked[:, at, : values.shape[1]] = values
    return stacked


def _chosen(model: MMCL, batch: Batch) -> Tensor:
    """Class predicted, or 0 or 1 per emotion, ``[b, ...]``; of scores a number nobody reads."""
    with torch.no_grad():
        scores = model(batch.features, batch.masks).scores
    chosen: Tensor = batch.rows if model.task.kind == "regression" else scores.argmax(dim=-1)
    return chosen


def _support(model: MMCL, scores: Tensor, chosen: Tensor) -> Tensor:
    """A number per clip: its score, or the probability of what is predicted."""
    if model.task.kind == "regression":
        return scores
    of_chosen = scores.softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    per_clip: Tensor = of_chosen.reshape(len(scores), -1).mean(dim=1)
    return per_clip


def _baseline(model: MMCL, modality: Modality, x: Tensor) -> Tensor:
    if modality not in model.projection.standardisers:
        return torch.zeros_like(x)
    standardiser: Any = model.projection.standardisers[modality]
    centre: Tensor = standardiser.centre
    return centre.to(x.dtype).expand_as(x).clone()
