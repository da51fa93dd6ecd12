"""Small media files, written where a test needs them."""

from fractions import Fraction

import numpy as np

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
    layout = stream.codec_context.layout
    for start, samples in pieces:
        whole = np.round(np.clip(np.atleast_2d(samples), -1, 1) * 32767).astype(np.int16)
        for at in range(0, whole.shape[1], size):
            part = np.ascontiguousarray(whole[:, at : at + size].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, "s16", layout)
            frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
            frame.pts = round(start * sound_rate) + at
            container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_media(
    path,
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
    sound_layout="mono",
):
    """Write a media file, whose pictures are shown ``rate`` a second or at ``times`` of their own.

    The sound is pieces ``(start, samples)``, in seconds and -1..1; with a ``sound_layout`` of
    several channels the samples are ``[channels, k]``.
    """
    import av

    with av.open(str(path), "w") as container:
        video = audio = None
        if pictures is not None:
            size = pictures[0].shape[:2]
            video = _picture_stream(container, picture_codec, rate, size, rotation, key_every)
            shown = [at / rate for at in range(len(pictures))] if times is None else times
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate, layout=sound_layout)
        if video is not None:
            _write_pictures(container, video, pictures, shown)
        if audio is not None:
            _write_sound(container, audio, sound, sound_rate)
    return path
