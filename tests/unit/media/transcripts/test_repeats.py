"""Repeated text: what subtitles show again is dropped, what is said again is kept."""

import pytest

from mmcl.media.transcripts.repeats import without_overlaps, without_repeats
from mmcl.media.utterances import Utterance


def cues(*times_and_text):
    return [Utterance(start, end, text) for start, end, text in times_and_text]


def rest(*times_and_text):
    kept, notes = without_repeats(cues(*times_and_text))
    return [tuple(cue[:3]) for cue in kept], notes


def test_rolling_captions_with_flashes():
    kept, notes = rest(
        (0, 2, "a b"),
        (2, 2.01, "a b"),
        (2.01, 4, "a b\nc d"),
        (4, 4.01, "c d"),
        (7, 9, "c d\ne f"),  # after a pause
    )
    assert kept == [(0, 2, "a b"), (2.01, 4, "c d"), (7, 9, "e f")]
    assert notes == ["4 repeated lines were dropped"]


def test_rolling_captions_of_three_lines():
    kept, notes = rest(
        (0, 2, "a"), (2, 4, "a\nb"), (4, 6, "a\nb\nc"), (6, 8, "b\nc\nd"), (8, 10, "c\nd\ne")
    )
    assert [text for _, _, text in kept] == ["a", "b", "c", "d", "e"]
    assert notes == ["7 repeated lines were dropped"]


def test_markup_does_not_hide_a_repetition():
    kept, _ = rest(
        (0, 2, "a<00:00:01.000><c> b</c>"), (2, 4, "<i>a b</i>\nc<00:00:03.000><c> d</c>")
    )
    assert kept[1] == (2, 4, "c<00:00:03.000><c> d</c>")


def test_word_said_again_in_rolling_captions_is_kept():
    kept, _ = rest((0, 1, "yes"), (1, 1.01, "yes"), (1.01, 3, "yes\nyes"), (3, 3.01, "yes"))
    assert kept == [(0, 1, "yes"), (1.01, 3, "yes")]


@pytest.mark.parametrize("pause", [0.2, 1.0, 30.0])
def test_what_is_said_twice_is_kept(pause):
    twice = [(0, 1, "I liked it"), (1 + pause, 2 + pause, "I liked it")]
    assert rest(*twice) == (twice, [])


def test_cue_that_stays_on_the_screen_is_one():
    kept, notes = rest((0, 1, "I liked it"), (1, 2, "I liked it"), (2, 3.5, "I liked it"))
    assert kept == [(0, 3.5, "I liked it")]
    assert notes == ["2 repeated lines were dropped"]


def test_cue_that_is_listed_twice_is_one():
    kept, notes = rest((0, 1, "very"), (0, 1, "very"), (1, 2, "good"))
    assert kept == [(0, 1, "very"), (1, 2, "good")]
    assert notes == ["1 repeated line was dropped"]


def test_highlighted_words_are_one_cue():
    """As Whisper writes them with --highlight_words."""
    kept, _ = rest((0, 0.3, "<u>I</u> did"), (0.3, 0.5, "I did"), (0.5, 1, "I <u>did</u>"))
    assert kept == [(0, 1, "<u>I</u> did")]


def test_words_one_by_one_may_repeat():
    words = [(0, 0.3, "very"), (0.3, 0.6, "very"), (0.6, 1, "good")]
    assert rest(*words) == (words, [])


def test_cues_that_grow_word_by_word():
    kept, notes = rest((0, 1, "I"), (1, 2, "I liked"), (2, 3, "I liked it"), (3, 4, "so"))
    assert kept == [(0, 3, "I liked it"), (3, 4, "so")]
    assert notes == ["2 cues that show the beginning of the next were joined with it"]


def test_one_longer_sentence_is_not_growth():
    twice = [(0, 1, "I think"), (1, 2, "I think so")]
    assert rest(*twice) == (twice, [])


def test_line_that_may_be_said_again_is_kept_with_a_note():
    spoken = [
        (0, 1, "Wait."), (1, 2, "Wait.\nNot now."), (2, 3, "It is\nlate."), (3, 4, "We must\ngo."),
    ]  # fmt: skip
    kept, notes = rest(*spoken)
    assert kept == spoken
    assert notes == ["1 line was kept that may only repeat the line before"]


def test_dialogue_is_no_rolling_caption():
    spoken = [(0, 1, "- Yes."), (1, 2, "- Yes.\n- No.")]
    assert rest(*spoken) == (spoken, [])


def test_captions_that_last_into_the_next_are_cut():
    kept, notes = without_overlaps(cues((0, 5, "a"), (3, 8, "b"), (6, 10, "c")))
    assert [cue[:2] for cue in kept] == [(0, 3), (3, 6), (6, 10)]
    assert notes == ["2 utterances lasted into the next: each ends where the next begins"]


def test_two_who_talk_at_once_keep_their_times():
    spoken = cues((0, 2, "a"), (2, 5, "b"), (4, 6, "c"), (6, 7, "d"))
    kept, notes = without_overlaps(spoken)
    assert kept == spoken
    assert notes == ["1 utterance begins before the one before has ended"]
    assert without_overlaps(spoken[:2]) == (spoken[:2], [])
    two = cues((0, 3, "a"), (2, 5, "b"), (4, 6, "c"), (6, 7, "d"), (8, 9, "e"), (9, 10, "f"))
    assert without_overlaps(two) == (two, ["2 utterances begin before the one before has ended"])
