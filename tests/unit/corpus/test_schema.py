"""Tests of the schema: it refuses impossible values and adds up its counts."""

import numpy as np
import pytest
from pydantic import ValidationError

from mmcl.corpus.schema import Card, Clip, Repairs, Task


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "regression"}, "a regression task needs low and high, low below high"),
        (
            {"kind": "regression", "low": 1.0, "high": 1.0},
            "a regression task needs low and high, low below high",
        ),
        ({"kind": "classes", "names": ("one",)}, "a task of classes needs their names"),
        ({"kind": "emotions"}, "a task of emotions needs their names"),
    ],
)
def test_task_refuses_what_is_incomplete(fields, message):
    with pytest.raises(ValidationError, match=message):
        Task(**fields)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Task(kind="regression", low=-3.0, high=3.0), 1),
        (Task(kind="classes", names=("a", "b", "c")), 3),
        (Task(kind="emotions", names=("a", "b", "c")), 6),
    ],
)
def test_task_counts_its_outputs(task, expected):
    assert task.output_dim == expected


def test_repairs_add_up_kind_by_kind():
    both = Repairs(minus_inf=1, plus_inf=2, nan=3).plus(Repairs(minus_inf=10, nan=30))
    assert both == Repairs(minus_inf=11, plus_inf=2, nan=33)
    assert both.total == 46


def test_clip_refuses_unknown_modalities_and_fields():
    with pytest.raises(ValidationError, match="visual"):
        Clip(id="a", split="train", features={"visual": np.ones((1, 1))})
    with pytest.raises(ValidationError, match="labels"):
        Clip(id="a", split="train", features={}, labels=1.0)


def test_card_survives_json():
    card = Card(
        name="toy",
        task=Task(kind="classes", names=("a", "b")),
        dims={"text": 3},
        counts={"train": 2},
        aligned=False,
        columns={"text": ("x", "y", "z")},
        repairs={"text": Repairs(nan=4)},
        recipe={"reader": "plain"},
        notes=("a note",),
    )
    assert Card.model_validate_json(card.model_dump_json()) == card
