"""Recognise the words of a sound, with their times, by Whisper."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.extras import load

__all__ = ["Recognised", "Recogniser"]

# On GRID a beam of 5 has the same word error rate, 0.106, and takes half as long again.
BEAM = 1
# Without tokenizer.json, faster-whisper would fetch it from the network.
NEEDED = ("model.bin", "config.json", "tokenizer.json")


class Recognised(NamedTuple):
    """Words that were heard.

    Attributes:
        words: In order, with times in seconds from the first sample.
        language: Two letters, as asked for or else the likeliest; empty if nothing was said
            and none was asked for.
        language_probability: 0..1; 1 if asked for.
        word_probabilities: Of each word, 0..1.
    """

    words: tuple[Word, ...]
    language: str
    language_probability: float
    word_probabilities: tuple[float, ...]


class Recogniser:
    """Whisper in 8-bit integers on the processor, loaded when first used.

    The same sound gives the same words, since nothing is sampled.

    Args:
        model: A folder for faster-whisper, or a hub id, which is then fetched once.
        threads: Threads of the processor; 0 lets CTranslate2 choose.
    """

    def __init__(self, model: str, *, threads: int = 0) -> None:
        self._name = model
        self._threads = threads

    @cached_property
    def _model(self) -> Any:
        whisper = load("faster_whisper", "recognising speech")
        folder = Path(self._name)
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if folder.is_dir() and missing:
            raise MediaError(
                f'speech model "{folder.name}" lacks {", ".join(missing)}; '
                "expected a folder for faster-whisper.\n"
                "  Make one: ct2-transformers-converter --model openai/whisper-tiny "
                "--copy_files tokenizer.json --output_dir whisper-tiny"
            )
        try:
            return whisper.WhisperModel(
                self._name, device="cpu", compute_type="int8", cpu_threads=self._threads
            )
        except (OSError, RuntimeError, ValueError) as fault:
            raise MediaError(
                f'speech model "{self._name}" cannot be loaded: {str(fault).splitlines()[0]}\n'
                "  Expected a folder for faster-whisper or a hub id: Systran/faster-whisper-tiny"
            ) from None

    def hears(self, language: str) -> bool:
        """Return whether the model knows a language, two letters."""
        return language in self._model.supported_languages

    def language_of(self, audio: NDArray[np.float32]) -> str:
        """Return the likeliest language of a sound, two letters."""
        known: list[str] = self._model.supported_languages
        if len(known) == 1:
            return known[0]
        language, _, _ = self._model.detect_language(audio)
        return str(language)

    def transcribe(self, audio: NDArray[np.float32], language: str | None = None) -> Recognised:
        """Recognise the words of a sound; silence has none.

        Args:
            audio: 16 kHz mono, float32 ``[samples]``, in -1..1.
            language: Two letters; None lets the recogniser decide. A model for English alone
                takes any speech for English: name the language where it may be another.

        Raises:
            MediaError: If the model cannot be loaded or does not know the language.
            MissingExtraError: If faster-whisper is not installed.
        """
        if not audio.any():
            return Recognised((), language or "", float(language is not None), ())
        if language is not None and not self.hears(language):
            known = self._model.supported_languages
            languages = "English only" if known == ["en"] else f"{len(known)} languages"
            raise MediaError(
                f'speech model "{Path(self._name).name}" hears {languages}; expected one that '
                f'knows "{language}".\n'
                "  Name one by speech_model, a hub id or a folder: Systran/faster-whisper-tiny"
            )
        segments, info = self._model.transcribe(
            audio,
            language=language,
            beam_size=BEAM,
            temperature=0.0,  # one answer: no second try by chance
            condition_on_previous_text=False,  # a mistake is not repeated to the end
            word_timestamps=True,
            vad_filter=True,
        )
        heard = [word for segment in segments for word in segment.words or ()]
        heard = [word for word in heard if word.word.strip()]
        words = tuple(
            Word(text=word.word.strip(), start=float(word.start), end=float(word.end))
            for word in heard
        )
        if not words and language is None:
            return Recognised((), "", 0.0, ())
        probabilities = tuple(float(word.probability) for word in heard)
        return Recognised(words, info.language, float(info.language_probability), probabilities)
