"""Markup in subtitles: tags of html and vtt, overrides of ass, and entities."""

from __future__ import annotations

import html
import re

__all__ = ["VOICE", "without_markup"]

VOICE = re.compile(r"<v(?:\.[^\s<>]+)*\s+([^<>]+)>", re.IGNORECASE)
"""Tag of vtt that names who speaks, as ``<v Anna Smith>``."""

_READING = re.compile(r"<rt>.*?</rt>", re.IGNORECASE | re.DOTALL)  # how a word is pronounced
_BREAK = re.compile(r"<[Bb][Rr]\s*/?>|\\[Nn]")
# Spaces of no width, and marks of the direction of writing.
_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_TAG = re.compile(
    r"</?(?:c|i|b|u|s|em|strong|font|v|lang|ruby|rt|span|p|div|a|tt)(?:[.\s/][^<>]*)?>"
    r"|<[\d:.,\s]+>"
    r"|\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}|\\h",
    re.IGNORECASE,
)


def without_markup(text: str) -> str:
    """Return a text without its tags; other words in angle brackets stay.

    Example:
        >>> without_markup("{\\\\an8}<i>Rock</i> &amp; <font color=red>roll</font>")
        'Rock & roll'
    """
    text = _TAG.sub("", _BREAK.sub("\n", _READING.sub("", text)))
    return _UNSEEN.sub("", html.unescape(text))
