"""``mmcl explain`` as a user types it, on tiny runs of both variants."""

import json
import re

import pytest

from mmcl.cli.explain import explain_command
from mmcl.cli.main import app, main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_overrides):
    """A folder with a corpus and a run of each variant."""
    folder = tmp_path_factory.mktemp("explain")
    settings = PlantSettings(train=24, valid=8, test=8)
    corpus = write_corpus(folder / "planted.arrow", plant_card(settings), plant_clips(settings))
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    for variant in ("calibrated", "released"):
        words = ["--out", str(folder / variant), "--model", variant, *small]
        assert main(["train", str(corpus), *words]) == 0
    return folder


@pytest.fixture
def run(capsys, monkeypatch, folder):
    monkeypatch.chdir(folder)
    if "explain" not in [each.name for each in app.registered_commands]:
        monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))
        app.command("explain")(explain_command)

    def call(*words):
        capsys.readouterr()
        code = main(["explain", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_explain_writes_two_files_and_says_what_it_found(folder, run, variant):
    code, out, err = run(variant, "planted.arrow")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"{variant} on planted" in lines[0]
    assert lines[-3:] == [
        f"{variant}/explanation/explanation.json",
        f"{variant}/explanation/clips.jsonl",
        f"{variant}/explanation/report.html",
    ]
    content = json.loads((folder / variant / "explanation" / "explanation.json").read_text())
    joined = " ".join(out.split())
    assert all(sentence in joined for sentence in content["conclusions"])
    area = content["curves"]["deletion"]["actions"]["area"]
    assert re.search(rf"what the policies keep +│ +{area:.3f} ", out)
    assert content["command"] == (
        f"mmcl explain {variant} planted.arrow --split test --clips 200 --out {variant}/explanation"
    )
    assert len((folder / variant / "explanation" / "clips.jsonl").read_text().splitlines()) == 8


def test_explain_takes_a_split_a_number_and_a_folder(folder, run):
    words = ("--split", "valid", "--clips", "3", "--out", "mine")
    assert run("calibrated", "planted.arrow", *words)[0] == 0
    content = json.loads((folder / "mine" / "explanation.json").read_text())
    assert (content["split"], content["curves"]["clips"]) == ("valid", 3)


def test_wrong_split_is_told(run):
    code, out, err = run("calibrated", "planted.arrow", "--split", "tset")
    assert (code, out) == (2, "")
    assert "Invalid value for '--split'" in err
    assert "'tset' is not one of 'test', 'valid'" in err


def test_no_run_is_told(run):
    code, out, err = run("nowhere", "planted.arrow")
    assert (code, out) == (1, "")
    assert err == (
        "RunError: nowhere: no such run folder.\n  Make one: mmcl train CORPUS --out nowhere\n"
    )
