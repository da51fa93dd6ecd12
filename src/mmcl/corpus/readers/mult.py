"""MulT's pickles: ``{split: {text, audio, vision, labels, id}}``.

IEMOCAP has labels ``[clips, 4, 2]``: for each emotion a one-hot pair (no, yes). MOSI and
MOSEI have scores ``[clips, 1, 1]``. Ids may be absent, or rows of (video, start, end).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcl.corpus.readers.mmsa import split_ids
from mmcl.corpus.readers.plain_dict import read_field_splits
from mmcl.corpus.readers.source_file import SourceFile, SourceSplit, as_labels, features_of
from mmcl.types import MODALITIES, SplitName

__all__ = ["read_mult"]

IEMOCAP_EMOTIONS = ("neutral", "happy", "sad", "angry")
_KEPT_FIELDS = frozenset((*MODALITIES, "labels", "id"))


def read_mult(content: Mapping[Any, Any]) -> SourceFile:
    """Read a dict of splits in MulT's layout."""
    source = read_field_splits("mult", content, _read_split, _KEPT_FIELDS)
    emotions = [s.labels["emotions"] for s in source.splits if "emotions" in s.labels]
    if {labels.shape[1] for labels in emotions} == {len(IEMOCAP_EMOTIONS)}:
        source.names["emotions"] = IEMOCAP_EMOTIONS
    return source


def _read_split(name: SplitName, fields: Mapping[str, Any]) -> SourceSplit:
    where = f'split "{name}"'
    split = SourceSplit(name=name, features=features_of(fields, where))
    if fields.get("labels") is not None:
        split.labels = as_labels(fields["labels"], f"{where}: labels", "regression")
    if fields.get("id") is not None:
        split.ids, split.video_ids, split.clip_ids = split_ids(fields["id"])
    return split
