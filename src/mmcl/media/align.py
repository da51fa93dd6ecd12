"""When each word of a known text is said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.recipe import SAMPLE_RATE
from mmcl.media.recognise import Recogniser

__all__ = ["ENGLISH", "align_words", "time_words", "words_by_recogniser"]

ENGLISH = "en"
STEPS_PER_SECOND = 100  # of pocketsphinx
LONGEST = 180.0
"""Sound longer than this, in seconds, is not searched for a text in one go."""

_Span = tuple[float, float]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SOUNDS = (
    "tion:SH AH N,sch:SH,tch:CH,igh:AY,ing:IH NG,ch:CH,sh:SH,th:TH,ph:F,wh:W,ck:K,qu:K W,ng:NG,"
    "ee:IY,ea:IY,oo:UW,ou:AW,ow:OW,oa:OW,ai:EY,ay:EY,oi:OY,oy:OY,au:AO,aw:AO,er:ER,"
    "a:AE,b:B,c:K,d:D,e:EH,f:F,g:G,h:HH,i:IH,j:JH,k:K,l:L,m:M,n:N,o:AA,p:P,q:K,r:R,s:S,t:T,"
    "u:AH,v:V,w:W,x:K S,y:IY,z:Z"
)
LETTERS_TO_PHONES = dict(pair.split(":") for pair in _SOUNDS.split(","))
"""How letters are spoken in a word no dictionary has: the longest that fit, left to right.

Rough on purpose: the search needs a sound of about the right length and colour.
"""

_SPELLING = re.compile("|".join(sorted(LETTERS_TO_PHONES, key=len, reverse=True)))


def time_words(
    audio: NDArray[np.float32], text: str, *, language: str | None, recogniser: Recogniser
) -> tuple[Word, ...]:
    """Find when each word of a known text is said.

    English of up to three minutes is searched for in the sound; otherwise, and where that fails,
    the times are those at which the recogniser hears the words.

    Args:
        audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
        text: What is said, words parted by spaces.
        language: Two letters; None asks the recogniser.
        recogniser: Used only where needed.

    Returns:
        One word per part of the text, in order, each with its times in seconds.
    """
    if not text.split():
        return ()
    if language is None and len(audio):
        language = recogniser.language_of(audio)
    if language == ENGLISH and len(audio) <= LONGEST * SAMPLE_RATE:
        found = _forced(audio, text.split())
        if found is not None:
            return found
    return words_by_recogniser(recogniser, audio, text, language)


# ---------------------------------------------------------------- searched for in the sound


def align_words(audio: NDArray[np.float32], text: str) -> tuple[Word, ...]:
    """Search English sound for the words of a text, in order.

    A word that the dictionary of pocketsphinx lacks is spoken by
    :data:`LETTERS_TO_PHONES`, figures one by one; what has neither letters nor figures is
    placed between its neighbours.

    Args:
        audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
        text: What is said, words parted by spaces.

    Returns:
        One word per part of the text, in order, with times in steps of 10 ms.

    Raises:
        MediaError: If the sound cannot be this text, being too short for example.
        MissingExtraError: If pocketsphinx is not installed.
    """
    found = _forced(audio, text.split())
    if found is None:
        raise MediaError(
            f"the {len(text.split())} words of the text cannot be found in "
            f"{len(audio) / SAMPLE_RATE:.2f} s of sound.\n"
            "  Expected a transcript of this sound, in English. See what is said: "
            "leave the transcript out."
        )
    return found


def _forced(audio: NDArray[np.float32], tokens: Sequence[str]) -> tuple[Word, ...] | None:
    decoder = _decoder()
    spoken = [_spoken(token) for token in tokens]  # the parts of each, "well-known" has two
    for part in {part for parts in spoken for part in parts}:
        _teach(decoder, part)
    parts = [part for each in spoken for part in each]
    spans = _search(decoder, audio, parts) if parts else []
    if len(spans) != len(parts):
        return None
    after = iter(spans)
    of_tokens: list[_Span | None] = []
    for each in spoken:
        own = [next(after) for _ in each]
        of_tokens.append((own[0][0], own[-1][1]) if own else None)
    return _words(tokens, of_tokens, len(audio) / SAMPLE_RATE)


@lru_cache(maxsize=1)
def _decoder() -> Any:
    pocketsphinx = load("pocketsphinx", "aligning English words")
    # Normalised by the whole of each sound, so that none depends on the one before it.
    return pocketsphinx.Decoder(lm=None, cmn="batch", loglevel="FATAL")


def _spoken(token: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", token.lower().replace("’", "'"))
    parts = re.findall(r"[a-z]+(?:'[a-z]+)*|\d", "".join(c for c in plain if c.isascii()))
    return [DIGITS[int(part)] if part.isdigit() else part for part in parts]


def _teach(decoder: Any, word: str) -> None:
    if decoder.lookup_word(word) is None:
        letters = word.replace("'", "").removesuffix("e") or word
        phones = " ".join(LETTERS_TO_PHONES[found] for found in _SPELLING.findall(letters))
        decoder.add_word(word, phones, update=True)


def _search(decoder: Any, audio: NDArray[np.float32], parts: Sequence[str]) -> list[_Span]:
    """Times of the parts in seconds; none where the search fails."""
    if not len(audio):
        return []
    samples = np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)
    try:
        decoder.set_align_text(" ".join(parts))
        decoder.start_utt()
        try:
            decoder.process_raw(samples.tobytes(), full_utt=True)
        finally:
            decoder.end_utt()
        return [
            (found.start_frame / STEPS_PER_SECOND, (found.end_frame + 1) / STEPS_PER_SECOND)
            for found in decoder.seg() or ()
            if found.word[:1] not in ("<", "(", "[")  # silence, nothing and noise
        ]
    except RuntimeError:
        return []


# ---------------------------------------------------------------- as the recogniser hears them


def words_by_recogniser(
    recogniser: Recogniser, audio: NDArray[np.float32], text: str, language: str | None
) -> tuple[Word, ...]:
    """Give the words of a text the times at which a recogniser hears them.

    Words heard otherwise than written share the time of what was heard in their place;
    those not heard at all are placed between their neighbours.

    Args:
        recogniser: Of the language.
        audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
        text: What is said, words parted by spaces.
        language: Two letters; None lets the recogniser say.

    Returns:
        One word per part of the text, in order.
    """
    tokens = text.split()
    heard = recogniser.transcribe(audio, language=language).words
    matcher = SequenceMatcher(
        None, [_plain(word.text) for word in heard], [_plain(t) for t in tokens], autojunk=False
    )
    spans: list[_Span | None] = [None] * len(tokens)
    for kind, first, last, start, stop in matcher.get_opcodes():
        if kind == "equal":
            spans[start:stop] = [_span(word) for word in heard[first:last]]
        elif kind == "replace":
            whole = (_span(heard[first])[0], _span(heard[last - 1])[1])
            spans[start:stop] = _shared(whole, tokens[start:stop])
    return _words(tokens, spans, len(audio) / SAMPLE_RATE)


def _plain(token: str) -> str:
    """A word without case, accents and marks; the same for all that has nothing else."""
    letters = unicodedata.normalize("NFKD", token.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def _span(word: Word) -> _Span:
    return word.start or 0.0, word.end or 0.0


# ---------------------------------------------------------------- what is left over


def _words(
    tokens: Sequence[str], spans: Sequence[_Span | None], duration: float
) -> tuple[Word, ...]:
    """Words with times, those of unknown ones shared out between their neighbours."""
    filled = list(_filled(tokens, spans, duration))
    return tuple(
        Word(text=token, start=round(start, 3), end=round(end, 3))
        for token, (start, end) in zip(tokens, filled, strict=True)
    )


def _filled(
    tokens: Sequence[str], spans: Sequence[_Span | None], duration: float
) -> Iterator[_Span]:
    at, latest = 0, 0.0
    while at < len(spans):
        stop = next((s for s in range(at, len(spans)) if spans[s] is not None), len(spans))
        known = spans[stop] if stop < len(spans) else None
        limit = duration if known is None else known[0]
        yield from _shared((latest, max(latest, limit)), tokens[at:stop])
        if known is not None:
            yield known
            latest = known[1]
        at = stop + 1


def _shared(whole: _Span, tokens: Sequence[str]) -> list[_Span]:
    """A stretch of time shared out by the words' numbers of letters."""
    edges = np.cumsum([0, *(max(len(token), 1) for token in tokens)], dtype=np.float64)
    times = whole[0] + edges / edges[-1] * (whole[1] - whole[0]) if tokens else edges
    return list(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))
