"""Cutting: pauses, sentences, and what lasts too long."""

import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.utterances import (
    Utterance,
    are_fragments,
    cut_utterances,
    joined,
    with_usual_end,
)


def said(*timed):
    return [Word(text=text, start=start, end=end) for text, start, end in timed]


def texts(words, pause=0.6, longest=15.0):
    return [utterance.text for utterance in cut_utterances(words, pause=pause, longest=longest)]


def test_cut_at_pauses():
    words = said(("so", 0.0, 0.5), ("it", 1.0, 1.25), ("was", 1.875, 2.0), ("not", 2.5, 3.0))
    (first, second) = cut_utterances(words, pause=0.625, longest=15.0)
    assert first == Utterance(0.0, 1.25, "so it", tuple(words[:2]))
    assert second == Utterance(1.875, 3.0, "was not", tuple(words[2:]))


@pytest.mark.parametrize(
    ("mark", "silence", "after", "is_cut"),
    [
        (".", 0.25, "then", True),
        (".", 0.125, "then", False),
        (".", 0.0, "Then", True),
        ("?", 0.0, '"Then', True),
        ('."', 0.0, "Then", True),
        ("…", 0.25, "then", True),
        ("!", 0.0, "¿Qué", True),
        (",", 0.5, "Then", False),
        ("", 0.5, "Then", False),
        ("。", 0.0, "那", True),
        ("？」", 0.0, "那", True),
    ],
)
def test_cut_at_sentences(mark, silence, after, is_cut):
    words = said(("yes" + mark, 0.0, 1.0), (after, 1.0 + silence, 3.0))
    assert len(texts(words)) == 1 + is_cut


def test_titles_end_no_sentence():
    assert texts(said(("Dr.", 0.0, 0.5), ("Who", 0.5, 1.0))) == ["Dr. Who"]


def test_too_long_is_cut_at_its_longest_pause():
    words = said(("a", 0, 2), ("b", 2.25, 4), ("c", 4.125, 6), ("d", 6.5, 8))
    assert texts(words, longest=6.5) == ["a b c", "d"]
    assert texts(words, longest=5) == ["a", "b c", "d"]


def test_too_long_without_a_pause_is_cut_near_its_middle():
    words = said(*((str(at), at, at + 1) for at in range(4000)))
    found = cut_utterances(words, pause=0.6, longest=15.0)
    assert max(each.end - each.start for each in found) <= 15
    assert min(each.end - each.start for each in found) > 6
    assert [word for each in found for word in each.words] == words


def test_one_long_word_stays():
    assert texts(said(("aaaa", 0.0, 20.0))) == ["aaaa"]


def test_no_words():
    assert cut_utterances([], pause=0.6, longest=15.0) == []


def test_joined_without_spaces_in_chinese():
    words = [Word(text=text) for text in ("我", "喜欢", "iPhone", "。")]
    assert joined(words) == "我喜欢 iPhone 。"
    assert joined([]) == ""


def test_words_without_times_are_refused():
    with pytest.raises(MediaError) as caught:
        cut_utterances([Word(text="so")], pause=0.6, longest=15.0)
    assert str(caught.value) == (
        'the word "so" has no times; expected some for every word.\n'
        "  Find them first: mmcl.media.align.time_words"
    )


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("so|I|saw|it", True),
        ("so I|saw it|and it|was very good", True),
        ("so|I|saw", False),  # too few to tell
        ("Yes.|No.|Maybe!|Yes.", False),  # answers
        ("so I saw it then|and left|again|so", False),
        ("我|喜欢|这部|电影", True),
        ("我喜欢这部电影|我们走吧好吗|再见了我的朋友|我喜欢这部电影", False),  # sentences
    ],
)
def test_fragments(texts, expected):
    pieces = [Utterance(n, n + 1, text) for n, text in enumerate(texts.split("|"))]
    assert are_fragments(pieces) is expected
    assert not are_fragments([piece._replace(start=None, end=None) for piece in pieces])


@pytest.mark.parametrize(("end", "expected"), [(9.0, 2.6), (1.8, 1.8)])
def test_last_word_lasts_as_long_as_its_letters_suggest(end, expected):
    words = said(("so", 0.0, 0.4), ("very", 0.4, 0.8), ("so", 0.8, 1.4), ("amazed", 1.4, end))
    # Seconds per letter of the others: 0.2, 0.1 and 0.3, so 0.2.
    assert with_usual_end(words)[-1].end == expected


def test_last_word_alone_keeps_its_end():
    assert with_usual_end(said(("so", 0.0, 5.0))) == tuple(said(("so", 0.0, 5.0)))
    assert with_usual_end([]) == ()
