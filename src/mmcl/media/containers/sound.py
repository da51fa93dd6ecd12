"""Read the sound of a media file as one channel of 16 kHz, on the file's own clock.

Sound is streamed: a file of any length needs only the memory of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.extras import load
from mmcl.media.containers.channels import channels_of
from mmcl.media.containers.decode import converting, decoded_frames
from mmcl.media.recipe import SAMPLE_RATE

__all__ = ["audio_blocks", "read_audio"]

JITTER = 0.02  # seconds by which sound may be off its expected time without being moved
MAX_GAP = 600.0  # seconds; a longer gap in the sound is a broken clock and not silence

_Floats = NDArray[np.float32]


def audio_blocks(
    path: Path, start: float = 0.0, end: float | None = None, *, block_seconds: float = 30.0
) -> Iterator[_Floats]:
    """Stream a stretch of sound, 16 kHz mono.

    Several channels become their mean, or one of them where they would cancel each other out;
    see :func:`mmcl.media.containers.channels.channels_of`. The choice is the same for every stretch
    of a file.

    Sample ``i`` is at ``start + i / 16000`` seconds on the file's clock. Gaps, and the time
    before sound that begins late, are silence.

    Args:
        path: A media file.
        start: In seconds.
        end: In seconds; None reads to the end of the sound.
        block_seconds: Length of every block but the last, in seconds.

    Yields:
        Samples, float32 ``[k]``, in -1..1; fewer than asked for where the sound ends first, and
        none where the file has no sound.

    Raises:
        MediaError: As :func:`probe`, or if none of the sound can be decoded, or a part of it
            cannot be converted.
    """
    size = round(block_seconds * SAMPLE_RATE)
    wanted = math.inf if end is None else round(end * SAMPLE_RATE) - round(start * SAMPLE_RATE)
    pending: list[_Floats] = []
    for piece in _sound(path, start):
        pending.append(piece[: int(max(0, min(wanted, len(piece))))])
        wanted -= len(piece)
        if sum(map(len, pending)) >= size:
            samples = np.concatenate(pending)
            complete = len(samples) // size * size
            yield from samples[:complete].reshape(-1, size)
            pending = [samples[complete:]]
        if wanted <= 0:
            break
    if sum(map(len, pending)):
        yield np.concatenate(pending)


def read_audio(path: Path, start: float = 0.0, end: float | None = None) -> _Floats:
    """Read a stretch of sound at once, float32 ``[samples]``; see :func:`audio_blocks`."""
    return np.concatenate([np.zeros(0, np.float32), *audio_blocks(path, start, end)])


def _sound(path: Path, start: float) -> Iterator[_Floats]:
    """Yield sound without a gap from sample ``round(start * SAMPLE_RATE)`` on, in pieces."""
    sound = _GaplessSound(round(start * SAMPLE_RATE), channels_of(path).read_alone)
    with converting(path, "audio"):
        for time, frame in decoded_frames(path, "audio", start):
            yield from sound.add(frame, time)
        yield from sound.finish()


class _GaplessSound:
    """Frames of sound at their times, resampled to 16 kHz mono, with silence in the gaps.

    Args:
        first_sample: Number of the first sample wanted.
        channel: The channel to read alone; None takes the mean of all.
    """

    def __init__(self, first_sample: int, channel: int | None) -> None:
        self.channel = channel
        self.written = first_sample  # the next sample to yield
        self.place = first_sample  # where the next sample of the resampler belongs
        self.due = math.nan  # when the next frame comes if nothing is missing, in seconds
        self.resampler: Any = None

    def add(self, frame: Any, time: float) -> Iterator[_Floats]:
        """Add a frame that begins at ``time`` seconds."""
        if self.resampler is None or JITTER < abs(time - self.due) < MAX_GAP:
            yield from self._restart(frame, time)
        try:
            resampled = self.resampler.resample(frame)
        except ValueError:  # another rate, format or number of channels from here on
            yield from self._restart(frame, time)
            resampled = self.resampler.resample(frame)
        self.due += frame.samples / frame.sample_rate
        yield from self._placed(resampled)

    def _restart(self, frame: Any, time: float) -> Iterator[_Floats]:
        """Begin with a new resampler at the time of a frame."""
        yield from self.finish()
        av = load("av", "reading video and sound")
        layout = "mono" if self.channel is None else frame.layout
        self.resampler = av.AudioResampler(format="s16", layout=layout, rate=SAMPLE_RATE)
        # Only every so many samples do both rates have one at the same time. Start at such a
        # sample and fill up with silence, so that the resampled ones fall on whole places.
        rate = frame.sample_rate
        first, cycle = round(time * rate), rate // math.gcd(rate, SAMPLE_RATE)
        self.place, self.due = (first - first % cycle) * SAMPLE_RATE // rate, time
        if first % cycle:
            yield from self._placed(self.resampler.resample(_silence(frame, first % cycle)))

    def finish(self) -> Iterator[_Floats]:
        """Yield what the resampler still holds."""
        if self.resampler is not None:
            yield from self._placed(self.resampler.resample(None))

    def _placed(self, resampled: list[Any]) -> Iterator[_Floats]:
        """Yield samples at their places: gaps are filled with silence, overlaps are dropped."""
        for frame in resampled:
            number = frame.layout.nb_channels
            channels = frame.to_ndarray().reshape(-1, number)  # [samples, channels]
            samples = channels[:, min(self.channel or 0, number - 1)].astype(np.float32) / 32768
            missing = self.place - self.written
            self.place += len(samples)
            if missing > 0:
                yield np.zeros(missing, np.float32)
            samples = samples[max(-missing, 0) :]
            self.written = max(self.written, self.place)
            if len(samples):
                yield samples


def _silence(like: Any, samples: int) -> Any:
    """Return a silent frame in the format of another."""
    av = load("av", "reading video and sound")
    frame = av.AudioFrame(format=like.format.name, layout=like.layout, samples=samples)
    frame.sample_rate = like.sample_rate
    zero = b"\x80" if like.format.name.startswith("u8") else b"\x00"
    # PyAV counts too many planes where there are eight or more.
    for plane in frame.planes[: like.layout.nb_channels if like.format.is_planar else 1]:
        plane.update(zero * plane.buffer_size)
    return frame
