"""The starter: a model that comes with the package and needs no training.

The folder ``mmcl/starter``, which ``tools/starter.py`` makes::

    encoder/adapter.safetensors   what fine-tuning changed in the packaged encoder of words
    run/                          a run folder: MMCL over the words and the face
    CARD.md                       its data, licences, errors and limits
"""

from __future__ import annotations

from mmcl.errors import RunError
from mmcl.media.weights import STARTER
from mmcl.runs.run import Run

__all__ = ["load_starter", "starter_card"]


def load_starter() -> Run:
    """Open the starter as a finished run.

    Its encoder of words and its extraction need the extra ``media-offline``.

    Raises:
        RunError: If its files are missing.
    """
    return Run.load(STARTER / "run")


def starter_card() -> str:
    """Return the model card of the starter, in Markdown.

    Raises:
        RunError: If it is missing.
    """
    try:
        return (STARTER / "CARD.md").read_text(encoding="utf-8")
    except OSError:
        raise RunError(
            f"{STARTER}: the starter's files are missing.\n"
            "  Install mmcl again: pip install --force-reinstall mmcl"
        ) from None
