"""Importance of steps by integrated gradients, to compare the policies with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows
from mmcl.corpus.store import Split
from mmcl.extras import load
from mmcl.models.mmcl import MMCL
from mmcl.types import Modality

__all__ = ["NUM_POINTS", "gradient_importance", "load_captum"]

NUM_POINTS = 16
"""Points between baseline and clip at which gradients are taken."""

CLIPS_AT_ONCE = 16
ROWS_AT_ONCE = 64


def load_captum() -> Any:
    """Import the module of attribution methods.

    Raises:
        MissingExtraError: If captum is not installed.
    """
    return load("captum.attr", "comparing with integrated gradients", extra="research")


def gradient_importance(model: MMCL, split: Split) -> list[NDArray[np.float64]]:
    """Measure how far each step moved the prediction, by integrated gradients.

    The baseline is a step that tells nothing: its features are at the centre by which the
    network standardises them, or zero where it does not standardise. The masks stay as they
    are, since a mask has no gradient.

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
        Sundararajan, Taly and Yan 2017 (arXiv 1703.01365), as implemented by captum. The
        absolute value is taken before the sum, which ranked the steps of planted validation
        clips better than the absolute value of the sum. Hard actions have no gradient, so the
        result describes the effect of a step while the decisions stay as they are.
    """
    method = load_captum().IntegratedGradients
    importance: list[NDArray[np.float64]] = []
    for rows in batch_rows(np.arange(len(split)), CLIPS_AT_ONCE):
        # Words have no gradient: it is taken at the vectors that the encoder makes of them.
        with torch.no_grad():
            batch = model.embed(model.collate(split, rows))
        importance.extend(_batch_importance(method, model, batch))
    return importance


def _batch_importance(method: Any, model: MMCL, batch: Batch) -> NDArray[np.float64]:
    """Absolute attributions of a batch, ``[b, m, n]``."""
    held, inputs = list(batch.features), tuple(batch.features.values())
    with torch.no_grad():
        scores = model(batch.features, batch.masks).scores
    # Class predicted, or 0 or 1 per emotion. A score has no class: any tensor will do.
    chosen = batch.rows if model.task.kind == "regression" else scores.argmax(dim=-1)

    # captum repeats the clips for its points, and the masks and classes with them.
    def explained(*given: Tensor) -> Tensor:
        """Score of each clip, or the probability of what is predicted."""
        features = dict(zip(held, given[: len(held)], strict=True))
        masks = dict(zip(held, given[len(held) : -1], strict=True))
        scores: Tensor = model(features, masks).scores
        if model.task.kind == "regression":
            return scores
        probability = scores.softmax(dim=-1).gather(-1, given[-1].unsqueeze(-1)).squeeze(-1)
        return probability.reshape(len(scores), -1).mean(dim=1)  # over emotions

    attributions = method(explained).attribute(
        inputs,
        baselines=tuple(_baseline(model, m, x) for m, x in batch.features.items()),
        additional_forward_args=(*batch.masks.values(), chosen),
        n_steps=NUM_POINTS,
        internal_batch_size=max(ROWS_AT_ONCE, len(batch.rows)),
    )
    longest = max(x.shape[1] for x in inputs)
    stacked = np.zeros((len(batch.rows), len(model.modalities), longest))
    for modality, attribution in zip(held, attributions, strict=True):
        steps = attribution.abs().sum(dim=-1).detach().double().cpu().numpy()  # [b, n_m]
        stacked[:, model.modalities.index(modality), : steps.shape[1]] = steps
    return stacked


def _baseline(model: MMCL, modality: Modality, x: Tensor) -> Tensor:
    if modality not in model.standardisers:
        return torch.zeros_like(x)
    centre: Tensor = model.standardisers[modality].centre
    return centre.to(x.dtype).expand_as(x).clone()
