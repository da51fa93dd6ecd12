"""Summaries over seeds: worked by hand, then what becomes of seeds without a value."""

import json
import math

import numpy as np
import pytest

from mmcl.evaluation.summary import Summary, summarise, summarise_seeds

# A handful of float64 operations.
EXACT = 1e-12
# Quantiles below are copied from a printed t table with three decimals.
TABLE = 1e-3


def test_summary_worked_by_hand():
    found = summarise([1.0, 2.0, 6.0])
    std = math.sqrt((4 + 1 + 9) / 2)
    half_width = 4.303 * std / math.sqrt(3)  # t table, two degrees of freedom, 97.5%

    assert found.mean == pytest.approx(3.0, abs=EXACT)
    assert found.std == pytest.approx(std, abs=EXACT)
    assert found.low == pytest.approx(3.0 - half_width, abs=2 * TABLE)
    assert found.high == pytest.approx(3.0 + half_width, abs=2 * TABLE)
    assert (found.values, found.num_valid) == ((1.0, 2.0, 6.0), 3)


@pytest.mark.parametrize(("num_seeds", "quantile"), [(2, 12.706), (5, 2.776), (10, 2.262)])
def test_interval_follows_the_t_table(num_seeds, quantile):
    found = summarise(list(range(num_seeds)))
    half_width = (found.high - found.low) / 2
    assert half_width / (found.std / math.sqrt(num_seeds)) == pytest.approx(quantile, abs=TABLE)


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(20)
    found = [summarise(list(generator.normal(5.0, 2.0, 4))) for _ in range(2000)]
    covered = sum(summary.low < 5.0 < summary.high for summary in found) / 2000
    # Binomial s.e. of .95 over 2000 draws is .005; a normal quantile would cover .85.
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("failed", [math.nan, math.inf, -math.inf])
def test_failed_seeds_are_counted_not_averaged(failed):
    found = summarise([1.0, failed, 3.0])
    expected = summarise([1.0, 3.0])
    assert found[:4] == expected[:4]
    assert found.num_valid == 2
    assert found.values[0::2] == (1.0, 3.0)
    assert not math.isfinite(found.values[1])


def test_one_seed_has_a_mean_and_no_spread():
    found = summarise([0.7])
    assert (found.mean, found.num_valid) == (0.7, 1)
    assert all(math.isnan(value) for value in (found.std, found.low, found.high))


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_valid_seed_has_no_mean(values):
    found = summarise(values)
    assert all(math.isnan(value) for value in found[:4])
    assert (len(found.values), found.num_valid) == (len(values), 0)


def test_equal_seeds_have_no_width():
    assert summarise([0.5, 0.5, 0.5])[:4] == (0.5, 0.0, 0.5, 0.5)


def test_order_of_the_seeds_changes_nothing_but_the_values():
    values = [0.3, 0.1, 0.9]
    found, turned = summarise(values), summarise(values[::-1])
    assert turned[:4] == pytest.approx(found[:4], abs=EXACT)
    assert turned.values == (0.9, 0.1, 0.3)


def test_as_dict_is_strict_json():
    found = summarise([0.5, math.nan]).as_dict()
    assert found == {
        "mean": 0.5,
        "std": None,
        "low": None,
        "high": None,
        "values": [0.5, None],
        "num_valid": 1,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_as_dict_keeps_finite_numbers():
    summary = Summary(2.0, 1.0, 1.5, 2.5, (1.0, 3.0), 2)
    assert summary.as_dict() == {
        "mean": 2.0,
        "std": 1.0,
        "low": 1.5,
        "high": 2.5,
        "values": [1.0, 3.0],
        "num_valid": 2,
    }


def test_numpy_values_become_plain_floats():
    found = summarise(np.array([1.0, 2.0], dtype=np.float32))
    assert {type(value) for value in (*found[:4], *found.values)} == {float}
    assert type(found.num_valid) is int


def test_seeds_are_summarised_by_key():
    found = summarise_seeds([{"mae": 1.0, "corr": 0.5}, {"mae": 3.0, "corr": math.nan}])
    assert list(found) == ["mae", "corr"]
    assert found["mae"] == summarise([1.0, 3.0])
    assert (found["corr"].mean, found["corr"].num_valid) == (0.5, 1)


def test_key_that_a_seed_lacks_is_not_valid_there():
    found = summarise_seeds([{"mae": 1.0}, {"mae": 2.0, "corr": 0.5}])
    assert (found["corr"].mean, found["corr"].num_valid) == (0.5, 1)
    assert math.isnan(found["corr"].values[0])


def test_no_seed_has_no_metric():
    assert summarise_seeds([]) == {}
