"""Commands killed at random moments and given again: the end is that of an undisturbed one.

``mmcl train`` is killed in tests/flow/test_resume.py, and ``mmcl serve`` in
tests/serve/test_real_recordings.py. What is not killed runs in this process.
"""

import json
import pickle
import random
import time

import numpy as np
import pytest

from fakes.commands import started
from fakes.talking import NEEDED, write_recording
from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus

MOMENT = 3.0  # seconds after the first file, at most, at which a command is killed


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killing")
    settings = PlantSettings(train=40, valid=10, test=10)
    write_corpus(folder / "planted.arrow", plant_card(settings), plant_clips(settings))
    generator = np.random.default_rng(1)
    split = {
        "text": generator.normal(size=(400, 20, 30)).astype(np.float32),
        "audio": generator.normal(size=(400, 20, 20)).astype(np.float32),
        "vision": generator.normal(size=(400, 20, 10)).astype(np.float32),
        "id": [f"v{at}$_$0" for at in range(400)],
        "regression_labels": generator.uniform(-3, 3, 400).astype(np.float32),
    }
    (folder / "foreign.pkl").write_bytes(pickle.dumps({"train": split}))
    return folder


def run_killed(words, out, seed, kills):
    """Kill a command at random moments after its first file, then let it end."""
    moments = random.Random(seed)
    for _ in range(kills):
        with started(*words) as process:
            while process.poll() is None and not any(out.parent.rglob("*")):
                time.sleep(0.01)
            time.sleep(moments.uniform(0, MOMENT))
            process.kill()
            process.wait()
    run(words)


def run(words):
    assert main([str(word) for word in words]) == 0


def left_over(folder):
    return [path for path in folder.rglob(".*") if path.name.startswith(".")]


def ends_of(command, tmp_path, name, read, *, seed, kills):
    """Return what a command has made after it was killed on the way, and when it was not."""
    ends = []
    for how in ("killed", "whole"):
        out = tmp_path / how / name
        out.parent.mkdir()
        words = command(out)
        if how == "killed":
            run_killed(words, out, seed, kills)
        else:
            run(words)
        ends.append(read(out))
        assert left_over(out.parent) == []
    return ends


@pytest.mark.slow
def test_killed_search_draws_the_same_trials(home, tmp_path):
    pytest.importorskip("optuna")

    def command(out):
        words = ["tune", home / "planted.arrow", "--out", out, "--trials", "4", "--seeds", "1"]
        return [*words, "--set", "learning.epochs=2", "--set", "runtime.threads=1"]

    def trials(out):
        content = json.loads((out / "tuning.json").read_text())
        return [(trial["value"], trial["params"]) for trial in content["trials"]]

    killed, whole = ends_of(command, tmp_path, "search", trials, seed=2, kills=2)
    assert killed == whole
    assert len(whole) == 4


@pytest.mark.slow
def test_killed_conversion_gives_the_same_file(home, tmp_path):
    def command(out):
        return ["corpus", "convert", home / "foreign.pkl", out, "--max-lost", "1"]

    killed, whole = ends_of(
        command, tmp_path, "corpus.arrow", lambda out: out.read_bytes(), seed=3, kills=1
    )
    assert killed == whole


@pytest.mark.slow
def test_killed_comparison_has_the_same_table(home, tmp_path):
    def command(out):
        words = ["compare", home / "planted.arrow", "--out", out, "--models", "text_only"]
        words += ["--seeds", "2", "--workers", "1", "--set", "learning.epochs=10"]
        return [*words, "--set", "runtime.threads=1"]

    def table(out):
        content = json.loads((out / "comparison.json").read_text())
        for row in content["rows"]:
            del row["cost"]  # seconds and memory
        return content["rows"], content["tests"], content["best"]

    killed, whole = ends_of(command, tmp_path, "comparison", table, seed=4, kills=2)
    assert killed == whole


@pytest.mark.slow
def test_killed_extraction_gives_the_same_file(tmp_path):
    for package in NEEDED:
        pytest.importorskip(package)
    (tmp_path / "talks").mkdir()
    for index in range(4):
        write_recording(tmp_path / "talks" / f"talk{index}.mp4", 1.0 + index / 2)
        (tmp_path / "talks" / f"talk{index}.txt").write_text("It is good.")

    def command(out):
        return ["extract", tmp_path / "talks", "--out", out]

    def files(out):
        return {path.name: path.read_bytes() for path in out.parent.iterdir()}

    killed, whole = ends_of(command, tmp_path, "corpus.arrow", files, seed=5, kills=2)
    assert killed == whole
    assert whole.keys() == {"corpus.arrow", "errors.csv"}
