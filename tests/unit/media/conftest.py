"""Tiny media files, made where they are needed."""

from fractions import Fraction

import numpy as np
import pytest

TICKS = 10_000  # of a picture's clock, a second


def _picture_stream(container, codec, rate, size, rotation, key_every):
    stream = container.add_stream(codec, rate=rate, options={"qp": "0"} if codec == "h264" else {})
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = key_every
    if codec == "h264":  # the older codecs want the clock of their rate
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
    if rotation:
        stream.set_display_rotation(rotation)
    return stream


def _write_pictures(container, stream, pictures, times):
    import av

    for picture, time in zip(pictures, times, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_sound(container, stream, pieces, sound_rate):
    import av

    size = stream.codec_context.frame_size or 1024
    for start, samples in pieces:
        whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        for at in range(0, len(whole), size):
            frame = av.AudioFrame.from_ndarray(whole[None, at : at + size], "s16", "mono")
            frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
            frame.pts = round(start * sound_rate) + at
            container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture
def make_media(tmp_path):
    """Write a media file.

    ``make_media("clip.mp4", pictures=[rgb, ...], rate=10)`` shows them ten a second,
    ``times=`` at times of their own; ``sound=[(start, samples), ...]`` in seconds and -1..1.
    """
    import av

    def make(
        name,
        *,
        pictures=None,
        times=None,
        rate=10,
        picture_codec="h264",
        rotation=0,
        key_every=12,
        sound=None,
        sound_rate=16_000,
        sound_codec="aac",
    ):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = audio = None
            if pictures is not None:
                size = pictures[0].shape[:2]
                video = _picture_stream(container, picture_codec, rate, size, rotation, key_every)
                shown = [at / rate for at in range(len(pictures))] if times is None else times
            if sound is not None:
                audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono")
            if video is not None:
                _write_pictures(container, video, pictures, shown)
            if audio is not None:
                _write_sound(container, audio, sound, sound_rate)
        return path

    return make


@pytest.fixture
def grey_pictures():
    """Pictures that can be told apart: picture ``i`` has grey level ``20 * i + 20``."""

    def make(count, height=32, width=48):
        levels = 20 * np.arange(count, dtype=np.uint8) + 20
        return [np.full((height, width, 3), level, np.uint8) for level in levels]

    return make


@pytest.fixture
def tone():
    """A sine of so many seconds: ``tone(0.5, pitch=440)``, at half the full level."""

    def make(seconds, pitch=440.0, rate=16_000):
        times = np.arange(round(seconds * rate)) / rate
        return 0.5 * np.sin(2 * np.pi * pitch * times)

    return make
