"""Read transcripts of the usual formats: srt, vtt, json, txt, csv and tsv."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from glob import escape
from pathlib import Path
from typing import NamedTuple

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts.json_files import is_json, read_json
from mmcl.media.transcripts.languages import language_in, one_language, preferred
from mmcl.media.transcripts.repeats import without_overlaps, without_repeats
from mmcl.media.transcripts.speakers import looks_like_a_name
from mmcl.media.transcripts.speech_only import speech_only
from mmcl.media.transcripts.subtitles import has_cues, inline_words, read_cues, read_timed_lines
from mmcl.media.transcripts.tables import find_separator, read_lines, read_table
from mmcl.media.utterances import Utterance
from mmcl.text_files import read_text_file

__all__ = [
    "TRANSCRIPT_ENDINGS",
    "Transcript",
    "check_times",
    "cut_at_end",
    "find_transcript",
    "read_transcript",
    "transcripts_beside",
]

TRANSCRIPT_ENDINGS = (".srt", ".vtt", ".sbv", ".json", ".txt", ".csv", ".tsv")
"""Formats that are read, the preferred first where several lie beside a file."""

PAST_THE_END = 0.5  # seconds a transcript may exceed its clip, since subtitles are rounded
ON_SCREEN = 3.0  # seconds that the last subtitle may stay after the end of the recording
FAULTS_SHOWN = 5
FEWEST_NAMES = 2  # subtitles that have a name as their first line, where all have

_FRAMES = r"\d\d[:;]\d\d[:;]\d\d[:;]\d\d(?!\d)"  # 00:00:02:12
# Files that are no transcripts whatever their ending: their first letters, what they are, advice.
_OTHER_KINDS = (
    (
        r"<(?:!doctype html|html|head|body|script)\b",
        "a web page",
        "The download met a page with a question, for a login perhaps: fetch the file itself.",
    ),
    (r"<(?:\?xml|tt|transcript|timedtext|sami)\b", "XML", "Save the subtitles as srt or vtt."),
    (
        r"\[script info\]",
        "subtitles of the format ass",
        'Convert them: ffmpeg -i "{name}" talk.srt',
    ),
    (
        rf"(?:.*\n){{0,4}}?.*?{_FRAMES}\W+{_FRAMES}",
        "subtitles whose times count pictures (hours:minutes:seconds:pictures)",
        "Export them as srt, whose times end in thousandths of a second.",
    ),
    (
        r"\{\d+\}\{\d+\}",
        "subtitles with numbers of pictures in place of times",
        'Convert them: ffmpeg -subfps RATE -i "{name}" talk.srt',
    ),
    (r"@(?:utf8|begin)\b", "a file of CLAN (CHAT)", "Write it as lines of start;end;text."),
    (r"\{\\rtf", "a document in RTF", "Save it as plain text."),
    (r"version https://git-lfs", "the pointer of a Git LFS file", "Fetch the file: git lfs pull"),
)


class Transcript(NamedTuple):
    """Utterances of a transcript, and notes on how it was read."""

    utterances: list[Utterance]
    notes: list[str]


def find_transcript(media_path: Path, language: str | None = None) -> Path | None:
    """Return the transcript beside a media file, or None.

    Beside ``talk.mp4`` it is ``talk.srt``, or else one that names its language, as
    ``talk.en.srt``: see :func:`~mmcl.media.transcripts.languages.preferred`.

    Args:
        media_path: The video or sound.
        language: Language of the speech, two letters; None if nobody said it.
    """
    suffixes = (suffix for ending in TRANSCRIPT_ENDINGS for suffix in (ending, ending.upper()))
    plain = next((p for p in map(media_path.with_suffix, suffixes) if p.is_file()), None)
    if plain is not None:  # the folder need not be searched
        return plain
    named = sorted(
        (path for path in transcripts_beside(media_path) if language_in(path)),
        key=lambda path: TRANSCRIPT_ENDINGS.index(path.suffix.lower()),
    )
    return preferred(named, language)


def transcripts_beside(media_path: Path) -> list[Path]:
    """Return all transcripts named like a media file, with or without a language code."""
    stem = media_path.stem
    return [
        path
        for path in sorted(media_path.parent.glob(f"{escape(stem)}.*"))
        if path.suffix.lower() in TRANSCRIPT_ENDINGS
        and (path.stem == stem or (path.with_suffix("").stem == stem and language_in(path)))
        and path.is_file()
    ]


def read_transcript(path: Path, language: str | None = None) -> Transcript:
    """Read a transcript and keep only the speech.

    ``.srt``, ``.vtt`` and ``.sbv`` are subtitles. ``.json`` is a list of ``{"text", "start", "end",
    "speaker", "words": [{"text" or "word", "start", "end"}]}`` of which only the text, or the
    words, must be there, or the same as ``{"segments": [...]}``, as Whisper writes; or what
    whisper.cpp writes, or YouTube's json3. ``.csv``, ``.tsv`` and ``.txt`` hold lines of
    ``start;end;text`` or ``start;end;text;label`` with times in seconds (the label is ignored),
    or columns with names. Every line of another ``.txt`` is one utterance without times; a
    ``.txt`` that holds subtitles or json is read as such.

    Lines that subtitles repeat, markup, names of speakers, sounds, songs and lines about the
    subtitles are no part of the text. Utterances keep the file's order; those without text are
    left out.

    Args:
        path: The file.
        language: Language of the speech, two letters, which is kept of subtitles in two
            languages; None keeps the first.

    Raises:
        MediaError: If the file is missing, of unknown encoding, of no known format, broken or
            empty.
    """
    suffix = path.suffix.lower()
    if suffix not in TRANSCRIPT_ENDINGS:
        raise MediaError(
            f'"{path.name}" is no transcript that can be read; '
            f"expected {', '.join(TRANSCRIPT_ENDINGS)}."
        )
    text = read_text_file(path, MediaError)
    _refuse_other_kinds(path, text)
    pieces, notes = _pieces(path.name, suffix, text, language)
    utterances, speech_notes = speech_only(pieces)
    notes += speech_notes
    if not utterances:
        held = "".join(f"\n  {note}." for note in notes)
        raise MediaError(
            f'"{path.name}" holds no utterance.{held}\n'
            "  Leave it out, and what is said is recognised from the sound."
        )
    return Transcript(utterances, notes)


def _refuse_other_kinds(path: Path, text: str) -> None:
    """Refuse a file whose content is no transcript, or does not fit its ending."""
    for pattern, kind, advice in _OTHER_KINDS:
        if re.match(pattern, text.lstrip(), re.IGNORECASE):
            advice = advice.format(name=path.name)
            raise MediaError(f'"{path.name}" is {kind}, not a transcript.\n  {advice}')
    suffix = path.suffix.lower()
    is_other, ending = False, ".srt"
    if suffix == ".json":
        is_other, ending = has_cues(text), ".vtt" if text.startswith("WEBVTT") else ".srt"
    elif suffix != ".txt":
        is_other, ending = is_json(text), ".json"
    if is_other:
        renamed = path.with_suffix(ending).name
        raise MediaError(
            f'"{path.name}" holds {ending.removeprefix(".")}, which its ending does not say.\n'
            f'  Rename it: mv "{path.name}" "{renamed}"'
        )


def _pieces(
    name: str, suffix: str, text: str, language: str | None
) -> tuple[list[Utterance], list[str]]:
    """Return the pieces of text in a file, and notes on how it was read."""
    if suffix == ".json" or (suffix == ".txt" and is_json(text)):
        return read_json(name, text)
    if suffix in (".srt", ".vtt", ".sbv") or (suffix == ".txt" and has_cues(text)):
        return _subtitles(name, text, language)
    if suffix == ".txt" and (timed := read_timed_lines(name, text)):
        return timed, []
    separator = find_separator(text)
    if separator is None and suffix == ".txt":
        return read_lines(name, text)
    return read_table(name, text, separator or ("\t" if suffix == ".tsv" else ";"))


def _subtitles(name: str, text: str, language: str | None) -> tuple[list[Utterance], list[str]]:
    cues, notes = read_cues(name, text)
    for step in (without_repeats, partial(one_language, language=language), without_overlaps):
        cues, more = step(cues)
        notes += more
    cues = _names_as_speakers(cues)
    return [cue._replace(words=inline_words(cue)) for cue in cues], notes


def _names_as_speakers(cues: list[Utterance]) -> list[Utterance]:
    """Put a colon behind first lines that are all names, as in transcripts of Teams."""
    parts = [cue.text.partition("\n") for cue in cues]
    are_names = all(
        said and looks_like_a_name(name) and name[-1].isalnum() for name, _, said in parts
    )
    if len(cues) < FEWEST_NAMES or not are_names:
        return cues
    return [
        cue._replace(text=f"{name}: {said}")
        for cue, (name, _, said) in zip(cues, parts, strict=True)
    ]


def cut_at_end(
    utterances: Sequence[Utterance], duration: float
) -> tuple[list[Utterance], list[str]]:
    """End utterances with the recording whose subtitle stays on the screen a little longer.

    Args:
        utterances: Of a transcript.
        duration: Length of the recording in seconds.

    Returns:
        The utterances, and a note if any was cut.
    """
    cut = [_cut_at(utterance, duration) for utterance in utterances]
    excess = [
        (before.end or 0.0) - duration
        for before, after in zip(utterances, cut, strict=True)
        if before.end != after.end
    ]
    if not excess:
        return cut, []
    number = "1 utterance" if len(excess) == 1 else f"{len(excess)} utterances"
    return cut, [f"{number} ended {max(excess):.1f} s after the recording: cut at its end"]


def _cut_at(utterance: Utterance, duration: float) -> Utterance:
    start, end = utterance.start, utterance.end
    if start is None or end is None or start >= duration:
        return utterance
    if not duration + PAST_THE_END < end <= duration + ON_SCREEN:
        return utterance
    words = [
        word.model_copy(update={"end": min(word.end, duration)})
        if word.start is not None and word.end is not None and word.start < duration
        else word
        for word in utterance.words
    ]
    return utterance._replace(end=duration, words=tuple(words))


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
