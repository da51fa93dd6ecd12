"""Text that subtitles show more than once: rolling captions, cues shown twice, overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from mmcl.media.transcripts.subtitles import without_markup
from mmcl.media.utterances import Utterance

__all__ = ["without_overlaps", "without_repeats"]

FLASH = 0.05  # seconds; YouTube shows a line for 10 ms between two steps of rolling captions
TOUCHING = 0.1  # seconds between cues that follow each other without a pause
FEWEST_GROWING = 3  # cues in a row that each add words to the one before


class _Shown(NamedTuple):
    """A cue, and its lines that have text: as in the file, and without markup."""

    start: float
    end: float
    raw: list[str]
    plain: list[str]

    @property
    def is_flash(self) -> bool:
        return self.end - self.start <= FLASH


def without_repeats(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Return cues that hold only what is new in them, and notes on what was dropped.

    What is said twice, with a pause between, stays.

    Args:
        cues: With times, in the file's order; their text may hold markup.
    """
    shown = [_shown(cue) for cue in cues if without_markup(cue.text).strip()]
    grown, num_growing = _without_growing(shown)
    is_rolling, doubtful = _find_rolling(grown)
    is_word_by_word = sum(len(" ".join(c.plain).split()) == 1 for c in grown) > len(grown) / 2
    kept: list[Utterance] = []
    num_lines = 0
    before: _Shown | None = None
    for cue in grown:
        count = _repeated_lines(before, cue, is_rolling, is_word_by_word) if before else 0
        if before and count == len(cue.plain) and not cue.is_flash and before.plain == cue.plain:
            # It stays on the screen: what is said may last as long.
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end or 0.0, cue.end))
        if count < len(cue.plain):
            kept.append(Utterance(cue.start, cue.end, "\n".join(cue.raw[count:])))
        num_lines += count
        before = cue
    notes = []
    if num_growing:
        notes.append(f"{num_growing} cues that show the beginning of the next were joined with it")
    if num_lines:
        notes.append(f"{_counted(num_lines, 'repeated line')} dropped")
    if doubtful:
        lines = _counted(doubtful, "line")
        notes.append(f"{lines} kept that may only repeat the line before")
    return kept, notes


def _counted(number: int, noun: str) -> str:
    return f"1 {noun} was" if number == 1 else f"{number} {noun}s were"


def _shown(cue: Utterance) -> _Shown:
    lines = [(line, " ".join(without_markup(line).split())) for line in cue.text.split("\n")]
    with_text = [(raw, plain) for raw, plain in lines if plain]
    raw, plain = zip(*with_text, strict=True)
    return _Shown(cue.start or 0.0, cue.end or 0.0, list(raw), list(plain))


def _without_growing(cues: Sequence[_Shown]) -> tuple[list[_Shown], int]:
    """Join runs of cues of which each shows the text of the one before and more words."""
    grows = [_is_grown(before, cue) for before, cue in pairwise(cues)]
    kept: list[_Shown] = []
    index = 0
    while index < len(cues):
        last = index
        while last < len(grows) and grows[last]:
            last += 1
        run = cues[index : last + 1]
        if len(run) >= FEWEST_GROWING:
            kept.append(run[-1]._replace(start=run[0].start))
        else:
            kept += run
        index = last + 1
    return kept, len(cues) - len(kept)


def _is_grown(before: _Shown, cue: _Shown) -> bool:
    if abs(cue.start - before.end) > TOUCHING:
        return False
    *above, last = cue.plain
    *above_before, last_before = before.plain
    return above == above_before and last.startswith(f"{last_before} ")


def _common_lines(before: _Shown, cue: _Shown) -> int:
    """Return how many last lines of one cue are the first lines of the next."""
    for count in range(min(len(before.plain), len(cue.plain)), 0, -1):
        if before.plain[-count:] == cue.plain[:count]:
            return count
    return 0


def _find_rolling(cues: Sequence[_Shown]) -> tuple[bool, int]:
    """Return whether the captions roll, and how many lines may repeat if they do not.

    They roll where a repeated line flashes, or where half of the cues of several lines begin
    with the end of the cue before.
    """
    candidates = rolled = 0
    for before, cue in pairwise(cues):
        common = _common_lines(before, cue)
        if common == len(cue.plain) and cue.is_flash:
            return True, 0
        is_dialogue = cue.plain[0].startswith(("-", "–", "—"))
        if len(cue.plain) > 1 and not is_dialogue:
            candidates += 1
            rolled += 0 < common < len(cue.plain)
    is_rolling = rolled > 0 and rolled >= candidates / 2
    return is_rolling, 0 if is_rolling else rolled


def _repeated_lines(before: _Shown, cue: _Shown, is_rolling: bool, is_word_by_word: bool) -> int:
    """Return how many first lines of a cue were shown before and are not said again."""
    common = _common_lines(before, cue)
    if common < len(cue.plain):
        return common if is_rolling else 0
    is_same_time = (cue.start, cue.end) == (before.start, before.end)
    is_touching = cue.start - before.end < TOUCHING
    is_still_shown = is_touching and (is_rolling or before.plain == cue.plain)
    # Where each word has a cue of its own, "very" may well follow "very".
    return common if is_same_time or cue.is_flash or (is_still_shown and not is_word_by_word) else 0


def without_overlaps(cues: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """End each cue where the next begins, if most last into the next one; else only note it.

    Captions that stay on the screen while the next line is spoken do so. Single overlaps may be
    two people who talk at once.
    """
    times = [(cue.start or 0.0, cue.end or 0.0) for cue in cues]
    late = [
        index
        for index, ((start, end), (following, _)) in enumerate(pairwise(times))
        if start < following < end
    ]
    if not late:
        return list(cues), []
    if len(late) == 1 or len(late) < len(cues) / 2:
        return list(cues), [f"{_begin(len(late))} before the one before has ended"]
    trimmed = [
        cue._replace(end=times[index + 1][0]) if index in set(late) else cue
        for index, cue in enumerate(cues)
    ]
    note = f"{len(late)} utterances lasted into the next: each ends where the next begins"
    return trimmed, [note]


def _begin(number: int) -> str:
    return "1 utterance begins" if number == 1 else f"{number} utterances begin"
