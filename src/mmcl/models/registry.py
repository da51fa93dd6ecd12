"""Models by name: MMCL's two variants, the baselines, and those of other packages.

A package registers a model of its own with one line of its pyproject.toml::

    [project.entry-points."mmcl.models"]
    my_model = "my_package.my_model:MyModel"

The class is a :class:`~mmcl.models.network.Network`, most easily a
:class:`~mmcl.models.baselines.baseline.Baseline`; see docs/models.md.
"""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

from pydantic import ValidationError

from mmcl.config import ENTRY_POINTS, ModelSettings, PolicySettings, model_names
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, MMCLError, RunError, did_you_mean
from mmcl.files import read_json, reading
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.models.words import WordEncoder
from mmcl.other_version import does_not_fit, misfits
from mmcl.types import VARIANTS

__all__ = ["build_network", "load_network", "network_class"]

CONFIG = "config.json"

_BASELINES = {
    "ef_lstm": "ef_lstm:EarlyFusionLSTM",
    "lf_dnn": "lf_dnn:LateFusionDNN",
    "tfn": "tfn:TensorFusion",
    "lmf": "lmf:LowRankFusion",
    "mult": "mult:MultimodalTransformer",
    "misa": "misa:MISA",
    "self_mm": "self_mm:SelfMM",
    "almt": "almt:ALMT",
    "mvcl": "mvcl:MVCL",
    "caml": "caml:CAML",
    "co_sa": "co_sa:CoSA",
    "late_fusion": "late_fusion:LateFusion",
    "text_only": "late_fusion:TextOnly",
    "audio_only": "late_fusion:AudioOnly",
    "vision_only": "late_fusion:VisionOnly",
}
"""Module of ``models/baselines`` and class of every name; imported when it is asked for."""


def network_class(name: str) -> type[Network]:
    """Return the class of a model.

    Raises:
        ConfigError: If no model has that name, or the name belongs to something else or to
            nothing that can be imported.
    """
    if name in VARIANTS:
        return MMCL
    if name in _BASELINES:
        module, _, class_name = _BASELINES[name].partition(":")
        model = getattr(import_module(f"mmcl.models.baselines.{module}"), class_name)
    else:
        model = _load_registered(name)
    if not (isinstance(model, type) and issubclass(model, Network)):
        raise ConfigError(f'model "{name}" must be a class of mmcl\'s Network, got {model!r}')
    return model


def _load_registered(name: str) -> object:
    """Import what another package registers under a name."""
    entries = [e for e in metadata.entry_points(group=ENTRY_POINTS) if e.name == name]
    if not entries:
        raise ConfigError(
            f'unknown model "{name}"{did_you_mean(name, model_names())}\n'
            f"  Models: {', '.join(model_names())}"
        )
    entry = entries[0]
    try:
        return entry.load()
    except (ImportError, AttributeError) as fault:  # a package may be older than its entry points
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
    words: WordEncoder | None = None,
) -> Network:
    """Build an untrained network of the kind that ``model.name`` asks for.

    With ``words`` the network reads word pieces, whatever width ``dims`` gives for text.
    """
    if words is not None:
        dims = {**dims, "text": words.dim}
    network = network_class(model.name)(dims, task, aligned=aligned, model=model, policy=policy)
    if words is not None and "text" in network.modalities:
        network.attach_words(words)
    return network


def load_network(folder: str | Path) -> Network:
    """Load a trained network from a folder of ``save_pretrained``, in evaluation mode.

    Raises:
        RunError: If the folder holds none, or one that is damaged or of another version.
    """
    path = Path(folder) / CONFIG
    try:
        # Networks that were saved before models had names are calibrated ones.
        settings = read_json(path)
    except OSError as fault:
        raise RunError(f"{path}: not the settings of a saved model ({fault}).") from None
    with reading(path):
        name = str(settings.get("model", {}).get("name", "calibrated"))
    try:
        return network_class(name).from_pretrained(folder).eval()
    except ValidationError as fault:
        again = "train it again: mmcl train CORPUS --out NEW"
        raise RunError(does_not_fit(str(path), misfits(fault), None, again)) from None
    # Weights of other shapes or names, and files that are absent or cut short.
    except (MMCLError, NotImplementedError):
        raise
    except Exception as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise RunError(
            f"{Path(folder)}: the network cannot be loaded ({reason}).\n"
            "  It is damaged, or another version wrote it. Copy the run folder again, or train it "
            "again: mmcl train CORPUS --out NEW"
        ) from fault
