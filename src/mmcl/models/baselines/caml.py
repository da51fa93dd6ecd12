"""CAML: a teacher sees every modality, a student learns to do without some of them."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor
from torch.nn import functional as F

from mmcl.config import ModelSettings
from mmcl.corpus.batches import drop_modalities
from mmcl.models.baselines.baseline import AttentionOptions, Baseline, ByModality, RawPrediction
from mmcl.models.network import Network
from mmcl.models.registry import build_network, network_class

__all__ = ["CAML", "distillation_loss"]

_CURRICULUM = 0.5
"""Share of the epochs over which modalities come to be dropped more and more often."""


class CAML(Baseline):
    """Two networks of one kind, side by side; the student's prediction counts.

    The teacher learns the task from all modalities a clip has. The student sees a random part of
    them, never none, and learns the task as well as the teacher's answers about the whole clip.
    Loss of a batch, with alpha the ``task_share``::

        L = task(student) + task(teacher)
          + (1 - alpha) / alpha * (hidden_weight * MSE(hidden) + score_weight * KD(scores))

    The published sum ``alpha * task + (1 - alpha) * distillation`` is alpha times this one,
    without the teacher's own loss. In this form, the scores and the reported task loss are the
    student's, which will predict. No gradient goes from the student's losses to the teacher. Both
    networks are saved.

    Source:
        Liu et al. 2025 (arXiv 2502.17821) for agents that share their sensors. The transfer to
        clips is ours: an agent is a clip, and its subset of modalities is drawn clip by clip. The
        teacher is trained beside the student, not before it and then frozen. An absent modality
        is left out in the way of the backbone, not replaced by a learned token. Losses that the
        backbone itself would add are left out.
    """

    class Options(AttentionOptions):
        """The two networks, and how one teaches the other."""

        # Model of both: a baseline, "calibrated" (MMCL, its policies taught by the task loss) or
        # any other registered name. The next four go to it where it has such an option.
        backbone: str = "late_fusion"
        width: int = Field(64, ge=4)
        heads: int = Field(4, ge=1)  # of attention; must divide the width
        layers: int = Field(2, ge=1)  # of transformers
        dropout: float = Field(0.1, ge=0, lt=1)  # in the layers
        task_share: float = Field(0.5, gt=0, le=1)  # alpha: the part learnt from labels
        temperature: float = Field(2.0, gt=0)  # softens the logits of both; not for scores
        hidden_weight: float = Field(1.0, ge=0)  # of the distance between the representations
        score_weight: float = Field(1.0, ge=0)  # of the distance between the predictions
        # Chance that the student is denied a modality, reached after half the epochs.
        drop_rate: float = Field(0.5, ge=0, lt=1)

        @field_validator("backbone")
        @classmethod
        def _is_another_model(cls, name: str) -> str:
            if name in ("caml", "released"):
                # One teaches itself without end; the other knows no clip without a modality.
                raise PydanticCustomError(
                    "backbone", 'must be a model other than "{n}"', {"n": name}
                )
            return name

    def build(self) -> None:
        """Make both networks."""
        self.teacher, self.student = self._build_backbone(), self._build_backbone()
        self._drop_rate = 0.0

    def _build_backbone(self) -> Network:
        name = self.options.backbone
        shared = {
            key: getattr(self.options, key) for key in ("width", "heads", "layers", "dropout")
        }
        known = getattr(getattr(network_class(name), "Options", None), "model_fields", {})
        settings = self.settings.model_dump() | {
            "name": name,
            "modalities": self.modalities,
            "standardise": False,  # done here, once for both
            "options": {key: value for key, value in shared.items() if key in known},
        }
        if name == "calibrated":  # its sizes are no options, but settings of their own
            settings |= {key: shared[key] for key in ("width", "heads", "dropout")}
        return build_network(
            {str(m): dim for m, dim in self.dims.items()},
            self.task,
            aligned=self.aligned,
            model=ModelSettings.model_validate(settings),
            policy=self.policy_settings.model_copy(update={"kind": "task"}),
        )

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Ask the student, and in training the teacher too; see :meth:`Baseline.predict`."""
        extras: dict[str, Tensor] = {}
        if self.training:
            teacher = self.teacher(steps, masks)
            extras = {"teacher_scores": teacher.scores, "teacher_hidden": teacher.hidden}
            # The student alone does without some modalities, and has none that it cannot use.
            steps = {m: steps[m] for m in self.student.modalities}
            masks = drop_modalities({m: masks[m] for m in steps}, self._drop_rate)
        student = self.student(steps, masks)
        scores = student.scores
        if self.task.kind == "regression":  # raw again: Network.shape_scores comes after this
            scores = self.score_scale.to_field(scores)
        return scores.reshape(-1, self.task.output_dim), student.hidden, extras

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Drop modalities more often, from never to ``drop_rate`` after half the epochs."""
        share = min(1.0, epoch / (_CURRICULUM * epochs))
        self._drop_rate = self.options.drop_rate * share
        for network in (self.teacher, self.student):
            network.start_epoch(epoch, epochs)

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Return the teacher's task loss and the distillation loss; 0 in evaluation."""
        if not output.extras:
            return super().auxiliary_loss(output, targets, rows)
        options, regression = self.options, self.task.kind == "regression"
        scores, hidden = output.extras["teacher_scores"], output.extras["teacher_hidden"]
        student = output.scores
        if regression:
            to_field = self.score_scale.to_field
            scores, student, targets = map(to_field, (scores, student, targets))
            teacher_loss = F.l1_loss(scores, targets)
        else:
            teacher_loss = F.cross_entropy(scores.flatten(0, -2), targets.flatten())
        # Detached: the student teaches the teacher nothing.
        distance = F.mse_loss(output.hidden, hidden.detach())
        distillation = distillation_loss(
            student, scores.detach(), temperature=None if regression else options.temperature
        )
        taught = options.hidden_weight * distance + options.score_weight * distillation
        total: Tensor = teacher_loss + (1 - options.task_share) / options.task_share * taught
        # A backbone without its own losses may have parameters that nothing else reaches.
        silent = 0.0 * torch.stack([p.sum() for p in self.parameters()]).sum()
        return total + silent


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float | None) -> Tensor:
    """Return the mean distance of the student's scores from the teacher's.

    For scores ``[b]``, which have no temperature, it is the squared error. For logits
    ``[..., c]`` it is the Kullback-Leibler divergence from the teacher's softened probabilities,
    times the squared temperature, which keeps its gradient's size.
    """
    if temperature is None:
        return F.mse_loss(student, teacher)
    student_logs = (student / temperature).log_softmax(dim=-1).flatten(0, -2)
    teacher_logs = (teacher / temperature).log_softmax(dim=-1).flatten(0, -2)
    divergence = F.kl_div(student_logs, teacher_logs, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
