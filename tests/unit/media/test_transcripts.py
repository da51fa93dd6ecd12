"""Transcripts: every format, and every fault word for word."""

import json
from pathlib import Path

import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts import Utterance, check_times, find_transcript, read_transcript

TWO = [Utterance(0.5, 2.25, "Kids are talking"), Utterance(3.0, 3723.5, "by the door.")]

SRT = """\
1
00:00:00,500 --> 00:00:02,250
<i>Kids are</i>
talking

2
00:00:03,000 --> 01:02:03,500 X1:40 X2:600
{\\an8}by the door.
"""

VTT = """\
WEBVTT - a title

NOTE
not said

STYLE
::cue { color: red }

first
00:00.500 --> 00:02.250 align:start
<v Anna>Kids <00:00:01.000><c>are</c> talking

00:03.000 --> 01:02:03.500
by the&nbsp;door.
"""

LINES = """\
"#starttime";"#endtime";"transcription";"sentimentAnnotations"
0.500;2.25;"Kids are talking";"1"
3;3723.5;by the door.
"""


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.srt", SRT),
        ("a.SRT", "\ufeff" + SRT.replace("\n", "\r\n")),
        ("a.vtt", VTT),
        ("a.txt", LINES),
        ("a.csv", LINES),
        ("a.csv", "\ufeff" + LINES[LINES.index("0.5") :]),
        ("a.json", json.dumps([each._asdict() for each in TWO])),
        ("a.json", json.dumps({"language": "en", "segments": [each._asdict() for each in TWO]})),
    ],
)
def test_read_with_times(written, name, content):
    assert read_transcript(written(name, content)) == TWO


def test_read_plain_lines(written):
    path = written("a.txt", "Kids are  talking\n\nby the door; 3;4\n")
    assert read_transcript(path) == [
        Utterance(None, None, "Kids are talking"),
        Utterance(None, None, "by the door; 3;4"),
    ]


def test_read_words(written):
    items = [
        {
            "text": " Oh no.",
            "start": 1,
            "end": 2,
            "words": [
                {"word": " Oh", "start": 1, "end": 1.5, "probability": 0.9},
                {"text": "no."},
                {"word": " "},
            ],
        },
        {"words": [{"word": "Yes", "start": 3, "end": 4}, {"word": "sir", "start": 4, "end": 5}]},
        {"text": "and", "words": None},
        {"text": "  "},
    ]
    assert read_transcript(written("a.json", json.dumps(items))) == [
        Utterance(1, 2, "Oh no.", (Word(text="Oh", start=1, end=1.5), Word(text="no."))),
        Utterance(
            3, 5, "Yes sir", (Word(text="Yes", start=3, end=4), Word(text="sir", start=4, end=5))
        ),
        Utterance(None, None, "and"),
    ]


def test_cues_without_text_are_left_out(written):
    path = written("a.srt", "1\n00:00:00,000 --> 00:00:01,000\n\n" + SRT)
    assert read_transcript(path) == TWO


CUE = 'expected "00:00:01,000 --> 00:00:02,500", got'
ROW = "expected start;end;text or start;end;text;label with times in seconds, got"
EMPTY = "Leave it out, and what is said is recognised from the sound."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "a.docx",
            "",
            '"a.docx" is no transcript that can be read; expected .srt, .vtt, .json, .txt, .csv.',
            id="format",
        ),
        pytest.param("a.srt", "", f'"a.srt" holds no utterance.\n  {EMPTY}', id="empty"),
        pytest.param("a.vtt", "WEBVTT\n", f'"a.vtt" holds no utterance.\n  {EMPTY}', id="header"),
        pytest.param("a.json", "[]", f'"a.json" holds no utterance.\n  {EMPTY}', id="no-items"),
        pytest.param(
            "a.txt",
            b"caf\xe9\n",
            '"a.txt" is not UTF-8 text (byte 3).\n'
            '  Convert it: iconv -f latin1 -t utf8 "a.txt" > "utf8-a.txt"',
            id="latin",
        ),
        pytest.param("a.srt", SRT + "\nhello\n", f'"a.srt", line 10: {CUE} "hello".', id="no-time"),
        pytest.param(
            "a.srt",
            "\n1\n00:00:01 -> 2\nx\n",
            f'"a.srt", line 2: {CUE} "1".',
            id="arrow",
        ),
        pytest.param(
            "a.srt", "1\n00:x --> 2\nx\n", f'"a.srt", line 2: {CUE} "00:x --> 2".', id="time"
        ),
        pytest.param(
            "a.csv", "0;1;hi\n1;two;ho\n", f'"a.csv", line 2: {ROW} "1;two;ho".', id="number"
        ),
        pytest.param("a.csv", "hello\n", f'"a.csv", line 1: {ROW} "hello".', id="no-fields"),
        pytest.param("a.txt", "0;nan;hi\n1;2;x", None, id="plain-after-all"),
        pytest.param(
            "a.txt", "0;1;a\n0;inf;hi\n", f'"a.txt", line 2: {ROW} "0;inf;hi".', id="infinite"
        ),
        pytest.param("a.txt", "0;1;a;b;c\n", f'"a.txt", line 1: {ROW} "0;1;a;b;c".', id="too-many"),
        pytest.param(
            "a.json",
            '[\n{"text": }]',
            '"a.json", line 2: not JSON (Expecting value).\n'
            '  Look at it: python -m json.tool "a.json"',
            id="json",
        ),
        pytest.param(
            "a.json",
            '{"words": [], "text": ""}',
            '"a.json": expected a list of utterances or {"segments": [...]}, '
            "got an object with the keys ['text', 'words'].",
            id="object",
        ),
        pytest.param(
            "a.json",
            "3",
            '"a.json": expected a list of utterances or {"segments": [...]}, got a int.',
            id="scalar",
        ),
        pytest.param(
            "a.json",
            '["hi"]',
            '"a.json", utterance 1: expected an object with "text", got \'hi\'.',
            id="string",
        ),
        pytest.param(
            "a.json",
            '[{"text": "a"}, {"start": 1, "end": 2}]',
            '"a.json", utterance 2: expected "text" to be a string, got None.',
            id="no-text",
        ),
        pytest.param(
            "a.json",
            '[{"text": "a", "start": "1", "end": 2}]',
            "\"a.json\", utterance 1: expected start and end in seconds, got '1' and 2.",
            id="string-time",
        ),
        pytest.param(
            "a.json",
            '[{"text": "a", "start": 1}]',
            '"a.json", utterance 1: expected both start and end or neither, got 1 and None.',
            id="half-time",
        ),
        pytest.param(
            "a.json",
            '[{"text": "a", "words": [{"text": "a"}, {"start": 1}]}]',
            '"a.json", utterance 1: word 2: expected an object with "text" or "word", '
            "got {'start': 1}.",
            id="word",
        ),
        pytest.param(
            "a.json",
            '[{"text": "a", "words": [{"text": "a", "start": true, "end": NaN}]}]',
            '"a.json", utterance 1: word 1: expected start and end in seconds, got True and nan.',
            id="word-time",
        ),
    ],
)
def test_refused(written, name, content, message):
    path = written(name, content)
    if message is None:
        assert read_transcript(path)[0].start is None
        return
    with pytest.raises(MediaError) as caught:
        read_transcript(path)
    assert str(caught.value) == message


def test_missing(tmp_path):
    with pytest.raises(MediaError) as caught:
        read_transcript(tmp_path / "a.srt")
    assert str(caught.value) == f'"a.srt": no such transcript in "{tmp_path}".'


def test_folder(tmp_path):
    (tmp_path / "a.srt").mkdir()
    with pytest.raises(MediaError) as caught:
        read_transcript(tmp_path / "a.srt")
    assert str(caught.value) == '"a.srt" cannot be read: Is a directory.'


# Times


def test_times_that_fit():
    word = Word(text="a", start=1.0, end=1.0)  # Whisper gives words of no length
    check_times(
        Path("a.srt"),
        [
            Utterance(0.0, 1.0, "a"),
            Utterance(None, None, "b", (Word(text="b"),)),
            Utterance(1.0, 10.5, "c", (word,)),  # subtitles are rounded
        ],
        10.0,
    )


def test_times_that_do_not_fit():
    with pytest.raises(MediaError) as caught:
        check_times(
            Path("/talks/a.srt"),
            [
                Utterance(0.0, 1.0, "fits"),
                Utterance(3.0, 2.0, "a"),
                Utterance(3.0, 3.0, "b"),
                Utterance(-1.0, 2.0, "c"),
                Utterance(9.0, 10.51, "d"),
                Utterance(4.0, 5.0, "e f", (Word(text="f", start=5.0, end=4.5),)),
                Utterance(20.0, 21.0, "g"),
                Utterance(21.0, 22.0, "h"),
            ],
            10.0,
        )
    assert str(caught.value) == (
        '"a.srt" has 7 times that do not fit its clip of 10.00 s:\n'
        "  utterance 2: 3..2 s does not end after it starts.\n"
        "  utterance 3: 3..3 s does not end after it starts.\n"
        "  utterance 4: -1..2 s lies outside the clip.\n"
        "  utterance 5: 9..10.51 s lies outside the clip.\n"
        '  utterance 6, word 1 "f": 5..4.5 s does not end after it starts.\n'
        "  And 2 more.\n"
        "  Expected 0 <= start < end <= the clip's length. Is it of another file?\n"
        "  Correct it, or take it away: what is said is recognised then."
    )


def test_one_time_that_does_not_fit():
    with pytest.raises(MediaError) as caught:
        check_times(Path("a.vtt"), [Utterance(0.0, 9.0, "late")], 3.0)
    assert str(caught.value) == (
        '"a.vtt" has 1 time that does not fit its clip of 3.00 s:\n'
        "  utterance 1: 0..9 s lies outside the clip.\n"
        "  Expected 0 <= start < end <= the clip's length. Is it of another file?\n"
        "  Correct it, or take it away: what is said is recognised then."
    )


# Beside a file


def test_find_transcript(tmp_path, written):
    media = tmp_path / "talk.one.mp4"
    assert find_transcript(media) is None
    for name in ("talk.one.txt", "talk.one.vtt", "talk.srt", "other.srt"):
        written(name, "x")
    assert find_transcript(media) == tmp_path / "talk.one.vtt"
    (tmp_path / "talk.one.srt").mkdir()
    assert find_transcript(media) == tmp_path / "talk.one.vtt"
