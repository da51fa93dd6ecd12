"""The clips of a corpus, their labels, and the card that describes them.

Everything that enters the project from outside passes through these classes.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmcl.types import Modality, SplitName, TaskKind

__all__ = ["Account", "Card", "Clip", "Label", "Planted", "Repairs", "Source", "Task", "Word"]

Label = float | int | tuple[int, ...] | None
"""A clip's label: a score, a class index, one 0/1 per emotion, or None where unknown."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Task(_Strict):
    """The quantity to predict and its range.

    Attributes:
        kind: ``regression`` (one real score), ``classes`` (one of k) or
            ``emotions`` (several yes/no judgements).
        low: Lowest possible score, and ``high`` the highest; regression only.
        names: Class or emotion names, in label order; empty for regression.
    """

    kind: TaskKind
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "regression":
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError("a regression task needs low and high, low below high")
        elif len(self.names) < (2 if self.kind == "classes" else 1):
            raise ValueError(f"a task of {self.kind} needs their names")
        return self

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score of a regression task; None for other tasks."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def output_dim(self) -> int:
        """Numbers a model returns per clip: 1, k class logits, or 2 logits per emotion."""
        if self.kind == "regression":
            return 1
        return len(self.names) * (2 if self.kind == "emotions" else 1)


class Word(_Strict):
    """A spoken word and its times in seconds from the start of the clip."""

    text: str
    start: float | None = None
    end: float | None = None


class Planted(_Strict):
    """The answer key of a planted clip; real clips have none.

    Attributes:
        roles: Role of every step, int8 ``[n]``: 0 distractor, 1 common, 2 complementary.
        scores: The part that ``common``, ``text``, ``audio`` and ``vision`` each add to the
            label before it is clipped.
    """

    roles: dict[Modality, NDArray[np.int8]]
    scores: dict[str, float]


class Clip(_Strict):
    """One utterance.

    Attributes:
        id: Unique in the corpus.
        split: ``train``, ``valid`` or ``test``.
        features: Per modality a float ``[n, d_m]`` sequence; an absent modality is left out.
        label: See :data:`Label`.
        modality_labels: Score per modality (CH-SIMS), in the range of ``label``.
        video_id: The recording the clip was cut from; ``clip_id`` is its name inside that.
        text: The spoken text; ``words`` are its words with their times.
        speaker: Who speaks, where the source says so.
        planted: The answer key of a planted clip.
    """

    id: str
    split: SplitName
    features: dict[Modality, NDArray[np.floating[Any]]]
    label: Label = None
    modality_labels: dict[Modality, float] | None = None
    video_id: str | None = None
    clip_id: str | None = None
    text: str | None = None
    words: tuple[Word, ...] | None = None
    speaker: str | None = None
    planted: Planted | None = None


class Repairs(_Strict):
    """Counts of the values of one modality that were not finite and became zero."""

    minus_inf: int = 0
    plus_inf: int = 0
    nan: int = 0

    @property
    def total(self) -> int:
        """Sum of the three counts."""
        return self.minus_inf + self.plus_inf + self.nan

    def plus(self, other: Repairs) -> Repairs:
        """Add the counts of another part of the modality."""
        counts = other.model_dump()
        return Repairs(**{kind: count + counts[kind] for kind, count in self.model_dump().items()})


class Source(_Strict):
    """The foreign file that a corpus was read from."""

    name: str
    layout: str
    sha256: str


class Account(_Strict):
    """Contents of the source of a corpus, and the parts of it that were left out.

    Attributes:
        source: What was there, a phrase each: ``16 clips (training 8, validation 8)``.
        left_out: What did not become part of a clip, and why; empty if nothing was left out.
    """

    source: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class Card(_Strict):
    """Everything a reader of the corpus must know; stored in the Arrow schema's metadata.

    Attributes:
        name: Name of the corpus, ``mosi`` for example.
        task: What is predicted.
        dims: Feature width per modality the corpus has.
        counts: Clips per split.
        aligned: Whether step i is the same stretch of time in every modality.
        missing_as_zero: Whether a step of zeros means that the step is missing: a word
            during which no face was seen, for example.
        columns: Names of the feature columns.
        language: Language of the text.
        repairs: Values that were not finite.
        source: The foreign file it was read from.
        recipe: How it was made: reader, planting or extraction parameters and versions.
        notes: Findings of the reader that a user should see.
        account: What was in the source and what was left out, where there was a source.
    """

    name: str
    task: Task
    dims: dict[Modality, int]
    counts: dict[SplitName, int]
    aligned: bool
    missing_as_zero: bool = False
    columns: dict[Modality, tuple[str, ...]] = Field(default_factory=dict)
    language: str | None = None
    repairs: dict[Modality, Repairs] = Field(default_factory=dict)
    source: Source | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    account: Account | None = None
