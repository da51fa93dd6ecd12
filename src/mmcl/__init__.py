"""mmcl: multimodal sentiment, and which moments of which modality said so.

The names below load on first use, so that ``import mmcl`` stays light::

    load_corpus   open a corpus, or read a foreign file as one
    train         train, choose on validation, score once, save everything
    Corpus        an opened corpus; Corpus.from_arrays makes one of arrays or a DataFrame
    Run           a finished run: predict, evaluate
    from_pretrained  open a run that mmcl push published: a folder, or owner/name
    load_starter  the run that comes with the package: English words and face
    MMCL          the network alone, a torch module
    Config        every setting; resolve_config builds one from presets and overrides
    metrics       the field's metrics, exactly
    __version__   the version that is installed, as mmcl --version prints it
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl.config import Config, resolve_config
    from mmcl.corpus.plant import plant_corpus
    from mmcl.corpus.readers import read_corpus as load_corpus
    from mmcl.corpus.store import Corpus
    from mmcl.evaluation import metrics
    from mmcl.models.mmcl import MMCL
    from mmcl.runs.publishing import from_pretrained
    from mmcl.runs.run import Run, train
    from mmcl.runs.starter import load_starter

    __version__: str

__all__ = [
    "MMCL",
    "Config",
    "Corpus",
    "Run",
    "from_pretrained",
    "load_corpus",
    "load_starter",
    "metrics",
    "plant_corpus",
    "resolve_config",
    "train",
]

_HOMES = {
    "MMCL": ("mmcl.models.mmcl", "MMCL"),
    "Config": ("mmcl.config", "Config"),
    "Corpus": ("mmcl.corpus.store", "Corpus"),
    "Run": ("mmcl.runs.run", "Run"),
    "from_pretrained": ("mmcl.runs.publishing", "from_pretrained"),
    "load_corpus": ("mmcl.corpus.readers", "read_corpus"),
    "load_starter": ("mmcl.runs.starter", "load_starter"),
    "metrics": ("mmcl.evaluation.metrics", None),
    "plant_corpus": ("mmcl.corpus.plant", "plant_corpus"),
    "resolve_config": ("mmcl.config", "resolve_config"),
    "train": ("mmcl.runs.run", "train"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("mmcl")
        except metadata.PackageNotFoundError:
            raise AttributeError(
                "mmcl is not installed, so that its version is not known"
            ) from None
    if name not in _HOMES:
        raise AttributeError(f"module 'mmcl' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    module = import_module(home)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
