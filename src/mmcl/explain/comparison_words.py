"""The words of a comparison: numbers as text, tests as sentences.

Every sentence follows from a sign and from a p value after Holm's correction. Nothing is
worded by hand for a model or a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mmcl.errors import ConfigError
from mmcl.evaluation.metrics import higher_is_better, metric_name

__all__ = [
    "Answer",
    "Verdict",
    "answer",
    "arrow",
    "headline",
    "number",
    "p_value",
    "probability",
    "signed",
    "verdict",
]

Verdict = Literal["better", "worse", "same", "untested"]
"""A row beside the reference; ``same``: no difference was found."""

_LEAST_P = 0.001


class Answer(NamedTuple):
    """The answer that one row of an ablation gives to its question."""

    verdict: Verdict
    short: str  # the first words: yes, no, or that nothing was found
    sentence: str  # the evidence


def arrow(key: str) -> str:
    """Return an arrow towards better values; nothing for a metric of unknown direction."""
    try:
        return "↑" if higher_is_better(key) else "↓"
    except ConfigError:
        return ""


def number(value: float | None, decimals: int = 3) -> str:
    """Return a number without a leading zero, or a dash.

    Example:
        >>> number(0.0431), number(-1.2), number(-0.0001), number(None)
        ('.043', '−1.200', '.000', '–')
    """
    if value is None:
        return "–"
    text = f"{abs(value):.{decimals}f}"
    is_zero = not text.strip("0.")
    short = text[1:] if decimals and text.startswith("0.") else text
    return short if value >= 0 or is_zero else f"−{short}"


def signed(value: float | None, decimals: int = 3) -> str:
    """Return a number with its sign and without a leading zero, or a dash.

    Example:
        >>> signed(0.0431), signed(-0.2)
        ('+.043', '−.200')
    """
    text = number(value, decimals)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def probability(p: float | None) -> str:
    """Return a p value as a text states it.

    Example:
        >>> probability(0.0313), probability(0.0002), probability(None)
        ('p = .031', 'p < .001', 'not tested')
    """
    if p is None:
        return "not tested"
    return f"p < {number(_LEAST_P)}" if p < _LEAST_P else f"p = {number(p)}"


def p_value(p: float | None) -> str:
    """Return a p value for a cell of a table.

    Example:
        >>> p_value(0.0313), p_value(0.0002), p_value(None)
        ('.031', '< .001', '–')
    """
    return "–" if p is None else probability(p).removeprefix("p ").removeprefix("= ")


def verdict(test: Mapping[str, Any] | None) -> Verdict:
    """Judge a row beside the reference by its entry in ``tests`` of comparison.json."""
    if test is None or test["difference"] is None or test["p_holm"] is None:
        return "untested"
    if test["better"] is None:
        return "same"
    return "better" if test["better"] == test["name"] else "worse"


def answer(name: str, metric: str, test: Mapping[str, Any] | None) -> Answer:
    """Answer "does it help?" from a row that does without it, or with something else.

    Questions are put so that *yes* speaks for the reference.

    Example:
        >>> test = {"name": "mean", "difference": 0.043, "low": 0.031, "high": 0.055}
        >>> result = answer("mean", "mae", {**test, "p_holm": 0.0004, "better": "calibrated"})
        >>> result.short, result.sentence
        ('Yes', 'with “mean” MAE rises by .043 [.031, .055], p < .001')
    """
    judged = verdict(test)
    if test is None or judged == "untested":
        why = f": {'; '.join(test['notes'])}" if test and test["notes"] else ""
        return Answer("untested", "Not answered", f"“{name}” could not be tested{why}")
    difference, low, high = test["difference"], test["low"], test["high"]
    if judged == "same":
        short, verb = "No difference was found", "changes"
        change = f"{signed(difference)} [{signed(low)}, {signed(high)}]"
    else:
        short = "Yes" if judged == "worse" else "No, the other way round"
        verb = "rises" if difference > 0 else "falls"
        if difference < 0:  # a fall is stated by its size, without a sign
            low, high = -high, -low
        change = f"{number(abs(difference))} [{number(low)}, {number(high)}]"
    evidence = f"{metric_name(metric)} {verb} by {change}, {probability(test['p_holm'])}"
    return Answer(judged, short, f"with “{name}” {evidence}")


def headline(content: Mapping[str, Any]) -> str:
    """Return one sentence on who wins by the primary metric, or that nobody does."""
    metric = content["metrics"][0]
    title, best = metric_name(metric), content["best"].get(metric)
    summaries = {row["name"]: row["test"].get(metric) for row in content["rows"]}
    means = {name: s["mean"] for name, s in summaries.items() if s and s["mean"] is not None}
    if best is not None:
        return (
            f"{best} has the best {title}, {number(means[best])}, "
            "significantly better than every other row."
        )
    if not means:
        return f"{title} is undefined in every row."
    first = (max if higher_is_better(metric) else min)(means, key=lambda name: means[name])
    return (
        f"No row is significantly better than every other by {title}; "
        f"the best mean is that of {first}, {number(means[first])}."
    )
