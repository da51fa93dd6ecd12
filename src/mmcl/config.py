"""Settings: one frozen, validated tree, from presets, a TOML file and ``--set a.b=c``.

Later sources win: the defaults below (of ``calibrated``), the defaults of ``released``
(``presets/_released.toml``), the named preset or file, then each ``--set``. A preset may have
tables for some models only: ``[calibrated.learning]``, ``[released.learning]``, and
``[baselines.learning]`` for all others; ``[encoder.learning]`` counts where ``text.encoder`` names
a language model. All faults of all sources are reported together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mmcl.errors import ConfigError, did_you_mean
from mmcl.types import BASELINES, MODALITIES, VARIANTS, Modality

__all__ = [
    "STARTER_NAME",
    "Config",
    "EvaluationSettings",
    "LearningSettings",
    "ModelSettings",
    "PolicySettings",
    "RuntimeSettings",
    "TextSettings",
    "is_model",
    "model_names",
    "preset_names",
    "resolve_config",
]


ENTRY_POINTS = "mmcl.models"
"""Group of entry points under which other packages register a model by name."""

STARTER_NAME = "starter"
"""The model that comes with the package, in place of a run folder or of a hub id."""

_TABLES = (*VARIANTS, "baselines", "encoder")
"""Tables of a preset whose settings are for some models only, or for those with
``text.encoder``."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelSettings(_Settings):
    """Settings of the network.

    A baseline reads ``modalities``, ``standardise`` and its own ``options`` only. The other
    settings are for ``calibrated`` and ``released``.

    Attributes:
        name: ``calibrated`` (MMCL, repaired), ``released`` (the equations of the authors' code),
            a baseline, or a model that another package registers.
        options: Settings of a baseline, by name.
        modalities: Modalities to use, out of those of the corpus.
        width: Width d of every modality's space.
        heads: Attention heads; must divide the width.
        inner_width: Inner width of the transformer blocks; None for twice the width.
        dropout: Dropout rate in the transformer blocks.
        head_dropout: Dropout rate in the head.
        input_dropout: Dropout rate of the input features, before the projection.
        positions: Add sinusoidal positions after the decoupling (fault F8).
        standardise: Standardise features by the training split (fault F4).
        calibrate: Centre and scale each projected space before cosines (fault F4).
        decoupling: ``elementwise``, ``softmax`` (S = Z - C), or an ablation: ``common_only``,
            ``specific_only``, ``both`` (both parts are Z).
        agreement: ``same_index``, ``three_way``, or ``auto``: the first where the corpus is
            aligned, the second where it is not.
        confirm: Agreement is the minimum (``min``) or the ``mean`` of the cosines.
        threshold: Agreement at which commonality is one half; learned from this start.
        temperature: Temperature of the sigmoid from specific to common; learned from this start.
        attention: Attend within each modality's common part.
        steps: For ``released`` on a corpus that is not aligned: the length that every modality
            is brought to.
    """

    name: str = "calibrated"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    modalities: tuple[Modality, ...] = MODALITIES
    width: int = Field(64, ge=4, le=65_536)
    heads: int = Field(4, ge=1)
    inner_width: int | None = Field(None, ge=1, le=1_000_000)
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
    steps: int = Field(20, ge=1, le=1_000_000)

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not is_model(name):
            raise ValueError(f'unknown model "{name}"{did_you_mean(name, model_names())}')
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}, got {self.heads}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities must name each modality at most once, and at least one")
        return self


class TextSettings(_Settings):
    """Settings of a language model that learns with the network and reads the words itself.

    Attributes:
        encoder: Hub id or folder of a BERT-like encoder, or ``packaged`` for the one of
            ``media-offline``, or ``starter`` for that of the starter model. None: the text
            features of the corpus are used as they are.
        learning_rate: Learning rate of the encoder at the start; the rest of the network has
            ``learning.learning_rate``.
        warmup: Share of all steps over which the encoder's rate rises from 0, 0..1.
        frozen_layers: Layers, from the first, that do not learn; the embeddings neither then.
        adapter: ``lora`` learns matrices of low rank in place of the encoder (needs
            ``mmcl[text]``).
        rank: Rank of these matrices.
        max_tokens: Most word pieces of a clip, with the two that mark beginning and end; a
            longer text is cut, and a note says so.
        pool: Steps of the text: ``words`` (the mean of a word's pieces) or ``tokens`` (pieces).
        checkpointing: Compute activations of the encoder twice, to save memory.
    """

    encoder: str | None = None
    learning_rate: float = Field(5e-5, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    frozen_layers: int = Field(0, ge=0)
    adapter: Literal["none", "lora"] = "none"
    rank: int = Field(16, ge=1)
    max_tokens: int = Field(128, ge=3)
    pool: Literal["words", "tokens"] = "words"
    checkpointing: bool = False


class PolicySettings(_Settings):
    """Settings of the policies and their reward.

    Attributes:
        kind: ``gate`` (drops the steps with a keep probability up to one half and weights the
            others; taught by the task loss), ``task`` (weights every step; taught likewise),
            ``rloo`` (keep or drop, by REINFORCE on the joint reward with a leave-one-out
            baseline), ``ddpg`` (weights every step; also learns from a joint critic), or an
            ablation: ``ones``, ``random``.
        keep: Greatest share of a clip's steps that are kept in prediction, ``gate`` only.
        refinement_steps: Decisions K per clip; each acts on the result of the one before.
        samples: Action samples per clip, ``rloo`` only.
        reward: ``joint``, one scalar for all policies; ``separate``, each policy is paid for
            the prediction of its own modality; ``as-released``, the wrongly indexed reward
            of fault F2 (``emotions`` only).
        reward_scale: ``probability`` of the right class (summed over emotions), ``exp(-|error|)``
            for regression; or ``log``: the logarithm of these (mean over emotions).
        sparsity: Price of keeping every step. The higher, the fewer steps are kept.
        weight: Weight of the policy and critic losses.
        critic: Transitions that the critic learns from: ``clip``, each clip an episode; or
            ``carried``, the next state is the next batch, as in the released code (fault F5).
        discount: Discount of the critic's bootstrap.
        target_rate: Share by which target networks move towards the online ones in a step.
        replay_capacity: Number of transitions that are kept.
        critic_learning_rate: Learning rate of the critic.
    """

    kind: Literal["gate", "task", "rloo", "ddpg", "ones", "random"] = "gate"
    keep: float = Field(1.0, gt=0, le=1)
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
    """Settings of training.

    Attributes:
        epochs: Greatest number of passes over the training split.
        patience: Number of epochs without a better validation loss after which training stops.
        batch_size: Clips per step.
        accumulate: Parts that a batch is cut into, one after the other, to save memory. The
            gradient is that of the whole batch, for models that treat every clip alone.
        drop_last: Leave out the last, smaller batch of an epoch.
        learning_rate: Learning rate of AdamW at the start.
        weight_decay: Weight decay of AdamW; 0 makes it Adam.
        schedule: ``constant``, ``cosine`` (over ``epochs``) or ``plateau``.
        plateau_patience: Epochs without improvement before the learning rate is lowered.
        plateau_factor: Factor by which it is lowered.
        clip_norm: Greatest gradient norm; 0 does not clip.
        task_weight: Weight of the task loss.
        alignment_weight: Weight of the alignment loss between modalities; 0 leaves it out.
        alignment_group: Clips compared with each other in that loss. More clips mean more
            negatives and more time.
        modality_dropout: Probability that a modality of a clip is masked in training; one is
            always spared.
        step_dropout: Probability that a clip of training loses steps: a random share of them. The
            network then knows how to judge a part of a clip.
        start: Run folder whose first seed gives its weights to every seed, as far as they fit,
            or ``starter``. None: random weights.
    """

    epochs: int = Field(30, ge=1)
    patience: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
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
    step_dropout: float = Field(0.0, ge=0, lt=1)
    start: str | None = None

    @field_validator("start")
    @classmethod
    def _is_absolute(cls, start: str | None) -> str | None:
        # Other processes may have another working folder.
        if start is None or start == STARTER_NAME:
            return start
        return str(Path(start).expanduser().absolute())


class EvaluationSettings(_Settings):
    """Settings of evaluation.

    Attributes:
        preset: Definition of the regression metrics; see ``mmcl.metrics``.
        batch_size: Clips per prediction step; affects the speed only.
    """

    preset: Literal["mmsa", "sims", "mult", "magbert"] = "mmsa"
    batch_size: int = Field(256, ge=1)


class RuntimeSettings(_Settings):
    """Settings of the machine: devices, processes and precision.

    Attributes:
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        devices: Processes of this machine that train one network together, one per core or GPU,
            each on its share of every batch.
        strategy: Strategy of Lightning Fabric for several processes: ``auto``
            (DistributedDataParallel) or another name that Fabric knows.
        precision: ``32-true`` or ``bf16-mixed``.
        threads: CPU threads of a process. None is torch's own choice for one process, and an
            equal share of the cores for several.
        tensorboard: Write TensorBoard files too (needs ``mmcl[track]``).
    """

    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    devices: int = Field(1, ge=1)
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = Field(None, ge=1)
    tensorboard: bool = False


class Config(_Settings):
    """Settings of a run, in groups."""

    model: ModelSettings = Field(default_factory=ModelSettings)
    text: TextSettings = Field(default_factory=TextSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    learning: LearningSettings = Field(default_factory=LearningSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    runtime: RuntimeSettings = Field(default_factory=RuntimeSettings)


def model_names() -> list[str]:
    """Return the names of MMCL's two variants, the baselines, and models of other packages."""
    others = sorted(entry.name for entry in metadata.entry_points(group=ENTRY_POINTS))
    return list(dict.fromkeys([*VARIANTS, *BASELINES, *others]))


def is_model(name: str) -> bool:
    """Return whether a model has that name; other packages are looked for only if need be."""
    return name in (*VARIANTS, *BASELINES) or name in model_names()


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    folder = resources.files("mmcl") / "presets"
    files = [file.name for file in folder.iterdir() if file.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml") for name in files if not name.startswith("_"))


def resolve_config(
    *,
    model: str | None = None,
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Build a configuration from presets, a file and single settings.

    Args:
        model: Name of the model; wins over the one in the file.
        source: Name of a preset or path of a TOML file.
        overrides: Settings as ``a.b=c``. A value that is not valid TOML is read as text.
        base: Settings of the run that a training starts from. They win over a preset, and lose
            to a file.

    Returns:
        The complete configuration, with all defaults filled in.

    Raises:
        ConfigError: With every unknown key (nearest name offered) and every value out of
            range, sorted by key.

    Example:
        >>> resolve_config(overrides=["model.width=32"]).model.width
        32
    """
    label, tree = _read_source(source)
    single: dict[str, Any] = {}
    for override in overrides:
        single = _merge(single, _parse_override(override))
    tables = {name: tree.pop(name) for name in _TABLES if isinstance(tree.get(name), dict)}
    base = base or {}
    # The model decides which defaults and which table of the preset count.
    chosen = model or _model_of(single) or _model_of(tree) or _model_of(base) or "calibrated"
    merged = _load_preset("_released") if chosen == "released" else {}
    layers = [tree, tables.get(chosen if chosen in VARIANTS else "baselines", {})]
    if _encoder_of(_merge(_merge(base, tree), single)):
        layers.append(tables.get("encoder", {}))
    is_file = source is not None and str(source) not in preset_names()
    layers = [base, *layers] if is_file else [*layers, base]
    for layer in (*layers, single):
        merged = _merge(merged, layer)
    # A model section that is no table is refused below, with all other faults.
    if isinstance(merged.setdefault("model", {}), dict):
        merged = _merge(merged, {"model": {"name": chosen}})
    try:
        return Config.model_validate(merged)
    except ValidationError as faults:
        raise ConfigError(_explain(faults, label)) from None


def _model_of(tree: Mapping[str, Any]) -> str | None:
    """Return the model that some settings name, if any."""
    model = tree.get("model", {})
    name = model.get("name") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def _encoder_of(tree: Mapping[str, Any]) -> object:
    """Return the encoder that some settings name, if any."""
    text = tree.get("text", {})
    return text.get("encoder") if isinstance(text, dict) else None


def _load_preset(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("mmcl") / "presets" / f"{name}.toml").read_text())


def _read_source(source: str | Path | None) -> tuple[str, dict[str, Any]]:
    """Return the name of a preset or file for error messages, and its settings."""
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
    """Return ``a.b=c`` as ``{"a": {"b": c}}``."""
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
    """Return both trees as one; where both have a value, that of ``above`` wins."""
    merged = dict(below)
    for key, value in above.items():
        former = merged.get(key)
        if isinstance(value, Mapping) and isinstance(former, Mapping):
            merged[key] = _merge(former, value)
        else:
            merged[key] = value
    return merged


def _explain(faults: ValidationError, label: str) -> str:
    """Return the message with all faults, sorted by key."""
    lines = sorted(_fault_line(fault) for fault in faults.errors())
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n".join([f"{label} has {count}", *(f"  {line}" for line in lines)])


def _key_in_a_section(name: str) -> str | None:
    """Return the full key of a setting that was given without its section."""
    for section, field in Config.model_fields.items():
        if name in getattr(field.annotation, "model_fields", ()):
            return f"{section}.{name}"
    return None


def _fault_line(fault: Any) -> str:
    """Return one fault as ``a.b[2]: what is wrong``, with the nearest known name."""
    *above, last = fault["loc"]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in fault["loc"])[1:]
    if fault["type"] == "extra_forbidden":  # an unknown key: look up the keys of its section
        section: Any = Config
        for part in above:
            section = section.model_fields[part].annotation
        if not above and (key_in_section := _key_in_a_section(str(last))):
            return f'{key}: unknown key; did you mean "{key_in_section}"?'
        return f"{key}: unknown key{did_you_mean(str(last), section.model_fields)}"
    if fault["type"] == "literal_error":
        # pydantic names the choices as text: "'a', 'b' or 'c'".
        expected = fault["ctx"]["expected"]
        known = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
        near = did_you_mean(str(fault["input"]), known)
        return f'{key}: must be one of {", ".join(known)}, got "{fault["input"]}"{near}'
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    rule = fault["msg"].replace("Input should be", "must be")
    return f"{key}: {rule}, got {fault['input']!r}"
