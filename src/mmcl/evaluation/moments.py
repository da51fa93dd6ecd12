"""Prediction of each clip, its certainty, and the moments it came from.

A share is a difference of two predictions: that of the complete clip, less that of the same
clip with one modality, or one word, masked. Shares of modalities need not add up to the
prediction, since modalities that agree can stand in for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mmcl.corpus.batches import batch_rows
from mmcl.corpus.schema import Task
from mmcl.corpus.store import Split
from mmcl.evaluation.protocol import answers
from mmcl.learning.inference import score_split
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = [
    "Encode",
    "Moments",
    "as_probability",
    "in_words",
    "measured_steps",
    "moments_of",
    "spread_over_seeds",
    "without_modality",
]

MASKED_AT_ONCE = 64
"""Copies of one clip, each with another word masked, that go through a network together."""

_Scores = NDArray[np.float64]
Encode = Callable[[Sequence[Sequence[str]]], Sequence[NDArray[np.float32]]]
"""Makes a vector per word of every sentence, ``[n_words, d]`` each."""

_ByModality = dict[Modality, NDArray[np.float32]]


class Moments(NamedTuple):
    """Prediction of one clip, its certainty and its sources.

    Attributes:
        id: Of the clip.
        prediction: A score, the name of a class, or the names of the emotions held.
        spread: S.d. over seeds of the score, or of the predicted class's probability; None
            for a single seed.
        probability: Of what is predicted, a mean over emotions; None for a score.
        probabilities: By name of a class or emotion; empty for a score.
        share: By modality the networks use, how far it moved the score, or the
            probability of what is predicted; signed, and 0 where it is absent.
        present: Those of them the clip has.
        commonality: By modality of the clip, float32 ``[n]`` in 0..1, mean over seeds.
        action: Weight of the specific part of a step, 0 where it is dropped, ``[n]``, mean
            over seeds.
        keep_probability: Probability from which the actions were decided, ``[n]``.
        found: Whether a step was measured, bool ``[n]``.
        word_share: As ``share``, of each step of text, ``[n]``.
    """

    id: str
    prediction: float | str | list[str]
    spread: float | None
    probability: float | None
    probabilities: dict[str, float]
    share: dict[Modality, float]
    present: tuple[Modality, ...]
    commonality: _ByModality
    action: _ByModality
    keep_probability: _ByModality
    found: dict[Modality, NDArray[np.bool_]]
    word_share: NDArray[np.float64]


def moments_of(
    models: Sequence[Network],
    split: Split,
    *,
    batch_size: int = 256,
    encode: Encode | None = None,
) -> list[Moments]:
    """Predict every clip, complete and with parts masked, with the networks of one run.

    Labels are not looked at.

    Args:
        models: Networks of the seeds.
        split: Clips to predict.
        batch_size: Changes nothing but the speed.
        encode: Makes vectors of the words of sentences, as those of the clips were made. With it
            a word is masked as if it had not been said: the vectors of the others no longer
            know of it. Without it only the word's own vector is masked.
    """
    if not len(split):
        return []
    task, used = models[0].task, models[0].modalities
    scored = [score_split(model, split, batch_size=batch_size) for model in models]
    # Logits of different seeds have different scales: probabilities can be averaged.
    scores = np.stack([as_probability(task, seed.scores) for seed in scored])
    mean = scores.mean(axis=0)
    chosen = _chosen(task, mean)
    explained = _explained_value(task, mean, chosen)
    shares = _modality_shares(models, split, explained, chosen, batch_size)
    spreads = spread_over_seeds(task, scores, mean)
    predictions = in_words(task, answers(task, mean))
    moments = []
    for row, identifier in enumerate(split.ids):
        measured = {m: measured_steps(split, m, row) for m in split.modalities}
        # A modality whose steps are all missing is absent from the clip.
        measured = {m: steps for m, steps in measured.items() if steps.any()}
        lengths = {m: len(measured[m]) for m in used if m in measured}
        moments.append(
            Moments(
                id=identifier,
                prediction=predictions[row],
                spread=spreads[row],
                probability=None if task.kind == "regression" else float(explained[row]),
                probabilities=_by_name(task, mean[row]),
                share={m: float(s[row]) if m in measured else 0.0 for m, s in shares.items()},
                present=tuple(m for m in shares if m in measured),
                commonality=_seed_mean([s.commonality[row] for s in scored], used, lengths),
                action=_seed_mean([s.actions[row] for s in scored], used, lengths),
                keep_probability=_seed_mean(
                    [s.keep_probability[row] for s in scored], used, lengths
                ),
                found=measured,
                word_share=_word_share(models, split, row, explained, chosen, encode),
            )
        )
    return moments


def as_probability(task: Task, scores: _Scores) -> _Scores:
    """Turn logits into probabilities, so that seeds can be averaged; keep regression scores."""
    if task.kind == "regression":
        return scores
    odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probability: _Scores = odds / odds.sum(axis=-1, keepdims=True)
    return probability


def in_words(task: Task, chosen: list[Any]) -> list[Any]:
    """Name the predicted class, or the emotions held, of every clip; keep regression scores."""
    if task.kind == "regression":
        return chosen
    if task.kind == "classes":
        return [task.names[index] for index in chosen]
    return [[n for n, held in zip(task.names, clip, strict=True) if held] for clip in chosen]


def spread_over_seeds(task: Task, scores: _Scores, mean: _Scores) -> list[float | None]:
    """Return the s.d. over seeds of each clip's score, or of its predicted class's probability.

    Scores or probabilities are ``[seeds, clips, ...]``, their mean over seeds ``[clips, ...]``.
    A single seed has no spread: None for each clip.
    """
    if len(scores) < 2:
        return [None] * len(mean)
    spread = _explained_value(task, scores.std(axis=0, ddof=1), _chosen(task, mean))
    return list(spread.tolist())


def without_modality(split: Split, modality: Modality) -> Split:
    """Return the same clips, none of which has the modality."""
    name = f"features_{modality}"
    field = split.table.schema.field(name)
    index = split.table.column_names.index(name)
    table = split.table.set_column(index, field, pa.nulls(len(split), field.type))
    return Split(split.name, split.card, table, split.mapped)


def measured_steps(split: Split, modality: Modality, row: int) -> NDArray[np.bool_]:
    """Say which steps of a clip were measured, bool ``[n]``; a missing one is zeros."""
    steps = split.steps(modality, row)
    if split.card.missing_as_zero:
        return np.asarray(np.any(steps != 0, axis=1))
    return np.ones(len(steps), dtype=np.bool_)


def _chosen(task: Task, mean: _Scores) -> NDArray[np.int64]:
    """Class predicted, or 0 or 1 per emotion, ``[clips, ...]``; empty for a score."""
    return np.asarray(mean.argmax(axis=-1) if task.kind != "regression" else [], dtype=np.int64)


def _explained_value(task: Task, scores: _Scores, chosen: NDArray[np.int64]) -> _Scores:
    """Number per clip that masking can move: its score, or the probability of ``chosen``."""
    if task.kind == "regression":
        return scores
    probability = np.take_along_axis(scores, chosen[..., None], axis=-1)[..., 0]
    per_clip: _Scores = probability.reshape(len(scores), -1).mean(axis=1)  # over emotions
    return per_clip


def _by_name(task: Task, mean: _Scores) -> dict[str, float]:
    """Probability of every class, or of holding every emotion; empty for a score."""
    if task.kind == "regression":
        return {}
    held = mean if task.kind == "classes" else mean[:, 1]
    return dict(zip(task.names, held.tolist(), strict=True))


def _seed_mean(
    seeds: list[NDArray[np.float32]], used: Sequence[Modality], lengths: dict[Modality, int]
) -> _ByModality:
    """Mean over seeds of a clip's ``[m, n]``, cut to the clip's own steps."""
    mean = np.mean(seeds, axis=0)
    return {m: mean[used.index(m), :length] for m, length in lengths.items()}


def _modality_shares(
    models: Sequence[Network],
    split: Split,
    explained: _Scores,
    chosen: NDArray[np.int64],
    batch_size: int,
) -> dict[Modality, _Scores]:
    """Distance by which each modality moved each clip's prediction, by modality ``[clips]``."""
    task = models[0].task
    used = [m for m in models[0].modalities if m not in models[0].never_seen]
    shares = {m: np.zeros(len(split)) for m in used}
    for modality in [m for m in used if m in split.card.dims]:
        left = without_modality(split, modality)
        scored = [score_split(m, left, batch_size=batch_size, per_step=False) for m in models]
        mean = np.mean([as_probability(task, seed.scores) for seed in scored], axis=0)
        shares[modality] = explained - _explained_value(task, mean, chosen)
    return shares


def _word_share(
    models: Sequence[Network],
    split: Split,
    row: int,
    explained: _Scores,
    chosen: NDArray[np.int64],
    encode: Encode | None,
) -> _Scores:
    """Distance by which each step of text moved a clip's prediction, ``[n]``."""
    count = int(split.lengths("text")[row])
    if "text" not in models[0].modalities or not count:
        return np.zeros(0)
    task = models[0].task
    others = None if encode is None else _vectors_without_words(split, row, count, encode)
    scores = [_scores_without_words(model, split, row, count, others) for model in models]
    mean = np.mean([as_probability(task, seed) for seed in scores], axis=0)
    own = np.repeat(chosen[row : row + 1], count, axis=0)
    return np.asarray(explained[row] - _explained_value(task, mean, own))


def _vectors_without_words(
    split: Split, row: int, count: int, encode: Encode
) -> NDArray[np.float32] | None:
    """Vectors of a clip's text without each word in turn, ``[n, n, d]``, zeros for that word.

    None if the clip does not say which word is which step.
    """
    words = [word["text"] for word in split.table.column("words")[row].as_py() or ()]
    if len(words) != count:
        return None
    left = [[w for at, w in enumerate(words) if at != out] for out in range(count)]
    vectors = np.zeros((count, count, split.card.dims["text"]), dtype=np.float32)
    for out, steps in enumerate(encode(left)):
        vectors[out, np.arange(count) != out] = steps
    return vectors


def _scores_without_words(
    model: Network, split: Split, row: int, count: int, others: NDArray[np.float32] | None
) -> _Scores:
    """Scores of a clip with each step of text masked in turn, ``[n, ...]``.

    ``others`` are the vectors of the remaining words, if they change: ``[n, n, d]``.
    """
    scores = []
    with model.evaluating():
        for words in batch_rows(np.arange(count), MASKED_AT_ONCE):
            copies = model.collate(split, [row] * len(words))
            if others is not None:
                text = torch.from_numpy(others[words]).to(copies.features["text"])
                copies = copies._replace(features={**copies.features, "text": text})
            missing = torch.from_numpy(words[:, None] == np.arange(count))  # one word per copy
            batch = model.take_away(copies, {"text": missing})
            scores.append(model(batch.features, batch.masks).scores.double().cpu().numpy())
    return np.concatenate(scores)
