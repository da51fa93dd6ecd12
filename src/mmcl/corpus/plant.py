"""A planted corpus: data whose common and complementary steps are known.

No benchmark tells which moments are common to the modalities and which are complementary,
since nobody knows. Here both are known by construction, so that a method's claim to have
found them can be checked, and can be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from mmcl.corpus.schema import Card, Clip, Label, Planted, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName, TaskKind

__all__ = ["PlantSettings", "plant_card", "plant_clips", "plant_corpus", "planted_task"]

ROLE_DISTRACTOR, ROLE_COMMON, ROLE_COMPLEMENTARY = 0, 1, 2

LATENT_DIM = 6
SENTIMENT_AXIS, MARKER_AXIS = 0, 2
NUM_COMMON, NUM_COMPLEMENTARY = 3, 2
COMMON_NOISE = 0.3
COMPLEMENTARY_GAIN, MARKER_SHIFT = 2.0, 3.0
LABEL_GAIN, LABEL_LIMIT = 0.6, 3.0
OBSERVATION_GAIN, OBSERVATION_NOISE = 1.5, 0.2
SCALE_SPREAD, OFFSET_SPREAD = 0.7, 2.0
LENGTH_JITTER = 5
DIMS: dict[Modality, int] = {"text": 96, "audio": 48, "vision": 24}
"""Widths where no others are asked for."""
_BLOCK = 1024
_SLICE = 16

_CLASS_EDGES = (-0.5, 0.5)
_CLASS_NAMES = ("negative", "neutral", "positive")
_EMOTION_NAMES = ("neutral", "happy", "sad", "angry")


class PlantSettings(BaseModel):
    """How a planted corpus is made.

    Attributes:
        train: Clips of the training split.
        valid: Clips of the validation split.
        test: Clips of the test split.
        seed: Draws the clips; each split has a stream of its own.
        world_seed: Draws what is fixed for all clips: the mixing of the modalities.
        heterogeneity: 0 makes all modalities' features equally scaled and centred, 1 is the
            default difficulty, above 1 is harder.
        aligned: Common steps stand at the same place in every modality, and lengths are
            equal; otherwise each modality has places and lengths of its own.
        steps: Steps of a clip (the middle of their range where not aligned).
        task: What the label is made into.
        widths: Features of a step of text, audio and vision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: int = Field(2000, ge=1)
    valid: int = Field(400, ge=1)
    test: int = Field(600, ge=1)
    seed: int = Field(1, ge=0)
    world_seed: int = Field(0, ge=0)
    heterogeneity: float = Field(1.0, ge=0)
    aligned: bool = True
    steps: int = Field(20, ge=NUM_COMMON + 3 * NUM_COMPLEMENTARY + LENGTH_JITTER)
    task: TaskKind = "regression"
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (
        DIMS["text"],
        DIMS["audio"],
        DIMS["vision"],
    )

    @property
    def dims(self) -> dict[Modality, int]:
        """The widths by modality."""
        return dict(zip(MODALITIES, self.widths, strict=True))


class _World(NamedTuple):
    mixing: dict[Modality, NDArray[np.float64]]  # [latent, d_m]
    scale: dict[Modality, NDArray[np.float64]]  # [d_m]
    offset: dict[Modality, NDArray[np.float64]]  # [d_m]


def planted_task(kind: TaskKind) -> Task:
    """The task of a planted corpus.

    The score lies in -3..3; classes are negative, neutral and positive; of the four
    emotions (neutral, happy, sad, angry) exactly one holds, as in IEMOCAP.
    """
    if kind == "regression":
        return Task(kind=kind, low=-LABEL_LIMIT, high=LABEL_LIMIT)
    return Task(kind=kind, names=_CLASS_NAMES if kind == "classes" else _EMOTION_NAMES)


def plant_card(settings: PlantSettings) -> Card:
    """The card of the corpus that :func:`plant_clips` makes from the same settings."""
    return Card(
        name="planted",
        task=planted_task(settings.task),
        dims=settings.dims,
        counts={name: getattr(settings, name) for name in SPLITS},
        aligned=settings.aligned,
        recipe={"planted": settings.model_dump(mode="json")},
    )


def plant_corpus(settings: PlantSettings | None = None) -> Corpus:
    """Plant a corpus in memory.

    Example:
        >>> plant_corpus(PlantSettings(train=8, valid=4, test=4))
        Corpus('planted', regression, 8/4/4 clips)
    """
    settings = settings or PlantSettings()
    return pack_corpus(plant_card(settings), plant_clips(settings))


def plant_clips(settings: PlantSettings) -> Iterator[Clip]:
    """Make the clips, split by split, a block at a time.

    Args:
        settings: See :class:`PlantSettings`.

    Yields:
        Clips in the order train, valid, test, each with its answer key. The same settings
        yield the same clips; the number of clips of one split does not change another.

    Source:
        METHOD 3. Ours: the released work has no data with a known answer.
    """
    world = _make_world(settings)
    for at, split in enumerate(SPLITS):
        rng = np.random.default_rng([settings.world_seed, settings.seed, at])
        left = count = getattr(settings, split)
        while left:
            size = min(_BLOCK, left)
            yield from _block(rng, world, settings, split, start=count - left, size=size)
            left -= size


def _make_world(settings: PlantSettings) -> _World:
    rng = np.random.default_rng([settings.world_seed])
    mixing, scale, offset = {}, {}, {}
    for modality, dim in settings.dims.items():
        mixing[modality] = rng.normal(size=(LATENT_DIM, dim)) / np.sqrt(LATENT_DIM)
        spread = settings.heterogeneity
        scale[modality] = np.exp(spread * SCALE_SPREAD * rng.normal(size=dim))
        offset[modality] = spread * OFFSET_SPREAD * rng.normal(size=dim)
    return _World(mixing, scale, offset)


def _block(
    rng: np.random.Generator,
    world: _World,
    settings: PlantSettings,
    split: SplitName,
    *,
    start: int,
    size: int,
) -> Iterator[Clip]:
    lengths, places = _draw_places(rng, settings, size)
    common = rng.normal(size=size)
    own = {m: rng.normal(size=size) for m in MODALITIES}
    topic = rng.normal(size=(size, NUM_COMMON, LATENT_DIM))
    features, roles = {}, {}
    for modality in MODALITIES:
        latent, roles[modality] = _latent(
            rng, places[modality], lengths[modality].max(), topic, common, own[modality]
        )
        features[modality] = _observe(rng, world, modality, latent)
    score = LABEL_GAIN * (common + sum(own[m] for m in MODALITIES))
    score = np.clip(score, -LABEL_LIMIT, LABEL_LIMIT)
    for i in range(size):
        yield Clip(
            id=f"{split}_{start + i:06d}",
            split=split,
            features={m: features[m][i, : lengths[m][i]] for m in MODALITIES},
            label=_label(float(score[i]), settings.task),
            planted=Planted(
                roles={m: roles[m][i, : lengths[m][i]] for m in MODALITIES},
                scores={
                    "common": LABEL_GAIN * float(common[i]),
                    **{m: LABEL_GAIN * float(own[m][i]) for m in MODALITIES},
                },
            ),
        )


def _draw_places(
    rng: np.random.Generator, settings: PlantSettings, size: int
) -> tuple[dict[Modality, NDArray[np.int64]], dict[Modality, NDArray[np.int64]]]:
    """Lengths ``[size]`` and, per modality, the common then complementary places ``[size, 5]``."""
    lengths, places = {}, {}
    if settings.aligned:
        order = rng.random((size, settings.steps)).argsort(axis=1)
        for at, modality in enumerate(MODALITIES):
            first = NUM_COMMON + at * NUM_COMPLEMENTARY
            own = order[:, first : first + NUM_COMPLEMENTARY]
            places[modality] = np.concatenate([order[:, :NUM_COMMON], own], axis=1)
            lengths[modality] = np.full(size, settings.steps)
        return lengths, places
    longest = settings.steps + LENGTH_JITTER
    for modality in MODALITIES:
        length = rng.integers(settings.steps - LENGTH_JITTER, longest + 1, size=size)
        draw = rng.random((size, longest))
        draw[np.arange(longest) >= length[:, None]] = np.inf
        places[modality] = draw.argsort(axis=1)[:, : NUM_COMMON + NUM_COMPLEMENTARY]
        lengths[modality] = length
    return lengths, places


def _latent(
    rng: np.random.Generator,
    places: NDArray[np.int64],
    steps: int,
    topic: NDArray[np.float64],
    common: NDArray[np.float64],
    own: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Latent vectors ``[size, steps, latent]`` and roles ``[size, steps]`` of one modality."""
    size = len(places)
    rows = np.arange(size)[:, None]
    latent = rng.normal(size=(size, steps, LATENT_DIM))
    roles = np.full((size, steps), ROLE_DISTRACTOR, dtype=np.int8)

    at_common = places[:, :NUM_COMMON]
    shared = topic + COMMON_NOISE * rng.normal(size=topic.shape)
    shared[..., SENTIMENT_AXIS] = common[:, None] + COMMON_NOISE * rng.normal(size=at_common.shape)
    latent[rows, at_common] = shared
    roles[rows, at_common] = ROLE_COMMON

    at_own = places[:, NUM_COMMON:]
    telling = latent[rows, at_own]
    telling[..., SENTIMENT_AXIS] = COMPLEMENTARY_GAIN * own[:, None] + COMMON_NOISE * rng.normal(
        size=at_own.shape
    )
    telling[..., MARKER_AXIS] += MARKER_SHIFT
    latent[rows, at_own] = telling
    roles[rows, at_own] = ROLE_COMPLEMENTARY
    return latent, roles


def _observe(
    rng: np.random.Generator, world: _World, modality: Modality, latent: NDArray[np.float64]
) -> NDArray[Any]:
    """Features ``[size, steps, d_m]``: a few clips at a time, which the processor's cache holds."""
    mixing, scale, offset = (held[modality] for held in world)
    features = np.empty((*latent.shape[:2], mixing.shape[1]), dtype=np.float32)
    for start in range(0, len(latent), _SLICE):
        seen = np.tanh(latent[start : start + _SLICE] @ mixing)
        seen *= OBSERVATION_GAIN
        noise = rng.standard_normal(seen.shape)
        seen += np.multiply(noise, OBSERVATION_NOISE, out=noise)
        seen *= scale
        seen += offset
        features[start : start + _SLICE] = seen
    return features


def _label(score: float, kind: TaskKind) -> Label:
    if kind == "regression":
        return score
    if kind == "classes":
        return int(np.digitize(score, _CLASS_EDGES))
    emotion = [abs(score) <= 0.5, score > 0.5, -1.25 < score < -0.5, score <= -1.25]
    return tuple(int(held) for held in emotion)
