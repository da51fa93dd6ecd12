"""Turn a media file into clips: words, voice and face on one clock, cut into utterances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Card, Clip, Task, Word
from mmcl.errors import MediaError
from mmcl.media.containers.channels import channels_of
from mmcl.media.containers.decode import frames, probe
from mmcl.media.containers.ends import ends_of
from mmcl.media.containers.sound import audio_blocks
from mmcl.media.face import FACE_COLUMNS
from mmcl.media.rates import steps_at_rate, steps_per_word
from mmcl.media.recipe import Recipe
from mmcl.media.spoken import Stretch, TimedUtterance, UtteranceFinder
from mmcl.media.stages import STAGES, StageClock
from mmcl.media.text import text_columns
from mmcl.media.utterances import moved_words
from mmcl.media.voice import (
    EGEMAPS_COLUMNS,
    VOICE_COLUMNS,
    VOICE_RATE,
    egemaps_steps,
    voice_steps_of_blocks,
    voice_times,
)
from mmcl.media.weights import Models, with_versions
from mmcl.types import MODALITIES, Modality, SplitName

__all__ = ["STAGES", "Extracted", "Extractor", "Models", "card_of", "with_versions"]

EGEMAPS_PIECE = 300.0  # seconds of sound that openSMILE gets at once, to bound its memory
NEAR = 2.0  # seconds around an utterance in which the nearest step to a short word may lie
SILENCE = -80.0  # decibels of full scale; sound that never gets louder counts as none
UNHEARD = 3.0  # seconds of voice outside all utterances that are worth a note
LONG_GAP = 10.0  # seconds without an utterance, likewise
AUDIBLE = 30.0  # decibels below the loudest step; what is quieter is no voice but the room
WORDLESS_STEP = 1.0  # seconds of a step where there are no words, in alignment "word"
_LOUDNESS, _PITCH = VOICE_COLUMNS.index("log_energy"), VOICE_COLUMNS.index("log_f0")

_Floats = NDArray[np.float32]


class Extracted(NamedTuple):
    """Clips of a file, and what is known of their extraction.

    Attributes:
        clips: One per utterance, without a label, in the split ``test``. The times of their
            words count from the start of the utterance.
        spans: Start and end of each utterance in its file, in seconds.
        notes: What a user should know; the file is not named in them.
        timings: Seconds per stage, by :data:`STAGES`.
        duration: Seconds of media that were read.
        language: Language of the words, where known.
    """

    clips: list[Clip]
    spans: list[tuple[float, float]]
    notes: tuple[str, ...]
    timings: dict[str, float]
    duration: float
    language: str | None


class Extractor:
    """Extracts files by one recipe and loads its models once.

    Args:
        recipe: How to extract; its versions are filled in.
        models: Models to use in place of the recipe's own, perhaps loaded already.
        progress: Called with the name of each stage, of :data:`STAGES`, when it begins; some
            begin more than once.
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

        With the alignment ``word`` every modality has one step per word. A word during which
        no face was seen is a step of zeros (``Card.missing_as_zero``). A file without words is
        one utterance with a step per second (the last may be shorter): the ``words`` of its
        clip have times and no text. With ``native`` every modality has its own rate.

        A modality of which a clip has nothing is left out and named in the notes.

        Args:
            path: A video or a sound.
            transcript: A file (srt, vtt, json, txt), or what is said; recognised if None.
                Text without times is aligned.
            video_id: Names the recording; the file's name without its ending by default.
            span: The stretch in seconds that is one utterance and is not cut further;
                ``(0, inf)`` is all of the file. None: all of it, cut at its pauses.

        Raises:
            MediaError: If the file or the transcript cannot be read, or if there are neither
                words nor sound nor a face.
        """
        return _FileExtraction(self, path, video_id or path.stem, span).run(transcript)


class _Series(NamedTuple):
    """A modality at its own rate: times ``[T]`` in seconds, steps ``[T, d]``, measured ``[T]``."""

    times: NDArray[np.float64]
    steps: _Floats
    measured: NDArray[np.bool_]
    rate: float


class _FileExtraction:
    """The extraction of one file."""

    def __init__(
        self, extractor: Extractor, path: Path, video_id: str, span: tuple[float, float] | None
    ) -> None:
        self.recipe, self.models = extractor.recipe, extractor.models
        self.path, self.video_id = path, video_id
        self.clock = StageClock(extractor.progress)
        self.notes: list[str] = []
        with self.clock.stage("decode"):
            self.info, self.ends = probe(path), ends_of(path)
        stated = there = self.info.duration
        lasts = f"lasts {there:.2f} s"
        if self.ends.is_short and self.ends.stated is not None:
            stated, there = self.ends.stated, self.ends.last
            lasts = f"ends at {there:.2f} s, although its header says {stated:.2f} s"
        start, wanted = span or (0.0, stated)
        end = min(wanted, there)
        if not 0 <= start < end:
            raise MediaError(
                f'"{path.name}" {lasts}; expected a stretch inside it, got {start:g}..{wanted:g} s.'
            )
        self.start, self.end = start, end
        self.stretch = Stretch(path, start, end, stated, there, span is not None)
        self.notes += self.ends.notes(start, wanted)

    def run(self, transcript: Path | str | None) -> Extracted:
        voice = self._voice()
        has_sound = voice is not None
        found, language = UtteranceFinder(
            self.stretch, self.recipe, self.models, self.clock, self.notes, has_sound
        ).find(transcript)
        # The face comes after the voice, whose loudness tells which of several faces speaks.
        face = self._face(voice)
        utterances = found or [self._wordless_utterance()]
        self._note_outside(utterances, voice)
        vectors = self._word_vectors(utterances)
        # Loudness and silence are always those of our own voice features, not of openSMILE's.
        if voice is not None and self.recipe.voice == "egemaps":
            voice = self._egemaps()
        series: dict[Modality, _Series | None] = {"audio": voice, "vision": face}
        clips = [
            self._clip(number, utterance, vectors[number], series)
            for number, utterance in enumerate(utterances)
        ]
        self._note_missing(clips, has_words=bool(found))
        return Extracted(
            clips=clips,
            spans=[(utterance.start, utterance.end) for utterance in utterances],
            notes=tuple(self.notes),
            timings=self.clock.seconds,
            duration=self.end - self.start,
            language=language,
        )

    # Voice and face at their own rates

    def _voice(self) -> _Series | None:
        if not self.info.has_audio:
            self.notes.append("no sound: audio is left out")
            return None
        if self.ends.audio is None and self.ends.video is not None:
            self.notes.append("nothing of its sound is left: audio is left out")
            return None
        with self.clock.stage("decode"):
            note = channels_of(self.path).note
        if note:
            self.notes.append(note)
        with self.clock.stage("audio"):
            blocks = audio_blocks(self.path, self.start, self.end)
            steps = voice_steps_of_blocks(self.clock.decoding(blocks, "audio"))
        if not len(steps) or steps[:, _LOUDNESS].max() < SILENCE:
            self.notes.append("its sound is silence: audio is left out")
            return None
        measured = np.ones(len(steps), dtype=bool)
        times = self.start + voice_times(len(steps))
        return _Series(times, steps, measured, self.recipe.audio_rate)

    def _egemaps(self) -> _Series:
        blocks = audio_blocks(self.path, self.start, self.end, block_seconds=EGEMAPS_PIECE)
        times, steps = [], []
        with self.clock.stage("audio"):
            for number, block in enumerate(self.clock.decoding(blocks, "audio")):
                steps.append(egemaps_steps(block))
                start = self.start + number * EGEMAPS_PIECE
                times.append(start + voice_times(len(steps[-1])))
        rows = np.concatenate(steps)
        measured = np.ones(len(rows), dtype=bool)
        return _Series(np.concatenate(times), rows, measured, self.recipe.audio_rate)

    def _face(self, voice: _Series | None) -> _Series | None:
        if not self.info.has_video:
            self.notes.append("no pictures: vision is left out")
            return None
        if self.ends.video is None and self.ends.audio is not None:
            self.notes.append("nothing of its pictures is left: vision is left out")
            return None
        rate = self.recipe.frame_rate
        loudness: Callable[[float], float] | None = None
        if voice is not None:
            loudness = partial(np.interp, xp=voice.times, fp=voice.steps[:, _LOUDNESS])
        with self.clock.stage("vision"):
            pictures = frames(self.path, rate=rate, start=self.start, end=self.end)
            track = self.models.tracker.track(self.clock.decoding(pictures, "vision"), loudness)
        if not track.found.any():
            self.notes.append(f"{track.note or 'no face in any picture'}: vision is left out")
            return None
        if track.note:
            self.notes.append(track.note)
        return _Series(track.times, track.steps, track.found, rate)

    # Utterances and their words

    def _wordless_utterance(self) -> TimedUtterance:
        """Return the stretch as one utterance with a step per second in place of words."""
        edges = np.append(np.arange(self.start, self.end, WORDLESS_STEP), self.end).tolist()
        seconds = tuple(Word(text="", start=start, end=end) for start, end in pairwise(edges))
        return TimedUtterance(self.start, self.end, "", seconds)

    def _word_vectors(self, utterances: Sequence[TimedUtterance]) -> list[_Floats]:
        if not any(utterance.text for utterance in utterances):
            return [np.zeros((0, 0), np.float32) for _ in utterances]
        with self.clock.stage("text"):
            return self.models.text.encode([[w.text for w in u.words] for u in utterances])

    # Clips

    def _clip(
        self,
        number: int,
        utterance: TimedUtterance,
        vectors: _Floats,
        series: Mapping[Modality, _Series | None],
    ) -> Clip:
        features: dict[Modality, _Floats] = {"text": vectors} if len(vectors) else {}
        for modality, whole_file in series.items():
            steps = None if whole_file is None else self._utterance_steps(whole_file, utterance)
            if steps is not None:
                features[modality] = steps
        if not features:
            raise MediaError(
                f'"{self.path.name}" holds no words, no sound and no face, so nothing to learn '
                "from.\n  Expected a recording of someone who speaks."
            )
        # Without words, the one-second steps of "word" are listed as words without text.
        has_step_times = bool(utterance.text) or self.recipe.alignment == "word"
        words = moved_words(utterance.words, -utterance.start) if has_step_times else None
        return Clip(
            id=f"{self.video_id}/{number}",
            split="test",
            features=features,
            video_id=self.video_id,
            clip_id=str(number),
            text=utterance.text or None,
            words=words,
            speaker=utterance.speaker,
        )

    def _utterance_steps(self, series: _Series, utterance: TimedUtterance) -> _Floats | None:
        """Return one step per word or at the modality's rate; None if nothing was measured."""
        start, end = utterance.start, utterance.end
        near = slice(*np.searchsorted(series.times, [start - NEAR, end + NEAR]))
        rows = series.times[near], series.steps[near], series.measured[near]
        if self.recipe.alignment == "word":
            steps, measured = steps_per_word(*rows, utterance.words)
        else:
            steps, measured = steps_at_rate(*rows, series.rate, start, end)
        return steps if measured.any() else None

    def _note_outside(self, utterances: Sequence[TimedUtterance], voice: _Series | None) -> None:
        """Say how much of the file is in no utterance, where that is long or may be speech."""
        gaps = _gaps(utterances, self.start, self.end)
        voiced = 0.0
        if voice is not None:
            loudness = voice.steps[:, _LOUDNESS]
            is_voiced = (voice.steps[:, _PITCH] > 0) & (loudness > loudness.max() - AUDIBLE)
            edges = [np.searchsorted(voice.times, gap) for gap in gaps]
            voiced = sum(int(is_voiced[first:stop].sum()) for first, stop in edges) / VOICE_RATE
        longest = max(gaps, key=lambda gap: gap[1] - gap[0], default=(0.0, 0.0))
        if voiced < UNHEARD and longest[1] - longest[0] < LONG_GAP:
            return
        outside = sum(stop - start for start, stop in gaps)
        may_be_speech = f"; {voiced:.1f} s of these sound like a voice" if voiced >= UNHEARD else ""
        self.notes.append(
            f"{outside:.1f} of {self.end - self.start:.1f} s are in no utterance, the longest "
            f"stretch from {longest[0]:.1f} to {longest[1]:.1f} s{may_be_speech}"
        )

    def _note_missing(self, clips: Sequence[Clip], *, has_words: bool) -> None:
        if not has_words:
            steps = ", its steps are seconds" if self.recipe.alignment == "word" else ""
            self.notes.append(f"no words: it is one utterance without text{steps}")
        for modality in MODALITIES:
            lacking = sum(modality not in clip.features for clip in clips)
            if 0 < lacking < len(clips):
                self.notes.append(f"{modality} is missing in {lacking} of {len(clips)} utterances")


def _gaps(
    utterances: Sequence[TimedUtterance], start: float, end: float
) -> list[tuple[float, float]]:
    """Return the stretches between two times that are in no utterance."""
    gaps, covered = [], start
    for utterance in sorted(utterances):
        if utterance.start > covered:
            gaps.append((covered, utterance.start))
        covered = max(covered, utterance.end)
    if end > covered:
        gaps.append((covered, end))
    return gaps


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
    """Return the card of a corpus that was extracted.

    Args:
        recipe: With its versions.
        dims: Width of each modality that some clip has.
        task: What the labels are.
        counts: Clips per split.
        name: Name of the corpus.
        language: Language of the words, where known.
        spans: Start and end of clips in their file, by id, where a file was cut.
        notes: What a user should know.
    """
    columns: dict[Modality, tuple[str, ...]] = {
        "text": text_columns(dims.get("text", 0)),
        "audio": VOICE_COLUMNS if recipe.voice == "mfcc" else EGEMAPS_COLUMNS,
        "vision": FACE_COLUMNS,
    }
    present = [modality for modality in MODALITIES if modality in dims]
    origin: dict[str, Any] = {"extraction": recipe.model_dump(mode="json")}
    if spans:
        origin["spans"] = {clip: list(span) for clip, span in spans.items()}
    return Card(
        name=name,
        task=task,
        dims={modality: dims[modality] for modality in present},
        counts=dict(counts),
        aligned=recipe.alignment == "word",
        missing_as_zero=True,
        columns={modality: columns[modality] for modality in present},
        language=language,
        recipe=origin,
        notes=notes,
    )
