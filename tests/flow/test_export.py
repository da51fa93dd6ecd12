"""``mmcl export`` through the command line: a file, and refusals that leave none."""

import importlib.util
import sys

import pytest
import torch

from fakes.onnx import stand_in
from mmcl.cli.main import main
from mmcl.corpus.batches import collate
from mmcl.runs.run import Run, train


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


@pytest.fixture(scope="module")
def run(tiny_corpus, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_corpus, tiny_config("learning.epochs=1"), out=folder, seeds=(1, 3))
    return folder


def call(capfd, *words):
    capfd.readouterr()
    code = main(list(map(str, words)))
    printed = capfd.readouterr()
    return code, printed.out, printed.err


def answer(runtime, path, batch):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {m: x.numpy() for m, x in batch.features.items()}
    given |= {f"{m}_mask": mask.numpy() for m, mask in batch.masks.items()}
    return torch.from_numpy(session.run(["scores"], given)[0])


def test_export_writes_what_predicts_the_same(run, runtime, tiny_corpus, tmp_path, capfd):
    other = tmp_path / "new" / "third.onnx"
    code, out, err = call(capfd, "export", run, "--format", "onnx")
    assert (code, err) == (0, "")
    first = run / "seed-1" / "model.onnx"
    told, _, difference = out.partition(" within ")
    assert told == f"{first}: equal to torch"
    assert difference.endswith(", in batches of 1, 3 and 7\n")
    assert float(difference.partition(",")[0]) < 1e-5

    code, out, err = call(capfd, "export", run, "--seed", 3, "--out", other)
    assert (code, err, out.partition(":")[0]) == (0, "", str(other))

    opened, split = Run.load(run), tiny_corpus.split("valid")
    batch = collate(split, list(range(len(split))), list(opened.model().modalities))
    for path, seed in ((first, 1), (other, 3)):
        with torch.inference_mode():
            wanted = opened.model(seed)(batch.features, batch.masks).scores
        found = answer(runtime, path, batch)
        torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-5)
    assert not torch.equal(answer(runtime, first, batch), answer(runtime, other, batch))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--format", "onx"),
            '--format must be one of onnx, got "onx"; did you mean "onnx"?',
        ),
        (("--out", "model.pt"), '--out must end with .onnx, got "model.pt"'),
        (("--seed", "2"), "--seed must be one of [1, 3], those of {run}, got 2"),
    ],
)
def test_wrong_use_is_refused(run, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    said = f"UsageError: {message.format(run=run)}\n"
    assert call(capfd, "export", run, *words) == (2, "", said)
    assert list(tmp_path.iterdir()) == []


def test_run_that_cannot_be_exported_leaves_no_file(tiny_corpus, tiny_config, tmp_path, capfd):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    config = tiny_config("model.options.width=8", "learning.epochs=1", model="ef_lstm")
    train(tiny_corpus, config, out=tmp_path / "run")
    out = tmp_path / "model.onnx"
    code, printed, said = call(capfd, "export", tmp_path / "run", "--out", out)
    assert (code, printed) == (2, "")
    assert said.startswith('ConfigError: model "ef_lstm" cannot be exported to ONNX: it reads ')
    assert not out.exists()


def test_missing_extra_is_named(run, monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, "onnx", None)
    out = tmp_path / "model.onnx"
    assert call(capfd, "export", run, "--out", out) == (
        1,
        "",
        "MissingExtraError: exporting to ONNX needs onnx, which is not installed.\n"
        '  Install it: pip install "mmcl[export]"\n',
    )
    assert not out.exists()
