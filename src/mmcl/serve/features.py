"""Features as JSON into clips: every fault of a request is told before anything is predicted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from mmcl.errors import DatasetError, ShapeError, UsageError, did_you_mean
from mmcl.serve.limits import Limits
from mmcl.serve.problems import ServiceError
from mmcl.types import MODALITIES, Modality

__all__ = ["Expected", "Features", "read_features"]

_LARGEST = float(np.finfo(np.float32).max)
_MOST_ID = 200  # characters
_KEYS = ("id", *MODALITIES)


class Expected(NamedTuple):
    """What a model takes.

    Attributes:
        model: Its name.
        dims: Feature width per modality of its corpus.
        used: The modalities it looks at.
        equal_lengths: Whether all modalities of a clip must have one length.
    """

    model: str
    dims: Mapping[Modality, int]
    used: tuple[Modality, ...]
    equal_lengths: bool = False


class Features(NamedTuple):
    """One clip of a request.

    Attributes:
        id: As the client calls it.
        steps: Per modality that it has, float32 ``[n, d_m]``.
    """

    id: str
    steps: dict[Modality, NDArray[np.float32]]

    @property
    def longest(self) -> int:
        """Steps of its longest modality."""
        return max(map(len, self.steps.values()))


def read_features(body: bytes, expected: Expected, limits: Limits) -> list[Features]:
    """The clips of a request: ``{"clips": [{"id": "a", "text": [[...], ...], ...}]}``.

    Args:
        body: JSON. A modality that is null or left out is absent.
        expected: What the model takes.
        limits: How many clips and steps there may be.

    Raises:
        UsageError: If it is no JSON, or not of that form.
        ServiceError: If there are too many clips or steps.
        ShapeError: If steps do not have the width the model was trained on.
        DatasetError: If a value is NaN or infinite.
    """
    clips = _clips(body)
    if len(clips) > limits.max_clips:
        raise _too_many(f"the request has {len(clips)} clips", f"{limits.max_clips} of them")
    return [_clip(at, clip, expected, limits) for at, clip in enumerate(clips)]


def _clips(body: bytes) -> list[Any]:
    try:
        content = from_json(body)
    except ValueError as fault:
        raise UsageError(f"the request is not JSON: {fault}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("clips"), list):
        raise UsageError(
            f'the request must be {{"clips": [...]}}, got {_kind(content)}.\n'
            '  A clip: {"id": "a", "text": [[0.1, ...], ...], "audio": null}'
        )
    for key in content:
        if key != "clips":
            raise UsageError(f'unknown key "{key}"{did_you_mean(key, ("clips",))}')
    if not content["clips"]:
        raise UsageError('"clips" is empty; expected one clip at least.')
    clips: list[Any] = content["clips"]
    return clips


def _clip(at: int, clip: Any, expected: Expected, limits: Limits) -> Features:
    if not isinstance(clip, dict):
        raise UsageError(f"clip {at} must be an object, got {_kind(clip)}.")
    for key in clip:
        if key not in _KEYS:
            raise UsageError(f'clip {at}: unknown key "{key}"{did_you_mean(key, _KEYS)}')
    identifier = clip.get("id")
    if identifier is None:
        identifier = str(at)
    if not isinstance(identifier, str) or len(identifier) > _MOST_ID:
        raise UsageError(
            f"clip {at}: id must be a text of at most {_MOST_ID} characters, "
            f"got {_kind(identifier)}."
        )
    steps = {
        modality: _steps(at, modality, clip[modality], expected, limits)
        for modality in MODALITIES
        if clip.get(modality) is not None
    }
    if not any(modality in steps for modality in expected.used):
        raise ShapeError(
            f"clip {at} has none of {list(expected.used)}, which is what {expected.model} "
            "predicts from."
        )
    lengths = {m: len(steps[m]) for m in expected.used if m in steps}
    if expected.equal_lengths and len(set(lengths.values())) > 1:
        raise ShapeError(
            f"clip {at}: {expected.model} takes clips with as many steps in every modality, "
            f"got {lengths}."
        )
    return Features(identifier, steps)


def _steps(
    at: int, modality: Modality, given: Any, expected: Expected, limits: Limits
) -> NDArray[np.float32]:
    """The steps of one modality, float32 ``[n, d_m]``."""
    width = expected.dims.get(modality)
    if width is None:
        raise ShapeError(
            f"clip {at}: {expected.model} was trained without {modality}.\n"
            f"  It takes {_widths(expected)}"
        )
    if not isinstance(given, list) or not given:
        raise UsageError(
            f"clip {at}: {modality} must be a list of steps, one at least, got {_kind(given)}.\n"
            f"  Where there is no {modality}: null"
        )
    if len(given) > limits.max_steps:
        raise _too_many(f"clip {at}: {modality} has {len(given)} steps", str(limits.max_steps))
    values = _numbers(given)
    if values is None:
        raise UsageError(
            f"clip {at}: {modality} must be a list of steps, each a list of {width} numbers"
            f"{_odd(given, width)}."
        )
    if values.shape[1] != width:
        raise ShapeError(
            f"clip {at}: {modality} must have {width} features per step, got {values.shape[1]}"
        )
    if not (np.abs(values) <= _LARGEST).all():  # false of NaN, too
        raise DatasetError(
            f"{modality} holds NaN or infinity in clip {at} of the batch.\n"
            "  A step that was not measured is zeros; a modality that was not is null."
        )
    return values.astype(np.float32)


def _numbers(given: list[Any]) -> NDArray[np.float64] | None:
    """The nested lists as an array, or None: numpy would take texts for numbers."""
    try:
        values = np.array(given)
    except (ValueError, OverflowError):
        return None
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        return None
    return values.astype(np.float64)


def _odd(given: list[Any], width: int) -> str:
    """What is wrong with the first step that is not as it should be."""
    for number, step in enumerate(given):
        if not isinstance(step, list):
            return f"; step {number} is {_kind(step)}"
        if len(step) != width:
            return f"; step {number} has {len(step)}"
        for value in step:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"; step {number} holds {_kind(value)}"
    return ""


def _too_many(found: str, most: str) -> ServiceError:
    return ServiceError(
        f"{found}; expected at most {most}.\n  Send them in several requests.",
        status=413,
        kind="too-large",
    )


def _widths(expected: Expected) -> str:
    return ", ".join(f"{modality} ({width} numbers)" for modality, width in expected.dims.items())


def _kind(value: Any) -> str:
    """A value in a few characters, whatever it is."""
    match value:
        case dict():
            return f"an object with {_short(json.dumps(list(value)))}"
        case list():
            return "a list" if value else "an empty list"
        case str():
            return f'the text "{_short(value)}"'
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _:
            return f"the number {value:g}" if abs(value) < 1e300 else "a number too large"


def _short(text: str) -> str:
    clean = re.sub(r"\s+", " ", text)
    return clean if len(clean) <= 40 else f"{clean[:39]}…"
