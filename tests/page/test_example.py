"""The example clip: a browser can play it, and it has a voice and a face that moves."""

import numpy as np
import pytest

from mmcl.serve.page_files import EXAMPLE_CLIP, EXAMPLE_TRANSCRIPT

av = pytest.importorskip("av")

from mmcl.media.containers.decode import frames, probe  # noqa: E402
from mmcl.media.containers.sound import read_audio  # noqa: E402
from mmcl.media.recipe import SAMPLE_RATE  # noqa: E402


def loudness(samples, start, end):
    piece = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(piece**2)))


def test_clip_has_the_codecs_that_browsers_play():
    with av.open(str(EXAMPLE_CLIP)) as container:
        codecs = [stream.codec_context.name for stream in container.streams]
    assert codecs == ["h264", "aac"]
    assert EXAMPLE_CLIP.stat().st_size < 300_000


def test_voice_says_three_sentences_with_pauses_between():
    heard = read_audio(EXAMPLE_CLIP)
    assert probe(EXAMPLE_CLIP).duration == pytest.approx(len(heard) / SAMPLE_RATE, abs=0.15)
    assert 5 < len(heard) / SAMPLE_RATE < 9
    quiet = [loudness(heard, at / 10, at / 10 + 0.1) < 0.01 for at in range(len(heard) // 1600)]
    edges = np.flatnonzero(np.diff(np.pad(np.array(quiet, dtype=int), 1)))
    pauses = [(b - a) / 10 for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert sum(pause >= 0.7 for pause in pauses) == 2
    assert EXAMPLE_TRANSCRIPT.count(".") == 3


def test_face_moves():
    pictures = [frame.image.astype(int) for frame in frames(EXAMPLE_CLIP, rate=5)]
    assert max(np.abs(picture - pictures[0]).max() for picture in pictures) > 50
