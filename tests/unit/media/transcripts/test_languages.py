"""Subtitles in two languages, and transcripts whose names tell a language."""

from pathlib import Path

import pytest

from mmcl.media.transcripts.languages import language_in, one_language, preferred
from mmcl.media.utterances import Utterance

ENGLISH = [(0, 2, "Hello all."), (2, 4, "How are you?"), (4, 5, "Good!")]
GERMAN = [(0, 2, "Hallo zusammen."), (2, 4, "Wie geht es?"), (4, 5, "Gut!")]
CHINESE = [(0, 2, "大家好"), (2, 4, "你好吗"), (4, 5, "很好")]
KEPT = 'subtitles in two languages: "{}" and the like were kept, "{}" left out'


def cues(*parts):
    return [Utterance(*part) for part in parts]


def in_turn(first, second):
    return cues(*(cue for both in zip(first, second, strict=True) for cue in both))


def lines_of_one(first, second):
    return cues(*((*a[:2], f"{a[2]}\n<i>{b[2]}</i>") for a, b in zip(first, second, strict=True)))


@pytest.mark.parametrize("language", [None, "en", "fr"])
@pytest.mark.parametrize("write", [in_turn, lambda a, b: cues(*a, *b), lines_of_one])
def test_first_language_is_kept(write, language):
    kept, notes = one_language(write(ENGLISH, CHINESE), language)
    assert kept == cues(*ENGLISH)
    assert notes == [KEPT.format("Hello all.", "大家好")]


@pytest.mark.parametrize("write", [in_turn, lines_of_one])
def test_language_asked_for_is_kept(write):
    kept, notes = one_language(write(CHINESE, ENGLISH), "en")
    assert kept == cues(*ENGLISH)
    assert notes == [KEPT.format("Hello all.", "大家好")]
    assert one_language(write(CHINESE, ENGLISH), "zh")[0] == cues(*CHINESE)


def test_times_of_two_languages_may_differ_a_little():
    later = [(start + 0.3, end + 0.2, text) for start, end, text in CHINESE]
    assert one_language(in_turn(ENGLISH, later), None)[0] == cues(*ENGLISH)
    assert one_language(in_turn(ENGLISH, later), "zh")[0] == cues(*later)


def test_languages_that_alternate_are_both_kept():
    spoken = cues((0, 2, "Hello all."), (2, 4, "大家好"), (4, 6, "How are you?"), (6, 8, "你好吗"))
    assert one_language(spoken, "en") == (spoken, [])
    spoken = cues(*ENGLISH, (0, 2, "大家好"))  # a sign, at the time of a sentence
    assert len(one_language(spoken, "en")[0]) == 4


def test_two_languages_of_one_script():
    kept, notes = one_language(in_turn(GERMAN, ENGLISH), "en")
    assert kept == cues(*ENGLISH)  # "how" and "are" are English
    assert notes == [KEPT.format("Hello all.", "Hallo zusammen.")]
    assert one_language(in_turn(ENGLISH, GERMAN), "de")[0] == cues(*GERMAN)
    assert one_language(in_turn(GERMAN, ENGLISH), "sv")[0] == cues(*GERMAN)  # none of them


def test_subtitles_in_one_language_between_are_kept():
    both = [*in_turn(CHINESE, ENGLISH)[:4], *cues((2.5, 3, "OK"), *CHINESE[2:], *ENGLISH[2:])]
    texts = [cue.text for cue in one_language(both, "en")[0]]
    assert texts == ["Hello all.", "How are you?", "OK", "Good!"]


def test_lines_of_the_same_times_are_one_subtitle():
    kept, notes = one_language(cues((0, 2, "and so we"), (0, 2, "went home."), (2, 3, "So.")), "en")
    assert kept == cues((0, 2, "and so we\nwent home."), (2, 3, "So."))
    assert notes == ["1 subtitle was joined with the one before, which has the same times"]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([], id="nothing"),
        pytest.param(ENGLISH, id="one-language"),
        pytest.param(
            [(0, 1, "我喜欢 iPhone"), (1, 2, "OK"), (2, 3, "Hello\n你好")], id="few-words"
        ),
        pytest.param([(0, 1, "Я люблю\nYouTube"), (1, 2, "Google\nпривет")], id="no-order"),
        pytest.param([(0, 1, "Hello\nall."), (1, 2, "2 + 2\n= 4")], id="one-script"),
    ],
)
def test_one_language_stays_as_it_is(said):
    assert one_language(cues(*said), "en") == (cues(*said), [])


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("talk.en.vtt", "en"),
        ("talk.pt-BR.srt", "pt"),
        ("talk.eng.srt", "en"),
        ("talk.old.srt", None),
        ("talk.final.srt", None),
        ("talk.srt", None),
    ],
)
def test_language_in_a_name(name, language):
    assert language_in(Path(name)) == language


@pytest.mark.parametrize(
    ("names", "language", "expected"),
    [
        ("a.en.vtt a.de.vtt", "de", "a.de.vtt"),
        ("a.en.vtt a.de.vtt", "fr", None),
        ("a.en.vtt a.de.vtt", None, None),  # which of them is said is not known
        ("a.en.vtt a.en-US.vtt", None, "a.en.vtt"),
        ("a.en-US.vtt", "en", "a.en-US.vtt"),
        ("a.de.vtt a.en.vtt a.en-orig.vtt", None, "a.en.vtt"),  # yt-dlp: English is spoken
        ("a.de.vtt a.en-orig.vtt", None, "a.en-orig.vtt"),
        ("a.de.vtt a.en-orig.vtt", "de", "a.de.vtt"),
        ("", "en", None),
    ],
)
def test_preferred_transcript(names, language, expected):
    found = preferred([Path(name) for name in names.split()], language)
    assert (found and found.name) == expected
