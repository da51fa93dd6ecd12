"""Exported files: equal to torch whatever the sizes, described, and refused where they are not."""

import importlib.metadata
import importlib.util
import json
import sys
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

from fakes.onnx import stand_in
from mmcl.config import resolve_config
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, DatasetError, MissingExtraError, RunError
from mmcl.models import decoupling
from mmcl.models.baselines.baseline import Baseline
from mmcl.models.export import BATCHES, TOLERANCE, check_export, export_onnx
from mmcl.models.registry import build_network
from mmcl.types import MODALITIES

DIMS = {"text": 6, "audio": 4, "vision": 3}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "points": Task(kind="regression", low=0, high=1000),
    "classes": Task(kind="classes", names=("sad", "calm", "glad")),
    "emotions": Task(kind="emotions", names=("joy", "anger")),
}
SMALL = ("model.width=8", "model.heads=2", "model.inner_width=8")
NAN = float("nan")

# Sums of some dozens of float32 terms in another order: seen below 5e-7 on all of these.
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def onnx():
    """The package itself, or what stands in for it; see fakes/onnx.py."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("onnx") is None:
            patch.setitem(sys.modules, "onnx", stand_in())
        yield


@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip("onnxruntime", reason="needs onnxruntime")


def network(name="calibrated", *overrides, aligned=True, task="regression", dims=DIMS, seed=4):
    """A network in evaluation mode, whose features have other centres and scales than 0 and 1."""
    config = resolve_config(model=name, overrides=[*SMALL, *overrides])
    torch.manual_seed(seed)
    model = build_network(
        dims, TASKS[task], aligned=aligned, model=config.model, policy=config.policy
    )
    steps = {m: 2 + 3 * torch.randn(50, dim) for m, dim in model.dims.items()}
    model.fit_standardisation(steps)
    if name == "calibrated":
        # Untrained, every step is kept and none is common: let both be undecided.
        with torch.no_grad():
            model.policy.bias.zero_()
            if model.elementwise:
                model.threshold.fill_(0.3)
    return model.eval()


def clips(count, lengths, *, seed=5):
    """Features and masks of some clips; their last steps are missing, of each in its own way."""
    generator = torch.Generator().manual_seed(seed)
    features, masks = {}, {}
    for modality, n in zip(MODALITIES, lengths, strict=True):
        features[modality] = 2 + 3 * torch.randn(count, n, DIMS[modality], generator=generator)
        real = torch.randint(1, n + 1, (count, 1), generator=generator)
        masks[modality] = torch.arange(n) < real
    return features, masks


@pytest.fixture(scope="module")
def run(runtime):
    """Run a file: its outputs by name."""

    @lru_cache
    def open_file(path):
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(path, features, masks):
        session = open_file(path)
        given = {m: x.numpy() for m, x in features.items()}
        given |= {f"{m}_mask": mask.numpy() for m, mask in masks.items()}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, map(torch.from_numpy, session.run(None, given)), strict=True))

    return answer


@pytest.fixture(scope="module")
def unaligned(tmp_path_factory, onnx, runtime):
    """A network with hard actions and the file it was exported to."""
    model = network("calibrated", "policy.kind=rloo", aligned=False, task="classes")
    return model, export_onnx(model, tmp_path_factory.mktemp("export") / "model.onnx")


def assert_same(model, path, features, masks, run):
    with torch.inference_mode():
        wanted = model(features, masks)
    found = run(path, features, masks)
    torch.testing.assert_close(found["scores"], wanted.scores, **CLOSE)
    if "commonality" in found:
        parts, decision = wanted.encoded.parts, wanted.decision
        torch.testing.assert_close(found["commonality"], parts.commonality, **CLOSE)
        torch.testing.assert_close(found["keep_probability"], decision.keep_probability, **CLOSE)


# ---------------------------------------------------------------- equal to torch


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "lengths", [(20, 33, 11), (1, 1, 1), (2, 9, 3), (4, 3, 50)], ids=lambda n: "x".join(map(str, n))
)
def test_file_is_equal_to_torch_whatever_the_sizes(unaligned, run, count, lengths):
    model, exported = unaligned
    features, masks = clips(count, lengths)
    assert_same(model, exported.path, features, masks, run)


def test_clips_of_these_tests_have_steps_of_every_kind(unaligned):
    # Were every step kept, or none common, a file without policies would pass as well.
    model, _ = unaligned
    with torch.inference_mode():
        output = model(*clips(5, (20, 33, 11)))
    kept = output.decision.actions[output.encoded.step_mask]
    assert 0.1 < float(kept.mean()) < 0.9
    assert float(output.encoded.parts.commonality.std()) > 0.05


@pytest.mark.parametrize("absent", MODALITIES)
def test_mask_with_nothing_in_it_is_an_absent_modality(unaligned, run, absent):
    model, exported = unaligned
    features, masks = clips(3, (7, 12, 9))
    left_out = [{m: x for m, x in given.items() if m != absent} for given in (features, masks)]
    masks[absent] = torch.zeros_like(masks[absent])
    with torch.inference_mode():
        wanted = model(*left_out).scores
    torch.testing.assert_close(run(exported.path, features, masks)["scores"], wanted, **CLOSE)


def test_padded_steps_may_hold_anything(unaligned, run):
    _, exported = unaligned
    features, masks = clips(3, (7, 12, 9))
    wanted = run(exported.path, features, masks)
    for modality, x in features.items():
        x[~masks[modality]] = NAN
    found = run(exported.path, features, masks)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("given", "aligned", "task"),
    [
        pytest.param(("calibrated", "policy.kind=rloo"), True, "emotions", id="aligned"),
        pytest.param(("calibrated", "policy.refinement_steps=2"), False, "regression", id="gate"),
        pytest.param(("calibrated", "policy.keep=0.3"), False, "regression", id="limited"),
        pytest.param(("calibrated", "policy.kind=task"), False, "regression", id="soft"),
        pytest.param(("calibrated", "model.decoupling=softmax"), True, "classes", id="softmax"),
        pytest.param(("released",), False, "regression", id="released"),
        pytest.param(("text_only",), True, "emotions", id="text_only"),
        pytest.param(("text_only",), True, "points", id="points"),
    ],
)
def test_other_networks_are_equal_as_well(given, aligned, task, run, tmp_path):
    model = network(*given, aligned=aligned, task=task)
    exported = export_onnx(model, tmp_path / "model.onnx")
    assert 0 <= exported.difference < 1e-5
    features, masks = clips(4, (12, 12, 12) if aligned else (12, 5, 19))
    used = [{m: each[m] for m in model.modalities} for each in (features, masks)]
    if task == "points":  # as on the scale of -3..3
        with torch.no_grad():
            wanted = model(*used).scores
        found = run(exported.path, *used)["scores"]
        torch.testing.assert_close(found * 6 / 1000, wanted * 6 / 1000, **CLOSE)
        return
    assert_same(model, exported.path, *used, run)


def test_released_of_an_aligned_corpus_is_equal(run, tmp_path):
    model = network("released")
    exported = export_onnx(model, tmp_path / "model.onnx")
    features, masks = clips(4, (12, 12, 12))
    masks = dict.fromkeys(MODALITIES, masks["text"])
    assert_same(model, exported.path, features, masks, run)


def test_clips_longer_than_a_block_of_the_search_are_equal(run, tmp_path, monkeypatch):
    model = network()
    exported = export_onnx(model, tmp_path / "model.onnx")
    monkeypatch.setattr(decoupling, "_BLOCK_ELEMENTS", 1 << 10)  # 2 * 30 * 2 a row: 8 steps
    assert_same(model, exported.path, *clips(2, (30, 30, 30)), run)
    again = export_onnx(model, tmp_path / "again.onnx")
    assert decoupling._BLOCK_ELEMENTS == 1 << 10
    assert_same(model, again.path, *clips(2, (30, 30, 30)), run)


# ---------------------------------------------------------------- what is in the file


def test_file_names_its_inputs_and_outputs(unaligned, runtime):
    _, exported = unaligned
    session = runtime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        ("text", "tensor(float)", ["clips", "text_steps", 6]),
        ("audio", "tensor(float)", ["clips", "audio_steps", 4]),
        ("vision", "tensor(float)", ["clips", "vision_steps", 3]),
        ("text_mask", "tensor(bool)", ["clips", "text_steps"]),
        ("audio_mask", "tensor(bool)", ["clips", "audio_steps"]),
        ("vision_mask", "tensor(bool)", ["clips", "vision_steps"]),
    ]
    assert [x.name for x in session.get_outputs()] == list(exported.outputs)
    assert exported.inputs == tuple(x.name for x in session.get_inputs())
    assert exported.outputs == ("scores", "commonality", "keep_probability")


def test_file_says_what_it_is(unaligned, runtime):
    _, exported = unaligned
    session = runtime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert sorted(said) == [
        *("aligned", "dims", "mmcl", "modalities", "model", "names", "never_seen", "task")
    ]
    assert Task.model_validate_json(said["task"]) == TASKS["classes"]
    assert json.loads(said["names"]) == ["sad", "calm", "glad"]
    assert json.loads(said["dims"]) == DIMS
    assert json.loads(said["modalities"]) == list(MODALITIES)
    assert (said["model"], said["aligned"], said["never_seen"]) == ("calibrated", "false", "[]")
    assert said["mmcl"] == importlib.metadata.version("mmcl")


def test_network_is_left_as_it_was(tmp_path, runtime):
    model = network().train()  # calibration and dropout would do something else in this mode
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [type(module) for module in model.modules()]
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert [type(module) for module in model.modules()] == layers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


# ---------------------------------------------------------------- the check


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda head: head.output.bias.add_(2e-4), "scores is 2.0e-04 off", id="score"),
        pytest.param(lambda head: head.output.bias.fill_(NAN), "scores is nan off", id="nan"),
    ],
)
def test_check_finds_a_file_that_says_something_else(unaligned, change, message):
    model, exported = unaligned
    assert check_export(model, exported.path) == exported.difference <= TOLERANCE
    other = network("calibrated", "policy.kind=rloo", aligned=False, task="classes")
    with torch.no_grad():
        change(other.head)
    with pytest.raises(ConfigError) as caught:
        check_export(other, exported.path)
    assert str(caught.value) == (
        f'model "calibrated" cannot be exported to ONNX: {message} by onnxruntime, '
        "at most 1e-04 was due.\n  Train one that can: mmcl train CORPUS --model calibrated"
    )


def test_check_tells_the_largest_difference(unaligned):
    _, exported = unaligned
    other = network("calibrated", "policy.kind=rloo", aligned=False, task="classes")
    with torch.no_grad():
        other.head.output.bias[1] -= 5e-5
    assert check_export(other, exported.path) == pytest.approx(5e-5, abs=2e-6)


def test_check_finds_moments_that_are_others(unaligned):
    _, exported = unaligned
    other = network("calibrated", "policy.kind=rloo", aligned=False, task="classes")
    with torch.no_grad():
        other.threshold.add_(1.0)
        other.head.output.weight.zero_()
    with pytest.raises(ConfigError, match=r"is .* off by onnxruntime"):
        check_export(other, exported.path)


def test_check_finds_a_file_of_another_task(unaligned):
    _, exported = unaligned
    other = network("calibrated", "policy.kind=rloo", aligned=False)
    with pytest.raises(ConfigError, match=r"ONNX: scores of \[1\] is \[1, 3\] by onnxruntime\."):
        check_export(other, exported.path)


class CountsByLen(Baseline):
    """len() of a tensor is a number of Python's, which tracing settles for good."""

    takes = ("text",)

    def build(self):
        self.output = nn.Linear(6, 1)

    def predict(self, steps, masks):
        hidden = steps["text"].sum(dim=1).reshape(len(steps["text"]), 6)
        return self.output(hidden), hidden, {}


def test_network_that_is_tied_to_its_batch_is_refused(tmp_path, runtime):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(ConfigError) as caught:
        export_onnx(CountsByLen(DIMS, TASKS["regression"]).eval(), path)
    first, advice = str(caught.value).split("\n")
    assert first.startswith(
        'model "calibrated" cannot be exported to ONNX: onnxruntime cannot run it on a batch of '
        f"{BATCHES[0]} ("
    )
    assert advice == "  Train one that can: mmcl train CORPUS --model calibrated"
    assert path.read_bytes() == b"the one before"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["ef_lstm", "lf_dnn", "misa"])
def test_packed_sequences_are_refused(name, tmp_path, runtime, capfd):
    with pytest.raises(ConfigError) as caught:
        export_onnx(network(name), tmp_path / "model.onnx")
    assert str(caught.value) == (
        f'model "{name}" cannot be exported to ONNX: it reads every clip up to the clip\'s own '
        "last step, by a recurrent network over packed sequences, which the exporter does not "
        "know.\n  Train one that can: mmcl train CORPUS --model calibrated"
    )
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_actions_at_random_are_refused(tmp_path, runtime):
    with pytest.raises(ConfigError) as caught:
        export_onnx(network("calibrated", "policy.kind=random"), tmp_path / "model.onnx")
    assert str(caught.value) == (
        'model "calibrated" cannot be exported to ONNX: policy.kind is "random": the file would '
        "keep other steps each time.\n"
        "  Train one that can: mmcl train CORPUS --set policy.kind=task"
    )


def test_place_that_is_none_is_refused(tmp_path, runtime):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "deeper" / "model.onnx"
    with pytest.raises(RunError) as caught:
        export_onnx(network("text_only"), path)
    assert str(caught.value) == (
        f"{path}: cannot be written (Not a directory).\n  Give another: --out FILE.onnx"
    )


@pytest.mark.parametrize(
    ("package", "purpose"),
    [("onnx", "exporting to ONNX"), ("onnxruntime", "checking an ONNX file")],
)
def test_missing_package_is_named(monkeypatch, tmp_path, package, purpose):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        export_onnx(network("text_only"), tmp_path / "model.onnx")
    assert str(caught.value) == (
        f"{purpose} needs {package}, which is not installed.\n"
        '  Install it: pip install "mmcl[export]"'
    )


# ---------------------------------------------------------------- the search for NaN


@pytest.mark.parametrize("sign", ["torch.onnx.is_in_onnx_export", "torch.compiler.is_compiling"])
def test_features_are_not_looked_at_while_there_are_none(monkeypatch, sign):
    model = network("text_only")
    features = {"text": torch.full((1, 2, 6), NAN)}
    with pytest.raises(DatasetError, match="text holds NaN or infinity in clip 0"):
        model(features)
    monkeypatch.setattr(sign, lambda: True)
    assert np.isnan(model(features).scores.item())
