"""Removal of what is not speech: sounds, music, songs, and lines about the subtitles."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["ends_song", "is_sound", "opens_song", "without_credits", "without_sounds"]

MOST_WORDS = 8  # of a sound in round brackets that has one of the words below
MOST_WORDS_ALONE = 4  # of one that is a line of its own

_SQUARE = re.compile(r"\[[^\[\]]{0,120}\]|【[^【】]{0,60}】|<[a-z][a-z _-]{2,20}>", re.DOTALL)
_ROUND = re.compile(r"\([^()]{1,120}\)|（[^（）]{1,60}）", re.DOTALL)
_STARRED = re.compile(r"\*{1,2}(?=\S)[^*\n]{1,60}(?<=\S)\*{1,2}")
_NOTES = "♪♫♬♩🎵🎶"
_SONG = re.compile(rf"[{_NOTES}][^{_NOTES}]*(?:[{_NOTES}]+|$)")
_SONG_END = re.compile(rf"^[^{_NOTES}]*[{_NOTES}]+\s*$")
_HASHED = re.compile(r"^\s*#(?:\s.*\s#|)\s*$")
_SOUND = re.compile(
    r"laugh|chuckl|giggl|applau|clap|cheer|music|song|sing(?:s|ing)\b|hum(?:s|ming)\b|sigh|gasp|"
    r"cough|sneez|sniff|snor[ti]|sob|cry|cries|weep|scream|shout|yell|groan|moan|grunt|whisper|"
    r"mumbl|mutter|murmur|breath|exhal|inhal|pant(?:s|ing)\b|silence|pause|noise|static|beep|buzz|"
    r"bell|ring(?:s|ing)\b|phone|door|knock|footstep|thud|crash|bang|siren|engine|bark|chatter|"
    r"inaudible|indistinct|unintelligible|unclear|crosstalk|foreign|speak(?:s|ing)\b|"
    r"stutter|lach(?:t|en)|gelächter|musik|seufz|beifall|\br[ií](?:e|en|res?)\b|musique|soupir|"
    r"risas?\b|música|aplaus|suspir|risate|sospir|смех|сме[её]т|музык|аплодис|вздых|вздох|"
    r"palmas|ш[её]пот|صفيق|ضحك|موسيق|מוזיק|צחוק|צוחק|מחיאות|"
    r"笑|音乐|音樂|音楽|掌声|掌聲|拍手|歌|웃음|박수|음악",
    re.IGNORECASE,
)
# Words of a sentence, which a description of a sound lacks.
_SENTENCE = re.compile(
    r"\b(?:i|i'm|i've|i'd|you|we|they|it|it's|was|were|is|are|am|my|your|our|this|that|which|who|"
    r"not|don't|but|because|if|ich|du|wir|je|tu|nous|yo|que)\b",
    re.IGNORECASE,
)
_MADE = (
    r"(?:re)?(?:subtitles?|subtitled|subtitling|captions?|captioned|captioning|subs|sync(?:ed|hed)?|"
    r"synchroni[sz]ed|ripped|translat(?:ed|ions?)|transcri(?:bed|pts?|ptions?)|corrected|"
    r"correct(?:ed|ions?)|encoded|timed|timing|edited|provided|downloaded)"
)
_CREDIT = re.compile(
    rf"^\W*{_MADE}(?:(?:\s+|\s*[,&/]\s*)(?:and\s+)?(?:{_MADE}|timing))*\s*(?:by|from|:)\s*\S"
    r"|^\W*(?:translators?|reviewers?|transcribers?|traductor|traduttore|traducteur|relecteur|"
    r"übersetzung|lektorat)\s*:\s*[^\W\d_]+(?:\s[^\W\d_]|\s*$)"
    r"|^\W*(?:untertitel|untertitelung|sous-titr\w+|subt[ií]tul\w+|legendas|sottotitoli)\b.{0,60}"
    r"(?:\b(?:von|durch|im auftrag|par|por|por:|di|a cura)\b|:|\d{4})"
    r"|opensubtitles|addic7ed|subscene\.com|podnapisi|otter\.ai|amara\.org|rev\.com|yts\.\w\w"
    r"|^\W*(?:https?://|www\.)\S+\W*$|^\W*字幕(?:by|制作|:|：|组|組)"
    r"|advertise your product or brand here|become (?:a )?vip member",
    re.IGNORECASE,
)
MOST_CREDIT_WORDS = 16


def is_sound(text: str) -> bool:
    """Return whether a text has a word for a sound in it."""
    return bool(_SOUND.search(text))


def opens_song(text: str) -> bool:
    """Return whether a song begins with a text and does not end in it."""
    return text[:1] in _NOTES and bool(text) and len(re.findall(rf"[{_NOTES}]+", text)) % 2 == 1


def ends_song(text: str) -> bool:
    """Return whether a text has a note at its end and no other."""
    return bool(_SONG_END.match(text.replace("\n", " ")))


def without_sounds(text: str) -> tuple[str, list[str], list[str]]:
    """Take sounds, music and songs out of the text of an utterance.

    Square brackets always hold something that is not said. Round brackets and stars do so
    where they hold a word for a sound, or a few words alone on their line, and no sentence.

    Args:
        text: Lines without markup.

    Returns:
        The rest, what was taken out, and brackets that were kept because they may be speech.

    Example:
        >>> without_sounds("So[laughter] good (mostly)")
        ('So  good (mostly)', ['[laughter]'], ['(mostly)'])
    """
    sounds: list[str] = []
    doubtful: list[str] = []

    def take(match: re.Match[str]) -> str:
        sounds.append(" ".join(match[0].split()))
        return " "

    def take_if_sound(match: re.Match[str]) -> str:
        if _is_sound(match):
            return take(match)
        doubtful.append(" ".join(match[0].split()))
        return match[0]

    text = "\n".join(_without_songs(text.split("\n"), take))
    text = _SQUARE.sub(take, text)
    text = _ROUND.sub(take_if_sound, text)
    return _STARRED.sub(take_if_sound, text), sounds, doubtful


def _without_songs(lines: list[str], take: Callable[[re.Match[str]], str]) -> list[str]:
    """Take out what is between two notes, or from a note to the end of its line or of the song."""
    rest = []
    is_open = False
    for line in lines:
        if (is_open and (end := _SONG_END.match(line))) or (end := _HASHED.match(line)):
            take(end)
            is_open = False
            continue
        signs = len(re.findall(rf"[{_NOTES}]+", line))
        is_open = signs % 2 == 1 or (is_open and not signs)
        rest.append(_SONG.sub(take, line))
    return rest


def _is_sound(match: re.Match[str]) -> bool:
    inside = match[0].strip("()（）*")
    num_words = len(inside.split())
    if _SENTENCE.search(inside):
        return False
    if _SOUND.search(inside):
        return num_words <= MOST_WORDS
    line_start = match.string.rfind("\n", 0, match.start()) + 1
    line_end = (match.string + "\n").find("\n", match.end())
    around = match.string[line_start : match.start()] + match.string[match.end() : line_end]
    is_alone = not any(letter.isalnum() for letter in around)
    return is_alone and num_words <= MOST_WORDS_ALONE


def without_credits(text: str) -> tuple[str, list[str]]:
    """Take out what is about the subtitles: who made them, or where they come from.

    Args:
        text: Lines of the first or last utterances, where such lines stand.

    Returns:
        The other lines, and what was taken out.

    Example:
        >>> without_credits("Goodbye.\\nSynced and corrected by Ben")
        ('Goodbye.', ['Synced and corrected by Ben'])
    """
    joined = " ".join(text.split())
    if _CREDIT.match(joined) and len(joined.split()) <= MOST_CREDIT_WORDS:
        return "", [joined]
    lines = text.split("\n")
    taken = [
        line for line in lines if _CREDIT.search(line) and len(line.split()) <= MOST_CREDIT_WORDS
    ]
    return "\n".join(line for line in lines if line not in taken), taken
