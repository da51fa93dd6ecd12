"""The example clip: what it says, what it shows, and that it is the same at every call."""

import numpy as np
import pytest

from mmcl.media.recipe import SAMPLE_RATE
from mmcl.serve.example import SIDE, TRANSCRIPT, draw_face, example_clip, speak


def loudness(samples, start, end):
    piece = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(piece**2)))


def test_voice_says_three_sentences_with_pauses_between():
    samples = speak()
    assert samples.dtype == np.float32
    assert np.abs(samples).max() == pytest.approx(0.7)
    assert 5 < len(samples) / SAMPLE_RATE < 9
    blocks = [loudness(samples, at / 10, at / 10 + 0.1) for at in range(len(samples) // 1600)]
    quiet = np.array(blocks) < 0.01
    # Silence: 0.3 s before, 0.9 s twice between, 0.6 s after.
    edges = np.flatnonzero(np.diff(np.pad(quiet.astype(int), 1)))
    runs = [(b - a) / 10 for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert sum(run >= 0.8 for run in runs) == 2
    assert TRANSCRIPT.count(".") == 3


def test_vowels_differ_in_their_resonances():
    # The lowest resonance of "ee" lies near 280 Hz, that of "ah" near 730.
    peaks = []
    for name in ("IY", "AA"):
        samples = speak([f"{name} {name} {name}"])
        power = np.abs(np.fft.rfft(samples)) ** 2
        at = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
        low = (at > 200) & (at < 1000)
        peaks.append(float((at[low] * power[low]).sum() / power[low].sum()))
    assert peaks[0] < 400 < 600 < peaks[1]


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"mouth": 1.0}, (0.60, 0.76)),
        ({"smile": 1.0}, (0.60, 0.76)),
        ({"brow": 1.0}, (0.32, 0.42)),
        ({"lids": 1.0}, (0.39, 0.47)),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_expression_moves_its_own_part_of_the_face(change, rows):
    still = {"mouth": 0.0, "smile": 0.0, "brow": 0.0, "lids": 0.0}
    before, after = draw_face(**still), draw_face(**{**still, **change})
    assert before.shape == (SIDE, SIDE, 3)
    moved = np.flatnonzero((before != after).any(axis=(1, 2))) / SIDE
    assert len(moved) > 5
    assert rows[0] < moved.min() < moved.max() < rows[1]


def test_clip_is_made_once_and_plays(tmp_path):
    pytest.importorskip("av")
    from mmcl.media.decode import frames, probe, read_audio

    path = example_clip(tmp_path / "state")
    assert [each.name for each in path.parent.iterdir()] == ["example.mp4"]
    info = probe(path)
    assert (info.has_audio, info.width, info.height) == (True, SIDE, SIDE)
    assert info.duration == pytest.approx(len(speak()) / SAMPLE_RATE, abs=0.15)
    assert path.stat().st_size < 1_000_000
    heard = read_audio(path)
    assert loudness(heard, 0.3, 2.0) > 10 * loudness(heard, 0.0, 0.2)
    pictures = [frame.image.astype(int) for frame in frames(path, rate=5)]
    assert max(np.abs(one - pictures[0]).max() for one in pictures) > 50
    made = path.stat().st_mtime_ns
    assert example_clip(path.parent).stat().st_mtime_ns == made


def test_clip_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(path):
        path.write_bytes(b"half")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("mmcl.serve.example._write", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        example_clip(tmp_path)
    assert list(tmp_path.iterdir()) == []
