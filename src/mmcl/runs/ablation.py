"""Ablations: ``calibrated`` with one thing changed at a time (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmcl.config import Config, resolve_config
from mmcl.corpus.schema import Card
from mmcl.errors import UsageError, did_you_mean
from mmcl.runs.comparison import Entry, Rescored
from mmcl.types import MODALITIES, Modality

__all__ = ["ABLATIONS", "REFERENCE", "Ablation", "ablation_entries", "modalities_left_out"]

REFERENCE = "calibrated"


class Ablation(NamedTuple):
    """One change, as ``section.key=value``.

    Rows with the same question answer it together.
    """

    name: str
    question: str
    settings: tuple[str, ...]


_DECOUPLING = "Does decoupling help?"
_FORM = "Does the form of the decoupling matter?"
_POLICY = "Do the policies help, and how should they be taught?"
_STEPS = "Do refinement steps help?"
_TRAINED_WITHOUT = "What is each modality worth in training?"
_TESTED_WITHOUT = "What does a missing modality cost a trained network?"

ABLATIONS: tuple[Ablation, ...] = (
    Ablation("common only", _DECOUPLING, ("model.decoupling=common_only",)),
    Ablation("specific only", _DECOUPLING, ("model.decoupling=specific_only",)),
    Ablation("no decoupling", _DECOUPLING, ("model.decoupling=both",)),
    Ablation("mean for min", _FORM, ("model.confirm=mean",)),
    Ablation("softmax maps", _FORM, ("model.decoupling=softmax",)),
    Ablation("no calibration", "Does calibration help?", ("model.calibrate=false",)),
    Ablation(
        "no alignment loss", "Does the alignment loss help?", ("learning.alignment_weight=0",)
    ),
    Ablation("no attention", "Does attention on the common part help?", ("model.attention=false",)),
    Ablation("actions all ones", _POLICY, ("policy.kind=ones",)),
    Ablation("actions random", _POLICY, ("policy.kind=random",)),
    Ablation("task loss only", _POLICY, ("policy.kind=task",)),
    Ablation("DDPG", _POLICY, ("policy.kind=ddpg",)),
    Ablation("separate rewards", "Does the joint reward help?", ("policy.reward=separate",)),
    Ablation("two refinement steps", _STEPS, ("policy.refinement_steps=2",)),
    Ablation("three refinement steps", _STEPS, ("policy.refinement_steps=3",)),
)
"""Policies taught by leave-one-out samples (RLOO) with the joint reward and one step are the
row that all others are held against."""


def ablation_entries(
    card: Card, *, source: str | None, overrides: Sequence[str] = (), names: Sequence[str] = ()
) -> list[Entry]:
    """Return the reference, every ablation, each modality left out in training, and ``released``.

    Args:
        card: Card of the corpus.
        source: Preset or file.
        overrides: Settings of every row.
        names: Only these ablations, beside the reference; all of them where empty.

    Raises:
        UsageError: If a name is unknown.
        ConfigError: If a setting is wrong.
    """

    def settle(*settings: str) -> Config:
        return resolve_config(model=REFERENCE, source=source, overrides=[*overrides, *settings])

    plain = settle()
    entries = [
        Entry(ablation.name, settle(*ablation.settings), ablation.settings, ablation.question)
        for ablation in (*ABLATIONS, *_without_in_training(plain, card))
    ]
    question = "Is the repair better than the method as released?"
    released = resolve_config(model="released", source=source, overrides=overrides)
    entries.append(Entry("released", released, ("model.name=released",), question))
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            raise UsageError(
                f'--only: unknown ablation "{name}"{did_you_mean(name, known)}\n'
                f"  Ablations: {', '.join(known)}"
            )
    return [Entry(REFERENCE, plain), *(e for e in entries if not names or e.name in names)]


def modalities_left_out(config: Config, card: Card) -> list[Rescored]:
    """Return rows that show what a trained network loses with each modality taken away at test."""
    removable = _removable(config, card)
    return [Rescored(f"tested without {m}", REFERENCE, m, _TESTED_WITHOUT) for m in removable]


def _without_in_training(config: Config, card: Card) -> list[Ablation]:
    ablations = []
    for modality in (removable := _removable(config, card)):
        kept = ", ".join(f'"{other}"' for other in removable if other != modality)
        setting = f"model.modalities=[{kept}]"
        ablations.append(Ablation(f"trained without {modality}", _TRAINED_WITHOUT, (setting,)))
    return ablations


def _removable(config: Config, card: Card) -> list[Modality]:
    """Return the modalities in use, if there are several."""
    used = [m for m in MODALITIES if m in card.dims and m in config.model.modalities]
    return used if len(used) > 1 else []
