"""The frame of a baseline: settings, standardised and masked features in, scores out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, did_you_mean
from mmcl.models.network import Network
from mmcl.models.projection import Standardiser
from mmcl.types import Modality

__all__ = ["Baseline", "BaselineOptions", "Prediction"]


class BaselineOptions(BaseModel):
    """Settings of a baseline's own; a subclass names them with their published values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Prediction(NamedTuple):
    """What a baseline returns.

    Attributes:
        scores: ``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for
            emotions.
        hidden: Fused representation that they were read from, ``[b, h]``.
        extras: What its own loss needs, by name.
    """

    scores: Tensor
    hidden: Tensor
    extras: Mapping[str, Tensor]


class Baseline(Network):
    """A model is :meth:`build` and :meth:`predict`; the rest is done here.

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

    def __init__(
        self,
        dims: dict[str, int],
        task: Task,
        *,
        aligned: bool = False,
        model: ModelSettings | None = None,
        policy: PolicySettings | None = None,
    ) -> None:
        super().__init__(dims, task, aligned=aligned, model=model, policy=policy)
        self.options = _validated(self.Options, self.settings)
        standardise = self.settings.standardise
        self.inputs = nn.ModuleDict(
            {m: Standardiser(dim) for m, dim in self.dims.items()} if standardise else {}
        )
        self.build()

    def build(self) -> None:
        """Make the layers from ``self.dims``, ``self.task`` and ``self.options``."""
        raise NotImplementedError

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Predict from features that are complete, standardised and 0 where there is no step.

        Args:
            steps: Of every modality in use, float ``[b, n_m, d_m]``.
            masks: Real steps, bool ``[b, n_m]``; none at all where a modality is absent.

        Returns:
            Raw scores ``[b, task.output_dim]``, the representation they were read from
            ``[b, h]``, and what :meth:`auxiliary_loss` needs.
        """
        raise NotImplementedError

    def forward(
        self,
        features: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor] | None = None,
    ) -> Prediction:
        """Predict.

        Args:
            features: Per modality float ``[b, n_m, d_m]``. A modality may be left out.
            masks: Per modality bool ``[b, n_m]``, True = a real step; all real by default.

        Raises:
            ShapeError: If shapes do not fit.
            DatasetError: If a real step holds NaN or infinity.
        """
        complete, complete_masks = self.complete(features, masks)
        steps = {m: self._standard(m, x, complete_masks[m]) for m, x in complete.items()}
        raw, hidden, extras = self.predict(steps, complete_masks)
        return Prediction(self.shape_scores(raw), hidden, extras)

    @property
    def standardisers(self) -> Mapping[Modality, Standardiser]:
        """What centres and scales the features, by modality."""
        return self.inputs  # type: ignore[return-value]

    def _standard(self, modality: Modality, x: Tensor, mask: Tensor) -> Tensor:
        if modality not in self.standardisers:
            return x
        standard: Tensor = self.standardisers[modality](x)
        return standard * mask.unsqueeze(-1).to(x.dtype)


def _validated(options: type[BaselineOptions], settings: ModelSettings) -> BaselineOptions:
    try:
        return options.model_validate(settings.options)
    except ValidationError as faults:
        lines = sorted(_explain(fault, options) for fault in faults.errors())
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    known = ", ".join(options.model_fields) or "it has none"
    raise ConfigError(
        "\n  ".join([f"options of {settings.name} have {count}", *lines])
        + f"\n  Options of {settings.name}: {known}"
    )


def _explain(fault: Any, options: type[BaselineOptions]) -> str:
    key = f"model.options.{'.'.join(map(str, fault['loc']))}"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(fault['loc'][0]), options.model_fields)}"
    what = fault["msg"].replace("Input should be", "must be")
    return f"{key}: {what}, got {fault['input']!r}"
