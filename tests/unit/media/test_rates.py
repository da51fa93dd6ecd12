"""Means over words and intervals: worked by hand, then by the laws they must keep."""

import itertools

import numpy as np
import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import ShapeError
from mmcl.media.rates import steps_at_rate, steps_per_word

# Means are taken in float64 and stored in float32: one rounding.
TOLERANCE = {"rtol": 1e-6, "atol": 0.0}


def word(start, end):
    return Word(text="w", start=start, end=end)


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture
def track(random):
    """Five seconds at 10/s, three columns, one step in five not measured."""
    times = np.arange(50) / 10
    return times, random.normal(size=(50, 3)).astype(np.float32), random.random(50) > 0.2


@pytest.fixture
def words(random):
    edges = np.sort(random.random(13)) * 5
    return [word(a, b) for a, b in itertools.pairwise(edges)]


def test_words_worked_by_hand():
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    steps = np.float32([[1, 10], [2, 20], [4, 40], [8, 80], [16, 160]])
    found = np.array([True, True, False, True, True])
    words = [
        word(0.0, 0.2),  # 1 and 2; the step at its end is the next word's
        word(0.1, 0.4),  # overlaps: 2 and 8, since 4 was not measured
        word(0.2, 0.3),  # its only step was not measured
        word(0.31, 0.34),  # holds none; the nearest to .325 is at .3
        word(0.36, 0.36),  # no length; nearest is at .4
        word(0.46, 0.9),  # middle .68: nothing within .05
        Word(text="untimed"),
    ]
    means, has_mean = steps_per_word(times, steps, found, words)
    expected = [1.5, 5.0, 0.0, 8.0, 16.0, 0.0, 0.0]
    np.testing.assert_allclose(means, np.outer(expected, [1, 10]), **TOLERANCE)
    assert has_mean.tolist() == [True, True, False, True, True, False, False]
    assert means.dtype == np.float32


def test_rate_worked_by_hand():
    times = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55])
    steps = np.float32([[1], [3], [5], [7], [9], [50]])
    found = np.array([True, True, True, False, True, True])
    means, has_mean = steps_at_rate(times, steps, found, 5.0, 0.0, 0.5)
    assert means[:, 0].tolist() == [2.0, 5.0, 9.0]  # the last interval is half as long
    assert has_mean.tolist() == [True, True, True]
    means, has_mean = steps_at_rate(times, steps, found, 10.0, 0.2, 0.5)
    assert means[:, 0].tolist() == [5.0, 0.0, 9.0]
    assert has_mean.tolist() == [True, False, True]


def test_rate_above_the_steps_own_repeats_the_nearest():
    steps = np.float32([[1], [3]])
    means, has_mean = steps_at_rate(np.array([0.05, 0.15]), steps, np.ones(2, bool), 20, 0.0, 0.2)
    assert means[:, 0].tolist() == [1.0, 1.0, 3.0, 3.0]
    assert has_mean.all()


def test_rate_of_one_interval_per_step_returns_the_steps(track):
    times, steps, found = track
    means, has_mean = steps_at_rate(times, steps, found, 10.0, 0.0, 5.0)
    np.testing.assert_array_equal(means, steps * found[:, None])
    np.testing.assert_array_equal(has_mean, found)


def test_means_of_constants_are_the_constant(track, words):
    times, steps, found = track
    constant = np.full_like(steps, 0.1)
    means, has_mean = steps_per_word(times, constant, found, words)
    assert has_mean.sum() > 6
    np.testing.assert_allclose(means[has_mean], 0.1, **TOLERANCE)
    assert not means[~has_mean].any()


def test_means_follow_their_own_word(track, words, random):
    order = random.permutation(len(words))
    means, has_mean = steps_per_word(*track, words)
    shuffled, has_shuffled = steps_per_word(*track, [words[at] for at in order])
    np.testing.assert_array_equal(shuffled, means[order])
    np.testing.assert_array_equal(has_shuffled, has_mean[order])


@pytest.mark.parametrize("shift", [0.1, 1000.1, -0.3])
def test_moving_every_time_changes_nothing(track, shift):
    times, steps, found = track
    edges = np.arange(0, 11) * 0.3  # every edge is the time of a step
    pairs = list(itertools.pairwise(edges))
    means, has_mean = steps_per_word(times, steps, found, [word(a, b) for a, b in pairs])
    later = [word(a + shift, b + shift) for a, b in pairs]
    moved, has_moved = steps_per_word(times + shift, steps, found, later)
    np.testing.assert_array_equal(moved, means)
    np.testing.assert_array_equal(has_moved, has_mean)
    np.testing.assert_array_equal(
        steps_at_rate(times + shift, steps, found, 3.0, shift, 5.0 + shift)[0],
        steps_at_rate(times, steps, found, 3.0, 0.0, 5.0)[0],
    )


def test_rounding_moves_no_step_over_an_edge():
    times = np.array([0.7 - 0.4])  # a hair below .3
    means, has_mean = steps_per_word(
        times, np.float32([[2]]), np.ones(1, bool), [word(0.2, 0.3), word(0.3, 0.4)]
    )
    assert has_mean.tolist() == [False, True]
    assert means[:, 0].tolist() == [0.0, 2.0]


def test_unmeasured_steps_count_for_nothing_whatever_they_hold(track, words):
    times, steps, found = track
    spoilt = np.where(found[:, None], steps, np.nan)
    np.testing.assert_array_equal(
        steps_per_word(times, spoilt, found, words)[0],
        steps_per_word(times, steps, found, words)[0],
    )


def test_nothing_gives_nothing():
    none = np.zeros(0), np.zeros((0, 3), np.float32), np.zeros(0, bool)
    means, has_mean = steps_per_word(*none, [word(0.0, 1.0)])
    assert means.tolist() == [[0.0, 0.0, 0.0]]
    assert has_mean.tolist() == [False]
    one = np.zeros(1), np.ones((1, 3), np.float32), np.ones(1, bool)
    assert steps_per_word(*one, [])[0].shape == (0, 3)
    assert steps_at_rate(*one, 10.0, 1.0, 1.0)[0].shape == (0, 3)


def test_one_step_serves_the_word_that_holds_it():
    one = np.array([0.5]), np.float32([[4.0]]), np.ones(1, bool)
    means, has_mean = steps_per_word(*one, [word(0.0, 1.0), word(0.6, 0.7)])
    assert means[:, 0].tolist() == [4.0, 0.0]
    assert has_mean.tolist() == [True, False]


@pytest.mark.parametrize(
    ("times", "num_steps", "message"),
    [
        pytest.param(
            [0.0, 0.1],
            3,
            "times [T], steps [T, d] and measured [T] must agree on T, "
            "got shapes [2], [3, 2] and [3]",
            id="counts",
        ),
        pytest.param(
            [0.0, 0.2, 0.1], 3, "times must rise, got 0.1 s after 0.2 s at step 2", id="order"
        ),
    ],
)
def test_refuses_what_does_not_fit(times, num_steps, message):
    steps, found = np.zeros((num_steps, 2), np.float32), np.ones(num_steps, bool)
    with pytest.raises(ShapeError) as caught:
        steps_per_word(np.array(times), steps, found, [word(0.0, 1.0)])
    assert str(caught.value) == message
