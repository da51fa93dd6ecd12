"""Read transcripts of the usual formats: srt, vtt, json, txt and csv."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError

__all__ = ["TRANSCRIPT_ENDINGS", "Utterance", "check_times", "find_transcript", "read_transcript"]

TRANSCRIPT_ENDINGS = (".srt", ".vtt", ".json", ".txt", ".csv")
"""Formats that are read, the preferred first where several lie beside a file."""

PAST_THE_END = 0.5  # seconds a transcript may exceed its clip, since subtitles are rounded
FAULTS_SHOWN = 5

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)"
_CUE = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_TABLE = re.compile(r'^\s*"?\d+(\.\d+)?"?\s*;\s*"?\d+(\.\d+)?"?\s*;')
_SIDE_BLOCKS = ("NOTE", "STYLE", "REGION")  # of vtt


class Utterance(NamedTuple):
    """A piece of speech.

    Attributes:
        start: In seconds from the start of the file; None where not known.
        end: Likewise, known if ``start`` is.
        text: What was said.
        words: Its words; none where only the text is known, and perhaps without times.
    """

    start: float | None
    end: float | None
    text: str
    words: tuple[Word, ...] = ()


def find_transcript(media_path: Path) -> Path | None:
    """Return the transcript beside a media file, as ``talk.srt`` for ``talk.mp4``, or None."""
    beside = (media_path.with_suffix(suffix) for suffix in TRANSCRIPT_ENDINGS)
    return next((path for path in beside if path.is_file()), None)


def read_transcript(path: Path) -> list[Utterance]:
    """Read a transcript, whose ending tells the format.

    ``.srt`` and ``.vtt`` are subtitles. ``.json`` is a list of ``{"text", "start", "end",
    "words": [{"text" or "word", "start", "end"}]}`` of which only the text, or the words, must
    be there, or the same as ``{"segments": [...]}``, as Whisper writes. ``.csv`` and ``.txt``
    hold lines of ``start;end;text`` or ``start;end;text;label`` with times in seconds (the
    label is ignored). Every line of another ``.txt`` is one utterance without times.

    Utterances keep the file's order; those without text are left out.

    Raises:
        MediaError: If the file is missing, not UTF-8, of no known format, broken or empty.
    """
    suffix = path.suffix.lower()
    if suffix not in TRANSCRIPT_ENDINGS:
        raise MediaError(
            f'"{path.name}" is no transcript that can be read; '
            f"expected {', '.join(TRANSCRIPT_ENDINGS)}."
        )
    text = _read_text(path)
    if suffix in (".srt", ".vtt"):
        utterances = _from_subtitles(path, text)
    elif suffix == ".json":
        utterances = _from_json(path, text)
    else:
        utterances = _from_lines(path, text, always_timed=suffix == ".csv")
    with_text = [utterance for utterance in utterances if utterance.text]
    if not with_text:
        raise MediaError(
            f'"{path.name}" holds no utterance.\n'
            "  Leave it out, and what is said is recognised from the sound."
        )
    return with_text


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise MediaError(f'"{path.name}": no such transcript in "{path.parent}".') from None
    except OSError as fault:
        raise MediaError(f'"{path.name}" cannot be read: {fault.strerror}.') from None
    except UnicodeDecodeError as fault:
        raise MediaError(
            f'"{path.name}" is not UTF-8 text (byte {fault.start}).\n'
            f'  Convert it: iconv -f latin1 -t utf8 "{path.name}" > "utf8-{path.name}"'
        ) from None


def _from_subtitles(path: Path, text: str) -> Iterator[Utterance]:
    for first, block in _blocks(text):
        if block[0].startswith("WEBVTT") or block[0].split()[0] in _SIDE_BLOCKS:
            continue
        # The times are in the first line, or in the second after a number or name.
        index = 1 if "-->" not in block[0] and "-->" in "".join(block[1:2]) else 0
        cue = _CUE.match(block[index])
        if cue is None:
            raise MediaError(
                f'"{path.name}", line {first + index}: expected "00:00:01,000 --> 00:00:02,500", '
                f'got "{block[index]}".'
            )
        times = cue.groups()
        said = html.unescape(" ".join(_MARKUP.sub("", line) for line in block[index + 1 :]))
        yield Utterance(_seconds(*times[:3]), _seconds(*times[3:]), " ".join(said.split()))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines between empty ones, with the number of the first."""
    block: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", ".")), 6)


def _from_lines(path: Path, text: str, *, always_timed: bool) -> Iterator[Utterance]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    # A first line with # names the columns.
    if lines and lines[0][1].lstrip(' "').startswith("#"):
        lines = lines[1:]
    if not always_timed and not (lines and _TABLE.match(lines[0][1])):
        yield from (Utterance(None, None, " ".join(line.split())) for _, line in lines)
        return
    for number, line in lines:
        fields = next(csv.reader([line], delimiter=";"))
        try:
            start, end = (float(field) for field in fields[:2])
        except ValueError:  # too few fields, or no numbers
            start = end = math.nan
        if len(fields) not in (3, 4) or not (math.isfinite(start) and math.isfinite(end)):
            raise MediaError(
                f'"{path.name}", line {number}: expected start;end;text or '
                f'start;end;text;label with times in seconds, got "{line}".'
            )
        yield Utterance(start, end, " ".join(fields[2].split()))


def _from_json(path: Path, text: str) -> Iterator[Utterance]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as fault:
        raise MediaError(
            f'"{path.name}", line {fault.lineno}: not JSON ({fault.msg}).\n'
            f'  Look at it: python -m json.tool "{path.name}"'
        ) from None
    items = content.get("segments") if isinstance(content, dict) else content
    if not isinstance(items, list):
        kind = f"a {type(content).__name__}"
        if isinstance(content, dict):
            kind = f"an object with the keys {sorted(content)}"
        raise MediaError(
            f'"{path.name}": expected a list of utterances or {{"segments": [...]}}, got {kind}.'
        )
    for number, item in enumerate(items, start=1):
        try:
            yield _json_utterance(item)
        except ValueError as fault:
            raise MediaError(f'"{path.name}", utterance {number}: {fault}') from None


def _json_utterance(item: Any) -> Utterance:
    if not isinstance(item, dict):
        raise ValueError(f'expected an object with "text", got {item!r}.')
    words = tuple(_json_word(number, w) for number, w in enumerate(item.get("words") or [], 1))
    words = tuple(word for word in words if word.text)
    text = item.get("text", " ".join(word.text for word in words) if words else None)
    if not isinstance(text, str):
        raise ValueError(f'expected "text" to be a string, got {text!r}.')
    start, end = _json_times(item)
    if start is None and words and words[0].start is not None:
        start, end = words[0].start, words[-1].end
    return Utterance(start, end, " ".join(text.split()), words)


def _json_word(number: int, item: Any) -> Word:
    text = item.get("text", item.get("word")) if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise ValueError(f'word {number}: expected an object with "text" or "word", got {item!r}.')
    try:
        start, end = _json_times(item)
    except ValueError as fault:
        raise ValueError(f"word {number}: {fault}") from None
    return Word(text=text.strip(), start=start, end=end)


def _json_times(item: dict[str, Any]) -> tuple[float | None, float | None]:
    start, end = item.get("start"), item.get("end")
    for value in (start, end):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and math.isfinite(value)):
            raise ValueError(f"expected start and end in seconds, got {start!r} and {end!r}.")
    if (start is None) != (end is None):
        raise ValueError(f"expected both start and end or neither, got {start!r} and {end!r}.")
    return start, end


def check_times(path: Path, utterances: Sequence[Utterance], duration: float) -> None:
    """Refuse a transcript whose times do not fit its clip of ``duration`` seconds.

    Half a second past the end is accepted, since subtitles are rounded. Utterances and words
    without times are not checked.

    Raises:
        MediaError: If a time lies outside the clip or an end is not after its start.
    """
    faults = list(_time_faults(utterances, duration))
    if not faults:
        return
    count = "1 time that does" if len(faults) == 1 else f"{len(faults)} times that do"
    shown = [f"  {fault}." for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"  And {len(faults) - FAULTS_SHOWN} more.")
    raise MediaError(
        "\n".join(
            [
                f'"{path.name}" has {count} not fit its clip of {duration:.2f} s:',
                *shown,
                "  Expected 0 <= start < end <= the clip's length. Is it of another file?",
                "  Correct it, or take it away: what is said is recognised then.",
            ]
        )
    )


def _time_faults(utterances: Sequence[Utterance], duration: float) -> Iterator[str]:
    for number, utterance in enumerate(utterances, 1):
        timed: list[Utterance | Word] = [utterance, *utterance.words]
        for index, (start, end) in enumerate((t.start, t.end) for t in timed):
            if start is None or end is None:
                continue
            name = f"utterance {number}" + (
                f', word {index} "{timed[index].text}"' if index else ""
            )
            if start <= end and (start < 0 or end > duration + PAST_THE_END):
                yield f"{name}: {start:g}..{end:g} s lies outside the clip"
            # Whisper gives words of no length.
            elif end < start or (end == start and index == 0):
                yield f"{name}: {start:g}..{end:g} s does not end after it starts"
