"""Subtitles as cues: their times, their titles, what lies between them, and times of words."""

import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts.subtitles import (
    has_cues,
    inline_words,
    read_cues,
    read_timed_lines,
    without_markup,
)
from mmcl.media.utterances import Utterance

TWO = [Utterance(1.0, 2.5, "one"), Utterance(3.0, 4.0, "two")]


def cues_of(text):
    cues, notes = read_cues("a.srt", text)
    assert not notes
    return cues


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "1\n00:00:01,000 --> 00:00:02,500\none\n\n2\n00:00:03,000 --> 00:00:04,000\ntwo\n",
            id="srt",
        ),
        pytest.param("0:01.0 --> 0:02.5\none\n\n0:03 --> 0:04\ntwo", id="no-numbers"),
        pytest.param("1\n0:01 --> 0:02.5\none\n2\n0:03 --> 0:04\ntwo\n", id="no-empty-lines"),
        pytest.param("\n\n1\n0:01 --> 0:02.5\none\n\n\n\n2\n0:03 --> 0:04\n\ntwo", id="more-lines"),
        pytest.param(
            "1\n00: 00: 01, 000 -> 00: 00: 02, 500\none\n\n2\n00:00:03,0-->00:00:04,0\ntwo\n",
            id="spaces-in-times",
        ),
        pytest.param("7\n0:01 --> 0:02.5\none\n\n0:03 --> 0:04\ntwo", id="a-number-is-missing"),
        pytest.param("0:01 --> 0:02.5\none\n\n2\n0:03 --> 0:04\ntwo", id="the-first-number-is"),
        pytest.param("intro\n0:01 --> 0:02.5\none\n\nend\n0:03 --> 0:04\ntwo", id="names"),
        pytest.param(
            "WEBVTT\nKind: captions\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:9\n\n"
            "STYLE\n::cue { color: red }\n\nREGION\nid:one\n\nNOTE two\nlines\n\n"
            "00:01.000 --> 00:02.500 line:0 align:start\none\n\nNOTE\nnot said\n\n"
            "last one\n00:03.000 --> 00:04.000\ntwo\n\nNOTE end",
            id="vtt",
        ),
        pytest.param("0:00:01.000,0:00:02.500\none\n\n0:00:03.000,0:00:04.000\ntwo", id="sbv"),
        pytest.param("1\n0:00:01:000 --> 0:00:02:500\none\n\n0:03 --> 0:04\ntwo", id="colons"),
        pytest.param("WEBVTT\n0:01 --> 0:02.5\none\n\n0:03 --> 0:04\ntwo", id="header-touches"),
    ],
)
def test_cues_of_every_spelling(text):
    assert cues_of(text) == TWO


def test_lines_of_a_space_do_not_end_a_cue():
    assert cues_of("0:01 --> 0:02\n \none\n\n0:02 --> 0:03\ntwo\n \n") == [
        Utterance(1.0, 2.0, "one"),
        Utterance(2.0, 3.0, "two"),
    ]


def test_numbers_may_be_said():
    assert cues_of("0:01 --> 0:02\n2001\n\n0:02 --> 0:03\n42")[0].text == "2001"
    assert cues_of("0:01 --> 0:02\n2001\n0:02 --> 0:03\n42")[0].text == "2001"
    numbered = "1\n0:01 --> 0:02\n2001\n\n2\n0:02 --> 0:03\n42\n"
    assert [cue.text for cue in cues_of(numbered)] == ["2001", "42"]


def test_text_after_an_empty_line_is_kept_and_said():
    text = "1\n0:01 --> 0:02\none\n\nmore\n\n2\n0:03 --> 0:04\ntwo\n\nend\n"
    cues, notes = read_cues("a.srt", text)
    assert [cue.text for cue in cues] == ["one\nmore", "two\nend"]
    assert notes == [
        "text after an empty line was read as part of the utterance before it (line 5, for example)"
    ]


@pytest.mark.parametrize(
    ("text", "number", "line"),
    [
        ("hello\n\n1\n0:01 --> 0:02\none", 1, "hello"),
        ("WEBVTT\n\nhello\n\n0:01 --> 0:02\none", 3, "hello"),
        ("just text", 1, "just text"),
        ("1\n0:01 --> 0:02\none\n\n2\n0:03 --> \ntwo", 6, "0:03 --> "),
        ("1\n00:00:01:50 --> 00:00:02:50\none", 2, "00:00:01:50 --> 00:00:02:50"),
    ],
)
def test_broken_lines_are_refused(text, number, line):
    with pytest.raises(MediaError) as caught:
        read_cues("a.srt", text)
    assert str(caught.value) == (
        f'"a.srt", line {number}: expected "00:00:01,000 --> 00:00:02,500", got "{line}".'
    )


def test_has_cues():
    assert has_cues("WEBVTT\n")
    assert has_cues("\n1\n0:01 --> 0:02\none")
    assert not has_cues("a --> b\nfirst\n")


def test_lines_as_whisper_prints_them():
    text = "[00:01.000 --> 00:02.500]  one\n\n[00:00:03.000 --> 00:00:04.000] two\n"
    assert read_timed_lines("a.txt", text) == [
        u._replace(text=f"{' ' * n}{u.text}") for u, n in zip(TWO, (2, 1), strict=True)
    ]
    assert read_timed_lines("a.txt", f"Detected language: English\n{text}") is not None
    assert read_timed_lines("a.txt", "one\n[Music]\n") is None
    with pytest.raises(MediaError) as caught:
        read_timed_lines("a.txt", f"{text}three\n")
    assert str(caught.value) == (
        '"a.txt", line 4: expected "[00:01.000 --> 00:02.500] text" as in other lines, got "three".'
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[1.0s -> 2.50s]one\n[3s -> 4.00s] two", id="faster-whisper"),
        pytest.param(
            "Ses01F_impro01_F000 [001.0000-002.5000]: one\nSes01F_impro01_M000 [003.0-004.0]: two",
            id="iemocap",
        ),
        pytest.param("_0b-x___0___1.0___2.5___one\n_0b-x___1___3___4.0___two", id="mosei"),
    ],
)
def test_lines_with_times_in_seconds(text):
    assert read_timed_lines("a.txt", text) == TWO


def test_words_with_times_inside():
    cue = Utterance(1.0, 3.0, "so<00:00:01.500><c> very</c>\n<00:00:02.000><c> good</c>")
    assert inline_words(cue) == (
        Word(text="so", start=1.0, end=1.5),
        Word(text="very", start=1.5, end=2.0),
        Word(text="good", start=2.0, end=2.75),
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("no times", id="none"),
        pytest.param("so <00:00:01.500>very good", id="not-for-every-word"),
        pytest.param("so<00:00:02.500> very<00:00:02.000> good", id="backwards"),
        pytest.param("so<00:00:03.500> good", id="after-the-end"),
    ],
)
def test_words_without_sure_times_have_none(text):
    assert inline_words(Utterance(1.0, 3.0, text)) == ()


def test_bracket_is_one_word():
    cue = Utterance(1.0, 3.0, "so<00:00:01.500><c> [\xa0__\xa0]</c><00:00:02.000><c> good</c>")
    assert [word.text for word in inline_words(cue)] == ["so", "[\xa0__\xa0]", "good"]


def test_minutes_may_be_more_than_99():
    assert cues_of("100:01.500 --> 100:02\none")[0].start == 6001.5


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<i>so</i> <b>good</b>", "so good"),
        ("**Anna:** so **good**", "Anna: so **good**"),
        ("**Anna**: so", "Anna: so"),
        ('<font color="#ffff00" size=4>so</font>', "so"),
        ("<c.yellow.bg_blue>so</c><00:00:01.000><c> good</c>", "so good"),
        ("<lang en>so</lang> <ruby>漢<rt>kan</rt></ruby>", "so 漢"),
        ("{\\an8}so{\\i1} good{\\i0}", "so good"),
        ("{\\pos(192,210)}so\\Ngood", "so\ngood"),
        ("{y:i}so", "so"),
        ("so<br/>good<BR>now", "so\ngood\nnow"),
        ("rock &amp; roll &gt;&gt; it&#39;s&nbsp;on", "rock & roll >> it's\xa0on"),
        ("so\u200b good\ufeff", "so good"),  # spaces of no width
        ("&lrm;so good\u202c", "so good"),  # the direction of writing
        ("if a < b and b > c", "if a < b and b > c"),
        ("<laughter> I <3 it", "<laughter> I <3 it"),
    ],
)
def test_markup_is_taken_out(text, plain):
    assert without_markup(text) == plain
