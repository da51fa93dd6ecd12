"""Make the example clip of the service: a drawn face that speaks with a synthetic voice.

It is nobody's face and nobody's voice. Speech is a small formant synthesiser (a pulse train and
noise through resonators). The face is a few soft ellipses whose mouth opens with the loudness of
the voice. The service gives the clip to whoever wants to try its page.

Run it by hand, with PyAV installed, after a change of this script:

    python tools/make_example_clip.py src/mmcl/serve/example.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

SAMPLE_RATE = 16_000
PICTURE_RATE = 15  # pictures per second
SIDE = 360  # rows and columns of a picture

_Doubles = NDArray[np.float64]

_FRAME = SAMPLE_RATE // 200  # samples for which the resonators stand still: 5 ms
_GLIDE = 7  # frames over which one sound becomes the next
_UPPER = ((3500.0, 250.0), (4300.0, 350.0))  # resonances above the three that tell vowels apart


class _Sound(NamedTuple):
    """A speech sound.

    Attributes:
        formants: The three lowest resonances, in Hz.
        voice: Loudness of what the vocal folds make, 0..1.
        noise: Loudness of the breath, 0..1.
        noise_at: Where the noise is strongest, in Hz.
        seconds: How long it lasts.
    """

    formants: tuple[float, float, float]
    voice: float
    noise: float
    noise_at: float
    seconds: float


# Formants of an adult's American English, rounded (Peterson and Barney, 1952, and textbooks).
_SOUNDS = {
    "AA": _Sound((730, 1090, 2440), 1.0, 0.0, 0, 0.15),
    "AE": _Sound((660, 1720, 2410), 1.0, 0.0, 0, 0.20),
    "AH": _Sound((620, 1200, 2390), 1.0, 0.0, 0, 0.11),
    "EH": _Sound((550, 1770, 2490), 1.0, 0.0, 0, 0.14),
    "ER": _Sound((490, 1350, 1690), 0.9, 0.0, 0, 0.12),
    "IH": _Sound((400, 1920, 2560), 0.9, 0.0, 0, 0.10),
    "IY": _Sound((280, 2250, 2900), 0.9, 0.0, 0, 0.13),
    "UW": _Sound((310, 900, 2240), 0.9, 0.0, 0, 0.16),
    "L": _Sound((360, 1100, 2600), 0.6, 0.0, 0, 0.08),
    "W": _Sound((300, 650, 2200), 0.6, 0.0, 0, 0.08),
    "Y": _Sound((270, 2200, 3000), 0.6, 0.0, 0, 0.06),
    "M": _Sound((250, 1000, 2200), 0.35, 0.0, 0, 0.09),
    "N": _Sound((250, 1500, 2500), 0.35, 0.0, 0, 0.08),
    "DH": _Sound((300, 1400, 2500), 0.35, 0.05, 4500, 0.05),
    "V": _Sound((300, 1100, 2300), 0.35, 0.06, 4000, 0.07),
    "Z": _Sound((300, 1700, 2600), 0.25, 0.25, 5500, 0.09),
    "S": _Sound((300, 1700, 2600), 0.0, 0.45, 5800, 0.12),
    "F": _Sound((300, 1100, 2300), 0.0, 0.20, 4500, 0.10),
    "B": _Sound((250, 900, 2200), 0.10, 0.0, 0, 0.06),
    "D": _Sound((250, 1700, 2600), 0.10, 0.0, 0, 0.06),
    "b": _Sound((350, 1000, 2200), 0.4, 0.10, 1200, 0.02),  # what follows the closure of B, D, ...
    "d": _Sound((350, 1700, 2600), 0.4, 0.15, 3800, 0.02),
    "K": _Sound((300, 1900, 2500), 0.0, 0.0, 0, 0.06),
    "k": _Sound((300, 1900, 2500), 0.0, 0.30, 2000, 0.04),
    "T": _Sound((300, 1700, 2600), 0.0, 0.0, 0, 0.06),
    "t": _Sound((300, 1700, 2600), 0.0, 0.35, 4200, 0.03),
    "_": _Sound((500, 1500, 2500), 0.0, 0.0, 0, 0.30),
}
_SPOKEN = (
    "_ DH IH S F IH L M IH Z W AH N D d ER F AH L _ _ _",
    "AA IH L AH V DH AH M Y UW Z IH K k _ _ _",
    "B b AH T t DH IY EH N D d W AA Z B b AE D d _ _",
)
"""A line of sounds per sentence: "This film is wonderful. I love the music. But the end was bad."
The transcript is in src/mmcl/serve/page_files.py."""


# ---------------------------------------------------------------- the voice


def speak(lines: Sequence[str] = _SPOKEN) -> NDArray[np.float32]:
    """Say speech sounds.

    Args:
        lines: Names of sounds parted by spaces; a line is a sentence, whose pitch falls.

    Returns:
        Samples, float32 ``[k]``, 16 kHz mono, at most 0.7 of full scale.
    """
    spoken = np.concatenate([_sentence(line.split(), at) for at, line in enumerate(lines)])
    loudest = max(float(np.abs(spoken).max()), 1e-9)
    return (0.7 * spoken / loudest).astype(np.float32)


def _sentence(names: Sequence[str], seed: int) -> _Doubles:
    """One sentence: its sounds glide into each other, and its pitch falls."""
    sounds = [_SOUNDS[name] for name in names]
    lengths = [round(sound.seconds * SAMPLE_RATE / _FRAME) for sound in sounds]
    rows = [
        (*sound.formants, sound.voice, sound.noise, sound.noise_at or 3000.0) for sound in sounds
    ]
    tracks = np.repeat(np.array(rows, dtype=np.float64), lengths, axis=0)  # [frames, 6]
    tracks[:, :4] = _glide(tracks[:, :4], _GLIDE)
    tracks[:, 4] = _glide(tracks[:, 4:5], 3)[:, 0]
    count = len(tracks) * _FRAME
    voiced = _glottis(_pitch(len(tracks))) * np.repeat(tracks[:, 3], _FRAME)
    breath = np.random.default_rng(seed).standard_normal(count) * np.repeat(tracks[:, 4], _FRAME)
    formants = [
        (tracks[:, at], np.full(len(tracks), width)) for at, width in enumerate((80, 110, 160))
    ]
    formants += [(np.full(len(tracks), at), np.full(len(tracks), width)) for at, width in _UPPER]
    for frequency, width in formants:
        voiced = _resonate(voiced, frequency, width)
    hiss = _resonate(breath, tracks[:, 5], np.full(len(tracks), 900.0))
    return voiced / max(float(np.abs(voiced).max()), 1e-9) + 0.5 * hiss


def _glide(tracks: _Doubles, frames: int) -> _Doubles:
    """Means over so many frames, the ends held: ``[n, k]`` in and out."""
    padded = np.pad(tracks, ((frames // 2, frames // 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * (frames // 2) + 1, axis=0)
    smooth: _Doubles = windows.mean(axis=-1)
    return smooth


def _pitch(frames: int) -> _Doubles:
    """Pitch of a statement in Hz: it falls, with a little sway; one per frame."""
    along = np.linspace(0.0, 1.0, frames)
    sway: _Doubles = 165 - 45 * along + 10 * np.sin(2 * np.pi * 2.3 * along)
    return sway


def _glottis(pitch: _Doubles) -> _Doubles:
    """Flow of air through the vocal folds, as its change: one pulse a period."""
    phase = np.cumsum(np.repeat(pitch, _FRAME) / SAMPLE_RATE) % 1.0
    # Rosenberg's pulse: it opens over 40% of the period, and shuts over 16%.
    opening = 0.5 * (1 - np.cos(np.pi * phase / 0.4))
    closing = np.cos(np.pi / 2 * np.clip((phase - 0.4) / 0.16, 0.0, 1.0))
    flow = np.where(phase < 0.4, opening, closing)
    return np.diff(flow, prepend=0.0)


def _resonate(sound: _Doubles, frequency: _Doubles, width: _Doubles) -> _Doubles:
    """Sound through one resonator (Klatt, 1980) whose place changes from frame to frame.

    Args:
        sound: ``[frames * _FRAME]``.
        frequency: Where it resonates, in Hz, ``[frames]``.
        width: Its bandwidth in Hz, ``[frames]``.
    """
    radius = np.exp(-np.pi * width / SAMPLE_RATE)
    first = 2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE)
    second = -(radius**2)
    state = np.zeros(2)
    pieces = []
    for at, piece in enumerate(sound.reshape(-1, _FRAME)):
        gain = [1 - first[at] - second[at]]
        out, state = lfilter(gain, [1.0, -first[at], -second[at]], piece, zi=state)
        pieces.append(out)
    return np.concatenate(pieces)


# ---------------------------------------------------------------- the face


_SKIN, _SHADE, _HAIR = (228, 186, 160), (176, 124, 100), (58, 42, 36)
_LIPS, _MOUTH, _TEETH = (186, 92, 92), (74, 26, 30), (238, 232, 224)


class _Canvas(NamedTuple):
    """A picture, or a part of one; places count in sides of the whole picture.

    Attributes:
        picture: RGB 0..255, ``[h, w, 3]``.
        rows: Where each row lies, ``[h, 1]``.
        columns: Where each column lies, ``[1, w]``.
    """

    picture: _Doubles
    rows: _Doubles
    columns: _Doubles

    def part(self, top: float, bottom: float, left: float, right: float) -> _Canvas:
        """A part that shares its pixels with the whole, and costs less to paint on."""
        rows = slice(int(top * SIDE), int(bottom * SIDE))
        columns = slice(int(left * SIDE), int(right * SIDE))
        return _Canvas(self.picture[rows, columns], self.rows[rows], self.columns[:, columns])

    def ellipse(self, x: float, y: float, wide: float, high: float, soft: float) -> _Doubles:
        """How much of each pixel lies in one, 0..1; its edge is as wide as ``soft`` of it."""
        return _soft(np.hypot((self.columns - x) / wide, (self.rows - y) / high), soft)

    def paint(self, mask: _Doubles, colour: tuple[int, int, int], strength: float = 1.0) -> None:
        """Lay a colour over the picture where the mask is."""
        self.picture[:] += strength * mask[..., None] * (np.array(colour) - self.picture)


def draw_face(*, mouth: float, smile: float, brow: float, lids: float) -> NDArray[np.uint8]:
    """Draw the face.

    Args:
        mouth: How far it is open, 0..1.
        smile: How far its corners are up, -1..1.
        brow: How far the brows are up, -1..1.
        lids: How far the eyes are shut, 0..1.

    Returns:
        RGB, uint8 ``[SIDE, SIDE, 3]``.
    """
    head = _head()
    canvas = head._replace(picture=head.picture.copy())
    for side in (-1, 1):
        part = canvas.part(0.32, 0.50, 0.5 + side * 0.10 - 0.09, 0.5 + side * 0.10 + 0.09)
        _draw_eye(part, side, lids)
        _draw_brow(part, side, brow)
    _draw_mouth(canvas.part(0.60, 0.77, 0.38, 0.62), mouth, smile)
    return np.clip(np.round(canvas.picture), 0, 255).astype(np.uint8)


@cache
def _head() -> _Canvas:
    """Draw the parts that do not move: wall, shoulders, hair, skin, nose."""
    along = (np.arange(SIDE) + 0.5) / SIDE
    canvas = _Canvas(np.empty((SIDE, SIDE, 3)), along[:, None], along[None, :])
    canvas.picture[:] = np.array((206, 214, 220)) - 40 * canvas.rows[..., None]
    paint, ellipse = canvas.paint, canvas.ellipse
    paint(ellipse(0.5, 1.12, 0.42, 0.30, 0.02), (62, 84, 120))
    paint(ellipse(0.5, 0.80, 0.105, 0.17, 0.02), _SHADE)
    paint(ellipse(0.5, 0.375, 0.262, 0.285, 0.03), _HAIR)
    for side in (-1, 1):
        paint(ellipse(0.5 + side * 0.232, 0.50, 0.035, 0.065, 0.1), (206, 158, 134))
    face = ellipse(0.5, 0.485, 0.228, 0.305, 0.04)
    paint(face, _SKIN)
    # Light from the upper left: the right side, the temples and the jaw lie in shade.
    paint(face * np.clip((canvas.columns - 0.5) * 2.2, 0, 1), _SHADE, 0.55)
    paint(face * np.clip((canvas.rows - 0.62) * 3.5, 0, 1), _SHADE, 0.45)
    paint(face * (1 - ellipse(0.5, 0.47, 0.20, 0.275, 0.5)), _SHADE, 0.40)
    paint(ellipse(0.47, 0.30, 0.10, 0.05, 1.0), (246, 214, 192), 0.6)
    paint(ellipse(0.5, 0.185, 0.165, 0.07, 0.2), _HAIR)
    for side in (-1, 1):
        paint(ellipse(0.5 + side * 0.093, 0.425, 0.068, 0.045, 0.9), _SHADE, 0.55)
        paint(ellipse(0.5 + side * 0.12, 0.56, 0.055, 0.045, 1.0), (224, 150, 132), 0.5)
    _draw_nose(canvas)
    return canvas


def _draw_nose(canvas: _Canvas) -> None:
    paint, ellipse = canvas.paint, canvas.ellipse
    paint(ellipse(0.527, 0.49, 0.018, 0.085, 0.9), _SHADE, 0.50)
    paint(ellipse(0.494, 0.49, 0.012, 0.085, 0.9), (250, 222, 202), 0.60)
    paint(ellipse(0.5, 0.572, 0.048, 0.026, 0.8), _SHADE, 0.55)
    paint(ellipse(0.496, 0.556, 0.026, 0.022, 0.9), (244, 208, 186), 0.70)
    for side in (-1, 1):
        paint(ellipse(0.5 + side * 0.022, 0.578, 0.011, 0.006, 0.5), (96, 54, 46), 0.9)


def _draw_eye(canvas: _Canvas, side: int, lids: float) -> None:
    paint, ellipse = canvas.paint, canvas.ellipse
    x, y = 0.5 + side * 0.093, 0.432
    height = 0.021 * (1 - 0.9 * lids)
    paint(ellipse(x, y, 0.050, height + 0.007, 0.3), (110, 70, 58), 0.85)
    white = ellipse(x, y + 0.002, 0.045, height, 0.15)
    paint(white, (240, 238, 234))
    paint(white * ellipse(x, y, 0.0195, 0.0195, 0.12), (88, 62, 44))
    paint(white * ellipse(x, y, 0.0085, 0.0085, 0.2), (16, 12, 12))
    paint(white * ellipse(x - 0.006, y - 0.007, 0.0045, 0.0045, 0.4), (255, 255, 255))
    paint(ellipse(x, y - height, 0.050, 0.006 + 0.004 * lids, 0.5), (44, 28, 26), 0.9)


def _draw_brow(canvas: _Canvas, side: int, brow: float) -> None:
    x = 0.5 + side * 0.095
    along = np.clip((canvas.columns - x) / 0.06 * side, -1, 1)  # -1 at the nose, 1 at the temple
    y = 0.372 - 0.018 * brow - 0.012 * (1 - along**2) + 0.010 * brow * along
    across = np.abs(canvas.rows - y) / (0.011 - 0.004 * along)
    ends = np.abs(canvas.columns - x) / 0.064
    canvas.paint(_soft(np.maximum(across, ends), 0.5), _HAIR, 0.9)


def _draw_mouth(canvas: _Canvas, mouth: float, smile: float) -> None:
    wide, gap = 0.082 + 0.012 * smile - 0.014 * mouth, 0.003 + 0.034 * mouth
    along = np.clip((canvas.columns - 0.5) / wide, -1, 1)
    bend = 0.664 - 0.022 * smile * (along**2 - 0.4)  # the line between the lips
    arch = np.sqrt(np.clip(1 - along**2, 0, 1))
    bow = 0.021 * arch * (1 - 0.25 * np.exp(-((along / 0.18) ** 2)))
    top, bottom = bend - 0.4 * gap * arch, bend + gap * arch
    inside = np.abs(canvas.columns - 0.5) < wide
    lips = inside * _between(canvas.rows, top - bow, bottom + 0.027 * arch, 0.004)
    canvas.paint(lips, _LIPS)
    canvas.paint(lips * np.clip((canvas.rows - bend) / 0.03, 0, 1), (214, 128, 122), 0.6)
    hole = inside * _between(canvas.rows, top, bottom, 0.003)
    canvas.paint(hole, _MOUTH)
    teeth = hole * np.clip((bend - 0.4 * gap + 0.011 - canvas.rows) / 0.003, 0, 1)
    canvas.paint(teeth, _TEETH, 0.9 * min(1.0, 2 * mouth))
    canvas.paint(canvas.ellipse(0.5, 0.728, 0.06, 0.012, 1.0), _SHADE, 0.5)


def _soft(distance: _Doubles, soft: float) -> _Doubles:
    """1 well inside of distance 1, 0 outside, and a slope between."""
    share = np.clip((1 - distance) / soft, 0.0, 1.0)
    slope: _Doubles = share * share * (3 - 2 * share)
    return slope


def _between(values: _Doubles, low: _Doubles, high: _Doubles, edge: float) -> _Doubles:
    inside: _Doubles = np.clip((values - low) / edge, 0, 1) * np.clip((high - values) / edge, 0, 1)
    return inside


def _pictures(voice: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """The face at every moment of a voice: the mouth follows its loudness."""
    count = int(len(voice) * PICTURE_RATE / SAMPLE_RATE)
    edges = np.linspace(0, len(voice), count + 1).astype(int)
    loud = np.array([np.sqrt(np.mean(voice[a:b] ** 2)) for a, b in pairwise(edges)])
    mouth = np.clip(loud / max(float(loud.max()), 1e-9) * 1.2, 0, 1)
    along = np.linspace(0, 1, count)
    smile = np.interp(along, [0, 0.2, 0.55, 0.75, 1], [0.2, 0.9, 0.8, -0.7, -0.8])
    lids = np.exp(-((((along * 6.0) % 1.6) - 0.8) ** 2) / 0.002)
    return [
        draw_face(mouth=m, smile=s, brow=0.6 * s, lids=x)
        for m, s, x in zip(mouth.tolist(), smile.tolist(), lids.tolist(), strict=True)
    ]


def write_clip(path: Path) -> None:
    """Write pictures and voice as H.264 and AAC, which every browser plays."""
    voice = speak()
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=PICTURE_RATE)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in _pictures(voice):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode(None))
        _write_sound(container, audio, voice)


def _write_sound(container: Any, stream: Any, voice: NDArray[np.float32]) -> None:
    samples = np.round(voice * 32767).astype(np.int16)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "s16", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        frame.time_base = Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


if __name__ == "__main__":
    write_clip(Path(sys.argv[1]))
