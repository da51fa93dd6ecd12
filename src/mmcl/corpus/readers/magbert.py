"""MAG-BERT's pickles: per split a list of ``((words, visual, acoustic), label, segment)``.

MISA's are the same with numbers of words in the first place and the words themselves in a
fourth. They hold words and no text features. The words are kept for models that embed words
themselves; audio and vision have one step per word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmcl.corpus.readers.source_file import (
    LAYOUTS,
    SourceFile,
    SourceSplit,
    as_features,
    as_label_array,
    as_numbers,
    as_texts,
)
from mmcl.corpus.schema import Word
from mmcl.errors import DatasetError
from mmcl.types import SplitName

__all__ = ["read_magbert"]

_SEGMENT = re.compile(r"(?P<video>.+)\[(?P<clip>\d+)\]")


def read_magbert(splits: Mapping[SplitName, Any]) -> SourceFile:
    """Read lists of clips in MAG-BERT's layout."""
    source = SourceFile("magbert", [_read_split(name, clips) for name, clips in splits.items()])
    source.fields = ("words", "visual", "acoustic", "label", "segment")
    return source


def _three(first: Any, vision: Any, audio: Any, *words: Any) -> tuple[Any, Any, Any]:
    """Return words, vision and audio of MAG-BERT's three parts, or of MISA's four."""
    return (words[0] if words else first, vision, audio)


def _read_split(name: SplitName, clips: Any) -> SourceSplit:
    where = f'split "{name}"'
    try:
        rows = [(*_three(*parts), label, segment) for parts, label, segment in clips]
        words, vision, audio, labels, segments = zip(*rows, strict=True) if rows else ((),) * 5
    except (TypeError, ValueError):
        raise DatasetError(
            f"{where}: a clip is not ((words, visual, acoustic), label, segment).\n"
            "  Expected these parts of every clip of a MAG-BERT pickle.\n"
            f"  {LAYOUTS}"
        ) from None
    ids = as_texts(list(segments), f"{where}: segment")
    texts = [as_texts(spoken, f"{where}: words") for spoken in words]
    scores = [as_label_array([label], f"{where}: label").reshape(-1) for label in labels]
    split = SourceSplit(
        name=name,
        features={
            "audio": as_features(list(audio), f"{where}: acoustic"),
            "vision": as_features(list(vision), f"{where}: visual"),
        },
        labels={"label": as_numbers(scores, f"{where}: label")},
        ids=ids,
        texts=[" ".join(spoken) for spoken in texts],
        words=[tuple(Word(text=word) for word in spoken) for spoken in texts],
    )
    matches = [match for match in map(_SEGMENT.fullmatch, ids) if match]
    if matches and len(matches) == len(ids):
        split.video_ids = [match["video"] for match in matches]
        split.clip_ids = [match["clip"] for match in matches]
    return split
