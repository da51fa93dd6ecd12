"""Frames that FFmpeg decodes and cannot convert: the file is named, not FFmpeg's own error."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmcl.errors import MediaError
from mmcl.media.containers import channels, decode, sound

av = pytest.importorskip("av")
ODD = Path("odd.wav")


@pytest.fixture
def many_channels():
    """A frame of 43 channels, for which there is no order of loudspeakers."""
    frame = av.AudioFrame(format="s16", layout="43 channels", samples=16)
    frame.sample_rate = 16_000
    return frame


def refused(use):
    with pytest.raises(MediaError) as caught:
        use()
    return str(caught.value)


def text_of(kind):
    return (
        f'"odd.wav": a part of its {kind} cannot be converted (Invalid argument); '
        "the file may be damaged.\n"
        "  Copy, download or record it again."
    )


def test_sound_of_too_many_channels(monkeypatch, many_channels):
    monkeypatch.setattr(sound, "channels_of", lambda _: channels.Channels(1))
    for module in (sound, channels):
        monkeypatch.setattr(module, "decoded_frames", lambda *_: [(0.0, many_channels)])
    assert refused(lambda: sound.read_audio(ODD)) == text_of("sound")
    assert refused(lambda: channels._choice(ODD, 0, 0)) == text_of("sound")


def test_picture_that_cannot_be_converted(monkeypatch):
    def fail(**_):
        raise av.error.ArgumentError(22, "Invalid argument")

    picture = SimpleNamespace(
        width=4, height=4, rotation=0, duration=1, time_base=0.04, to_ndarray=fail
    )
    monkeypatch.setattr(decode, "decoded_frames", lambda *_: [(0.0, picture)])
    assert refused(lambda: list(decode.frames(ODD))) == text_of("pictures")
