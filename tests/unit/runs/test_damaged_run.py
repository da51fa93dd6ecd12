"""A damaged run folder is one RunError that names the file and says what to copy again."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file

from mmcl.cli.main import main
from mmcl.corpus.store import open_corpus
from mmcl.errors import RunError
from mmcl.evaluation.tables import write_table
from mmcl.runs.run import Run

EARLIER = Path(__file__).parents[2] / "golden" / "earlier-run"
WEIGHTS = "seed-1/model/model.safetensors"
SETTINGS = "seed-1/model/config.json"
COPY = "Copy it again from where it was made, or train again: mmcl train CORPUS --out NEW"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(EARLIER / "run", tmp_path / "run"))


def use(folder):
    """Do what predicting and showing a run do."""
    run = Run.load(folder)
    assert run.metrics["valid"]
    run.fitted(1)
    return run.predict(open_corpus(EARLIER / "planted.arrow"))


def refusal(folder):
    with pytest.raises(RunError) as caught:
        use(folder)
    return str(caught.value)


def changed(folder, name, **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def test_it_works_unless_it_is_damaged(folder):
    assert use(folder).num_rows == 40


CONTENTS = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "deep": "[" * 100_000,
    "nan": '{"seeds": NaN}',
    "bytes": "\udcff",
    "digits": f'{{"seeds": [{10**400}]}}',
    "65 bits": f'{{"seeds": [{2**63}]}}',
}


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "seed-1/done.json", SETTINGS])
@pytest.mark.parametrize("content", CONTENTS)
def test_json_of_any_content(folder, name, content):
    (folder / name).write_text(CONTENTS[content], errors="surrogateescape")
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: damaged or cut short (")
    assert message.endswith(COPY)


@pytest.mark.parametrize("seeds", [[], [1, 1], ["1"], [-1], {"a": 1}, None])
def test_seeds_that_are_none(folder, seeds):
    changed(folder, "run.json", seeds=seeds)
    message = refusal(folder)
    assert message.startswith(f"{folder / 'run.json'}: 1 value does not fit")
    assert "seeds: must be different whole numbers, one at least, got" in message


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("metrics.json", {"valid": 3}),
        ("metrics.json", {"references": []}),
        ("metrics.json", {"seeds": 1}),
        ("seed-1/done.json", {"clips": "many"}),
        ("seed-1/done.json", {"never_seen": 5}),
        (SETTINGS, {"model": []}),
    ],
)
def test_parts_of_another_kind(folder, name, changes):
    changed(folder, name, **changes)
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize("text", ["", "epoch\n", "not,a,table\n1\n"])
def test_history_of_any_content(folder, text):
    (folder / "seed-1" / "history.csv").write_text(text)
    assert str(folder / "seed-1") in refusal(folder)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_half_copied_weights(folder, share):
    path = folder / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refusal(folder)
    assert message.startswith(f"{folder / 'seed-1' / 'model'}: the network cannot be loaded (")
    assert "Copy the run folder again, or train it again" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(folder, value):
    weights = load_file(folder / WEIGHTS)
    name = next(key for key in weights if key.startswith("head.linear"))
    weights[name].reshape(-1)[0] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    message = refusal(folder)
    assert message.startswith(f"{folder / WEIGHTS}: its weights {name} hold NaN or infinity.")


@pytest.mark.parametrize(
    "changes", [{"dims": {"text": 10**9, "audio": 48, "vision": 24}}, {"dims": {"text": 10**7}}]
)
def test_settings_of_a_much_larger_network(folder, changes):
    changed(folder, SETTINGS, **changes)
    message = refusal(folder)
    assert message.startswith(f"{folder / WEIGHTS}: holds ")
    assert "settings in config.json beside it ask for" in message


def test_a_width_of_a_billion(folder):
    content = json.loads((folder / SETTINGS).read_text())
    changed(folder, SETTINGS, model={**content["model"], "width": 10**9})
    assert "width: must be less than or equal to 65536, got 1000000000" in refusal(folder)


def test_a_prediction_that_is_no_number(folder):
    weights = load_file(folder / WEIGHTS)
    for name in weights:
        if name.startswith("head.") and weights[name].dtype == np.float32:
            weights[name][...] = 3e38
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert "is not a finite number" in refusal(folder)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_no_nan_leaves_in_a_table(tmp_path, ending):
    table = pa.table({"a": [1.5, math.nan, math.inf], "b": [[1.0, math.nan], None, []]})
    write_table(table, tmp_path / f"x{ending}")
    text = (tmp_path / f"x{ending}").read_text()
    assert "nan" not in text.lower()
    assert "inf" not in text.lower()


def test_the_command_says_it_and_exits_with_1(folder, capsys):
    (folder / "metrics.json").write_text("[]")
    assert main(["evaluate", str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"RunError: {folder / 'metrics.json'}: damaged")
