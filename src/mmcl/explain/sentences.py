"""Sentences on a prediction and what drove it, readable without a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.score_range import neutral_score
from mmcl.evaluation.moments import Moments
from mmcl.types import Modality

__all__ = [
    "NAMES",
    "brief",
    "certainty",
    "decimals_of",
    "direction",
    "ends",
    "hardly",
    "headline",
    "label",
    "level",
    "rating",
    "score_text",
    "sentence",
    "shared",
    "signed",
    "strong_words",
    "tint",
    "words_of",
]

NAMES: dict[Modality, str] = {"text": "text", "audio": "voice", "vision": "face"}
"""Names of the modalities in sentences for readers."""
_SUBJECTS: dict[Modality, str] = {"text": "text", "audio": "the voice", "vision": "the face"}
_ABSENT: dict[Modality, str] = {
    "text": "no words were found",
    "audio": "no voice was found",
    "vision": "no face was found",
}
# Shares of half the range at which the word changes: for -3..3 they are 0.5, 1.5 and 2.5.
_DEGREES = ((1 / 6, ""), (1 / 2, "rather "), (5 / 6, ""), (float("inf"), "very "))
# Shares of the whole range: for -3..3 a change below 0.1 is no change, and below 0.3 little.
_HARDLY, _LITTLE = 1 / 60, 1 / 20
# Ranges with scores of whole numbers, and ranges with one decimal and no more: 0..100, 0..20.
_WHOLE, _ONE_DECIMAL = 60.0, 20.0


def signed(value: float, decimals: int = 1) -> str:
    """Return a number with its sign, and without one where it rounds to 0.

    Example:
        >>> signed(1.26), signed(-0.04), signed(-2.0)
        ('+1.3', '0.0', '−2.0')
    """
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def decimals_of(task: Task) -> int:
    """Return the decimals with which scores of a task are shown: about a sixtieth of the range.

    Example:
        >>> [decimals_of(Task(kind="regression", low=0, high=high)) for high in (100, 5, 1)]
        [0, 1, 2]
    """
    span = _span(task)
    return 0 if span >= _WHOLE else max(1, math.ceil(-math.log10(span / _ONE_DECIMAL)))


def score_text(task: Task, score: float) -> str:
    """Return a score as text: with its sign where a score may be negative, as ``4.2`` elsewhere."""
    low, _ = ends(task)
    return signed(score, decimals_of(task)) if low < 0 else f"{score:.{decimals_of(task)}f}"


def rating(task: Task, score: float) -> str:
    """Return a score in words: neutral, rather positive, positive, very negative, ...

    Neutral is 0 where it lies inside the task's range, and the middle of the range elsewhere.
    """
    low, high = ends(task)
    centre = neutral_score(low, high)
    strength = (score - centre) / (high - centre if score > centre else centre - low)
    bound, degree = next(row for row in _DEGREES if abs(strength) < row[0])
    if bound == _DEGREES[0][0]:
        return "neutral"
    return f"{degree}{'positive' if strength > 0 else 'negative'}"


def tint(task: Task, prediction: float | str | list[str]) -> str:
    """Return the kind of colour of a prediction: ``positive``, ``negative`` or ``neutral``."""
    if not isinstance(prediction, float):
        return "neutral"
    return rating(task, prediction).rpartition(" ")[2]


def label(task: Task, moments: Moments) -> str:
    """Return a prediction in a few words: ``+1.3 rather positive``, or ``happy 71%``."""
    if isinstance(moments.prediction, float):
        return f"{score_text(task, moments.prediction)} {rating(task, moments.prediction)}"
    return f"{_class_names(moments)} {moments.probability:.0%}"


def certainty(task: Task, moments: Moments, error: float | None) -> str:
    """Return how certain a prediction is, given the run's mean absolute error on validation."""
    parts = []
    if moments.probability is not None:
        parts.append(f"probability {moments.probability:.0%}")
    elif error is not None:
        parts.append(f"± {error:.{decimals_of(task)}f} on validation")
    if moments.spread is not None:
        decimals = 2 if moments.probability is not None else decimals_of(task)
        parts.append(f"± {moments.spread:.{decimals}f} between seeds")
    return ", ".join(parts)


def headline(task: Task, moments: Sequence[Moments]) -> str:
    """Return one sentence on a whole recording."""
    count = f"{len(moments)} utterance{'s' * (len(moments) != 1)}"
    scores = [m.prediction for m in moments if isinstance(m.prediction, float)]
    if scores:
        mean = sum(scores) / len(scores)
        words = f"{rating(task, mean)} ({score_text(task, mean)} of {_range(task)})"
        if len(scores) == 1:
            return f"{count}: {words}."
        extremes = f"from {score_text(task, min(scores))} to {score_text(task, max(scores))}"
        return f"{count}: on average {words}, {extremes}."
    names = [_class_names(m) for m in moments]
    often = sorted(set(names), key=lambda name: (-names.count(name), name))
    return f"{count}: {', '.join(f'{names.count(name)} × {name}' for name in often)}."


def sentence(task: Task, clip: Clip, moments: Moments) -> str:
    """Return sentences on the prediction of a clip and what drove it."""
    if isinstance(moments.prediction, float):
        score = moments.prediction
        head = f"{rating(task, score)} ({score_text(task, score)} of {_range(task)})"
    else:
        head = f"{_class_names(moments)} ({moments.probability:.0%})"
    parts = (head, "; ".join(_clauses(task, clip, moments)))
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts)


def brief(task: Task, clip: Clip, moments: Moments) -> str:
    """Return what drove a prediction: ``text +0.9 (wonderful), voice −0.2, no face``."""
    parts = []
    for modality in _strongest_first(moments):
        share = moments.share[modality]
        if abs(share) >= hardly(task):
            words = strong_words(task, clip, moments, toward=share) if modality == "text" else []
            strongest = f" ({words[0]})" if words else ""
            parts.append(f"{NAMES[modality]} {shared(task, share)}{strongest}")
    absent = [f"no {NAMES[m]}" for m in moments.share if m not in moments.present]
    return ", ".join([*(parts or ["none alone"]), *absent])


def shared(task: Task, share: float) -> str:
    """Return a share as text: on the scale of the scores, or in points of probability."""
    if task.kind == "regression":
        return signed(share, decimals_of(task))
    return signed(100 * share, 0)


def direction(task: Task, share: float) -> str:
    """Return the kind of colour of a share; ``neutral`` where :func:`shared` shows 0."""
    return {"+": "positive", "−": "negative"}.get(shared(task, share)[0], "neutral")


def level(moments: Moments) -> float:
    """Return the height at which a prediction is drawn: its score, or its probability."""
    if isinstance(moments.prediction, float):
        return moments.prediction
    return moments.probability or 0.0


def ends(task: Task) -> tuple[float, float]:
    """Return the range of :func:`level`."""
    return (0.0, 1.0) if task.low is None or task.high is None else (task.low, task.high)


def hardly(task: Task) -> float:
    """Return the smallest change that is mentioned."""
    return _HARDLY * _span(task)


def words_of(clip: Clip, moments: Moments) -> list[str]:
    """Return the words of a clip, or none where they are not the steps of its text."""
    words = [word.text for word in clip.words or ()] or (clip.text or "").split()
    return words if len(words) == len(moments.word_share) else []


def strong_words(
    task: Task, clip: Clip, moments: Moments, *, toward: float | None = None
) -> list[str]:
    """Return the words that moved a prediction, strongest first.

    With ``toward`` only those that moved it in the direction of this number's sign.
    """
    pairs = zip(words_of(clip, moments), moments.word_share.tolist(), strict=False)
    moved = [
        (word, share)
        for word, share in pairs
        if abs(share) >= hardly(task) and (toward is None or share * toward > 0)
    ]
    return [word for word, _ in sorted(moved, key=lambda pair: -abs(pair[1]))]


def _clauses(task: Task, clip: Clip, moments: Moments) -> list[str]:
    """Return a clause on each modality, strongest first."""
    ranked = _strongest_first(moments)
    absent = [_ABSENT[m] for m in moments.share if m not in moments.present]
    moving = [m for m in ranked if abs(moments.share[m]) >= hardly(task)]
    if len(ranked) > 1 and not moving:
        return ["no modality alone changed it much", *absent]
    clauses = []
    for place, modality in enumerate(moving):
        share = moments.share[modality]
        clause = _clause(task, modality, share, most=place == 0 and len(ranked) > 1)
        words = strong_words(task, clip, moments, toward=share)
        if modality == "text" and place == 0 and words:
            clause += f", above all by “{words[0]}”"
        clauses.append(clause)
    # Modalities that are present and moved nothing.
    still = [_SUBJECTS[m] for m in ranked if m not in moving]
    clauses += [f"{' and '.join(still)} hardly changed it"] if still else []
    return clauses + absent


def _clause(task: Task, modality: Modality, share: float, *, most: bool) -> str:
    is_score = task.kind == "regression"
    up, down = ("raised it", "lowered it") if is_score else ("spoke for it", "spoke against it")
    clause = f"{_SUBJECTS[modality]} {up if share > 0 else down}"
    if abs(share) / _span(task) < _LITTLE and not most:
        return f"{clause} a little"
    return f"{clause}{' most' * most} ({shared(task, share)}{'' if is_score else ' points'})"


def _strongest_first(moments: Moments) -> list[Modality]:
    return sorted(moments.present, key=lambda m: -abs(moments.share[m]))


def _class_names(moments: Moments) -> str:
    if isinstance(moments.prediction, list):
        return " and ".join(moments.prediction) or "no emotion"
    return str(moments.prediction)


def _span(task: Task) -> float:
    low, high = ends(task)
    return high - low


def _range(task: Task) -> str:
    return "…".join(f"{end:g}".replace("-", "−") for end in ends(task))
