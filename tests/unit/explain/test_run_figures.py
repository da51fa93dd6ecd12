"""The section of a run: what its folder holds, of each kind of task."""

import copy
import math
import re

import pytest

from mmcl.explain.comparison_words import number
from mmcl.explain.run_figures import confusion, emotion_rates, read_run, run_section
from mmcl.runs.run import train


@pytest.fixture(scope="module")
def run(tiny_corpus, tiny_config, tmp_path_factory):
    return train(tiny_corpus, tiny_config(), out=tmp_path_factory.mktemp("run"), seeds=(3, 7))


@pytest.fixture(scope="module")
def content(run):
    return read_run(run.folder / "metrics.json")


def test_run_is_read_from_its_folder(run, content):
    assert content["metrics"] == run.metrics
    assert list(content["history"]) == [3, 7]
    for seed, rows in content["history"].items():
        own = [row.valid_loss for row in run.fitted(seed).history]
        assert [row["valid_loss"] for row in rows] == own
    clips = [row["id"] for row in content["predictions"]]
    assert len(clips) == 16  # eight test clips, two seeds
    assert all(each.startswith("test_") for each in clips)


def test_section_shows_metrics_of_both_splits_and_references(content):
    text = str(run_section(content))
    row = re.search(r'<th scope="row">MAE ↓</th>(.*?)</tr>', text, re.S).group(1)
    cells = [re.sub(r"<.*?>", "", each).split() for each in re.findall(r"<td.*?>(.*?)</td>", row)]
    metrics = content["metrics"]
    expected = [
        [number(metrics[part]["mae"]["mean"]), "±", number(metrics[part]["mae"]["std"])]
        for part in ("valid", "test")
    ]
    expected += [[number(each["test"]["mae"])] for each in metrics["references"].values()]
    assert cells == expected
    labels = re.findall(r'data-label="(\w+)"', row)
    assert labels == ["validation", "test", *metrics["references"]]


def test_section_draws_a_curve_per_seed_and_the_mean_prediction(content):
    text = str(run_section(content))
    assert 'id="curve-valid-loss"' in text
    for seed in content["metrics"]["seeds"]:
        assert f"seed {seed}" in text
    block = re.search(r'newPlot\(\s*"scatter",(.*)', text, re.S).group(1)
    first = content["predictions"][0]["id"]
    each = [row["prediction"] for row in content["predictions"] if row["id"] == first]
    assert len(each) == 2
    drawn = re.search(r'"y":\[(-?[\d.]+),[^]]{20,}\]', block).group(1)
    assert float(drawn) == pytest.approx(math.fsum(each) / 2, abs=0.0006)  # drawn to 3 decimals


@pytest.mark.parametrize(
    ("kind", "answers", "shown", "hidden"),
    [
        pytest.param(
            "classes", (0, 1), "happy taken for sad: 100.0%", "predicted for these", id="classes"
        ),
        pytest.param(
            "emotions", ([1, 0], [1, 1]), "predicted for these", "taken for", id="emotions"
        ),
    ],
)
def test_section_of_other_tasks(content, kind, answers, shown, hidden):
    truth, prediction = answers
    other = copy.deepcopy(content)
    other["run"]["corpus"]["task"] = {"kind": kind, "names": ["happy", "sad"]}
    other["predictions"] = [{"id": "a", "seed": 3, "truth": truth, "prediction": prediction}]
    text = str(run_section(other))
    assert shown in text
    assert hidden not in text
    assert 'id="scatter"' not in text


def test_confusion_worked_by_hand():
    pairs = [(0, 0), (0, 0), (0, 1), (0, -1), (1, 2), (1, 1)]  # -1: the scores had a nan
    found = confusion([{"truth": t, "prediction": p} for t, p in pairs], ["a", "b", "c"])
    assert found.shares == [[0.5, 0.25, 0.0], [0.0, 0.5, 0.5], None]
    assert found.counts == [4, 2, 0]


def test_emotion_rates_worked_by_hand():
    truth = [[1, 0], [1, 0], [0, 0], [0, 0], [0, 0]]
    said = [[1, 0], [0, 1], [1, 0], [0, 0], [0, 0]]
    rows = [{"truth": t, "prediction": p} for t, p in zip(truth, said, strict=True)]
    assert emotion_rates(rows, ["sad", "angry"]) == [
        ("sad", 2, 0.5, 1 / 3),
        ("angry", 0, None, 0.2),
    ]
