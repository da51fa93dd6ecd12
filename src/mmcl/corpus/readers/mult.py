"""MulT's pickles: ``{split: {text, audio, vision, labels, id}}``.

IEMOCAP has labels ``[clips, 4, 2]``: for each emotion a one-hot pair (no, yes). MOSI and
MOSEI have scores ``[clips, 1, 1]``. Ids may be absent, or rows of (video, start, end).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcl.corpus.readers.foreign import (
    Foreign,
    ForeignSplit,
    as_emotions,
    as_numbers,
    features_of,
    named_splits,
)
from mmcl.corpus.readers.mmsa import split_ids
from mmcl.corpus.readers.plain import ignored_fields
from mmcl.types import MODALITIES, SplitName, TaskKind

__all__ = ["read_mult"]

IEMOCAP_EMOTIONS = ("neutral", "happy", "sad", "angry")
_KEPT = frozenset((*MODALITIES, "labels", "id"))


def read_mult(content: Mapping[Any, Any]) -> Foreign:
    """Read a dict of splits as MulT ships them."""
    found = named_splits(content)
    splits = [_split(name, fields) for name, fields in found]
    widths = {split.labels["emotions"].shape[1] for split in splits if "emotions" in split.labels}
    names: dict[TaskKind, tuple[str, ...]] = {}
    if widths == {len(IEMOCAP_EMOTIONS)}:
        names["emotions"] = IEMOCAP_EMOTIONS
    return Foreign("mult", splits, names, ignored_fields(found, _KEPT))


def _split(name: SplitName, fields: Mapping[str, Any]) -> ForeignSplit:
    where = f'split "{name}"'
    split = ForeignSplit(name=name, features=features_of(fields, where))
    if fields.get("labels") is not None:
        labels = np.asarray(fields["labels"])
        if labels.ndim > 1 and labels.size != len(labels):
            split.labels["emotions"] = as_emotions(labels, f"{where}: labels")
        else:
            split.labels["regression"] = as_numbers(labels, f"{where}: labels")
    if fields.get("id") is not None:
        split.ids, split.video_ids, split.clip_ids = split_ids(fields["id"])
    return split
