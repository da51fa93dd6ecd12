"""MAG-BERT's pickles: per split a list of ``((words, visual, acoustic), label, segment)``.

They hold words and no text features: the words are kept, audio and vision lie beside them
step by step, and text is left for a model that embeds words itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcl.corpus.readers.foreign import (
    LAYOUTS,
    Foreign,
    ForeignSplit,
    as_features,
    as_numbers,
    as_texts,
    named_splits,
)
from mmcl.corpus.schema import Word
from mmcl.errors import DatasetError
from mmcl.types import SplitName

__all__ = ["read_magbert"]

_SEGMENT = re.compile(r"(?P<video>.+)\[(?P<clip>\d+)\]")


def read_magbert(content: Mapping[Any, Any]) -> Foreign:
    """Read a dict of lists of clips as MAG-BERT ships them."""
    return Foreign("magbert", [_split(name, listed) for name, listed in named_splits(content)])


def _split(name: SplitName, listed: Any) -> ForeignSplit:
    where = f'split "{name}"'
    try:
        rows = [(*parts, label, segment) for parts, label, segment in listed]
        words, vision, audio, labels, segments = zip(*rows, strict=True) if rows else ((),) * 5
    except (TypeError, ValueError):
        raise DatasetError(
            f"{where}: a clip is not ((words, visual, acoustic), label, segment).\n"
            "  Expected these parts of every clip of a MAG-BERT pickle.\n"
            f"  {LAYOUTS}"
        ) from None
    ids = as_texts(list(segments))
    texts = [as_texts(spoken) for spoken in words]
    split = ForeignSplit(
        name=name,
        features={
            "audio": as_features(list(audio), f"{where}: acoustic"),
            "vision": as_features(list(vision), f"{where}: visual"),
        },
        ids=ids,
        texts=[" ".join(spoken) for spoken in texts],
        words=[tuple(Word(text=word) for word in spoken) for spoken in texts],
    )
    numbers = [np.asarray(label).reshape(-1) for label in labels]
    split.labels["regression"] = as_numbers(numbers, f"{where}: label")
    named = [_SEGMENT.fullmatch(text) for text in ids]
    if named and all(named):
        split.video_ids = [match["video"] for match in named if match]
        split.clip_ids = [match["clip"] for match in named if match]
    return split
