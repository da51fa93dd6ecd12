"""A corpus of stars from training to its pages: the middle is 3, and nothing leaves 1..5."""

import csv
import json

import numpy as np
import pytest

from mmcl.cli.main import main
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import write_corpus

NOTE = (
    "scores lie in 1..5: Acc-2 and F1 ask whether a score lies above or below 3, and a label of 3 "
    "counts as zero; left out, since their classes are those of -3..3: Acc-7, Acc-5, Acc-3"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 24 clips, whose first feature of text is their number of stars."""
    folder = tmp_path_factory.mktemp("stars")
    generator = np.random.default_rng(6)
    clips = []
    counts = {"train": 24, "valid": 8, "test": 8}
    for split, count in counts.items():
        for at in range(count):
            stars = 1.0 + at % 5
            text = generator.normal(size=(3, 4)).astype(np.float32)
            text[:, 0] += stars
            clips.append(Clip(id=f"{split}{at}", split=split, features={"text": text}, label=stars))
    task = Task(kind="regression", low=1, high=5)
    card = Card(name="stars", task=task, dims={"text": 4}, counts=counts, aligned=False)
    write_corpus(folder / "stars.arrow", card, clips)
    return folder


@pytest.fixture
def call(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        printed = capsys.readouterr()
        return printed.out, " ".join(printed.err.split()), " ".join(printed.out.split())

    return run


def test_stars_are_trained_predicted_compared_and_reported(call, folder, tiny_overrides):
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    _, err, out = call("train", "stars.arrow", "--out", "run", *small)
    assert f"note: {NOTE}" in err + out
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["notes"] == [NOTE]
    assert list(metrics["test"]) == [
        *("mae", "corr", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0")
    ]
    assert metrics["test"]["mae"]["mean"] < 2  # a network that begins at 0 is 3 off
    # Three of the eight test clips have 1 or 2 stars: the majority calls all of them positive.
    assert metrics["references"]["majority"]["test"]["acc2_non0"] < 1

    call("predict", "run", "stars.arrow", "--out", "predicted.csv")
    with (folder / "predicted.csv").open(newline="") as file:
        predictions = [float(row["prediction"]) for row in csv.DictReader(file)]
    assert 1 <= min(predictions) <= max(predictions) <= 5

    call("compare", "stars.arrow", "--models", "text_only", "--out", "compared", *small)
    compared = json.loads((folder / "compared" / "comparison.json").read_text())
    assert compared["metrics"] == ["mae", "corr", "acc2_non0"]
    assert NOTE in compared["notes"]

    call("report", "run", "--out", "report.html")
    assert "Acc-7, Acc-5, Acc-3" in (folder / "report.html").read_text()
