"""Find when each word of a known text is said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
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
from mmcl.media.utterances import moved_words

__all__ = [
    *("ENGLISH", "LONGEST", "align_words", "refine_times", "time_words", "words_by_recogniser"),
]

ENGLISH = "en"
"""The only language whose words can be aligned."""
STEPS_PER_SECOND = 100  # of pocketsphinx
LONGEST = 180.0
"""Seconds; longer sound is not searched for a text in one go."""
FAR = 2.0  # seconds from where a word was heard; a search that ends farther away went wrong
HUSH = SAMPLE_RATE // 5  # samples, 200 ms, over which loudness is compared to find a pause

_Floats = NDArray[np.float32]
_Span = tuple[float, float]  # start and end, in seconds

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SOUNDS = (
    "tion:SH AH N,sch:SH,tch:CH,igh:AY,ing:IH NG,ch:CH,sh:SH,th:TH,ph:F,wh:W,ck:K,qu:K W,ng:NG,"
    "ee:IY,ea:IY,oo:UW,ou:AW,ow:OW,oa:OW,ai:EY,ay:EY,oi:OY,oy:OY,au:AO,aw:AO,er:ER,"
    "a:AE,b:B,c:K,d:D,e:EH,f:F,g:G,h:HH,i:IH,j:JH,k:K,l:L,m:M,n:N,o:AA,p:P,q:K,r:R,s:S,t:T,"
    "u:AH,v:V,w:W,x:K S,y:IY,z:Z"
)
LETTERS_TO_PHONES = dict(pair.split(":") for pair in _SOUNDS.split(","))
"""Phones of letters in a word that no dictionary has: the longest that fit, left to right.

They are rough, and that is enough: the search needs about the right length and colour.
"""

_SPELLING = re.compile("|".join(sorted(LETTERS_TO_PHONES, key=len, reverse=True)))


def time_words(
    audio: _Floats, text: str, *, language: str | None, recogniser: Recogniser
) -> tuple[Word, ...]:
    """Find when each word of a known text is said.

    English of up to three minutes is searched for in the sound. Where that fails, and in
    longer sound, :func:`refine_times` starts from the times at which the recogniser hears the
    words. In other languages the recogniser's times are returned.

    Args:
        audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
        text: What is said, with spaces between words.
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
        with suppress(MediaError):
            return align_words(audio, text)
    words = words_by_recogniser(recogniser, audio, text, language)
    return refine_times(audio, words) if language == ENGLISH else words


def refine_times(audio: _Floats, words: Sequence[Word]) -> tuple[Word, ...]:
    """Search English sound for words whose times are known roughly, as from a recogniser.

    All words are searched for at once, as :func:`time_words` does with a given text, so that
    the same words get the same times. If that fails, or finds a word more than :data:`FAR`
    from where it was heard, the sound is cut at a pause and each half is searched by itself.
    A word that cannot be found even alone keeps its rough times.

    Args:
        audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
        words: In order, with times in seconds.
    """
    if words and len(audio) <= LONGEST * SAMPLE_RATE:
        with suppress(MediaError):
            found = align_words(audio, " ".join(word.text for word in words))
            if all(abs(_middle(a) - _middle(b)) <= FAR for a, b in zip(found, words, strict=True)):
                return found
    if len(words) < 2:
        return tuple(words)
    index = _longest_pause(words)
    cut = _quietest(audio, _middle(words[index - 1]), _middle(words[index]))
    seconds = cut / SAMPLE_RATE
    earlier = refine_times(audio[:cut], words[:index])
    later = refine_times(audio[cut:], moved_words(words[index:], -seconds))
    return (*earlier, *moved_words(later, seconds))


def _middle(word: Word) -> float:
    return ((word.start or 0.0) + (word.end or 0.0)) / 2


def _longest_pause(words: Sequence[Word]) -> int:
    """Return the index of the word after the longest pause, away from both ends if possible."""
    quarter = max(1, len(words) // 4)
    return max(
        range(quarter, len(words) - quarter + 1),
        key=lambda i: (
            (words[i].start or 0.0) - (words[i - 1].end or 0.0),
            -abs(2 * i - len(words)),
        ),
    )


def _quietest(audio: _Floats, start: float, end: float) -> int:
    """Return the sample between two times around which the sound is quietest."""
    first = min(round(start * SAMPLE_RATE), len(audio))
    stop = max(min(round(end * SAMPLE_RATE), len(audio)), first + 1)
    places = np.arange(first, stop, SAMPLE_RATE // STEPS_PER_SECOND)
    around = [audio[max(place - HUSH // 2, 0) : place + HUSH // 2] for place in places]
    loudness = [float(np.square(part).mean()) if len(part) else 0.0 for part in around]
    return int(places[int(np.argmin(loudness))])


def align_words(audio: _Floats, text: str) -> tuple[Word, ...]:
    """Search English sound for the words of a text, in order.

    A word that the dictionary of pocketsphinx lacks gets its phones from
    :data:`LETTERS_TO_PHONES`, and figures are spoken one by one. A word with neither letters
    nor figures is placed between its neighbours. Arguments and words are as in
    :func:`time_words`, with times in steps of 10 ms.

    Raises:
        MediaError: If the sound cannot be this text, being too short for example.
        MissingExtraError: If pocketsphinx is not installed.
    """
    tokens = text.split()
    decoder = _decoder()
    token_parts = [_spoken_parts(token) for token in tokens]  # "well-known" has two parts
    parts = [part for parts in token_parts for part in parts]
    for part in set(parts):
        _add_to_dictionary(decoder, part)
    part_spans = _search(decoder, audio, parts) if parts else []
    if len(part_spans) != len(parts):
        raise MediaError(
            f"the {len(tokens)} words of the text cannot be found in "
            f"{len(audio) / SAMPLE_RATE:.2f} s of sound.\n"
            "  Expected a transcript of this sound, in English. See what is said: "
            "leave the transcript out."
        )
    remaining = iter(part_spans)
    spans: list[_Span | None] = []
    for token in token_parts:
        own = [next(remaining) for _ in token]
        spans.append((own[0][0], own[-1][1]) if own else None)
    return _timed_words(tokens, spans, len(audio) / SAMPLE_RATE)


@lru_cache(maxsize=1)
def _decoder() -> Any:
    pocketsphinx = load("pocketsphinx", "aligning English words")
    # "batch" normalises each sound by itself, so that none depends on the one before it.
    return pocketsphinx.Decoder(lm=None, cmn="batch", loglevel="FATAL")


def _spoken_parts(token: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", token.lower().replace("’", "'"))
    parts = re.findall(r"[a-z]+(?:'[a-z]+)*|\d", "".join(c for c in plain if c.isascii()))
    return [DIGITS[int(part)] if part.isdigit() else part for part in parts]


def _add_to_dictionary(decoder: Any, word: str) -> None:
    if decoder.lookup_word(word) is None:
        letters = word.replace("'", "").removesuffix("e") or word
        phones = " ".join(LETTERS_TO_PHONES[match] for match in _SPELLING.findall(letters))
        decoder.add_word(word, phones, update=True)


def _search(decoder: Any, audio: _Floats, parts: Sequence[str]) -> list[_Span]:
    """Return the times of the parts in seconds, or nothing if the search fails."""
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
            (segment.start_frame / STEPS_PER_SECOND, (segment.end_frame + 1) / STEPS_PER_SECOND)
            for segment in decoder.seg() or ()
            if segment.word[:1] not in ("<", "(", "[")  # silence, nothing and noise
        ]
    except RuntimeError:
        return []


def words_by_recogniser(
    recogniser: Recogniser, audio: _Floats, text: str, language: str | None
) -> tuple[Word, ...]:
    """Time the words of a text by what a recogniser hears; see :func:`time_words`.

    Words that are heard differently from the text share the time of what was heard in their
    place. Words that are not heard are placed between their neighbours.
    """
    tokens = text.split()
    heard = recogniser.transcribe(audio, language=language).words
    heard_spans = [(word.start or 0.0, word.end or 0.0) for word in heard]
    matcher = SequenceMatcher(
        None,
        [_letters(word.text) for word in heard],
        [_letters(token) for token in tokens],
        autojunk=False,
    )
    spans: list[_Span | None] = [None] * len(tokens)
    for kind, first, last, start, stop in matcher.get_opcodes():
        if kind == "equal":
            spans[start:stop] = heard_spans[first:last]
        elif kind == "replace":
            span = heard_spans[first][0], heard_spans[last - 1][1]
            spans[start:stop] = _split_span(span, tokens[start:stop])
    return _timed_words(tokens, spans, len(audio) / SAMPLE_RATE)


def _letters(token: str) -> str:
    """Return a word without case, accents and punctuation."""
    letters = unicodedata.normalize("NFKD", token.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def _timed_words(
    tokens: Sequence[str], spans: Sequence[_Span | None], duration: float
) -> tuple[Word, ...]:
    """Return words with times; those of unknown ones lie between their neighbours."""
    filled: list[_Span] = []
    index, previous_end = 0, 0.0
    while index < len(spans):
        # Words from index to stop have no times; the one at stop has, if there is one.
        stop = next((s for s in range(index, len(spans)) if spans[s] is not None), len(spans))
        known = spans[stop] if stop < len(spans) else None
        limit = max(previous_end, duration if known is None else known[0])
        filled += _split_span((previous_end, limit), tokens[index:stop])
        if known is not None:
            filled.append(known)
            previous_end = known[1]
        index = stop + 1
    return tuple(
        Word(text=token, start=round(start, 3), end=round(end, 3))
        for token, (start, end) in zip(tokens, filled, strict=True)
    )


def _split_span(span: _Span, tokens: Sequence[str]) -> list[_Span]:
    """Split a stretch of time between words in proportion to their numbers of letters."""
    edges = np.cumsum([0, *(max(len(token), 1) for token in tokens)], dtype=np.float64)
    times = span[0] + edges / edges[-1] * (span[1] - span[0]) if tokens else edges
    return list(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))
