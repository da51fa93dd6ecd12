"""Bodies of requests and answers, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from mmcl.serve.limits import Limits
from mmcl.serve.problems import PROBLEM_TYPE
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
    "problems",
]

_MEANINGS = {
    400: "the request is not as described",
    401: "no token",
    403: "asked from elsewhere",
    404: "no such model or job",
    408: "the upload was too slow",
    409: "the job is not done yet",
    410: "the job was cancelled",
    413: "too large, too long or too many",
    415: "neither JSON nor a form",
    422: "a value, the features or the recording cannot be used",
    429: "too many recordings or clips wait",
    500: "a fault of the service",
    501: "a package that reading recordings needs is not installed",
    503: "a worker is not ready; try again",
    507: "the disk of the service has no room; try again later",
}


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

    ``spread`` is the standard deviation over seeds of the score, or of the predicted class's
    probability; null with one seed. ``probabilities`` is by class or emotion, null for a score.
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


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route that are problems."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {s: {"description": _MEANINGS[s], "content": content} for s in statuses}


def predict_body(dims: dict[Modality, int], limits: Limits) -> dict[str, Any]:
    """Return the schema of the two bodies that ``POST /v1/predict`` takes.

    ``dims`` has the numbers per step of the default model, for the example.
    """
    step = _list(of={"type": "number"})
    modality = _list(of=step, maxItems=limits.max_steps, type=["array", "null"])
    modality["description"] = "Steps, each a list of numbers; null where there are none."
    name = _text("Name of the clip.", maxLength=200)
    clip = _object({"id": name, **dict.fromkeys(dims, modality)}, additionalProperties=False)
    clips = _list(of=clip, maxItems=limits.max_clips)
    features = _object({"clips": clips}, required=["clips"], additionalProperties=False)
    form = _object(
        {
            "file": _text("A video or a sound file.", format="binary"),
            "transcript": _text("Plain text, SubRip or WebVTT. Recognised where absent."),
            "language": _text("Language of the speech, for example en.", pattern="^[a-z]{2,3}$"),
        },
        required=["file"],
    )
    example: dict[str, Any] = {"id": "a", **{m: [[0.0] * width] for m, width in dims.items()}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": features, "example": {"clips": [example]}},
                "multipart/form-data": {"schema": form},
            },
        }
    }


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _list(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1, **more}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}
