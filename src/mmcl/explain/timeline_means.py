"""Means over the minutes and speakers of a recording, and its most extreme utterances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from mmcl.explain import sentences
from mmcl.explain.timeline import clock
from mmcl.runs.recordings import Timeline

__all__ = ["Extremes", "Part", "extremes", "means_table", "minutes", "speaker_sentences"]
__all__ += ["speakers"]

MINUTE = 60.0
NUM_EXTREMES = 5
FEWEST_UTTERANCES = 8
"""Utterances from which the extreme ones are listed: fewer are seen at a glance."""


class Part(NamedTuple):
    """Some utterances of a recording, by their places in it."""

    name: str
    start: float  # in seconds
    end: float
    utterances: tuple[int, ...]


class Extremes(NamedTuple):
    """Places of the most positive and the most negative utterances, the strongest first."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]


def extremes(timeline: Timeline) -> Extremes:
    """Return the utterances that stand out; none of few utterances, or of classes.

    An utterance whose score is called neutral is on neither list.
    """
    scores = {
        index: moments.prediction
        for index, moments in enumerate(timeline.moments)
        if isinstance(moments.prediction, float)
    }
    if len(scores) < FEWEST_UTTERANCES:
        return Extremes((), ())
    upwards = sorted(scores, key=lambda index: scores[index])
    tints = {index: sentences.tint(timeline.task, score) for index, score in scores.items()}
    positive = [index for index in reversed(upwards) if tints[index] == "positive"]
    negative = [index for index in upwards if tints[index] == "negative"]
    return Extremes(tuple(positive[:NUM_EXTREMES]), tuple(negative[:NUM_EXTREMES]))


def minutes(timeline: Timeline) -> list[Part]:
    """Return every minute up to the last that has an utterance.

    An utterance belongs to the minute that holds its middle.
    """
    places = [int((start + end) / 2 // MINUTE) for start, end in timeline.spans]
    return [
        Part(
            clock(minute * MINUTE),
            minute * MINUTE,
            (minute + 1) * MINUTE,
            tuple(index for index, place in enumerate(places) if place == minute),
        )
        for minute in range(max(places, default=-1) + 1)
    ]


def speakers(timeline: Timeline) -> list[Part]:
    """Return the speakers in the order in which they begin; none where fewer than two are named."""
    named: dict[str, list[int]] = {}
    for index, clip in enumerate(timeline.clips):
        if clip.speaker is not None:
            named.setdefault(clip.speaker, []).append(index)
    if len(named) < 2:
        return []
    return [_part(name, indices, timeline) for name, indices in named.items()]


def speaker_sentences(timeline: Timeline) -> list[tuple[str, str]]:
    """Return the name of each speaker, and a sentence on what this one said."""
    return [
        (
            part.name,
            sentences.headline(timeline.task, [timeline.moments[i] for i in part.utterances]),
        )
        for part in speakers(timeline)
    ]


def means_table(timeline: Timeline) -> pa.Table:
    """Make a table of means over utterances: of the recording, each minute and each speaker.

    Scores have columns ``mean``, ``lowest`` and ``highest``; classes and emotions have the mean
    probability of each, ``mean_<name>``. They are null in a minute without an utterance.
    ``seconds`` is the length of the utterances together.
    """
    everything = _part(timeline.name, range(len(timeline.clips)), timeline)
    groups = {
        "recording": [everything],
        "minute": minutes(timeline),
        "speaker": speakers(timeline),
    }
    return pa.Table.from_pylist(
        [{"of": of, **_row(timeline, part)} for of, parts in groups.items() for part in parts]
    )


def _part(name: str, indices: Sequence[int], timeline: Timeline) -> Part:
    spans = [timeline.spans[index] for index in indices]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return Part(name, first, last, tuple(indices))


def _row(timeline: Timeline, part: Part) -> dict[str, Any]:
    spans = [timeline.spans[index] for index in part.utterances]
    return {
        "name": part.name,
        "start": round(part.start, 3),
        "end": round(part.end, 3),
        "utterances": len(spans),
        "seconds": round(math.fsum(end - start for start, end in spans), 3),
        **_values(timeline, part),
    }


def _values(timeline: Timeline, part: Part) -> dict[str, float | None]:
    moments = [timeline.moments[index] for index in part.utterances]
    if timeline.task.kind != "regression":
        return {
            f"mean_{name}": _mean([m.probabilities[name] for m in moments])
            for name in timeline.task.names
        }
    scores = [m.prediction for m in moments if isinstance(m.prediction, float)]
    ends = (min(scores), max(scores)) if scores else (None, None)
    return {"mean": _mean(scores), "lowest": ends[0], "highest": ends[1]}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
