"""Scores of how well a network finds the planted common and complementary steps."""

from __future__ import annotations

import numpy as np

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY
from mmcl.corpus.store import Split
from mmcl.evaluation.metrics import auroc
from mmcl.learning.inference import Scored
from mmcl.types import Modality

__all__ = ["ROLE_METRICS", "role_metrics"]

ROLE_METRICS = ("common_auroc", "action_auroc")
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
        chance; empty for a corpus that is not planted.

    Source:
        Ours, see docs/comparing.md.
    """
    roles, commonality, keep = [], [], []
    for row in range(len(split)):
        for index, modality in enumerate(modalities):
            role = split.roles(modality, row)
            if role is None:  # a real corpus
                return {}
            roles.append(role)
            # Beyond a modality's own steps there is only padding.
            commonality.append(scored.commonality[row][index, : len(role)])
            keep.append(scored.keep_probability[row][index, : len(role)])
    if not roles:
        return {}
    role = np.concatenate(roles)
    return {
        "common_auroc": auroc(role == ROLE_COMMON, np.concatenate(commonality).astype(float)),
        "action_auroc": auroc(role == ROLE_COMPLEMENTARY, np.concatenate(keep).astype(float)),
    }
