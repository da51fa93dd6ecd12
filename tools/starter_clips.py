"""Clips that the starter learns from: rated sentences, photographed faces, and pairs of the two."""

from __future__ import annotations

import csv
import hashlib
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmcl.corpus.schema import Clip, Word
from mmcl.media.face import BLENDSHAPES, FACE_COLUMNS
from mmcl.types import Modality, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
LOW, HIGH = -3.0, 3.0  # range of the scores; the sentences are rated -4..4
SMILE = 1.0  # score of a smile alone; the closer words are to an end, the less it adds
GRIEF = -0.15  # of a negative face alone, which photographs hardly tell from a neutral one
NEGATIVE = ("anger", "sadness", "disgust", "fear", "contempt")
FACES_ALONE = {"train": 4000, "valid": 400, "test": 400}  # clips without words
LONGEST = 12  # steps of such a clip

# Columns that move when somebody speaks, whatever they feel, and the most they move by.
SPEECH = {
    "jawOpen": 0.6,
    "mouthFunnel": 0.2,
    "mouthPucker": 0.8,
    "mouthClose": 0.15,
    "mouthLowerDownLeft": 0.4,
    "mouthLowerDownRight": 0.4,
    "mouthUpperUpLeft": 0.3,
    "mouthUpperUpRight": 0.3,
    "mouthRollLower": 0.15,
    "mouthRollUpper": 0.4,
    "mouthShrugLower": 0.3,
    "mouthShrugUpper": 0.2,
    "mouthPressLeft": 0.25,
    "mouthPressRight": 0.25,
    "mouthStretchLeft": 0.15,
    "mouthStretchRight": 0.15,
}
# What a photograph does not tell, and a sentiment does not change: mean and s.d. in recordings.
POSE = {
    "pitch": (0.0, 0.15),
    "yaw": (0.0, 0.15),
    "roll": (0.0, 0.1),
    "x": (0.0, 5.0),
    "y": (-2.0, 5.0),
    "z": (-40.0, 12.0),
}
GAZE = (0.0, 0.1)
VELOCITY = (0.0, 0.7)

_Floats = NDArray[np.float32]


class Sentence(NamedTuple):
    """A rated sentence.

    Attributes:
        id: Its name.
        split: That of its document: all sentences of one are in the same split.
        text: What it says.
        score: Mean of its ratings, brought to -3..3.
    """

    id: str
    split: SplitName
    text: str
    score: float


def read_sentences(folder: Path) -> list[Sentence]:
    """Read VADER's ground truth; of sentences that occur twice, the first is taken."""
    sentences: dict[str, Sentence] = {}
    for kind in ("tweets", "amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets"):
        lines = (folder / f"{kind}_GroundTruth.txt").read_text("utf-8", errors="replace")
        for line in lines.splitlines():
            if not line.strip():
                continue
            number, rating, text = line.split("\t", 2)
            text = " ".join(html.unescape(text).split())
            document = f"{kind}-{number.split('_')[0]}"
            sentences.setdefault(
                text.lower(),
                Sentence(f"{kind}-{number}", split_of(document), text, float(rating) * 0.75),
            )
    return list(sentences.values())


def split_of(name: str) -> SplitName:
    """Draw a split by name: eight tenths train, one valid, one test."""
    tenth = hashlib.sha256(name.encode()).digest()[0] % 10
    return "train" if tenth < 8 else "valid" if tenth == 8 else "test"


def as_spoken(sentence: Sentence) -> str:
    """Return a sentence as recognisers write it: three in five without marks, in small letters."""
    kind = hashlib.sha256(sentence.id.encode()).digest()[1] % 5
    if kind < 2:
        return sentence.text
    spoken = re.sub(r"[^\w\s']|_", " ", sentence.text.lower())
    if kind == 4:
        spoken = spoken.replace("'", "")
    return " ".join(spoken.split()) or sentence.text


def write_sentences(sentences: Sequence[Sentence], path: Path) -> None:
    """Write a table of text alone, which mmcl reads as a corpus."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label", "split"])
        for each in sentences:
            rows.writerow([each.id, as_spoken(each), f"{each.score:.4f}", each.split])


class Faces:
    """Photographed faces by split and feeling; the people of one split are in no other.

    Args:
        table: 52 blendshapes per photograph, with ``person`` and ``emotion``.
    """

    def __init__(self, table: Path) -> None:
        faces = pd.read_csv(table)
        split = faces["person"].map(lambda person: split_of(f"person {person}"))
        kind = faces["emotion"].replace(dict.fromkeys(NEGATIVE, "negative"))
        kind = kind.replace({"surprise": "neutral"})  # it has no sign of its own
        self._shapes = {
            key: rows[list(BLENDSHAPES)].to_numpy(np.float32)
            for key, rows in faces.groupby([split, kind])
        }

    def steps(
        self, split: SplitName, kind: str, count: int, random: np.random.Generator
    ) -> _Floats:
        """Make the face of a clip: a photograph that speaks, float32 ``[count, 82]``.

        Of a smiling clip, a part of the steps may be neutral.
        """
        shapes = self._shapes[split, kind]
        still = np.repeat(shapes[random.integers(len(shapes))][None], count, axis=0)
        steps = _speaking(still, random)
        if kind == "happiness" and random.random() < 0.5:
            neutral = self.steps(split, "neutral", count, random)
            is_smile = random.random(count) < random.uniform(0.4, 1.0)
            is_smile[random.integers(count)] = True
            steps = np.where(is_smile[:, None], steps, neutral)
        return steps


def _speaking(still: _Floats, random: np.random.Generator) -> _Floats:
    """Add what speech, the head and the eyes do to the blendshapes of a photograph."""
    steps = np.zeros((len(still), len(FACE_COLUMNS)), np.float32)
    steps[:, : still.shape[1]] = still
    speaks = random.random() < 0.8
    for column, name in enumerate(FACE_COLUMNS):
        if name in SPEECH and speaks:
            share = random.beta(1.0, 2.5, len(steps)) * SPEECH[name]
            steps[:, column] = np.clip(np.maximum(steps[:, column] * random.random(), share), 0, 1)
        elif name in POSE:
            mean, spread = POSE[name]
            steps[:, column] = random.normal(mean, spread) + random.normal(
                0, 0.2 * spread, len(steps)
            )
        elif name.startswith("gaze") and not name.endswith("_velocity"):
            steps[:, column] = random.normal(*GAZE, len(steps))
        elif name.endswith("_velocity"):
            steps[:, column] = random.normal(*VELOCITY, len(steps))
    return steps


def with_face(score: float, kind: str) -> float:
    """Return the score of words that are said with such a face; it never changes an end."""
    push = {"happiness": SMILE, "negative": GRIEF, "neutral": 0.0}[kind]
    return score + push * (1 - abs(score) / HIGH)


def make_clips(
    sentences: Sequence[Sentence],
    vectors: dict[str, tuple[tuple[Word, ...], _Floats]],
    faces: Faces,
    *,
    seed: int,
) -> Iterator[Clip]:
    """Yield the clips of every split: words alone, words with a face, faces alone.

    Every sentence occurs twice: alone, and with a face that is neutral (three in five), smiles, or
    is negative (few). So the network learns that a neutral face changes nothing.
    """
    random = np.random.default_rng(seed)
    for split in SPLITS:
        for each in sentences:
            if each.split != split or not vectors[each.id][0]:
                continue
            words, text = vectors[each.id]
            kind = random.choice(["neutral", "happiness", "negative"], p=[0.6, 0.33, 0.07])
            face = faces.steps(split, kind, len(words), random)
            alone: dict[Modality, NDArray[np.floating]] = {"text": text}
            pair = {**alone, "vision": face}
            score = with_face(each.score, kind)
            yield Clip(id=each.id, split=split, features=alone, label=each.score, words=words)
            yield Clip(id=f"{each.id}-face", split=split, features=pair, label=score, words=words)
        for number in range(FACES_ALONE[split]):
            kind = random.choice(["neutral", "happiness", "negative"], p=[0.5, 0.4, 0.1])
            steps = faces.steps(split, kind, int(random.integers(1, LONGEST + 1)), random)
            yield Clip(
                id=f"face-{split}-{number}",
                split=split,
                features={"vision": steps},
                label=with_face(0.0, kind),
            )
