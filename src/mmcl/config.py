"""Settings: one frozen, validated tree, from presets, a TOML file and ``--set a.b=c``.

Later sources win: the defaults below (those of ``calibrated``), those of ``released``
(``presets/_released.toml``), the named preset or file, then each ``--set``. A preset may hold
tables that count for some models only: ``[calibrated.learning]``, ``[released.learning]``, and
``[baselines.learning]`` for all others. Every fault of all sources is reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from mmcl.errors import ConfigError, did_you_mean
from mmcl.types import BASELINES, MODALITIES, VARIANTS, Modality

__all__ = [
    "Config",
    "EvaluationSettings",
    "LearningSettings",
    "ModelSettings",
    "PolicySettings",
    "RuntimeSettings",
    "model_names",
    "preset_names",
    "resolve_config",
]


ENTRY_POINTS = "mmcl.models"
"""Group of entry points under which other packages register a model by name."""

_TABLES = (*VARIANTS, "baselines")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelSettings(_Settings):
    """What the network is made of.

    A baseline takes ``modalities``, ``standardise`` and its own ``options``; everything else
    is of ``calibrated`` and ``released``.

    Attributes:
        name: ``calibrated`` (MMCL, repaired), ``released`` (the equations of the authors' code),
            a baseline, or a model that another package registers.
        options: Settings of a baseline's own, by name.
        modalities: Those to use, out of the corpus's own.
        width: Width d of every modality's space.
        heads: Attention heads; must divide the width.
        inner_width: Inner width of the transformer blocks; None is twice the width.
        dropout: In the transformer blocks.
        head_dropout: In the head.
        input_dropout: Of whole input features, before the projection.
        positions: Add sinusoidal positions after the decoupling (fault F8).
        standardise: Standardise features by the training split (fault F4).
        calibrate: Centre and scale each projected space before cosines (fault F4).
        decoupling: ``elementwise``, ``softmax`` (S = Z - C), or an ablation: ``common_only``,
            ``specific_only``, ``both`` (both parts are Z).
        agreement: ``same_index``, ``three_way``, or ``auto``: the first where the corpus is
            aligned, the second where it is not.
        confirm: A step must agree with the least (``min``) or the ``mean`` of the others.
        threshold: Agreement at which commonality is one half, at the start.
        temperature: Width of the passage from specific to common, at the start.
        attention: Attend within each modality's common part.
        steps: ``released`` only: the equal length every modality is brought to where the
            corpus is not aligned.
    """

    name: str = "calibrated"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    modalities: tuple[Modality, ...] = MODALITIES
    width: int = Field(64, ge=4)
    heads: int = Field(4, ge=1)
    inner_width: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    head_dropout: float = Field(0.1, ge=0, lt=1)
    input_dropout: float = Field(0.0, ge=0, lt=1)
    positions: bool = False
    standardise: bool = True
    calibrate: bool = True
    decoupling: Literal["elementwise", "softmax", "common_only", "specific_only", "both"] = (
        "elementwise"
    )
    agreement: Literal["auto", "same_index", "three_way"] = "auto"
    confirm: Literal["min", "mean"] = "min"
    threshold: float = Field(0.6, gt=-1, lt=1)
    temperature: float = Field(0.1, gt=0)
    attention: bool = True
    steps: int = Field(20, ge=1)

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in model_names():
            raise ValueError(f'unknown model "{name}"{did_you_mean(name, model_names())}')
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}, got {self.heads}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities must name each modality at most once, and at least one")
        return self


class PolicySettings(_Settings):
    """How steps of the specific parts are kept, and what the policies are paid.

    Attributes:
        kind: ``task`` (a soft gate taught by the task loss alone), ``rloo`` (hard keep or
            drop, paid the joint reward against leave-one-out samples), ``ddpg`` (a soft gate
            paid through a joint critic), or an ablation: ``ones``, ``random``.
        refinement_steps: Decisions K per clip; each acts on what the last one left.
        samples: Action samples per clip, ``rloo`` only.
        reward: ``joint``, one scalar for all policies; ``separate``, each policy is paid for
            the prediction of its own modality; ``as-released``, the misdirected gather of
            fault F2 (``emotions`` only).
        reward_scale: ``probability`` in 0..1, or ``log`` (of it; for scores, minus the error).
        sparsity: Price of keeping everything; more keeps fewer steps.
        weight: Weight of the policy and critic losses.
        critic: Which transitions the critic learns: ``clip``, one clip one episode; or
            ``carried``, the released link from a batch to the next (fault F5).
        discount: Discount of the critic's bootstrap.
        target_rate: Rate at which target networks follow.
        replay_capacity: Transitions kept.
        critic_learning_rate: Step size of the critic.
    """

    kind: Literal["task", "rloo", "ddpg", "ones", "random"] = "rloo"
    refinement_steps: int = Field(1, ge=1, le=8)
    samples: int = Field(2, ge=2, le=64)
    reward: Literal["joint", "separate", "as-released"] = "joint"
    reward_scale: Literal["probability", "log"] = "log"
    sparsity: float = Field(0.1, ge=0)
    weight: float = Field(1.0, ge=0)
    critic: Literal["clip", "carried"] = "clip"
    discount: float = Field(0.5, ge=0, le=1)
    target_rate: float = Field(0.01, gt=0, le=1)
    replay_capacity: int = Field(1000, ge=1)
    critic_learning_rate: float = Field(3e-4, gt=0)


class LearningSettings(_Settings):
    """How the network is trained.

    Attributes:
        epochs: Passes over the training split, at most.
        patience: Stop after so many epochs without a better validation loss.
        batch_size: Clips per step.
        drop_last: Leave out the last, smaller batch of an epoch.
        learning_rate: Step size of AdamW at the start.
        weight_decay: Of AdamW; 0 makes it Adam.
        schedule: ``constant``, ``cosine`` (over ``epochs``) or ``plateau``.
        plateau_patience: Epochs without improvement before the step size shrinks.
        plateau_factor: What it is multiplied by.
        clip_norm: Greatest gradient norm; 0 does not clip.
        task_weight: Weight of the task loss.
        alignment_weight: Weight of the alignment loss between modalities; 0 leaves it out.
        alignment_group: Clips compared with each other in that loss: more, more negatives
            and more time.
        modality_dropout: Chance that a clip loses one or two of its modalities in training.
    """

    epochs: int = Field(30, ge=1)
    patience: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    drop_last: bool = False
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    plateau_patience: int = Field(30, ge=1)
    plateau_factor: float = Field(0.95, gt=0, lt=1)
    clip_norm: float = Field(1.0, ge=0)
    task_weight: float = Field(1.0, ge=0)
    alignment_weight: float = Field(0.1, ge=0)
    alignment_group: int = Field(8, ge=2)
    modality_dropout: float = Field(0.0, ge=0, lt=1)


class EvaluationSettings(_Settings):
    """How predictions are judged.

    Attributes:
        preset: Definition of the regression metrics; see ``mmcl.metrics``.
        batch_size: Clips per prediction step; changes nothing but the speed.
    """

    preset: Literal["mmsa", "sims", "mult", "magbert"] = "mmsa"
    batch_size: int = Field(256, ge=1)


class RuntimeSettings(_Settings):
    """Where and how it runs.

    Attributes:
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        devices: Processes of this machine that train one network together, one per core or GPU,
            each on its share of every batch.
        strategy: How Lightning Fabric lets them work together: ``auto`` (DistributedDataParallel)
            or any other name that Fabric knows.
        precision: ``32-true`` or ``bf16-mixed``.
        threads: CPU threads of a process; None leaves torch's own choice, or shares the cores
            among the processes.
        tensorboard: Write TensorBoard files too (needs ``mmcl[track]``).
    """

    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    devices: int = Field(1, ge=1)
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = Field(None, ge=1)
    tensorboard: bool = False


class Config(_Settings):
    """Every setting of a run."""

    model: ModelSettings = Field(default_factory=ModelSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    learning: LearningSettings = Field(default_factory=LearningSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    runtime: RuntimeSettings = Field(default_factory=RuntimeSettings)


def model_names() -> list[str]:
    """Names of all models: both variants of MMCL, the baselines, and those of other packages."""
    others = sorted(entry.name for entry in metadata.entry_points(group=ENTRY_POINTS))
    return list(dict.fromkeys([*VARIANTS, *BASELINES, *others]))


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("mmcl") / "presets"
    files = [file.name for file in folder.iterdir() if file.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml") for name in files if not name.startswith("_"))


def resolve_config(
    *,
    model: str | None = None,
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """Build a configuration from presets, a file and single settings.

    Args:
        model: Name of the model asked for; wins over the file's.
        source: Name of a preset or path of a TOML file.
        overrides: ``a.b=c`` settings; values are read as TOML, and as text where they
            are not TOML.

    Returns:
        The whole configuration, every default filled in.

    Raises:
        ConfigError: With every unknown key (nearest name offered) and every value out of
            range, sorted by key.

    Example:
        >>> resolve_config(overrides=["model.width=32"]).model.width
        32
    """
    label, tree = _read_source(source)
    asked: dict[str, Any] = {}
    for override in overrides:
        asked = _merge(asked, _parse_override(override))
    special = {name: tree.pop(name) for name in _TABLES if isinstance(tree.get(name), dict)}
    chosen = model or _model_of(asked) or _model_of(tree) or "calibrated"
    base = _load_preset("_released") if chosen == "released" else {}
    own = special.get(chosen if chosen in VARIANTS else "baselines", {})
    merged = base
    for layer in (tree, own, asked):
        merged = _merge(merged, layer)
    if isinstance(merged.setdefault("model", {}), dict):
        merged = _merge(merged, {"model": {"name": chosen}})
    try:
        return Config.model_validate(merged)
    except ValidationError as faults:
        raise ConfigError(_explain(faults, label)) from None


def _model_of(tree: Mapping[str, Any]) -> str | None:
    model = tree.get("model", {})
    name = model.get("name") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def _load_preset(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("mmcl") / "presets" / f"{name}.toml").read_text())


def _read_source(source: str | Path | None) -> tuple[str, dict[str, Any]]:
    if source is None:
        return "settings", {}
    if str(source) in preset_names():
        return f"preset {source}", _load_preset(str(source))
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"{source}: neither a file nor a preset{did_you_mean(str(source), preset_names())}\n"
            f"  Presets: {', '.join(preset_names())}"
        )
    try:
        return str(path), tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not valid TOML: {fault}") from None


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f'--set takes section.key=value, got "{override}"')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    tree: dict[str, Any] = value
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return tree


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = _merge(under, value)
        else:
            merged[key] = value
    return merged


def _explain(faults: ValidationError, label: str) -> str:
    lines = sorted(_explain_one(fault) for fault in faults.errors())
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n".join([f"{label} has {count}", *(f"  {line}" for line in lines)])


def _explain_one(fault: Any) -> str:
    *above, last = fault["loc"]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in fault["loc"])[1:]
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in above:
            section = section.model_fields[part].annotation
        return f"{key}: unknown key{did_you_mean(str(last), section.model_fields)}"
    if fault["type"] == "literal_error":
        expected = fault["ctx"]["expected"]
        known = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
        near = did_you_mean(str(fault["input"]), known)
        return f'{key}: must be one of {", ".join(known)}, got "{fault["input"]}"{near}'
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    what = fault["msg"].replace("Input should be", "must be")
    return f"{key}: {what}, got {fault['input']!r}"
