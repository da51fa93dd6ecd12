"""Tests of the summary, against counts made by hand on five clips, for each task."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from mmcl.corpus.describe import describe, render
from mmcl.corpus.schema import Card, Clip, Repairs, Task
from mmcl.corpus.store import pack_corpus


def clip(name, split, label, *, steps=2, zero=0, audio=True):
    text = np.ones((steps, 3), dtype=np.float32)
    text[:zero] = 0
    features = {"text": text}
    if audio:
        features["audio"] = np.ones((1, 2), dtype=np.float32)
    return Clip(id=name, split=split, features=features, label=label)


def corpus(task, labels, *, splits=("train", "train", "train", "valid", "test")):
    clips = [
        clip(f"c{index}", split, label, steps=index + 1, zero=index // 2, audio=index != 1)
        for index, (split, label) in enumerate(zip(splits, labels, strict=True))
    ]
    card = Card(
        name="toy",
        task=task,
        dims={"text": 3, "audio": 2},
        counts={},
        aligned=False,
        repairs={"audio": Repairs(nan=2)},
        notes=("seen",),
    )
    return pack_corpus(card, clips)


SCORES = Task(kind="regression", low=-1.0, high=1.0)
CLASSES = Task(kind="classes", names=("low", "high"))
EMOTIONS = Task(kind="emotions", names=("glad", "sad"))


def shown(summary):
    console = Console(width=100, file=io.StringIO())
    console.print(render(summary))
    return console.file.getvalue()


def test_regression_by_hand():
    summary = describe(corpus(SCORES, [-1.0, 0.2, 1.0, 0.5, None]))
    assert summary["counts"] == {"train": 3, "valid": 1, "test": 1}
    assert summary["lengths"]["text"] == {
        "train": {"min": 1, "median": 2.0, "max": 3},
        "valid": {"min": 4, "median": 4.0, "max": 4},
        "test": {"min": 5, "median": 5.0, "max": 5},
    }
    assert summary["lengths"]["audio"]["train"] == {"min": 1, "median": 1.0, "max": 1}
    assert summary["missing"] == {
        "text": {"train": 0, "valid": 0, "test": 0},
        "audio": {"train": 1, "valid": 0, "test": 0},
    }
    assert summary["zero_steps"]["text"] == {
        "train": {"zero": 1, "steps": 6},
        "valid": {"zero": 1, "steps": 4},
        "test": {"zero": 2, "steps": 5},
    }
    train = summary["labels"]["train"]
    assert len(train) == 10
    assert {name: count for name, count in train.items() if count} == {
        "-1..-0.8": 1,
        "0.2..0.4": 1,
        "0.8..1": 1,
    }
    assert summary["labels"]["test"]["unknown"] == 1
    assert summary["constant"] == {"prediction": 0.2, "mae": {"valid": pytest.approx(0.3)}}
    assert summary["repairs"] == {"audio": {"minus_inf": 0, "plus_inf": 0, "nan": 2}}
    assert json.loads(json.dumps(summary)) == summary


def test_wide_scores_are_counted_in_half_points():
    task = Task(kind="regression", low=-3.0, high=3.0)
    labels = describe(corpus(task, [-3.0, 0.0, 3.0, 2.999, 0.5]))["labels"]
    assert len(labels["train"]) == 12
    assert labels["train"]["-3..-2.5"] == labels["train"]["0..0.5"] == 1
    assert labels["train"]["2.5..3"] == labels["valid"]["2.5..3"] == labels["test"]["0.5..1"] == 1


@pytest.mark.parametrize(
    ("low", "high", "bins", "first", "last"),
    [
        (1, 5, 8, "1..1.5", "4.5..5"),
        (0, 10, 10, "0..1", "9..10"),
        (0, 100, 10, "0..10", "90..100"),
        (0, 1, 10, "0..0.1", "0.9..1"),
        (0, 255, 11, "0..25", "250..255"),
        (-50, 50, 10, "-50..-40", "40..50"),
        (-2, 2, 8, "-2..-1.5", "1.5..2"),
    ],
)
def test_bins_are_few_and_round_in_every_range(low, high, bins, first, last):
    task = Task(kind="regression", low=low, high=high)
    train = describe(corpus(task, [low, low, high, high, low]))["labels"]["train"]
    assert len(train) == bins
    assert next(iter(train)) == first
    assert list(train)[-1] == last
    assert (train[first], train[last]) == (2, 1)


def test_float32_label_is_counted_in_the_bin_it_was_written_in():
    task = Task(kind="regression", low=0.0, high=1.0)
    tenths = np.arange(3, 8, dtype=np.float32) / np.float32(10)  # 0.7 is 0.69999999
    counted = describe(corpus(task, tenths.tolist()))["labels"]
    assert [counted["train"][f"0.{n}..0.{n + 1}"] for n in (3, 4, 5)] == [1, 1, 1]
    assert counted["valid"]["0.6..0.7"] == counted["test"]["0.7..0.8"] == 1


def test_label_a_rounding_error_outside_is_counted():
    labels = describe(corpus(SCORES, [1.0000009, -1.0000009, 0.0, 0.0, 0.0]))["labels"]
    assert labels["train"]["-1..-0.8"] == labels["train"]["0.8..1"] == 1


def test_classes_by_hand():
    summary = describe(corpus(CLASSES, [1, 1, 0, 0, 1]))
    assert summary["labels"]["train"] == {"low": 1, "high": 2}
    assert summary["constant"] == {"prediction": "high", "accuracy": {"valid": 0.0, "test": 1.0}}


def test_emotions_by_hand():
    summary = describe(corpus(EMOTIONS, [(1, 0), (1, 0), (0, 1), (1, 1), None]))
    assert summary["labels"]["train"] == {"glad": 2, "sad": 1}
    assert summary["labels"]["test"] == {"glad": 0, "sad": 0, "unknown": 1}
    assert summary["constant"] == {
        "prediction": {"glad": 1, "sad": 0},
        "accuracy": {"valid": {"glad": 1.0, "sad": 0.0}},
    }


def test_constant_is_not_known_without_training_labels():
    without = corpus(SCORES, [0.1, 0.2], splits=("valid", "test"))
    assert describe(without)["constant"] is None
    text = shown(describe(without))
    assert "a constant: not known, since no training clip has a label" in text


def test_all_of_it_is_shown():
    text = shown(describe(corpus(SCORES, [-1.0, 0.2, 1.0, 0.5, 0.2])))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "toy: regression (-1..1), unaligned; clips: train 3, valid 1, test 1"
    assert "text 3 train 1 2 3 0 1 of 6" in lines
    assert "audio 2 train 1 1 1 1 0 of 2" in lines
    assert "0.2..0.4 1 0 1" in lines
    assert "a constant 0.2 scores: valid MAE 0.3000, test MAE 0.0000" in lines
    assert "repaired audio: minus_inf 0, plus_inf 0, nan 2" in lines
    assert lines[-1] == "note: seen"


@pytest.mark.parametrize(
    ("task", "labels", "line"),
    [
        (
            CLASSES,
            [1, 1, 0, 0, 1],
            'always "high" scores: valid accuracy 0.0000, test accuracy 1.0000',
        ),
        (
            EMOTIONS,
            [(1, 0), (1, 0), (0, 1), (1, 1), (1, 0)],
            "the more frequent answer per emotion scores: test accuracy glad 1.0000, sad 1.0000",
        ),
    ],
)
def test_constant_of_other_tasks_is_shown(task, labels, line):
    assert line in shown(describe(corpus(task, labels)))
