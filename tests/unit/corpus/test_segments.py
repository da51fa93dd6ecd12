"""Steps by their times: cut and averaged, worked by hand."""

import numpy as np
import pytest

from mmcl.corpus.readers.segments import average_over, overlapping

FRAMES = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.5], [1.5, 2.0]])


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        (0.5, 1.5, [1, 2]),  # the neighbours touch and share no time
        (0.4, 1.6, [0, 1, 2, 3]),
        (0.500001, 1.0, [1]),  # a rounding of the times
        (0.999999, 1.5, [2]),
        (2.0, 3.0, []),
    ],
)
def test_steps_that_share_time(start, end, rows):
    assert overlapping(FRAMES, start, end).tolist() == rows


def test_long_step_before_shorter_ones_is_found():
    steps = np.array([[0.0, 9.0], [1.0, 2.0], [3.0, 4.0]])
    assert overlapping(steps, 5.0, 6.0).tolist() == [0]


def test_average_worked_by_hand():
    features = np.array([[1, 2], [3, -np.inf], [np.nan, 6], [7, np.inf]], dtype=np.float32)
    words = np.array([[0.0, 1.0], [1.0, 2.0], [1.6, 1.9], [5.0, 6.0]])

    averages = average_over(words, FRAMES, features)

    expected = [[2, 2], [7, 6], [7, np.nan], [0, 0]]
    np.testing.assert_array_equal(averages.features, np.array(expected, dtype=np.float32))
    # -inf, NaN, and inf twice: the second and the third word share the last step.
    assert (averages.num_empty, averages.num_ignored) == (1, 4)
