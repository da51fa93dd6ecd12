"""From a media file to clips: words, voice and face brought to one clock and cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Card, Clip, Task, Word
from mmcl.errors import MediaError
from mmcl.media.align import ENGLISH, time_words
from mmcl.media.decode import Frame, MediaInfo, audio_blocks, frames, probe, read_audio
from mmcl.media.face import FACE_COLUMNS, FaceTrack, FaceTracker
from mmcl.media.rates import steps_at_rate, steps_per_word
from mmcl.media.recipe import SAMPLE_RATE, Recipe
from mmcl.media.recognise import Recogniser
from mmcl.media.text import TextEncoder, text_columns
from mmcl.media.transcripts import Utterance, check_times, read_transcript
from mmcl.media.utterances import cut_utterances, joined
from mmcl.media.voice import (
    EGEMAPS_COLUMNS,
    VOICE_COLUMNS,
    VOICE_RATE,
    egemaps_steps,
    voice_steps,
    voice_times,
)
from mmcl.media.weights import face_model, speech_model, text_model
from mmcl.types import MODALITIES, Modality, SplitName

__all__ = ["STAGES", "Extracted", "Extractor", "Models", "card_of", "with_versions"]

STAGES = ("decode", "recognise", "align", "text", "audio", "vision")
"""What the time of an extraction goes to; a model's loading counts where it is first used."""

LISTEN = 300.0
"""Seconds of sound the recogniser is given at once, and so held in memory."""
LATE = 60.0
"""It is cut at a pause in so many last seconds."""
MARGIN = 10
"""Steps of voice at either end of a block that are worked out with the block beside it."""
NEAR = 2.0
"""Seconds around an utterance in which the nearest step to a short word may lie."""
UNSURE = 0.6
"""Recognised words that are less probable on average are doubtful. English that was heard right
had .6 to .96, Spanish taken for English .54."""
SILENCE = -80.0
"""A file whose sound never gets louder, in decibels of full scale, has no sound."""
SECOND = 1.0
"""Length of a step where there are no words, in ``word`` alignment."""
_LOUDNESS = VOICE_COLUMNS.index("log_energy")
_PACKAGES = ("av", "faster-whisper", "mediapipe", "mmcl", "pocketsphinx", "transformers")

_T = TypeVar("_T")
_Floats = NDArray[np.float32]


class Extracted(NamedTuple):
    """What a file came to.

    Attributes:
        clips: One per utterance, without a label, in the split ``test``; the times of their
            words count from the start of the utterance.
        spans: Start and end of each utterance in its file, in seconds.
        notes: What a user should know; the file is not named in them.
        timings: Seconds per stage, by :data:`STAGES`.
        duration: Seconds of media looked at.
        language: Of the words, where known.
    """

    clips: list[Clip]
    spans: list[tuple[float, float]]
    notes: tuple[str, ...]
    timings: dict[str, float]
    duration: float
    language: str | None


class Models:
    """The models of a recipe, each loaded when first asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @cached_property
    def text(self) -> TextEncoder:
        """Words to vectors."""
        return TextEncoder(text_model(self._recipe.text_model)[0])

    @cached_property
    def recogniser(self) -> Recogniser:
        """Speech to words."""
        return Recogniser(speech_model(self._recipe.speech_model)[0])

    @cached_property
    def tracker(self) -> FaceTracker:
        """Pictures to faces."""
        return FaceTracker(face_model(self._recipe.face_model)[0])


class _Series(NamedTuple):
    """A modality at its own rate: times ``[T]`` in seconds, steps ``[T, d]``, found ``[T]``."""

    times: NDArray[np.float64]
    steps: _Floats
    found: NDArray[np.bool_]
    rate: float

    def around(
        self, start: float, end: float
    ) -> tuple[NDArray[np.float64], _Floats, NDArray[np.bool_]]:
        """Times, steps and found of a stretch and of a little on either side."""
        near = slice(*np.searchsorted(self.times, [start - NEAR, end + NEAR]))
        return self.times[near], self.steps[near], self.found[near]


class _Said(NamedTuple):
    """An utterance whose times in the file are known, and those of its words."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


class _Spoken(NamedTuple):
    utterances: list[_Said]
    language: str | None


class Extractor:
    """Extracts files by one recipe; its models are loaded once.

    Args:
        recipe: How; versions are filled in.
        models: Others than the recipe's own, loaded already perhaps.
        progress: Told the name of each stage, of :data:`STAGES`, when it begins; some begin
            more than once.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Any | None = None,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe = with_versions(recipe)
        self.models: Models = models or Models(recipe)
        self.progress = progress

    def extract(
        self,
        path: Path,
        *,
        transcript: Path | str | None = None,
        video_id: str | None = None,
        span: tuple[float, float] | None = None,
    ) -> Extracted:
        """Extract one file.

        With the alignment ``word`` every modality has one step per word. A word in whose time
        there was no face is a step of zeros (``Card.missing_as_zero``). A file without a
        word is one utterance, whose steps are one second each (the last may be shorter): the
        ``words`` of its clip have times and no text. With ``native`` every modality has its
        own rate.

        A modality that a clip has nothing of is left out of it, and named in the notes.

        Args:
            path: A video or a sound.
            transcript: A file (srt, vtt, json, txt), or what is said; recognised if None.
                What has no times is aligned.
            video_id: Names the recording; the file's name without its ending by default.
            span: The stretch in seconds that is one utterance and is not cut further;
                ``(0, inf)`` is all of the file. None: all of it, cut at its pauses.

        Raises:
            MediaError: If the file or the transcript cannot be read, or if there are neither
                words nor sound nor a face.
        """
        return _Extraction(self, path, video_id or path.stem, span).run(transcript)


class _Extraction:
    """The extraction of one file."""

    def __init__(
        self, extractor: Extractor, path: Path, video_id: str, span: tuple[float, float] | None
    ) -> None:
        self.recipe, self.models = extractor.recipe, extractor.models
        self.path, self.video_id, self.whole = path, video_id, span is not None
        self.clock = _Clock(extractor.progress)
        self.notes: list[str] = []
        with self.clock.stage("decode"):
            self.info: MediaInfo = probe(path)
        self.start, self.end = self._stretch(span)

    def run(self, transcript: Path | str | None) -> Extracted:
        voice = self._voice()
        spoken = self._spoken(transcript, heard=voice is not None)
        faces = self._faces(voice)
        utterances = spoken.utterances or [self._wordless()]
        vectors = self._vectors(utterances)
        sources: dict[Modality, _Series | None] = {"audio": self._described(voice), "vision": faces}
        clips = [
            self._clip(at, utterance, vectors[at], sources)
            for at, utterance in enumerate(utterances)
        ]
        self._note_missing(clips, spoken)
        return Extracted(
            clips=clips,
            spans=[(utterance.start, utterance.end) for utterance in utterances],
            notes=tuple(self.notes),
            timings=self.clock.seconds,
            duration=self.end - self.start,
            language=spoken.language,
        )

    def _stretch(self, span: tuple[float, float] | None) -> tuple[float, float]:
        start, wanted = span or (0.0, self.info.duration)
        end = min(wanted, self.info.duration)
        if not 0 <= start < end:
            raise MediaError(
                f'"{self.path.name}" lasts {self.info.duration:.2f} s; '
                f"expected a stretch inside it, got {start:g}..{wanted:g} s."
            )
        return start, end

    # ------------------------------------------------------------ voice and face

    def _voice(self) -> _Series | None:
        if not self.info.has_audio:
            self.notes.append("no sound: audio is left out")
            return None
        with self.clock.stage("audio"):
            blocks = self.clock.decoding(self._sound(), "audio")
            steps = _voice_of(blocks)
        if not len(steps) or steps[:, _LOUDNESS].max() < SILENCE:
            self.notes.append("its sound is silence: audio is left out")
            return None
        found = np.ones(len(steps), dtype=bool)
        return _Series(self.start + voice_times(len(steps)), steps, found, self.recipe.audio_rate)

    def _described(self, voice: _Series | None) -> _Series | None:
        """The voice as the recipe wants it; pieces keep openSMILE's memory flat."""
        if voice is None or self.recipe.voice == "mfcc":
            return voice
        times, steps = [], []
        for start in np.arange(self.start, self.end, LISTEN):
            with self.clock.stage("decode"):
                audio = read_audio(self.path, start, min(start + LISTEN, self.end))
            with self.clock.stage("audio"):
                steps.append(egemaps_steps(audio))
            times.append(start + voice_times(len(steps[-1])))
        found = np.ones(sum(map(len, steps)), dtype=bool)
        return _Series(np.concatenate(times), np.concatenate(steps), found, voice.rate)

    def _sound(self) -> Iterator[_Floats]:
        if self.start > 0:
            yield read_audio(self.path, self.start, self.end)
        else:
            left = round(self.end * SAMPLE_RATE)
            for block in audio_blocks(self.path):
                yield block[:left]
                left -= len(block)
                if left <= 0:
                    return

    def _faces(self, voice: _Series | None) -> _Series | None:
        if not self.info.has_video:
            self.notes.append("no pictures: vision is left out")
            return None
        with self.clock.stage("vision"):
            pictures: Iterator[Frame] = self.clock.decoding(
                frames(self.path, rate=self.recipe.frame_rate, start=self.start, end=self.end),
                "vision",
            )
            loudness = None if voice is None else _loudness_of(voice)
            track: FaceTrack = self.models.tracker.track(pictures, loudness)
        if not track.found.any():
            self.notes.append(f"{track.note or 'no face in any picture'}: vision is left out")
            return None
        if track.note:
            self.notes.append(track.note)
        return _Series(track.times, track.steps, track.found, self.recipe.frame_rate)

    # ------------------------------------------------------------ words

    def _spoken(self, transcript: Path | str | None, *, heard: bool) -> _Spoken:
        """The utterances and their words, with times in the file."""
        if isinstance(transcript, Path):
            given = read_transcript(transcript)
            check_times(transcript, given, self.info.duration)
            if all(utterance.start is not None for utterance in given):
                timed = [self._timed(utterance, heard=heard) for utterance in given]
                return _Spoken(self._joined(timed), self.recipe.language)
            transcript = " ".join(utterance.text for utterance in given)
        if transcript is not None and transcript.split():
            words = self._align(transcript, (self.start, self.end), heard=heard)
            return _Spoken(self._cut(words, transcript), self.recipe.language)
        if not heard:
            return _Spoken([], None)
        words, language = self._recognise()
        return _Spoken(self._cut(words, joined(words)), language)

    def _timed(self, utterance: Utterance, *, heard: bool) -> _Said:
        """The utterance with times for every word of it."""
        span = (utterance.start or 0.0, utterance.end or 0.0)
        words = utterance.words
        if not words or any(word.start is None for word in words):
            words = self._align(utterance.text, span, heard=heard)
        return _Said(*span, utterance.text, words)

    def _align(self, text: str, span: tuple[float, float], *, heard: bool) -> tuple[Word, ...]:
        """The words of a text that is said in a stretch, with their times in the file."""
        if not heard:
            return self._evenly(text, span, "the words have no times without sound")
        language = self.recipe.language
        if language not in (None, ENGLISH) and not self.models.recogniser.hears(language):
            return self._evenly(text, span, f'the speech model does not hear "{language}"')
        with self.clock.stage("decode"):
            audio = read_audio(self.path, *span)
        with self.clock.stage("align"):
            recogniser = self.models.recogniser
            words = time_words(audio, text, language=language, recogniser=recogniser)
        return _shifted(words, span[0])

    def _evenly(self, text: str, span: tuple[float, float], why: str) -> tuple[Word, ...]:
        """The words spread over a stretch, and a note that says so once."""
        note = f"{why}: words are spread evenly over what was said"
        if note not in self.notes:
            self.notes.append(note)
        return _spread(text.split(), *span)

    def _recognise(self) -> tuple[tuple[Word, ...], str | None]:
        """Words of the stretch, heard in pieces that end at a pause."""
        words: list[Word] = []
        sure: list[float] = []
        language, at = self.recipe.language, self.start
        while at < self.end:
            stop = min(at + LISTEN, self.end)
            with self.clock.stage("decode"):
                audio = read_audio(self.path, at, stop)
            with self.clock.stage("recognise"):
                heard = self.models.recogniser.transcribe(audio, language=language)
            language = language or heard.language
            sure += heard.word_probabilities
            piece = _shifted(heard.words, at)
            if stop < self.end:
                piece, stop = _up_to_a_pause(piece, stop)
            words += piece
            at = stop
        if sure and np.mean(sure) < UNSURE:
            self.notes.append(
                f"the words are doubtful (probability {np.mean(sure):.2f} on average): give a "
                "transcript, or a language and a speech model that hears it"
            )
        return tuple(words), language if words else self.recipe.language

    def _cut(self, words: tuple[Word, ...], text: str) -> list[_Said]:
        if not words:
            return []
        if self.whole:
            return [_Said(self.start, self.end, text, words)]
        found = cut_utterances(words, pause=self.recipe.pause, longest=self.recipe.longest)
        return [_Said(u.start or 0.0, u.end or 0.0, u.text, u.words) for u in found]

    def _joined(self, utterances: Sequence[_Said]) -> list[_Said]:
        """Those of the stretch as one, where it is not to be cut."""
        if not self.whole:
            return [utterance for utterance in utterances if utterance.words]
        words = tuple(
            word
            for utterance in utterances
            for word in utterance.words
            if self.start <= (word.start or 0.0) < self.end
        )
        return self._cut(words, joined(words))

    def _wordless(self) -> _Said:
        edges = np.append(np.arange(self.start, self.end, SECOND), self.end)
        seconds = tuple(Word(text="", start=float(a), end=float(b)) for a, b in pairwise(edges))
        return _Said(self.start, self.end, "", seconds)

    def _vectors(self, utterances: Sequence[_Said]) -> list[_Floats]:
        if not any(utterance.text for utterance in utterances):
            return [np.zeros((0, 0), np.float32) for _ in utterances]
        with self.clock.stage("text"):
            return self.models.text.encode([[w.text for w in u.words] for u in utterances])

    # ------------------------------------------------------------ clips

    def _clip(
        self,
        at: int,
        utterance: _Said,
        vectors: _Floats,
        sources: Mapping[Modality, _Series | None],
    ) -> Clip:
        features: dict[Modality, _Floats] = {"text": vectors} if len(vectors) else {}
        for modality, series in sources.items():
            steps = None if series is None else self._pooled(series, utterance)
            if steps is not None:
                features[modality] = steps
        if not features:
            raise MediaError(
                f'"{self.path.name}" holds no words, no sound and no face, so nothing to learn '
                "from.\n  Expected a recording of someone who speaks."
            )
        words = _shifted(utterance.words, -utterance.start)
        has_steps = bool(utterance.text) or self.recipe.alignment == "word"
        return Clip(
            id=f"{self.video_id}/{at}",
            split="test",
            features=features,
            video_id=self.video_id,
            clip_id=str(at),
            text=utterance.text or None,
            words=words if has_steps else None,
        )

    def _pooled(self, series: _Series, utterance: _Said) -> _Floats | None:
        measured = series.around(utterance.start, utterance.end)
        if self.recipe.alignment == "word":
            steps, found = steps_per_word(*measured, utterance.words)
        else:
            span = (utterance.start, utterance.end)
            steps, found = steps_at_rate(*measured, series.rate, *span)
        return steps if found.any() else None

    def _note_missing(self, clips: Sequence[Clip], spoken: _Spoken) -> None:
        if not spoken.utterances:
            steps = ", its steps are seconds" if self.recipe.alignment == "word" else ""
            self.notes.append(f"no words: it is one utterance without text{steps}")
        have: Iterable[Modality] = {m for clip in clips for m in clip.features}
        for modality in (m for m in MODALITIES if m in have):
            lacking = sum(modality not in clip.features for clip in clips)
            if lacking:
                self.notes.append(f"{modality} is missing in {lacking} of {len(clips)} utterances")


class _Clock:
    """Seconds per stage; what is decoded inside another stage is not its own."""

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def decoding(self, source: Iterator[_T], inside: str) -> Iterator[_T]:
        """The same items; the time they take to come is moved from a stage to ``decode``."""
        while True:
            began = time.perf_counter()
            item = next(source, None)
            took = time.perf_counter() - began
            self.seconds["decode"] += took
            self.seconds[inside] -= took
            if item is None:
                return
            yield item


def _voice_of(blocks: Iterable[_Floats]) -> _Floats:
    """Voice steps of sound that comes in blocks: those of the whole, ``[T, d]``."""
    parts = [np.zeros((0, len(VOICE_COLUMNS)), np.float32)]
    hop = SAMPLE_RATE // VOICE_RATE
    held, skip = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        ready = len(held) // hop - MARGIN
        if ready <= skip + MARGIN:
            continue
        parts.append(voice_steps(held)[skip:ready])
        held, skip = held[(ready - MARGIN) * hop :], MARGIN
    if len(held):
        parts.append(voice_steps(held)[skip:])
    return np.concatenate(parts)


def _loudness_of(voice: _Series) -> Callable[[float], float]:
    """How loud it is at a time in the file, in decibels."""

    def loudness(at: float) -> float:
        return float(np.interp(at, voice.times, voice.steps[:, _LOUDNESS]))

    return loudness


def _shifted(words: Iterable[Word], by: float) -> tuple[Word, ...]:
    """The words so many seconds later; to the microsecond, and not before 0."""
    return tuple(
        Word(
            text=word.text,
            start=None if word.start is None else max(0.0, round(word.start + by, 6)),
            end=None if word.end is None else max(0.0, round(word.end + by, 6)),
        )
        for word in words
    )


def _spread(words: Sequence[str], start: float, end: float) -> tuple[Word, ...]:
    edges = np.linspace(start, end, len(words) + 1)
    return tuple(
        Word(text=word, start=float(a), end=float(b))
        for word, a, b in zip(words, edges[:-1], edges[1:], strict=True)
    )


def _up_to_a_pause(words: tuple[Word, ...], stop: float) -> tuple[tuple[Word, ...], float]:
    """The words before the longest pause of the last minute, and its middle."""
    edges = [(w.start or 0.0, w.end or 0.0) for w in words]
    pauses = [
        (after - before, at, (after + before) / 2)
        for at, ((_, before), (after, _)) in enumerate(pairwise(edges), start=1)
        if before > stop - LATE
    ]
    if not pauses:
        return words, stop
    _, at, middle = max(pauses)
    return words[:at], middle


# ---------------------------------------------------------------- what is stored of it


def with_versions(recipe: Recipe) -> Recipe:
    """The recipe with the versions of the packages and weights it would use here."""
    packages = (*_PACKAGES, "opensmile") if recipe.voice == "egemaps" else _PACKAGES
    versions = {name: _version(name) for name in packages}
    for key, locate in (
        ("text_model", text_model),
        ("speech_model", speech_model),
        ("face_model", face_model),
    ):
        try:
            versions[key] = locate(getattr(recipe, key))[1]
        except (MediaError, ImportError):  # it says so when it is used, if it is
            versions[key] = "none"
    return recipe.model_copy(update={"versions": versions})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def card_of(
    recipe: Recipe,
    dims: Mapping[Modality, int],
    *,
    task: Task,
    counts: Mapping[SplitName, int],
    name: str,
    language: str | None = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
    notes: tuple[str, ...] = (),
) -> Card:
    """The card of a corpus that was extracted.

    Args:
        recipe: With its versions.
        dims: Width per modality some clip has.
        task: What the labels are.
        counts: Clips per split.
        name: Of the corpus.
        language: Of the words, where known.
        spans: Start and end of clips in their file, by id, where a file was cut.
        notes: What a user should know.
    """
    columns: dict[Modality, tuple[str, ...]] = {
        "text": text_columns(dims.get("text", 0)),
        "audio": VOICE_COLUMNS if recipe.voice == "mfcc" else EGEMAPS_COLUMNS,
        "vision": FACE_COLUMNS,
    }
    present = [modality for modality in MODALITIES if modality in dims]
    made: dict[str, Any] = {"extraction": recipe.model_dump(mode="json")}
    if spans:
        made["spans"] = {clip: list(span) for clip, span in spans.items()}
    return Card(
        name=name,
        task=task,
        dims={modality: dims[modality] for modality in present},
        counts=dict(counts),
        aligned=recipe.alignment == "word",
        missing_as_zero=True,
        columns={modality: columns[modality] for modality in present},
        language=language,
        recipe=made,
        notes=notes,
    )
