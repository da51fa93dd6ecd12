"""Models by name: MMCL's two variants, the baselines, and those of other packages.

A package registers a model of its own with one line of its pyproject.toml::

    [project.entry-points."mmcl.models"]
    my_model = "my_package.my_model:MyModel"

The class is a :class:`~mmcl.models.network.Network`, most easily a
:class:`~mmcl.models.baselines.baseline.Baseline`; see docs/models.md.
"""

from __future__ import annotations

import json
from importlib import import_module, metadata
from pathlib import Path

from mmcl.config import ENTRY_POINTS, ModelSettings, PolicySettings, model_names
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, RunError, did_you_mean
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.types import BASELINES, VARIANTS

__all__ = ["build_network", "load_network", "network_class"]

CONFIG = "config.json"


def network_class(name: str) -> type[Network]:
    """The class of a model.

    Raises:
        ConfigError: If no model has that name, or the name belongs to something else or to
            nothing that can be imported.
    """
    if name in VARIANTS:
        return MMCL
    if name in BASELINES:
        found = import_module(f"mmcl.models.baselines.{name}").MODEL
    else:
        entries = [e for e in metadata.entry_points(group=ENTRY_POINTS) if e.name == name]
        if not entries:
            raise ConfigError(
                f'unknown model "{name}"{did_you_mean(name, model_names())}\n'
                f"  Models: {', '.join(model_names())}"
            )
        found = _load(entries[0])
    if not (isinstance(found, type) and issubclass(found, Network)):
        raise ConfigError(f'model "{name}" must be a class of mmcl\'s Network, got {found!r}')
    return found


def _load(entry: metadata.EntryPoint) -> object:
    """What another package registers; a package may be older than its entry points say."""
    try:
        return entry.load()
    except (ImportError, AttributeError) as fault:
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        raise ConfigError(
            f'model "{entry.name}" cannot be imported from {entry.value} ({fault}).\n'
            f"  {owner} registers it: mend its entry point, or remove the package"
        ) from fault


def build_network(
    dims: dict[str, int],
    task: Task,
    *,
    aligned: bool,
    model: ModelSettings,
    policy: PolicySettings,
) -> Network:
    """A fresh network of the kind that ``model.name`` asks for."""
    return network_class(model.name)(dims, task, aligned=aligned, model=model, policy=policy)


def load_network(folder: str | Path) -> Network:
    """A trained network from the folder that ``save_pretrained`` wrote, in evaluation mode.

    Raises:
        RunError: If the folder holds none.
    """
    path = Path(folder) / CONFIG
    try:
        name = json.loads(path.read_text()).get("model", {}).get("name", "calibrated")
    except (OSError, ValueError) as fault:
        raise RunError(f"{path}: not the settings of a saved model ({fault}).") from None
    return network_class(name).from_pretrained(folder).eval()
