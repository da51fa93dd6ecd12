"""Self-MM: each modality also predicts alone, taught by labels made up along the way."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from mmcl.models.baselines.baseline import Baseline, BaselineOptions, ByModality, RawPrediction
from mmcl.models.baselines.encoders import LastState
from mmcl.models.layers import Dropout
from mmcl.types import Modality

__all__ = ["PseudoLabels", "SelfMM", "propose_labels"]

_EPSILON = 1e-8
"""Added to a distance that may be 0: a clip that lies on a centre."""

SMALLEST_RATIO_BASE = 0.1
"""Smallest lean of the fused features by which another lean is divided. Below it the ratio is
noise, and a proposal is made of the difference alone."""


class Head(nn.Module):
    """Dropout, Linear and ReLU to the features; Linear, ReLU and Linear to the scores."""

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
    """An LSTM and a head per modality, and a head over all; the single heads teach as well.

    A modality's own label starts as the clip's. It moves by how much nearer that modality's
    features lie to the centre of positive clips than to that of negative ones, compared with the
    fused features (:class:`PseudoLabels`). A single head is taught the more, the further its label
    has departed from the clip's. Several processes keep the same labels.

    Source:
        Yu et al. 2021 (arXiv 2102.04830). Mended: centres are means of clips that were seen, not
        of zeros that stand for the others; nothing is proposed while one of the centres is of no
        clip; a ratio to nearly 0 is left out of a proposal. Decided: positive is above the middle
        of the task's range, and labels stay in that range. Text is read by an LSTM too, since BERT
        is not trained here. Classes and emotions have no negative centre: there the single heads
        are taught the clip's own label with the weight ``unimodal_weight``. A clip without a
        modality teaches its head nothing. One learning rate for all layers.
    """

    # A single head gets a gradient of 0 until its labels depart from the clips', from epoch 2 on.
    without_gradient: ClassVar[tuple[str, ...]] = ("heads.",)

    class Options(BaselineOptions):
        """Sizes, as published for MOSI; the width of text's state is ours."""

        # Width of the LSTM's state
        text_state: int = Field(128, ge=1)
        audio_state: int = Field(16, ge=1)
        vision_state: int = Field(32, ge=1)
        # Features of a head; of audio and vision also the width of their utterance vectors
        text_width: int = Field(32, ge=1)
        audio_width: int = Field(16, ge=1)
        vision_width: int = Field(32, ge=1)
        fusion_width: int = Field(128, ge=1)
        # Dropout before a head
        text_dropout: float = Field(0.1, ge=0, lt=1)
        audio_dropout: float = Field(0.1, ge=0, lt=1)
        vision_dropout: float = Field(0.0, ge=0, lt=1)
        fusion_dropout: float = Field(0.0, ge=0, lt=1)
        # Weight of the single heads' loss, for classes and emotions only
        unimodal_weight: float = Field(0.1, ge=0)

    def build(self) -> None:
        """Make the layers."""
        options, names, outputs = self.options, self.modalities, self.task.output_dim
        states = {m: getattr(options, f"{m}_state") for m in names}
        widths = {m: getattr(options, f"{m}_width") for m in names}
        dropouts = {m: getattr(options, f"{m}_dropout") for m in names}
        sizes = {m: states[m] if m == "text" else widths[m] for m in names}
        self.readings = nn.ModuleDict({m: LastState(d, states[m]) for m, d in self.dims.items()})
        self.narrow = nn.ModuleDict(
            {m: nn.Linear(states[m], sizes[m]) for m in names if m != "text"}
        )
        self.heads = nn.ModuleDict(
            {m: Head(sizes[m], widths[m], outputs, dropouts[m]) for m in names}
        )
        self.fusion = Head(
            sum(sizes.values()), options.fusion_width, outputs, options.fusion_dropout
        )
        self.pseudo_labels: PseudoLabels | None = None
        self._epoch = 1

    def predict(self, steps: ByModality, masks: ByModality) -> RawPrediction:
        """Read every modality, and predict from each and from all; see :meth:`Baseline.predict`."""
        extras: dict[str, Tensor] = {}
        vectors = []
        for m, x in steps.items():
            vector = self.readings[m](x, masks[m])[0]
            if m in self.narrow:
                vector = self.narrow[m](vector)
            present = masks[m].any(dim=1)
            vectors.append(vector * present.unsqueeze(-1))
            extras[f"{m}_features"], _, raw = self.heads[m](vectors[-1])
            extras[f"{m}_scores"], extras[f"{m}_present"] = self.shape_scores(raw), present
        extras["fusion_features"], hidden, raw = self.fusion(torch.cat(vectors, dim=-1))
        return raw, hidden, extras

    def prepare_training(self, targets: Tensor) -> None:
        """Start every modality's labels as the clips' own, in a regression."""
        self.pseudo_labels = None
        if self.task.kind == "regression":
            # Distances between labels are weights here, so they are taken on one scale.
            to_field = self.score_scale.to_field
            low, high = map(to_field, self.task.score_range or (0.0, 0.0))
            self.pseudo_labels = PseudoLabels(
                to_field(targets), self.modalities, low=low, high=high
            )

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Count epochs as the paper does, from 1."""
        self._epoch = epoch + 1

    def auxiliary_loss(self, output: Any, targets: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of the single heads; in training, their labels move on afterwards.

        Without :meth:`prepare_training`, a modality's labels are the clips' own, and a
        regression has nothing to teach.
        """
        extras, names = output.extras, self.modalities
        losses = [
            self._head_loss(m, extras[f"{m}_scores"], extras[f"{m}_present"], targets, rows)
            for m in names
        ]
        if self.training and self.pseudo_labels is not None:
            features = {k: extras[f"{k}_features"].detach().float() for k in (*names, "fusion")}
            present = {m: extras[f"{m}_present"] for m in names}
            rows, features, present = _gather_clips(rows, features, present)
            self.pseudo_labels.advance(rows, features, present, epoch=self._epoch)
        return torch.stack(losses).sum()

    def _head_loss(
        self, modality: Modality, scores: Tensor, present: Tensor, targets: Tensor, rows: Tensor
    ) -> Tensor:
        if self.task.kind != "regression":
            logits = scores.flatten(0, -2)  # an emotion is a row of its own
            losses = F.cross_entropy(logits, targets.flatten(), reduction="none")
            losses = losses.view(len(scores), -1).mean(dim=1)
            weight = torch.full_like(losses, self.options.unimodal_weight)
        else:
            scores, targets = map(self.score_scale.to_field, (scores, targets))
            labels = targets
            if self.pseudo_labels is not None:
                labels = self.pseudo_labels.of(modality, rows).to(targets)
            losses = (scores - labels).abs()
            # w_s = tanh(|y_s - y_m|)
            weight = (labels - targets).abs().tanh()
        return (losses * weight * present).mean()

    def training_state(self) -> dict[str, Any]:
        """Return labels and features of every training clip."""
        return {} if self.pseudo_labels is None else self.pseudo_labels.state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`training_state` returned."""
        if self.pseudo_labels is not None:
            self.pseudo_labels.load(state)


class PseudoLabels:
    """A label per clip and modality, moved batch by batch: the paper's label generation module.

    Features and labels are kept by the row of their clip in the training split. The centres
    of positive and of negative clips are those after the batch before. ``targets`` are the scores
    of the whole split, ``[clips]``, NaN where unknown, from ``low`` to ``high``.
    """

    def __init__(
        self, targets: Tensor, modalities: tuple[Modality, ...], *, low: float, high: float
    ) -> None:
        self.targets = targets.detach().float().cpu()
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        self.modalities = modalities
        self.labels: dict[str, Tensor] = {m: self.targets.clone() for m in modalities}
        self.features: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {
            name: torch.zeros(len(targets), dtype=torch.bool) for name in (*modalities, "fusion")
        }

    def of(self, modality: Modality, rows: Tensor) -> Tensor:
        """Return the labels of these clips, ``[b]``."""
        return self.labels[modality][rows.cpu()]

    def advance(
        self, rows: Tensor, features: dict[str, Tensor], present: ByModality, *, epoch: int
    ) -> None:
        """Move the labels of a batch, from the second epoch on, and keep its features.

        Args:
            rows: Rows of the clips in the training split, ``[b]``.
            features: Features of each modality and of ``fusion``, ``[b, k]``.
            present: Clips that have the modality, bool ``[b]``.
            epoch: Counted from 1.
        """
        rows = rows.cpu()
        features = {name: x.cpu() for name, x in features.items()}
        counts: dict[str, Tensor] = {m: mask.cpu() for m, mask in present.items()}
        if epoch > 1:
            self._move_labels(rows, features, counts, epoch)
        for name, x in features.items():
            if name not in self.features:
                self.features[name] = torch.zeros(len(self.targets), x.shape[1])
            kept = counts.get(name, torch.ones(len(rows), dtype=torch.bool))
            self.features[name][rows[kept]] = x[kept]
            self.seen[name][rows[kept]] = True

    def _move_labels(
        self, rows: Tensor, features: dict[str, Tensor], present: dict[str, Tensor], epoch: int
    ) -> None:
        fused_lean = self._lean("fusion", features["fusion"])
        for m in self.modalities:
            lean = self._lean(m, features[m])
            if lean is None or fused_lean is None:  # no clip of one side was seen yet
                continue
            proposed = propose_labels(self.targets[rows] - self.middle, lean, fused_lean)
            now = proposed.clamp(-self.reach, self.reach) + self.middle
            # y_s <- (n - 1) / (n + 1) y_s + 2 / (n + 1) y', n the epoch
            before = self.labels[m][rows]
            moved = (epoch - 1) / (epoch + 1) * before + 2 / (epoch + 1) * now
            self.labels[m][rows] = torch.where(present[m], moved, before)

    def _lean(self, name: str, features: Tensor) -> Tensor | None:
        """Return how much nearer the positive centre is than the negative one, ``[b]``."""
        labels = self.targets if name == "fusion" else self.labels[name]
        above = self.seen[name] & (labels > self.middle)
        below = self.seen[name] & (labels < self.middle)
        if not (above.any() and below.any()):
            return None
        # alpha = (D_n - D_p) / (D_p + epsilon), D the distances from the centres
        positive, negative = (self.features[name][side].mean(dim=0) for side in (above, below))
        near, far = (features - positive).norm(dim=1), (features - negative).norm(dim=1)
        lean: Tensor = (far - near) / (near + _EPSILON)
        return lean

    def state(self) -> dict[str, Any]:
        """Return everything, as tensors by name."""
        return copy.deepcopy({"labels": self.labels, "features": self.features, "seen": self.seen})

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        kinds = ("labels", "features", "seen")
        self.labels, self.features, self.seen = (copy.deepcopy(state[kind]) for kind in kinds)


def propose_labels(human: Tensor, lean: Tensor, fused_lean: Tensor) -> Tensor:
    """Propose labels of one modality from the clips' own and how much it leans to either side.

    A proposal is the mean of the clip's label times the ratio of both leans, and of the clip's
    label plus their difference. Where the fused features lean nowhere, it is the latter alone.

    Shapes: labels with 0 in the middle, and leans towards positive, ``[b]`` each; ``[b]`` out.

    Example:
        >>> propose_labels(torch.tensor([2.0, 2.0]), torch.tensor([1.0]), torch.tensor([0.5, 0.0]))
        tensor([3.2500, 3.0000])
    """
    shifted = human + lean - fused_lean
    leans = fused_lean.abs() >= SMALLEST_RATIO_BASE
    ratio = lean / fused_lean.where(leans, 1.0)
    return torch.where(leans, (ratio * human + shifted) / 2, shifted)


def _gather_clips(
    rows: Tensor, features: dict[str, Tensor], present: ByModality
) -> tuple[Tensor, dict[str, Tensor], ByModality]:
    """Join the clips of all processes, so that each keeps the labels of every clip."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows, features, present
    own = (rows.cpu(), *({k: x.cpu() for k, x in d.items()} for d in (features, present)))
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, own)
    all_rows, *tensors = zip(*shares, strict=True)
    joined = [{k: torch.cat([share[k] for share in dicts]) for k in dicts[0]} for dicts in tensors]
    return torch.cat(all_rows), joined[0], joined[1]
