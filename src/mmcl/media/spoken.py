"""Find what is said in a file and when, from its transcript or from its sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcl.corpus.schema import Word
from mmcl.media.align import ENGLISH, LONGEST, refine_times, time_words
from mmcl.media.containers.sound import read_audio
from mmcl.media.recipe import Recipe
from mmcl.media.stages import StageClock
from mmcl.media.transcripts.reading import check_times, cut_at_end, read_transcript
from mmcl.media.utterances import (
    Utterance,
    are_fragments,
    cut_utterances,
    joined,
    moved_words,
)
from mmcl.media.weights import Models

__all__ = ["Stretch", "TimedUtterance", "UtteranceFinder"]

PIECE = LONGEST  # seconds of sound that are recognised and aligned at once, and held in memory
PIECE_END = 60.0  # seconds at the end of a piece, in which a pause is looked for to cut it at
# Mean probability below which recognised words are called doubtful. English that was heard
# correctly had 0.6 to 0.96, Spanish taken for English 0.54.
DOUBTFUL = 0.6


class Stretch(NamedTuple):
    """Part of a file that is extracted, with times in seconds."""

    path: Path
    start: float
    end: float
    file_seconds: float  # length of the whole file, by its header
    file_end: float  # and in fact: less if the end is missing
    is_one_utterance: bool  # and is not cut further


class TimedUtterance(NamedTuple):
    """Utterance whose times, and those of its words, are known in seconds of the file."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    speaker: str | None = None


@dataclass
class UtteranceFinder:
    """Finds the utterances in a stretch of one file."""

    stretch: Stretch
    recipe: Recipe
    models: Models  # only the recogniser is used, and only where the transcript does not suffice
    clock: StageClock
    notes: list[str]  # gets a line for everything a user should know
    has_sound: bool

    def find(self, transcript: Path | str | None) -> tuple[list[TimedUtterance], str | None]:
        """Return the utterances and their language, if known.

        Raises:
            MediaError: If the transcript cannot be read or is not one of this file.
        """
        if isinstance(transcript, Path):
            utterances, notes = read_transcript(transcript, self.recipe.language)
            utterances, cut_notes = cut_at_end(utterances, self.stretch.file_seconds)
            self.notes += [f"transcript: {note}" for note in notes + cut_notes]
            check_times(transcript, utterances, self.stretch.file_seconds)
            utterances = self._in_file(utterances, transcript.name)
            if are_fragments(utterances):
                return self._joined_fragments(utterances), self.recipe.language
            if all(utterance.start is not None for utterance in utterances):
                timed = [self._with_word_times(utterance) for utterance in utterances]
                return self._inside_stretch(timed), self.recipe.language
            text = " ".join(utterance.text for utterance in utterances)
            self._note_open_end()
            words = self._align(text, self.stretch.start, self.stretch.end)
            return self._cut_by_speaker(words, text, utterances), self.recipe.language
        if transcript is not None and transcript.split():
            self._note_open_end()
            words = self._align(transcript, self.stretch.start, self.stretch.end)
            return self._cut(words, transcript), self.recipe.language
        if not self.has_sound:
            return [], None
        words, language = self._recognise()
        return self._cut(words, joined(words)), language

    def _joined_fragments(self, utterances: Sequence[Utterance]) -> list[TimedUtterance]:
        """Join subtitles of few words, and cut them at pauses, as recognised words are cut."""
        start, end = self.stretch.start, self.stretch.end
        utterances = [u for u in utterances if start <= (u.start or 0.0) < end]
        words = tuple(word for u in utterances for word in self._words_of_fragment(u))
        self.notes.append(
            f"transcript: its {len(utterances)} pieces have 1 to 3 words each: they were joined, "
            "and cut at their pauses"
        )
        return self._cut_by_speaker(words, joined(words), utterances)

    def _words_of_fragment(self, utterance: Utterance) -> tuple[Word, ...]:
        if len(utterance.text.split()) > 1:
            return self._with_word_times(utterance).words
        return (Word(text=utterance.text, start=utterance.start, end=utterance.end),)

    def _in_file(self, utterances: Sequence[Utterance], name: str) -> list[Utterance]:
        """Leave out utterances of which a file that ends too early holds nothing, and say so."""
        end = self.stretch.file_end
        if end >= self.stretch.file_seconds:
            return list(utterances)
        kept = [u for u in utterances if u.start is None or u.start < end]
        is_cut_off = any((u.end or 0.0) > end for u in kept)
        if len(kept) < len(utterances):
            self.notes.append(
                f"{len(utterances) - len(kept)} of {len(utterances)} utterances of "
                f'"{name}" begin after {end:.1f} s, where the file ends, and are left out'
            )
        if is_cut_off:
            self.notes.append(f'an utterance of "{name}" goes on after {end:.1f} s: it is cut off')
        return [u if u.end is None else u._replace(end=min(u.end, end)) for u in kept]

    def _note_open_end(self) -> None:
        """Say that a text may be longer than the sound that is left."""
        if self.stretch.end == self.stretch.file_end < self.stretch.file_seconds:
            self.notes.append(
                "the text may go on where the file ends: the times of its last words are then wrong"
            )

    def _with_word_times(self, utterance: Utterance) -> TimedUtterance:
        start, end, words = utterance.start or 0.0, utterance.end or 0.0, utterance.words
        if not words or any(word.start is None for word in words):
            words = self._align(utterance.text, start, end)
        return TimedUtterance(start, end, utterance.text, words, utterance.speaker)

    def _align(self, text: str, start: float, end: float) -> tuple[Word, ...]:
        """Time the words of a text that is said between two times of the file."""
        if not self.has_sound:
            return self._evenly_spread(text, start, end, "the words have no times without sound")
        language = self.recipe.language
        if language not in (None, ENGLISH) and not self.models.recogniser.hears(language):
            cause = f'the speech model does not hear "{language}"'
            return self._evenly_spread(text, start, end, cause)
        with self.clock.stage("decode"):
            audio = read_audio(self.stretch.path, start, end)
        with self.clock.stage("align"):
            recogniser = self.models.recogniser
            words = time_words(audio, text, language=language, recogniser=recogniser)
        return moved_words(words, start)

    def _evenly_spread(self, text: str, start: float, end: float, cause: str) -> tuple[Word, ...]:
        """Give every word the same share of the time, and note once why."""
        note = f"{cause}: words are spread evenly over what was said"
        if note not in self.notes:
            self.notes.append(note)
        tokens = text.split()
        edges = pairwise(np.linspace(start, end, len(tokens) + 1).tolist())
        return tuple(
            Word(text=token, start=first, end=last)
            for token, (first, last) in zip(tokens, edges, strict=True)
        )

    def _recognise(self) -> tuple[tuple[Word, ...], str | None]:
        """Recognise the words piece by piece, each piece cut at a pause.

        English words get the times that they would get as a given transcript. The recogniser's
        own times would differ from those by up to a second and hide pauses.
        """
        words: list[Word] = []
        probabilities: list[float] = []
        language, start = self.recipe.language, self.stretch.start
        while start < self.stretch.end:
            stop = min(start + PIECE, self.stretch.end)
            with self.clock.stage("decode"):
                audio = read_audio(self.stretch.path, start, stop)
            with self.clock.stage("recognise"):
                heard = self.models.recogniser.transcribe(audio, language=language)
            language = language or heard.language
            probabilities += heard.word_probabilities
            found = heard.words
            if language == ENGLISH:
                with self.clock.stage("align"):
                    found = refine_times(audio, found)
            piece = moved_words(found, start)
            if stop < self.stretch.end:
                piece, stop = _up_to_pause(piece, stop)
            words += piece
            start = stop
        if probabilities and np.mean(probabilities) < DOUBTFUL:
            self.notes.append(
                f"the words are doubtful (probability {np.mean(probabilities):.2f} on average): "
                "give a transcript, or a language and a speech model that hears it"
            )
        return tuple(words), language if words else self.recipe.language

    def _cut(self, words: tuple[Word, ...], text: str) -> list[TimedUtterance]:
        if not words:
            return []
        if self.stretch.is_one_utterance:
            return [TimedUtterance(self.stretch.start, self.stretch.end, text, words)]
        cut = cut_utterances(words, pause=self.recipe.pause, longest=self.recipe.longest)
        return [TimedUtterance(u.start or 0.0, u.end or 0.0, u.text, u.words) for u in cut]

    def _cut_by_speaker(
        self, words: tuple[Word, ...], text: str, utterances: Sequence[Utterance]
    ) -> list[TimedUtterance]:
        """Cut words whose times were found, also where another speaker begins."""
        speakers = [u.speaker for u in utterances for _ in u.text.split()]
        if self.stretch.is_one_utterance or len(set(speakers)) < 2 or len(speakers) != len(words):
            return [u._replace(speaker=_names(speakers)) for u in self._cut(words, text)]
        turns = groupby(zip(words, speakers, strict=True), key=itemgetter(1))
        parts = [(tuple(word for word, _ in turn), speaker) for speaker, turn in turns]
        return [
            utterance._replace(speaker=speaker)
            for said, speaker in parts
            for utterance in self._cut(said, joined(said))
        ]

    def _inside_stretch(self, utterances: Sequence[TimedUtterance]) -> list[TimedUtterance]:
        """Keep utterances with words; join their words where the stretch is one utterance."""
        if not self.stretch.is_one_utterance:
            return [utterance for utterance in utterances if utterance.words]
        said = [
            (word, utterance.speaker)
            for utterance in utterances
            for word in utterance.words
            if self.stretch.start <= (word.start or 0.0) < self.stretch.end
        ]
        words = tuple(word for word, _ in said)
        speaker = _names([speaker for _, speaker in said])
        return [u._replace(speaker=speaker) for u in self._cut(words, joined(words))]


def _names(speakers: Sequence[str | None]) -> str | None:
    """Return the different names of speakers as one text."""
    return ", ".join(dict.fromkeys(name for name in speakers if name)) or None


def _up_to_pause(words: tuple[Word, ...], stop: float) -> tuple[tuple[Word, ...], float]:
    """Return the words before the longest of the last pauses, and the middle of that pause."""
    edges = [(word.start or 0.0, word.end or 0.0) for word in words]
    pauses = [
        (after - before, index, (after + before) / 2)
        for index, ((_, before), (after, _)) in enumerate(pairwise(edges), start=1)
        if before > stop - PIECE_END
    ]
    if not pauses:
        return words, stop
    _, index, middle = max(pauses)
    return words[:index], middle
