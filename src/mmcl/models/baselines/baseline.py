"""Frame of a baseline: settings, standardised and masked features in, scores out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, did_you_mean
from mmcl.models.network import Network
from mmcl.models.projection import Standardiser
from mmcl.types import Modality

__all__ = [
    *("AttentionOptions", "Baseline", "BaselineOptions"),
    *("ByModality", "Prediction", "RawPrediction"),
]

ByModality: TypeAlias = dict[Modality, Tensor]
"""A tensor per modality, in the order text, audio, vision."""

RawPrediction: TypeAlias = tuple[Tensor, Tensor, Mapping[str, Tensor]]
"""Raw scores ``[b, task.output_dim]``, fused representation ``[b, h]``, and extras by name."""


class BaselineOptions(BaseModel):
    """Own settings of a baseline; a subclass names them with their published values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class AttentionOptions(BaselineOptions):
    """Options in which attention ``heads`` share ``width``, declared above them, equally."""

    @field_validator("heads", check_fields=False)
    @classmethod
    def _heads_divide_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")  # absent where it was refused itself
        if width is not None and width % heads:
            raise PydanticCustomError("heads", "must divide width {width}", {"width": width})
        return heads


class Prediction(NamedTuple):
    """Output of a baseline."""

    scores: Tensor  # [b] for regression, logits [b, c] for classes, [b, e, 2] for emotions
    hidden: Tensor  # fused representation that the scores were read from, [b, h]
    extras: Mapping[str, Tensor]  # tensors that the model's own loss needs, by name


class Baseline(Network):
    """Model that consists of :meth:`build` and :meth:`predict`; the rest is done here.

    In several processes, DistributedDataParallel averages the gradients. It waits for every
    parameter, so each must take part in every loss, if only with a gradient of 0.

    Example:
        >>> import torch
        >>> class Mean(Baseline):
        ...     def build(self):
        ...         self.output = nn.Linear(sum(self.dims.values()), self.task.output_dim)
        ...
        ...     def predict(self, steps, masks):
        ...         hidden = torch.cat([x.mean(dim=1) for x in steps.values()], dim=-1)
        ...         return self.output(hidden), hidden, {}
        >>> model = Mean({"text": 8, "audio": 4}, Task(kind="regression", low=-3, high=3))
        >>> model({"text": torch.zeros(2, 5, 8), "audio": torch.zeros(2, 7, 4)}).scores.shape
        torch.Size([2])
    """

    Options: ClassVar[type[BaselineOptions]] = BaselineOptions
    options: Any

    def __init__(self, dims: dict[str, int], task: Task, **settings: Any) -> None:
        """Take the arguments of :class:`~mmcl.models.network.Network`."""
        super().__init__(dims, task, **settings)
        self.options = _validate_options(self.Options, self.settings)
        standardised = self.dims if self.settings.standardise else {}
        self.inputs = nn.ModuleDict({m: Standardiser(dim) for m, dim in standardised.items()})
        self.build()

    def build(self) -> None:
        """Make the layers from ``self.dims``, ``self.task`` and ``self.options``."""
        raise NotImplementedError

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Predict from features that are complete, standardised and 0 where there is no step.

        Args:
            steps: Features of every modality in use, float ``[b, n_m, d_m]``.
            masks: Real steps, bool ``[b, n_m]``; all False where a modality is absent.

        Returns:
            Raw scores ``[b, task.output_dim]``, the representation they were read from
            ``[b, h]``, and tensors that :meth:`auxiliary_loss` needs.
        """
        raise NotImplementedError

    def forward(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None = None
    ) -> Prediction:
        """Predict.

        Args:
            features: Per modality float ``[b, n_m, d_m]``. A modality may be left out.
            masks: Per modality bool ``[b, n_m]``, True = a real step; all real by default.

        Raises:
            ShapeError: If shapes do not fit.
            DatasetError: If a real step holds NaN or infinity.
        """
        steps, complete_masks = self.complete(features, masks)
        for modality, standardiser in self.standardisers.items():
            # Standardising moves the zeros of padded steps: put them back.
            standard = standardiser(steps[modality])
            mask = complete_masks[modality].unsqueeze(-1)
            steps[modality] = standard * mask.to(standard.dtype)
        raw, hidden, extras = self.predict(steps, complete_masks)
        return Prediction(self.shape_scores(raw), hidden, extras)

    @property
    def standardisers(self) -> Mapping[Modality, Standardiser]:
        """Layers that centre and scale the features, by modality."""
        return self.inputs  # type: ignore[return-value]


def _validate_options(options: type[BaselineOptions], settings: ModelSettings) -> BaselineOptions:
    """Return the model's options, or raise one ConfigError that names all faults."""
    try:
        return options.model_validate(settings.options)
    except ValidationError as error:
        faults = sorted(_fault_line(fault, options) for fault in error.errors())
    count = "1 problem" if len(faults) == 1 else f"{len(faults)} problems"
    known = ", ".join(options.model_fields) or "it has none"
    heading = f"options of {settings.name} have {count}"
    raise ConfigError("\n  ".join([heading, *faults, f"Options of {settings.name}: {known}"]))


def _fault_line(fault: Any, options: type[BaselineOptions]) -> str:
    key = f"model.options.{'.'.join(map(str, fault['loc']))}"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(fault['loc'][0]), options.model_fields)}"
    message = fault["msg"].replace("Input should be", "must be")
    return f"{key}: {message}, got {fault['input']!r}"
