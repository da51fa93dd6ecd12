"""What a prediction is and what drove it, in words a reader needs no legend for."""

from __future__ import annotations

from collections.abc import Sequence

from mmcl.corpus.schema import Clip, Task
from mmcl.evaluation.moments import Moments
from mmcl.types import Modality

__all__ = [
    "NAMES",
    "brief",
    "certainty",
    "ends",
    "hardly",
    "headline",
    "label",
    "level",
    "rating",
    "sentence",
    "shared",
    "signed",
    "strong_words",
    "tint",
    "words_of",
]

NAMES: dict[Modality, str] = {"text": "text", "audio": "voice", "vision": "face"}
_SUBJECTS: dict[Modality, str] = {"text": "text", "audio": "the voice", "vision": "the face"}
_ABSENT: dict[Modality, str] = {
    "text": "no words were found",
    "audio": "no voice was found",
    "vision": "no face was found",
}
# Bounds as shares of half the range: for -3..3 they lie at 0.5, 1.5 and 2.5.
_DEGREES = ((1 / 6, ""), (1 / 2, "rather "), (5 / 6, ""), (float("inf"), "very "))
# A change is one as shares of the whole range: for -3..3 from 0.1 on, little below 0.3.
_HARDLY, _LITTLE = 1 / 60, 1 / 20


def signed(value: float, decimals: int = 1) -> str:
    """A number with its sign, and none where it rounds to 0.

    Example:
        >>> signed(1.26), signed(-0.04), signed(-2.0)
        ('+1.3', '0.0', '−2.0')
    """
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def rating(task: Task, score: float) -> str:
    """How positive a score is: neutral, rather positive, positive, very negative, ...

    Args:
        task: Its range; 0 is neutral where it lies inside, and else the middle.
        score: The score.
    """
    strength = _strength(task, score)
    bound, degree = next(each for each in _DEGREES if abs(strength) < each[0])
    if bound == _DEGREES[0][0]:
        return "neutral"
    return f"{degree}{'positive' if strength > 0 else 'negative'}"


def tint(task: Task, prediction: float | str | list[str]) -> str:
    """``positive``, ``negative`` or ``neutral``: which colour a prediction is shown in."""
    if not isinstance(prediction, float):
        return "neutral"
    return rating(task, prediction).rpartition(" ")[2]


def label(task: Task, moments: Moments) -> str:
    """A prediction in a few characters: ``+1.3 rather positive``, or ``happy 71%``."""
    if isinstance(moments.prediction, float):
        return f"{signed(moments.prediction)} {rating(task, moments.prediction)}"
    return f"{_named(moments)} {moments.probability:.0%}"


def certainty(moments: Moments, error: float | None) -> str:
    """How sure a prediction is, in a few words; empty where nothing is known.

    Args:
        moments: Of the clip.
        error: Mean absolute error of the run on validation.
    """
    parts = []
    if moments.probability is not None:
        parts.append(f"probability {moments.probability:.0%}")
    elif error is not None:
        parts.append(f"± {error:.1f} on validation")
    if moments.spread is not None:
        digits = 2 if moments.probability is not None else 1
        parts.append(f"± {moments.spread:.{digits}f} between seeds")
    return ", ".join(parts)


def headline(task: Task, moments: Sequence[Moments]) -> str:
    """A whole file in one sentence."""
    count = f"{len(moments)} utterance{'s' * (len(moments) != 1)}"
    scores = [m.prediction for m in moments if isinstance(m.prediction, float)]
    if scores:
        mean = sum(scores) / len(scores)
        if len(scores) == 1:
            return f"{count}: {rating(task, mean)} ({signed(mean)} of {_range(task)})."
        return (
            f"{count}: on average {rating(task, mean)} ({signed(mean)} of {_range(task)}), "
            f"from {signed(min(scores))} to {signed(max(scores))}."
        )
    names = [_named(m) for m in moments]
    often = sorted(set(names), key=lambda name: (-names.count(name), name))
    return f"{count}: {', '.join(f'{names.count(name)} × {name}' for name in often)}."


def sentence(task: Task, clip: Clip, moments: Moments) -> str:
    """What was predicted and what drove it.

    Args:
        task: What is predicted.
        clip: Whose words are named.
        moments: Of the same clip.
    """
    if isinstance(moments.prediction, float):
        score = moments.prediction
        head = f"{rating(task, score)} ({signed(score)} of {_range(task)})"
    else:
        head = f"{_named(moments)} ({moments.probability:.0%})"
    return f"{_capital(head)}. {_capital('; '.join(_clauses(task, clip, moments)))}."


def brief(task: Task, clip: Clip, moments: Moments) -> str:
    """What drove a prediction, short: ``text +0.9 (wonderful), voice −0.2, no face``."""
    moved = [m for m in _ranked(moments) if abs(moments.share[m]) >= hardly(task)]
    parts = [] if moved else ["none alone"]
    for modality in moved:
        share = moments.share[modality]
        part = f"{NAMES[modality]} {shared(task, share)}"
        words = strong_words(task, clip, moments, toward=share)[:1] if modality == "text" else []
        parts.append(part + "".join(f" ({word})" for word in words))
    parts += [f"no {NAMES[m]}" for m in moments.share if m not in moments.present]
    return ", ".join(parts)


def shared(task: Task, share: float) -> str:
    """A share as text: on the scale of the scores, or in points of probability."""
    return signed(share) if task.kind == "regression" else signed(100 * share, 0)


def level(moments: Moments) -> float:
    """How high a prediction is drawn: its score, or its probability."""
    if isinstance(moments.prediction, float):
        return moments.prediction
    return moments.probability or 0.0


def hardly(task: Task) -> float:
    """The least change worth a word."""
    return _HARDLY * _span(task)


def words_of(clip: Clip, moments: Moments) -> list[str]:
    """The words, where there is one for each step of text; else none."""
    words = [word.text for word in clip.words or ()] or (clip.text or "").split()
    return words if len(words) == len(moments.word_share) else []


def strong_words(
    task: Task, clip: Clip, moments: Moments, *, toward: float | None = None
) -> list[str]:
    """The words that moved a prediction, strongest first.

    Args:
        task: Its range says from where on a change counts.
        clip: Their clip.
        moments: Of the same clip.
        toward: Only words that moved it in the direction of this number's sign.
    """
    pairs = zip(words_of(clip, moments), moments.word_share.tolist(), strict=False)
    moved = [(word, share) for word, share in pairs if abs(share) >= hardly(task)]
    if toward is not None:
        moved = [(word, share) for word, share in moved if share * toward > 0]
    return [word for word, _ in sorted(moved, key=lambda each: -abs(each[1]))]


def _clauses(task: Task, clip: Clip, moments: Moments) -> list[str]:
    ranked = _ranked(moments)
    absent = [_ABSENT[m] for m in moments.share if m not in moments.present]
    if len(ranked) > 1 and abs(moments.share[ranked[0]]) < hardly(task):
        return ["no modality alone changed it much", *absent]
    clauses = []
    for at, modality in enumerate(m for m in ranked if abs(moments.share[m]) >= hardly(task)):
        most = at == 0 and len(ranked) > 1
        clause = _clause(task, modality, moments.share[modality], most=most)
        words = strong_words(task, clip, moments, toward=moments.share[modality])
        if modality == "text" and at == 0 and words:
            clause += f", above all by “{words[0]}”"
        clauses.append(clause)
    still = [_SUBJECTS[m] for m in ranked[len(clauses) :]]
    clauses += [f"{' and '.join(still)} hardly changed it"] if still else []
    return clauses + absent


def _clause(task: Task, modality: Modality, share: float, *, most: bool) -> str:
    subject, size = _SUBJECTS[modality], abs(share) / _span(task)
    up, down = ("raised it", "lowered it")
    if task.kind != "regression":
        up, down = ("spoke for it", "spoke against it")
    verb = up if share > 0 else down
    if size < _LITTLE and not most:
        return f"{subject} {verb} a little"
    points = "" if task.kind == "regression" else " points"
    return f"{subject} {verb}{' most' * most} ({shared(task, share)}{points})"


def _ranked(moments: Moments) -> list[Modality]:
    return sorted(moments.present, key=lambda m: -abs(moments.share[m]))


def _named(moments: Moments) -> str:
    if isinstance(moments.prediction, list):
        return " and ".join(moments.prediction) or "no emotion"
    return str(moments.prediction)


def _strength(task: Task, score: float) -> float:
    low, high = ends(task)
    centre = 0.0 if low < 0 < high else (low + high) / 2
    return (score - centre) / (high - centre if score > centre else centre - low)


def ends(task: Task) -> tuple[float, float]:
    """The range that :func:`level` lies in."""
    return (0.0, 1.0) if task.low is None or task.high is None else (task.low, task.high)


def _span(task: Task) -> float:
    low, high = ends(task)
    return high - low


def _range(task: Task) -> str:
    return "…".join(f"{end:g}".replace("-", "−") for end in ends(task))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
