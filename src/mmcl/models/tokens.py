"""Corpora with word pieces in place of text vectors, for networks that read the words.

The text of such a corpus has one step per word (or per piece), and the features of a step are
the numbers of its pieces, plus one; 0 stands for no piece. So everything that works on steps,
such as lengths, masks, batches and files larger than memory, works on words too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmcl.config import TextSettings
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError
from mmcl.types import Modality

__all__ = ["has_words", "tokenised"]

CLIPS_AT_ONCE = 1024


class _Pieces(NamedTuple):
    """Word pieces of one clip: their numbers, and the step that each belongs to."""

    numbers: list[int]
    steps: list[int]
    num_steps: int
    is_cut: bool
    names: list[str] | None = None  # the word of every step, where the corpus has none


def has_words(corpus: Corpus) -> bool:
    """Tell whether any clip keeps what was said."""
    columns = corpus.every_clip().table.select(["text", "words"])
    return any(column.null_count < len(column) for column in columns.columns)


def tokenised(corpus: Corpus, tokenizer: Any, settings: TextSettings) -> Corpus:
    """Return a corpus with word pieces in place of the vectors of its text.

    The other columns are those of the given corpus: nothing else is copied.

    Args:
        corpus: A corpus that keeps words or text.
        tokenizer: A fast tokenizer of transformers.
        settings: How many pieces are taken, and whether steps are words or pieces.

    Raises:
        DatasetError: If no clip has text, or if the corpus is aligned and the words or pieces
            of a clip are not as many as its steps.
    """
    if not has_words(corpus):
        raise DatasetError(
            f"{corpus.card.name}: no clip keeps its words, and text.encoder reads them.\n"
            "  Expected a corpus with words or text: mmcl extract makes one of recordings, and "
            "mmcl corpus convert keeps raw_text.\n"
            "  To use the features of the text as they are, leave text.encoder out."
        )
    clips = corpus.every_clip()
    pieces = [
        p
        for start in range(0, len(clips), CLIPS_AT_ONCE)
        for p in _pieces(clips, start, tokenizer, settings)
    ]
    if corpus.card.aligned:
        _check_aligned(clips, pieces, settings)
    width = max((int(np.bincount(p.steps).max()) for p in pieces if p.steps), default=1)
    column = _column(pieces, width)
    dims: dict[Modality, int] = {m: d for m, d in corpus.card.dims.items() if m != "text"}
    dims = {"text": width, **dims}
    cut = sum(piece.is_cut for piece in pieces)
    notes = corpus.card.notes
    if cut:
        notes += (
            f"text: {cut} of {len(pieces)} clips have more than {settings.max_tokens} word pieces "
            "and were cut (for longer ones: --set text.max_tokens=N)",
        )
    card = corpus.card.model_copy(update={"dims": dims, "notes": notes})
    tokens = corpus.with_column("features_text", column, card)
    if all(piece.names is None for piece in pieces):
        return tokens
    return tokens.with_column("words", _named_words(clips, pieces), card)


def _pieces(clips: Split, start: int, tokenizer: Any, settings: TextSettings) -> Iterator[_Pieces]:
    """Yield the word pieces of some clips from a row on."""
    rows = clips.between(start, min(start + CLIPS_AT_ONCE, len(clips))).table
    texts = rows.column("text").to_pylist()
    words = [_texts_of(spoken) for spoken in rows.column("words").to_pylist()]
    for text, spoken in zip(texts, words, strict=True):
        if spoken is None and not text:
            yield _Pieces([], [], 0, False)
            continue
        # Words of the corpus are the steps of the other modalities, too.
        encoding = tokenizer(
            text if spoken is None else spoken,
            is_split_into_words=spoken is not None,
            truncation=True,
            max_length=settings.max_tokens,
            return_overflowing_tokens=True,
        )
        found = _clip_pieces(encoding, None if spoken is None else len(spoken), settings.pool)
        if spoken is None and settings.pool == "words":
            found = found._replace(names=_word_names(encoding, text, found.num_steps))
        yield found


def _texts_of(words: list[dict[str, Any]] | None) -> list[str] | None:
    """Return the words of a clip; None if it has none, or only times without text."""
    texts = [word["text"] for word in words or ()]
    return texts if any(texts) else None


def _clip_pieces(encoding: Any, num_words: int | None, pool: str) -> _Pieces:
    numbers, word_of = encoding["input_ids"][0], encoding.word_ids(0)
    is_cut = len(encoding["input_ids"]) > 1
    if pool == "tokens":  # those that mark beginning and end are steps, too, as in MMSA's files
        return _Pieces(numbers, list(range(len(numbers))), len(numbers), is_cut)
    pairs = [(n, w) for n, w in zip(numbers, word_of, strict=True) if w is not None]
    if num_words is None:
        num_words = 1 + max((word for _, word in pairs), default=-1)
    return _Pieces([n for n, _ in pairs], [w for _, w in pairs], num_words, is_cut)


def _word_names(encoding: Any, text: str, num_steps: int) -> list[str]:
    """Return the words that the tokenizer finds in a text."""
    spans = [encoding.word_to_chars(0, word) for word in range(num_steps)]
    return ["" if span is None else text[span.start : span.end] for span in spans]


def _named_words(clips: Split, pieces: list[_Pieces]) -> pa.Array:
    """Return the column of words: those of the corpus, else those that the tokenizer found."""
    column = clips.table.column("words")
    rows = [
        own if piece.names is None else [{"text": name} for name in piece.names]
        for own, piece in zip(column.to_pylist(), pieces, strict=True)
    ]
    return pa.array(rows, column.type)


def _check_aligned(clips: Split, pieces: list[_Pieces], settings: TextSettings) -> None:
    """Refuse an aligned corpus in which text has other steps than the other modalities."""
    for modality in clips.modalities:
        if modality == "text":
            continue
        lengths = clips.lengths(modality)
        for row, (length, piece) in enumerate(zip(lengths.tolist(), pieces, strict=True)):
            if length and piece.num_steps and length != piece.num_steps:
                other = "words" if settings.pool == "tokens" else "tokens"
                raise DatasetError(
                    f'{clips.card.name}, clip "{clips.ids[row]}": {piece.num_steps} '
                    f"{settings.pool} of text, but {modality} has {length} steps, and the corpus "
                    "is aligned.\n"
                    f"  Expected as many. Try the other kind of step: --set text.pool={other}\n"
                    "  Or say that it is not aligned: mmcl corpus convert SRC DST --align none"
                )


def _column(pieces: list[_Pieces], width: int) -> pa.Array:
    """Return the pieces as a column of features: per clip ``[n, width]``, null without text."""
    lengths = np.array([piece.num_steps for piece in pieces], dtype=np.int64)
    flat = np.zeros((int(lengths.sum()), width), dtype=np.float32)
    first = np.cumsum([0, *lengths[:-1]])
    for start, piece in zip(first.tolist(), pieces, strict=True):
        place = _places(piece.steps)
        flat[start + np.array(piece.steps, dtype=np.int64), place] = np.array(piece.numbers) + 1
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width)
    offsets = pa.array(np.cumsum([0, *lengths]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(lengths == 0))


def _places(steps: list[int]) -> NDArray[np.int64]:
    """Return the place of every piece within its step, from 0."""
    order = np.array(steps, dtype=np.int64)
    if not len(order):
        return order
    is_first = np.append(True, order[1:] != order[:-1])
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    return np.arange(len(order)) - starts
