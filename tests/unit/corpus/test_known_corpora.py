"""Tests of known corpora: recognised by name, folder, checksum or counts, and compared."""

from pathlib import Path

import pytest

from mmcl.corpus.known_corpora import KNOWN, columns_of, compare_with_known, find_known, guess_name
from mmcl.corpus.schema import Card, Source, Task

MOSI_COUNTS = {"train": 1284, "valid": 229, "test": 686}


def mosi(**changes):
    fields = {
        "name": "mosi",
        "task": Task(kind="regression", low=-3.0, high=3.0),
        "dims": {"text": 768, "audio": 5, "vision": 20},
        "counts": MOSI_COUNTS,
        "aligned": False,
        "source": Source(name="unaligned_50.pkl", layout="mmsa", sha256="78e0f8b5" + "0" * 56),
    }
    return Card(**(fields | changes))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mosi.pkl", "mosi"),
        ("MOSEI_raw.pkl.gz", "mosei"),
        ("cmu-mosei_50.pkl", "mosei"),
        ("iemocap_data_noalign.pkl", "iemocap"),
        ("MOSI/Processed/unaligned_50.pkl", "mosi"),
        ("SIMS/unaligned_39.pkl", "sims"),
        ("CH-SIMS v2(s)/unaligned.pkl", "simsv2"),
        ("ch_simsv2s.pkl", "simsv2"),
        ("mosi/mine.pkl", "mine"),  # a folder names only what has no name of its own
        ("mosaic.pkl", "mosaic"),
        ("my.corpus.pkl", "my"),
    ],
)
def test_name_is_guessed_from_the_path(path, name):
    assert guess_name(Path(path), "00", {}) == name


def test_checksum_counts_more_than_the_path():
    assert guess_name(Path("mosi.pkl"), "ad8b23d5ff", {}) == "mosei"


def test_counts_name_what_has_no_name():
    assert guess_name(Path("x.pkl"), "00", MOSI_COUNTS) == "mosi"
    assert guess_name(Path("x.pkl"), "00", MOSI_COUNTS | {"test": 685}) == "x"


@pytest.mark.parametrize("spelling", ["mosi", "CMU-MOSI", "CMU_MOSI", "MOSI"])
def test_known_corpus_is_found_in_any_spelling(spelling):
    assert find_known(spelling) is KNOWN["mosi"]


def test_unknown_corpus_is_not_found():
    assert find_known("mine") is None


@pytest.mark.parametrize(
    ("name", "clips", "dims"),
    [
        ("mosi", 2199, (768, 5, 20)),
        ("mosei", 22856, (768, 74, 35)),
        ("sims", 2281, (768, 33, 709)),
        ("iemocap", 4453, (300, 74, 35)),
        ("simsv2", 4403, None),
    ],
)
def test_published_sizes(name, clips, dims):
    known = KNOWN[name]
    assert sum(known.counts.values()) == clips
    assert [tuple(widths.values()) for widths in known.dims.values()] == ([dims] if dims else [])


def test_published_corpus_gives_no_warning():
    assert compare_with_known(mosi()) == []
    assert compare_with_known(mosi(name="mine", counts={})) == []


def test_every_mismatch_says_what_was_found_and_expected():
    card = mosi(
        counts=MOSI_COUNTS | {"train": 1283},
        dims={"text": 300, "audio": 5},
        task=Task(kind="regression", low=-1.0, high=1.0),
        aligned=True,
    )
    assert compare_with_known(card) == [
        "train has 1283 clips; CMU-MOSI has 1284",
        "text is 300 wide; in CMU-MOSI of this kind 768 wide",
        "vision is absent; in CMU-MOSI of this kind 20 wide",
        "labels lie in -1..1; those of CMU-MOSI in -3..3",
        "sha256 begins with 78e0f8b5; that of the published aligned file of CMU-MOSI with d3994fd2",
    ]


def test_widths_and_checksums_of_other_layouts_are_not_compared():
    source = Source(name="mosi.pkl", layout="magbert", sha256="00")
    assert compare_with_known(mosi(source=source, dims={"audio": 74, "vision": 47})) == []


def test_columns_of_mosi_are_named():
    columns = columns_of(mosi())
    assert columns["audio"] == tuple(f"covarep_{index}" for index in (1, 3, 6, 25, 60))
    assert len(columns["vision"]) == 20
    assert columns["vision"][-1] == "facet_40"
    assert columns_of(mosi(dims={"audio": 74, "vision": 20})).keys() == {"vision"}
    assert columns_of(mosi(name="mine")) == {}
