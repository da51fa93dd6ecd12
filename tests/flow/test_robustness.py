"""``mmcl robustness`` as a user types it."""

import json
from pathlib import Path

import pytest
import typer

from mmcl.cli.main import main
from mmcl.cli.options import releasing_outputs
from mmcl.cli.robustness import robustness_command
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.errors import DatasetError, DiskError, RunError

app = typer.Typer(rich_markup_mode=None)
app.command("robustness")(robustness_command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_overrides):
    """A folder with a corpus and a run of two seeds."""
    folder = tmp_path_factory.mktemp("robustness")
    settings = PlantSettings(train=24, valid=8, test=8)
    write_corpus(folder / "planted.arrow", plant_card(settings), plant_clips(settings))
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    words = ["train", str(folder / "planted.arrow"), "--out", str(folder / "run")]
    assert main([*words, "--seeds", "1,2", *small]) == 0
    return folder


@pytest.fixture
def call(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def run(*words):
        capsys.readouterr()
        with releasing_outputs():  # as the program does
            app([str(word) for word in words], standalone_mode=False)
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def test_table_words_and_file(call, folder):
    out, err = call("run", "planted.arrow")
    assert err == ""
    content = json.loads((folder / "run" / "robustness" / "robustness.json").read_text())
    assert content["command"] == "mmcl robustness run planted.arrow"
    assert (content["split"], content["seeds"]) == ("test", [1, 2])
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert content["steps"]["mae"][0] == metrics["test"]["mae"]
    lines = out.splitlines()
    assert lines[0].strip() == "calibrated on planted, test split, mean of 2 seeds"
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    for at, rate in enumerate(content["rates"]):
        assert rows[f"{rate:g}"][1] == f"{content['steps']['mae'][at]['mean']:.3f}"
    assert rows["area"][2] == f"{content['areas']['mae']['mean']:.3f}"
    assert rows["text+audio"][1] == f"{content['subsets'][3]['metrics']['mae']['mean']:.3f}"
    assert rows["best"][2] == f"{content['line']['mae']['value']:.3f}"
    written = ["run/robustness/robustness.json", "run/robustness/report.html"]
    assert lines[-2:] == written
    assert max(map(len, lines)) <= 80


def test_another_split_and_folder(call, folder):
    out, _ = call("run", "planted.arrow", "--split", "valid", "--out", "a b")
    assert out.splitlines()[-2:] == ["a b/robustness.json", "a b/report.html"]
    content = json.loads((folder / "a b" / "robustness.json").read_text())
    assert content["command"] == "mmcl robustness run planted.arrow --out 'a b' --split valid"
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert content["steps"]["mae"][0] == metrics["valid"]["mae"]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        app(["--help"])
    assert stop.value.code == 0
    assert "mmcl robustness runs/planted planted.arrow" in capsys.readouterr().out


def test_no_run_and_no_corpus(call):
    with pytest.raises(RunError) as caught:
        call("nothing", "planted.arrow")
    assert str(caught.value) == (
        "nothing: no such run folder.\n  Make one: mmcl train CORPUS --out nothing"
    )
    with pytest.raises(DatasetError, match=r"nothing\.arrow: no such file"):
        call("run", "nothing.arrow")


def test_folder_that_cannot_be_made(call):
    Path("a-file").write_text("")
    with pytest.raises(DiskError, match=r"^a-file: nothing can be written there"):
        call("run", "planted.arrow", "--out", "a-file")
