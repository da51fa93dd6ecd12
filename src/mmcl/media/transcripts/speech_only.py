"""Reduce the pieces of a transcript to the speech and its speakers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mmcl.corpus.schema import Word
from mmcl.media.transcripts.not_speech import ends_song, opens_song, without_credits, without_sounds
from mmcl.media.transcripts.speakers import MARK, Turn, find_names, read_turn
from mmcl.media.transcripts.subtitles import VOICE, without_markup
from mmcl.media.utterances import Utterance

__all__ = ["speech_only"]

ENDS = 3  # utterances at each end of a transcript that may be about the subtitles
SHOWN = 4  # examples in a note
_CHANGE_INSIDE = re.compile(r"\s*(?:>>+|＞＞+)")  # another person speaks, inside a line
_DASH_INSIDE = re.compile(r"(?<=[.!?…])\s+[-–—]\s*(?=[\"“¿¡]?[^\W\d_])")


@dataclass
class _Found:
    """Parts of a transcript that are not speech, or may not be."""

    names: list[str] = field(default_factory=list)
    sounds: list[str] = field(default_factory=list)
    kept_brackets: list[str] = field(default_factory=list)
    credits: list[str] = field(default_factory=list)
    shared: int = 0  # utterances of several speakers
    is_in_song: bool = False  # that goes on in the next utterance

    def notes(self, kept_names: Sequence[str]) -> list[str]:
        """Return notes on what was left out, and on what was kept but may not be speech."""
        notes = []
        if self.names:
            notes.append(f"speaker names: {_listed(self.names, 20)}")
        if self.shared:
            shared = "1 utterance holds" if self.shared == 1 else f"{self.shared} utterances hold"
            notes.append(f"{shared} what several people say")
        if self.sounds:
            count = "1 sound was" if len(self.sounds) == 1 else f"{len(self.sounds)} sounds were"
            notes.append(f"{count} left out: {_listed(self.sounds)}")
        if self.credits:
            listed = _listed(self.credits)
            notes.append(f"what is about the subtitles themselves was left out: {listed}")
        if self.kept_brackets:
            notes.append(f"kept as speech, though in brackets: {_listed(self.kept_brackets)}")
        if kept_names:
            kept = [f"{name}:" for name in kept_names]
            notes.append(f"kept as speech, though it may name a speaker: {_listed(kept)}")
        return notes


def _listed(items: Sequence[str], most: int = SHOWN) -> str:
    different = list(dict.fromkeys(items))
    more = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + more


def speech_only(pieces: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Return the utterances of a transcript without markup, speaker names, sounds and credits.

    Args:
        pieces: As a file gives them: their text may have several lines, markup and all else.

    Returns:
        The utterances that have text, and notes on what was left out and what was unsure.
    """
    found = _Found()
    texts = [_plain_lines(piece.text) for piece in pieces]
    for index in {*range(len(texts))[:ENDS], *range(len(texts))[-ENDS:]}:
        texts[index], credits = without_credits(texts[index])
        found.credits += credits
    turns = [[read_turn(line) for line in text.split("\n") if line.strip()] for text in texts]
    every = [turn for lines in turns for turn in lines]
    names, kept_names = find_names(every)
    # A speaker goes on where ">>" marks each change, and below lines that are only a name.
    goes_on = any(turn.is_new for turn in every) or any(_is_heading(t, names) for t in turns)
    speaker: str | None = None
    utterances: list[Utterance] = []
    for piece, lines in zip(pieces, turns, strict=True):
        said, speakers = _read_lines(lines, names, speaker)
        speaker = speakers[-1] if speakers and goes_on else None
        if text := _without_sounds(said, found):
            utterances.append(_utterance(piece, text, speakers, found))
    return utterances, found.notes(kept_names)


def _plain_lines(text: str) -> str:
    """Return the text without markup, with a line for each person who speaks in it."""
    text = VOICE.sub(lambda tag: f"\n{MARK}{tag[1]}{MARK}", text.replace(MARK, " "))
    text = _CHANGE_INSIDE.sub("\n>>", without_markup(text))
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(
        _DASH_INSIDE.sub("\n- ", line) if line.startswith("-") else line for line in lines if line
    )


def _is_heading(lines: Sequence[Turn], names: set[str]) -> bool:
    name = lines[0].name if len(lines) == 1 and not lines[0].text else None
    return name is not None and name.casefold() in names


def _read_lines(
    lines: Sequence[Turn], names: set[str], before: str | None
) -> tuple[str, list[str | None]]:
    """Return what the lines of a piece say, and who speaks in it, one after the other."""
    said: list[str] = []
    speakers: list[str | None] = []
    is_dialogue = sum(line.has_dash for line in lines) > 1
    for line in lines:
        is_named = line.name is not None and line.name.casefold() in names
        if is_named or line.is_new or (line.has_dash and is_dialogue):
            speakers.append(line.name if is_named else None)
        elif not speakers:
            speakers.append(before)
        said.append(line.text if is_named else line.whole)
    return "\n".join(said), speakers


def _without_sounds(text: str, found: _Found) -> str:
    was_in_song, found.is_in_song = found.is_in_song, opens_song(text)
    if was_in_song and ends_song(text):
        found.sounds.append(" ".join(text.split()))
        return ""
    text, sounds, kept = without_sounds(text)
    found.sounds += sounds
    found.kept_brackets += kept
    return " ".join(text.split()) if any(letter.isalnum() for letter in text) else ""


def _utterance(
    piece: Utterance, text: str, speakers: Sequence[str | None], found: _Found
) -> Utterance:
    """Return a piece with its final text, and with the words and the speaker of that text."""
    names = list(dict.fromkeys(name for name in speakers if name))
    is_shared = any(first != second or first is None for first, second in pairwise(speakers))
    found.shared += is_shared and piece.speaker is None
    speaker = piece.speaker or ", ".join(names) or None
    found.names += [piece.speaker] if piece.speaker else names
    words = piece.words
    if text != " ".join(without_markup(piece.text).split()):
        words = _said_words(words, text)
    return piece._replace(text=text, words=words, speaker=speaker)


def _said_words(words: Sequence[Word], text: str) -> tuple[Word, ...]:
    """Return the words that are part of a text; none if they do not make up the whole text."""
    rest = "".join(text.split())
    said: list[Word] = []
    for word in words:
        letters = "".join(word.text.split())
        if rest.startswith(letters):
            said.append(word)
            rest = rest[len(letters) :]
    return () if rest else tuple(said)
