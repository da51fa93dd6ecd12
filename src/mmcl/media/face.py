"""The face in a stream of pictures: expression, head pose and gaze, and how they move.

Every picture is looked at alone (MediaPipe's FaceLandmarker), so a cut does no harm and
splitting a stream changes no measurement; faces are then linked from picture to picture.
Pictures are not kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load

__all__ = ["BLENDSHAPES", "FACE_COLUMNS", "FaceTrack", "FaceTracker", "Picture"]

_Doubles = NDArray[np.float64]

BLENDSHAPES: tuple[str, ...] = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)
"""MediaPipe's names of the 52 expressions it measures, each 0..1, in its order."""

POSE = ("pitch", "yaw", "roll", "x", "y", "z")
GAZE = ("gaze_left_x", "gaze_left_y", "gaze_right_x", "gaze_right_y")
_MEASURED = (*BLENDSHAPES, *POSE, *GAZE)
MOVING = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "jawOpen",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    *POSE,
    *GAZE,
)
"""The columns whose change per second is a column too."""
FACE_COLUMNS: tuple[str, ...] = (*_MEASURED, *(f"{name}_velocity" for name in MOVING))
"""What each column of :attr:`FaceTrack.steps` is.

The :data:`BLENDSHAPES`; the head's ``pitch`` (up), ``yaw`` (to the picture's right) and ``roll``
(clockwise in the picture) in radians, and where it is, ``x`` (right), ``y`` (up) and ``z``
(towards the camera), about in centimetres; how far each iris is off the middle of its eye,
right and down along the eye, in widths of that eye; and the change per second of
:data:`MOVING`.
"""

_MOVED = [_MEASURED.index(name) for name in MOVING]
_JAW = _MEASURED.index("jawOpen")

# Landmarks of the mesh: two corners and the iris of the eyes, by the person's left and right.
EYES = {"left": (362, 263, 473), "right": (33, 133, 468)}

SMALLEST = 32  # pixels of a side, below which no face is looked for
REACH = 1.0  # widths of a face that it may move between two pictures and stay the same
MEMORY = 2.0  # seconds after which a face that was lost is a new one
ENOUGH = 8  # steps of a face without which its mouth is not compared with the voice
HEARD = 0.15  # correlation below which no mouth is said to move with the voice
GRID = 16  # parts of a side of the picture, compared to see whether it moves
STILL = 2.0  # grey levels by which a part may differ in a picture that does not move


class Picture(Protocol):
    """A picture and when it was taken: ``time`` in seconds, ``image`` RGB uint8 ``[h, w, 3]``."""

    @property
    def time(self) -> float:
        """When it was taken, in seconds."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, uint8 ``[h, w, 3]``."""


class FaceTrack(NamedTuple):
    """The face that was followed.

    Attributes:
        times: When each picture was taken, in seconds, shape ``[T]``.
        steps: Float32 ``[T, 82]``, columns :data:`FACE_COLUMNS`; zeros without a face.
        found: Whether the face was seen, shape ``[T]``.
        num_faces: How many faces were seen, shape ``[T]``.
        note: What a user should know of it, or None.
    """

    times: _Doubles
    steps: NDArray[np.float32]
    found: NDArray[np.bool_]
    num_faces: NDArray[np.int64]
    note: str | None


class _Face(NamedTuple):
    """One face in one picture; position and width are shares of the picture's width."""

    center: _Doubles
    width: float
    measured: NDArray[np.float32]


@dataclass
class _Person:
    """The faces taken for one person, and the steps they were seen in."""

    steps: list[int] = field(default_factory=list)
    faces: list[_Face] = field(default_factory=list)

    @property
    def size(self) -> float:
        """Width of the face summed over the steps: large and often seen."""
        return sum(face.width for face in self.faces)

    @property
    def x(self) -> float:
        """Where it usually is, 0 at the left of the picture."""
        return float(np.median([face.center[0] for face in self.faces]))


class FaceTracker:
    """Follows a face through pictures.

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
        self, frames: Iterable[Picture], loudness: Callable[[float], float] | None = None
    ) -> FaceTrack:
        """Measure the face of the one who speaks.

        Among several faces that is the one whose mouth moves when the voice is loud: the
        correlation of the speed of its jaw with the loudness, weighed by how often it was
        seen. Where no mouth does, or without sound, it is the largest. A face seen only when
        the one followed is not (after a cut) is taken for the same person.

        Args:
            frames: The pictures, in order of time.
            loudness: How loud the voice is at a time in seconds, in any unit that rises.

        Returns:
            One step per picture.

        Raises:
            MediaError: If the model cannot be loaded, or a picture is not uint8.
            MissingExtraError: If mediapipe is not installed.
        """
        times: list[float] = []
        people: list[_Person] = []
        motion = _Motion()
        num_faces: list[int] = []
        with _landmarker(self._file, self._max_faces) as look:
            for frame in frames:
                image = _as_rgb(frame.image)
                faces = look(image)
                _link(people, faces, len(times), times)
                motion.see(image)
                times.append(float(frame.time))
                num_faces.append(len(faces))
        clock = np.array(times, dtype=np.float64)
        order, why = _choose(people, clock, loudness)
        steps, found = _steps(order, clock)
        counts = np.array(num_faces, dtype=np.int64)
        note = _note(counts, found, why, motion)
        return FaceTrack(clock, steps, found, counts, note)


def _as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise MediaError(
            f"a picture must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] < 3:  # gray, with or without transparency
        image = np.repeat(image[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


@contextmanager
def _landmarker(file: Path, max_faces: int) -> Iterator[Callable[[NDArray[np.uint8]], list[_Face]]]:
    """What finds the faces of a picture."""
    with _no_telemetry():
        with _quiet():
            mediapipe = load("mediapipe", "measuring faces")
            vision = load("mediapipe.tasks.python.vision", "measuring faces")
            found = _create(vision, mediapipe.tasks.BaseOptions, file, max_faces)

        def look(image: NDArray[np.uint8]) -> list[_Face]:
            if min(image.shape[:2]) < SMALLEST:
                return []
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            return _faces(found.detect(picture), image.shape[1], image.shape[0])

        try:
            yield look
        finally:
            with _quiet():
                found.close()


def _create(vision: Any, base_options: Any, file: Path, max_faces: int) -> Any:
    options = vision.FaceLandmarkerOptions(
        base_options=base_options(model_asset_path=str(file)),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=max_faces,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    try:
        return vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        raise MediaError(
            f'face model "{file.name}" cannot be loaded: {error}\n'
            "  Expected the file face_landmarker.task, as MediaPipe's maker offers it."
        ) from error


_environment = RLock()  # one for all, since the environment is
_NOWHERE = {
    **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "nowhere://telemetry-is-off"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost"),
}


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep MediaPipe from reporting its use to its maker, for which it has no switch.

    It does so through libcurl, which gives up, before it asks for any address, when the
    environment names a proxy of a kind that does not exist.
    """
    with _environment:
        before = {name: os.environ.get(name) for name in _NOWHERE}
        os.environ.update(_NOWHERE)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what compiled code writes to the standard error nowhere."""
    try:
        before = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _faces(seen: Any, width: int, height: int) -> list[_Face]:
    """What MediaPipe saw, as numbers."""
    faces = []
    for points, shapes, matrix in zip(
        seen.face_landmarks,
        seen.face_blendshapes,
        seen.facial_transformation_matrixes,
        strict=True,
    ):
        mesh = np.array([(point.x * width, point.y * height) for point in points]) / width
        low, high = mesh.min(axis=0), mesh.max(axis=0)
        expression = {shape.category_name: shape.score for shape in shapes}
        measured = [*(expression[name] for name in BLENDSHAPES), *_pose(matrix), *_gaze(mesh)]
        faces.append(
            _Face((low + high) / 2, float(high[0] - low[0]), np.array(measured, dtype=np.float32))
        )
    return faces


def _pose(matrix: _Doubles) -> tuple[float, ...]:
    """Angles and place of a head from its 4 x 4 matrix: first roll, then yaw, then pitch."""
    turned = np.asarray(matrix, dtype=np.float64)[:3, :3]
    turned = turned / np.linalg.norm(turned, axis=0)
    pitch = -np.arctan2(turned[2, 1], turned[2, 2])
    yaw = np.arcsin(np.clip(-turned[2, 0], -1.0, 1.0))
    roll = -np.arctan2(turned[1, 0], turned[0, 0])
    return (float(pitch), float(yaw), float(roll), *(float(at) for at in matrix[:3, 3]))


def _gaze(mesh: _Doubles) -> list[float]:
    """How far each iris is off the middle of its eye, along the eye and across, in eye widths."""
    gaze = []
    for first, last, iris in EYES.values():
        along = mesh[last] - mesh[first]
        off = mesh[iris] - (mesh[first] + mesh[last]) / 2
        square = max(float(along @ along), 1e-12)
        gaze += [float(off @ along) / square, float(along[0] * off[1] - along[1] * off[0]) / square]
    return gaze


def _link(people: list[_Person], faces: list[_Face], step: int, times: list[float]) -> None:
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


def _choose(
    people: list[_Person], times: _Doubles, loudness: Callable[[float], float] | None
) -> tuple[list[_Person], str]:
    """Everyone, the one to follow first, and why that one."""
    by_size = sorted(people, key=lambda person: person.size, reverse=True)
    if not _rivals(by_size):
        return by_size, ""
    if loudness is None:
        return by_size, f"followed the largest, {_place(by_size)}"
    volume = np.array([loudness(float(time)) for time in times])
    with_voice = {id(person): _with_voice(person, times, volume) for person in by_size}
    by_voice = sorted(by_size, key=lambda person: with_voice[id(person)][0], reverse=True)
    strength = with_voice[id(by_voice[0])][1]
    if strength < HEARD:
        why = f"no mouth moves with the voice; followed the largest, {_place(by_size)}"
        return by_size, why
    said = f"{strength:.2f}".removeprefix("0")
    where = _place(by_voice)
    return by_voice, f"followed the one {where}, whose mouth moves with the voice (r = {said})"


def _rivals(people: list[_Person]) -> bool:
    """Whether two people are ever seen together."""
    seen = [step for person in people for step in person.steps]
    return len(set(seen)) < len(seen)


def _place(people: list[_Person]) -> str:
    """Where the first person is among those seen together with them."""
    chosen = people[0]
    beside = [p.x for p in people[1:] if set(p.steps) & set(chosen.steps)]
    if all(chosen.x <= x for x in beside):
        return "at the left"
    return "at the right" if all(chosen.x >= x for x in beside) else "in the middle"


def _with_voice(person: _Person, times: _Doubles, volume: _Doubles) -> tuple[float, float]:
    """How surely, and how closely, a jaw's speed goes with the loudness."""
    at = np.array(person.steps)
    jaw = np.array([face.measured[_JAW] for face in person.faces], dtype=np.float64)
    apart = np.diff(times[at])
    beside = (np.diff(at) == 1) & (apart > 0)
    speed = (np.abs(np.diff(jaw)) / np.where(beside, apart, 1.0))[beside]
    heard = ((volume[at][1:] + volume[at][:-1]) / 2)[beside]
    if len(speed) < ENOUGH or not speed.std() > 0 or not heard.std() > 0:
        return 0.0, 0.0
    r = float(np.corrcoef(speed, heard)[0, 1])
    # Fisher's z over its deviation: a face seen for a moment is not chosen for its luck.
    return float(np.arctanh(np.clip(r, -0.999, 0.999))) * (len(speed) - 3) ** 0.5, r


def _steps(people: list[_Person], times: _Doubles) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The steps of the first person, and of those never seen together with them."""
    measured = np.zeros((len(times), len(_MEASURED)), dtype=np.float32)
    who = np.full(len(times), -1)
    for number, person in enumerate(people):
        if (who[person.steps] < 0).all():
            who[person.steps] = number
            measured[person.steps] = np.stack([face.measured for face in person.faces])
    velocity = np.zeros((len(times), len(MOVING)), dtype=np.float32)
    apart = np.diff(times)
    same = (who[1:] >= 0) & (who[1:] == who[:-1]) & (apart > 0)
    change = np.diff(measured[:, _MOVED], axis=0) / np.where(same, apart, 1.0)[:, None]
    velocity[1:] = change * same[:, None]
    return np.concatenate([measured, velocity], axis=1), who >= 0


class _Motion:
    """Whether anything in the pictures moves, without keeping them."""

    def __init__(self) -> None:
        self._first: _Doubles | None = None
        self.num = 0
        self.moved = False

    def see(self, image: NDArray[np.uint8]) -> None:
        """Compare a picture, part by part, with the first one."""
        self.num += 1
        if self.moved:
            return
        parts = _parts(image)
        if self._first is None:
            self._first = parts
        elif self._first.shape != parts.shape or np.abs(parts - self._first).max() > STILL:
            self.moved = True


def _parts(image: NDArray[np.uint8]) -> _Doubles:
    """Mean brightness of the parts of a picture, at most 16 x 16."""
    green = image[:, :, 1].astype(np.float64)
    rows = np.linspace(0, green.shape[0], min(GRID, green.shape[0]), endpoint=False).astype(int)
    columns = np.linspace(0, green.shape[1], min(GRID, green.shape[1]), endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(green, rows, axis=0), columns, axis=1)
    sizes = np.outer(
        np.diff(np.append(rows, green.shape[0])), np.diff(np.append(columns, green.shape[1]))
    )
    means: _Doubles = sums / sizes
    return means


def _note(
    num_faces: NDArray[np.int64], found: NDArray[np.bool_], why: str, motion: _Motion
) -> str | None:
    notes = []
    if not len(found):
        notes.append("there are no pictures")
    elif not found.any():
        notes.append(f"no face in any of the {len(found)} pictures")
    elif found.mean() < 0.5:
        notes.append(f"a face in {found.sum()} of the {len(found)} pictures")
    if why:
        notes.append(f"{num_faces.max()} faces; {why}")
    if motion.num > 1 and not motion.moved:
        notes.append("the picture does not move")
    return "; ".join(notes) or None
