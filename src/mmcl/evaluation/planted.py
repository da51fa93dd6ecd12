"""Where the truth is planted: were the common and the complementary steps found?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY
from mmcl.corpus.store import Split
from mmcl.evaluation.metrics import auroc
from mmcl.learning.inference import Scored
from mmcl.types import Modality

__all__ = ["ROLE_METRICS", "role_metrics"]

ROLE_METRICS = ("common_auroc", "action_auroc")
"""Keys of what :func:`role_metrics` returns."""


def role_metrics(
    split: Split, scored: Scored, modalities: tuple[Modality, ...]
) -> dict[str, float]:
    """How well commonality and actions tell the planted roles, over all steps.

    Args:
        split: The clips.
        scored: What a network made of them, modalities in the same order.
        modalities: Those the network uses.

    Returns:
        ``common_auroc`` (commonality for common steps against all others) and
        ``action_auroc`` (keep probability for complementary steps against all others), .5 is
        chance; empty for a corpus that is not planted.

    Source:
        METHOD 3 and 4.
    """
    roles = [_roles_of(split, row, modalities) for row in range(len(split))]
    if not roles or roles[0] is None:
        return {}
    known = [r for r in roles if r is not None]
    lengths = [[len(each) for each in clip] for clip in known]
    role = np.concatenate([each for clip in known for each in clip])
    common = _real_steps(scored.commonality, lengths)
    keep = _real_steps(scored.keep_probability, lengths)
    return {
        "common_auroc": auroc(role == ROLE_COMMON, common),
        "action_auroc": auroc(role == ROLE_COMPLEMENTARY, keep),
    }


def _roles_of(
    split: Split, row: int, modalities: tuple[Modality, ...]
) -> list[NDArray[np.int8]] | None:
    roles = [split.roles(modality, row) for modality in modalities]
    return None if any(r is None for r in roles) else [r for r in roles if r is not None]


def _real_steps(values: list[NDArray[np.float32]], lengths: list[list[int]]) -> NDArray[np.float64]:
    parts = [
        clip[m, :length]
        for clip, by_modality in zip(values, lengths, strict=True)
        for m, length in enumerate(by_modality)
    ]
    return np.concatenate(parts).astype(np.float64)
