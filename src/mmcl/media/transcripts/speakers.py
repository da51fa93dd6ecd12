"""Names of speakers at the beginning of what they say, as in ``ANNA: Yes.``"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmcl.media.transcripts.not_speech import is_sound

__all__ = ["MARK", "Turn", "find_names", "looks_like_a_name", "read_turn"]

MOST_WORDS = 3  # of a name, without "de" and the like and without the number in "Speaker 1"
FEWEST_SHARE = 0.1  # share of lines that begin with a name, where names are found by repetition
SHOUTED = 0.6  # share of capital letters from which on a text is written in capitals

# Words that begin a sentence before a colon and are no names.
_OTHER_BEGINNINGS = """
    note notes nb ps warning caution attention question answer update edit summary result results
    pro pros con cons verdict conclusion problem solution example examples first firstly second
    secondly third thirdly fourth finally last lastly next today yesterday tomorrow monday tuesday
    wednesday thursday friday saturday sunday rating spoiler spoilers remember fact facts bonus tip
    tips step chapter part episode day week title subject look listen here there now then so and
    but or yes no well okay ok plus also again still because reason reasons truth point moral
    story plot review opinion translation source url http https www email phone address time date
    hint disclaimer subtitles captions
    achtung frage antwort hinweis beispiel fazit lösung vorteil vorteile nachteil nachteile tipp
    réponse exemple remarque problème avantages inconvénients bref
    atención pregunta respuesta ejemplo nota conclusión problema solución ventajas desventajas
    attenzione domanda risposta esempio soluzione vantaggi svantaggi
    atenção pergunta resposta exemplo solução vantagens desvantagens
"""
_NO_NAMES = frozenset(_OTHER_BEGINNINGS.split())
_NAME_PARTS = "de del della da di der den van von la le the of and & y e bin al"
_PARTICLES = frozenset(_NAME_PARTS.split())  # parts of names that may be in small letters
_WORD = r"[\w.'’&#-]+"
_NAME = rf"(?P<name>{_WORD}(?: {_WORD}){{0,3}})"
_COLON = r"\s*[:：]\s*"
MARK = "\ue000"
"""Letter of no language that stands around a name that was given in a tag of vtt."""
_SURE = [
    re.compile(rf"{MARK}(?P<name>[^{MARK}]*){MARK}\s*"),  # a tag of vtt
    re.compile(rf"(?P<name>(?:speaker|spk)[ _]?\d+){_COLON}", re.IGNORECASE),
    re.compile(rf"\[(?P<name>(?:speaker|spk)[ _]?\d+)\](?:{_COLON}|\s*)", re.IGNORECASE),
    re.compile(rf"[\[(](?P<name>[^\[\]()]{{1,40}})[\])]{_COLON}"),  # [Anna]: text
]
# Not before a digit ("at 10:30") or a slash ("http://").
_PREFIX = re.compile(rf"{_NAME}(?:\s*[\[(][^\[\]()]*[\])])?\s*[:：](?![\d/])\s*")
# A name in brackets before what is said, "[Anna] Yes." or "（田中）はい": if it comes back.
_BRACKETED = re.compile(r"[\[(（【](?P<name>[^\[\]()（）【】]{1,40})[\])）】]\s*")
_SOUND_FIRST = re.compile(r"(?P<sound>[\[(][^\[\]()]*[\])])\s*(?=\w[^:：]{0,40}[:：])")
_CHANGE = re.compile(r"\s*(?:>>+|＞＞+)\s*")  # of speaker, in live captions
_DASH = re.compile(r"\s*(?:[-‐]\s*(?!\d)|[–—]\s*)")
_CJK = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]{1,4}|[\uac00-\ud7af]{2,4}")


class Turn(NamedTuple):
    """A line, taken apart into speaker, marks and text.

    Attributes:
        name: What stands where the name of a speaker would; None if nothing does.
        is_sure: Whether it certainly is one.
        in_brackets: Whether it stands in brackets without a colon.
        is_new: Whether ``>>`` says that another person speaks.
        has_dash: Whether the line begins with the dash of a dialogue.
        text: The line without all of that.
        whole: The line without dash and ``>>``, with the name.
    """

    name: str | None
    is_sure: bool
    in_brackets: bool
    is_new: bool
    has_dash: bool
    text: str
    whole: str


def read_turn(line: str) -> Turn:
    """Split a line of text into speaker, marks and text."""
    dash = _DASH.match(line)
    line = line[dash.end() :] if dash else line
    change = _CHANGE.match(line)
    line = (line[change.end() :] if change else line).strip()
    sound = _SOUND_FIRST.match(line)
    sound = None if sound and looks_like_a_name(sound["sound"][1:-1]) else sound
    before, said = (f"{sound['sound']} ", line[sound.end() :]) if sound else ("", line)
    name, is_sure, in_brackets, text = _read_name(said, change is not None)
    return Turn(
        name, is_sure, in_brackets, bool(change), bool(dash), f"{before}{text}".strip(), line
    )


def _read_name(line: str, is_new: bool) -> tuple[str | None, bool, bool, str]:
    """Return the name at the beginning of a line, how it is marked, and the rest."""
    sure = next(filter(None, (pattern.match(line) for pattern in _SURE)), None)
    if sure and (sure.re in _SURE[:3] or looks_like_a_name(sure["name"])):
        return " ".join(sure["name"].split()) or None, True, False, line[sure.end() :]
    if (match := _PREFIX.match(line)) and looks_like_a_name(match["name"]):
        is_sure = is_new and match["name"].casefold() not in _NO_NAMES
        return match["name"], is_sure, False, line[match.end() :]
    if (match := _BRACKETED.match(line)) and looks_like_a_name(match["name"]):
        return match["name"], False, True, line[match.end() :]
    return None, False, False, line


def looks_like_a_name(text: str) -> bool:
    """Return whether a text could be a name: up to three capitalised words, and a number.

    Hebrew and Arabic have no capitals: any words could be a name there.

    Example:
        >>> [looks_like_a_name(text) for text in ("Anna Smith", "Speaker 1", "Here is the thing")]
        [True, True, False]
    """
    if _CJK.fullmatch(text):
        return True
    words = text.split()
    if len(words) > 1 and words[-1].lstrip("#").isdigit():
        words = words[:-1]
    if not words or words[-1].lower() in _PARTICLES:
        return False
    capitals = [_begins_as_a_name(word) for word in words if word.lower() not in _PARTICLES]
    return _begins_as_a_name(words[0]) and all(capitals) and len(capitals) <= MOST_WORDS


def _begins_as_a_name(word: str) -> bool:
    return word[:1].isupper() or "\u0590" <= word[:1] <= "\u06ff"


def find_names(turns: Sequence[Turn]) -> tuple[set[str], list[str]]:
    """Decide which beginnings of lines are names of speakers.

    A name is sure by its form, or it is written in capitals in a text that is not, or it comes
    back, or it is alone on its line as another is, or most lines begin with one.

    Args:
        turns: The lines of a whole transcript that have text.

    Returns:
        The names, in lower case, and what may be names but was not taken for one.
    """
    named = [turn for turn in turns if turn.name is not None and not turn.in_brackets]
    sure = {turn.name.casefold() for turn in named if turn.name and turn.is_sure}
    counts = Counter(turn.name.casefold() for turn in named if turn.name)
    possible = {name for name in counts if name.split()[0] not in _NO_NAMES}
    num_possible = sum(counts[name] for name in possible)
    if num_possible >= 2 and num_possible >= len(turns) / 2:
        sure |= possible
    if num_possible >= FEWEST_SHARE * len(turns):
        sure |= {name for name in possible if counts[name] > 1}
    alone = [turn.name.casefold() for turn in named if turn.name and not turn.text]
    if len(alone) > 1:
        sure |= possible.intersection(alone)
    if not _is_shouted(turn.text for turn in turns):
        spelled = {turn.name for turn in named if turn.name and turn.name.casefold() in possible}
        sure |= {name.casefold() for name in spelled if _is_capitals(name)}
    sure |= _bracketed_names(turns)
    doubtful = [turn.name for turn in named if turn.name and turn.name.casefold() not in sure]
    return sure, list(dict.fromkeys(doubtful))


def _bracketed_names(turns: Sequence[Turn]) -> set[str]:
    """Return names in brackets that come back before speech, on a third of the lines or more.

    All are names then, if no word in them is one for a sound.
    """
    names = [t.name.casefold() for t in turns if t.name and t.in_brackets and not is_sound(t.name)]
    before_speech = [t for t in turns if t.in_brackets and t.text and not is_sound(t.name or "")]
    comes_back = len(before_speech) > len(set(names))
    return set(names) if comes_back and 3 * len(before_speech) >= len(turns) else set()


def _is_capitals(name: str) -> bool:
    return name.isupper() and sum(letter.isalpha() for letter in name) > 1


def _is_shouted(texts: Iterable[str]) -> bool:
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) > SHOUTED * len(letters)
