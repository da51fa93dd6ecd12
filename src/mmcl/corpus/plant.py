"""A planted corpus: synthetic data whose common and complementary steps are known.

Nobody knows which moments of a benchmark are common to the modalities and which are
complementary. Here both are known by construction, so that a method's claim to have found
them can be checked, and can be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
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
_BLOCK = 1024  # clips drawn together
_SLICE = 16  # clips observed together

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_CLASS_EDGES = (-0.5, 0.5)
_CLASS_NAMES = ("negative", "neutral", "positive")
_EMOTION_NAMES = ("neutral", "happy", "sad", "angry")


class PlantSettings(BaseModel):
    """Settings of a planted corpus.

    Attributes:
        train: Clips of the training split; ``valid`` and ``test`` those of the others.
        seed: Seed of the clips; each split has a stream of its own.
        world_seed: Seed of the mixing of the modalities, which is the same for all clips.
        heterogeneity: Difference in scale and centre between features; 0 for none.
        aligned: Whether all modalities share their lengths and the places of common steps.
        steps: Steps of a clip (the middle of their range where not aligned).
        task: Kind of label.
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
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (96, 48, 24)

    @property
    def dims(self) -> dict[Modality, int]:
        """The widths by modality."""
        return dict(zip(MODALITIES, self.widths, strict=True))


class _World(NamedTuple):
    """The fixed map from latent vectors to the features of each modality."""

    mixing: dict[Modality, _Floats]  # [latent, d_m]
    scale: dict[Modality, _Floats]  # [d_m]
    offset: dict[Modality, _Floats]  # [d_m]


def planted_task(kind: TaskKind) -> Task:
    """Return the task of a planted corpus.

    The score lies in -3..3; classes are negative, neutral and positive; of the four
    emotions (neutral, happy, sad, angry) exactly one holds, as in IEMOCAP.
    """
    if kind == "regression":
        return Task(kind=kind, low=-LABEL_LIMIT, high=LABEL_LIMIT)
    return Task(kind=kind, names=_CLASS_NAMES if kind == "classes" else _EMOTION_NAMES)


def plant_card(settings: PlantSettings) -> Card:
    """Return the card of the corpus that :func:`plant_clips` makes from the same settings."""
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

    Yields:
        Clips in the order train, valid, test, each with its answer key. The same settings
        yield the same clips; the number of clips of one split does not change another.

    Source:
        Ours: the released work has no data with a known answer.
    """
    world = _make_world(settings)
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng([settings.world_seed, settings.seed, index])
        count = getattr(settings, split)
        for start in range(0, count, _BLOCK):
            rows = range(start, min(start + _BLOCK, count))
            yield from _make_block(rng, world, settings, split, rows)


def _make_world(settings: PlantSettings) -> _World:
    rng = np.random.default_rng([settings.world_seed])
    mixing, scale, offset = {}, {}, {}
    for modality, dim in settings.dims.items():
        mixing[modality] = rng.normal(size=(LATENT_DIM, dim)) / np.sqrt(LATENT_DIM)
        scale[modality] = np.exp(settings.heterogeneity * SCALE_SPREAD * rng.normal(size=dim))
        offset[modality] = settings.heterogeneity * OFFSET_SPREAD * rng.normal(size=dim)
    return _World(mixing, scale, offset)


def _make_block(
    rng: Generator, world: _World, settings: PlantSettings, split: SplitName, rows: range
) -> Iterator[Clip]:
    size = len(rows)
    lengths, places = _draw_places(rng, settings, size)
    # One score that all modalities tell, and one of each modality alone.
    common = rng.normal(size=size)
    own = {m: rng.normal(size=size) for m in MODALITIES}
    topic = rng.normal(size=(size, NUM_COMMON, LATENT_DIM))
    features, roles = {}, {}
    for m in MODALITIES:
        num_steps = int(lengths[m].max())
        latent, roles[m] = _draw_latent(rng, places[m], num_steps, topic, common, own[m])
        features[m] = _observe(rng, world, m, latent)
    parts = [("common", common), *own.items()]
    score = np.clip(LABEL_GAIN * (common + sum(own.values())), -LABEL_LIMIT, LABEL_LIMIT)
    for i, row in enumerate(rows):
        planted = Planted(
            roles={m: roles[m][i, : lengths[m][i]] for m in MODALITIES},
            scores={name: LABEL_GAIN * float(part[i]) for name, part in parts},
        )
        yield Clip(
            id=f"{split}_{row:06d}",
            split=split,
            features={m: features[m][i, : lengths[m][i]] for m in MODALITIES},
            label=_label(float(score[i]), settings.task),
            planted=planted,
        )


def _draw_places(
    rng: Generator, settings: PlantSettings, size: int
) -> tuple[dict[Modality, _Ints], dict[Modality, _Ints]]:
    """Draw lengths ``[size]`` and places ``[size, 5]``: of common steps, then complementary."""
    lengths, places = {}, {}
    if settings.aligned:
        # One order of the steps: the first are common, the next those of each modality in turn.
        order = rng.random((size, settings.steps)).argsort(axis=1)
        for index, modality in enumerate(MODALITIES):
            first = NUM_COMMON + index * NUM_COMPLEMENTARY
            own = order[:, first : first + NUM_COMPLEMENTARY]
            places[modality] = np.concatenate([order[:, :NUM_COMMON], own], axis=1)
            lengths[modality] = np.full(size, settings.steps)
        return lengths, places
    longest = settings.steps + LENGTH_JITTER
    for modality in MODALITIES:
        length = rng.integers(settings.steps - LENGTH_JITTER, longest + 1, size=size)
        draw = rng.random((size, longest))
        draw[np.arange(longest) >= length[:, None]] = np.inf  # no place beyond the clip's end
        places[modality] = draw.argsort(axis=1)[:, : NUM_COMMON + NUM_COMPLEMENTARY]
        lengths[modality] = length
    return lengths, places


def _draw_latent(
    rng: Generator, places: _Ints, steps: int, topic: _Floats, common: _Floats, own: _Floats
) -> tuple[_Floats, NDArray[np.int8]]:
    """Draw latent vectors ``[size, steps, latent]`` and roles ``[size, steps]`` of a modality."""
    size = len(places)
    rows = np.arange(size)[:, None]
    latent = rng.normal(size=(size, steps, LATENT_DIM))
    roles = np.full((size, steps), ROLE_DISTRACTOR, dtype=np.int8)

    # Common steps: the same topic and the same score in every modality, each with its noise.
    common_places = places[:, :NUM_COMMON]
    shared = topic + COMMON_NOISE * rng.normal(size=topic.shape)
    noise = COMMON_NOISE * rng.normal(size=common_places.shape)
    shared[..., SENTIMENT_AXIS] = common[:, None] + noise
    latent[rows, common_places] = shared
    roles[rows, common_places] = ROLE_COMMON

    # Complementary steps: the modality's own score, and a marker by which they can be found.
    own_places = places[:, NUM_COMMON:]
    telling = latent[rows, own_places]
    noise = COMMON_NOISE * rng.normal(size=own_places.shape)
    telling[..., SENTIMENT_AXIS] = COMPLEMENTARY_GAIN * own[:, None] + noise
    telling[..., MARKER_AXIS] += MARKER_SHIFT
    latent[rows, own_places] = telling
    roles[rows, own_places] = ROLE_COMPLEMENTARY
    return latent, roles


def _observe(rng: Generator, world: _World, modality: Modality, latent: _Floats) -> NDArray[Any]:
    """Return features ``[size, steps, d_m]``, from a few clips at a time: they fit the cache."""
    mixing, scale, offset = (parts[modality] for parts in world)
    features = np.empty((*latent.shape[:2], mixing.shape[1]), dtype=np.float32)
    for start in range(0, len(latent), _SLICE):
        observed = np.tanh(latent[start : start + _SLICE] @ mixing)
        observed *= OBSERVATION_GAIN
        noise = rng.standard_normal(observed.shape)
        observed += np.multiply(noise, OBSERVATION_NOISE, out=noise)
        observed *= scale
        observed += offset
        features[start : start + _SLICE] = observed
    return features


def _label(score: float, kind: TaskKind) -> Label:
    if kind == "regression":
        return score
    if kind == "classes":
        return int(np.digitize(score, _CLASS_EDGES))
    emotions = [abs(score) <= 0.5, score > 0.5, -1.25 < score < -0.5, score <= -1.25]
    return tuple(int(holds) for holds in emotions)
