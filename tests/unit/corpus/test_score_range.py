"""The scale of a range: what counts as the field's own, what is neutral, and the way back."""

import pytest
import torch

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import ScoreScale, is_field_range, neutral_score, score_scale


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-3, 3, True),
        (-2, 2, True),
        (-1, 1, True),
        (-2.8, 2.6, True),
        (-1, 3, True),
        (-0.5, 0.5, False),  # every score would round to 0
        (-4, 4, False),
        (-3, 5, False),
        (0, 3, False),
        (-3, 0, False),
        (1, 5, False),
    ],
)
def test_range_of_the_field_holds_zero_and_ends_at_one_to_three(low, high, expected):
    assert is_field_range(low, high) is expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-3, 3, 0), (-1, 3, 0), (-50, 20, 0), (1, 5, 3), (0, 1, 0.5), (0, 100, 50), (-6, -2, -4)],
)
def test_neutral_is_zero_inside_the_range_and_its_middle_elsewhere(low, high, expected):
    assert neutral_score(low, high) == expected


def test_scale_of_the_field_returns_the_same_object():
    scores = torch.tensor([0.1, -2.0])
    for task in (
        Task(kind="regression", low=-3, high=3),
        Task(kind="regression", low=-1, high=1),
        Task(kind="classes", names=("a", "b")),
    ):
        scale = score_scale(task)
        assert scale == ScoreScale(0.0, 1.0)
        assert scale.to_field(scores) is scores
        assert scale.from_field(scores) is scores


@pytest.mark.parametrize(("low", "high"), [(1, 5), (0, 100), (0, 1), (-50, 50), (200, 300)])
def test_ends_and_middle_of_other_ranges_become_those_of_the_field(low, high):
    scale = score_scale(Task(kind="regression", low=low, high=high))
    points = torch.tensor([low, (low + high) / 2, high], dtype=torch.float64)
    field = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(scale.to_field(points), field)
    torch.testing.assert_close(scale.from_field(field), points)
