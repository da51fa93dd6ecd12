"""Voice features: tones with a known answer, then the laws a description of sound must keep."""

import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from mmcl.errors import MediaError, MissingExtraError
from mmcl.media import voice
from mmcl.media.voice import (
    EGEMAPS_COLUMNS,
    VOICE_COLUMNS,
    egemaps_steps,
    voice_steps,
    voice_steps_of_blocks,
    voice_times,
)

RATE = 16_000
INNER = slice(5, -5)  # steps whose 50 ms of sound do not reach over an end


def tone(hertz, seconds=0.5, loudness=0.3, harmonics=1):
    time = np.arange(round(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, harmonics + 1)]
    return (loudness * np.sum(parts, axis=0)).astype(np.float32)


def noise(seconds, loudness=0.1):
    random = np.random.default_rng(5)
    return (loudness * random.normal(size=round(seconds * RATE))).astype(np.float32)


def column(steps, name):
    return steps[:, VOICE_COLUMNS.index(name)]


def test_columns_are_as_many_as_named():
    steps = voice_steps(noise(0.3))
    assert steps.shape == (30, 48)
    assert steps.dtype == np.float32
    assert len(set(VOICE_COLUMNS)) == 48


@pytest.mark.parametrize("harmonics", [1, 8])
@pytest.mark.parametrize("hertz", [65, 82.4, 110, 147, 220, 311, 440, 490])
def test_pitch_of_a_tone(hertz, harmonics):
    steps = voice_steps(tone(hertz, harmonics=harmonics) + noise(0.5, 0.003))[INNER]
    np.testing.assert_allclose(np.exp(column(steps, "log_f0")), hertz, rtol=0.01)
    assert column(steps, "voicing").min() > 0.9


def test_pitch_of_a_glide_is_followed():
    hertz = np.linspace(120, 240, 2 * RATE)
    audio = (0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)).astype(np.float32)
    found = np.exp(column(voice_steps(audio)[INNER], "log_f0"))
    true = np.interp(voice_times(200)[INNER], np.arange(2 * RATE) / RATE, hertz)
    np.testing.assert_allclose(found, true, rtol=0.01)


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(np.zeros(RATE, np.float32), id="silence"),
        pytest.param(np.full(RATE, 0.2, np.float32), id="offset"),
        pytest.param(noise(1.0), id="noise"),
        pytest.param(tone(200, 1.0, loudness=1e-4), id="inaudible"),
        pytest.param(tone(200, 1.0, loudness=1e-4) + np.float32(0.1), id="inaudible-offset"),
    ],
)
def test_what_has_no_pitch_is_unvoiced(audio):
    steps = voice_steps(audio)
    assert np.isfinite(steps).all()
    # Sound starts and ends at once, and an edge may look like anything.
    assert not column(steps[INNER], "log_f0").any()
    assert column(steps[INNER], "voicing").max() < 0.5


def test_silence_is_the_floor():
    steps = voice_steps(np.zeros(RATE, np.float32))
    assert (column(steps, "log_energy") == -100).all()
    assert not column(steps, "centroid").any()
    assert not column(steps, "zero_crossings").any()


def test_sine_worked_by_hand():
    # Mean square of a sine of height .3: .045, -13.47 dB. 1000 Hz cross zero 2000 times a second.
    steps = voice_steps(tone(1000, 1.0))[INNER]
    np.testing.assert_allclose(column(steps, "log_energy"), 10 * np.log10(0.045), atol=0.01)
    np.testing.assert_allclose(column(steps, "zero_crossings"), 2000 / RATE, atol=1 / 400)
    np.testing.assert_allclose(column(steps, "centroid"), 1000, atol=5)
    np.testing.assert_allclose(column(steps, "rolloff"), 1000, atol=RATE / 512)
    assert column(steps, "bandwidth").max() < 60
    assert column(steps, "flatness").max() < 1e-3


def test_noise_is_flat_and_wide():
    steps = voice_steps(noise(1.0))[INNER]
    # The power of noise in a bin is exponential: its geometric mean is exp(-.577) of its mean.
    assert abs(column(steps, "flatness").mean() - np.exp(-0.577)) < 0.03
    # Uniform over 0..8000 Hz: mean 4000, deviation 8000 / sqrt(12).
    assert abs(column(steps, "centroid").mean() - 4000) < 100
    assert abs(column(steps, "bandwidth").mean() - 8000 / 12**0.5) < 100
    assert abs(column(steps, "rolloff").mean() - 0.85 * 8000) < 100


def test_louder_moves_energy_and_the_first_coefficient_alone():
    quiet, loud = voice_steps(noise(1.0, 0.01)), voice_steps(noise(1.0, 0.1))
    np.testing.assert_allclose(
        column(loud, "log_energy") - column(quiet, "log_energy"), 20, atol=0.01
    )
    # 20 dB in all of 40 bands, times the first row of an orthonormal cosine transform.
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 20 * 40**0.5, atol=0.01)
    others = [at for at, name in enumerate(VOICE_COLUMNS) if name not in ("mfcc_0", "log_energy")]
    np.testing.assert_allclose(loud[:, others], quiet[:, others], rtol=1e-3, atol=1e-3)


def test_coefficients_tell_vowels_apart():
    def formants(*hertz):
        return sum(tone(150 * round(h / 150), 0.5, 0.1) for h in hertz) + tone(150, 0.5, 0.1)

    a, i = voice_steps(formants(750, 1200)), voice_steps(formants(300, 2250))
    assert np.abs(a[INNER, 1:20].mean(axis=0) - i[INNER, 1:20].mean(axis=0)).max() > 20


def test_deltas_are_slopes():
    # Loudness rising by 50 dB a second: half a decibel a step in every band.
    time = np.arange(RATE) / RATE
    audio = (noise(1.0) * 10 ** (50 * time / 20 - 2)).astype(np.float32)
    steps = voice_steps(audio)[10:-10]
    slope = column(steps, "mfcc_0_delta").mean()
    assert abs(slope - 0.5 * 40**0.5) < 0.1
    still = voice_steps(tone(300, 0.5))[10:-10]
    assert np.abs(column(still, "mfcc_0_delta")).max() < 0.5


def test_deltas_worked_by_hand():
    columns = np.float32([[0.0], [1.0], [3.0], [4.0], [0.0]])
    # At the third step: 1 * (4 - 1) + 2 * (0 - 0) + 3 * (0 - 0) + 4 * (0 - 0), ends repeated.
    assert voice._deltas(columns, 2, 3).tolist() == [[3 / 60]]


def test_step_lies_where_its_time_says():
    audio = np.zeros(RATE, np.float32)
    audio[8000:8160] = noise(0.01)
    energy = column(voice_steps(audio), "log_energy")
    assert voice_times(100)[energy.argmax()] == pytest.approx(0.505)


@pytest.mark.parametrize(
    ("samples", "num"), [(0, 1), (1, 1), (160, 1), (161, 2), (399, 3), (800, 5)]
)
def test_short_sound_has_steps(samples, num):
    steps = voice_steps(noise(0.05)[:samples])
    assert steps.shape == (num, 48)
    assert np.isfinite(steps).all()


def test_voice_in_blocks_is_voice_of_the_whole():
    rng = np.random.default_rng(4)
    audio = rng.normal(0, 0.1, size=50_123).astype(np.float32)
    whole = voice_steps(audio)
    for size in (160, 1600, 4800, 16_000, 60_000):
        blocks = [audio[at : at + size] for at in range(0, len(audio), size)]
        # The same sums in blocks of other sizes: float32 rounding, and no more.
        np.testing.assert_allclose(voice_steps_of_blocks(blocks), whole, rtol=1e-4, atol=1e-4)


def test_blocks_change_nothing(monkeypatch):
    audio = tone(180, 1.3, harmonics=5) + noise(1.3, 0.02)
    whole = voice_steps(audio)
    monkeypatch.setattr(voice, "BLOCK", 17)
    # The same sums in products of other sizes: float64 rounding, seen through float32.
    np.testing.assert_allclose(voice_steps(audio), whole, rtol=1e-5, atol=1e-5)


def test_memory_does_not_grow_with_length():
    def peak(seconds):
        audio = np.tile(noise(1.0), seconds)
        tracemalloc.start()
        voice_steps(audio)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top - seconds * 100 * 48 * 4  # less what is returned

    assert peak(60) < 1.2 * peak(20)


def test_moving_the_sound_moves_the_steps():
    audio = tone(180, 0.5, harmonics=5)
    later = voice_steps(np.concatenate([np.zeros(1600, np.float32), audio]))
    # The deltas of the first steps see what came before.
    np.testing.assert_allclose(later[14:], voice_steps(audio)[4:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "found"),
    [
        pytest.param(np.zeros((2, 100), np.float32), "shape [2, 100]", id="stereo"),
        pytest.param(np.float32([0, np.nan]), "samples that are not finite", id="nan"),
    ],
)
def test_refuses_what_is_no_sound(audio, found):
    with pytest.raises(MediaError) as caught:
        voice_steps(audio)
    assert str(caught.value) == f"sound must be one row of finite samples, got {found}"


def test_egemaps_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(MissingExtraError) as caught:
        egemaps_steps(noise(0.1))
    assert str(caught.value) == (
        "eGeMAPS needs opensmile, which is not installed.\n"
        '  Install it: pip install "mmcl[egemaps]"'
    )


def test_egemaps_with_an_opensmile_that_answers(monkeypatch):
    class Smile:
        def __init__(self, feature_set, feature_level):
            assert (feature_set, feature_level) == ("v02", "lld")

        def process_signal(self, audio, rate):
            assert rate == RATE
            return SimpleNamespace(
                to_numpy=lambda dtype: np.array([[1.0, 2.0], [np.nan, 4.0]], dtype)
            )

    fake = SimpleNamespace(
        Smile=Smile,
        FeatureSet=SimpleNamespace(eGeMAPSv02="v02"),
        FeatureLevel=SimpleNamespace(LowLevelDescriptors="lld"),
    )
    monkeypatch.setitem(sys.modules, "opensmile", fake)
    assert egemaps_steps(noise(0.1)).tolist() == [[1.0, 2.0], [0.0, 4.0]]


def test_egemaps_of_opensmile_itself():
    pytest.importorskip("opensmile")
    steps = egemaps_steps(tone(200, 1.0))
    assert steps.shape == (96, len(EGEMAPS_COLUMNS))  # windows of 60 ms that fit in a second
    assert np.isfinite(steps).all()
    assert egemaps_steps(tone(200, 0.05)).tolist() == [[0.0] * 25]
    # Pitch is in semitones over 27.5 Hz.
    pitch = steps[20:80, EGEMAPS_COLUMNS.index("F0semitoneFrom27.5Hz_sma3nz")]
    np.testing.assert_allclose(pitch, 12 * np.log2(200 / 27.5), rtol=0, atol=0.2)


def test_timbre_and_brightness_are_those_of_librosa():
    librosa = pytest.importorskip("librosa")
    sound = (tone(200, 1.0) + noise(1.0)).astype(np.float64)
    steps = voice_steps(sound.astype(np.float32))
    # librosa centres a window of 400 in 512 samples: so far before it, and 120 before a step.
    padded = np.pad(sound, (56 + 120, 512))
    spectrum = librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, center=False)
    power = np.abs(spectrum[:, :100]) ** 2
    bands = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=40, fmin=20.0, htk=True, norm=None, dtype=np.float64
    )
    decibels = librosa.power_to_db(bands @ power, amin=voice.FLOOR, top_db=None)
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=20)
    # Sums of 257 products, logarithms, and a float32 at the end.
    np.testing.assert_allclose(steps[:, :20], mfcc.T, rtol=1e-5, atol=1e-3)
    centroid = librosa.feature.spectral_centroid(S=power, sr=RATE, n_fft=512)[0]
    found = steps[:, VOICE_COLUMNS.index("centroid")]
    np.testing.assert_allclose(found, centroid, rtol=1e-4)
