"""MMCL: Multi-Modality Collaborative Learning, as released and as repaired.

It reads in the order of the method: project, calibrate, decouple, attend within the common
parts, act on the specific parts, fuse, predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.errors import ShapeError
from mmcl.models.attention import IntraModalAttention
from mmcl.models.calibration import Calibration
from mmcl.models.decoupling import Decoupled, agreement, elementwise_decoupling, softmax_decoupling
from mmcl.models.fusion import CalibratedHead, GatedFusion, ReleasedHead
from mmcl.models.layers import (
    NEVER,
    ModalityBlock,
    equalise_lengths,
    sinusoidal_positions,
    traced,
    weighted_mean,
)
from mmcl.models.network import Network
from mmcl.models.policy import Acts, Decision, PolicyModels, gather_kept
from mmcl.models.projection import Projection, Standardiser
from mmcl.types import Modality

__all__ = ["MMCL", "Encoded", "Output"]

SOFTMAX_TEMPERATURE = 0.1
"""Temperature of the softmax maps in ``calibrated``, an ablation of the element-wise form."""


class Encoded(NamedTuple):
    """Result of all stages before the actions.

    Attributes:
        parts: Common and specific parts and commonality.
        unit: Steps scaled to an L2 norm of one, for the cosines, ``[m, b, n, d]``.
        enhanced: Pooled common part after attention, ``[m, b, d]``.
        step_mask: Real steps, bool ``[m, b, n]``.
        present: 1 where a clip has any step of a modality, otherwise 0, ``[m, b]``.
    """

    parts: Decoupled
    unit: Tensor
    enhanced: Tensor
    step_mask: Tensor
    present: Tensor


class Output(NamedTuple):
    """Scores of the network, and the steps that led to them.

    Attributes:
        scores: ``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for
            emotions.
        hidden: Fused representation, the input of the head, ``[b, 2d]``.
        decision: Actions of the policies.
        complementary: Specific part times the actions, pooled over time, ``[m, b, d]``.
        encoded: Result of :meth:`MMCL.encode`.
    """

    scores: Tensor
    hidden: Tensor
    decision: Decision
    complementary: Tensor
    encoded: Encoded


class MMCL(Network):
    """The network, usable alone: ``MMCL.from_pretrained(folder)``.

    The arguments are those of every :class:`~mmcl.models.network.Network`.

    Example:
        >>> import torch
        >>> from mmcl.corpus.schema import Task
        >>> model = MMCL({"text": 8, "audio": 4}, Task(kind="regression", low=-3, high=3))
        >>> features = {"text": torch.zeros(2, 5, 8), "audio": torch.zeros(2, 7, 4)}
        >>> model.eval()(features).scores.shape
        torch.Size([2])
    """

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
        settings, policy = self.settings, self.policy_settings
        self.released = settings.name == "released"
        count, width = len(self.modalities), settings.width
        self.inner_width = settings.inner_width or 2 * width
        self.projection = Projection(
            self.dims,
            width,
            standardise=settings.standardise,
            input_dropout=settings.input_dropout,
        )
        # Ablations leave out calibration, element-wise decoupling or attention.
        self.calibration = Calibration(count, width) if settings.calibrate else None
        self.elementwise = settings.decoupling == "elementwise" and not self.released
        if self.elementwise:
            self.threshold = nn.Parameter(torch.tensor(settings.threshold))
            self.log_temperature = nn.Parameter(torch.tensor(settings.temperature).log())
        self.attention = (
            IntraModalAttention(count, width, settings.heads) if settings.attention else None
        )
        acts: Mapping[str, Acts] = {"gate": "gated", "rloo": "by draws"}
        self.policy = PolicyModels(
            count,
            width,
            refinement_steps=policy.refinement_steps,
            acts=acts.get(policy.kind, "softly"),
            keep=policy.keep,
        )
        # Dropped steps need no computing.
        self.drops_steps = policy.kind in ("gate", "rloo", "ones", "random")
        self.block = ModalityBlock(count, width, settings.heads, self.inner_width, settings.dropout)
        self.fusion = GatedFusion(count, width)
        head: type[nn.Module] = ReleasedHead if self.released else CalibratedHead
        self.head = head(width, self.task.output_dim, settings.head_dropout)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the threshold of the policies in an epoch of training, counted from 0."""
        self.policy.start_epoch(epoch, epochs)

    def forward(
        self,
        features: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor] | None = None,
        *,
        sample: bool = False,
        carried: Tensor | None = None,
    ) -> Output:
        """Predict the scores of some clips.

        Args:
            features: Per modality float ``[b, n_m, d_m]``. A modality may be left out.
            masks: Per modality bool ``[b, n_m]``, True = a real step; all real by default.
            sample: Draw hard actions at random, as training does.
            carried: Actions of the batch before, ``[m, b, n]``. The released training applies
                them to the specific parts first (fault F11).

        Raises:
            ShapeError: If shapes do not fit, or if ``released`` is built for an aligned corpus
                and the modalities of a clip differ in length.
        """
        encoded = self.encode(features, masks, carried=carried)
        decision = self.decide(encoded, sample=sample)
        return self.conclude(encoded, decision)

    def encode(
        self,
        features: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor] | None = None,
        *,
        carried: Tensor | None = None,
    ) -> Encoded:
        """Project, calibrate, decouple and attend: all stages before the actions.

        The arguments are those of :meth:`forward`.
        """
        features, masks = self.complete(features, masks)
        features, masks = self._with_one_length(features, masks)
        # Z_m = X_m W_m + b_m, in one space per modality.
        z = self.projection(features)  # [m, b, n, d]
        step_mask = self._stack_masks(masks, z)  # [m, b, n]
        # Cosines are taken in the calibrated spaces, where the modalities are comparable (F4).
        if self.calibration is None:
            unit = F.normalize(z, dim=-1)
        else:
            unit = self.calibration.unit(z, step_mask)
        parts = self._decouple(z, unit, step_mask)
        # In the pooled common part a step is weighted by its commonality.
        weight = parts.commonality if self.elementwise else step_mask.to(z.dtype)
        enhanced = self._enhance(parts.common, weight)  # [m, b, d]
        # Fault F11: training acts on a state that the actions of another batch have changed.
        if carried is not None:
            parts = parts._replace(specific=carried.unsqueeze(-1) * parts.specific)
        present = step_mask.any(dim=-1).to(z.dtype)
        return Encoded(parts, unit, enhanced, step_mask, present)

    def decide(self, encoded: Encoded, *, sample: bool = False) -> Decision:
        """Let the policies act on the specific parts.

        Args:
            encoded: Result of :meth:`encode`.
            sample: Draw hard actions at random, as training does.
        """
        kind = self.policy_settings.kind
        if kind not in ("ones", "random"):
            decision: Decision = self.policy(
                encoded.parts.specific, encoded.step_mask, sample=sample
            )
            return decision
        # Ablations without a learned policy: every step is kept, or each with probability .5.
        kept = encoded.step_mask.to(encoded.enhanced.dtype)
        if kind == "random":
            kept = kept * torch.bernoulli(torch.full_like(kept, 0.5))
        return Decision(kept, kept, kept.new_zeros(kept.shape[:2]), ())

    def conclude(self, encoded: Encoded, decision: Decision) -> Output:
        """Apply the actions, fuse and predict."""
        complementary = self.complement(encoded, decision.actions)
        hidden = self.fusion(encoded.enhanced, complementary, encoded.present)
        scores = self.shape_scores(self.head(hidden))
        return Output(scores, hidden, decision, complementary, encoded)

    def complement(self, encoded: Encoded, actions: Tensor) -> Tensor:
        """Apply the actions to the specific part, ``U(S, a) = a * S``, and pool it: ``[m, b, d]``.

        In ``calibrated`` an action is also the weight of the step in attention and pooling, so
        that a step with action 0 has no influence at all.
        """
        steps = self._add_positions(actions.unsqueeze(-1) * encoded.parts.specific)
        weight = actions if not self.released else encoded.step_mask.to(steps.dtype)
        if self.drops_steps and not self.released and not traced():
            # Dropped steps have no influence, so they are not computed.
            steps, weight = gather_kept(steps, weight)
        # e_m: transformer block, then the weighted mean over time.
        return weighted_mean(self.block(steps, _key_bias(weight)), weight)

    def unimodal_scores(self, output: Output) -> Tensor:
        """Return the scores of each modality alone, ``[m, b, ...]``, for separate rewards."""
        gated = self.fusion.gated(output.encoded.enhanced, output.complementary)
        return torch.stack([self.shape_scores(self.head(hidden)) for hidden in gated])

    @property
    def standardisers(self) -> Mapping[Modality, Standardiser]:
        """Standardisers of the features before their projection, by modality."""
        return self.projection.standardisers  # type: ignore[return-value]

    def _with_one_length(
        self, features: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
        """Bring the modalities to one length for ``released``, which requires it."""
        if not self.released:
            return features, masks
        if not self.aligned:
            return equalise_lengths(features, masks, self.settings.steps)
        # Aligned modalities have equal lengths, except for an absent one: pad it with zeros.
        longest = max(x.shape[1] for x in features.values())
        return {m: F.pad(x, (0, 0, 0, longest - x.shape[1])) for m, x in features.items()}, masks

    def _stack_masks(self, masks: Mapping[Modality, Tensor], z: Tensor) -> Tensor:
        """Stack the masks of the modalities, padded to the longest: bool ``[m, b, n]``."""
        longest = z.shape[2]
        stacked = torch.stack(
            [F.pad(masks[m], (0, longest - masks[m].shape[1])) for m in self.modalities]
        )
        if not self.released:
            return stacked
        # released has one mask for all modalities (mends fault F7, docs/method.md).
        counts = stacked.sum(dim=-1)  # [m, b]
        unequal = ((counts > 0) & (counts < counts.amax(dim=0))).any(dim=0)  # [b]
        if unequal.any():
            clip = int(unequal.nonzero()[0])
            lengths = dict(zip(self.modalities, counts[:, clip].tolist(), strict=True))
            raise ShapeError(
                "released takes an aligned corpus with equal lengths in every modality, got "
                f"{lengths} steps in clip {clip}\n"
                "  Say that it is not aligned: MMCL(..., aligned=False)"
            )
        return stacked.any(dim=0, keepdim=True).expand_as(stacked)

    def _decouple(self, z: Tensor, unit: Tensor, step_mask: Tensor) -> Decoupled:
        """Split every modality into its common and its specific part."""
        settings = self.settings
        if self.released:
            return softmax_decoupling(z, unit, step_mask[0])
        if self.elementwise:
            # kappa = sigmoid((agreement - threshold) / temperature), C = kappa Z, S = Z - C.
            three_way = settings.agreement == "three_way"
            if settings.agreement == "auto":
                three_way = not self.aligned
            agreed = agreement(unit, step_mask, three_way=three_way, confirm=settings.confirm)
            temperature = self.log_temperature.exp()
            return elementwise_decoupling(z, agreed, step_mask, self.threshold, temperature)
        # Ablations. Where a modality is shorter than another its steps are 0.
        real = step_mask.to(z.dtype)
        z = z * real.unsqueeze(-1)
        if settings.decoupling == "softmax":
            parts = softmax_decoupling(
                z,
                unit * real.unsqueeze(-1),
                step_mask.any(dim=0),
                temperature=SOFTMAX_TEMPERATURE,
                residual=True,
            )
            return parts._replace(commonality=parts.commonality * step_mask)
        nothing = torch.zeros_like(z)
        common = nothing if settings.decoupling == "specific_only" else z
        specific = nothing if settings.decoupling == "common_only" else z
        return Decoupled(common, specific, real)

    def _enhance(self, common: Tensor, weight: Tensor) -> Tensor:
        """Attend within each modality's common part and pool it, ``[m, b, d]``."""
        if self.attention is None:
            return weighted_mean(common, weight)
        steps = self._add_positions(common)
        return weighted_mean(self.attention(steps, _key_bias(weight)), weight)

    def _add_positions(self, steps: Tensor) -> Tensor:
        if not self.settings.positions:
            return steps
        return steps + sinusoidal_positions(steps.shape[-2], steps.shape[-1], steps.device)


def _key_bias(weight: Tensor) -> Tensor:
    """Return the attention bias that multiplies a key's share by its weight, 0 to 1."""
    # exp(score + log weight) = weight * exp(score); a weight of 0 becomes NEVER.
    counts = weight > 0
    return torch.where(counts, weight.where(counts, 1.0).log(), NEVER)
