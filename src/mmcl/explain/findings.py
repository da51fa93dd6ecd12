"""What an explanation comes to, in sentences that say as much when nothing was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SIGNIFICANT", "conclusions", "probability_text"]

SIGNIFICANT = 0.05
"""A difference whose p is at least this is called none."""

_THROWN_OFF = 0.05  # share by which an error must exceed that of knowing nothing

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
    """A p-value as it is read.

    Example:
        >>> probability_text(0.0004), probability_text(0.62)
        ('p < 0.001', 'p = 0.620')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def conclusions(content: Mapping[str, Any]) -> list[str]:
    """Say what an explanation found, a sentence per question.

    Args:
        content: Curves, policies, probes and redundancy, in the layout of
            :mod:`mmcl.explain.explanation`.
    """
    found = [_ranking(row) for row in content["curves"]["comparisons"]]
    found += _thrown_off(content["curves"])
    found += [_policy(content["policies"], row) for row in content["policies"]["comparisons"]]
    if content["probes"] is not None:
        score = content["probes"]["score"]
        found += [_probe(m, row, score) for m, row in content["probes"]["modalities"].items()]
    return found + _redundancy(content["redundancy"])


def _verdict(row: Mapping[str, Any], value: str = "gain") -> int:
    """1 where the difference is above 0, -1 where it is below, 0 where it may be chance."""
    if row["p"] >= SIGNIFICANT:
        return 0
    return 1 if row[value] > 0 else -1


def _ranking(row: Mapping[str, Any]) -> str:
    deletion = row["curve"] == "deletion"
    verb = (_DELETION if deletion else _INSERTION)[_verdict(row)]
    doing = "deleting" if deletion else "inserting"
    first = "" if deletion else " first"
    return (
        f"{doing.capitalize()} {_RANKED[row['score']]}{first} {verb} {doing} "
        f"{_ORDERS[row['against']]}: area {row['area']:.3f} against {row['other_area']:.3f}, "
        f"{probability_text(row['p'])}."
    )


def _thrown_off(curves: Mapping[str, Any]) -> list[str]:
    """A warning where clips with holes are worse to a network than no clip at all."""
    errors = curves["deletion"]["actions"]["error"]
    if max(errors) <= errors[-1] * (1 + _THROWN_OFF):
        return []
    return [
        f"With a part of the steps deleted the error reaches {max(errors):.3f}, above the "
        f"{errors[-1]:.3f} with none left: the network is also thrown off by what is missing, "
        "so a large area under deletion is not all due to what the steps tell."
    ]


def _policy(policies: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    errors = policies["errors"]
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
    known = [
        row for row in pairs if None not in (row[p]["value"] for p in ("common", "complementary"))
    ]
    if not known:
        return []
    common, other = (
        sum(row[part]["value"] for row in known) / len(known)
        for part in ("common", "complementary")
    )
    verb = "are more alike" if common > other else "are not more alike"
    return [
        f"The common parts of the modalities {verb} than the complementary ones: "
        f"CKA {common:.3f} against {other:.3f}, mean over pairs."
    ]
