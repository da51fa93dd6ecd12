"""Frozen vectors for the words of a corpus that keeps words and has no vectors of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mmcl.corpus.arrow_columns import corpus_schema, record_batch
from mmcl.corpus.readers.build_corpus import TEXT_ALONE
from mmcl.corpus.schema import Card, Clip, Word
from mmcl.corpus.store import Corpus
from mmcl.errors import DatasetError
from mmcl.media.text import TextEncoder, text_columns
from mmcl.media.weights import STARTER_NAME, TEXT_PACKAGE, text_model

__all__ = [
    "PACKAGED",
    "TextModel",
    "has_words",
    "identity",
    "recorded_text_model",
    "with_text_vectors",
    "with_vectors_of_words",
]

PACKAGED = "packaged"
"""Name of the text model of the extra media-offline."""
CLIPS_AT_ONCE = 256
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, Chinese characters
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class TextModel(NamedTuple):
    """The text model that made the vectors of a corpus."""

    name: str | None  # as with_text_vectors takes it; None if it cannot be found again
    label: str | None  # its version; None if it was not recorded


def recorded_text_model(card: Card) -> TextModel:
    """Return what a card says of the model that made the vectors of its text."""
    label = card.recipe.get("text_model")
    if isinstance(label, str):  # with_text_vectors made them
        return TextModel(_name_of(label), label)
    extraction = card.recipe.get("extraction")
    if not isinstance(extraction, dict):
        return TextModel(None, None)
    versions = extraction.get("versions")
    label = versions.get("text_model") if isinstance(versions, dict) else None
    return TextModel(extraction.get("text_model") or PACKAGED, None if label == "none" else label)


def _name_of(label: str) -> str | None:
    """Return the name of the model with a label; None for a folder, which may have moved."""
    name, _, version = label.partition(" ")
    known = {STARTER_NAME: STARTER_NAME, TEXT_PACKAGE: PACKAGED}
    return known.get(name) if version else name


def identity(label: str) -> str:
    """Return what two labels of one text model share: its checksum, or its name.

    Example:
        >>> [identity(label) for label in ("bert sha256:0a1b", "some-package 1.2", "owner/name")]
        ['sha256:0a1b', 'some-package', 'owner/name']
    """
    name, _, version = label.partition(" ")
    return version if version.startswith("sha256:") else name


def has_words(corpus: Corpus) -> bool:
    """Tell whether any clip of a corpus keeps what was said."""
    clips = corpus.every_clip().table
    if clips.column("text").null_count < len(clips):
        return True
    # Steps of a recording without words are listed as words without text.
    spoken = (chunk.flatten().field("text") for chunk in clips.column("words").chunks)
    return any(pc.any(pc.greater(pc.utf8_length(words), 0)).as_py() for words in spoken)


def with_vectors_of_words(corpus: Corpus, model: str) -> Corpus:
    """Return a corpus with a vector for every word; it must have none.

    The other columns are those of the given corpus: the vectors are in memory, and nothing is
    copied. Labels are not looked at.

    Args:
        corpus: A corpus that keeps words or text.
        model: As :func:`with_text_vectors` takes it.

    Raises:
        DatasetError: If the corpus has vectors of its text already.
        MediaError: If the encoder cannot be loaded.
    """
    card, clips = with_text_vectors(corpus.card, corpus.every_clip().clips(), model)
    schema = corpus_schema(card, "float32")
    columns = pa.schema([schema.field(name) for name in ("features_text", "words")])
    blocks = []
    while block := list(islice(clips, CLIPS_AT_ONCE)):
        blocks.append(record_batch(columns, block))
    table = pa.Table.from_batches(blocks, columns)
    for name in columns.names:
        corpus = corpus.with_column(name, table.column(name), card)
    return corpus


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
        "notes": (*_without_advice(card.notes), f"text: a vector per word by {version}"),
    }
    return card.model_copy(update=changes), _encoded(clips, encoder)


def _without_advice(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes without the one that says how to make vectors."""
    return tuple(note for note in notes if note != TEXT_ALONE)


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
