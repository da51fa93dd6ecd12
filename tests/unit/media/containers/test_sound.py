"""Sound: one channel of 16 kHz without gaps, on the file's own clock."""

import resource

import numpy as np
import pytest

from mmcl.media.containers.decode import probe
from mmcl.media.containers.sound import audio_blocks, read_audio

RATE = 16_000


def wav(make_media, pieces, rate=RATE):
    return make_media("a.wav", sound=pieces, sound_rate=rate, sound_codec="pcm_s16le")


def test_sound_comes_as_it_was_written(make_media, tone):
    samples = tone(0.5)
    found = read_audio(wav(make_media, [(0, samples)]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, samples, atol=2 / 32768)  # 16 bits, rounded


def test_sound_of_another_rate_keeps_its_place(make_media, tone):
    path = wav(make_media, [(0, tone(0.5, rate=44_100))], rate=44_100)
    found = read_audio(path)
    assert len(found) == 8000
    # Away from the ends, where the resampler's filter reaches over them.
    np.testing.assert_allclose(found[100:-100], tone(0.5)[100:-100], atol=2e-3)


def test_two_channels_are_averaged(tmp_path):
    import av

    path = tmp_path / "two.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        both = np.array([[20_000, -10_000] * 800], np.int16)
        frame = av.AudioFrame.from_ndarray(both, "s16", "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read_audio(path), np.full(800, 5000 / 32768), atol=2 / 32768)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mp4", "aac"), ("a.mkv", "libopus")]
)
def test_late_start_and_gap_are_silence(make_media, tone, grey_pictures, name, codec):
    pieces = [(0.5, tone(0.512)), (1.5, tone(0.512))]
    rate = 48_000 if codec == "libopus" else RATE
    if codec == "libopus":
        pieces = [(start, tone(0.5, rate=rate)) for start, _ in pieces]
    path = make_media(
        name, pictures=grey_pictures(10), sound=pieces, sound_codec=codec, sound_rate=rate
    )
    found = read_audio(path)
    loud = np.abs(found.reshape(-1)[: len(found) // 800 * 800].reshape(-1, 800)).max(axis=1)
    starts = [at * 0.05 for at in range(1, len(loud)) if loud[at] > 0.2 >= loud[at - 1]]
    assert starts == pytest.approx([0.5, 1.5], abs=0.051)  # one block


def test_exact_place_of_a_click_after_a_gap(make_media, grey_pictures):
    click = np.zeros(1600)
    click[400] = 0.9
    path = make_media(
        "a.mkv",
        pictures=grey_pictures(5),
        sound=[(0.3, np.zeros(160)), (1.25, click)],
        sound_codec="pcm_s16le",
    )
    assert int(read_audio(path).argmax()) == 1.25 * RATE + 400


def test_a_clock_that_jumps_by_an_hour_is_not_believed(make_media, tone):
    pieces = [(0.0, tone(0.512)), (3600.0, tone(0.512))]
    path = make_media("a.mkv", sound=pieces, sound_codec="pcm_s16le")
    assert len(read_audio(path)) == 2 * 8192


def test_silence_before_unsigned_samples_is_silent(make_media, grey_pictures):
    rate = 11_025  # 301 ms are no whole number of its samples
    path = make_media(
        "a.mkv",
        pictures=grey_pictures(5),
        sound=[(0.301, np.zeros(2048))],
        sound_codec="pcm_u8",
        sound_rate=rate,
    )
    found = read_audio(path)
    assert len(found) > 0.45 * RATE
    assert np.abs(found).max() < 0.02  # two of 256 steps


def test_a_rate_that_changes_on_the_way(tone):
    import av

    from mmcl.media.containers.sound import _GaplessSound

    line, pieces = _GaplessSound(0, None), []
    for time, rate, layout in ((0.0, 44_100, "mono"), (0.1, 8000, "stereo")):
        channels = 1 if layout == "mono" else 2
        whole = np.round(tone(0.1, pitch=100, rate=rate) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(whole, channels)[None], "s16", layout)
        frame.sample_rate = rate
        pieces += [*line.add(frame, time)]
    found = np.concatenate([*pieces, *line.finish()])
    assert len(found) == 3200
    # 0.05: near the seam, where one filter ends and the other begins.
    np.testing.assert_allclose(found, tone(0.2, pitch=100), atol=0.05)


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0, 3.21])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.mp4", "aac"),
        ("a.mkv", "pcm_s16le"),
        ("b.wav", "pcm_s16le"),
        ("a.mp3", "mp3"),
        ("a.ogg", "libopus"),
        ("a.mpg", "mp2"),
    ],
)
def test_sound_from_the_middle_is_that_of_the_whole(make_media, name, codec, start):
    rate = {"libopus": 48_000, "mp2": 44_100}.get(codec, RATE)
    rate = 44_100 if name == "b.wav" else rate
    noise = np.random.default_rng(4).normal(size=4 * rate) / 5
    if codec == "mp3":  # it fills what its bits cannot hold by chance
        noise = np.cumsum(noise) / 100
    path = make_media(name, sound=[(0, noise)], sound_codec=codec, sound_rate=rate)
    whole = read_audio(path)
    found = read_audio(path, start, start + 0.5)
    assert len(found) == 8000
    at = round(start * RATE)
    # Lossy codecs and the resampler start afresh half a second earlier: no bit-exactness.
    np.testing.assert_allclose(found, whole[at : at + 8000], atol=0.01)


def test_blocks_joined_are_the_whole(make_media, tone):
    path = wav(make_media, [(0, tone(1.3))])
    blocks = list(audio_blocks(path, block_seconds=0.5))
    assert [len(block) for block in blocks] == [8000, 8000, 4800]
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(path))


def test_sound_of_fifty_milliseconds(make_media, tone):
    path = wav(make_media, [(0, tone(0.05))])
    assert probe(path).duration == 0.05
    assert len(read_audio(path)) == 800
    assert [len(block) for block in audio_blocks(path)] == [800]


def test_no_sound(make_media, grey_pictures):
    path = make_media("clip.mp4", pictures=grey_pictures(3))
    assert read_audio(path).shape == (0,)
    assert list(audio_blocks(path)) == []


def test_a_stretch_past_the_end_is_empty(make_media, tone):
    path = wav(make_media, [(0, tone(0.5))])
    assert len(read_audio(path, 3.0, 4.0)) == 0
    assert len(read_audio(path, 0.25, 4.0)) == 4000


def test_memory_stays_flat_over_half_an_hour(tmp_path):
    import wave

    path = tmp_path / "long.wav"
    second = np.zeros(RATE, np.int16).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(1800):
            file.writeframes(second)
    blocks = audio_blocks(path)
    next(blocks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(map(len, blocks)) == 1770 * RATE
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40_000  # KiB; all of it would be 115,200
