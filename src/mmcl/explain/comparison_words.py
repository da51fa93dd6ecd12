"""What a comparison says in words: its numbers as text, its tests as sentences.

Every sentence follows from a sign and from a p value after Holm's correction; nothing is
worded by hand for a model or a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mmcl.errors import ConfigError
from mmcl.evaluation.metrics import higher_is_better

__all__ = [
    "Answer",
    "Verdict",
    "answer",
    "diverged_words",
    "headline",
    "is_higher_better",
    "known_direction",
    "metric_name",
    "number",
    "probability",
    "signed",
    "verdict",
]

Verdict = Literal["better", "worse", "same", "untested"]
"""What a row is beside the reference; ``same``: no difference was found."""

_NAMES = {
    "mae": "MAE",
    "corr": "correlation",
    "acc2": "Acc-2",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
    "f1": "F1",
    "uar": "UAR",
    "auroc": "AUROC",
}
_LEAST_P = 0.001


class Answer(NamedTuple):
    """What an ablation found out about its question from one row.

    Attributes:
        name: The row.
        verdict: What the row is beside the reference.
        short: The first words: yes, no, or that nothing was found.
        sentence: The evidence.
    """

    name: str
    verdict: Verdict
    short: str
    sentence: str


def metric_name(key: str) -> str:
    """A metric's key as the field writes it.

    Example:
        >>> metric_name("acc2_non0"), metric_name("mae"), metric_name("recall_happy")
        ('Acc-2 non0', 'MAE', 'recall happy')
    """
    return " ".join(_NAMES.get(part, part) for part in key.split("_"))


def is_higher_better(key: str) -> bool:
    """Say in which direction a metric improves, those of planted moments among them.

    Raises:
        ConfigError: If no metric is called so.
    """
    return key.endswith("auroc") or higher_is_better(key)


def number(value: float | None, decimals: int = 3) -> str:
    """A number without a leading zero, a dash where there is none.

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
    """The same with its sign.

    Example:
        >>> signed(0.0431), signed(-0.2)
        ('+.043', '−.200')
    """
    text = number(value, decimals)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def probability(p: float | None) -> str:
    """A p value as it is written in a text.

    Example:
        >>> probability(0.0313), probability(0.0002), probability(None)
        ('p = .031', 'p < .001', 'not tested')
    """
    if p is None:
        return "not tested"
    return f"p < {number(_LEAST_P)}" if p < _LEAST_P else f"p = {number(p)}"


def verdict(test: Mapping[str, Any] | None) -> Verdict:
    """What a row is beside the reference, from its test.

    Args:
        test: An entry of ``tests`` in comparison.json; None where there is none.
    """
    if test is None or test["difference"] is None or test["p_holm"] is None:
        return "untested"
    if test["better"] is None:
        return "same"
    return "better" if test["better"] == test["name"] else "worse"


def answer(name: str, metric: str, test: Mapping[str, Any] | None) -> Answer:
    """Answer "does it help?" from a row that does without it, or with something else.

    Questions are put so that *yes* speaks for the reference.

    Args:
        name: The row.
        metric: The metric to judge by.
        test: Of this row and metric; None where there is none.

    Example:
        >>> test = {"name": "mean", "difference": 0.043, "low": 0.031, "high": 0.055}
        >>> found = answer("mean", "mae", {**test, "p_holm": 0.0004, "better": "calibrated"})
        >>> found.short, found.sentence
        ('Yes', 'with “mean” MAE rises by .043 [.031, .055], p < .001')
    """
    found = verdict(test)
    if test is None or found == "untested":
        why = f": {'; '.join(test['notes'])}" if test and test["notes"] else ""
        return Answer(name, "untested", "Not answered", f"“{name}” could not be tested{why}")
    what, p = metric_name(metric), probability(test["p_holm"])
    if found == "same":
        ends = f"{signed(test['low'])}, {signed(test['high'])}"
        change = f"{signed(test['difference'])} [{ends}]"
        return Answer(
            name, found, "No difference was found", f"with “{name}” {what} changes by {change}, {p}"
        )
    rises = test["difference"] > 0
    low, high = (test["low"], test["high"]) if rises else (-test["high"], -test["low"])
    change = f"{number(abs(test['difference']))} [{number(low)}, {number(high)}]"
    short = "Yes" if found == "worse" else "No, the other way round"
    verb = "rises" if rises else "falls"
    return Answer(name, found, short, f"with “{name}” {what} {verb} by {change}, {p}")


def headline(content: Mapping[str, Any]) -> str:
    """One sentence on who wins by the primary metric, or that nobody does."""
    metric = content["metrics"][0]
    what, best = metric_name(metric), content["best"].get(metric)
    rows = {row["name"]: row["test"].get(metric) for row in content["rows"]}
    known = {name: each["mean"] for name, each in rows.items() if each and each["mean"] is not None}
    if best is not None:
        return (
            f"{best} has the best {what}, {number(known[best])}, "
            "significantly better than every other row."
        )
    if not known:
        return f"{what} is undefined in every row."
    first = (max if is_higher_better(metric) else min)(known, key=lambda name: known[name])
    return (
        f"No row is significantly better than every other by {what}; "
        f"the best mean is that of {first}, {number(known[first])}."
    )


def diverged_words(row: Mapping[str, Any]) -> list[str]:
    """Which seeds of a row are missing from its numbers, and why.

    Example:
        >>> diverged_words({"diverged": {"2": "the loss is nan at epoch 3, step 4"}})
        ['seed 2 diverged: the loss is nan at epoch 3, step 4']
    """
    return [f"seed {seed} diverged: {why}" for seed, why in row["diverged"].items()]


def known_direction(metrics: Sequence[str]) -> dict[str, bool | None]:
    """By metric whether higher is better; None for one that has no known direction."""
    found: dict[str, bool | None] = {}
    for key in metrics:
        try:
            found[key] = is_higher_better(key)
        except ConfigError:
            found[key] = None
    return found
