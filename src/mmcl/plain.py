"""Text from outside, made fit to be shown: no control characters, nothing of great length.

Ids, names and texts of a file may hold anything: sequences that a terminal obeys, or a million
letters. Every error message and every line about a file passes through here.
"""

from __future__ import annotations

import re

__all__ = ["plain", "without_controls"]

MOST_SHOWN = 200  # characters of one value
_KEPT = 150  # of a value that is longer
_LONGEST_LINE = 2000
# Control characters but tab and new line, marks that change the direction of text, and halves of
# characters, which no terminal can show.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# A quoted value that goes on over the next line: our own lines end outside of quotes. A quote in
# brackets is one that a message speaks of.
_BROKEN_VALUE = re.compile(r'(?<![^\s(\[{=:,])"(?!\))[^"\n]*\n[^"]*"')
# A quoted value, or letters without a blank. Parts of a path are values of their own, so that
# long paths stay complete.
_LONG_VALUE = re.compile(
    rf"""(?<!\w)"[^"\n]{{{MOST_SHOWN + 1},}}"|(?<!\w)'[^'\n]{{{MOST_SHOWN + 1},}}'"""
    rf"""|[^\s"'/]{{{MOST_SHOWN + 1},}}"""
)


def without_controls(text: str) -> str:
    """Return text with control characters written out, as JSON writes them; new lines stay.

    Example:
        >>> print(without_controls("id \\x1b[31mred"))
        id \\u001b[31mred
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain(text: str) -> str:
    """Return text with control characters written out and long values shortened.

    New lines are written out in quoted values alone: there they would look like our own lines.

    Example:
        >>> plain(f'id "{"a" * 1000}"').endswith('aaa... (1,000 characters)"')
        True
    """
    text = without_controls(text)
    if "\n" in text:
        text = _BROKEN_VALUE.sub(lambda match: match[0].replace("\n", "\\u000a"), text)
    if len(text) <= MOST_SHOWN:
        return text
    text = _LONG_VALUE.sub(_shortened, text)
    return "\n".join(_short_line(line) for line in text.split("\n"))


def _shortened(match: re.Match[str]) -> str:
    value = match[0]
    quote = value[0] if value[0] in "\"'" else ""
    inner = value.strip(quote) if quote else value
    return f"{quote}{inner[:_KEPT]}... ({len(inner):,} characters){quote}"


def _short_line(line: str) -> str:
    """Cut the middle of a line: its end may hold the way out."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
