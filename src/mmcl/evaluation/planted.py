"""Scores of how well a network finds the planted common and complementary steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY
from mmcl.corpus.store import Split
from mmcl.evaluation.metrics import auroc
from mmcl.learning.inference import Scored
from mmcl.types import Modality

__all__ = ["ROLE_METRICS", "role_metrics"]

ROLE_METRICS = ("common_auroc", "action_auroc", "kept", "kept_precision", "kept_recall")
"""Keys of the result of :func:`role_metrics`."""


def role_metrics(
    split: Split, scored: Scored, modalities: tuple[Modality, ...]
) -> dict[str, float]:
    """Measure how well commonality and actions tell the planted roles, over all steps.

    Args:
        split: The clips.
        scored: A network's output for them.
        modalities: Those the network uses, in its order.

    Returns:
        ``common_auroc`` (commonality for common steps against all others) and
        ``action_auroc`` (keep probability for complementary steps against all others), .5 is
        chance; ``kept`` (share of the steps that the policies keep, with an action above 0),
        ``kept_precision`` (share of these that are complementary) and ``kept_recall`` (share of
        the complementary ones that are kept); empty for a corpus that is not planted.

    Source:
        Ours, see docs/comparing.md.
    """
    roles, commonality, keep, actions = [], [], [], []
    for row in range(len(split)):
        for index, modality in enumerate(modalities):
            role = split.roles(modality, row)
            if role is None:  # a real corpus
                return {}
            roles.append(role)
            # Beyond a modality's own steps there is only padding.
            commonality.append(scored.commonality[row][index, : len(role)])
            keep.append(scored.keep_probability[row][index, : len(role)])
            actions.append(scored.actions[row][index, : len(role)])
    if not roles:
        return {}
    role, kept = np.concatenate(roles), np.concatenate(actions) > 0
    is_own = role == ROLE_COMPLEMENTARY
    return {
        "common_auroc": auroc(role == ROLE_COMMON, np.concatenate(commonality).astype(float)),
        "action_auroc": auroc(is_own, np.concatenate(keep).astype(float)),
        "kept": float(kept.mean()),
        "kept_precision": _share(is_own[kept]),
        "kept_recall": _share(kept[is_own]),
    }


def _share(hits: NDArray[np.bool_]) -> float:
    """Return the share of hits, NaN where there is nothing to hit."""
    return float(hits.mean()) if len(hits) else float("nan")
