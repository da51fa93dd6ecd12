"""Names of speakers: taken where the form or the file shows them, and never out of a sentence."""

import pytest

from mmcl.media.transcripts.speakers import find_names, looks_like_a_name, read_turn


def speakers(*lines):
    """Return the speaker and the text of every line, and what was left because unsure."""
    turns = [read_turn(line) for line in lines]
    names, doubtful = find_names(turns)
    told = [
        (turn.name, turn.text)
        if turn.name is not None and turn.name.casefold() in names
        else (None, turn.whole)
        for turn in turns
    ]
    return told, doubtful


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ANNA: so good", "ANNA"),
        ("ANNA (whispering): so good", "ANNA"),
        ("MAN 1: so good", "MAN 1"),
        (">> Anna: so good", "Anna"),
        (">> ANNA SMITH: so good", "ANNA SMITH"),
        ("- ANNA: so good", "ANNA"),
        ("[Speaker 1]: so good", "Speaker 1"),
        ("[Anna Smith]: so good", "Anna Smith"),
        ("(Anna): so good", "Anna"),
        ("SPEAKER_00: so good", "SPEAKER_00"),
        ("[SPEAKER_00]: so good", "SPEAKER_00"),
        ("[SPEAKER_00] so good", "SPEAKER_00"),
        ("speaker 2: so good", "speaker 2"),
    ],
)
def test_forms_that_are_sure(line, name):
    assert speakers("it was", line, "and then", "more", "of it") == (
        [(None, "it was"), (name, "so good"), *((None, t) for t in ("and then", "more", "of it"))],
        [],
    )


def test_names_that_come_back():
    told, doubtful = speakers("Anna Smith: Hi.", "It was", "good.", "Anna Smith: Yes.", "So.")
    assert told[0] == ("Anna Smith", "Hi.")
    assert told[3] == ("Anna Smith", "Yes.")
    assert doubtful == []


def test_names_before_most_lines():
    told, _ = speakers("Dr. O'Neil: Hi.", "Anna-Lena van Berg: Hello.", "And you?")
    assert told == [("Dr. O'Neil", "Hi."), ("Anna-Lena van Berg", "Hello."), (None, "And you?")]


def test_names_without_capitals():
    told, doubtful = speakers("أحمد: مرحبا", "دانا: نعم", "أحمد: كيف الحال؟")
    assert [name for name, _ in told] == ["أحمد", "دانا", "أحمد"]
    assert speakers("שלום לכם", "דנה: כן", "טוב")[1] == ["דנה"]
    assert doubtful == []


@pytest.mark.parametrize("words", ["Achtung Frage Antwort", "Question Réponse Exemple"])
def test_words_of_other_languages_that_are_no_names(words):
    lines = [f"{word}: so" for word in words.split()]
    assert speakers(*lines) == ([(None, line) for line in lines], words.split())


def test_chinese_names():
    assert speakers("张三：你好", "李四：好")[0] == [("张三", "你好"), ("李四", "好")]


@pytest.mark.parametrize(
    "line",
    [
        "Here is the thing: I liked it",
        "at 10:30 we met",
        "Chapter 3:16 is short",
        "https://example.org is a page",
        "one thing: no",
        "I Really Do Mean: no",
    ],
)
def test_colons_in_speech(line):
    assert speakers(line, line) == ([(None, line)] * 2, [])


@pytest.mark.parametrize("line", ["Note: it is short", "Anna: it is short", "Verdict: bad"])
def test_single_beginning_is_kept_and_told(line):
    told, doubtful = speakers("I saw it", line, "twice")
    assert told[1] == (None, line)
    assert doubtful == [line.split(":")[0]]


def test_two_beginnings_in_a_long_text_are_not_names():
    told, doubtful = speakers("Anna: it is short", *["so"] * 8, "Ben: and good")
    assert [name for name, _ in told] == [None] * 10
    assert doubtful == ["Anna", "Ben"]


def test_words_that_are_no_names_do_not_become_some_by_repetition():
    told, doubtful = speakers("Note: one", "NOTE: two", "Note: three")
    assert [name for name, _ in told] == [None, None, None]
    assert doubtful == ["Note", "NOTE"]


def test_capitals_show_nothing_in_a_text_of_capitals():
    told, doubtful = speakers("ONE THING: I LIKED IT.", "IT WAS GOOD.", "VERY GOOD.")
    assert told[0] == (None, "ONE THING: I LIKED IT.")
    assert doubtful == ["ONE THING"]


def test_name_found_once_is_found_in_any_spelling():
    assert speakers("[Anna]: Hi.", "a", "b", "c", "ANNA: Yes.")[0][-1] == ("ANNA", "Yes.")


def test_dashes_and_changes_are_no_text():
    assert read_turn("- Yes.").text == "Yes."
    assert read_turn("–Yes.").text == "Yes."
    assert read_turn("-5 degrees").text == "-5 degrees"
    turn = read_turn(">> and so on")
    assert (turn.is_new, turn.name, turn.text) == (True, None, "and so on")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Anna", True), ("Host 2", True), ("Guy de la Cour", True), ("anna", False), ("Of", False)],
)
def test_looks_like_a_name(text, expected):
    assert looks_like_a_name(text) is expected


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["[Anna] Hi.", "[Ben] Yes.", "[Anna] So."], ["Anna", "Ben", "Anna"]),
        (["（田中）はい。", "（鈴木）いいえ。", "（田中）そう。"], ["田中", "鈴木", "田中"]),
        (["[Narrator] Once.", "He left.", "[Narrator] The end."], ["Narrator", None, "Narrator"]),
        (["(MAN) Who?", "(MAN) Me."], ["MAN", "MAN"]),
        (["[Sighs] I know.", "[Groans] No.", "[Sighs] So."], [None] * 3),  # sounds
        (["[Anna] Hi.", "[Ben] Yes.", "[Clara] So."], [None] * 3),  # none comes back
        (["[Anna] Hi.", "a", "b", "c", "d", "e", "[Anna] So."], [None] * 7),  # too rare
    ],
)
def test_names_in_brackets_that_come_back(lines, names):
    assert [name for name, _ in speakers(*lines)[0]] == names


def test_sound_before_a_name():
    told, _ = speakers("[door opens] ANNA: Hi.", "(laughs) ANNA: So.", "[Anna] Note: no.")
    assert told[:2] == [("ANNA", "[door opens] Hi."), ("ANNA", "(laughs) So.")]
