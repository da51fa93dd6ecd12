"""Tests of mapped files: features are views of the file's pages, which are given back."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmcl.corpus import memory_mapped
from mmcl.corpus.memory_mapped import MappedFile
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.evaluation.moments import without_modality
from mmcl.types import MODALITIES

SETTINGS = PlantSettings(train=600, valid=4, test=4, aligned=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "planted.arrow"
    return write_corpus(path, plant_card(SETTINGS), plant_clips(SETTINGS))


def _mappings(path):
    """Where the file is mapped, and how much of each mapping is resident, in bytes (Linux)."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for index, line in enumerate(lines):
        if line.endswith(f" {path}"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            (rss,) = (row.split()[1] for row in lines[index : index + 6] if row.startswith("Rss:"))
            yield start, end, 1024 * int(rss)


def _resident(path):
    return sum(rss for *_, rss in _mappings(path))


def test_features_are_slices_of_the_mapped_file(path):
    split = open_corpus(path).split("train")
    for modality in MODALITIES:
        for row in (0, 7, 599):
            steps = split.steps(modality, row)
            address = steps.__array_interface__["data"][0]
            assert any(a <= address < address + steps.nbytes <= b for a, b, _ in _mappings(path))
            assert not steps.flags.owndata
            assert not steps.flags.writeable


@pytest.fixture
def small_limits(monkeypatch):
    """Hold few pages, and count them after every read."""
    monkeypatch.setattr(memory_mapped, "BYTES_HELD", 2 << 20)
    monkeypatch.setattr(memory_mapped, "LOOK_EVERY", 0)


@pytest.mark.usefixtures("small_limits")
def test_pages_are_given_back_and_come_again(path):
    split = open_corpus(path).split("train")
    first = split.steps("text", 0)
    kept = first.copy()
    read, most = 0, 0
    for index, row in enumerate(np.random.default_rng(1).permutation(len(split))):
        read += sum(split.padded(modality, [row])[0].nbytes for modality in MODALITIES)
        if index % 100 == 99:
            most = max(most, _resident(path))
    assert read > 7 << 20
    # The system counts in its own time: some hundred pages late.
    assert most < 4 << 20
    np.testing.assert_array_equal(first, kept)


def test_a_clip_counts_with_its_neighbours(path, monkeypatch):
    counted = []
    split = open_corpus(path).split("train")
    monkeypatch.setattr(MappedFile, "count", lambda self, n, places: counted.append((n, places)))
    lengths = split.lengths("audio")
    split.padded("audio", [5, 9, 2])
    split.steps("audio", 5)
    split.roles("audio", 5)
    steps = int(lengths[[5, 9, 2]].sum())
    assert counted == [(steps * 48 * 4, 3), (int(lengths[5]) * 48 * 4, 1), (int(lengths[5]), 1)]


def test_small_file_stays(path):
    corpus = open_corpus(path)
    split = corpus.split("train")
    for _ in range(3):
        split.padded("text", range(600))
        assert _resident(path) > split.lengths("text").sum() * 96 * 4


@pytest.mark.usefixtures("small_limits")
def test_checksum_gives_its_pages_back(path):
    corpus = open_corpus(path)
    corpus.checksum()
    assert _resident(path) < 4 << 20


def test_only_linux_tells_what_is_resident(path, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_mapped, "_STATM", tmp_path / "none")
    monkeypatch.setattr(memory_mapped, "BYTES_HELD", 1)
    monkeypatch.setattr(MappedFile, "let_go", lambda self: pytest.fail("nothing to let go"))
    assert len(open_corpus(path).split("train").padded("text", range(600))[0]) == 600


def test_every_view_of_a_corpus_counts(path, monkeypatch):
    counted = []
    corpus = open_corpus(path)
    monkeypatch.setattr(MappedFile, "count", lambda self, _, **__: counted.append(self))
    splits = (
        corpus.split("train"),
        corpus.open_test_split(),
        corpus.every_clip(),
        corpus.development().split("valid"),
        without_modality(corpus.split("valid"), "vision"),
    )
    for number, split in enumerate(splits, start=1):
        split.steps("audio", 0)
        assert len(counted) == number
    assert len(set(map(id, counted))) == 1


def test_mapped_file_is_mapped_again_in_another_process(path):
    first = MappedFile(path)
    second = pickle.loads(pickle.dumps(first))
    assert second.buffer.address != first.buffer.address
    assert second.buffer.to_pybytes() == path.read_bytes()


def test_corpus_can_be_sent_to_another_process(path):
    corpus = open_corpus(path)
    assert pickle.loads(pickle.dumps(corpus)).checksum() == corpus.checksum()
