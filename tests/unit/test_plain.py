"""Text from outside: what a terminal obeys is written out, what is long is shortened."""

import io

import pytest

from mmcl.cli.show import PlainConsole
from mmcl.errors import DatasetError, DiskError
from mmcl.plain import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;pwned\x07", "\\u001b[2J\\u001b]0;pwned\\u0007"),
        ("a\x9b31mb\x7f\r", "a\\u009b31mb\\u007f\\u000d"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("half \ud83d", "half \\ud83d"),
        ("two\nlines\tand Grüße 你好 👍🏽", "two\nlines\tand Grüße 你好 👍🏽"),
    ],
    ids=["escape", "c1", "direction", "surrogate", "harmless"],
)
def test_controls_are_written_out(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_a_value_is_at_most_200_characters(quote):
    letters = "a" * 10_000 if not quote else "a b/c " * 2_000
    text = plain(f"field {quote}{letters}{quote} is wrong.\n  Expected another.")
    first, second = text.split("\n")
    assert len(first) < 200
    assert "characters)" in first
    assert first.startswith(f"field {quote}{letters[:150]}...")
    assert first.endswith(f"{quote} is wrong.")
    assert second == "  Expected another."


def test_a_value_has_no_lines_of_its_own():
    text = plain('the id "evil\n  Fix: rm -rf /\n" is twice in "a b".\n  Say "yes", or "no".')
    assert text == (
        'the id "evil\\u000a  Fix: rm -rf /\\u000a" is twice in "a b".\n  Say "yes", or "no".'
    )
    long = plain(f'id "{"evil line" + chr(10) * 5000}" is wrong.\n  Expected another.')
    assert long.count("\n") == 1
    assert len(long) < 300


@pytest.mark.parametrize(
    "text",
    [
        'its quotes (") do not fit.\n  Found: "a"',
        '5" of it\n  and "b"',
        'id "what?" is it\nand id "c!"\n  ""\n""',
    ],
)
def test_lines_outside_of_values_stay(text):
    assert plain(text) == text


def test_a_value_of_200_characters_and_a_long_path_stay_whole():
    text = f'id "{"a" * 200}" in /{"/".join(["folder" * 10] * 20)}/x.pkl'
    assert plain(text) == text


def test_a_long_line_keeps_its_end():
    text = plain(f"{'word ' * 10_000}Fix: --rename")
    assert len(text) < 2_100
    assert text.endswith("Fix: --rename")


def test_every_error_is_plain():
    assert str(DatasetError("id \x1b[31m")) == "id \\u001b[31m"
    assert "\x07" not in str(DiskError("a\x07", "b\x07"))


def test_a_console_is_plain():
    held = io.StringIO()
    PlainConsole(file=held, width=80).print("id \x1b]0;pwned\x07", markup=False)
    assert held.getvalue() == "id \\u001b]0;pwned\n"  # rich itself leaves out the bell
