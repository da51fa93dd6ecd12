"""Describe the sound of a voice a hundred times a second: timbre, loudness, pitch, brightness.

Plain FFTs with numpy and scipy. A step depends on 50 ms of sound around it (and its deltas on
the four steps either side), so a recording can be read block by block.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, irfft, rfft

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.recipe import SAMPLE_RATE

__all__ = [
    *("EGEMAPS_COLUMNS", "VOICE_COLUMNS", "VOICE_RATE", "egemaps_steps"),
    *("voice_steps", "voice_steps_of_blocks", "voice_times"),
]

_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]

VOICE_RATE = 100
"""Steps of voice features per second."""
NUM_MFCC = 20
VOICE_COLUMNS: tuple[str, ...] = (
    *(f"mfcc_{index}" for index in range(NUM_MFCC)),
    *(f"mfcc_{index}_delta" for index in range(NUM_MFCC)),
    *("log_energy", "log_f0", "voicing", "centroid", "bandwidth", "rolloff"),
    *("flatness", "zero_crossings"),
)
"""Names of the columns of :func:`voice_steps`.

``mfcc_*`` of 40 mel bands in decibels, and their slope per step; ``log_energy`` in decibels of
full scale; ``log_f0`` the natural log of the pitch in hertz, 0 where unvoiced; ``voicing`` how
alike two periods are, 0..1; ``centroid``, ``bandwidth`` and ``rolloff`` in hertz; ``flatness``
0..1, 1 for noise; ``zero_crossings`` per sample.
"""

_F0_COLUMNS = (
    *("F0semitoneFrom27.5Hz", "jitterLocal", "shimmerLocaldB", "HNRdBACF"),
    *("logRelF0-H1-H2", "logRelF0-H1-A3"),
    *("F1frequency", "F1bandwidth", "F1amplitudeLogRelF0"),
    *("F2frequency", "F2bandwidth", "F2amplitudeLogRelF0"),
    *("F3frequency", "F3bandwidth", "F3amplitudeLogRelF0"),
)
EGEMAPS_COLUMNS: tuple[str, ...] = (
    *("Loudness_sma3", "alphaRatio_sma3", "hammarbergIndex_sma3"),
    *("slope0-500_sma3", "slope500-1500_sma3", "spectralFlux_sma3"),
    *("mfcc1_sma3", "mfcc2_sma3", "mfcc3_sma3", "mfcc4_sma3"),
    *(f"{name}_sma3nz" for name in _F0_COLUMNS),
)
"""Names of the columns of :func:`egemaps_steps`, which are openSMILE's own."""

HOP = SAMPLE_RATE // VOICE_RATE
WINDOW = SAMPLE_RATE // 40  # 25 ms
FFT = 512
NUM_MELS = 40
MEL_LOW = 20.0  # hertz
FLOOR = 1e-10  # power; -100 decibels, which digital silence gets
ROLLOFF = 0.85  # share of the power below it
DELTA_REACH = 4  # steps either side

PITCH_WINDOW = SAMPLE_RATE // 20  # 50 ms
PITCH_FFT = 1024  # at least PITCH_WINDOW, so that no lag wraps round
LOWEST, HIGHEST = 60.0, 500.0  # hertz
CLEAR = 0.15  # a dip this deep is the period, even if a deeper one follows
VOICED = 0.5  # voicing from which a step counts as voiced
AUDIBLE = 1e-6  # mean square below which nothing is voiced; -60 decibels

MARGIN = 10  # steps at either end of a block that need sound of the block beside it
BLOCK = 1000  # steps computed at a time, 10 s, to bound the memory


def voice_steps(audio: _Floats) -> _Floats:
    """Describe a voice, one row per 10 ms.

    Row i describes 25 ms (its pitch 50 ms) around the middle of
    ``[i / 100, (i + 1) / 100)`` seconds. Before and after the sound there is silence. Loudness
    is not normalised.

    Args:
        audio: Samples at 16 kHz, mono, -1..1, shape ``[samples]``.

    Returns:
        Float32 ``[T, 48]``, finite, with ``T = ceil(samples / 160)`` and at least 1; columns
        :data:`VOICE_COLUMNS`.

    Raises:
        MediaError: If the sound is not one row of finite samples.

    Example:
        >>> tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000).astype(np.float32)
        >>> steps = voice_steps(tone)
        >>> steps.shape, round(float(np.exp(steps[50, VOICE_COLUMNS.index("log_f0")])))
        ((100, 48), 200)
    """
    if audio.ndim != 1 or not np.isfinite(audio).all():
        fault = f"shape {list(audio.shape)}" if audio.ndim != 1 else "samples that are not finite"
        raise MediaError(f"sound must be one row of finite samples, got {fault}")
    num = max(1, -(-len(audio) // HOP))
    steps = np.empty((num, len(VOICE_COLUMNS)), dtype=np.float32)
    for first in range(0, num, BLOCK):
        stop = min(first + BLOCK, num)
        block = steps[first:stop]
        block[:, :NUM_MFCC], block[:, 2 * NUM_MFCC :] = _mfcc_and_others(audio, first, stop)
    # Deltas need the MFCC of neighbours, perhaps in the next block: so they come last.
    for first in range(0, num, BLOCK):
        stop = min(first + BLOCK, num)
        steps[first:stop, NUM_MFCC : 2 * NUM_MFCC] = _deltas(steps[:, :NUM_MFCC], first, stop)
    return steps


def voice_steps_of_blocks(blocks: Iterable[_Floats]) -> _Floats:
    """Describe a voice block by block, as :func:`voice_steps` does at once; no sound, no rows."""
    parts = [np.zeros((0, len(VOICE_COLUMNS)), np.float32)]
    pending, skip = np.zeros(0, np.float32), 0
    for block in blocks:
        pending = np.concatenate([pending, block])
        # The last steps depend on sound of the next block, so they wait for it. Steps before
        # them are described again with it, and skipped.
        ready = len(pending) // HOP - MARGIN
        if ready <= skip + MARGIN:
            continue
        parts.append(voice_steps(pending)[skip:ready])
        pending, skip = pending[(ready - MARGIN) * HOP :], MARGIN
    if len(pending):
        parts.append(voice_steps(pending)[skip:])
    return np.concatenate(parts)


def voice_times(num: int) -> _Doubles:
    """Return the middle of each of the first ``num`` steps, in seconds, shape ``[num]``."""
    return (np.arange(num) + 0.5) / VOICE_RATE


def _mfcc_and_others(audio: _Floats, first: int, stop: int) -> tuple[_Doubles, _Doubles]:
    """Return the MFCC ``[n, 20]`` and the eight columns after the deltas ``[n, 8]``."""
    frames = _frames(audio, first, stop, WINDOW)
    power = np.abs(rfft(frames * np.hanning(WINDOW + 1)[:-1], n=FFT)) ** 2  # [n, 257]
    mels = 10 * np.log10(np.maximum(power @ _mel_bands(), FLOOR))
    mfcc = dct(mels, type=2, norm="ortho", axis=1)[:, :NUM_MFCC]
    energy = 10 * np.log10(np.maximum((frames**2).mean(axis=1), FLOOR))
    sign = frames < 0
    crossings = (sign[:, 1:] != sign[:, :-1]).mean(axis=1)
    pitch, voicing = _pitch(_frames(audio, first, stop, PITCH_WINDOW))
    others = np.stack([energy, pitch, voicing, *_spectrum_shape(power), crossings], axis=1)
    return mfcc, others


def _frames(audio: _Floats, first: int, stop: int, width: int) -> _Doubles:
    """Return the samples around the middle of each step, ``[stop - first, width]``."""
    begin = first * HOP + HOP // 2 - width // 2
    end = begin + (stop - first - 1) * HOP + width
    samples = np.zeros(end - begin)
    low, high = max(begin, 0), min(end, len(audio))
    if low < high:
        samples[low - begin : high - begin] = audio[low:high]
    return np.lib.stride_tricks.sliding_window_view(samples, width)[::HOP]


@cache
def _mel_bands() -> _Doubles:
    """Return triangles evenly spaced in mels (HTK's), each with peak 1, ``[257, 40]``."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    low = 2595 * np.log10(1 + MEL_LOW / 700)
    edges = 700 * (10 ** (np.linspace(low, top, NUM_MELS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    bands: _Doubles = np.maximum(0.0, np.minimum(rising, falling))
    return bands


def _spectrum_shape(power: _Doubles) -> tuple[_Doubles, _Doubles, _Doubles, _Doubles]:
    """Return centroid, bandwidth, rolloff and flatness of spectra ``[n, 257]``, each ``[n]``."""
    hertz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    total = np.maximum(power.sum(axis=1), FLOOR)
    centroid = power @ hertz / total
    spread = np.maximum(power @ hertz**2 / total - centroid**2, 0.0)
    reached = np.cumsum(power, axis=1) >= ROLLOFF * total[:, None]
    rolloff = hertz[reached.argmax(axis=1)]
    floored = np.maximum(power, FLOOR)
    flatness = np.exp(np.log(floored).mean(axis=1)) / floored.mean(axis=1)
    return centroid, np.sqrt(spread), rolloff, flatness


def _pitch(frames: _Doubles) -> tuple[_Doubles, _Doubles]:
    """Return log pitch (0 where unvoiced) and voicing of frames ``[n, 800]``, each ``[n]``.

    Source:
        YIN (de Cheveigné and Kawahara 2002), steps 1 to 5: the lag at which the frame
        differs least from itself. Differs in that a step is unvoiced when it is quieter than
        -60 dB or its dip is shallow.
    """
    frames = frames - frames.mean(axis=1, keepdims=True)
    dips = _normalised_difference(frames)  # [n, lags + 1]
    lag = _period(dips)
    rows = np.arange(len(frames))
    voicing = np.clip(1 - dips[rows, lag], 0.0, 1.0)
    voicing[(frames**2).mean(axis=1) < AUDIBLE] = 0.0
    # A parabola through the dip and its neighbours gives the lag between samples.
    left, middle, right = dips[rows, lag - 1], dips[rows, lag], dips[rows, lag + 1]
    bend = left - 2 * middle + right
    shift = np.divide(left - right, 2 * bend, out=np.zeros_like(bend), where=bend > FLOOR)
    hertz = SAMPLE_RATE / (lag + np.clip(shift, -1.0, 1.0))
    return np.where(voicing >= VOICED, np.log(hertz), 0.0), voicing


def _normalised_difference(frames: _Doubles) -> _Doubles:
    """Return a frame's difference from itself by lag, over the mean difference of shorter lags."""
    longest = int(SAMPLE_RATE / LOWEST) + 1
    width = frames.shape[1] - longest
    # The squared difference is two energies less twice the correlation, which the FFT gives.
    head = rfft(frames[:, :width], n=PITCH_FFT)
    product = irfft(head.conj() * rfft(frames, n=PITCH_FFT), n=PITCH_FFT)[:, : longest + 1]
    squares = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    lags = np.arange(longest + 1)
    energy = squares[:, lags + width] - squares[:, lags]
    difference = np.maximum(energy[:, :1] + energy - 2 * product, 0.0)
    difference[:, 0] = 0.0
    mean = np.cumsum(difference, axis=1) / np.maximum(lags, 1)
    quiet = mean <= FLOOR
    return np.where(quiet, 1.0, difference / np.where(quiet, 1.0, mean))


def _period(dips: _Doubles) -> NDArray[np.int64]:
    """Return the first lag with a clear dip, or the deepest dip where none is clear, ``[n]``."""
    shortest = int(SAMPLE_RATE / HIGHEST)
    inner = dips[:, shortest:-1]
    lowest = (inner <= dips[:, shortest - 1 : -2]) & (inner <= dips[:, shortest + 1 :])
    clear = lowest & (inner < CLEAR)
    chosen: NDArray[np.int64] = np.where(
        clear.any(axis=1), clear.argmax(axis=1), inner.argmin(axis=1)
    )
    return chosen + shortest


def _deltas(columns: _Floats, first: int, stop: int) -> _Doubles:
    """Return the slope of a straight line through the steps around each one, per step."""
    last = len(columns) - 1
    total = np.zeros((stop - first, columns.shape[1]))
    steps = np.arange(first, stop)
    for reach in range(1, DELTA_REACH + 1):
        after, before = np.minimum(steps + reach, last), np.maximum(steps - reach, 0)
        total += reach * (columns[after].astype(np.float64) - columns[before])
    return total / (2 * sum(reach**2 for reach in range(1, DELTA_REACH + 1)))


def egemaps_steps(audio: _Floats) -> _Floats:
    """Return the low-level descriptors of eGeMAPSv02, by openSMILE (its licence: research only).

    The rows are as in :func:`voice_steps`, float32 ``[T, 25]`` with the columns
    :data:`EGEMAPS_COLUMNS`. Unknown values are 0.

    Raises:
        MissingExtraError: If opensmile is not installed.
    """
    opensmile = load("opensmile", "eGeMAPS", extra="egemaps")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a sound that is too short gives one empty row
        table = smile.process_signal(audio, SAMPLE_RATE)
    steps: _Floats = np.nan_to_num(table.to_numpy(dtype=np.float32))
    return steps
