"""Splits by video: the standard folds as they are published, and shares of the rule by hash."""

import pytest

from mmcl.corpus.folds import find_folds, split_of


@pytest.mark.parametrize(
    ("videos", "name", "sizes"),
    [
        (["03bSnISJMiM", "WKA5OygbEKI", "tmZoasNr4rU"], "mosi", (52, 10, 31)),
        (["hh04W3xXa5s", "188343", "7l3BNtSE0xc"], "mosei", (2249, 300, 678)),
    ],
)
def test_folds_are_the_published_ones(videos, name, sizes):
    found, folds = find_folds(videos)
    assert found == name
    assert [folds[video] for video in videos] == ["train", "valid", "test"]
    assert tuple(list(folds.values()).count(s) for s in ("train", "valid", "test")) == sizes


def test_folds_of_a_corpus_need_half_of_the_videos():
    assert find_folds(["03bSnISJMiM", "mine"])[0] == "mosi"
    assert find_folds(["03bSnISJMiM", "mine", "yours"]) is None
    assert find_folds([]) is None


def test_splits_by_hash_have_their_shares():
    splits = [split_of(f"video{number}") for number in range(40_000)]
    # Of 40,000 fair draws a share has a standard deviation of .0023 at most.
    for name, share in (("train", 0.70), ("valid", 0.15), ("test", 0.15)):
        assert splits.count(name) / 40_000 == pytest.approx(share, abs=0.01)
