"""Utterances: what one is, how the words of a recording are cut into them, and their text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError

__all__ = ["Utterance", "are_fragments", "cut_utterances", "ends_sentence", "from_milliseconds"]
__all__ += ["joined", "moved_words", "with_usual_end"]

SENTENCE_ENDS = (".", "!", "?", "…")
# Chinese and Japanese marks, which end a sentence and nothing else.
WIDE_SENTENCE_ENDS = ("。", "！", "？", "．", "｡")
CLOSERS = "\"'”’»)]」』）"
OPENERS = "¿¡([«“‘"
TITLES = {"mr.", "mrs.", "ms.", "dr.", "prof.", "st."}
SHORT_PAUSE = 0.2  # seconds of silence that end an utterance after the end of a sentence
LONGEST_SECONDS = 100.0  # an utterance that lasts longer than this has its times in milliseconds
SHORTEST_WORD = 0.2  # seconds; the least that a word without an end of its own lasts
FEWEST_FRAGMENTS = 4  # in a transcript of them
MOST_WORDS, MOST_LETTERS = 3, 4  # of a fragment; letters if these have no spaces between words

# Letters of Chinese and Japanese, which are written without spaces.
_UNSPACED = (("\u3000", "\u30ff"), ("\u3400", "\u9fff"), ("\uff00", "\uffef"))


class Utterance(NamedTuple):
    """A piece of speech.

    Attributes:
        start: In seconds from the start of the file; None where not known.
        end: Likewise, known if ``start`` is.
        text: What was said.
        words: Its words; none where only the text is known, and perhaps without times.
        speaker: Who says it, where the transcript tells.
    """

    start: float | None
    end: float | None
    text: str
    words: tuple[Word, ...] = ()
    speaker: str | None = None


def cut_utterances(words: Sequence[Word], *, pause: float, longest: float) -> list[Utterance]:
    """Cut the words of a recording into utterances.

    An utterance ends after a word that is followed by a silence of ``pause``. It also ends
    after a sentence (``. ! ? …``) that is followed by a silence of 0.2 s or by a capital, and
    after one with the wide marks of Chinese and Japanese. What then lasts longer than
    ``longest`` is cut at its longest silence, of equal ones at the one nearest its middle,
    until nothing does or one word is left.

    Args:
        words: In order, with times in seconds.
        pause: Silence that ends an utterance, in seconds.
        longest: An utterance's longest duration, in seconds.

    Raises:
        MediaError: If a word has no times.

    Example:
        >>> said = [Word(text="Yes.", start=0.0, end=0.4), Word(text="No.", start=0.5, end=0.9)]
        >>> [utterance.text for utterance in cut_utterances(said, pause=0.6, longest=15.0)]
        ['Yes.', 'No.']
    """
    spans = [_span(word) for word in words]
    cuts = [
        index
        for index, (word, following) in enumerate(pairwise(words), start=1)
        if _is_end(word, following, spans[index][0] - spans[index - 1][1], pause)
    ]
    utterances = []
    for first, last in pairwise([0, *cuts, len(words)]):
        for start, stop in _short_parts(spans, first, last, longest):
            part = tuple(words[start:stop])
            utterances.append(Utterance(spans[start][0], spans[stop - 1][1], joined(part), part))
    return utterances


def joined(words: Sequence[Word]) -> str:
    """Return the words as text: with spaces, but none between Chinese or Japanese words."""
    text = ""
    for word in words:
        spaced = text and word.text and not (_is_unspaced(text[-1]) and _is_unspaced(word.text[0]))
        text += f" {word.text}" if spaced else word.text
    return text


def moved_words(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    """Return the words later by so many seconds, to the microsecond and not before 0."""

    def moved(time: float | None) -> float | None:
        return None if time is None else max(0.0, round(time + seconds, 6))

    return tuple(Word(text=w.text, start=moved(w.start), end=moved(w.end)) for w in words)


def from_milliseconds(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Return utterances in seconds whose times are whole numbers, and a note if these changed.

    They are milliseconds if most utterances would otherwise last longer than 100 s.
    """
    lengths = [u.end - u.start for u in utterances if u.start is not None and u.end is not None]
    if not lengths or median(lengths) <= LONGEST_SECONDS:
        return list(utterances), []

    def scaled(time: float | None) -> float | None:
        return None if time is None else time / 1000

    in_seconds = [
        u._replace(
            start=scaled(u.start),
            end=scaled(u.end),
            words=tuple(
                Word(text=w.text, start=scaled(w.start), end=scaled(w.end)) for w in u.words
            ),
        )
        for u in utterances
    ]
    return in_seconds, ["its times were read as milliseconds"]


def with_usual_end(words: Sequence[Word]) -> tuple[Word, ...]:
    """End the last word when it is said, where it would last as long as a caption is shown.

    It lasts as long as its number of letters suggests, by the words before it.

    Example:
        >>> said = [Word(text="so", start=0.0, end=0.2), Word(text="good", start=0.2, end=3.0)]
        >>> with_usual_end(said)[-1].end
        0.6
    """
    *others, last = words or (Word(text=""),)
    if not others or last.start is None or last.end is None:
        return tuple(words)
    per_letter = [((w.end or 0.0) - (w.start or 0.0)) / len(w.text) for w in others]
    usual = max(median(per_letter) * len(last.text), SHORTEST_WORD)
    end = min(last.end, round(last.start + usual, 6))
    return (*others, last.model_copy(update={"end": end}))


def are_fragments(utterances: Sequence[Utterance]) -> bool:
    """Return whether nearly every utterance is one to three words of a longer sentence.

    Programs for short videos write subtitles so. Few words with a mark at their end are an
    answer ("Yes."), and a sentence of Chinese has no spaces.
    """
    if len(utterances) < FEWEST_FRAGMENTS or any(u.start is None for u in utterances):
        return False
    sentences = sum(ends_sentence(u.text) for u in utterances)
    return sum(map(_is_short, utterances)) >= 0.9 * len(utterances) >= 1.8 * sentences


def _is_short(utterance: Utterance) -> bool:
    text = utterance.text
    most = MOST_LETTERS if _is_unspaced(text[0]) else len(text)
    return len(text.split()) <= MOST_WORDS and len(text) <= most


def ends_sentence(text: str) -> bool:
    """Return whether a text ends with a mark that ends sentences."""
    return text.rstrip().rstrip(CLOSERS).endswith((*SENTENCE_ENDS, *WIDE_SENTENCE_ENDS))


def _is_unspaced(letter: str) -> bool:
    return any(low <= letter <= high for low, high in _UNSPACED)


def _span(word: Word) -> tuple[float, float]:
    if word.start is None or word.end is None:
        raise MediaError(
            f'the word "{word.text}" has no times; expected some for every word.\n'
            "  Find them first: mmcl.media.align.time_words"
        )
    return word.start, word.end


def _is_end(word: Word, following: Word, silence: float, pause: float) -> bool:
    """Return whether an utterance ends between two words."""
    text = word.text.rstrip(CLOSERS)
    if silence >= pause or text.endswith(WIDE_SENTENCE_ENDS):
        return True
    if not text.endswith(SENTENCE_ENDS) or text.lower() in TITLES:
        return False
    return silence >= SHORT_PAUSE or following.text.lstrip(CLOSERS + OPENERS)[:1].isupper()


def _short_parts(
    spans: Sequence[tuple[float, float]], first: int, last: int, longest: float
) -> Iterator[tuple[int, int]]:
    """Yield the first and last indices of parts that are not too long."""
    waiting = [(first, last)] if first < last else []
    while waiting:
        start, stop = waiting.pop()
        begin, end = spans[start][0], spans[stop - 1][1]
        if end - begin <= longest or stop - start == 1:
            yield start, stop
            continue
        middle = (begin + end) / 2
        cut = max(
            range(start + 1, stop),
            key=lambda i: (round(spans[i][0] - spans[i - 1][1], 3), -abs(spans[i][0] - middle)),
        )
        waiting += [(cut, stop), (start, cut)]
