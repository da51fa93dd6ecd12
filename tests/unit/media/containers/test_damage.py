"""Checks of recordings that are complete, cut short or broken."""

import re
import struct

import numpy as np
import pytest

from mmcl.errors import MediaError
from mmcl.media.containers.damage import check_whole


@pytest.fixture
def noise():
    """Pictures that do not compress away."""
    random = np.random.default_rng(3)
    return [random.integers(0, 255, (32, 48, 3), np.uint8) for _ in range(40)]


@pytest.fixture
def recording(make_media, tone, noise):
    """A recording of four seconds."""
    return lambda name: make_media(name, pictures=noise, sound=[(0, tone(4.0))])


def refused(path):
    with pytest.raises(MediaError) as caught:
        check_whole(path)
    first, second = str(caught.value).split("\n")
    if first.startswith(f'"{path.name}" is damaged: '):
        assert second == (
            "  Copy, download or record it again, or keep what is left of it: "
            f'ffmpeg -i "{path.name}" kept.mp4'
        )
    return first


def damage(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return refused(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.ts"])
def test_whole(recording, name):
    check_whole(recording(name))


@pytest.mark.parametrize(("name", "codec"), [("tone.wav", "pcm_s16le"), ("tone.m4a", "aac")])
def test_whole_sound(make_media, tone, name, codec):
    check_whole(make_media(name, sound=[(0, tone(1.0))], sound_codec=codec))


def test_sound_that_begins_late_is_whole(make_media, tone, grey_pictures):
    check_whole(make_media("late.mp4", pictures=grey_pictures(40), sound=[(2, tone(1.0))]))


def test_cover_of_a_song_is_whole(tmp_path, tone):
    import av

    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as sink:
        sound = sink.add_stream("mp3", rate=16_000, layout="mono")
        cover = sink.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sink.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        sink.mux(cover.encode(None))
        samples = (tone(1.0) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16_000
        sink.mux(sound.encode(frame))
        sink.mux(sound.encode(None))
    check_whole(path)


def test_cover_alone(tmp_path):
    import av

    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as sink:
        cover = sink.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sink.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        sink.mux(cover.encode(None))
    assert refused(path) == '"cover.mp4" is damaged: nothing in it can be decoded.'


def test_packet_that_cannot_be_decoded(recording):
    path = recording("clip.mp4")
    begin = path.read_bytes().index(b"mdat")

    def change(content):
        middle = begin + (len(content) - begin) // 2
        content[middle : middle + 400] = bytes(400)

    found = damage(path, change)
    assert re.search(r"a packet of its pictures cannot be decoded in full at [1-3]\.\d\d s", found)


def test_sound_that_cannot_be_decoded(recording):
    import av

    path = recording("clip.mp4")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    broken = packets[len(packets) // 2]

    def change(content):
        content[broken.pos : broken.pos + broken.size] = b"\xff" * broken.size

    found = damage(path, change)
    at = float(broken.pts * broken.time_base)
    assert found == (
        f'"clip.mp4" is damaged: a packet of its sound cannot be decoded at {at:.2f} s.'
    )


def test_packet_that_goes_on_beyond_the_file(recording):
    def change(content):
        at = content.rindex(b"stsz") + 12  # how many packets there are, and how large each is
        (count,) = struct.unpack(">I", content[at : at + 4])
        content[at + 4 * count : at + 4 * count + 4] = struct.pack(">I", 2**20)

    found = damage(recording("clip.mp4"), change)
    assert re.search(r"a packet of its sound is incomplete at [34]\.\d\d s", found)


@pytest.mark.parametrize("percent", [5, 10, 15, 20, 25])
def test_broadcast_may_begin_in_the_middle_of_a_picture(make_media, tone, noise, percent):
    content = {"pictures": noise, "sound": [(0, tone(1.6))], "sound_codec": "mp2"}
    path = make_media("clip.mpg", rate=25, picture_codec="mpeg2video", **content)
    whole = path.read_bytes()
    path.write_bytes(whole[len(whole) * percent // 100 :])
    check_whole(path)


def test_sound_shorter_than_it_says(make_media, tone):
    def change(content):
        at = content.index(b"stsc") + 16  # packets in the first chunk, which is the only one
        (count,) = struct.unpack(">I", content[at : at + 4])
        content[at : at + 4] = struct.pack(">I", count // 2)

    found = damage(make_media("tone.m4a", sound=[(0, tone(4.0))]), change)
    assert re.search(r"there are [12]\.\d\d s of its sound in place of 4\.\d\d s", found)


def test_codec_that_nobody_knows(recording):
    def change(content):
        at = content.index(b"avc1", content.index(b"stsd"))
        content[at : at + 4] = b"zzzz"

    found = damage(recording("clip.mp4"), change)
    assert found == '"clip.mp4" is damaged: nothing says how its pictures can be decoded.'


def test_noise_behind_the_head_of_a_song(tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(b"fLaC\x00\x00\x00\x22" + np.random.default_rng(1).bytes(5000))
    assert refused(path) == '"song.flac" is damaged: nothing of its sound can be decoded.'


def test_cut_in_the_middle(recording):
    def change(content):
        del content[len(content) * 6 // 10 :]

    found = damage(recording("clip.mkv"), change)
    assert re.search(r"it ends at 2\.\d\d s of 4\.\d\d s", found)


def test_last_byte_of_an_mp4_is_missing(recording):
    found = damage(recording("clip.mp4"), lambda content: content.pop())
    assert found == '"clip.mp4" is damaged: its part "moov" is cut short.'


def test_pictures_of_an_absurd_size(recording):
    def change(content):
        at = content.index(b"avc1", content.index(b"stsd")) + 28
        content[at : at + 4] = b"\xff" * 4

    found = damage(recording("clip.mp4"), change)
    assert found == (
        '"clip.mp4" is damaged: FFmpeg says of it, Picture size 65535x65535 is invalid.'
    )


def test_same_fault_is_found_again(recording):
    def change(content):
        at = content.index(b"avc1", content.index(b"stsd")) + 28
        content[at : at + 4] = b"\xff" * 4

    path = recording("clip.mp4")
    assert damage(path, change) == refused(path)


def test_what_is_no_recording_at_all(tmp_path):
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"")
    assert refused(path) == '"talk.mp4" is empty (0 bytes); expected a video or a sound.'


def test_messages_of_ffmpeg_are_as_before(recording):
    import av

    before = av.logging.get_level(), av.logging.get_skip_repeated()
    try:
        for kept in ((None, True), (av.logging.FATAL, False)):
            av.logging.set_level(kept[0])
            av.logging.set_skip_repeated(kept[1])
            check_whole(recording("clip.mp4"))
            assert (av.logging.get_level(), av.logging.get_skip_repeated()) == kept
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])
