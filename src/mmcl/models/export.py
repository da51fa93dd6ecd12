"""A trained network as an ONNX file, which runs without torch and without this package.

The file takes, per modality, the features ``text`` ``[b, n_m, d_m]`` (float) and ``text_mask``
``[b, n_m]`` (bool, True = a real step); numbers of clips and of steps are free. A modality that
is absent is a mask with nothing in it. What comes out is ``scores``, as from torch, and for MMCL
``commonality`` and ``keep_probability`` ``[m, b, n]``, n of the longest modality (for a
``released`` one that is not aligned, of as many steps as it works on). Nothing is refused in
there: NaN in a real step is NaN in the scores.

It goes through torch's tracing exporter, which follows one example and writes down what was
done. Whatever Python decided on the way is then settled for good, so nothing is believed:
:func:`check_export` runs every file on clips of other sizes before it gets its name.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.symbolic_helper import parse_args
from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

from mmcl.errors import ConfigError, RunError
from mmcl.extras import load
from mmcl.models import decoupling
from mmcl.models.layers import ModalityNorm
from mmcl.models.mmcl import MMCL, Output
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = ["BATCHES", "TOLERANCE", "Exported", "check_export", "export_onnx"]

BATCHES = (1, 3, 7)
"""Numbers of clips that a file is checked with."""

TOLERANCE = 1e-4
"""How far a number may lie from torch's. The two add in another order: about 1e-6 is usual."""

_OPSET = 18
_LENGTHS = ((20, 33, 11), (5, 2, 9), (1, 40, 3))
"""Steps of the modalities in each batch of the check."""
_ENOUGH_STEPS = decoupling.CANDIDATES
"""Steps the network is given at least, padded where there are fewer: the search for partners
takes its few best of them, and how many few is would be settled by the example."""


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: The file.
        inputs: Names of what it takes.
        outputs: Names of what it returns.
        difference: Largest difference from torch that the check found.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float


def export_onnx(model: Network, path: Path) -> Exported:
    """Write a network as one ONNX file, weights inside, and check it against torch.

    The file appears under its name only when it is complete and was found equal.

    Args:
        model: A trained network; left as it is.
        path: Target; replaced if it exists.

    Raises:
        MissingExtraError: If ONNX or its runtime is not installed.
        ConfigError: If the network cannot be exported, or ONNX computes something else.
        RunError: If the file cannot be written.
    """
    onnx = load("onnx", "exporting to ONNX", extra="export")
    load("onnxruntime", "checking an ONNX file", extra="export")
    _check_exportable(model)
    content = _describe(onnx, _trace(model), model)
    difference = check_export(model, content)
    _write(path, content)
    return Exported(path, _inputs(model), _outputs(model), difference)


def check_export(model: Network, file: Path | bytes) -> float:
    """Run a file on random clips, in batches of other sizes and lengths, beside torch.

    The clips vary as the training split did, have steps missing at their end, and in one
    batch lack a modality.

    Args:
        model: What the file was made of.
        file: Where it lies, or its content.

    Returns:
        The largest difference.

    Raises:
        MissingExtraError: If the runtime is not installed.
        ConfigError: If it fails, or differs by more than :data:`TOLERANCE`.
    """
    runtime = load("onnxruntime", "checking an ONNX file", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    generator = torch.Generator().manual_seed(0)
    alone = copy.deepcopy(model).cpu().eval()
    content = file if isinstance(file, bytes) else str(file)
    with _faults_of_the_runtime(model, "onnxruntime cannot open it"):
        session = runtime.InferenceSession(content, options, ["CPUExecutionProvider"])
    largest = 0.0
    for clips, lengths in zip(BATCHES, _LENGTHS, strict=True):
        given = _random_clips(model, clips, lengths, generator)
        with _faults_of_the_runtime(model, f"onnxruntime cannot run it on a batch of {clips}"):
            found = session.run(None, {name: x.numpy() for name, x in given.items()})
        largest = max(largest, _difference(alone, given, found))
    return largest


@contextmanager
def _faults_of_the_runtime(model: Network, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:  # it has many, and no common one
        raise _refusal(model, f"{what} ({_first_line(fault)})") from fault


def _difference(model: Network, given: Mapping[str, Tensor], found: list[Any]) -> float:
    """Largest difference between what a network says and what was found."""
    features = {m: given[m] for m in model.modalities}
    masks = {m: given[f"{m}_mask"] for m in model.modalities}
    with torch.inference_mode():
        wanted = _answers(model(features, masks))
    largest = 0.0
    for name, ours, theirs in zip(_outputs(model), wanted, found, strict=True):
        if tuple(ours.shape) != theirs.shape:
            raise _refusal(
                model, f"{name} of {list(ours.shape)} is {list(theirs.shape)} by onnxruntime"
            )
        apart = float((ours - torch.from_numpy(theirs)).abs().amax())
        if not apart <= TOLERANCE:  # nor is NaN equal
            raise _refusal(
                model, f"{name} is {apart:.1e} off by onnxruntime, at most {TOLERANCE:.0e} was due"
            )
        largest = max(largest, apart)
    return largest


def _random_clips(
    model: Network, clips: int, lengths: tuple[int, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """Inputs by name; the last modality of a batch of three is absent, if there is another."""
    features, masks = {}, {}
    real = torch.rand(clips, 1, generator=generator)
    for modality, length in zip(model.modalities, lengths, strict=False):
        n = lengths[0] if _one_length(model) else length
        x = torch.randn(clips, n, model.dims[modality], generator=generator)
        if modality in model.standardisers:
            standard = model.standardisers[modality]
            x = x * standard.scale.cpu() + standard.centre.cpu()
        if not _one_length(model):
            real = torch.rand(clips, 1, generator=generator)
        features[modality] = x
        masks[modality] = torch.arange(n) < (1 + real * n).floor()
    last = model.modalities[-1]
    if clips == BATCHES[1] and len(model.modalities) > 1:
        masks[last] = torch.zeros_like(masks[last])
    return dict(zip(_inputs(model), [*features.values(), *masks.values()], strict=True))


# ---------------------------------------------------------------- the network in its frame


class _Frame(nn.Module):
    """Tensors in, tensors out, one length for all modalities: what a file can express."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Features of every modality, then masks; scores, and for MMCL two ``[m, b, n]``."""
        count = len(self.model.modalities)
        lengths = torch.stack([torch._shape_as_tensor(x)[1] for x in given[:count]])
        longest = lengths.max()
        n: Any = longest.clamp(min=_ENOUGH_STEPS)
        features: dict[Modality, Tensor] = {}
        masks: dict[Modality, Tensor] = {}
        for at, modality in enumerate(self.model.modalities):
            missing = n - given[at].shape[1]
            features[modality] = F.pad(given[at], (0, 0, 0, missing))
            masks[modality] = F.pad(given[count + at], (0, missing))
        scores, *seen = _answers(self.model(features, masks))
        if self.model.released and not self.model.aligned:
            return (scores, *seen)  # of as many steps as it was trained with
        return (scores, *(each[:, :, :longest] for each in seen))


def _answers(output: Any) -> tuple[Tensor, ...]:
    """What a file returns of what a network returns."""
    if not isinstance(output, Output):
        return (output.scores,)
    return output.scores, output.encoded.parts.commonality, output.decision.keep_probability


class _FixedNorm(nn.Module):
    """A :class:`ModalityNorm` whose width is a number, which the exporter insists on."""

    def __init__(self, norm: ModalityNorm) -> None:
        super().__init__()
        self.num_modalities, self.width = norm.weight.shape
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.num_modalities, *[1] * (x.ndim - 2), self.width)
        normal = F.layer_norm(x, (self.width,))
        return torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape))


def _fix_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, ModalityNorm):
            setattr(module, name, _FixedNorm(child))
        else:
            _fix_norms(child)


def _one_length(model: Network) -> bool:
    """Whether the modalities of a clip must be of one length."""
    return model.released and model.aligned


def _inputs(model: Network) -> tuple[str, ...]:
    return (*model.modalities, *(f"{modality}_mask" for modality in model.modalities))


def _outputs(model: Network) -> tuple[str, ...]:
    seen = ("commonality", "keep_probability") if isinstance(model, MMCL) else ()
    return ("scores", *seen)


# ---------------------------------------------------------------- tracing


def _check_exportable(model: Network) -> None:
    """Refuse what is known not to work before the exporter says so at length."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        raise _refusal(
            model,
            "it reads every clip up to the clip's own last step, by a recurrent network over "
            "packed sequences, which the exporter does not know",
        )
    if isinstance(model, MMCL) and model.policy_settings.kind == "random":
        raise _refusal(
            model,
            'policy.kind is "random": the file would keep other steps each time',
            instead="--set policy.kind=task",
        )


def _refusal(model: Network, reason: str, *, instead: str = "--model calibrated") -> ConfigError:
    return ConfigError(
        f'model "{model.settings.name}" cannot be exported to ONNX: {reason}.\n'
        f"  Train one that can: mmcl train CORPUS {instead}"
    )


def _trace(model: Network) -> bytes:
    """The ONNX file of a network, without a description."""
    frame = _Frame(copy.deepcopy(model).cpu()).eval()
    _fix_norms(frame)
    lengths = (9, 9, 9) if _one_length(model) else (9, 11, 10)
    example = _random_clips(model, 2, lengths, torch.Generator().manual_seed(0))
    try:
        with _traceable(), warnings.catch_warnings(), TemporaryDirectory() as folder:
            path = Path(folder) / "traced.onnx"
            # It warns of every choice that tracing settles; the check tells which matter.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                frame,
                tuple(example.values()),
                path,
                input_names=list(_inputs(model)),
                output_names=list(_outputs(model)),
                dynamic_axes=_free_axes(model),
                opset_version=_OPSET,
                dynamo=False,
            )
            return path.read_bytes()
    except (RuntimeError, ValueError, TypeError) as fault:  # those of the exporter among them
        raise _refusal(model, _first_line(fault)) from fault


def _free_axes(model: Network) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {"scores": {0: "clips"}}
    for modality in model.modalities:
        steps = "steps" if _one_length(model) else f"{modality}_steps"
        axes[modality] = axes[f"{modality}_mask"] = {0: "clips", 1: steps}
    for name in _outputs(model)[1:]:
        axes[name] = {1: "clips", 2: "steps"}
    return axes


@contextmanager
def _traceable() -> Iterator[None]:
    """Search for partners in one block, and move a last axis as torch does.

    The number of blocks would be that of the example, whatever the lengths later; and the
    exporter hands a negative axis on to ONNX, which has none.
    """
    before = decoupling._BLOCK_ELEMENTS
    register_custom_op_symbolic("aten::movedim", _movedim, _OPSET)
    decoupling._BLOCK_ELEMENTS = 1 << 62
    try:
        yield
    finally:
        decoupling._BLOCK_ELEMENTS = before
        unregister_custom_op_symbolic("aten::movedim", _OPSET)


@parse_args("v", "i", "i")
def _movedim(graph: Any, x: Any, source: int, destination: int) -> Any:
    rank = x.type().dim()
    axes = [axis for axis in range(rank) if axis != source % rank]
    axes.insert(destination % rank, source % rank)
    return graph.op("Transpose", x, perm_i=axes)


# ---------------------------------------------------------------- the file


def _describe(onnx: Any, content: bytes, model: Network) -> bytes:
    """Put into a file what its reader must know."""
    proto = onnx.load_model_from_string(content)
    described = {
        "mmcl": metadata.version("mmcl"),
        "model": model.settings.name,
        "task": model.task.model_dump_json(),
        "names": json.dumps(model.task.names),
        "modalities": json.dumps(model.modalities),
        "dims": json.dumps(model.dims),
        "aligned": json.dumps(model.aligned),
        "never_seen": json.dumps(model.never_seen),
    }
    for key, value in described.items():
        proto.metadata_props.add(key=key, value=value)
    written: bytes = proto.SerializeToString()
    return written


def _write(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as fault:
        raise RunError(
            f"{path}: cannot be written ({fault.strerror or fault}).\n"
            "  Give another: --out FILE.onnx"
        ) from None


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0].rstrip(". ") or type(fault).__name__
