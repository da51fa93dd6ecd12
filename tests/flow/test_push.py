"""``mmcl push`` and ``mmcl.from_pretrained``: a folder, and a Hub that is a stand-in."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import mmcl
from fakes.hub import FakeHub
from mmcl.errors import RunError, UsageError
from mmcl.runs.run import Run

EARLIER = Path(__file__).parents[1] / "golden" / "earlier-run"
OF_A_SEED = ("done.json", "history.csv", "model/config.json", "model/model.safetensors")
FILES = {"README.md", "run.json", "metrics.json"}
FILES |= {f"seed-{seed}/{name}" for seed in (1, 2) for name in OF_A_SEED}
CORPUS = EARLIER / "planted.arrow"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a run in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EARLIER / "run", tmp_path / "run")
    return tmp_path


@pytest.fixture
def hub(folder, monkeypatch):
    return FakeHub(folder, monkeypatch)


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_the_run_and_its_card(folder, run):
    assert run("push", "run", "./mine") == (0, "mine: read the card: mine/README.md\n", "")
    assert files_of(folder / "mine") == FILES
    published = mmcl.from_pretrained("./mine")
    assert published.predict(CORPUS) == Run.load("run").predict(CORPUS)
    assert published.metrics == Run.load("run").metrics


def test_a_hub_gets_the_same_and_gives_settings_and_safetensors_alone(hub, run):
    stale = hub.repository("me/mine") / "seed-3/done.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    code, out, err = run("push", "run", "me/mine", "--licence", "cc-by-4.0")
    assert (code, out, err) == (0, "https://hub.example/me/mine\n", "")
    assert files_of(hub.repository("me/mine")) == FILES
    for other in ("pytorch_model.bin", "modeling.py", "seed-1/model/optimizer.pt"):
        (hub.repository("me/mine") / other).write_bytes(b"cos\nsystem\n")

    published = mmcl.from_pretrained("me/mine")
    assert files_of(published.folder) == FILES
    assert published.name == "me/mine"
    assert published.predict(CORPUS) == Run.load("run").predict(CORPUS)


def test_the_card_says_what_the_run_says(hub, run):
    assert run("push", "run", "me/mine", "--licence", "cc-by-4.0")[0] == 0
    _, header, text = (hub.repository("me/mine") / "README.md").read_text().split("---\n", 2)
    content, metrics = yaml.safe_load(header), Run.load("run").metrics
    assert content["license"] == "cc-by-4.0"
    assert (content["library_name"], content["pipeline_tag"]) == ("mmcl", "video-classification")
    (result,) = content["model-index"][0]["results"]
    assert result["dataset"] == {"name": "planted", "type": "planted", "split": "test"}
    told = [entry["value"] for entry in result["metrics"]]
    assert told == [summary["mean"] for summary in metrics["test"].values()]
    mae = metrics["test"]["mae"]
    low, high = f"{mae['low']:.3f}", f"{mae['high']:.3f}"
    assert f"| {mae['mean']:.3f} ± {mae['std']:.3f} ({low} to {high}) |" in text
    assert 'mmcl.from_pretrained("me/mine")' in text
    assert '| `policy.kind` | "rloo" | "gate" |' in text
    assert "`policy.samples`" not in text  # as the defaults have it
    assert "It says nothing of people: it has seen no recording." in text
    assert "The model: cc-by-4.0." in text


def test_nothing_names_files_of_this_machine(folder, run):
    note = "no face in secret-talk.mp4"
    description = json.loads((folder / "run/run.json").read_text())
    description["corpus"] |= {"notes": [note], "account": {"source": ["secret-talk.mp4"]}}
    description["config"]["learning"]["start"] = "/home/secret/runs/base"
    description["start"] = {"run": "/home/secret/runs/base", "seed": 1, "sha256": "0"}
    (folder / "run/run.json").write_text(json.dumps(description))
    metrics = json.loads((folder / "run/metrics.json").read_text())
    metrics["notes"] = [note, "started from /home/secret/runs/base (seed 1): took text"]
    (folder / "run/metrics.json").write_text(json.dumps(metrics))

    assert run("push", "run", "./mine")[0] == 0
    holding = [
        p for p in files_of(folder / "mine") if b"secret" in (folder / "mine" / p).read_bytes()
    ]
    assert holding == []
    published = mmcl.from_pretrained("./mine")
    assert published.metrics["notes"] == ["started from base (seed 1): took text"]
    assert published.config.learning.start is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["mine"],
            'expected owner/name or a folder such as ./folder, got "mine".\n'
            "  If it is meant as a folder: ./mine",
            id="neither",
        ),
        pytest.param(
            ["me/mine"],
            "a model on the Hub needs a licence, and the run does not say which.\n"
            "  Give it by the Hub's name: --licence apache-2.0, cc-by-nc-4.0 or other, for example",
            id="no-licence",
        ),
        pytest.param(
            ["./mine", "--licence", "Apache 2"],
            "--licence takes a name as the Hub has it, such as apache-2.0 or cc-by-nc-4.0, got "
            '"Apache 2"',
            id="licence",
        ),
    ],
)
def test_wrong_use_is_refused(folder, run, words, message):
    assert run("push", "run", *words) == (2, "", f"UsageError: {message}\n")


def test_what_is_there_is_not_overwritten(folder, run):
    code, _, err = run("push", "run", "./run")
    assert (code, err) == (
        1,
        "RunError: run: holds files already; nothing was changed.\n"
        "  Give a new folder: mmcl push RUN ./FOLDER\n",
    )
    assert files_of(folder / "run") == files_of(EARLIER / "run")


def test_a_damaged_run_is_not_published(hub, run):
    Path("run/seed-2/model/model.safetensors").write_bytes(b"\0" * 16)
    code, _, err = run("push", "run", "me/mine", "--licence", "mit")
    assert code == 1
    assert err.startswith("RunError: run/seed-2/model: the network cannot be loaded")
    assert hub.uploads == []


def test_a_hub_that_cannot_be_reached(hub):
    with pytest.raises(RunError) as caught:
        mmcl.from_pretrained("me/nothing")
    assert str(caught.value) == (
        "me/nothing: cannot be downloaded (it is not there).\n"
        "  Check the name and the network. If you are not logged in: hf auth login"
    )
    with pytest.raises(UsageError):
        mmcl.from_pretrained("nothing")
