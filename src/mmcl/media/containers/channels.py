"""Decide how to mix the channels of a recording into one.

Usually they become their mean. A cable or plug that is wired the wrong way round turns one
channel upside down, so that the mean is silent although both channels are loud. Then one
channel is read alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.extras import load
from mmcl.media.containers.decode import converting, decoded_frames, main_stream, open_media

__all__ = ["Channels", "channels_of"]

WINDOW = 0.5  # seconds that are judged at once
# Share of the power of the loudest channel below which the channels cancel each other out: 15
# decibels. The mean of one voice in one of two channels has 6 less than that channel; the mean
# of sound for a cinema (7.1) with a voice in the middle alone has 13 less.
CANCELLED = 1 / 32
QUIET = 1e-6  # power; -60 decibels of full scale, below which no window is judged
QUIETER = 1e-4  # share of the power of the loudest window, likewise

_Doubles = NDArray[np.float64]


class Channels(NamedTuple):
    """Choice of how to mix the channels of a recording into one.

    Attributes:
        number: Of channels.
        read_alone: The channel that is read, counted from 0; None for the mean of all.
        cancelled: Seconds in which the mean loses what a channel holds.
        lost: Seconds in which what is read loses it.
    """

    number: int
    read_alone: int | None = None
    cancelled: float = 0.0
    lost: float = 0.0

    @property
    def note(self) -> str | None:
        """Note for the user if channels cancel each other out, else None."""
        if not self.cancelled:
            return None
        if self.number == 2:
            fault = (
                f"its two channels cancel each other out in {self.cancelled:.1f} s (one of them "
                "is upside down)"
            )
        else:
            fault = (
                f"the mean of its {self.number} channels loses {self.cancelled:.1f} s that one of "
                "them holds"
            )
        if self.read_alone is None:
            return f"{fault}: they are lost, because no channel by itself holds more"
        if self.number == 2:
            channel = f"the {('left', 'right')[self.read_alone]} channel"
        else:
            channel = f"channel {self.read_alone + 1}"
        lost = f"; {self.lost:.1f} s of the others are lost" if self.lost else ""
        return f"{fault}: {channel} is read alone{lost}"


def channels_of(path: Path) -> Channels:
    """Measure all channels of a file and choose how to mix them into one.

    The mean is taken unless it loses sound that a channel holds, for half a second or longer.
    Then it is the mean or the one channel which loses least, the first of equal ones. A file
    is listened to once; the result is kept.

    Raises:
        MediaError: As :func:`mmcl.media.containers.decode.probe`, or if none of the sound can be
            decoded, or a part of it cannot be converted.
    """
    with open_media(path) as container:
        stream = main_stream(container, "audio")
        number = 0 if stream is None else stream.codec_context.layout.nb_channels
    if number < 2:
        return Channels(number)
    status = path.stat()
    return _choice(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _choice(path: Path, modified: int, size: int) -> Channels:
    """Choose for the file as it is: a later version differs in time or size."""
    with converting(path, "audio"):
        windows = list(_windows(path))
    seconds = np.array([length for length, _ in windows])  # [windows]
    power = np.array([powers for _, powers in windows])  # [windows, 1 + channels]; first the mean
    loudest = power[:, 1:].max(axis=1)
    is_loud = loudest > max(QUIET, QUIETER * loudest.max())
    is_lost = is_loud[:, None] & (power < CANCELLED * loudest[:, None])
    lost = seconds @ is_lost  # of the mean and of each channel
    best = int(lost.argmin())
    return Channels(
        number=power.shape[1] - 1,
        read_alone=best - 1 if best else None,
        cancelled=float(lost[0]),
        lost=float(lost[best]),
    )


def _windows(path: Path) -> Iterator[tuple[float, _Doubles]]:
    """Yield the length of every window in seconds, and the power of the mean and the channels."""
    mixer: _Mixer | None = None
    seconds, energy = 0.0, np.zeros(1)
    for _, frame in decoded_frames(path, "audio", 0.0):
        mixer = mixer or _Mixer(frame)
        if not mixer.fits(frame):  # a part of another kind is not judged
            continue
        energy = energy + mixer.energy(frame)
        seconds += frame.samples / frame.sample_rate
        if seconds >= WINDOW:
            yield seconds, energy / seconds
            seconds, energy = 0.0, np.zeros(1)
    if seconds:
        yield seconds, energy / seconds


class _Mixer:
    """Measures the mean and the channels of frames that are like a first one."""

    def __init__(self, first: Any) -> None:
        av = load("av", "reading video and sound")
        self.kind = _kind(first)
        # At their own rate, frames are only mixed: the resamplers hold nothing back. In 16 bits
        # they mix as for reading; in floating point the mean would be louder.
        self.mixers = [
            av.AudioResampler(format="s16", layout=layout, rate=first.sample_rate)
            for layout in ("mono", first.layout)
        ]

    def fits(self, frame: Any) -> bool:
        """Return whether a frame is of the kind of the first one."""
        return _kind(frame) == self.kind

    def energy(self, frame: Any) -> _Doubles:
        """Return power times seconds of the mean and of each channel."""
        energies: list[float] = []
        for mixer in self.mixers:
            for mixed in mixer.resample(frame):
                number = mixed.layout.nb_channels
                samples = mixed.to_ndarray().reshape(-1, number).astype(np.float32) / 32768
                energies += [float(np.dot(channel, channel)) for channel in samples.T]
        return np.array(energies, np.float64) / float(frame.sample_rate)


def _kind(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
