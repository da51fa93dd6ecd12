"""Decoding: what a file holds, its pictures on its own clock, and every kind of bad file."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.containers import decode
from mmcl.media.containers.decode import frames, probe
from mmcl.media.containers.sound import audio_blocks, read_audio

RATE = 16_000


def levels(found):
    """Grey level of each picture, told apart by 20: codecs move it by a few."""
    return [round((float(frame.image.mean()) - 20) / 20) for frame in found]


def times(found):
    return [round(frame.time, 6) for frame in found]


# What a file holds


def test_probe(make_media, grey_pictures, tone):
    path = make_media("clip.mp4", pictures=grey_pictures(10), sound=[(0, tone(0.8))])
    info = probe(path)
    assert info._replace(duration=0) == (0, True, True, 48, 32, 10.0)
    assert info.duration == pytest.approx(1.0, abs=0.01)  # a codec's padding


def test_probe_of_sound_alone(make_media, tone):
    assert probe(make_media("a.wav", sound=[(0, tone(0.5))], sound_codec="pcm_s16le")) == (
        0.5,
        True,
        False,
        0,
        0,
        0.0,
    )


def test_probe_of_a_turned_video_gives_the_upright_size(make_media, grey_pictures):
    info = probe(make_media("clip.mp4", pictures=grey_pictures(3), rotation=90))
    assert (info.width, info.height) == (32, 48)


def test_duration_where_the_header_does_not_say(tmp_path, tone):
    import av

    path = tmp_path / "live.webm"
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        for at in range(50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 48_000, at * 960
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is None
    assert probe(path).duration == pytest.approx(1.0, abs=0.03)  # a packet of 20 ms


def test_cover_of_a_song_is_no_video(tmp_path, tone, grey_pictures):
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey_pictures(1)[0], "rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    assert not probe(path).has_video
    assert list(frames(path)) == []


# Pictures


def test_frames_at_the_times_asked_for(make_media, grey_pictures):
    path = make_media("clip.mp4", pictures=grey_pictures(10), rate=20)
    found = list(frames(path, rate=10))
    assert times(found) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert levels(found) == [0, 2, 4, 6, 8]
    image = found[0].image
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]


def test_frames_of_a_varying_rate_hold_the_last_picture(make_media, grey_pictures):
    path = make_media("clip.mp4", pictures=grey_pictures(4), times=[0.0, 0.05, 0.33, 0.5])
    found = list(frames(path, rate=10, end=0.6))
    assert times(found)[:6] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert levels(found)[:6] == [0, 1, 1, 1, 2, 3]


def test_frames_more_often_than_there_are_pictures(make_media, grey_pictures):
    path = make_media("clip.mp4", pictures=grey_pictures(2), rate=5)
    found = list(frames(path, rate=10))
    assert levels(found) == [0, 0, 1, 1]
    assert found[0].image is found[1].image  # converted once


def test_no_picture_before_the_first(make_media, grey_pictures, tone):
    path = make_media(
        "clip.mkv",
        pictures=grey_pictures(3),
        times=[0.25, 0.35, 0.45],
        sound=[(0, tone(0.6))],
    )
    found = list(frames(path, rate=10))
    assert times(found)[:2] == [0.3, 0.4]
    assert levels(found)[:2] == [0, 1]


def test_a_clock_that_starts_late_is_set_to_nought(make_media, grey_pictures):
    late = [2 + at / 10 for at in range(10)]
    path = make_media("clip.ts", pictures=grey_pictures(10), times=late)
    assert times(frames(path))[:3] == [0.0, 0.1, 0.2]
    assert levels(frames(path, start=0.7))[0] == 7


def test_a_stream_without_times_goes_by_its_rate(make_media, grey_pictures):
    path = make_media("clip.h264", pictures=grey_pictures(10), rate=25)
    assert levels(frames(path, rate=25)) == list(range(10))


@pytest.mark.parametrize("start", [0.0, 0.35, 1.0, 1.45, 2.04])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.mpg"])
def test_frames_from_the_middle_are_those_of_the_whole(make_media, name, start):
    random = np.random.default_rng(5)  # noise, so that a picture fills more than a packet
    pictures = [random.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(60)]
    codec = "mpeg1video" if name.endswith("mpg") else "h264"
    every = 40 if name.endswith("mpg") else 12  # a seek in mpg lands after what was asked for
    path = make_media(name, pictures=pictures, rate=25, picture_codec=codec, key_every=every)
    whole = list(frames(path, rate=10))
    found = list(frames(path, rate=10, start=start, end=2.2))
    expected = [each for each in whole if start <= each.time < 2.2]
    assert times(found) == times(expected)
    assert [each.image.mean() for each in found] == [each.image.mean() for each in expected]


def test_a_seek_that_lands_too_late_is_made_good(make_media, grey_pictures, monkeypatch):
    path = make_media("clip.mp4", pictures=grey_pictures(12))
    original, calls = decode._timed_frames, []

    def late(*given):
        calls.append(given)
        return (each for each in original(*given) if len(calls) > 1 or each[0] > 0.95)

    monkeypatch.setattr(decode, "_timed_frames", late)
    assert levels(frames(path, start=0.8)) == [8, 9, 10, 11]
    assert len(calls) == 2


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_frames_are_upright(make_media, rotation, corner):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:8, :8] = 255  # top left, before the player turns it counterclockwise
    (frame, *_) = frames(make_media("clip.mp4", pictures=[picture] * 2, rotation=rotation))
    assert frame.image.shape == ((32, 48, 3) if rotation == 180 else (48, 32, 3))
    assert frame.image[corner].min() > 200
    assert frame.image.mean() < 40
    assert frame.image.flags["C_CONTIGUOUS"]


def test_tall_pictures_are_scaled_down(make_media, grey_pictures):
    (frame, *_) = frames(make_media("clip.mp4", pictures=grey_pictures(2, 1080, 1920)))
    assert frame.image.shape == (720, 1280, 3)


def test_colours_come_as_red_green_blue(make_media):
    red = np.zeros((32, 48, 3), np.uint8)
    red[..., 0] = 250
    (frame, *_) = frames(make_media("clip.mp4", pictures=[red] * 2))
    # 20: what the colours lose on their way through YUV.
    np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), [250, 0, 0], atol=20)


def test_frames_of_sound_are_none(make_media, tone):
    path = make_media("a.wav", sound=[(0, tone(0.1))], sound_codec="pcm_s16le")
    assert list(frames(path)) == []


# Names and bad files


def test_a_name_with_spaces_colons_and_other_letters(make_media, grey_pictures, tone):
    path = make_media("clip.mp4", pictures=grey_pictures(3), sound=[(0, tone(0.2))])
    other = path.with_name("Ännas Video: 5 % 图.mp4")
    path.rename(other)
    assert probe(other).width == 48
    assert len(read_audio(other)) > 0
    assert len(list(frames(other))) == 3


def test_a_name_that_looks_like_an_address(make_media, monkeypatch, tone):
    path = make_media("a.wav", sound=[(0, tone(0.1))], sound_codec="pcm_s16le")
    path.rename(path.with_name("http: a.wav"))
    monkeypatch.chdir(path.parent)
    assert len(read_audio(Path("http: a.wav"))) == 1600


def test_a_title_that_is_no_utf8(make_media, tone):
    path = make_media("a.wav", sound=[(0, tone(0.1))], sound_codec="pcm_s16le")
    sound = path.read_bytes()
    title = b"LIST" + (4 + 8 + 4).to_bytes(4, "little") + b"INFOINAM" + (4).to_bytes(4, "little")
    path.write_bytes(sound[:12] + title + b"caf\xe9" + sound[12:])
    assert len(read_audio(path)) == 1600


def refused(path, function=probe):
    with pytest.raises(MediaError) as caught:
        list(function(path))
    return str(caught.value)


def test_missing(tmp_path):
    assert refused(tmp_path / "clip.mp4") == (
        f'"clip.mp4": no such file in "{tmp_path}".\n'
        "  Expected a video or a sound, as mp4, webm, mkv, mov, wav or mp3."
    )


def test_folder(tmp_path):
    (tmp_path / "clips").mkdir()
    assert refused(tmp_path / "clips") == (
        '"clips" is a folder; expected a video or a sound.\n'
        f'  Give one of its files: ls "{tmp_path}/clips"'
    )


def test_empty(tmp_path):
    (tmp_path / "clip.mp4").touch()
    assert refused(tmp_path / "clip.mp4") == (
        '"clip.mp4" is empty (0 bytes); expected a video or a sound.\n  Copy or download it again.'
    )


def test_cut_before_the_index(make_media, grey_pictures):
    path = make_media("clip.mp4", pictures=grey_pictures(10))
    path.write_bytes(path.read_bytes()[:600])
    assert refused(path) == (
        '"clip.mp4" is cut short: it begins as an mp4, but its index (moov) is missing.\n'
        "  Nothing can be read without it. Copy, download or record the file again."
    )


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.mp4"])
def test_cut_in_the_middle_gives_what_decodes(make_media, tone, name, tmp_path):
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 255, (32, 48, 3), np.uint8) for _ in range(40)]
    path = make_media(name, pictures=pictures, sound=[(0, tone(4.0))])
    if name.endswith("mp4"):
        path = _with_the_index_first(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    assert 10 < len(list(frames(path))) < 36


def _with_the_index_first(path):
    import av

    other = path.with_name("fast.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(other), "w", options={"movflags": "faststart"}) as sink,
    ):
        streams = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                sink.mux(packet)
    return other


def test_nothing_decodes(make_media, grey_pictures, tone):
    path = make_media("clip.mp4", pictures=grey_pictures(10), sound=[(0, tone(1.0))])
    path = _with_the_index_first(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") + 8])
    for function, what in ((frames, "pictures"), (audio_blocks, "sound")):
        assert refused(path, function) == (
            f'"fast.mp4" has {what}, but nothing of it can be decoded: '
            "the file is damaged or cut short.\n"
            "  Copy, download or record it again."
        )


def test_text_under_another_name(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("Nothing but words.\n" * 50)
    assert refused(path) == (
        '"notes.mp4" is neither a video nor a sound, whatever its name says.\n'
        "  Expected mp4, webm, mkv, mov, wav, mp3 or the like. "
        'See what it is: file "notes.mp4"'
    )


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("notes.txt", "Nothing but words.\n" * 50, "text"),
        ("clip.srt", "1\n00:00:00,000 --> 00:00:01,000\nhi\n", "subtitle"),
    ],
)
def test_neither_pictures_nor_sound(tmp_path, name, text, found):
    path = tmp_path / name
    path.write_text(text)
    assert refused(path) == (
        f'"{name}" holds neither pictures nor sound (found: {found}).\n'
        "  Expected a video or a sound, as mp4, webm, mkv, mov, wav or mp3."
    )


@pytest.mark.parametrize(("name", "codec"), [("face.png", "png"), ("face.jpg", "mjpeg")])
@pytest.mark.parametrize("renamed", [False, True])
def test_picture(tmp_path, name, codec, renamed, grey_pictures):
    import av

    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.time_base = 48, 32, 1
    encoder.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
    picture = av.VideoFrame.from_ndarray(grey_pictures(1)[0], "rgb24")
    (packet,) = encoder.encode(picture.reformat(format=encoder.pix_fmt)) or encoder.encode(None)
    path = tmp_path / ("face.mp4" if renamed else name)
    path.write_bytes(bytes(packet))
    assert refused(path) == (
        f'"{path.name}" is a picture, not a video or a sound.\n'
        "  Expected a recording of someone who speaks."
    )


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1/a.ts\n",
        "<?xml?><MPD></MPD>",
        "ffconcat version 1.0\n",
    ],
)
def test_playlist_reaches_no_other_file(tmp_path, text):
    path = tmp_path / "list.mp4"
    path.write_text(text)
    assert refused(path) == (
        '"list.mp4" is a list of other files; expected a video or a sound.\n'
        "  Give the files it names, one by one."
    )


def test_too_large_pictures(make_media):
    path = make_media("clip.mp4", pictures=[np.zeros((2176, 3840, 3), np.uint8)], key_every=1)
    message = (
        '"clip.mp4" has pictures of 3840x2176 pixels; expected at most as many as 3840x2160.\n'
        '  Make them smaller: ffmpeg -i "clip.mp4" -vf scale=-2:720 smaller.mp4'
    )
    assert refused(path) == message
    assert refused(path, frames) == message


def test_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_text("x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError) as caught:
        probe(tmp_path / "clip.mp4")
    assert str(caught.value) == (
        "reading video and sound needs av, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )
