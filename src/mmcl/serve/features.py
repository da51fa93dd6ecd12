"""Clips of features read from JSON, with every fault reported before anything is predicted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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
_MAX_ID_LENGTH = 200


class Expected(NamedTuple):
    """Features that a model takes."""

    model: str
    dims: Mapping[Modality, int]  # numbers per step of each modality of its corpus
    used: tuple[Modality, ...]  # the modalities that it predicts from
    equal_lengths: bool = False  # of all modalities of a clip


class Features(NamedTuple):
    """One clip of a request, by the name that the client gave it."""

    id: str
    steps: dict[Modality, NDArray[np.float32]]  # [n, d_m] of each modality that it has

    @property
    def longest(self) -> int:
        """Number of steps of the longest modality."""
        return max(map(len, self.steps.values()))


def read_features(body: bytes, expected: Expected, limits: Limits) -> list[Features]:
    """Return the clips of a request: ``{"clips": [{"id": "a", "text": [[...], ...], ...}]}``.

    Args:
        body: JSON. A modality that is null or left out is absent.
        expected: Features that the model takes.
        limits: Limits on clips and steps.

    Raises:
        UsageError: If the body is not JSON of this form.
        ServiceError: If there are too many clips or steps.
        ShapeError: If steps do not have the width the model was trained on.
        DatasetError: If a value is NaN or infinite.
    """
    try:
        content = from_json(body)
    except ValueError as fault:
        raise UsageError(f"the request is not JSON: {fault}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("clips"), list):
        raise UsageError(
            f'the request must be {{"clips": [...]}}, got {_kind(content)}.\n'
            '  A clip: {"id": "a", "text": [[0.1, ...], ...], "audio": null}'
        )
    _check_keys("", content, ("clips",))
    clips = content["clips"]
    if not clips:
        raise UsageError('"clips" is empty; expected one clip at least.')
    if len(clips) > limits.max_clips:
        raise _too_many(f"the request has {len(clips)} clips", limits.max_clips)
    return [_clip(index, clip, expected, limits) for index, clip in enumerate(clips)]


def _check_keys(where: str, content: dict[str, Any], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise UsageError(f'{where}unknown key "{key}"{did_you_mean(key, known)}')


def _clip(index: int, clip: Any, expected: Expected, limits: Limits) -> Features:
    if not isinstance(clip, dict):
        raise UsageError(f"clip {index} must be an object, got {_kind(clip)}.")
    _check_keys(f"clip {index}: ", clip, ("id", *MODALITIES))
    identifier = str(index) if clip.get("id") is None else clip["id"]
    if not isinstance(identifier, str) or len(identifier) > _MAX_ID_LENGTH:
        raise UsageError(
            f"clip {index}: id must be a text of at most {_MAX_ID_LENGTH} characters, "
            f"got {_kind(identifier)}."
        )
    steps = {
        modality: _steps(index, modality, clip[modality], expected, limits)
        for modality in MODALITIES
        if clip.get(modality) is not None
    }
    if not any(modality in steps for modality in expected.used):
        raise ShapeError(
            f"clip {index} has none of {list(expected.used)}, which is what {expected.model} "
            "predicts from."
        )
    lengths = {m: len(steps[m]) for m in expected.used if m in steps}
    if expected.equal_lengths and len(set(lengths.values())) > 1:
        raise ShapeError(
            f"clip {index}: {expected.model} takes clips with as many steps in every modality, "
            f"got {lengths}."
        )
    return Features(identifier, steps)


def _steps(
    index: int, modality: Modality, steps: Any, expected: Expected, limits: Limits
) -> NDArray[np.float32]:
    """Return the steps of one modality, float32 ``[n, d_m]``."""
    width = expected.dims.get(modality)
    if width is None:
        widths = ", ".join(f"{m} ({width} numbers)" for m, width in expected.dims.items())
        raise ShapeError(
            f"clip {index}: {expected.model} was trained without {modality}.\n  It takes {widths}"
        )
    if not isinstance(steps, list) or not steps:
        raise UsageError(
            f"clip {index}: {modality} must be a list of steps, one at least, got {_kind(steps)}.\n"
            f"  Where there is no {modality}: null"
        )
    if len(steps) > limits.max_steps:
        raise _too_many(f"clip {index}: {modality} has {len(steps)} steps", limits.max_steps)
    values = _numbers(steps)
    if values is None:
        raise UsageError(
            f"clip {index}: {modality} must be a list of steps, each a list of {width} numbers"
            f"{_first_fault(steps, width)}."
        )
    if values.shape[1] != width:
        raise ShapeError(
            f"clip {index}: {modality} must have {width} features per step, got {values.shape[1]}"
        )
    if not (np.abs(values) <= _LARGEST).all():  # NaN fails this comparison, too
        raise DatasetError(
            f"{modality} holds NaN or infinity in clip {index} of the batch.\n"
            "  Send zeros for a step that was not measured, null for a modality that was not."
        )
    return values.astype(np.float32)


def _numbers(steps: list[Any]) -> NDArray[np.float64] | None:
    """Return nested lists as an array, None where they are not all numbers of one width."""
    try:
        values = np.array(steps)
    except (ValueError, OverflowError):
        return None
    # Asked for floats at once, numpy would also take texts and booleans for numbers.
    is_numbers = values.ndim == 2 and values.dtype.kind in "fiu"
    return values.astype(np.float64) if is_numbers else None


def _first_fault(steps: list[Any], width: int) -> str:
    for number, step in enumerate(steps):
        if not isinstance(step, list):
            return f"; step {number} is {_kind(step)}"
        if len(step) != width:
            return f"; step {number} has {len(step)}"
        for value in step:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"; step {number} holds {_kind(value)}"
    return ""


def _too_many(counted: str, limit: int) -> ServiceError:
    return ServiceError(
        f"{counted}; expected at most {limit}.\n  Send them in several requests.",
        status=413,
        kind="too-large",
    )


def _kind(value: Any) -> str:
    """Describe any value in a few words."""
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
