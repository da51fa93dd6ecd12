"""Results of a long recording: every word is in them, in few bytes and in time."""

import json
import time

import numpy as np
import pytest

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.evaluation.moments import Moments
from mmcl.runs.recordings import Timeline
from mmcl.serve.results import FORMATS, write_results
from mmcl.types import MODALITIES

NUM_WORDS = 10_000
# Loose: they are to notice a cost that grows with the square of the words, not a slow machine.
SECONDS, MOST_BYTES = 60, 20_000_000


def utterance(first, count):
    """Words of the numbers from ``first`` on, half a second each, and their moments."""
    words = tuple(
        Word(text=f"word{first + at}", start=at / 2, end=at / 2 + 0.5) for at in range(count)
    )
    text = " ".join(word.text for word in words)
    ones = np.ones(count, dtype=np.float32)
    moments = Moments(
        id=f"talk_{first}",
        prediction=1.5,
        spread=0.5,
        probability=None,
        probabilities={},
        present=MODALITIES,
        share=dict.fromkeys(MODALITIES, 0.5),
        word_share=np.full(count, 0.01),
        commonality=dict.fromkeys(MODALITIES, ones),
        action=dict.fromkeys(MODALITIES, ones),
        keep_probability=dict.fromkeys(MODALITIES, ones),
        found=dict.fromkeys(MODALITIES, ones > 0),
    )
    return Clip(id=moments.id, split="test", features={}, text=text, words=words), moments


@pytest.mark.parametrize("count", [1, 1000], ids=["one-utterance", "many-utterances"])
def test_ten_thousand_words_are_all_there_in_few_bytes_and_in_time(tmp_path, count):
    size = NUM_WORDS // count
    clips, moments = zip(*(utterance(size * at, size) for at in range(count)), strict=True)
    spans = tuple((size / 2 * at, size / 2 * (at + 1)) for at in range(count))
    task = Task(kind="regression", low=-3, high=3)
    timeline = Timeline("talk.mp4", task, clips, spans, moments, 0.6, ())

    began = time.monotonic()
    write_results(timeline, tmp_path / "id", model="talks", duration=NUM_WORDS / 2)
    assert time.monotonic() - began < SECONDS

    files = {form: tmp_path / "id" / f"result.{form}" for form in FORMATS}
    assert all(path.stat().st_size < MOST_BYTES for path in files.values())
    result = json.loads(files["json"].read_text())
    words = [word["text"] for row in result["utterances"] for word in row["words"]]
    assert words == [f"word{at}" for at in range(NUM_WORDS)]
    page, subtitles = files["html"].read_text(), files["srt"].read_text()
    assert all(word in page and word in subtitles for word in words[::97])
    assert files["csv"].read_text().count("\n") == count + 1
