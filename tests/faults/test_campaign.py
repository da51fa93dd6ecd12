"""Damaged inputs: each is read or refused in words, in time and in memory."""

import pytest

from faults.campaign import run_campaign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_damaged_inputs_are_read_or_refused_in_words():
    figures = run_campaign(count_inputs=2000, workers=1)
    print(figures)
    assert not figures.failures, str(figures)
    # A message that says only that something is wrong is not good enough to be usual.
    assert len(figures.unforeseen) < 6, figures.unforeseen[:5]
