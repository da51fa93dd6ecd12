"""Weights taken over from a trained network of the same model, as far as they fit."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.corpus.schema import Task
from mmcl.models.calibration import Calibration
from mmcl.models.layers import ModalityLinear, ModalityNorm
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.models.policy import PolicyModels
from mmcl.types import MODALITIES, Modality

__all__ = ["Taken", "take_weights"]

_STACKED = (Calibration, ModalityLinear, ModalityNorm, PolicyModels)
"""Layers of MMCL whose weights have an axis of modalities in front."""

_ITS_OWN = ("seen", "score_range")
"""Buffers that describe a network's own corpus."""


class Taken(NamedTuple):
    """Parts that a network took over from another one.

    Attributes:
        modalities: Modalities whose layers and standardisation were taken.
        afresh: Its other modalities, whose layers begin afresh.
        layers: Further layers that begin afresh, by name.
    """

    modalities: tuple[Modality, ...]
    afresh: tuple[Modality, ...]
    layers: tuple[str, ...]


def take_weights(model: Network, start: Network, *, allowed: Collection[Modality]) -> Taken:
    """Copy the weights and statistics that fit from a trained network into a new one.

    A modality is taken whole, with its standardisation, or not at all: the weights of its
    projection mean nothing under another standardisation. The encoder of words is left alone.

    Args:
        model: The new network; changed in place.
        start: A trained network of the same model.
        allowed: Modalities that mean the same in both.
    """
    own, theirs = model.state_dict(), start.state_dict()
    stacked = _stacked_names(model)
    kept = [m for m in model.modalities if m in allowed and _fits(m, model, start, stacked)]
    # In a baseline, layers behind the modalities see them side by side, in their order.
    joint_fits = isinstance(model, MMCL) or model.modalities == start.modalities
    other_outputs = set() if _same_outputs(model.task, start.task) else _output_names(model)
    afresh = []
    for name, target in own.items():
        if name in _ITS_OWN or name.startswith("words."):
            continue
        source, owners = theirs.get(name), _owners(name)
        if not owners <= set(kept):
            continue  # of a modality that begins afresh
        if name in stacked and source is not None and source.shape[1:] == target.shape[1:]:
            for m in kept:
                target[model.modalities.index(m)].copy_(source[start.modalities.index(m)])
        elif (
            name not in stacked
            and (joint_fits or owners)
            and name not in other_outputs
            and source is not None
            and source.shape == target.shape
        ):
            target.copy_(source)
        else:
            afresh.append(name.rpartition(".")[0] or name)
    others = tuple(m for m in model.modalities if m not in kept)
    return Taken(tuple(kept), others, tuple(dict.fromkeys(afresh)))


def _stacked_names(model: Network) -> set[str]:
    """Return the names of weights ``[m, ...]`` of which every modality has a slice."""
    if not isinstance(model, MMCL):
        return set()
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, _STACKED)
        for name, tensor in module.state_dict().items()
        if tensor.ndim
    }


def _owners(name: str) -> set[str]:
    """Return the modalities that the name of a weight names."""
    return set(re.split(r"[._]", name)) & set(MODALITIES)


def _fits(modality: Modality, model: Network, start: Network, stacked: set[str]) -> bool:
    """Tell whether the start learnt a modality from features of the same width and scale."""
    if modality not in start.modalities or modality in start.never_seen:
        return False
    if model.dims[modality] != start.dims[modality]:
        return False
    if (modality in model.standardisers) != (modality in start.standardisers):
        return False
    theirs = start.state_dict()
    of_modality: dict[str, Tensor] = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if _owners(name) == {modality} and not name.startswith("words.") and name not in stacked
    }
    return all(
        name in theirs and theirs[name].shape == tensor.shape
        for name, tensor in of_modality.items()
    )


def _same_outputs(first: Task, second: Task) -> bool:
    """Tell whether outputs mean the same; scores of any range are learned on the field's scale."""
    return (first.kind, first.names) == (second.kind, second.names)


def _output_names(model: Network) -> set[str]:
    """Return the names of the weights whose shape depends on the number of outputs."""
    more = Task(kind="classes", names=tuple(f"class {n}" for n in range(model.task.output_dim + 1)))
    with torch.random.fork_rng(devices=[]):  # a second network, only for its shapes
        twin = type(model)(
            {str(m): dim for m, dim in model.dims.items()},
            more,
            aligned=model.aligned,
            model=model.settings,
            policy=model.policy_settings,
        )
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    own = model.state_dict()
    return {name for name, tensor in own.items() if shapes.get(name) != tensor.shape}
