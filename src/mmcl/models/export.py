"""A trained network as an ONNX file, which runs without torch and without this package.

The file takes, per modality, the features ``text`` ``[b, n_m, d_m]`` (float) and ``text_mask``
``[b, n_m]`` (bool, True = a real step). Numbers of clips and of steps are free. An absent modality
is one whose mask is all False. It returns ``scores``, as torch does, and for MMCL ``commonality``
and ``keep_probability`` ``[m, b, n]``, n of the longest modality (for a ``released`` network that
is not aligned, the number of steps it works on). The file refuses nothing: NaN in a real step is
NaN in the scores.

Torch's tracing exporter follows one example and writes down the operations. Whatever Python
decides on the way is then fixed for good. So :func:`check_export` runs every file on clips of
other sizes before the file gets its name.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.errors import ConfigError, RunError
from mmcl.extras import load
from mmcl.files import complete_file, disk_errors
from mmcl.models import decoupling
from mmcl.models.mmcl import MMCL, Output
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = ["BATCHES", "TOLERANCE", "Exported", "check_export", "export_onnx"]

BATCHES = (1, 3, 7)
"""Numbers of clips that a file is checked with."""

TOLERANCE = 1e-4
"""Largest difference allowed from torch; of scores, as on the scale of -3..3.

The two add in another order: about 1e-6 is usual."""

_OPSET = 18
_LENGTHS = ((20, 33, 11), (5, 2, 9), (1, 40, 3))
"""Steps of the modalities in each batch of the check."""


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    inputs: tuple[str, ...]  # names
    outputs: tuple[str, ...]
    difference: float  # largest one from torch that the check found


def export_onnx(model: Network, path: Path) -> Exported:
    """Write a network as one ONNX file, weights inside, and check it against torch.

    The file appears under its name only when it is complete and was found equal; it replaces
    one that has the name. The network is left as it is.

    Raises:
        MissingExtraError: If ONNX or its runtime is not installed.
        ConfigError: If the network cannot be exported, or ONNX computes something else.
        RunError: If the file cannot be written.
    """
    onnx = load("onnx", "exporting to ONNX", extra="export")
    load("onnxruntime", "checking an ONNX file", extra="export")
    _check_exportable(model)
    content = _add_description(onnx, _trace(model), model)
    difference = check_export(model, content)
    try:
        with complete_file(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as fault:
        raise RunError(
            f"{path}: cannot be written ({fault.strerror or fault}).\n"
            "  Give another: --out FILE.onnx"
        ) from None
    return Exported(path, _input_names(model), _output_names(model), difference)


# ---------------------------------------------------------------- the check


def check_export(model: Network, file: Path | bytes) -> float:
    """Run a file beside torch on random clips, in batches of other sizes and lengths.

    The clips vary as the training split did, have steps missing at their end, and in one
    batch lack a modality. The file is given by its path or content. Returns the largest
    difference.

    Raises:
        MissingExtraError: If the runtime is not installed.
        ConfigError: If it fails, or differs by more than :data:`TOLERANCE`.
    """
    runtime = load("onnxruntime", "checking an ONNX file", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4  # 4: fatal errors alone
    generator = torch.Generator().manual_seed(0)
    reference = copy.deepcopy(model).cpu().eval()
    content = file if isinstance(file, bytes) else str(file)
    with _runtime_faults_refused(model, "onnxruntime cannot open it"):
        session = runtime.InferenceSession(content, options, ["CPUExecutionProvider"])
    largest = 0.0
    for clips, lengths in zip(BATCHES, _LENGTHS, strict=True):
        inputs = _random_inputs(model, clips, lengths, generator)
        with _runtime_faults_refused(model, f"onnxruntime cannot run it on a batch of {clips}"):
            outputs = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        largest = max(largest, _largest_difference(reference, inputs, outputs))
    return largest


@contextmanager
def _runtime_faults_refused(model: Network, message: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:  # its exceptions have no common class
        raise _refusal(model, f"{message} ({_first_line(fault)})") from fault


def _largest_difference(model: Network, inputs: Mapping[str, Tensor], outputs: list[Any]) -> float:
    """Compare the file's outputs with the network's own."""
    features = {m: inputs[m] for m in model.modalities}
    masks = {m: inputs[f"{m}_mask"] for m in model.modalities}
    with torch.inference_mode():
        expected = _file_outputs(model(features, masks))
    largest = 0.0
    # Scores of 0..1000 differ by more than those of -3..3.
    unit = model.score_scale.unit
    for name, ours, theirs in zip(_output_names(model), expected, outputs, strict=True):
        if tuple(ours.shape) != theirs.shape:
            reason = f"{name} of {list(ours.shape)} is {list(theirs.shape)} by onnxruntime"
            raise _refusal(model, reason)
        difference = float((ours - torch.from_numpy(theirs)).abs().amax())
        difference /= unit if name == "scores" else 1.0
        if not difference <= TOLERANCE:  # NaN is refused too
            reason = f"{name} is {difference:.1e} off by onnxruntime"
            raise _refusal(model, f"{reason}, at most {TOLERANCE:.0e} was due")
        largest = max(largest, difference)
    return largest


def _random_inputs(
    model: Network, clips: int, lengths: tuple[int, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw a file's inputs; the last modality of a batch of three is absent, if it has another."""
    features, masks, equal = {}, {}, model.needs_equal_lengths
    real_share = torch.rand(clips, 1, generator=generator)
    for modality, length in zip(model.modalities, lengths, strict=False):
        n = lengths[0] if equal else length
        x = torch.randn(clips, n, model.dims[modality], generator=generator)
        if modality in model.standardisers:
            standard = model.standardisers[modality]
            x = x * standard.scale.cpu() + standard.centre.cpu()
        if not equal:
            real_share = torch.rand(clips, 1, generator=generator)
        features[modality] = x
        masks[modality] = torch.arange(n) < (1 + real_share * n).floor()
    last = model.modalities[-1]
    if clips == BATCHES[1] and len(model.modalities) > 1:
        masks[last] = torch.zeros_like(masks[last])
    return dict(zip(_input_names(model), [*features.values(), *masks.values()], strict=True))


# ---------------------------------------------------------------- inputs and outputs of a file


class _FileNetwork(nn.Module):
    """The network with a file's inputs and outputs: tensors alone."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of every modality, then masks; scores, and for MMCL two ``[m, b, n]``."""
        count = len(self.model.modalities)
        # Lengths are counted, since a number of Python's would be the example's for good.
        lengths = [torch.ones_like(mask[0], dtype=torch.long).sum() for mask in inputs[count:]]
        longest = torch.stack(lengths).max()
        # The search for partners takes its few best steps. With fewer steps than that, tracing
        # would fix their number at the example's: pad every modality to one sufficient length.
        n: Any = longest.clamp(min=decoupling.CANDIDATES)
        features: dict[Modality, Tensor] = {}
        masks: dict[Modality, Tensor] = {}
        for index, modality in enumerate(self.model.modalities):
            missing = n - inputs[index].shape[1]
            features[modality] = F.pad(inputs[index], (0, 0, 0, missing))
            masks[modality] = F.pad(inputs[count + index], (0, missing))
        scores, *per_step = _file_outputs(self.model(features, masks))
        if self.model.released and not self.model.aligned:
            return (scores, *per_step)  # of as many steps as it was trained with
        return (scores, *(values[:, :, :longest] for values in per_step))


def _file_outputs(output: Any) -> tuple[Tensor, ...]:
    """Select the part of a network's output that a file returns."""
    if not isinstance(output, Output):
        return (output.scores,)
    return output.scores, output.encoded.parts.commonality, output.decision.keep_probability


def _input_names(model: Network) -> tuple[str, ...]:
    return (*model.modalities, *(f"{modality}_mask" for modality in model.modalities))


def _output_names(model: Network) -> tuple[str, ...]:
    per_step = ("commonality", "keep_probability") if isinstance(model, MMCL) else ()
    return ("scores", *per_step)


# ---------------------------------------------------------------- tracing


def _check_exportable(model: Network) -> None:
    """Refuse networks that are known not to work before the exporter does so at length."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        raise _refusal(
            model,
            "it reads every clip up to the clip's own last step, by a recurrent network over "
            "packed sequences, which the exporter does not know",
        )
    if model.words is not None:
        raise _refusal(
            model,
            "its text is read by a language model (text.encoder), which is not exported",
            instead="without text.encoder, on a corpus with vectors of its text",
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
    """Return the ONNX file of a network, without a description."""
    network = _FileNetwork(copy.deepcopy(model).cpu()).eval()
    lengths = (9, 9, 9) if model.needs_equal_lengths else (9, 11, 10)
    example = _random_inputs(model, 2, lengths, torch.Generator().manual_seed(0))
    try:
        with _one_block(), warnings.catch_warnings(), _temporary_folder() as folder:
            path = folder / "traced.onnx"
            # It warns of every choice that tracing fixes; the check tells which matter.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                tuple(example.values()),
                path,
                input_names=list(_input_names(model)),
                output_names=list(_output_names(model)),
                dynamic_axes=_free_axes(model),
                opset_version=_OPSET,
                dynamo=False,
            )
            return path.read_bytes()
    except (RuntimeError, ValueError, TypeError) as fault:  # the exporter's own are RuntimeErrors
        raise _refusal(model, _first_line(fault)) from fault


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Context with a folder that is removed at its end; a full disk is said to be full."""
    with disk_errors(Path(gettempdir())), TemporaryDirectory() as folder:
        yield Path(folder)


def _free_axes(model: Network) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {"scores": {0: "clips"}}
    for modality in model.modalities:
        steps = "steps" if model.needs_equal_lengths else f"{modality}_steps"
        axes[modality] = axes[f"{modality}_mask"] = {0: "clips", 1: steps}
    for name in _output_names(model)[1:]:
        axes[name] = {1: "clips", 2: "steps"}
    return axes


@contextmanager
def _one_block() -> Iterator[None]:
    """Search for partners in one block while tracing: the example would fix their number."""
    before = decoupling._BLOCK_ELEMENTS
    decoupling._BLOCK_ELEMENTS = 1 << 62
    try:
        yield
    finally:
        decoupling._BLOCK_ELEMENTS = before


def _add_description(onnx: Any, content: bytes, model: Network) -> bytes:
    """Add the metadata that a reader of the file needs."""
    proto = onnx.load_model_from_string(content)
    description = {
        "mmcl": metadata.version("mmcl"),
        "model": model.settings.name,
        "task": model.task.model_dump_json(),
        "names": json.dumps(model.task.names),
        "modalities": json.dumps(model.modalities),
        "dims": json.dumps(model.dims),
        "aligned": json.dumps(model.aligned),
        "never_seen": json.dumps(model.never_seen),
    }
    for key, value in description.items():
        proto.metadata_props.add(key=key, value=value)
    described: bytes = proto.SerializeToString()
    return described


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0].rstrip(". ") or type(fault).__name__
