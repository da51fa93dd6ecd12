"""MMCL: Multi-Modality Collaborative Learning, as released and as repaired.

Read it in the order of the method: project, calibrate, decouple, attend on the common
parts, act on the specific parts, fuse, predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.errors import ShapeError
from mmcl.models.attention import IntraModalAttention
from mmcl.models.calibration import Calibration
from mmcl.models.decoupling import (
    Decoupled,
    agreement,
    elementwise_decoupling,
    softmax_decoupling,
)
from mmcl.models.fusion import CalibratedHead, GatedFusion, ReleasedHead
from mmcl.models.layers import NEVER, ModalityBlock, sinusoidal_positions, weighted_mean
from mmcl.models.policy import Decision, PolicyModels
from mmcl.models.projection import Projection
from mmcl.types import MODALITIES, Modality

__all__ = ["MMCL", "Encoded", "Output", "equalise_lengths"]

SOFTMAX_TEMPERATURE = 0.1
"""Of the calibrated softmax maps, an ablation of the element-wise form (METHOD 2)."""


class Encoded(NamedTuple):
    """Everything that does not depend on actions.

    Attributes:
        parts: Common and specific parts and commonality.
        unit: Steps of length one in the space cosines are taken in, ``[m, b, n, d]``.
        enhanced: Pooled common part after attention, ``[m, b, d]``.
        step_mask: Real steps, bool ``[m, b, n]``.
        present: Modalities that count, ``[m, b]``, 0 or 1.
    """

    parts: Decoupled
    unit: Tensor
    enhanced: Tensor
    step_mask: Tensor
    present: Tensor


class Output(NamedTuple):
    """What the network returns.

    Attributes:
        scores: ``[b]`` for regression, logits ``[b, c]`` for classes, ``[b, e, 2]`` for
            emotions.
        decision: What the policies did.
        complementary: Pooled specific part under the actions, ``[m, b, d]``.
        encoded: The rest.
    """

    scores: Tensor
    decision: Decision
    complementary: Tensor
    encoded: Encoded


class MMCL(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="mmcl",
    coders={
        Task: (lambda t: t.model_dump(), lambda d: Task(**d)),
        ModelSettings: (lambda s: s.model_dump(), lambda d: ModelSettings(**d)),
        PolicySettings: (lambda s: s.model_dump(), lambda d: PolicySettings(**d)),
    },
):
    """The network, usable alone: ``MMCL.from_pretrained(folder)``.

    Args:
        dims: Feature width per modality; modalities that ``model.modalities`` leaves out are
            ignored.
        task: What is predicted.
        aligned: Whether step i of every modality is the same stretch of time.
        model: What it is made of.
        policy: Of which kind the policies are and how often they refine.

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
        super().__init__()
        # Plain dictionaries come from config.json, through from_pretrained.
        self.settings = settings = ModelSettings.model_validate(model or {})
        self.policy_settings = policy = PolicySettings.model_validate(policy or {})
        self.task, self.aligned = Task.model_validate(task), aligned
        used = [m for m in MODALITIES if m in dims and m in settings.modalities]
        self.modalities: tuple[Modality, ...] = tuple(used)
        if not used:
            raise ShapeError(
                f"none of the modalities {list(settings.modalities)} is in {list(dims)}"
            )
        self.released = settings.variant == "released"
        count, width = len(used), settings.width
        self.inner_width = settings.inner_width or 2 * width
        self.projection = Projection(
            {m: dims[m] for m in used},
            width,
            standardise=settings.standardise,
            input_dropout=settings.input_dropout,
        )
        self.calibration = Calibration(count, width) if settings.calibrate else None
        self.elementwise = settings.decoupling == "elementwise" and not self.released
        if self.elementwise:
            self.threshold = nn.Parameter(torch.tensor(settings.threshold))
            self.log_temperature = nn.Parameter(torch.tensor(settings.temperature).log())
        self.attention = (
            IntraModalAttention(count, width, settings.heads) if settings.attention else None
        )
        self.policy = PolicyModels(
            count, width, refinement_steps=policy.refinement_steps, hard=policy.kind == "rloo"
        )
        self.block = ModalityBlock(count, width, settings.heads, self.inner_width, settings.dropout)
        self.fusion = GatedFusion(count, width)
        head: type[nn.Module] = ReleasedHead if self.released else CalibratedHead
        self.head = head(width, self.task.output_dim, settings.head_dropout)
        self.register_buffer("seen", torch.ones(count, dtype=torch.bool))
        self.seen: Tensor

    def forward(
        self,
        features: Mapping[Modality, Tensor],
        masks: Mapping[Modality, Tensor] | None = None,
        *,
        sample: bool = False,
        carried: Tensor | None = None,
    ) -> Output:
        """Predict.

        Args:
            features: Per modality float ``[b, n_m, d_m]``. A modality may be left out.
            masks: Per modality bool ``[b, n_m]``, True = a real step; all real by default.
            sample: Draw hard actions at random, as training does.
            carried: Actions of the batch before, ``[m, b, n]``, which the released training
                applies to the specific parts first (fault F11).

        Returns:
            Scores and how they came about.

        Raises:
            ShapeError: If shapes do not fit, or ``released`` is given an aligned corpus
                whose modalities differ in length.
        """
        encoded = self.encode(features, masks)
        specific = encoded.parts.specific
        if carried is not None:
            specific = carried.unsqueeze(-1) * specific
            encoded = encoded._replace(parts=encoded.parts._replace(specific=specific))
        decision = self.decide(encoded, sample=sample)
        return self.conclude(encoded, decision)

    def encode(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None = None
    ) -> Encoded:
        """Project, calibrate, decouple and attend: all that comes before the actions."""
        complete, complete_masks = self._complete(features, masks)
        if self.released and not self.aligned:
            complete, complete_masks = equalise_lengths(
                complete, complete_masks, self.settings.steps
            )
        elif self.released:
            # One length for all: an absent modality is zero steps, left out or masked alike.
            longest = max(x.shape[1] for x in complete.values())
            complete = {m: F.pad(x, (0, 0, 0, longest - x.shape[1])) for m, x in complete.items()}
        z = self.projection(complete)
        step_mask = self._stack_masks(complete_masks, z)
        compared = z if self.calibration is None else self.calibration(z, step_mask)
        unit = F.normalize(compared, dim=-1)
        parts = self._decouple(z, unit, step_mask)
        weight = parts.commonality if self.elementwise else step_mask.to(z.dtype)
        enhanced = weighted_mean(self._attend(parts.common, weight), weight)
        present = step_mask.any(dim=-1).to(z.dtype)
        return Encoded(parts, unit, enhanced, step_mask, present)

    def decide(self, encoded: Encoded, *, sample: bool = False) -> Decision:
        """Let the policies act on the specific parts."""
        kind = self.policy_settings.kind
        if kind in ("ones", "random"):
            keep = encoded.step_mask.to(encoded.enhanced.dtype)
            if kind == "random":
                keep = keep * torch.bernoulli(torch.full_like(keep, 0.5))
            none = keep.new_zeros(keep.shape[:2])
            return Decision(keep, keep, none, ())
        decision: Decision = self.policy(encoded.parts.specific, encoded.step_mask, sample=sample)
        return decision

    def conclude(self, encoded: Encoded, decision: Decision) -> Output:
        """Apply the actions, fuse and predict."""
        complementary = self.complement(encoded, decision.actions)
        hidden = self.fusion(encoded.enhanced, complementary, encoded.present)
        return Output(self._shape_scores(self.head(hidden)), decision, complementary, encoded)

    def complement(self, encoded: Encoded, actions: Tensor) -> Tensor:
        """Pool the specific part under the actions, ``U(S, a) = a * S``: ``[m, b, d]``.

        In ``calibrated`` an action is also the weight with which a step is attended to and
        pooled, so that a step with action 0 cannot matter to any other.
        """
        kept = actions.unsqueeze(-1) * encoded.parts.specific
        weight = actions if not self.released else encoded.step_mask.to(kept.dtype)
        steps = self.block(self._with_positions(kept), _key_bias(weight))
        return weighted_mean(steps, weight)

    def unimodal_scores(self, output: Output) -> Tensor:
        """Scores each modality would give alone, ``[m, b, ...]``: for separate rewards."""
        gated = self.fusion.gated(output.encoded.enhanced, output.complementary)
        return torch.stack([self._shape_scores(self.head(hidden)) for hidden in gated])

    def fit_standardisation(self, steps: Mapping[Modality, Tensor]) -> None:
        """Learn centre and scale of the features, and which modalities training has at all.

        Args:
            steps: Real steps of the training split, per modality ``[k, d_m]``; none of a
                modality that training never sees, which is then ignored for good.
        """
        for at, modality in enumerate(self.modalities):
            self.seen[at] = len(steps[modality]) > 0
            if modality in self.projection.standardisers:
                standardiser: Any = self.projection.standardisers[modality]
                standardiser.fit(steps[modality])

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **given: Any
    ) -> MMCL:
        """Load from a folder or a hub id: safetensors only, every weight, without a word.

        The library would leave missing weights as they are, fall back to a pickle, and print
        to stdout, where a command's result goes.
        """
        hub = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        options = {name: given.pop(name, None) for name in hub}
        file = Path(model_id) / SAFETENSORS_SINGLE_FILE
        if not Path(model_id).is_dir():
            file = Path(hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **options))
        model = cls(**given)
        model.load_state_dict(load_file(file, device=map_location), strict=strict)
        return model.eval()

    @property
    def never_seen(self) -> tuple[Modality, ...]:
        """Modalities the training split had no step of; prediction ignores them."""
        return tuple(m for m, seen in zip(self.modalities, self.seen, strict=True) if not seen)

    def _complete(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None
    ) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
        """Put an empty step where a modality is left out or was never seen in training."""
        given = next((features[m] for m in self.modalities if m in features), None)
        if given is None:
            raise ShapeError(f"features must hold one of {list(self.modalities)}, got none of them")
        complete: dict[Modality, Tensor] = {}
        complete_masks: dict[Modality, Tensor] = {}
        for at, modality in enumerate(self.modalities):
            linear: Any = self.projection.linear[modality]
            x = features.get(modality)
            if x is None:
                x = given.new_zeros(given.shape[0], 1, linear.in_features)
                mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            elif masks is None:
                mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            elif modality in masks:
                mask = masks[modality]
            else:
                raise ShapeError(f"masks must hold {modality}, as features do; got {list(masks)}")
            if x.ndim != 3 or mask.shape != x.shape[:2] or len(x) != len(given):
                raise ShapeError(
                    f"{modality} must be [clips, steps, features] with a mask [clips, steps] and "
                    f"{len(given)} clips, got {list(x.shape)} and {list(mask.shape)}"
                )
            complete_masks[modality] = mask & self.seen[at]
            complete[modality] = x.masked_fill(~complete_masks[modality].unsqueeze(-1), 0.0)
        return complete, complete_masks

    def _stack_masks(self, masks: Mapping[Modality, Tensor], z: Tensor) -> Tensor:
        longest = z.shape[2]
        lengths = {m: mask.shape[1] for m, mask in masks.items()}
        stacked = torch.stack([F.pad(masks[m], (0, longest - lengths[m])) for m in self.modalities])
        if not self.released:
            return stacked
        # The released code knows one length: a step is real if it is in any modality.
        counts = stacked.sum(dim=-1)  # [m, b]
        unequal = ((counts > 0) & (counts < counts.amax(dim=0))).any(dim=0)  # [b]
        if unequal.any():
            clip = int(unequal.nonzero()[0])
            found = dict(zip(self.modalities, counts[:, clip].tolist(), strict=True))
            raise ShapeError(
                "released takes an aligned corpus with equal lengths in every modality, got "
                f"{found} steps in clip {clip}\n"
                "  Say that it is not aligned: MMCL(..., aligned=False)"
            )
        return stacked.any(dim=0, keepdim=True).expand_as(stacked)

    def _decouple(self, z: Tensor, unit: Tensor, step_mask: Tensor) -> Decoupled:
        settings = self.settings
        if self.released:
            return softmax_decoupling(z, unit, step_mask[0])
        if settings.decoupling == "softmax":
            # The maps know one length: where only another modality has a step, this one is 0.
            real = step_mask.unsqueeze(-1).to(z.dtype)
            parts = softmax_decoupling(
                z * real,
                unit * real,
                step_mask.any(dim=0),
                temperature=SOFTMAX_TEMPERATURE,
                residual=True,
            )
            return parts._replace(commonality=parts.commonality * step_mask)
        if not self.elementwise:
            real = step_mask.to(z.dtype)
            z = z * real.unsqueeze(-1)
            nothing = torch.zeros_like(z)
            common = nothing if settings.decoupling == "specific_only" else z
            specific = nothing if settings.decoupling == "common_only" else z
            return Decoupled(common, specific, real)
        agreed = agreement(
            unit,
            step_mask,
            three_way=settings.agreement == "three_way"
            or (settings.agreement == "auto" and not self.aligned),
            confirm=settings.confirm,
        )
        return elementwise_decoupling(
            z, agreed, step_mask, self.threshold, self.log_temperature.exp()
        )

    def _attend(self, common: Tensor, weight: Tensor) -> Tensor:
        if self.attention is None:
            return common
        enhanced: Tensor = self.attention(self._with_positions(common), _key_bias(weight))
        return enhanced

    def _with_positions(self, steps: Tensor) -> Tensor:
        if not self.settings.positions:
            return steps
        return steps + sinusoidal_positions(steps.shape[-2], steps.shape[-1], steps.device)

    def _shape_scores(self, raw: Tensor) -> Tensor:
        if self.task.kind == "regression":
            return raw.squeeze(-1)
        if self.task.kind == "classes":
            return raw
        return raw.view(*raw.shape[:-1], len(self.task.names), 2)


def _key_bias(weight: Tensor) -> Tensor:
    """Attention bias that lets a key count by its weight; none at all for weight 0."""
    counts = weight > 0
    return torch.where(counts, weight.where(counts, 1.0).log(), NEVER)


def equalise_lengths(
    features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor], num_steps: int
) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    """Bring every modality to one length, for a model that knows no other case.

    A longer sequence is cut into equal segments whose steps are averaged, a shorter one
    repeats its steps; a modality that is absent is zero.

    Args:
        features: Per modality ``[b, n_m, d_m]``.
        masks: Per modality bool ``[b, n_m]``, the real steps first.
        num_steps: Length n wanted.

    Returns:
        Features ``[b, n, d_m]`` and masks ``[b, n]``, all real.

    Source:
        Ours: the released code cannot take unequal lengths (fault F10).
    """
    equal: dict[Modality, Tensor] = {}
    every: dict[Modality, Tensor] = {}
    for modality, x in features.items():
        length = masks[modality].sum(dim=1, keepdim=True)  # [b, 1]
        at = torch.arange(num_steps, device=x.device)
        start = at * length // num_steps  # [b, n]
        end = torch.maximum((at + 1) * length // num_steps, start + 1).clamp(max=x.shape[1])
        total = F.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))  # [b, n_m + 1, d_m]
        width = (-1, -1, x.shape[-1])
        segment = total.gather(1, end.unsqueeze(-1).expand(width)) - total.gather(
            1, start.unsqueeze(-1).expand(width)
        )
        equal[modality] = (segment / (end - start).unsqueeze(-1)).to(x.dtype)
        every[modality] = torch.ones_like(start, dtype=torch.bool)
    return equal, every
