"""Where speech is cut into utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts import Utterance

__all__ = ["cut_utterances", "joined", "moved_words"]

SENTENCE_ENDS = ".!?…"
WIDE_SENTENCE_ENDS = "。！？．｡"
"""Of Chinese and Japanese: these end a sentence and nothing else."""

CLOSERS = "\"'”’»)]」』）"
SHORT_PAUSE = 0.2
"""Silence in seconds that, after the mark of a sentence's end, ends an utterance."""

TITLES = {"mr.", "mrs.", "ms.", "dr.", "prof.", "st."}

_UNSPACED = (("\u3000", "\u30ff"), ("\u3400", "\u9fff"), ("\uff00", "\uffef"))


def cut_utterances(words: Sequence[Word], *, pause: float, longest: float) -> list[Utterance]:
    """Cut the words of a recording into utterances.

    A cut falls after a word that is followed by silence of ``pause``, or that ends a sentence
    (``. ! ? …``) and is followed by a silence of 0.2 s or by a capital, or that ends one with
    the wide marks of Chinese and Japanese. What then lasts longer than ``longest`` is
    cut at its longest silence, of equal ones at that nearest its middle, until nothing does
    or one word is left.

    Args:
        words: In order, with times in seconds.
        pause: Silence that ends an utterance, in seconds.
        longest: An utterance's longest duration, in seconds.

    Returns:
        Utterances with all the words, in order; none of no words.

    Raises:
        MediaError: If a word has no times.

    Example:
        >>> said = [Word(text="Yes.", start=0.0, end=0.4), Word(text="No.", start=0.5, end=0.9)]
        >>> [utterance.text for utterance in cut_utterances(said, pause=0.6, longest=15.0)]
        ['Yes.', 'No.']
    """
    spans = [_span(word) for word in words]
    cuts = [
        at
        for at, (word, after) in enumerate(pairwise(words), start=1)
        if _parts(word, after, spans[at][0] - spans[at - 1][1], pause)
    ]
    edges = [0, *cuts, len(words)]
    found = []
    for first, last in pairwise(edges):
        for start, stop in _short_enough(spans, first, last, longest):
            part = tuple(words[start:stop])
            found.append(Utterance(spans[start][0], spans[stop - 1][1], joined(part), part))
    return found


def joined(words: Sequence[Word]) -> str:
    """The text of words: spaces between them, but none between Chinese or Japanese ones."""
    text = ""
    for word in words:
        apart = text and word.text and not (_is_unspaced(text[-1]) and _is_unspaced(word.text[0]))
        text += f" {word.text}" if apart else word.text
    return text


def moved_words(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    """Return the words later by so many seconds, to the microsecond and not before 0."""

    def moved(time: float | None) -> float | None:
        return None if time is None else max(0.0, round(time + seconds, 6))

    return tuple(
        Word(text=word.text, start=moved(word.start), end=moved(word.end)) for word in words
    )


def _is_unspaced(letter: str) -> bool:
    return any(low <= letter <= high for low, high in _UNSPACED)


def _span(word: Word) -> tuple[float, float]:
    if word.start is None or word.end is None:
        raise MediaError(
            f'the word "{word.text}" has no times; expected some for every word.\n'
            "  Find them first: mmcl.media.align.time_words"
        )
    return word.start, word.end


def _parts(word: Word, after: Word, silence: float, pause: float) -> bool:
    """Whether two words belong to different utterances."""
    if silence >= pause:
        return True
    said = word.text.rstrip(CLOSERS)
    if said.endswith(tuple(WIDE_SENTENCE_ENDS)):
        return True
    if not said.endswith(tuple(SENTENCE_ENDS)) or said.lower() in TITLES:
        return False
    return silence >= SHORT_PAUSE or after.text.lstrip(CLOSERS + "¿¡([«“‘")[:1].isupper()


def _short_enough(
    spans: Sequence[tuple[float, float]], first: int, last: int, longest: float
) -> Iterator[tuple[int, int]]:
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
            key=lambda at: (
                round(spans[at][0] - spans[at - 1][1], 3),
                -abs(spans[at][0] - middle),
            ),
        )
        waiting += [(cut, stop), (start, cut)]
