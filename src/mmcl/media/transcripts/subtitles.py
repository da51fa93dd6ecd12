"""Read subtitles (srt, vtt and sbv) as cues: pieces of text with a start and an end."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.utterances import Utterance, with_usual_end

__all__ = ["CLOCK", "VOICE", "has_cues", "inline_words", "read_cues", "read_timed_lines"]
__all__ += ["seconds", "without_markup"]

CLOCK = r"(?:(\d+)\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,2}(?:\s*[.,]\s*\d+|:\d{3})?)"
"""Pattern of a time such as ``00:01:02,500`` or ``1:02.5``: its hours, minutes and seconds."""

# Two times; the comma between them is that of YouTube's sbv.
_TIMES = re.compile(rf"\s*{CLOCK}\s*(?:--?\s?>|(?<=\.\d\d\d),)\s*{CLOCK}(?:\s.*)?$")
_LIKE_TIMES = re.compile(r"-->|^\s*\d+\s*:\s*\d.*-\s?>")
_TIMED_LINE = re.compile(rf"\s*\[\s*{CLOCK}\s*-->\s*{CLOCK}\s*\](.*)$")
# Lines with times in seconds: of faster-whisper, of IEMOCAP and of CMU-MOSEI.
_SECONDS = r"(\d+(?:\.\d+)?)"
_SECONDS_LINES = (
    re.compile(rf"\s*\[{_SECONDS}s?\s*-+>\s*{_SECONDS}s?\]\s*(.*)$"),
    re.compile(rf"\w+ \[{_SECONDS}-{_SECONDS}\]: (.*)$"),
    re.compile(rf".+?___\d+___{_SECONDS}___{_SECONDS}___(.*)$"),
)
_WHISPER_LOG = re.compile(r"Detect(?:ing|ed) language\b")
_INLINE = re.compile(rf"<{CLOCK}>")
_SIDE_BLOCK = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")  # of vtt


VOICE = re.compile(r"<v(?:\.[^\s<>]+)*\s+([^<>]+)>", re.IGNORECASE)
"""Tag of vtt that names who speaks, as ``<v Anna Smith>``."""

_READING = re.compile(r"<rt>.*?</rt>", re.IGNORECASE | re.DOTALL)  # how a word is pronounced
_BOLD_NAME = re.compile(r"\*\*([^*\n]{1,40})(?::\*\*|\*\*:)")  # **Anna:**, in Markdown
_BREAK = re.compile(r"<[Bb][Rr]\s*/?>|\\[Nn]")
# Spaces of no width, and marks of the direction of writing.
_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_TAG = re.compile(
    r"</?(?:c|i|b|u|s|em|strong|font|v|lang|ruby|rt|span|p|div|a|tt)(?:[.\s/][^<>]*)?>"
    r"|<[\d:.,\s]+>"
    r"|\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}|\\h",
    re.IGNORECASE,
)


def has_cues(text: str) -> bool:
    """Return whether a text is subtitles: one of its first lines says so."""
    first = [line for line in text.split("\n", 10)[:10] if line.strip()][:3]
    return text.startswith("WEBVTT") or any(_TIMES.match(line) for line in first)


def read_cues(name: str, text: str) -> tuple[list[Utterance], list[str]]:
    """Read the cues of subtitles, whose text keeps its lines and its markup.

    A cue lasts until the next line of times: an empty line inside it does not end it.

    Args:
        name: Name of the file, for messages.
        text: Content of the file.

    Returns:
        The cues, in the file's order, and notes on what was guessed.

    Raises:
        MediaError: If a line of times is broken, or text comes before the first one.
    """
    lines = text.split("\n")
    is_vtt = text.startswith("WEBVTT")
    if is_vtt:
        lines = _without_side_blocks(lines)
    matches = {index: match for index, line in enumerate(lines) if (match := _TIMES.match(line))}
    _check_lines(name, lines, list(matches))
    if not matches:
        return [], []
    first = lines[min(matches) - 1].strip() if min(matches) else ""
    ends = [index - _is_title(lines, index, first, is_vtt) for index in matches]
    cues: list[Utterance] = []
    after_empty: list[int] = []
    for (index, match), end in zip(matches.items(), [*ends[1:], len(lines)], strict=True):
        cue, clock = lines[index + 1 : end], match.groups()
        said = "\n".join(line for line in cue if line.strip())
        cues.append(Utterance(seconds(*clock[:3]), seconds(*clock[3:]), said))
        if (late := _text_after_empty_line(cue)) is not None:
            after_empty.append(index + 2 + late)
    if not after_empty:
        return cues, []
    where = f"line {after_empty[0]}" + (", for example" if len(after_empty) > 1 else "")
    return cues, [f"text after an empty line was read as part of the utterance before it ({where})"]


def _without_side_blocks(lines: Sequence[str]) -> list[str]:
    """Return the lines of a vtt file; those of header, comments and styles are emptied."""
    kept: list[str] = []
    is_aside = True  # the header
    for index, line in enumerate(lines):
        if not line.strip():
            is_aside = False
        elif _SIDE_BLOCK.match(line) and not lines[index - 1].strip():
            is_aside = True
        # A header may lack the empty line at its end.
        is_aside = is_aside and not _TIMES.match(line)
        kept.append("" if is_aside else line)
    return kept


def _check_lines(name: str, lines: Sequence[str], times: Sequence[int]) -> None:
    """Refuse broken times, and text before the first times other than one number or name."""
    like_times = [index for index, line in enumerate(lines) if _LIKE_TIMES.search(line)]
    faults = sorted(set(like_times) - set(times))
    if not faults:
        before = lines[: times[0]] if times else lines
        faults = [index for index, line in enumerate(before) if line.strip()]
        if times and faults and faults[-1] == times[0] - 1:
            faults.pop()
    if faults:
        raise MediaError(
            f'"{name}", line {faults[0] + 1}: expected "00:00:01,000 --> 00:00:02,500", '
            f'got "{lines[faults[0]]}".'
        )


def _is_title(lines: Sequence[str], index: int, first: str, is_vtt: bool) -> bool:
    """Return whether the line before the times is the number or the name of the cue.

    Args:
        lines: All lines of the file.
        index: That of the times.
        first: The line before the first times, which shows whether srt cues have titles.
        is_vtt: Whether each cue may have a name or not.
    """
    title = lines[index - 1].strip() if index else ""
    follows_empty = index < 2 or not lines[index - 2].strip()
    if title.isdigit():
        return follows_empty or first.isdigit()
    is_named = is_vtt or bool(first and not first.isdigit())
    return bool(title) and follows_empty and is_named


def _text_after_empty_line(cue: Sequence[str]) -> int | None:
    """Return the index of the first line of text after text and an empty line."""
    is_broken = has_text = False
    for index, line in enumerate(cue):
        if line.strip() and is_broken:
            return index
        has_text = has_text or bool(line.strip())
        is_broken = has_text and not line.strip()
    return None


def seconds(hours: str | None, minutes: str, rest: str) -> float:
    """Return the seconds of the three parts of a :data:`CLOCK`."""
    number = float(re.sub(r"[,:]", ".", "".join(rest.split())))
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + number, 6)


def read_timed_lines(name: str, text: str) -> list[Utterance] | None:
    """Read lines such as ``[00:01.000 --> 00:02.500] text``, as Whisper prints; else None.

    Lines of faster-whisper, IEMOCAP and CMU-MOSEI, with times in seconds, are read, too.

    Raises:
        MediaError: If some lines are of this form and others are not.
    """
    utterances = []
    other: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if utterance := _timed_line(line):
            utterances.append(utterance)
        elif line.strip() and not _WHISPER_LOG.match(line):
            other.append((number, line))
    if utterances and other:
        raise MediaError(
            f'"{name}", line {other[0][0]}: expected "[00:01.000 --> 00:02.500] text" as in '
            f'other lines, got "{other[0][1]}".'
        )
    return utterances or None


def _timed_line(line: str) -> Utterance | None:
    if match := _TIMED_LINE.match(line):
        parts = match.groups()
        return Utterance(seconds(*parts[:3]), seconds(*parts[3:6]), parts[6])
    for pattern in _SECONDS_LINES:
        if match := pattern.match(line):
            start, end, said = match.groups()
            return Utterance(float(start), float(end), said)
    return None


def inline_words(cue: Utterance) -> tuple[Word, ...]:
    """Return the words of a cue with the times inside its text, if it has one for every word.

    The last word ends when it is said, not when the cue goes.

    Example:
        >>> cue = Utterance(0.8, 2.0, "so<00:00:01.000><c> good</c>")
        >>> [(word.text, word.start, word.end) for word in inline_words(cue)]
        [('so', 0.8, 1.0), ('good', 1.0, 1.4)]
    """
    if cue.start is None or cue.end is None:
        return ()
    pieces = list(_inline_pieces(cue.text, cue.start))
    said = [(start, tokens) for start, tokens in pieces if tokens]
    if len(pieces) < 2 or any(len(tokens) > 1 for _, tokens in said):
        return ()
    edges = [*(start for start, _ in said), cue.end]
    if edges != sorted(edges):
        return ()
    words = [
        Word(text=tokens[0], start=start, end=end)
        for (start, tokens), end in zip(said, edges[1:], strict=True)
    ]
    return with_usual_end(words)


def _inline_pieces(text: str, start: float) -> Iterator[tuple[float, list[str]]]:
    """Yield the words after each time inside a text, and that time."""
    parts = _INLINE.split(text)
    yield start, _tokens(parts[0])
    for index in range(1, len(parts), 4):
        hours, minutes, rest, words = parts[index : index + 4]
        yield seconds(hours, minutes, rest), _tokens(words)


def _tokens(text: str) -> list[str]:
    """Return the words of a text, of which one in brackets, as ``[ __ ]``, is a single one."""
    said = without_markup(text).strip()
    return [said] if said.startswith("[") and said.endswith("]") else said.split()


def without_markup(text: str) -> str:
    """Return a text without its tags; other words in angle brackets stay.

    Example:
        >>> without_markup("{\\\\an8}<i>Rock</i> &amp; <font color=red>roll</font>")
        'Rock & roll'
    """
    text = _BOLD_NAME.sub(r"\1:", text)
    text = _TAG.sub("", _BREAK.sub("\n", _READING.sub("", text)))
    return _UNSEEN.sub("", html.unescape(text))
