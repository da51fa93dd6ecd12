"""Frozen vectors for the words of a corpus that keeps words and has no vectors of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from mmcl.corpus.schema import Card, Clip, Word
from mmcl.errors import DatasetError
from mmcl.media.text import TextEncoder, text_columns
from mmcl.media.weights import text_model

__all__ = ["PACKAGED", "with_text_vectors"]

PACKAGED = "packaged"  # the model of the extra media-offline
CLIPS_AT_ONCE = 256
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, Chinese characters
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def with_text_vectors(card: Card, clips: Iterable[Clip], model: str) -> tuple[Card, Iterator[Clip]]:
    """Add a vector per word to the clips of a corpus.

    Args:
        card: Its card.
        clips: Its clips; those without text get no vectors.
        model: Hub id or folder of an encoder, or ``packaged``.

    Returns:
        The new card, and the clips with their vectors.

    Raises:
        DatasetError: If the corpus has vectors of its text already.
        MediaError: If the encoder cannot be loaded.
    """
    if "text" in card.dims:
        raise DatasetError(
            f"{card.name}: has features of its text already, {card.dims['text']} wide.\n"
            '  To make others, leave them out first: --rename "text="'
        )
    folder, version = text_model(None if model == PACKAGED else model)
    encoder = TextEncoder(folder)
    changes = {
        "dims": {"text": encoder.dim, **card.dims},
        # Of a text without words it is not known which step is which word.
        "aligned": card.aligned and bool(card.source and card.source.layout == "magbert"),
        "columns": {"text": text_columns(encoder.dim), **card.columns},
        "recipe": {**card.recipe, "text_model": version},
        "notes": (*card.notes, f"text: a vector per word by {version}"),
    }
    return card.model_copy(update=changes), _encoded(clips, encoder)


def _encoded(clips: Iterable[Clip], encoder: TextEncoder) -> Iterator[Clip]:
    remaining = iter(clips)
    while block := list(islice(remaining, CLIPS_AT_ONCE)):
        words = [_words(clip) for clip in block]
        vectors = encoder.encode([[word.text for word in spoken] for spoken in words])
        for clip, spoken, steps in zip(block, words, vectors, strict=True):
            if not spoken:
                yield clip
                continue
            features = {"text": steps, **clip.features}
            yield clip.model_copy(update={"features": features, "words": spoken})


def _words(clip: Clip) -> tuple[Word, ...]:
    """Return the words of a clip: its own, or those of its text.

    Words of a text stand between spaces; Chinese and Japanese, which have none, are taken
    character by character.
    """
    if clip.words and any(word.text for word in clip.words):
        return clip.words
    return tuple(Word(text=word) for word in _WORD.findall(clip.text or ""))
