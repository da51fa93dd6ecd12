"""Measure the face in a stream of pictures: expression, head pose, gaze and their velocities.

MediaPipe's FaceLandmarker looks at each picture alone, so that cuts do no harm. The faces are
then linked from picture to picture. Pictures are not kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.containers.decode import Frame

__all__ = ["BLENDSHAPES", "FACE_COLUMNS", "FaceTrack", "FaceTracker"]

_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]
_Image = NDArray[np.uint8]

BLENDSHAPES: tuple[str, ...] = (
    "_neutral",
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight"),
    *("eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight"),
    *("eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""MediaPipe's names of the 52 expressions that it measures, each 0..1, in its order."""

POSE = ("pitch", "yaw", "roll", "x", "y", "z")
GAZE = ("gaze_left_x", "gaze_left_y", "gaze_right_x", "gaze_right_y")
_MEASURED = (*BLENDSHAPES, *POSE, *GAZE)
# The columns whose change per second is a column too.
MOVING = (
    *("browDownLeft", "browDownRight", "browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "jawOpen"),
    *("mouthFrownLeft", "mouthFrownRight", "mouthSmileLeft", "mouthSmileRight", *POSE, *GAZE),
)
FACE_COLUMNS: tuple[str, ...] = (*_MEASURED, *(f"{name}_velocity" for name in MOVING))
"""Names of the columns of :attr:`FaceTrack.steps`.

The :data:`BLENDSHAPES`; the head's ``pitch`` (up), ``yaw`` (to the picture's right) and ``roll``
(clockwise in the picture) in radians, and its position ``x`` (right), ``y`` (up) and ``z``
(towards the camera), about in centimetres; how far each iris is off the middle of its eye,
right and down along the eye, in widths of that eye; and the change per second of
:data:`MOVING`.
"""

_MOVING_INDICES = [_MEASURED.index(name) for name in MOVING]
_JAW = _MEASURED.index("jawOpen")
# Landmarks of the mesh: two corners and the iris of the person's left and right eye.
EYES = ((362, 263, 473), (33, 133, 468))

SMALLEST = 32  # pixels of a side, below which no face is looked for
REACH = 1.0  # face widths that a face may move between two pictures and stay the same
MEMORY = 2.0  # seconds after which a face that was lost counts as a new one
ENOUGH = 8  # steps of a face without which its mouth is not compared with the voice
HEARD = 0.15  # correlation below which no mouth is said to move with the voice
GRID = 16  # parts per side of a picture, which are compared to see whether it moves
STILL = 2.0  # grey levels by which a part may differ in a picture that does not move


class FaceTrack(NamedTuple):
    """Measurements of the face that was followed.

    Attributes:
        times: Time of each picture, in seconds, shape ``[T]``.
        steps: Float32 ``[T, 82]``, columns :data:`FACE_COLUMNS`; zeros without a face.
        found: Whether the face was seen, shape ``[T]``.
        num_faces: How many faces were seen, shape ``[T]``.
        note: What a user should know of it, or None.
    """

    times: _Doubles
    steps: _Floats
    found: NDArray[np.bool_]
    num_faces: NDArray[np.int64]
    note: str | None


class _Face(NamedTuple):
    """One face in one picture; position and width are shares of the picture's width."""

    center: _Doubles
    width: float
    measured: _Floats


@dataclass
class _Person:
    """The faces taken for one person, and the steps they were seen in."""

    steps: list[int] = field(default_factory=list)
    faces: list[_Face] = field(default_factory=list)

    @property
    def size(self) -> float:
        """Width of the face summed over the steps: large if the face is large and often seen."""
        return sum(face.width for face in self.faces)

    @property
    def x(self) -> float:
        """Usual position, 0 at the left of the picture."""
        return float(np.median([face.center[0] for face in self.faces]))


class FaceTracker:
    """Follows one face through pictures.

    Args:
        model_file: A ``face_landmarker.task``.
        max_faces: Most faces looked for in a picture.

    Raises:
        MediaError: If there is no such file.
    """

    def __init__(self, model_file: str | Path, *, max_faces: int = 3) -> None:
        self._file = Path(model_file)
        self._max_faces = max_faces
        if not self._file.is_file():
            raise MediaError(
                f'face model "{self._file.name}" is not there; give the file '
                "face_landmarker.task, as MediaPipe's maker offers it for download"
            )

    def track(
        self, frames: Iterable[Frame], loudness: Callable[[float], float] | None = None
    ) -> FaceTrack:
        """Measure the face of the person who speaks.

        Among several faces that is the one whose mouth moves when the voice is loud: the
        correlation of the jaw's speed with the loudness, weighted by how often the face was
        seen. If no mouth does, or without sound, it is the largest face. A face that is seen
        only when the followed one is not (after a cut) is taken for the same person.

        Args:
            frames: The pictures, in order of time; each becomes a step.
            loudness: Returns how loud the voice is at a time in seconds, in any rising unit.

        Raises:
            MediaError: If the model cannot be loaded, or a picture is not uint8.
            MissingExtraError: If mediapipe is not installed.
        """
        times: list[float] = []
        people: list[_Person] = []
        motion = _Motion()
        num_faces: list[int] = []
        with _landmarker(self._file, self._max_faces) as find_faces:
            for frame in frames:
                image = _as_rgb(frame.image)
                faces = find_faces(image)
                _link_to_people(people, faces, len(times), times)
                motion.add(image)
                times.append(float(frame.time))
                num_faces.append(len(faces))
        time_array = np.array(times, dtype=np.float64)
        people, reason = _speaker_first(people, time_array, loudness)
        steps, found = _steps(people, time_array)
        notes = []
        if not times:
            notes.append("there are no pictures")
        elif not found.any():
            notes.append(f"no face in any of the {len(times)} pictures")
        elif found.mean() < 0.5:
            notes.append(f"a face in {found.sum()} of the {len(times)} pictures")
        if reason:
            notes.append(f"{max(num_faces)} faces; {reason}")
        if len(times) > 1 and not motion.has_moved:
            notes.append("the picture does not move")
        counts = np.array(num_faces, dtype=np.int64)
        return FaceTrack(time_array, steps, found, counts, "; ".join(notes) or None)


def _as_rgb(image: _Image) -> _Image:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise MediaError(
            f"a picture must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] < 3:  # gray, with or without transparency
        image = np.repeat(image[:, :, :1], 3, axis=2)
    # MediaPipe needs contiguous memory.
    return np.ascontiguousarray(image[:, :, :3])


# MediaPipe

_MISSING_LIBRARY = re.compile(r"lib\S+\.so\S*(?=: cannot open shared object file)")


def _why_not_loaded(file: Path, error: Exception) -> str:
    """Return the message for a landmarker that could not be made."""
    if missing := _MISSING_LIBRARY.search(str(error)):
        return (
            f"measuring faces needs the system's library {missing[0]}, which is not here.\n"
            "  On Debian and Ubuntu: apt install libegl1 libgles2"
        )
    return (
        f'face model "{file.name}" cannot be loaded: {error}\n'
        "  Expected the file face_landmarker.task, as MediaPipe's maker offers it."
    )


@contextmanager
def _landmarker(file: Path, max_faces: int) -> Iterator[Callable[[_Image], list[_Face]]]:
    """Yield a function that finds the faces of a picture."""
    with _no_telemetry():
        with _silent_stderr():
            mediapipe = load("mediapipe", "measuring faces")
            vision = load("mediapipe.tasks.python.vision", "measuring faces")
            options = vision.FaceLandmarkerOptions(
                base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(file)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=max_faces,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            try:
                landmarker = vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError, OSError) as error:
                raise MediaError(_why_not_loaded(file, error)) from error

        def find_faces(image: _Image) -> list[_Face]:
            if min(image.shape[:2]) < SMALLEST:
                return []
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            return _measured_faces(landmarker.detect(picture), image.shape[1], image.shape[0])

        try:
            yield find_faces
        finally:
            with _silent_stderr():
                landmarker.close()


_environment_lock = RLock()
_NO_PROXY_EXISTS = {
    **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "nowhere://telemetry-is-off"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost"),
}


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep MediaPipe from reporting its use to its maker, for which it has no switch.

    It reports through libcurl, which gives up before it looks up any address when the
    environment names a proxy of a kind that does not exist.
    """
    with _environment_lock:
        before = {name: os.environ.get(name) for name in _NO_PROXY_EXISTS}
        os.environ.update(_NO_PROXY_EXISTS)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what compiled code writes to standard error."""
    try:
        stderr = os.dup(2)
    except OSError:  # the process has no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _measured_faces(result: Any, width: int, height: int) -> list[_Face]:
    faces = []
    for points, shapes, matrix in zip(
        result.face_landmarks,
        result.face_blendshapes,
        result.facial_transformation_matrixes,
        strict=True,
    ):
        # In shares of the picture's width, on both axes.
        mesh = np.array([(point.x * width, point.y * height) for point in points]) / width
        low, high = mesh.min(axis=0), mesh.max(axis=0)
        scores = {shape.category_name: shape.score for shape in shapes}
        measured = [*(scores[name] for name in BLENDSHAPES), *_pose(matrix), *_gaze(mesh)]
        columns = np.array(measured, dtype=np.float32)
        faces.append(_Face((low + high) / 2, float(high[0] - low[0]), columns))
    return faces


def _pose(matrix: _Doubles) -> tuple[float, ...]:
    """Return :data:`POSE` of a head from its 4 x 4 matrix, which rolls, then yaws, then pitches."""
    rotation = np.asarray(matrix, dtype=np.float64)[:3, :3]
    rotation = rotation / np.linalg.norm(rotation, axis=0)
    pitch = -np.arctan2(rotation[2, 1], rotation[2, 2])
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1.0, 1.0))
    roll = -np.arctan2(rotation[1, 0], rotation[0, 0])
    return tuple(float(value) for value in (pitch, yaw, roll, *matrix[:3, 3]))


def _gaze(mesh: _Doubles) -> list[float]:
    """Return how far each iris is off its eye's middle, along and across, in eye widths."""
    gaze = []
    for first, last, iris in EYES:
        along = mesh[last] - mesh[first]
        off = mesh[iris] - (mesh[first] + mesh[last]) / 2
        square = max(float(along @ along), 1e-12)
        gaze += [float(off @ along) / square, float(along[0] * off[1] - along[1] * off[0]) / square]
    return gaze


# Who is who, and who speaks


def _link_to_people(
    people: list[_Person], faces: list[_Face], step: int, times: list[float]
) -> None:
    """Give each face to the person last seen nearest to it, or to a new one."""
    pairs = sorted(
        (float(np.linalg.norm(person.faces[-1].center - face.center)) / face.width, p, f)
        for p, person in enumerate(people)
        if times[-1] - times[person.steps[-1]] <= MEMORY
        for f, face in enumerate(faces)
    )
    owner: dict[int, int] = {}
    for distance, p, f in pairs:
        if distance <= REACH and p not in owner.values() and f not in owner:
            owner[f] = p
    for f, face in enumerate(faces):
        if f not in owner:
            people.append(_Person())
        person = people[owner.get(f, len(people) - 1)]
        person.steps.append(step)
        person.faces.append(face)


def _speaker_first(
    people: list[_Person], times: _Doubles, loudness: Callable[[float], float] | None
) -> tuple[list[_Person], str]:
    """Sort people, the one to follow first, and return the reason if there was a choice."""
    by_size = sorted(people, key=lambda person: person.size, reverse=True)
    seen_steps = [step for person in people for step in person.steps]
    if len(set(seen_steps)) == len(seen_steps):  # no two people are ever seen together
        return by_size, ""
    if loudness is None:
        return by_size, f"followed the largest, {_place(by_size)}"
    volume = np.array([loudness(float(time)) for time in times])
    fits = {id(person): _voice_fit(person, times, volume) for person in by_size}
    by_voice = sorted(by_size, key=lambda person: fits[id(person)][0], reverse=True)
    correlation = fits[id(by_voice[0])][1]
    if correlation < HEARD:
        return by_size, f"no mouth moves with the voice; followed the largest, {_place(by_size)}"
    r = f"{correlation:.2f}".removeprefix("0")
    where = _place(by_voice)
    return by_voice, f"followed the one {where}, whose mouth moves with the voice (r = {r})"


def _place(people: list[_Person]) -> str:
    """Return where the first person is among those seen together with them."""
    chosen = people[0]
    beside = [person.x for person in people[1:] if set(person.steps) & set(chosen.steps)]
    if all(chosen.x <= x for x in beside):
        return "at the left"
    return "at the right" if all(chosen.x >= x for x in beside) else "in the middle"


def _voice_fit(person: _Person, times: _Doubles, volume: _Doubles) -> tuple[float, float]:
    """Correlate a jaw's speed with the loudness; return a z-score and the correlation."""
    steps = np.array(person.steps)
    jaw = np.array([face.measured[_JAW] for face in person.faces], dtype=np.float64)
    seconds = np.diff(times[steps])
    is_next = (np.diff(steps) == 1) & (seconds > 0)
    speed = (np.abs(np.diff(jaw)) / np.where(is_next, seconds, 1.0))[is_next]
    heard = ((volume[steps][1:] + volume[steps][:-1]) / 2)[is_next]
    if len(speed) < ENOUGH or not speed.std() > 0 or not heard.std() > 0:
        return 0.0, 0.0
    r = float(np.corrcoef(speed, heard)[0, 1])
    # Fisher's z over its deviation, so that a face seen for a moment is not chosen by luck.
    return float(np.arctanh(np.clip(r, -0.999, 0.999))) * (len(speed) - 3) ** 0.5, r


def _steps(people: list[_Person], times: _Doubles) -> tuple[_Floats, NDArray[np.bool_]]:
    """Return the steps of the first person, and of those never seen together with them."""
    measured = np.zeros((len(times), len(_MEASURED)), dtype=np.float32)
    owner = np.full(len(times), -1)
    for number, person in enumerate(people):
        if (owner[person.steps] < 0).all():
            owner[person.steps] = number
            measured[person.steps] = np.stack([face.measured for face in person.faces])
    # A velocity needs the same person in the picture before; otherwise it is 0.
    velocity = np.zeros((len(times), len(MOVING)), dtype=np.float32)
    seconds = np.diff(times)
    is_same = (owner[1:] >= 0) & (owner[1:] == owner[:-1]) & (seconds > 0)
    change = np.diff(measured[:, _MOVING_INDICES], axis=0)
    velocity[1:] = change / np.where(is_same, seconds, 1.0)[:, None] * is_same[:, None]
    return np.concatenate([measured, velocity], axis=1), owner >= 0


class _Motion:
    """Tells whether anything in the pictures moves, without keeping them."""

    def __init__(self) -> None:
        self._first: _Doubles | None = None
        self.has_moved = False

    def add(self, image: _Image) -> None:
        """Compare a picture, part by part, with the first one."""
        if self.has_moved:
            return
        means = _part_means(image)
        if self._first is None:
            self._first = means
        elif self._first.shape != means.shape or np.abs(means - self._first).max() > STILL:
            self.has_moved = True


def _part_means(image: _Image) -> _Doubles:
    """Return the mean brightness of the parts of a picture, at most 16 x 16."""
    green = image[:, :, 1].astype(np.float64)
    height, width = green.shape
    rows = np.linspace(0, height, min(GRID, height), endpoint=False).astype(int)
    columns = np.linspace(0, width, min(GRID, width), endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(green, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff(np.append(rows, height)), np.diff(np.append(columns, width)))
    means: _Doubles = sums / sizes
    return means
