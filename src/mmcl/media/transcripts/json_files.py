"""Read transcripts in json, as Whisper, whisperX, whisper.cpp and YouTube write them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.limits import MOST_DIGITS
from mmcl.media.utterances import Utterance, from_milliseconds, with_usual_end

__all__ = ["is_json", "read_json"]


def is_json(text: str) -> bool:
    """Return whether a text is a json object, or a json list of objects."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        content = _loaded(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) or (
        bool(content) and all(isinstance(item, dict) for item in content)
    )


def _loaded(text: str) -> Any:
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    """Return a whole number; as float, which may be infinite, where 64 bits cannot hold it.

    Larger ones could not be computed with, and are no times in any unit.
    """
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def read_json(name: str, text: str) -> tuple[list[Utterance], list[str]]:
    """Read a list of utterances, or an object that holds one as the usual tools write it.

    Args:
        name: Name of the file, for messages.
        text: Content of the file.

    Returns:
        The utterances, and a note if their times were read as milliseconds.

    Raises:
        MediaError: If it is no json, or json of another form.
    """
    try:
        content = _loaded(text)
    except json.JSONDecodeError as fault:
        raise MediaError(
            f'"{name}", line {fault.lineno}: not JSON ({fault.msg}).\n'
            f'  Look at it: python -m json.tool "{name}"'
        ) from None
    except RecursionError:
        raise MediaError(f'"{name}": its JSON is nested too deeply for a transcript.') from None
    utterances: list[Utterance] = []
    try:
        for item in _items(name, content):
            utterances.append(_utterance(item))
    except ValueError as fault:
        raise MediaError(f'"{name}", utterance {len(utterances) + 1}: {fault}') from None
    times = [time for u in utterances for time in (u.start, u.end)]
    are_whole = all(isinstance(time, int) for time in times)
    return from_milliseconds(utterances) if are_whole else (utterances, [])


def _items(name: str, content: Any) -> list[Any]:
    """Return the utterances of a file as objects of ``text``, ``start``, ``end`` and so on."""
    items = content
    if isinstance(content, dict):
        items = content.get("segments", content.get("utterances"))
        if isinstance(content.get("transcription"), list):
            items = [_whisper_cpp_item(item) for item in content["transcription"]]
        elif isinstance(content.get("chunks"), list):
            items = [_chunk_item(item) for item in content["chunks"]]
        elif isinstance(content.get("events"), list):
            items = list(_youtube_items(content["events"]))
        elif items is None and isinstance(content.get("text"), str) and content["text"].strip():
            items = _single_words(content)
    if not isinstance(items, list):
        kind = f"a {type(content).__name__}"
        if isinstance(content, dict):
            kind = f"an object with the keys {sorted(content)}"
        raise MediaError(
            f'"{name}": expected a list of utterances or {{"segments": [...]}}, got {kind}.'
        )
    return _with_ends(items)


def _single_words(content: dict[str, Any]) -> list[Any]:
    """Return the words of an object that has only these and all of the text, as utterances.

    What is said is then cut at its pauses. Words get the punctuation that the text has.
    """
    words, tokens = content.get("words", content.get("result")), content["text"].split()
    if not isinstance(words, list) or len(words) != len(tokens):
        return [content]
    if not all(isinstance(word, dict) and isinstance(_spelling(word), str) for word in words):
        return [content]
    return [word | {"text": token} for word, token in zip(words, tokens, strict=True)]


def _spelling(word: dict[str, Any]) -> Any:
    return word.get("text", word.get("word"))


def _with_ends(items: list[Any]) -> list[Any]:
    """Add ends to items with a start and a duration, none later than the next start."""
    starts = [item.get("start") if isinstance(item, dict) else None for item in items]
    ended = list(items)
    for index, item in enumerate(items):
        if not (isinstance(item, dict) and "duration" in item and item.get("end") is None):
            continue
        start, duration = item.get("start"), item["duration"]
        following: Any = starts[index + 1] if index + 1 < len(items) else None
        if _is_number(start) and _is_number(duration):
            end = start + duration
            if _is_number(following) and start < following:
                end = min(end, following)
            ended[index] = item | {"end": end}
    return ended


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whisper_cpp_item(item: Any) -> Any:
    """Return a segment of whisper.cpp, whose ``offsets`` are in milliseconds."""
    offsets = item.get("offsets") if isinstance(item, dict) else None
    if not isinstance(offsets, dict):
        return item
    return {
        "text": item.get("text"),
        "speaker": item.get("speaker"),
        "start": _from_milliseconds(offsets.get("from")),
        "end": _from_milliseconds(offsets.get("to")),
    }


def _chunk_item(item: Any) -> Any:
    """Return a chunk of a pipeline of transformers; the end of the last may be unknown."""
    times = item.get("timestamp") if isinstance(item, dict) else None
    if not isinstance(times, list) or len(times) != 2:
        return item
    start, end = times if None not in times else (None, None)
    return {"text": item.get("text"), "speaker": item.get("speaker"), "start": start, "end": end}


def _from_milliseconds(value: Any) -> Any:
    return value / 1000 if _is_number(value) else value


def _youtube_items(events: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the captions of YouTube's json3, each until the next one begins.

    Its words get the times of their segments.
    """
    said = [event for event in events if isinstance(event, dict) and _segments(event)]
    if not all(map(_is_timed, said)):
        raise ValueError('expected "tStartMs" and "dDurationMs" as numbers with every text.')
    starts = [float(event["tStartMs"]) for event in said]
    for event, start, following in zip(said, starts, [*starts[1:], math.inf], strict=True):
        end = start + float(event["dDurationMs"])
        end = min(end, following) if following > start else end
        segments = _segments(event)
        offsets = [start + float(segment.get("tOffsetMs", 0)) for segment in segments]
        edges = list(pairwise([*offsets, end]))
        words = [
            Word(text=segment["utf8"].strip(), start=first / 1000, end=last / 1000)
            for segment, (first, last) in zip(segments, edges, strict=True)
        ]
        are_single = all(len(segment["utf8"].split()) == 1 for segment in segments)
        is_in_order = all(first <= last for first, last in edges)
        yield {
            "text": "".join(segment["utf8"] for segment in segments),
            "start": start / 1000,
            "end": end / 1000,
            "words": [word.model_dump() for word in with_usual_end(words)]
            if are_single and is_in_order and len(words) > 1
            else None,
        }


def _segments(event: dict[str, Any]) -> list[dict[str, Any]]:
    segments = event.get("segs")
    return [
        segment
        for segment in (segments if isinstance(segments, list) else [])
        if isinstance(segment, dict)
        and isinstance(segment.get("utf8"), str)
        and segment["utf8"].strip()
    ]


def _is_timed(event: dict[str, Any]) -> bool:
    offsets = [segment.get("tOffsetMs", 0) for segment in _segments(event)]
    values = [event.get("tStartMs"), event.get("dDurationMs"), *offsets]
    return all(isinstance(value, int | float) for value in values)


def _utterance(item: Any) -> Utterance:
    if not isinstance(item, dict):
        raise ValueError(f'expected an object with "text", got {item!r}.')
    given = item.get("words") or []
    if not isinstance(given, list):
        raise ValueError(f'expected "words" to be a list, got {given!r}.')
    words = tuple(_word(number, word) for number, word in enumerate(given, 1))
    words = tuple(word for word in words if word.text)
    text = item.get("text", " ".join(word.text for word in words) if words else None)
    if not isinstance(text, str):
        raise ValueError(f'expected "text" to be a string, got {text!r}.')
    start, end = _times(item)
    timed = [word for word in words if word.start is not None]
    if start is None and timed:
        start, end = timed[0].start, timed[-1].end
    return Utterance(start, end, text, words, _speaker(item))


def _speaker(item: dict[str, Any]) -> str | None:
    """Return the speaker of an utterance, or else the one of most of its words."""
    names = [item.get("speaker"), *(word.get("speaker") for word in item.get("words") or [])]
    given = [" ".join(str(name).split()) for name in names if name not in (None, "")]
    if item.get("speaker") in (None, ""):
        return Counter(given).most_common(1)[0][0] if given else None
    return given[0]


def _word(number: int, item: Any) -> Word:
    text = _spelling(item) if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise ValueError(f'word {number}: expected an object with "text" or "word", got {item!r}.')
    try:
        start, end = _times(item)
    except ValueError as fault:
        raise ValueError(f"word {number}: {fault}") from None
    return Word(text=text.strip(), start=start, end=end)


def _times(item: dict[str, Any]) -> tuple[float | None, float | None]:
    start, end = item.get("start"), item.get("end")
    for value in (start, end):
        if value is not None and not (_is_number(value) and math.isfinite(value)):
            raise ValueError(f"expected start and end in seconds, got {start!r} and {end!r}.")
    if (start is None) != (end is None):
        raise ValueError(f"expected both start and end or neither, got {start!r} and {end!r}.")
    return start, end
