"""Limits of what a file from outside may cost: settings, budgets, and files that never end."""

import os
import socket

import pytest

from mmcl.corpus.readers import check_file
from mmcl.corpus.store import open_corpus
from mmcl.errors import DatasetError, UsageError
from mmcl.limits import FREE_BYTES, FREE_OBJECTS, Budget, check_regular, limit, num_places


def test_a_limit_is_its_default_or_the_environments(monkeypatch):
    assert limit("MMCL_MAX_DEPTH") == 32
    monkeypatch.setenv("MMCL_MAX_DEPTH", "7")
    assert limit("MMCL_MAX_DEPTH") == 7


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5", "9" * 40, "²"])
def test_what_is_no_limit_is_refused(monkeypatch, text):
    monkeypatch.setenv("MMCL_MAX_DEPTH", text)
    with pytest.raises(UsageError) as caught:
        limit("MMCL_MAX_DEPTH")
    assert str(caught.value) == (
        f"MMCL_MAX_DEPTH: {text!r} is no limit.\n"
        "  Expected a whole number from 1 on; without the variable it is 32"
    )


def test_a_budget_grows_with_the_file(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"x")
    assert (Budget(path).most_bytes, Budget(path).most_objects) == (FREE_BYTES, FREE_OBJECTS)
    os.truncate(path, 10 << 30)  # without content: MOSEI's pickles are as large
    assert Budget(path).most_bytes == 100 * (10 << 30)
    assert Budget(path).most_objects == 4 * (10 << 30)


def test_a_budget_names_its_limit(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"x")
    budget = Budget(path)
    budget.check(num_bytes=FREE_BYTES, num_objects=FREE_OBJECTS)
    with pytest.raises(DatasetError) as caught:
        budget.check(num_bytes=FREE_BYTES + 1)
    assert str(caught.value) == (
        f"{path}: it unpacks to more than 256 MiB; it was not read.\n"
        "  Expected at most 100 for every byte of the file, which honest corpora stay far below.\n"
        "  If you trust its maker, allow more: export MMCL_MAX_UNPACKED=1000"
    )
    with pytest.raises(DatasetError, match="export MMCL_MAX_OBJECTS=40"):
        budget.check(num_objects=FREE_OBJECTS + 1)


def test_places_that_no_byte_pays_for():
    assert num_places((10**9, 0)) == 10**9
    assert num_places((0, 50, 3)) == 150
    assert num_places((4, 3)) == 0


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_only_files_are_opened(tmp_path, kind):
    path = tmp_path / "x.pkl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    for reads in (check_file, open_corpus, lambda p: check_regular(p, DatasetError)):
        with pytest.raises(DatasetError) as caught:
            reads(path)
        assert str(caught.value) == (
            f"{path}: a {kind}, not a file.\n"
            "  Expected a file on a disk. Write what comes from it to a file first"
        )


def test_what_is_missing_passes(tmp_path):
    check_regular(tmp_path / "none", DatasetError)
    check_regular(tmp_path, DatasetError)
