"""Channels that cancel each other out are found, and others are left as they are."""

import os

import numpy as np
import pytest

from mmcl.errors import MediaError
from mmcl.media.containers import channels as home
from mmcl.media.containers.channels import Channels, channels_of
from mmcl.media.containers.sound import audio_blocks, read_audio

RATE = 16_000


@pytest.fixture
def voice():
    """Four seconds that change their loudness as speech does, never louder than a half."""
    draw = np.random.default_rng(7)
    loudness = np.abs(np.sin(np.arange(4 * RATE) / 3000))
    return 0.5 * loudness * draw.uniform(-1, 1, 4 * RATE)


@pytest.fixture
def write(make_media):
    def write(*channels, name="a.wav", layout="stereo", codec="pcm_s16le", **content):
        sound = [(0.0, np.stack(channels))]
        return make_media(
            name, sound=sound, sound_codec=codec, sound_layout=layout, sound_rate=RATE, **content
        )

    return write


# Upside down


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mka", "pcm_s16le")],
)
def test_one_channel_upside_down_is_read_as_the_other(write, voice, name, codec):
    path = write(voice, -voice, name=name, codec=codec)
    found = channels_of(path)
    assert found == Channels(2, 0, pytest.approx(4.0), 0.0)
    assert found.note == (
        "its two channels cancel each other out in 4.0 s (one of them is upside down): "
        "the left channel is read alone"
    )
    np.testing.assert_allclose(read_audio(path), voice, atol=2 / 32768)  # 16 bits, rounded


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_codecs_that_lose_something_change_nothing(make_media, voice, codec, grey_pictures):
    finer = np.repeat(voice, 3)

    def power(right):
        path = make_media(
            "a.mkv",
            pictures=grey_pictures(8),
            sound=[(0.0, np.stack([finer, right]))],
            sound_codec=codec,
            sound_layout="stereo",
            sound_rate=48_000,
        )
        return channels_of(path).read_alone, np.square(read_audio(path)).mean()

    (mean, right_way), (alone, upside_down) = power(finer), power(-finer)
    assert (mean, alone) == (None, 0)
    assert upside_down == pytest.approx(right_way, rel=0.1)  # codecs share bits differently


@pytest.mark.parametrize("gain", [0.9, 0.75, 1.2])
def test_another_loudness_and_noise_of_their_own_change_nothing(write, voice, gain):
    draw = np.random.default_rng(8)
    hiss = 0.01 * draw.normal(size=(2, len(voice)))
    assert channels_of(write(voice + hiss[0], -gain * voice + hiss[1])).read_alone == 0


def test_a_channel_upside_down_for_a_while_is_enough(write, voice):
    other = voice.copy()
    other[:RATE] *= -1
    found = channels_of(write(voice, other))
    assert found.read_alone == 0
    assert found.cancelled == pytest.approx(1.0, abs=0.51)  # a window at either end
    assert found.lost == 0


def test_the_channel_that_loses_least_is_read(write, voice):
    left = voice.copy()
    left[2 * RATE :] = 0  # as after a plug fell out
    found = channels_of(write(left, -voice))
    assert found.read_alone == 1
    assert found.note == (
        f"its two channels cancel each other out in {found.cancelled:.1f} s (one of them is upside "
        "down): the right channel is read alone"
    )


def test_what_is_lost_even_so_is_said(write, voice):
    second = RATE
    left, right = voice.copy(), voice.copy()
    left[:second] = 0  # somebody at the right alone, then nobody at the right
    right[second : 2 * second] = 0
    right[2 * second :] *= -1  # then both, upside down
    found = channels_of(write(left, right))
    assert (found.read_alone, found.lost) == (0, pytest.approx(1.0, abs=0.51))
    assert found.note.endswith(
        f"the left channel is read alone; {found.lost:.1f} s of the others are lost"
    )


def test_the_mean_is_kept_where_a_channel_would_lose_more(write, voice):
    second = RATE
    left, right = voice.copy(), voice.copy()
    left[: 3 * second // 2] = 0  # two people, each at a microphone, and a moment upside down
    right[3 * second // 2 : 3 * second] = 0
    right[3 * second :] *= -1
    found = channels_of(write(left, right))
    assert found.read_alone is None
    assert 0 < found.cancelled == found.lost
    assert found.note == (
        f"its two channels cancel each other out in {found.cancelled:.1f} s (one of them is upside "
        "down): they are lost, because no channel by itself holds more"
    )


def test_a_pair_upside_down_among_more_channels(write, voice):
    silence = np.zeros_like(voice)
    five = write(voice, -voice, silence, silence, silence, silence, layout="5.1")
    assert channels_of(five).note == (
        "the mean of its 6 channels loses 4.0 s that one of them holds: channel 1 is read alone"
    )
    np.testing.assert_allclose(read_audio(five), voice, atol=2 / 32768)


# Nothing to say


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(1, 1, id="the same twice"),
        pytest.param(1, 0, id="one silent"),
        pytest.param(0, 1, id="the other silent"),
        pytest.param(1, 0.1, id="one nearly silent"),
        pytest.param(1, -0.3, id="a little of the other, upside down"),
    ],
)
def test_the_mean_of_usual_channels(write, voice, left, right):
    path = write(left * voice, right * voice)
    assert channels_of(path) == Channels(2)
    assert channels_of(path).note is None
    mean = (left + right) / 2 * voice
    np.testing.assert_allclose(read_audio(path), mean, atol=3 / 32768)  # two roundings


def test_two_people_each_at_a_microphone(write, voice):
    left, right = voice.copy(), voice.copy()
    left[2 * RATE :], right[: 2 * RATE] = 0, 0
    assert channels_of(write(left, right)) == Channels(2)


def test_room_noise_that_differs_between_channels(write):
    noise = 0.1 * np.random.default_rng(9).normal(size=(2, 4 * RATE))
    assert channels_of(write(*noise)) == Channels(2)


@pytest.mark.parametrize(("layout", "number"), [("5.1", 6), ("7.1", 8)])
def test_a_voice_in_the_middle_of_a_cinema(write, voice, layout, number):
    channels = [np.zeros_like(voice)] * number
    channels[2] = voice  # left, right, middle, ...
    path = write(*channels, layout=layout)
    assert channels_of(path) == Channels(number)
    assert np.abs(read_audio(path)).max() > 0.05


@pytest.mark.parametrize("layout", ["3.0", "quad"])
def test_unusual_numbers_of_channels(write, voice, layout):
    number = {"3.0": 3, "quad": 4}[layout]
    assert channels_of(write(*[voice] * number, layout=layout)) == Channels(number)


def test_silence_and_hum_too_quiet_to_judge(write, voice):
    assert channels_of(write(0 * voice, 0 * voice)) == Channels(2)
    quiet = np.concatenate([voice, 0.008 * voice])  # as of a hum between sentences
    other = np.concatenate([voice, -0.008 * voice])
    assert channels_of(write(quiet, other)) == Channels(2)


def test_one_channel_or_none_is_not_listened_to(make_media, tone, grey_pictures, monkeypatch):
    monkeypatch.setattr(home, "_choice", None)
    mono = make_media("a.wav", sound=[(0, tone(0.2))], sound_codec="pcm_s16le")
    assert channels_of(mono) == Channels(1)
    assert channels_of(make_media("a.mp4", pictures=grey_pictures(3))) == Channels(0)


# The same for every stretch


@pytest.mark.parametrize("start", [0.0, 0.3, 1.25, 3.21])
def test_a_stretch_is_read_as_the_whole_is(write, voice, start):
    other = voice.copy()
    other[:RATE] *= -1  # nothing is upside down in the later stretches
    path = write(voice, other)
    whole = read_audio(path)
    at = round(start * RATE)
    np.testing.assert_array_equal(read_audio(path, start, start + 0.5), whole[at : at + 8000])
    blocks = list(audio_blocks(path, start, block_seconds=0.7))
    np.testing.assert_array_equal(np.concatenate(blocks), whole[at:])


def test_a_gap_in_the_sound(make_media, voice):
    path = make_media(
        "a.mka",
        sound=[(0.5, np.stack([voice, -voice])), (6.0, np.stack([voice, -voice]))],
        sound_codec="pcm_s16le",
        sound_layout="stereo",
    )
    assert channels_of(path).read_alone == 0
    found = read_audio(path)
    np.testing.assert_allclose(found[6 * RATE :], voice, atol=2 / 32768)
    assert not found[: RATE // 2].any()
    assert not found[9 * RATE // 2 : 6 * RATE].any()


def test_a_file_is_listened_to_once_and_again_when_it_changed(write, voice, monkeypatch):
    listened = []
    original = home._windows
    monkeypatch.setattr(home, "_windows", lambda path: listened.append(path) or original(path))
    path = write(voice, voice)
    os.utime(path, ns=(10**18, 10**18))
    assert channels_of(path) == channels_of(path) == Channels(2)
    assert len(listened) == 1
    path = write(voice, -voice)
    assert channels_of(path).read_alone == 0


def test_sound_that_cannot_be_decoded(tmp_path):
    head = (
        b"fLaC\x80\x00\x00\x22" + bytes.fromhex("1000100000000000000003e802f000000000") + bytes(16)
    )
    path = tmp_path / "song.flac"
    path.write_bytes(head + np.random.default_rng(1).bytes(5000))
    with pytest.raises(MediaError) as caught:
        channels_of(path)
    assert str(caught.value) == (
        '"song.flac" has sound, but nothing of it can be decoded: the file is damaged or cut short.'
        "\n  Copy, download or record it again."
    )


def test_eight_channels_that_begin_late(make_media, voice, grey_pictures):
    """Each lies in a plane of its own."""
    eight = np.stack([np.repeat(voice, 3)] * 8)
    path = make_media(
        "a.mp4",
        pictures=grey_pictures(10),
        sound=[(0.3011, eight)],
        sound_codec="aac",
        sound_layout="7.1",
        sound_rate=48_000,
    )
    assert channels_of(path) == Channels(8)
    found = read_audio(path)
    assert np.abs(found[: RATE // 4]).max() < 1e-3
    assert np.abs(found[RATE // 2 :]).max() > 0.2
