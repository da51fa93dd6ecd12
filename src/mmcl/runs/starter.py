"""The starter: a model that comes with the package and needs no training.

The folder ``mmcl/starter``, which ``tools/starter.py`` makes::

    encoder/adapter.safetensors   what fine-tuning changed in the packaged encoder of words
    run/                          a run folder: MMCL over the words and the face
    CARD.md                       its data, licences, errors and limits
"""

from __future__ import annotations

from pathlib import Path

from mmcl.errors import RunError
from mmcl.media.weights import STARTER, STARTER_NAME
from mmcl.runs.run import Run
from mmcl.runs.run_folder import RUN

__all__ = ["is_starter", "load_starter", "run_or_starter", "starter_card", "starter_notice"]


def load_starter() -> Run:
    """Open the starter as a finished run.

    Its encoder of words and its extraction need the extra ``media-offline``.

    Raises:
        RunError: If its files are missing.
    """
    if not (STARTER / "run" / RUN).is_file():
        raise _missing()
    return Run.load(STARTER / "run", STARTER_NAME)


def starter_card() -> str:
    """Return the model card of the starter, in Markdown.

    Raises:
        RunError: If it is missing.
    """
    try:
        return (STARTER / "CARD.md").read_text(encoding="utf-8")
    except OSError:
        raise _missing() from None


def is_starter(path: Path | None) -> bool:
    """Tell whether a run that a user names is the starter: none, or ``starter``.

    A run folder of that name in the current folder is itself.
    """
    return path is None or (str(path) == STARTER_NAME and not (path / RUN).is_file())


def run_or_starter(path: Path | None) -> Run:
    """Open a run folder, or the starter; see :func:`is_starter`.

    Raises:
        RunError: If it is no run folder, or a seed has not finished.
    """
    return load_starter() if path is None or is_starter(path) else Run.load(path)


def starter_notice(run: Run) -> str:
    """Return what a user who gave no run is told."""
    error = run.validation_error
    known = "" if error is None else f"; mean error {error:.2f} on validation, more on speech"
    heard = "English words and face, not the voice"
    return f"no run was given: the starter is used ({heard}{known}: mmcl starter)"


def _missing() -> RunError:
    return RunError(
        f"{STARTER}: the starter's files are missing.\n"
        "  Install mmcl again: pip install --force-reinstall mmcl"
    )
