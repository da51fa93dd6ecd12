"""Times of the words of a known text: from a recogniser, from a search, and in between."""

import sys

import numpy as np
import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError, MissingExtraError
from mmcl.media import align
from mmcl.media.align import align_words, refine_times, time_words, words_by_recogniser
from mmcl.media.recognise import Recognised

RATE = 16_000
SOUND = np.ones(10 * RATE, np.float32)


class Hears:
    """A recogniser that returns the words given to it."""

    def __init__(self, *timed, language="es"):
        self.words = tuple(Word(text=text, start=start, end=end) for text, start, end in timed)
        self.language = language
        self.asked = []

    def language_of(self, audio):
        self.asked.append(None)
        return self.language

    def transcribe(self, audio, language=None):
        self.asked.append(language)
        return Recognised(self.words, language or self.language, 1.0, (1.0,) * len(self.words))


def spans(words):
    return [(word.start, word.end) for word in words]


# As the recogniser hears them


def test_words_take_the_times_at_which_they_are_heard():
    heard = Hears(("Está", 1.0, 1.5), ("muy,", 2.0, 2.5), ("BIEN.", 3.0, 4.0))
    words = words_by_recogniser(heard, SOUND, "esta m:uy bien", "es")
    assert [word.text for word in words] == ["esta", "m:uy", "bien"]
    assert spans(words) == [(1.0, 1.5), (2.0, 2.5), (3.0, 4.0)]


def test_words_heard_otherwise_share_the_time_by_their_letters():
    heard = Hears(("one", 0.0, 1.0), ("too", 2.0, 2.5), ("tree", 2.5, 4.0), ("four", 5.0, 6.0))
    words = words_by_recogniser(heard, SOUND, "one t hre four", "en")
    assert spans(words) == [(0.0, 1.0), (2.0, 2.5), (2.5, 4.0), (5.0, 6.0)]


def test_words_not_heard_lie_between_their_neighbours():
    heard = Hears(("b", 2.0, 3.0), ("e", 5.0, 6.0))
    words = words_by_recogniser(heard, SOUND, "a b cc d e f", "en")
    assert spans(words) == [(0, 2), (2, 3), (3, 4.333), (4.333, 5), (5, 6), (6, 10)]


def test_nothing_heard_spreads_the_words():
    words = words_by_recogniser(Hears(), SOUND, "a bb cc", "en")
    assert spans(words) == [(0, 2), (2, 6), (6, 10)]


def test_words_heard_that_are_not_in_the_text_are_passed_over():
    heard = Hears(("a", 1.0, 2.0), ("uh", 2.0, 3.0), ("b", 3.0, 4.0))
    assert spans(words_by_recogniser(heard, SOUND, "a b", "en")) == [(1, 2), (3, 4)]


def test_words_that_overlap_leave_no_negative_time():
    heard = Hears(("a", 1.0, 3.0), ("c", 2.0, 4.0))
    assert spans(words_by_recogniser(heard, SOUND, "a b c", "en")) == [(1, 3), (3, 3), (2, 4)]


def test_a_word_said_again_and_again_keeps_its_places():
    said = [("no", at**1.1, at**1.1 + 0.5) for at in range(1, 250)]
    heard = Hears(("uh", 0.0, 0.5), *said)
    words = words_by_recogniser(heard, SOUND, "no " * 249, "en")
    # Times are rounded to a millisecond.
    np.testing.assert_allclose([w.start for w in words], [start for _, start, _ in said], atol=1e-3)


# The choice


@pytest.fixture
def searched(monkeypatch):
    """Record searches of the sound, all of which fail."""
    found = []

    def search(decoder, audio, parts):
        found.append(parts)
        return []

    monkeypatch.setattr(align, "_search", search)
    return found


@pytest.mark.parametrize(
    ("language", "heard", "is_searched", "asked"),
    [
        ("en", "es", True, ["en"]),
        ("es", "en", False, ["es"]),
        (None, "en", True, [None, "en"]),
        (None, "es", False, [None, "es"]),
    ],
)
def test_english_is_searched_for(searched, language, heard, is_searched, asked):
    recogniser = Hears(("a", 1.0, 2.0), language=heard)
    words = time_words(SOUND, "a b", language=language, recogniser=recogniser)
    assert spans(words) == [(1, 2), (2, 10)]
    assert bool(searched) == is_searched
    assert recogniser.asked == asked


def test_long_sound_is_not_searched(searched):
    time_words(np.zeros(181 * RATE, np.float32), "a", language="en", recogniser=Hears())
    assert searched == []


def test_no_text_has_no_words():
    assert time_words(SOUND, " ", language=None, recogniser=None) == ()


def test_no_sound_spreads_over_nothing():
    words = time_words(SOUND[:0], "a b", language=None, recogniser=Hears())
    assert spans(words) == [(0, 0), (0, 0)]


# Searched for near where they were heard


def heard(*timed):
    return tuple(Word(text=text, start=start, end=end) for text, start, end in timed)


class Search:
    """A search that finds each word of a sound in its own second, or fails as told."""

    def __init__(self, fails=lambda audio, tokens: False, late=0.0):
        self.fails, self.late = fails, late
        self.asked = []

    def __call__(self, audio, text):
        tokens = text.split()
        self.asked.append((len(audio) / RATE, tokens))
        if self.fails(audio, tokens):
            raise MediaError("not found")
        return tuple(
            Word(text=token, start=at + self.late, end=at + self.late + 0.5)
            for at, token in enumerate(tokens)
        )


@pytest.fixture
def use_search(monkeypatch):
    def use(**how):
        search = Search(**how)
        monkeypatch.setattr(align, "align_words", search)
        return search

    return use


def test_heard_words_are_searched_for_all_at_once(use_search):
    search = use_search()
    words = refine_times(SOUND, heard(("a", 0.7, 0.9), ("b", 0.9, 2.4)))
    assert spans(words) == [(0, 0.5), (1, 1.5)]
    assert search.asked == [(10.0, ["a", "b"])]


def test_sound_in_which_the_search_fails_is_halved_at_its_pause(use_search):
    search = use_search(fails=lambda audio, tokens: len(tokens) > 2)
    audio = SOUND.copy()
    audio[int(4.4 * RATE) : int(4.6 * RATE)] = 0
    words = refine_times(audio, heard(("a", 0, 1), ("b", 1, 2), ("c", 5, 6), ("d", 6, 7)))
    assert search.asked == [
        (10.0, ["a", "b", "c", "d"]),
        (pytest.approx(4.5, abs=0.02), ["a", "b"]),
        (pytest.approx(5.5, abs=0.02), ["c", "d"]),
    ]
    np.testing.assert_allclose(spans(words), [(0, 0.5), (1, 1.5), (4.5, 5), (5.5, 6)], atol=0.02)


def test_a_word_found_far_from_where_it_was_heard_is_not_believed(use_search):
    use_search(late=5.0)
    words = heard(("a", 0.0, 0.4), ("b", 1.0, 1.4))
    assert refine_times(SOUND, words) == words


def test_a_word_that_cannot_be_found_keeps_its_rough_times(use_search):
    use_search(fails=lambda audio, tokens: "b" in tokens)
    words = refine_times(SOUND, heard(("a", 0.2, 0.8), ("b", 3.0, 3.5)))
    assert spans(words)[0] == (0, 0.5)
    assert spans(words)[1] == pytest.approx((3.0, 3.5), abs=1e-6)


def test_sound_of_more_than_three_minutes_is_halved_first(use_search):
    search = use_search()
    audio = np.ones(200 * RATE, np.float32)
    audio[100 * RATE : 101 * RATE] = 0
    refine_times(audio, heard(("a", 0, 1), ("b", 160, 161)))
    assert [tokens for _, tokens in search.asked] == [["a"], ["b"]]
    assert sum(seconds for seconds, _ in search.asked) == 200


def test_nothing_heard_has_no_times(use_search):
    search = use_search()
    assert refine_times(SOUND, ()) == ()
    assert search.asked == []


def test_a_given_text_that_is_too_long_starts_from_what_is_heard(use_search):
    use_search(late=0.25)
    recogniser = Hears(("a", 0.0, 0.5), ("b", 150.0, 151.0))
    sound = np.ones(200 * RATE, np.float32)
    words = time_words(sound, "a b", language="en", recogniser=recogniser)
    assert spans(words)[0] == (0.25, 0.75)
    words = time_words(sound, "a b", language="es", recogniser=recogniser)
    assert spans(words) == [(0.0, 0.5), (150.0, 151.0)]


# Searched for in the sound


@pytest.mark.parametrize(
    ("token", "parts"),
    [
        ("Don't,", ["don't"]),
        ("rock’n’roll", ["rock'n'roll"]),
        ("well-known", ["well", "known"]),
        ("2:30", ["two", "three", "zero"]),
        ("Café", ["cafe"]),
        ("--", []),
        ("'", []),
    ],
)
def test_how_a_token_is_spoken(token, parts):
    assert align._spoken_parts(token) == parts


def test_an_unknown_word_is_spoken_by_its_letters():
    decoder = align._decoder()
    assert decoder.lookup_word("phlaxquee") is None
    align._add_to_dictionary(decoder, "phlaxquee")
    assert decoder.lookup_word("phlaxquee") == "F L AE K S K W EH"
    align._add_to_dictionary(decoder, "now")  # known: left as it is
    assert decoder.lookup_word("now") == "N AW"


def test_every_letter_alone_can_be_spoken():
    decoder = align._decoder()
    for letter in "abcdefghijklmnopqrstuvwxyz":
        align._add_to_dictionary(decoder, f"{letter}zzyz")
        assert decoder.lookup_word(f"{letter}zzyz")


def test_what_cannot_be_found_is_said():
    with pytest.raises(MediaError) as caught:
        align_words(SOUND[:800], "far too many words for this")
    assert str(caught.value) == (
        "the 6 words of the text cannot be found in 0.05 s of sound.\n"
        "  Expected a transcript of this sound, in English. See what is said: "
        "leave the transcript out."
    )


def test_a_text_without_a_word_to_speak_is_spread():
    assert spans(align_words(SOUND, "-- ...")) == [(0, 4), (4, 10)]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    align._decoder.cache_clear()
    with pytest.raises(MissingExtraError) as caught:
        align_words(SOUND, "now")
    assert str(caught.value) == (
        "aligning English words needs pocketsphinx, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )
