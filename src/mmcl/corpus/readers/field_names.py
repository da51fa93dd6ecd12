"""Names of the parts of a foreign file: the user's renaming, and questions about near names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from mmcl.corpus.readers.dict_of_splits import FIELDS, LABEL_FIELDS, SPLIT_FIELDS
from mmcl.corpus.readers.source_file import LAYOUTS, LeftOut, text_of
from mmcl.errors import DatasetError, did_you_mean
from mmcl.types import MODALITIES

__all__ = ["check_field_names", "check_renaming", "in_our_spelling", "renamed", "suggested_name"]

_WORDS: Mapping[str, tuple[str, ...]] = {
    "text": ("language", "lang", "glove", "bert", "words", "txt", "word_vectors"),
    "audio": ("acoustic", "speech", "voice", "sound", "covarep", "opensmile"),
    "vision": ("video", "visual", "face", "facial", "facet", "openface", "images", "frames"),
    "labels": (
        *("y", "target", "targets", "score", "scores", "sentiment", "emotion", "emotions"),
        *("rating", "ratings", "class", "classes"),
    ),
    "raw_text": ("transcript", "transcripts", "sentence", "sentences", "utterance", "text_raw"),
    "id": ("names", "name", "key", "keys", "segment", "segments", "utt_id", "filename"),
}
_NEAR_WORDS = {word: field for field, words in _WORDS.items() for word in words}
# A field of these names decides about numbers, so a near name is asked for and not passed over.
_IN_SMALL_LETTERS = {field.lower(): field for field in (*FIELDS, *SPLIT_FIELDS)}
_FEATURES_OF = re.compile(r"^(features?|feats?|embeddings?)_|_(features?|feats?|embeddings?)$")
_ENDINGS = ("", "_lengths", "_present")
_DECISIVE = {f"{modality}{ending}" for modality in MODALITIES for ending in _ENDINGS}
_DECISIVE |= set(LABEL_FIELDS)
MOST_FIELDS = 1000
NEAR = 0.8  # similarity, 0..1, of names that are taken for misspelt


def renamed(content: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a dict under the names the user gave; what got an empty name is left out."""
    new = {str(key): names.get(str(key), str(key)) for key in content}
    return {new[str(key)]: value for key, value in content.items() if new[str(key)]}


def in_our_spelling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields under our names where only capitals or blanks differ: ``Text`` is ``text``."""
    ours = {key: _IN_SMALL_LETTERS.get(key.strip().lower(), key) for key in fields}
    times = Counter(ours.values())
    return {(ours[key] if times[ours[key]] == 1 else key): value for key, value in fields.items()}


def check_renaming(names: Mapping[str, str], found: Iterable[str]) -> None:
    """Refuse a renaming of something that is not there.

    Raises:
        DatasetError: If a name to be replaced is neither a split nor a field.
    """
    known = sorted({text_of(name) for name in found})
    for key in names:
        if key not in known:
            near = did_you_mean(key, known) or "."
            raise DatasetError(
                f'--rename "{key}={names[key]}": nothing in the file is called "{key}"{near}\n'
                f"  It has: {', '.join(known)}.\n  {LAYOUTS}"
            )


def suggested_name(key: str, value: Any = None) -> str | None:
    """Return the field that an unknown name may stand for, or None.

    Example:
        >>> suggested_name("video"), suggested_name("audio_length"), suggested_name("config")
        ('vision', 'audio_lengths', None)
        >>> suggested_name("text_features"), suggested_name("visual_feat")
        ('text', 'vision')
    """
    word = _FEATURES_OF.sub("", key.strip().lower())
    field = word if word in FIELDS else _NEAR_WORDS.get(word)
    if field is None:
        field = next(iter(get_close_matches(word, sorted(FIELDS), n=1, cutoff=NEAR)), None)
    if field in MODALITIES and value is not None and not _is_numeric(value):
        return "raw_text"
    return field


def _is_numeric(value: Any) -> bool:
    try:
        first = value if isinstance(value, np.ndarray) and value.dtype != object else value[0]
        return np.asarray(first).dtype.kind in "fiub"
    except (TypeError, ValueError, IndexError, KeyError):
        return False


def check_field_names(fields: Mapping[str, Any]) -> list[LeftOut]:
    """Ask about fields whose names are near to those of features, lengths or labels.

    Args:
        fields: All fields of the file, each with its value in one of the splits.

    Returns:
        Less important fields that have a near name, with that name.

    Raises:
        DatasetError: If the features, lengths or labels of an unknown field would be lost.
    """
    if len(fields) > MOST_FIELDS:  # each would be compared with every name that is known
        raise DatasetError(
            f"a split with {len(fields):,} fields, {str(next(iter(fields)))!r} for example.\n"
            f"  Expected at most {MOST_FIELDS:,}: text, audio, vision, labels, id, ...\n  {LAYOUTS}"
        )
    questions, named = [], []
    has_labels = any(field in fields for field in LABEL_FIELDS)
    for key in sorted(fields.keys() - FIELDS):
        name = suggested_name(key, fields[key])
        if name is None or name in fields or (name in LABEL_FIELDS and has_labels):
            continue
        if name in _DECISIVE:
            questions.append((key, name))
        else:
            what = f"field {key}, which is not read"
            fix = f'if it is {name}: --rename "{key}={name}"'
            named.append(LeftOut(what, fix=fix))
    if questions:
        raise DatasetError(_question_text(questions))
    return named


def _question_text(questions: list[tuple[str, str]]) -> str:
    asked = ", ".join(
        f'field "{key}" is not read; did you mean "{name}"?' for key, name in questions
    )
    renaming = " ".join(f'--rename "{key}={name}"' for key, name in questions)
    return (
        f"{asked}\n"
        f"  Expected the fields {', '.join(MODALITIES)}, lengths (audio_lengths) and labels.\n"
        f'  If so: {renaming}; to leave one out: --rename "{questions[0][0]}="\n'
        f"  {LAYOUTS}"
    )
