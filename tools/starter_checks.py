"""Measure the starter on clips that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from starter_clips import HIGH, LOW, SPLITS, Faces, Sentence

import mmcl
from mmcl.corpus.schema import Clip, Task, Word
from mmcl.corpus.store import pack_corpus
from mmcl.evaluation.metrics import regression_metrics
from mmcl.media.extract import card_of
from mmcl.media.face import FACE_COLUMNS
from mmcl.media.recipe import Recipe
from mmcl.media.text import TextEncoder
from mmcl.media.weights import text_model
from mmcl.runs.run import Run
from mmcl.runs.starter import load_starter

SIDES = Path(__file__).with_name("starter_sentences.tsv")
NEUTRAL = 0.5  # a sentence whose score is nearer to 0 takes no side
PENALTIES = np.logspace(-1, 4, 11)

_Doubles = NDArray[np.float64]
Vectors = dict[str, tuple[tuple[Word, ...], NDArray[np.float32]]]


def encode(texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """Return a vector per word of every text, by the starter's encoder."""
    encoder = TextEncoder(text_model("starter")[0], threads=2)
    return encoder.encode([text.split() for text in texts])


def score(run: Run, clips: Iterable[dict[str, NDArray[Any]]]) -> _Doubles:
    """Predict clips of text and vision steps; either may be left out."""
    made = [
        Clip(id=str(number), split="test", features=features)
        for number, features in enumerate(clips)
    ]
    card = card_of(
        Recipe(text_model="starter", language="en"),
        {"text": 384, "vision": len(FACE_COLUMNS)},
        task=Task(kind="regression", low=LOW, high=HIGH),
        counts={"test": len(made)},
        name="check",
    )
    table = run.predict(pack_corpus(card, made))
    return np.array(table["prediction"].to_pylist(), dtype=np.float64)


def check_sentences(sentences: Sequence[Sentence], vectors: Vectors) -> dict[str, Any]:
    """Measure words alone on sentences of documents that were held out, beside ridge."""
    parts = {split: [each for each in sentences if each.split == split] for split in SPLITS}
    truth = {split: np.array([each.score for each in part]) for split, part in parts.items()}
    held = [{"text": vectors[each.id][1]} for each in parts["test"]]
    rows = {"starter": _metrics(score(load_starter(), held), truth["test"])}
    means = {split: _means([vectors[s.id][1] for s in parts[split]]) for split in ("train", "test")}
    ridge = RidgeCV(PENALTIES).fit(means["train"], truth["train"])
    rows["ridge"] = _metrics(ridge.predict(means["test"]), truth["test"])
    return rows


def check_reviews(run: Run, table: Path) -> dict[str, Any]:
    """Measure every seed, and all together, on spoken reviews; none is ever learnt from."""
    reviews = mmcl.load_corpus(table)
    clips = [clip for split in ("train", "valid") for clip in reviews.split(split).clips()]
    vectors = encode([clip.text or "" for clip in clips])
    truth = np.array([clip.label for clip in clips], dtype=np.float64)
    rows: dict[str, Any] = {}
    for seed in run.seeds:
        one = Run(run.folder, {**run.description, "seeds": [seed]})
        rows[f"seed {seed}"] = _metrics(score(one, [{"text": v} for v in vectors]), truth)
    rows["all seeds"] = _metrics(score(run, [{"text": v} for v in vectors]), truth)
    return {"clips": len(clips), "rows": rows}


def check_faces(sentences: Sequence[Sentence], vectors: Vectors, faces: Faces) -> dict[str, float]:
    """Measure what faces of people who were held out do to the scores of held-out sentences."""
    random, run = np.random.default_rng(7), load_starter()
    held = [each for each in sentences if each.split == "test" and vectors[each.id][0]]

    def scores(kind: str | None, words: Sequence[Sentence]) -> _Doubles:
        clips = []
        for each in words:
            text = vectors[each.id][1]
            clips.append({"text": text})
            if kind is not None:
                clips[-1]["vision"] = faces.steps("test", kind, len(text), random)
        return score(run, clips)

    def alone(kind: str) -> _Doubles:
        counts = random.integers(1, 10, 400)
        return score(run, [{"vision": faces.steps("test", kind, int(n), random)} for n in counts])

    plain = scores(None, held)
    flat = [each for each, value in zip(held, plain, strict=True) if abs(value) < NEUTRAL]
    smiles = scores("happiness", flat) - scores(None, flat)
    return {
        "change by a neutral face, mean of absolute values": float(
            np.abs(scores("neutral", held) - plain).mean()
        ),
        "change by a neutral face, mean": float((scores("neutral", held) - plain).mean()),
        "change of a neutral sentence by a smile, mean": float(smiles.mean()),
        "neutral face alone, mean": float(alone("neutral").mean()),
        "neutral face alone, mean of absolute values": float(np.abs(alone("neutral")).mean()),
        "smile alone, mean": float(alone("happiness").mean()),
        "negative face alone, mean": float(alone("negative").mean()),
    }


def hand_written() -> dict[str, Any]:
    """Count the sentences of ``starter_sentences.tsv`` that come out on the right side."""
    rows = [line.split("\t") for line in SIDES.read_text("utf-8").splitlines()]
    values = score(load_starter(), [{"text": steps} for steps in encode([t for _, t in rows])])
    wrong = [
        f"{text} ({side}): {value:+.2f}"
        for (side, text), value in zip(rows, values, strict=True)
        if not is_right(side, value)
    ]
    return {"count": len(rows), "right": len(rows) - len(wrong), "wrong": wrong}


def is_right(side: str, value: float) -> bool:
    """Tell whether a score is on a side; a neutral one is nearer to 0 than to 1."""
    if side == "neutral":
        return abs(value) < NEUTRAL
    return (value > 0) == (side == "positive")


def _means(vectors: Sequence[NDArray[np.float32]]) -> _Doubles:
    width = next(v.shape[1] for v in vectors if len(v))
    return np.array([v.mean(axis=0) if len(v) else np.zeros(width) for v in vectors])


def _metrics(predicted: _Doubles, truth: _Doubles) -> dict[str, float]:
    values = regression_metrics(truth, predicted).values
    return {key: float(values[key]) for key in ("mae", "corr", "acc2_non0", "acc7")}
