"""Answers of the service as its OpenAPI schema describes them, with examples."""

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
    # "model" and "name" are the words of this service, not of pydantic.
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Health(_Answer):
    """That the service is there."""

    status: str


class TaskAnswer(_Answer):
    """What is predicted: a score from ``low`` to ``high``, one of ``classes``, or ``emotions``."""

    kind: TaskKind
    low: float | None = None
    high: float | None = None
    classes: list[str] | None = None
    emotions: list[str] | None = None


class Reception(_Answer):
    """What a recording may be."""

    max_bytes: int
    max_seconds: float
    media_types: list[str]


class ModelAnswer(_Answer):
    """A run that is served.

    ``dims`` is the width of a step of each modality; ``modalities`` are those it looks at.
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
    """Every run that is served; the first is asked where none is named."""

    models: list[ModelAnswer]


class ClipAnswer(_Answer):
    """A score, the name of a class or the names of the emotions held, of one clip.

    ``spread`` is the standard deviation over seeds; null with one seed.
    """

    id: str
    prediction: float | str | list[str]
    spread: float | None
    probabilities: dict[str, float] | None = None


class PredictAnswer(_Answer):
    """Predictions of clips, in their order."""

    model: str
    predictions: list[ClipAnswer]


class ResultAnswer(BaseModel):
    """What a run says of a recording; see docs/serving.md for what each utterance holds."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    model: str
    name: str
    duration: float
    task: TaskAnswer
    error: float | None
    notes: list[str]
    utterances: list[dict[str, Any]]


def _steps(modality: Modality, limits: Limits) -> dict[str, Any]:
    number = {"type": "number"}
    return {
        "type": ["array", "null"],
        "description": f"Steps of {modality}: a list of numbers each. Null: there is none.",
        "items": {"type": "array", "items": number, "minItems": 1},
        "minItems": 1,
        "maxItems": limits.max_steps,
    }


def predict_body(dims: dict[Modality, int], limits: Limits) -> dict[str, Any]:
    """The two bodies that ``POST /v1/predict`` takes, for its OpenAPI schema.

    Args:
        dims: Widths of the model that is asked by default: those of the example.
        limits: Of the service.
    """
    properties: dict[str, Any] = {"id": {"type": "string", "maxLength": 200}}
    properties |= {modality: _steps(modality, limits) for modality in dims}
    clip = {"type": "object", "additionalProperties": False, "properties": properties}
    features = {
        "type": "object",
        "required": ["clips"],
        "additionalProperties": False,
        "properties": {
            "clips": {
                "type": "array",
                "items": clip,
                "minItems": 1,
                "maxItems": limits.max_clips,
            }
        },
    }
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "A video or a sound."},
            "transcript": {
                "type": "string",
                "description": "What is said: plain text, SubRip or WebVTT. Recognised if absent.",
            },
            "language": {
                "type": "string",
                "pattern": "^[a-z]{2,3}$",
                "description": "Of the speech, as en.",
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
