"""CAML: a teacher sees every modality, a student learns to do without some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor
from torch.nn import functional as F

from mmcl.config import ModelSettings
from mmcl.corpus.batches import drop_modalities
from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.options import heads_must_divide
from mmcl.models.network import Network
from mmcl.models.registry import build_network, network_class
from mmcl.types import Modality

__all__ = ["CAML", "MODEL", "distillation_loss"]

_SHARED = ("width", "heads", "layers", "dropout")
_CURRICULUM = 0.5
"""Share of the epochs over which modalities come to be dropped more and more often."""


class CAML(Baseline):
    """Two networks of one kind, side by side; the prediction is the student's.

    The teacher learns the task from all modalities a clip has. The student sees a random part
    of them, never none, and learns the task as well as what the teacher says of the whole
    clip. Loss of a batch, with alpha the ``task_share``::

        L = task(student) + task(teacher)
          + (1 - alpha) / alpha * (hidden_weight * MSE(hidden) + score_weight * KD(scores))

    The published sum ``alpha * task + (1 - alpha) * distillation`` is this one times alpha,
    less the teacher's own: so the scores are the student's in training too, and the task
    loss that is reported is of what will predict. No gradient goes from the student's losses
    to the teacher. Both are saved; the student alone predicts.

    Source:
        Liu et al. 2025 (arXiv 2502.17821) for agents that share their sensors; the transfer
        to clips is ours (FIELD 5.11): an agent is a clip, its subset drawn clip by clip. The
        teacher is trained beside the student, not before it and then frozen; an absent
        modality is left out in the way of the backbone, not replaced by a learned token.
        Losses that the backbone itself would add are left out.
    """

    class Options(BaselineOptions):
        """The two networks, and how one teaches the other.

        Attributes:
            backbone: Model of both: a baseline, ``calibrated`` (MMCL, its policies taught by
                the task loss) or any other registered name.
            width: Of the backbone, where it has such an option; so are the next three.
            heads: Attention heads; must divide the width.
            layers: Transformer layers.
            dropout: In the layers.
            task_share: Alpha above: what the student learns from labels.
            temperature: Tau, that softens the logits of both; not for scores.
            hidden_weight: Of the distance between the representations.
            score_weight: Of the distance between the predictions.
            drop_rate: Chance that the student is denied a modality, reached after half the
                epochs; 0 at the start.
        """

        backbone: str = "late_fusion"
        width: int = Field(64, ge=4)
        heads: int = Field(4, ge=1)
        layers: int = Field(2, ge=1)
        dropout: float = Field(0.1, ge=0, lt=1)
        task_share: float = Field(0.5, gt=0, le=1)
        temperature: float = Field(2.0, gt=0)
        hidden_weight: float = Field(1.0, ge=0)
        score_weight: float = Field(1.0, ge=0)
        drop_rate: float = Field(0.5, ge=0, lt=1)
        _heads = heads_must_divide()

        @field_validator("backbone")
        @classmethod
        def _is_another(cls, name: str, info: ValidationInfo) -> str:
            if name in ("caml", "released"):
                # One teaches itself without end; the other knows no clip without a modality.
                raise PydanticCustomError(
                    "backbone", 'must be a model other than "{n}"', {"n": name}
                )
            return name

    def build(self) -> None:
        """Make both networks."""
        self.teacher, self.student = self._backbone(), self._backbone()
        self._drop_rate = 0.0

    def _backbone(self) -> Network:
        options, name = self.options, self.options.backbone
        shared = {key: getattr(options, key) for key in _SHARED}
        known = getattr(getattr(network_class(name), "Options", None), "model_fields", {})
        settings = self.settings.model_dump() | {
            "name": name,
            "modalities": self.modalities,
            "standardise": False,  # done here, once for both
            "options": {key: value for key, value in shared.items() if key in known},
        }
        if name == "calibrated":
            settings |= {key: shared[key] for key in ("width", "heads", "dropout")}
        return build_network(
            {str(m): dim for m, dim in self.dims.items()},
            self.task,
            aligned=self.aligned,
            model=ModelSettings.model_validate(settings),
            policy=self.policy_settings.model_copy(update={"kind": "task"}),
        )

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`; the teacher is asked in training only."""
        if not self.training:
            student = self.student(steps, masks)
            return self._raw(student.scores), student.hidden, {}
        teacher = self.teacher(steps, masks)
        held = {m: masks[m] for m in self.student.modalities}
        student = self.student({m: steps[m] for m in held}, drop_modalities(held, self._drop_rate))
        extras = {"teacher_scores": teacher.scores, "teacher_hidden": teacher.hidden}
        return self._raw(student.scores), student.hidden, extras

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Drop modalities more often, from never to ``drop_rate`` after half the epochs."""
        share = min(1.0, epoch / (_CURRICULUM * epochs))
        self._drop_rate = self.options.drop_rate * share
        for network in (self.teacher, self.student):
            network.start_epoch(epoch, epochs)

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """The teacher's task loss, and what the student is to learn from it; 0 in evaluation."""
        if not output.extras:
            return super().auxiliary_loss(output, targets, rows)
        options, extras = self.options, output.extras
        teacher_scores = extras["teacher_scores"]
        hidden = F.mse_loss(output.hidden, extras["teacher_hidden"].detach())
        scores = distillation_loss(
            output.scores,
            teacher_scores.detach(),
            temperature=None if self.task.kind == "regression" else options.temperature,
        )
        taught = options.hidden_weight * hidden + options.score_weight * scores
        share = options.task_share
        total: Tensor = self._task_loss(teacher_scores, targets) + (1 - share) / share * taught
        return total

    def _task_loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        if self.task.kind == "regression":
            return F.l1_loss(scores, targets)
        return F.cross_entropy(scores.flatten(0, -2), targets.flatten())

    def _raw(self, scores: Tensor) -> Tensor:
        return scores.reshape(len(scores), self.task.output_dim)


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float | None) -> Tensor:
    """How far the student's scores are from the teacher's.

    Args:
        student: Scores ``[b]``, or logits ``[..., c]``.
        teacher: The same of the teacher.
        temperature: None for scores, whose squared error it is; for logits the
            Kullback-Leibler divergence from the teacher's softened chances, times the
            temperature's square, which keeps its gradient's size.

    Returns:
        Mean over clips, and over emotions.

    Source:
        FIELD 5.11.
    """
    if temperature is None:
        return F.mse_loss(student, teacher)
    logs = (student / temperature).log_softmax(dim=-1).flatten(0, -2)
    wanted = (teacher / temperature).log_softmax(dim=-1).flatten(0, -2)
    return temperature**2 * F.kl_div(logs, wanted, reduction="batchmean", log_target=True)


MODEL = CAML
