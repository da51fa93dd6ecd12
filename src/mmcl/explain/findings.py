"""Conclusions of an explanation in sentences, also where nothing was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SIGNIFICANT", "conclusions", "probability_text"]

SIGNIFICANT = 0.05
"""Smallest p at which a difference may be chance."""

_THROWN_OFF = 0.05  # share by which an error must exceed the error without any step

_RANKED = {"actions": "what the policies keep", "moments": "what is common or kept"}
_ORDERS = {"random": "at random", "integrated_gradients": "by integrated gradients"}
_ACTIONS = {
    "ones": "keeping every step",
    "random": "a random policy of equal mean",
    "none": "keeping no complementary feature",
}
_DELETION = {1: "hurts more than", 0: "does not hurt more than", -1: "hurts less than"}
_INSERTION = {1: "helps more than", 0: "does not help more than", -1: "helps less than"}
_LEARNED = {1: "err less than", 0: "are not better than", -1: "err more than"}


def probability_text(p: float) -> str:
    """Format a p-value.

    Example:
        >>> probability_text(0.0004), probability_text(0.62)
        ('p < 0.001', 'p = 0.620')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def conclusions(content: Mapping[str, Any]) -> list[str]:
    """Say what an explanation found, a sentence per question.

    Args:
        content: Curves, policies, probes, redundancy and planted, in the layout of
            :mod:`mmcl.explain.explanation`.
    """
    curves, policies, probes = (content[key] for key in ("curves", "policies", "probes"))
    sentences = [_ranking(row) for row in curves["comparisons"]]
    sentences += _thrown_off(curves["deletion"]["actions"]["error"])
    sentences += [_policy(policies["errors"], row) for row in policies["comparisons"]]
    if probes is not None:
        sentences += [_probe(m, row, probes["score"]) for m, row in probes["modalities"].items()]
    return sentences + _redundancy(content["redundancy"]) + _found(content["planted"])


def _verdict(row: Mapping[str, Any], value: str = "gain") -> int:
    """Sign of a difference; 0 where it may be chance."""
    if row["p"] >= SIGNIFICANT:
        return 0
    return 1 if row[value] > 0 else -1


def _ranking(row: Mapping[str, Any]) -> str:
    deletion = row["curve"] == "deletion"
    verb = (_DELETION if deletion else _INSERTION)[_verdict(row)]
    doing = "deleting" if deletion else "inserting"
    first = "" if deletion else " first"
    better = "larger" if deletion else "smaller"
    return (
        f"{doing.capitalize()} {_RANKED[row['score']]}{first} {verb} {doing} "
        f"{_ORDERS[row['against']]}: area under the error {row['area']:.3f} against "
        f"{row['other_area']:.3f}, {better} is better, {probability_text(row['p'])}."
    )


def _thrown_off(errors: list[float]) -> list[str]:
    """Warn where a network errs more on clips with gaps than on clips without any step."""
    if max(errors) <= errors[-1] * (1 + _THROWN_OFF):
        return []
    return [
        f"With a part of the steps deleted the error reaches {max(errors):.3f}, above the "
        f"{errors[-1]:.3f} with none left: the network is also thrown off by what is missing, "
        "so a large area under deletion is not all due to what the steps tell."
    ]


def _policy(errors: Mapping[str, float], row: Mapping[str, Any]) -> str:
    return (
        f"The learned actions {_LEARNED[_verdict(row)]} {_ACTIONS[row['against']]}: error "
        f"{errors['learned']:.3f} against {errors[row['against']]:.3f}, "
        f"{probability_text(row['p'])}."
    )


def _probe(modality: str, row: Mapping[str, Any], score: str) -> str:
    verb = {1: "add to", 0: "add nothing to", -1: "harm"}[_verdict(row, "increment")]
    return (
        f"The complementary features of {modality} {verb} a linear model that has the rest: "
        f"{score} {row['increment']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}), "
        f"{probability_text(row['p'])}."
    ).replace("-", "−")


def _redundancy(pairs: list[dict[str, Any]]) -> list[str]:
    values = [(row["common"]["value"], row["complementary"]["value"]) for row in pairs]
    known = [pair for pair in values if None not in pair]
    if not known:
        return []
    common, complementary = (sum(part) / len(known) for part in zip(*known, strict=True))
    verb = "are more alike" if common > complementary else "are not more alike"
    return [
        f"The common parts of the modalities {verb} than the complementary ones: "
        f"CKA {common:.3f} against {complementary:.3f}, mean over pairs."
    ]


def _found(planted: Mapping[str, Any] | None) -> list[str]:
    """Say how many of the planted steps are kept, where they are known."""
    if planted is None or planted["kept_precision"]["mean"] is None:
        return []
    kept, precision, recall = (
        planted[key]["mean"] for key in ("kept", "kept_precision", "kept_recall")
    )
    return [
        f"The policies keep {kept:.0%} of the steps. Of these {precision:.0%} are planted "
        f"complementary steps, and {recall:.0%} of the planted ones are kept."
    ]
