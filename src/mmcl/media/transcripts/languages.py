"""Choice of one language of subtitles in two, and language codes in file names.

The two are told apart by their scripts, Chinese and Latin letters for example, or by their common
words. Two languages of the same script are only noticed where each has subtitles of its own, at
the same times, and both are whole sentences. Other subtitles of the same times are joined.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmcl.media.transcripts.subtitles import without_markup
from mmcl.media.utterances import Utterance, ends_sentence

__all__ = ["foreign_language", "language_in", "one_language", "preferred"]

MOST = 0.7  # share of the subtitles that are in two languages, where a file is
FEWEST = 2  # subtitles in two languages that are no chance
COMMON = 3  # different common words that show a language
RARER = 3  # times that English words are rarer in a text of another language

_SCRIPT_TO_LANGUAGES = {
    "CJK": "zh ja yue",
    "HANGUL": "ko",
    "CYRILLIC": "ru uk be bg mk sr kk",
    "ARABIC": "ar fa ur",
    "GREEK": "el",
    "HEBREW": "he",
    "DEVANAGARI": "hi mr ne",
    "THAI": "th",
    "BENGALI": "bn",
    "TAMIL": "ta",
}
_LANGUAGE_TO_SCRIPT = {
    language: script
    for script, languages in _SCRIPT_TO_LANGUAGES.items()
    for language in languages.split()
}


_TAG = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2}")
_COMMON_WORDS = {  # of languages with Latin letters
    "en": "the and you was that it this of with are have they not how is my",
    "de": "der das und ist ich nicht war ein wir sie mit auch wie habe es sehr",
    "fr": "le les et est je ne pas vous nous avec dans c'est elle qui était très",
    "es": "el los y muy pero está yo lo una por usted cómo fue del hay ser",
    "it": "il gli che non sono è ma anche della era molto ho con questo c'è di",
    "pt": "o os não você eu muito uma em isso foi ele mas são meu tem um",
    "nl": "het een ik niet van dat op zijn maar voor heb wat ook zo hij er",
}
ORIGINAL = "-orig"  # yt-dlp's mark of the captions in the language that is spoken
_LONG_TAGS = (
    "eng:en deu:de ger:de fra:fr fre:fr spa:es ita:it por:pt rus:ru zho:zh chi:zh jpn:ja kor:ko "
    "ara:ar nld:nl dut:nl tur:tr pol:pl hin:hi"
)
_LONG_TO_SHORT = dict(pair.split(":") for pair in _LONG_TAGS.split())


def language_in(path: Path) -> str | None:
    """Return the two-letter language code in the name of a transcript.

    Example:
        >>> [language_in(Path(name)) for name in ("talk.en-US.vtt", "talk.ger.srt", "talk.old.srt")]
        ['en', 'de', None]
    """
    tag = path.with_suffix("").suffix.removeprefix(".")
    if not _TAG.fullmatch(tag):
        return None
    first = tag.split("-")[0]
    return first if len(first) == 2 else _LONG_TO_SHORT.get(first)


def preferred(paths: Sequence[Path], language: str | None) -> Path | None:
    """Return the transcript of the language asked for.

    If none is asked for, it is that of the language that is spoken, or of the only one there.
    None if this does not tell.

    Args:
        paths: Transcripts whose names tell their languages, the preferred format first.
        language: Two letters.
    """
    original = [path for path in paths if path.stem.endswith(ORIGINAL)]
    languages = {language_in(path) for path in original or paths}
    if language is None and len(languages) == 1:
        (language,) = languages
    fitting = [path for path in paths if language and language_in(path) == language]
    return min(fitting, key=lambda path: len(path.stem), default=None)


def foreign_language(text: str) -> str | None:
    """Return the language of a text that is certainly not English; None for any other text.

    It is found by the script, and for Latin letters by common words. Where languages share a
    script, all of them are named.

    Example:
        >>> foreign_language("la película es muy larga, pero lo que me gusta es el final")
        'es'
        >>> foreign_language("what a wonderful film")
    """
    script = _script(text)
    if script in _SCRIPT_TO_LANGUAGES:
        return " or ".join(_SCRIPT_TO_LANGUAGES[script].split())
    words = Counter(re.findall(r"[\w']+", text.lower()))
    found = {
        language: [words[word] for word in common.split() if words[word]]
        for language, common in _COMMON_WORDS.items()
    }
    english = sum(found.pop("en"))
    language = max(found, key=lambda language: sum(found[language]))
    is_certain = len(found[language]) >= COMMON and sum(found[language]) > RARER * english
    return language if is_certain else None


def one_language(
    cues: Sequence[Utterance], language: str | None
) -> tuple[list[Utterance], list[str]]:
    """Keep one language of bilingual subtitles: the one asked for, or else the first.

    Args:
        cues: Subtitles, whose text may have several lines and markup.
        language: Language of the speech, two letters; None if nobody said it.

    Returns:
        The subtitles, and a note if one language was left out.
    """
    tracks = _two_tracks(cues) or _same_times(cues) or _two_scripts(cues)
    if tracks is None:
        return _joined(cues)
    first, second = tracks
    if language is not None and _likeness(second, language) > _likeness(first, language):
        first, second = second, first
    kept, dropped = (" ".join(without_markup(t[0].text).split()) for t in (first, second))
    note = f'subtitles in two languages: "{kept}" and the like were kept, "{dropped}" left out'
    times = {(cue.start, cue.end) for cue in (*first, *second)}
    others = [cue for cue in cues if (cue.start, cue.end) not in times]
    return sorted([*first, *others], key=lambda cue: cue.start or 0.0), [note]


def _likeness(cues: Sequence[Utterance], language: str) -> tuple[bool, int]:
    """Return whether a text has the script of a language, and how many of its common words."""
    text = without_markup(" ".join(cue.text for cue in cues))
    common = _COMMON_WORDS.get(language, "").split()
    has_script = _script(text) == _LANGUAGE_TO_SCRIPT.get(language, "LATIN")
    return has_script, sum(word in common for word in re.findall(r"\w+", text.lower()))


def _joined(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Join subtitles that follow each other and have the same times: lines, or two speakers."""
    kept: list[Utterance] = []
    for cue in cues:
        if kept and (cue.start, cue.end) == (kept[-1].start, kept[-1].end):
            kept[-1] = kept[-1]._replace(text=f"{kept[-1].text}\n{cue.text}")
        else:
            kept.append(cue)
    number = len(cues) - len(kept)
    count = "1 subtitle was" if number == 1 else f"{number} subtitles were"
    note = f"{count} joined with the one before, which has the same times"
    return kept, [note] if number else []


def _two_tracks(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]] | None:
    """Return the subtitles in the first script and those in another, if both are shown at once."""
    scripts = [_script(without_markup(cue.text)) for cue in cues]
    most = [script for script, _ in Counter(filter(None, scripts)).most_common(2)]
    if len(most) < 2:
        return None
    tracks = [[c for c, own in zip(cues, scripts, strict=True) if own == one] for one in most]
    first, second = sorted(tracks, key=lambda track: cues.index(track[0]))
    in_order = sorted(second, key=lambda cue: cue.start or 0.0)
    places = [bisect(in_order, cue.start or 0.0, key=lambda c: c.start or 0.0) for cue in first]
    at_once = sum(
        any(_are_at_once(cue, other) for other in in_order[max(place - 1, 0) : place + 1])
        for cue, place in zip(first, places, strict=True)
    )
    is_most = FEWEST <= at_once >= MOST * len(first) and at_once >= MOST * len(second)
    return (first, second) if is_most else None


def _are_at_once(cue: Utterance, other: Utterance) -> bool:
    """Return whether two subtitles are on the screen together for half of the longer one."""
    start, end = cue.start or 0.0, cue.end or 0.0
    other_start, other_end = other.start or 0.0, other.end or 0.0
    longer = max(end - start, other_end - other_start)
    return min(end, other_end) - max(start, other_start) >= longer / 2 > 0


def _same_times(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]] | None:
    """Return the first and the second sentences of the same times, if most have a second."""
    at: dict[tuple[float | None, float | None], list[Utterance]] = {}
    for cue in cues:
        at.setdefault((cue.start, cue.end), []).append(cue)
    pairs = [both for both in at.values() if len(both) == 2]
    are_sentences = sum(all(ends_sentence(cue.text) for cue in both) for both in pairs)
    if len(pairs) < FEWEST or are_sentences < MOST * len(at):
        return None
    return [first for first, _ in pairs], [second for _, second in pairs]


def _two_scripts(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]] | None:
    """Return the lines in the first script and in the other, if most subtitles have both."""
    parts = [_by_script(cue) for cue in cues]
    # The one language always stands above the other.
    kinds = Counter(tuple(part) for part in parts if len(part) == 2)
    ((kind, count),) = kinds.most_common(1) or [((), 0)]
    if count < FEWEST or count < MOST * len(cues):
        return None
    both = [part for part in parts if tuple(part) == kind]
    first, second = kind
    return [part[first] for part in both], [part[second] for part in both]


def _by_script(cue: Utterance) -> dict[str, Utterance]:
    """Return the lines of a subtitle by their scripts; those without letters are left out."""
    lines: dict[str, list[str]] = {}
    for line in without_markup(cue.text).split("\n"):
        if script := _script(line):
            lines.setdefault(script, []).append(line)
    return {script: cue._replace(text="\n".join(own)) for script, own in lines.items()}


def _script(text: str) -> str | None:
    """Return the script of most letters of a text; None if it has none."""
    names = (unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha())
    counts = Counter("CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in names)
    return counts.most_common(1)[0][0] if counts else None
