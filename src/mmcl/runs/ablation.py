"""Ablations: ``calibrated`` with one thing changed at a time."""

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
"""The model whose parts are changed."""


class Ablation(NamedTuple):
    """A row of the ablation: ``calibrated`` with a changed setting."""

    name: str
    question: str  # answered by all rows that share it
    settings: tuple[str, ...]  # changes, as ``section.key=value``


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
    Ablation("soft gate", _POLICY, ("policy.kind=task",)),
    Ablation("RLOO", _POLICY, ("policy.kind=rloo",)),
    Ablation("DDPG", _POLICY, ("policy.kind=ddpg",)),
    # Only policies that draw their actions are paid a reward; the row RLOO has the joint one.
    Ablation(
        "RLOO, separate rewards",
        "Does the joint reward help RLOO?",
        ("policy.kind=rloo", "policy.reward=separate"),
    ),
    Ablation("two refinement steps", _STEPS, ("policy.refinement_steps=2",)),
    Ablation("three refinement steps", _STEPS, ("policy.refinement_steps=3",)),
)
"""Every row of an ablation. A gate with one refinement step has none: it is the reference."""


def ablation_entries(
    card: Card, *, source: str | None, overrides: Sequence[str] = (), names: Sequence[str] = ()
) -> list[Entry]:
    """Return the rows to train: the reference, the ablations and ``released``.

    Args:
        card: Card of the corpus; each of its modalities is left out in one row.
        source: Preset or file.
        overrides: Settings of every row.
        names: Ablations to keep beside the reference; all if empty.

    Raises:
        UsageError: If a name is unknown.
        ConfigError: If a setting is wrong.
    """

    def configure(*settings: str) -> Config:
        return resolve_config(model=REFERENCE, source=source, overrides=[*overrides, *settings])

    reference = configure()
    entries = [
        Entry(ablation.name, configure(*ablation.settings), ablation.settings, ablation.question)
        for ablation in (*ABLATIONS, *_without_in_training(reference, card))
    ]
    # ``released`` is a model of its own, not a changed setting of the reference.
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
    return [Entry(REFERENCE, reference), *(e for e in entries if not names or e.name in names)]


def modalities_left_out(config: Config, card: Card) -> list[Rescored]:
    """Return the rows that score the reference without one of its modalities."""
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
    """Return the modalities in use, or none if there is only one."""
    has_words = config.text.encoder is not None
    given = [m for m in MODALITIES if m in card.dims or (m == "text" and has_words)]
    used = [m for m in given if m in config.model.modalities]
    return used if len(used) > 1 else []
