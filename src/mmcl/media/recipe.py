"""Settings of an extraction, which are stored with the corpus."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SAMPLE_RATE", "Recipe"]

SAMPLE_RATE = 16_000
"""Samples of sound per second, mono, everywhere in this room."""


class Recipe(BaseModel):
    """Everything on which the features of a file depend.

    Attributes:
        alignment: ``word``, one step per word in every modality; ``native``, each modality
            at its own rate (text per word).
        frame_rate: Pictures that are measured per second.
        audio_rate: Steps of sound per second in ``native``; frames at 100/s are averaged.
        voice: ``mfcc``, 48 columns of our own (timbre, loudness, pitch, spectrum); or
            ``egemaps``, the 25 low-level descriptors of openSMILE (research licence).
        text_model: Hub id or folder of the text encoder; None takes the packaged one.
        speech_model: Hub id or folder of the recogniser; None takes the packaged one.
        face_model: File of the face landmarker; None takes the packaged one.
        language: Language of the speech, two letters; None lets the recogniser decide.
        pause: Silence between two words, in seconds, that ends an utterance.
        longest: Longest utterance, in seconds; a longer one is cut at its longest pause.
        versions: Versions of the packages and weights, filled in by extraction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alignment: Literal["word", "native"] = "word"
    frame_rate: float = Field(10.0, gt=0, le=60)
    audio_rate: float = Field(10.0, gt=0, le=100)
    voice: Literal["mfcc", "egemaps"] = "mfcc"
    text_model: str | None = None
    speech_model: str | None = None
    face_model: str | None = None
    language: str | None = None
    pause: float = Field(0.6, gt=0)
    longest: float = Field(15.0, gt=0)
    versions: dict[str, str] = Field(default_factory=dict)
