"""Transcripts that are tables or lines: separators, decimals, units, names and times."""

import pytest

from mmcl.errors import MediaError
from mmcl.media.transcripts.tables import find_separator, read_lines, read_table
from mmcl.media.utterances import Utterance

TWO = [Utterance(0.5, 2.25, "Kids, yes"), Utterance(3.0, 4.5, "door")]
COMMAS = "commas in its times were read as decimal points"
MILLISECONDS = "its times were read as milliseconds"


def table(text):
    separator = find_separator(text)
    assert separator is not None
    return read_table("a.csv", text, separator)


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ('0.5;2.25;"Kids, yes"\n3;4.5;door;-1\n', []),
        ("0,5;2,25;Kids, yes\n3;4,5;door\n", [COMMAS]),
        ("0.5\t2.25\tKids, yes\n3\t4.5\tdoor\n", []),  # labels of Audacity
        ('0.5,2.25,"Kids, yes"\n3,4.5,door\n', []),
        ('start,end,text\n0.5,2.25,"Kids, yes"\n3,4.5,door\n', []),
        ("Start Time;End Time;Transcript\n0,5;2,25;Kids, yes\n3,0;4,5;door\n", [COMMAS]),
        ("Kids;0.5;2.25\n", None),
        ("00:00:00,500;00:00:02,250;Kids, yes\n0:03;0:04.5;door\n", []),
        ("start\tend\ttext\n500\t2250\tKids, yes\n3000\t4500\tdoor\n", [MILLISECONDS]),
        ('start_ms,end_ms,text\n500,2250,"Kids, yes"\n3000,4500,door\n', [MILLISECONDS]),
    ],
)
def test_tables(text, notes):
    if notes is None:
        assert find_separator(text) is None
    else:
        assert table(text) == (TWO, notes)


def test_whole_seconds_stay_seconds():
    assert table("start\tend\ttext\n0\t5\ta\n5\t95\tb\n")[0][1][:2] == (5.0, 95.0)


def test_columns_by_name():
    utterances, _ = table("start,end,speaker,text\n0,1,ANNA, so\n1,2,,no\n")
    assert utterances == [
        Utterance(0.0, 1.0, " so", speaker="ANNA"),
        Utterance(1.0, 2.0, "no"),
    ]


def test_columns_in_any_order():
    utterances, _ = table("id\tSpeaker\tStart\tEnd\tText\n7\tANNA\t0.5\t1\tso\n8\t\t1\t2\tno\n")
    assert utterances == [Utterance(0.5, 1.0, "so", speaker="ANNA"), Utterance(1.0, 2.0, "no")]
    with pytest.raises(MediaError, match="line 2: expected start,end,text"):
        table("text,start,end\nso, so,0,1\n")


@pytest.mark.parametrize("text", ["1, 2, 3 go\nand then\n", "hello\n", "1;2\n", ""])
def test_plain_text_is_no_table(text):
    assert find_separator(text) is None


@pytest.mark.parametrize(
    ("text", "number", "expected", "line"),
    [
        ("0,1,a, b\n1,2,c, d, e\n", 2, "start,end,text or start,end,text,label", "1,2,c, d, e"),
        ("start\tend\ttext\n0\t1\ta\tb\n", 2, "start<tab>end<tab>text", "0\t1\ta\tb"),
        ("start,end,text\nx,1,a\n", 2, "start,end,text", "x,1,a"),
        ("0;1;a\nx;2;b\n", 2, "start;end;text or start;end;text;label", "x;2;b"),
    ],
)
def test_broken_rows_are_refused(text, number, expected, line):
    with pytest.raises(MediaError) as caught:
        table(text)
    assert str(caught.value) == (
        f'"a.csv", line {number}: expected {expected} with times in seconds, got "{line}".'
    )


def lines(text):
    utterances, notes = read_lines("a.txt", text)
    return [(utterance.text.strip(), utterance.speaker) for utterance in utterances], notes


LEFT_OUT = "2 times without an end left out: when the words are said is heard"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Anna Smith  0:03  \nHello.\n\nSpeaker 2  0:10\nAt 10:30.\n", id="otter"),
        pytest.param("[Anna Smith] 10:03:04\nHello.\n[Speaker 2] 10:03:09\nAt 10:30.", id="zoom"),
        pytest.param("Anna Smith\n0:03\nHello.\nSpeaker 2\n0:10\nAt 10:30.", id="two-lines"),
        pytest.param("Anna Smith (00:03):\nHello.\n\nSpeaker 2 (00:10):\nAt 10:30.", id="rev"),
    ],
)
def test_headings_name_the_speakers(text):
    assert lines(text) == ([("Hello.", "Anna Smith"), ("At 10:30.", "Speaker 2")], [LEFT_OUT])


@pytest.mark.parametrize(
    "text",
    [
        "0:00\nhello all\n0:03\nwelcome",
        "0:00 hello all\n0:03 welcome",
        "[00:00:00] hello all\n[00:00:03] welcome",
        "(0:00) - hello all\n(0:03) - welcome",
        "[00:00.10]hello all\n[00:03.20]welcome",
        "0:00\n0 seconds\nhello all\n1:03:02\n1 hour, 3 minutes, 2 seconds\nwelcome",
    ],
)
def test_times_before_lines_are_left_out(text):
    assert lines(text) == ([("hello all", None), ("welcome", None)], [LEFT_OUT])


@pytest.mark.parametrize(
    "text",
    [
        "10:30 is late",
        "we met\n10:30 is late\n10:40 too",
        "10:30 is late\nwe met\nand\ntalked\n10:40 is later",
        "a\nb",
    ],
)
def test_times_that_are_said_stay(text):
    assert lines(text) == ([(line, None) for line in text.split("\n")], [])


def test_title_above_the_first_speaker_is_left_out():
    """As Otter writes it: what the talk is about, and who speaks."""
    said, notes = lines("My talk\nSPEAKERS\nAnna, Ben\nAnna  0:03\nHello.\nBen  0:10\nYes.\n")
    assert said == [("Hello.", "Anna"), ("Yes.", "Ben")]
    assert notes == [
        '3 lines were left out above the first speaker: "My talk" and so on',
        LEFT_OUT,
    ]


def test_names_behind_times():
    said, _ = lines("[0:00.5] - Anna\nHello.\n[0:03] - Ben\nYes.\n[0:05] - Anna\nSo.\n")
    assert said == [("Hello.", "Anna"), ("Yes.", "Ben"), ("So.", "Anna")]
    # Single words are not names.
    assert lines("0:00 Hello\n0:03 Welcome")[0] == [("Hello", None), ("Welcome", None)]


def test_times_alone_on_their_lines_are_left_out_wherever_they_are():
    assert lines("hello all\n0:03\nand\nso\non\n0:09")[0] == [
        (line, None) for line in ("hello all", "and", "so", "on")
    ]


def test_table_of_unknown_columns_is_refused():
    """As ELAN exports it; with the line that the error asks for it is read."""
    row = "ANNA\t\t00:00:00.500\t00:00:02.250\tKids, yes\n"
    with pytest.raises(MediaError) as caught:
        lines(row)
    assert str(caught.value) == (
        '"a.txt" is a table, and which of its 5 columns is which is not known.\n'
        "  Its first line: ANNA |  | 00:00:00.500 | 00:00:02.250 | Kids, yes\n"
        "  Write a first line that names the columns, with tabs between them: start, end, text "
        "and, if wanted, speaker. Others may have any other names."
    )
    assert table(f"speaker\tx\tstart\tend\ttext\n{row}")[0] == [
        Utterance(0.5, 2.25, "Kids, yes", speaker="ANNA")
    ]


@pytest.mark.parametrize("titles", ["tmin,tmax,text", "Begin Time,End Time,Text", "from,to,text"])
def test_names_of_columns(titles):
    assert table(f"{titles}\n0.5,2.25,door\n")[0] == [Utterance(0.5, 2.25, "door")]
