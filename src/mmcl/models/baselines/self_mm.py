"""Self-MM: each modality also predicts alone, taught by labels made up along the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions
from mmcl.models.baselines.encoders import LastState
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["MODEL", "PseudoLabels", "SelfMM", "propose_labels"]

_EPSILON = 1e-8
"""Under a distance that may be 0: a clip that lies on a centre."""

SMALLEST_RATIO_BASE = 0.1
"""Where the fused representation leans less than this to either side, how many times further
another one leans is noise: the proposal is then made of the difference alone."""


class Head(nn.Module):
    """Dropout, Linear and ReLU to the features; Linear, ReLU and Linear to the scores.

    Args:
        in_dim: Of the utterance vector.
        width: Of the features.
        output_dim: Numbers predicted.
        dropout: Before the first layer.
    """

    def __init__(self, in_dim: int, width: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.features = nn.Linear(in_dim, width)
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, output_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[b, in]`` in; features ``[b, width]``, the last hidden layer, and raw scores."""
        features = F.relu(self.features(self.dropout(x)))
        inner = F.relu(self.inner(features))
        return features, inner, self.output(inner)


class SelfMM(Baseline):
    """An LSTM and a head per modality, and a head over all; the single ones teach as well.

    A modality's own label starts as the clip's. It is moved by how much nearer that
    modality's features lie to the centre of positive clips than to that of negative ones,
    compared with the fused features (:class:`PseudoLabels`). A single head is taught the more,
    the further its label has departed from the clip's.

    Source:
        Yu et al. 2021 (arXiv 2102.04830), written anew from its description (FIELD 5.8).
        Mended: centres are means of clips that were seen, not of zeros that stand for the
        others; nothing is proposed while one of the centres is of no clip; a ratio to nearly
        0 is left out of a proposal. Decided: positive is above the middle of the task's
        range, and labels stay in that range; text is read by an LSTM too, since BERT is not
        trained here; for classes and emotions, of which no centre is negative, the single
        heads are taught the clip's own label with the weight ``unimodal_weight``; a clip
        without a modality teaches its head nothing. One learning rate for all layers.
    """

    # A single head is silent until its labels depart from the clips', from epoch 2 on.
    without_gradient: ClassVar[tuple[str, ...]] = ("heads.",)

    class Options(BaselineOptions):
        """Sizes, as published for MOSI; the width of text's state is ours.

        Attributes:
            text_state: Width of text's LSTM.
            audio_state: Width of audio's LSTM.
            vision_state: Width of vision's LSTM.
            text_width: Features of text's own head.
            audio_width: Features of audio's own head, and width of its utterance vector.
            vision_width: Features of vision's own head, and width of its utterance vector.
            fusion_width: Features of the head over all.
            text_dropout: Before text's own head.
            audio_dropout: Before audio's own head.
            vision_dropout: Before vision's own head.
            fusion_dropout: Before the head over all.
            unimodal_weight: Of the single heads' loss, for classes and emotions only.
        """

        text_state: int = Field(128, ge=1)
        audio_state: int = Field(16, ge=1)
        vision_state: int = Field(32, ge=1)
        text_width: int = Field(32, ge=1)
        audio_width: int = Field(16, ge=1)
        vision_width: int = Field(32, ge=1)
        fusion_width: int = Field(128, ge=1)
        text_dropout: float = Field(0.1, ge=0, lt=1)
        audio_dropout: float = Field(0.1, ge=0, lt=1)
        vision_dropout: float = Field(0.0, ge=0, lt=1)
        fusion_dropout: float = Field(0.0, ge=0, lt=1)
        unimodal_weight: float = Field(0.1, ge=0)

    def build(self) -> None:
        """Make the layers."""
        options, outputs = self.options, self.task.output_dim
        states = {m: getattr(options, f"{m}_state") for m in self.modalities}
        widths = {m: getattr(options, f"{m}_width") for m in self.modalities}
        sizes = {m: states[m] if m == "text" else widths[m] for m in self.modalities}
        self.readings = nn.ModuleDict({m: LastState(d, states[m]) for m, d in self.dims.items()})
        self.narrow = nn.ModuleDict(
            {m: nn.Linear(states[m], sizes[m]) for m in self.modalities if m != "text"}
        )
        self.heads = nn.ModuleDict(
            {
                m: Head(sizes[m], widths[m], outputs, getattr(options, f"{m}_dropout"))
                for m in self.modalities
            }
        )
        self.fusion = Head(
            sum(sizes.values()), options.fusion_width, outputs, options.fusion_dropout
        )
        self.pseudo_labels: PseudoLabels | None = None
        self._epoch = 1

    def predict(
        self, steps: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """See :meth:`Baseline.predict`."""
        extras: dict[str, Tensor] = {}
        vectors = []
        for m in self.modalities:
            present = masks[m].any(dim=1)
            vector = self._read(m, steps[m], masks[m]) * present.unsqueeze(-1)
            vectors.append(vector)
            extras[f"{m}_features"], _, raw = self.heads[m](vector)
            extras[f"{m}_scores"], extras[f"{m}_present"] = self.shape_scores(raw), present
        extras["fusion_features"], hidden, raw = self.fusion(torch.cat(vectors, dim=-1))
        return raw, hidden, extras

    def prepare_training(self, targets: Tensor) -> None:
        """Start every modality's labels as the clips' own, in a regression."""
        self.pseudo_labels = None
        if self.task.kind == "regression":
            low, high = self.task.low or 0.0, self.task.high or 0.0
            self.pseudo_labels = PseudoLabels(targets, self.modalities, low=low, high=high)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Count epochs as the source does, from 1."""
        self._epoch = epoch + 1

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """What the single heads are taught; in training, their labels move on afterwards.

        Without :meth:`prepare_training`, a modality's labels are the clips' own, and a
        regression has nothing to teach.
        """
        extras = output.extras
        losses = [
            self._head_loss(m, extras[f"{m}_scores"], extras[f"{m}_present"], targets, rows)
            for m in self.modalities
        ]
        if self.training and self.pseudo_labels is not None:
            names = [*self.modalities, "fusion"]
            features = {name: extras[f"{name}_features"].detach().float() for name in names}
            present = {m: extras[f"{m}_present"] for m in self.modalities}
            self.pseudo_labels.advance(rows, features, present, epoch=self._epoch)
        return torch.stack(losses).sum()

    def _head_loss(
        self, modality: Modality, scores: Tensor, present: Tensor, targets: Tensor, rows: Tensor
    ) -> Tensor:
        if self.task.kind != "regression":
            logits = scores.flatten(0, -2)  # an emotion is a row of its own
            items = F.cross_entropy(logits, targets.flatten(), reduction="none")
            items = items.view(len(scores), -1).mean(dim=1)
            weight = torch.full_like(items, self.options.unimodal_weight)
        else:
            labels = targets
            if self.pseudo_labels is not None:
                labels = self.pseudo_labels.of(modality, rows).to(targets)
            items = (scores - labels).abs()
            weight = (labels - targets).abs().tanh()
        return (items * weight * present).mean()

    def training_state(self) -> dict[str, Any]:
        """Labels and features of every training clip."""
        return {} if self.pseudo_labels is None else self.pseudo_labels.state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`training_state` returned."""
        if self.pseudo_labels is not None:
            self.pseudo_labels.load(state)

    def _read(self, modality: Modality, steps: Tensor, mask: Tensor) -> Tensor:
        last: Tensor = self.readings[modality](steps, mask)[0]
        return self.narrow[modality](last) if modality in self.narrow else last


class PseudoLabels:
    """A label per clip and modality, moved batch by batch.

    Features and labels are kept by the row of their clip in the training split. The centres
    of positive and of negative clips are those after the batch before.

    Args:
        targets: Scores of the whole training split, ``[clips]``; NaN where unknown.
        modalities: Those with a head of their own.
        low: Lowest score.
        high: Highest score.

    Source:
        FIELD 5.8, the generator of unimodal labels.
    """

    def __init__(
        self, targets: Tensor, modalities: tuple[Modality, ...], *, low: float, high: float
    ) -> None:
        self.targets = targets.detach().float().cpu()
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        self.modalities = modalities
        self.labels = {m: self.targets.clone() for m in modalities}
        self.features: dict[str, Tensor] = {}
        self.seen = {
            name: torch.zeros(len(targets), dtype=torch.bool) for name in (*modalities, "fusion")
        }

    def of(self, modality: Modality, rows: Tensor) -> Tensor:
        """Labels of these clips, ``[b]``."""
        return self.labels[modality][rows.cpu()]

    def advance(
        self,
        rows: Tensor,
        features: Mapping[str, Tensor],
        present: Mapping[Modality, Tensor],
        *,
        epoch: int,
    ) -> None:
        """Move the labels of a batch, from the second epoch on, and keep its features.

        Args:
            rows: Of the clips in the training split, ``[b]``.
            features: Of each modality and of ``fusion``, ``[b, k]``.
            present: Which clips have the modality, bool ``[b]``.
            epoch: Counted from 1.
        """
        rows = rows.cpu()
        features = {name: x.cpu() for name, x in features.items()}
        present = {m: each.cpu() for m, each in present.items()}
        if epoch > 1:
            fused = self._lean("fusion", features["fusion"])
            for m in self.modalities:
                self._move(m, rows, self._lean(m, features[m]), fused, present[m], epoch)
        for name, x in features.items():
            if name not in self.features:
                self.features[name] = torch.zeros(len(self.targets), x.shape[1])
            kept = present.get(name, torch.ones(len(rows), dtype=torch.bool))  # type: ignore[call-overload]
            self.features[name][rows[kept]] = x[kept]
            self.seen[name][rows[kept]] = True

    def _move(
        self,
        modality: Modality,
        rows: Tensor,
        lean: Tensor | None,
        fused_lean: Tensor | None,
        present: Tensor,
        epoch: int,
    ) -> None:
        if lean is None or fused_lean is None:
            return
        human = self.targets[rows] - self.middle
        proposed = propose_labels(human, lean, fused_lean).clamp(-self.reach, self.reach)
        before, now = self.labels[modality][rows], proposed + self.middle
        moved = (epoch - 1) / (epoch + 1) * before + 2 / (epoch + 1) * now
        self.labels[modality][rows] = torch.where(present, moved, before)

    def _lean(self, name: str, features: Tensor) -> Tensor | None:
        """How much nearer to the positive centre than to the negative one, ``[b]``."""
        labels = self.targets if name == "fusion" else self.labels[name]  # type: ignore[index]
        above = self.seen[name] & (labels > self.middle)
        below = self.seen[name] & (labels < self.middle)
        if not (above.any() and below.any()):
            return None
        positive, negative = (self.features[name][each].mean(dim=0) for each in (above, below))
        near, far = (features - positive).norm(dim=1), (features - negative).norm(dim=1)
        lean: Tensor = (far - near) / (near + _EPSILON)
        return lean

    def state(self) -> dict[str, Any]:
        """Everything, as tensors by name."""
        return {
            "labels": {m: x.clone() for m, x in self.labels.items()},
            "features": {name: x.clone() for name, x in self.features.items()},
            "seen": {name: x.clone() for name, x in self.seen.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.labels, self.features, self.seen = (
            {name: x.clone() for name, x in state[kind].items()}
            for kind in ("labels", "features", "seen")
        )


def propose_labels(human: Tensor, lean: Tensor, fused_lean: Tensor) -> Tensor:
    """Labels of one modality from the clips' own and how much it leans to either side.

    The mean of the clip's label times the ratio of both leans, and of the clip's label plus
    their difference.

    Args:
        human: The clips' labels, 0 in the middle, ``[b]``.
        lean: Of the modality's features towards positive, ``[b]``.
        fused_lean: Of the fused features.

    Returns:
        ``[b]``, in any range. Where the fused features lean nowhere, the difference alone.

    Example:
        >>> propose_labels(torch.tensor([2.0, 2.0]), torch.tensor([1.0]), torch.tensor([0.5, 0.0]))
        tensor([3.2500, 3.0000])
    """
    shifted = human + lean - fused_lean
    leans = fused_lean.abs() >= SMALLEST_RATIO_BASE
    ratio = lean / fused_lean.where(leans, 1.0)
    return torch.where(leans, (ratio * human + shifted) / 2, shifted)


MODEL = SelfMM
