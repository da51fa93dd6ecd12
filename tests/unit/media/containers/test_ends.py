"""Where files end, by their packets and by their headers: whole, cut short, and odd ones."""

import math
import struct

import numpy as np
import pytest

from fakes.recordings import write_media
from mmcl.errors import MediaError
from mmcl.media.containers.ends import Ends, ends_of
from mmcl.media.containers.sound import read_audio

SECONDS = 4.0
SOUNDS = [
    ("a.wav", {"sound_codec": "pcm_s16le"}),
    ("a.flac", {"sound_codec": "flac"}),
    ("a.mp3", {"sound_codec": "mp3"}),
    ("a.mp3", {"sound_codec": "mp3", "sound_rate": 44_100}),
    ("a.aiff", {"sound_codec": "pcm_s16be"}),
    ("a.mka", {"sound_codec": "pcm_s16le"}),
]
PICTURES = [
    ("p.mkv", {}),
    ("p.webm", {"picture_codec": "libvpx", "sound_codec": "libopus", "sound_rate": 48_000}),
    ("p.avi", {"picture_codec": "mpeg4", "sound_codec": "mp3"}),
    ("p.mp4", {}),
    ("p.mov", {}),
]
WHOLE_ONLY = [
    ("a.ogg", {"sound_codec": "libopus", "sound_rate": 48_000}),
    ("a.aac", {}),
    ("p.ts", {}),
    ("p.mpg", {"rate": 25, "picture_codec": "mpeg2video", "sound_codec": "mp2"}),
]


@pytest.fixture
def record(tmp_path):
    """Write four seconds of noise, which does not compress away; an mp4 with its index first."""
    draw = np.random.default_rng(3)

    def record(name, rate=10, sound_rate=16_000, **content):
        if name.startswith("p"):
            content["pictures"] = [
                draw.integers(0, 255, (32, 48, 3), np.uint8) for _ in range(round(SECONDS * rate))
            ]
        noise = 0.1 * draw.normal(size=round(SECONDS * sound_rate))
        content = {"sound": [(0.0, noise)], "rate": rate, "sound_rate": sound_rate, **content}
        path = write_media(tmp_path / name, **content)
        return with_index_first(path) if name.endswith(("mp4", "mov", "m4a")) else path

    return record


def with_index_first(path):
    import av

    first = path.with_name(f"first {path.name}")
    with (
        av.open(str(path)) as source,
        av.open(str(first), "w", options={"movflags": "faststart"}) as sink,
    ):
        streams = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                sink.mux(packet)
    return first


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


def notes(path, start=0.0, wanted=math.inf):
    return ends_of(path).notes(start, wanted)


# Files


@pytest.mark.parametrize(("name", "content"), SOUNDS + PICTURES + WHOLE_ONLY)
def test_nothing_is_said_of_a_whole_file(record, name, content):
    path = record(name, **content)
    assert notes(path) == []
    assert not ends_of(path).is_short
    assert ends_of(path).last == pytest.approx(SECONDS, abs=0.15)  # a codec's padding


@pytest.mark.parametrize(("name", "content"), SOUNDS + PICTURES)
def test_a_file_that_ends_before_its_header_says(record, name, content):
    found = ends_of(cut(record(name, **content)))
    assert found.is_short
    assert found.stated == pytest.approx(SECONDS, abs=0.15)
    assert found.last == pytest.approx(0.6 * SECONDS, abs=0.6)  # of its bytes; headers fill some
    assert found.notes(0.0, math.inf)[0] == (
        f"it ends at {found.last:.1f} of {found.stated:.1f} s: the rest is missing"
    )


@pytest.mark.parametrize(
    ("name", "codec", "off"),
    [
        ("a.wav", "pcm_s16le", 0.001),
        ("a.flac", "flac", 0.073),
        ("a.mka", "aac", 0.065),
        ("a.m4a", "aac", 0.001),
    ],
)
def test_the_end_is_that_of_what_can_be_decoded(record, name, codec, off):
    path = cut(record(name, sound_codec=codec))
    # The last packet of AAC (64 ms) and FLAC (72 ms) may not be decoded.
    assert ends_of(path).audio == pytest.approx(len(read_audio(path)) / 16_000, abs=off)


def test_ogg_that_breaks_off_within_a_page(record):
    path = cut(record("a.ogg", sound_codec="libopus", sound_rate=48_000))
    found = ends_of(path)
    assert (found.stated, found.is_cut) == (None, True)
    assert notes(path) == [f"it is cut short, at {found.audio:.1f} s"]


def test_an_mp3_behind_a_large_cover(record):
    path = record("a.mp3", sound_codec="mp3")
    size = 9000
    title = b"ID3\x04\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(
        title + bytes(size) + path.read_bytes().partition(b"\xff")[2].join([b"\xff", b""])
    )
    assert ends_of(path).stated == pytest.approx(SECONDS, abs=0.15)
    assert ends_of(cut(path, 0.7)).is_short


def test_an_mp3_whose_length_is_only_guessed_is_not_doubted(record):
    path = record("a.mp3", sound_codec="mp3")
    path.write_bytes(path.read_bytes().replace(b"Xing", b"nope").replace(b"Info", b"nope"))
    assert ends_of(path).stated is None
    assert notes(cut(path)) == []


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000])
def test_a_wav_that_was_written_to_a_pipe(record, size):
    path = record("a.wav", sound_codec="pcm_s16le")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert ends_of(path).stated is None
    assert notes(path) == []


def test_a_wav_with_a_title_before_its_samples(record):
    path = record("a.wav", sound_codec="pcm_s16le")
    content = path.read_bytes()
    title = b"LIST" + struct.pack("<I", 7) + b"INFOabc\0"  # of odd length: a byte follows
    path.write_bytes(content[:12] + title + content[12:])
    assert ends_of(path).stated == SECONDS
    assert ends_of(cut(path)).is_short


def test_sound_that_ends_long_before_the_pictures(make_media, grey_pictures, tone):
    path = make_media("a.mp4", pictures=grey_pictures(40), sound=[(0, tone(2.0))])
    assert notes(path) == ["its sound ends at 2.0 of 4.0 s"]
    assert notes(path, 0.0, 2.5) == []


def test_pictures_that_end_long_before_the_sound(make_media, grey_pictures, tone):
    path = make_media("a.mkv", pictures=grey_pictures(10), sound=[(0, tone(4.0))])
    found = ends_of(path)
    assert notes(path) == [f"its pictures end at 1.0 of {found.audio:.1f} s"]


def test_sound_that_begins_late_or_ends_a_little_early(make_media, grey_pictures, tone):
    assert notes(make_media("a.mp4", pictures=grey_pictures(40), sound=[(2, tone(1.5))])) == []


def test_pictures_at_a_varying_rate(make_media, grey_pictures, tone):
    times = [0.0, 0.05, 0.9, 1.0, 2.4, 2.5, 3.7, 3.9]
    path = make_media("a.mp4", pictures=grey_pictures(8), times=times, sound=[(0, tone(4.0))])
    assert notes(path) == []


def test_a_clock_that_starts_late(make_media, grey_pictures, tone):
    late = [10 + at / 10 for at in range(40)]
    path = make_media("a.ts", pictures=grey_pictures(40), times=late, sound=[(10, tone(4.0))])
    assert ends_of(path).last == pytest.approx(4.0, abs=0.2)
    assert notes(path) == []


def test_packets_without_times_are_not_judged(make_media, grey_pictures):
    path = make_media("a.h264", pictures=grey_pictures(10))
    assert ends_of(path) == Ends(None, None, math.inf)
    assert notes(path) == []


def test_the_cover_of_a_song_is_no_picture(record):
    assert ends_of(record("a.flac", sound_codec="flac")).video is None


def test_what_is_no_recording(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(MediaError) as caught:
        ends_of(tmp_path / "a.mp4")
    assert str(caught.value).startswith('"a.mp4" is empty (0 bytes)')


# Notes


def test_a_stretch_before_the_end_is_not_short_of_anything():
    short = Ends(stated=9.0, audio=5.0, video=5.4)
    assert short.notes(0.0, 5.2) == []
    assert short.notes(0.0, 6.0) == ["it ends at 5.4 of 9.0 s: the rest is missing"]


def test_rounding_is_no_missing_end():
    assert Ends(stated=9.0, audio=8.8, video=None).notes(0.0, 9.0) == []
    assert Ends(stated=9.0, audio=8.7, video=None).is_short


def test_pictures_without_times_tell_nothing_of_the_sound():
    assert Ends(stated=None, audio=1.0, video=math.inf).notes(0.0, math.inf) == []


def test_both_are_said():
    assert Ends(stated=9.0, audio=1.0, video=5.4).notes(0.0, 9.0) == [
        "it ends at 5.4 of 9.0 s: the rest is missing",
        "its sound ends at 1.0 of 5.4 s",
    ]
