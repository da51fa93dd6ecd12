"""Sounds, songs and credits: left out where they are ones, kept where somebody may say them."""

import pytest

from mmcl.media.transcripts.not_speech import without_credits, without_sounds


@pytest.mark.parametrize(
    ("text", "rest", "sounds"),
    [
        ("[Music]", "", ["[Music]"]),
        ("so [applause] good", "so good", ["[applause]"]),
        ("[door slams\nloudly] Oh", "Oh", ["[door slams loudly]"]),
        ("[ __ ] you", "you", ["[ __ ]"]),
        ("so (laughs) good", "so good", ["(laughs)"]),
        ("(APPLAUSE)", "", ["(APPLAUSE)"]),
        ("(both at once)\nOh", "Oh", ["(both at once)"]),
        ("（笑）好", "好", ["（笑）"]),
        ("【音乐】好", "好", ["【音乐】"]),
        ("*sighs* fine", "fine", ["*sighs*"]),
        ("<laughter> fine", "fine", ["<laughter>"]),
        ("♪ la la ♪ Hello", "Hello", ["♪ la la ♪"]),
        ("♪ la la", "", ["♪ la la"]),
        ("♪ la la\nla la ♪\nHello", "Hello", ["♪ la la", "la la ♪"]),
        ("♪ la la\n♪ lo lo", "", ["♪ la la", "♪ lo lo"]),
        ("♪♪", "", ["♪♪"]),
        ("♫ la la ♫", "", ["♫ la la ♫"]),
        ("(RÍE) ¡Hola!", "¡Hola!", ["(RÍE)"]),
        ("(аплодисменты)", "", ["(аплодисменты)"]),
        ("# la la #\nHello", "Hello", ["# la la #"]),
    ],
)
def test_sounds_are_left_out(text, rest, sounds):
    said, taken, doubtful = without_sounds(text)
    assert (" ".join(said.split()), taken, doubtful) == (rest, sounds, [])


@pytest.mark.parametrize(
    ("text", "doubtful"),
    [
        ("it was good (mostly)", ["(mostly)"]),
        ("(I liked the music)", ["(I liked the music)"]),
        ("it was *really* good", ["*really*"]),
        ("(all of them at once)", ["(all of them at once)"]),
        (f"(the music{' so' * 8})", [f"(the music{' so' * 8})"]),
        ("la (série) est bonne", ["(série)"]),
        ("we are #1 and #metoo", []),
        ("three * two * one", []),
    ],
)
def test_what_may_be_speech_is_kept(text, doubtful):
    said, taken, kept = without_sounds(text)
    assert (said.replace("  ", " "), taken) == (text, [])
    assert kept == doubtful


@pytest.mark.parametrize(
    "text",
    [
        "Subtitles by Anna Berg",
        "Subtitles by\nAnna Berg",
        "Sync and corrections by n17t01",
        "Synced & corrected by MaxPayne",
        "Translator: Anna Smith\nReviewer: Ben Jones",  # TED
        "www.OpenSubtitles.org",
        "Support us and become VIP member\nto remove all ads from www.OpenSubtitles.org",
        "Transcribed by https://otter.ai",
        "Subtitles by the Amara.org community",
        "Untertitel im Auftrag des ZDF, 2020",
        "Sous-titres réalisés par la communauté",
        "Subtítulos por Ana",
        "字幕：王五",
        "Captioning provided by ACME",
    ],
)
def test_credits_are_left_out(text):
    assert without_credits(text)[0] == ""


@pytest.mark.parametrize(
    "text",
    [
        "Subtitles help me a lot",
        "It was translated by my brother",
        "The timing was off by a second",
        "Edited, it is better",
        "Subtitles by an author who never saw the film are the worst thing that could ever be, "
        "and I would not buy them",
    ],
)
def test_speech_about_subtitles_is_kept(text):
    assert without_credits(text) == (text, [])


def test_credit_below_speech():
    assert without_credits("Goodbye.\nSubtitles by Ben") == ("Goodbye.", ["Subtitles by Ben"])
