"""Transcripts: every format, and every fault word for word."""

import json
import re
from pathlib import Path

import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts.reading import check_times, cut_at_end, find_transcript, read_transcript
from mmcl.media.utterances import Utterance

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
<i.loud>Kids <00:00:01.000><c>are</c> talking

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
    assert read_transcript(written(name, content)).utterances == TWO


def test_read_plain_lines(written):
    path = written("a.txt", "Kids are  talking\n\nby the door; 3;4\n")
    assert read_transcript(path).utterances == [
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
    assert read_transcript(written("a.json", json.dumps(items))).utterances == [
        Utterance(1, 2, "Oh no.", (Word(text="Oh", start=1, end=1.5), Word(text="no."))),
        Utterance(
            3, 5, "Yes sir", (Word(text="Yes", start=3, end=4), Word(text="sir", start=4, end=5))
        ),
        Utterance(None, None, "and"),
    ]


def test_cues_without_text_are_left_out(written):
    path = written("a.srt", "1\n00:00:00,000 --> 00:00:01,000\n\n" + SRT)
    assert read_transcript(path).utterances == TWO


CUE = 'expected "00:00:01,000 --> 00:00:02,500", got'
ROW = "expected start;end;text or start;end;text;label with times in seconds, got"
PAGE = (
    "is a web page, not a transcript.\n"
    "  The download met a page with a question, for a login perhaps: fetch the file itself."
)
EMPTY = "Leave it out, and what is said is recognised from the sound."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "a.docx",
            "",
            '"a.docx" is no transcript that can be read; '
            "expected .srt, .vtt, .sbv, .json, .txt, .csv, .tsv.",
            id="format",
        ),
        pytest.param("a.srt", "", f'"a.srt" holds no utterance.\n  {EMPTY}', id="empty"),
        pytest.param("a.vtt", "WEBVTT\n", f'"a.vtt" holds no utterance.\n  {EMPTY}', id="header"),
        pytest.param("a.json", "[]", f'"a.json" holds no utterance.\n  {EMPTY}', id="no-items"),
        pytest.param(
            "a.srt",
            "\n1\n00:00:01 -> 2\nx\n",
            f'"a.srt", line 3: {CUE} "00:00:01 -> 2".',
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
            "a.srt",
            "1\n00:00:00,000 --> 00:00:01,000\n[Music]\n",
            '"a.srt" holds no utterance.\n'
            "  1 sound was left out: [Music].\n"
            "  Leave it out, and what is said is recognised from the sound.",
            id="sounds",
        ),
        pytest.param(
            "a.srt",
            "\n<!DOCTYPE html>\n<html>",
            f'"a.srt" {PAGE}',
            id="web-page",
        ),
        pytest.param(
            "a.txt",
            "<html><body>Sign in</body></html>",
            f'"a.txt" {PAGE}',
            id="web-page-as-text",
        ),
        pytest.param(
            "a.vtt",
            '<?xml version="1.0"?><tt/>',
            '"a.vtt" is XML, not a transcript.\n  Save the subtitles as srt or vtt.',
            id="xml",
        ),
        pytest.param(
            "a.srt",
            "[Script Info]\nTitle: x\n",
            '"a.srt" is subtitles of the format ass, not a transcript.\n'
            '  Convert them: ffmpeg -i "a.srt" talk.srt',
            id="ass",
        ),
        pytest.param(
            "a.srt",
            "{0}{25}Hello\n",
            '"a.srt" is subtitles with numbers of pictures in place of times, not a transcript.\n'
            '  Convert them: ffmpeg -subfps RATE -i "a.srt" talk.srt',
            id="microdvd",
        ),
        pytest.param(
            "a.txt",
            "version https://git-lfs.github.com/spec/v1\n",
            '"a.txt" is the pointer of a Git LFS file, not a transcript.\n'
            "  Fetch the file: git lfs pull",
            id="pointer",
        ),
        pytest.param(
            "a.srt",
            '{"segments": []}',
            '"a.srt" holds json, which its ending does not say.\n  Rename it: mv "a.srt" "a.json"',
            id="json-as-srt",
        ),
        pytest.param(
            "a.json",
            VTT,
            '"a.json" holds vtt, which its ending does not say.\n  Rename it: mv "a.json" "a.vtt"',
            id="vtt-as-json",
        ),
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
        *(
            pytest.param(
                "a.json",
                content.replace("@", "9" * 5000),
                '"a.json", utterance 1: expected start and end in seconds, got 0.5 and inf.',
                id=f"huge-{name}",
            )
            for name, content in {
                "time": '[{"text": "a", "start": 0.5, "end": @}]',
                "duration": '[{"text": "a", "start": 0.5, "duration": @}]',
                "offset": '{"transcription": [{"text": "a", "offsets": {"from": 500, "to": @}}]}',
            }.items()
        ),
    ],
)
def test_refused(written, name, content, message):
    path = written(name, content)
    if message is None:
        assert read_transcript(path).utterances[0].start is None
        return
    with pytest.raises(MediaError) as caught:
        read_transcript(path)
    assert str(caught.value) == message


@pytest.mark.parametrize("content", [SRT, VTT, json.dumps([each._asdict() for each in TWO])])
def test_text_file_is_read_by_its_content(written, content):
    assert read_transcript(written("a.txt", content)).utterances == TWO


def test_utf_16_is_read(written):
    assert read_transcript(written("a.srt", SRT.encode("utf-16"))).utterances == TWO


def test_unknown_encoding_is_not_guessed(written):
    path = written("a.srt", SRT.replace("door", "Tür").encode("cp1252"))
    with pytest.raises(MediaError, match="its encoding is not known"):
        read_transcript(path)


AUTOMATIC_VTT = """\
WEBVTT
Kind: captions
Language: en

00:00:00.500 --> 00:00:02.000 align:start position:0%
\x20
we<00:00:01.100><c> saw</c><00:00:01.300><c> it</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
we saw it
\x20

00:00:02.010 --> 00:00:04.000 align:start position:0%
we saw it
[Music]<00:00:03.000><c> twice</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
[Music] twice
\x20

00:00:04.010 --> 00:00:05.000 align:start position:0%
[Music] twice
yes
"""


def test_automatic_captions(written):
    utterances, notes = read_transcript(written("a.vtt", AUTOMATIC_VTT))
    assert utterances == [
        Utterance(
            0.5,
            2.0,
            "we saw it",
            (
                Word(text="we", start=0.5, end=1.1),
                Word(text="saw", start=1.1, end=1.3),
                Word(text="it", start=1.3, end=1.666667),
            ),
        ),
        Utterance(2.01, 4.0, "twice", (Word(text="twice", start=3.0, end=3.707143),)),
        Utterance(4.01, 5.0, "yes"),
    ]
    assert notes == ["4 repeated lines were dropped", "1 sound was left out: [Music]"]


def test_automatic_captions_as_srt(written):
    """As yt-dlp converts them: the same cues without times of words."""
    lines = [line for line in AUTOMATIC_VTT.split("\n")[4:] if line != " "]
    text = re.sub(r"<[^>]*>", "", "\n".join(lines)).replace(" align:start position:0%", "")
    utterances, notes = read_transcript(written("a.srt", text.replace(".", ",")))
    assert [u[:3] for u in utterances] == [
        (0.5, 2.0, "we saw it"),
        (2.01, 4.0, "twice"),
        (4.01, 5.0, "yes"),
    ]
    assert notes == ["4 repeated lines were dropped", "1 sound was left out: [Music]"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "00:00:00:00 - 00:00:02:12\nSpeaker 1\nHello.\n"),  # Premiere
        ("a.srt", "1\n00:00:00:00 --> 00:00:02:12\nHello.\n"),
        ("a.txt", "00;00;00;00 00;00;02;12 Hello.\n"),
    ],
)
def test_times_that_count_pictures_are_refused(written, name, text):
    with pytest.raises(MediaError) as caught:
        read_transcript(written(name, text))
    assert str(caught.value) == (
        f'"{name}" is subtitles whose times count pictures (hours:minutes:seconds:pictures), not a '
        "transcript.\n  Export them as srt, whose times end in thousandths of a second."
    )


def test_file_of_clan_is_refused(written):
    with pytest.raises(MediaError) as caught:
        read_transcript(written("a.txt", "@Begin\n*PAR:\thello . 0_2000\n@End\n"))
    assert str(caught.value) == (
        '"a.txt" is a file of CLAN (CHAT), not a transcript.\n'
        "  Write it as lines of start;end;text."
    )


def test_subtitles_in_two_languages(written):
    path = written("a.srt", "0:00 --> 0:01\n你好。\nHi.\n\n0:01 --> 0:02\n好吗？\nWell?\n")
    assert [u.text for u in read_transcript(path, "en").utterances] == ["Hi.", "Well?"]
    short = written("b.srt", "0:00 --> 0:01\n你好\nHi.\n\n0:01 --> 0:02\n好吗\nWell?\n")
    assert [u.text for u in read_transcript(short).utterances] == ["你好", "好吗"]
    utterances, notes = read_transcript(path)
    assert [u.text for u in utterances] == ["你好。", "好吗？"]
    assert notes == ['subtitles in two languages: "你好。" and the like were kept, "Hi." left out']


def test_names_above_what_is_said(written):
    """As Teams writes them into a document."""
    text = "0:0:0.0 --> 0:0:2.340\nAnna Smith\nGood morning.\n\n0:0:2.5 --> 0:0:4.1\n{}\nHi.\n"
    utterances, _ = read_transcript(written("a.txt", text.format("Ben")))
    assert [(u.text, u.speaker) for u in utterances] == [
        ("Good morning.", "Anna Smith"),
        ("Hi.", "Ben"),
    ]
    utterances, _ = read_transcript(written("a.txt", text.format("Oh, Ben.")))
    assert [u.text for u in utterances] == ["Anna Smith Good morning.", "Oh, Ben. Hi."]


def test_captions_that_last_into_the_next(written):
    cues = [("00:01", "00:06", "a"), ("00:03", "00:08", "b"), ("00:05", "00:09", "c")]
    text = "\n".join(f"{start}.000 --> {end}.000\n{cue}\n" for start, end, cue in cues)
    utterances, notes = read_transcript(written("a.srt", text))
    assert [u[:2] for u in utterances] == [(1.0, 3.0), (3.0, 5.0), (5.0, 9.0)]
    assert notes == ["2 utterances lasted into the next: each ends where the next begins"]


def test_notes_tell_everything_that_is_no_speech(written):
    cues = ["Subtitles by Ben", "ANNA: Oh.", "♪ la la ♪", "- No.\n- Yes.", "c (mostly)", "Note: d"]
    text = "\n".join(f"00:0{i}.000 --> 00:0{i}.900\n{cue}\n" for i, cue in enumerate(cues))
    utterances, notes = read_transcript(written("a.vtt", f"WEBVTT\n\n{text}"))
    assert [(u.text, u.speaker) for u in utterances] == [
        ("Oh.", "ANNA"),
        ("No. Yes.", None),
        ("c (mostly)", None),
        ("Note: d", None),
    ]
    assert notes == [
        "speaker names: ANNA",
        "1 utterance holds what several people say",
        "1 sound was left out: ♪ la la ♪",
        "what is about the subtitles themselves was left out: Subtitles by Ben",
        "kept as speech, though in brackets: (mostly)",
        "kept as speech, though it may name a speaker: Note:",
    ]


def test_missing(tmp_path):
    with pytest.raises(MediaError) as caught:
        read_transcript(tmp_path / "a.srt")
    assert str(caught.value) == f'"a.srt": no such file in "{tmp_path}".'


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


def test_subtitle_that_stays_on_the_screen_ends_with_the_recording():
    words = (Word(text="so", start=8.0, end=9.2), Word(text="it", start=9.2, end=11.0))
    utterances = [Utterance(0.0, 8.0, "a"), Utterance(8.0, 11.0, "so it", words)]
    cut, notes = cut_at_end(utterances, 9.5)
    assert cut == [
        utterances[0],
        Utterance(8.0, 9.5, "so it", (words[0], Word(text="it", start=9.2, end=9.5))),
    ]
    assert notes == ["1 utterance ended 1.5 s after the recording: cut at its end"]
    check_times(Path("a.srt"), cut, 9.5)


@pytest.mark.parametrize(
    "utterance",
    [
        pytest.param(Utterance(8.0, 10.0, "rounded"), id="rounded"),
        pytest.param(Utterance(8.0, 12.6, "too long"), id="too-long"),
        pytest.param(Utterance(9.6, 12.0, "after it"), id="after-the-end"),
        pytest.param(Utterance(None, None, "no times"), id="no-times"),
    ],
)
def test_other_times_are_not_cut(utterance):
    assert cut_at_end([utterance], 9.5) == ([utterance], [])


# Beside a file


def test_find_transcript(tmp_path, written):
    media = tmp_path / "talk.one.mp4"
    assert find_transcript(media) is None
    for name in ("talk.one.txt", "talk.one.vtt", "talk.srt", "other.SRT"):
        written(name, "x")
    assert find_transcript(media) == tmp_path / "talk.one.vtt"
    assert find_transcript(tmp_path / "other.wav") == tmp_path / "other.SRT"
    (tmp_path / "talk.one.srt").mkdir()
    assert find_transcript(media) == tmp_path / "talk.one.vtt"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["talk.en.vtt"], "talk.en.vtt"),
        (["talk.pt-BR.json", "talk.pt-BR.srt"], "talk.pt-BR.srt"),
        (["talk.en.vtt", "talk.de.vtt"], None),  # which of them is said is not known
        (["talk.en.vtt", "talk.srt"], "talk.srt"),
        (["talk.final.srt", "talks.en.vtt"], None),
        (["talk.en.json", "talk.en.srt", "talk.en-orig.vtt"], "talk.en.srt"),
    ],
)
def test_find_transcript_that_names_its_language(tmp_path, written, names, expected):
    for name in names:
        written(name, "x")
    found = find_transcript(tmp_path / "talk.mp4")
    assert (found and found.name) == expected


def test_find_transcript_of_a_language(tmp_path, written):
    for name in ("talk.en.vtt", "talk.de.vtt", "talk.ger.srt"):
        written(name, "x")
    assert find_transcript(tmp_path / "talk.mp4", "en") == tmp_path / "talk.en.vtt"
    assert find_transcript(tmp_path / "talk.mp4", "de") == tmp_path / "talk.de.vtt"
    assert find_transcript(tmp_path / "talk.mp4", "fr") is None
    written("talk.txt", "x")
    assert find_transcript(tmp_path / "talk.mp4", "en") == tmp_path / "talk.txt"
