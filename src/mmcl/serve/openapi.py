"""Bodies of requests and answers, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from mmcl.serve.limits import Limits
from mmcl.types import Modality, TaskKind

__all__ = [
    "ClipAnswer",
    "Health",
    "ModelAnswer",
    "ModelsAnswer",
    "PredictAnswer",
    "Reception",
    "ResultAnswer",
    "TaskAnswer",
    "predict_body",
]


class _Answer(BaseModel):
    # pydantic reserves names that begin with "model_".
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Health(_Answer):
    """State of the service."""

    status: str


class TaskAnswer(_Answer):
    """Task of a run: a score from ``low`` to ``high``, one of ``classes``, or ``emotions``."""

    kind: TaskKind
    low: float | None = None
    high: float | None = None
    classes: list[str] | None = None
    emotions: list[str] | None = None


class Reception(_Answer):
    """Limits of a recording."""

    max_bytes: int
    max_seconds: float
    media_types: list[str]


class ModelAnswer(_Answer):
    """A run that is served.

    ``dims`` has the numbers per step of each modality; ``modalities`` are those it predicts from.
    """

    name: str
    model: str
    task: TaskAnswer
    modalities: list[Modality]
    dims: dict[Modality, int]
    takes_media: bool
    seeds: list[int]
    validation_error: float | None
    limits: Reception


class ModelsAnswer(_Answer):
    """Every run that is served; the first is used where a request names none."""

    models: list[ModelAnswer]


class ClipAnswer(_Answer):
    """Prediction of one clip: a score, a class, or the emotions present.

    ``spread`` is the standard deviation over seeds; null with one seed.
    """

    id: str
    prediction: float | str | list[str]
    spread: float | None
    probabilities: dict[str, float] | None = None


class PredictAnswer(_Answer):
    """Predictions of clips, in the order of the request."""

    model: str
    predictions: list[ClipAnswer]


class ResultAnswer(_Answer):
    """Result of a recording; docs/serving.md lists the keys of an utterance."""

    model_config = ConfigDict(extra="allow")

    model: str
    name: str
    duration: float
    task: TaskAnswer
    error: float | None
    notes: list[str]
    utterances: list[dict[str, Any]]


def _steps(modality: Modality, limits: Limits) -> dict[str, Any]:
    step = {"type": "array", "items": {"type": "number"}, "minItems": 1}
    return {
        "type": ["array", "null"],
        "description": f"Steps of {modality}, each a list of numbers; null where there is none.",
        "items": step,
        "minItems": 1,
        "maxItems": limits.max_steps,
    }


def predict_body(dims: dict[Modality, int], limits: Limits) -> dict[str, Any]:
    """Return the schema of the two bodies that ``POST /v1/predict`` takes.

    Args:
        dims: Numbers per step of the default model, for the example.
        limits: Limits of the service.
    """
    properties: dict[str, Any] = {"id": {"type": "string", "maxLength": 200}}
    properties |= {modality: _steps(modality, limits) for modality in dims}
    clip = {"type": "object", "additionalProperties": False, "properties": properties}
    features = {
        "type": "object",
        "required": ["clips"],
        "additionalProperties": False,
        "properties": {
            "clips": {"type": "array", "items": clip, "minItems": 1, "maxItems": limits.max_clips}
        },
    }
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "A video or a sound file.",
            },
            "transcript": {
                "type": "string",
                "description": "Plain text, SubRip or WebVTT. Where absent, speech is recognised.",
            },
            "language": {
                "type": "string",
                "pattern": "^[a-z]{2,3}$",
                "description": "Language of the speech, for example en.",
            },
        },
    }
    example: dict[str, Any] = {"id": "a"}
    example |= {modality: [[0.0] * width] for modality, width in dims.items()}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": features, "example": {"clips": [example]}},
                "multipart/form-data": {"schema": form},
            },
        }
    }
