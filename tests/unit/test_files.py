"""Files are complete or absent, whatever happens while they are written."""

import errno
import json
import math
import os
import pickle
import sqlite3
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fakes.disk import recorded
from mmcl.errors import DiskError, RunError
from mmcl.files import (
    NO_ROOM,
    complete_file,
    disk_error,
    disk_errors,
    make_folder,
    remove_unfinished,
    sync_folder,
    write_json,
    write_text,
)


def test_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "note.txt"
    with complete_file(path) as unfinished:
        unfinished.write_text("half")
        assert not path.exists()
        assert unfinished.parent == path.parent
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["note.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("fault", [ValueError, OSError, KeyboardInterrupt])
def test_fault_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def write():
        with complete_file(path) as unfinished:
            unfinished.write_text("half")
            raise fault

    with pytest.raises(fault):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "note.txt"
    with recorded(monkeypatch) as steps:
        write_text(path, "ä")
    (written, named, kept) = steps
    assert written[0] == "sync"
    assert written[1].parent == path.parent  # the temporary file
    assert named == ("name", path)
    assert kept == ("sync", path.parent)
    assert path.read_bytes() == "ä".encode()


def without_folders(monkeypatch, code):
    """Let forcing the names in a folder to the disk fail."""
    sync = os.fsync

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_system_that_syncs_no_folders_is_no_fault(tmp_path, monkeypatch, code):
    without_folders(monkeypatch, code)
    write_text(tmp_path / "new" / "note.txt", "text")
    sync_folder(tmp_path / "new")
    assert (tmp_path / "new" / "note.txt").read_text() == "text"


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskError), (errno.EIO, OSError)])
def test_name_that_does_not_reach_the_disk_is_an_error(tmp_path, monkeypatch, code, error):
    without_folders(monkeypatch, code)
    with pytest.raises(error):
        write_text(tmp_path / "note.txt", "text")


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "note.txt"
    with complete_file(path) as one, complete_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # it ended last
    assert os.listdir(tmp_path) == ["note.txt"]


def test_names_of_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
    with recorded(monkeypatch) as steps:
        make_folder(tmp_path / "a" / "b")
    assert sorted(steps) == [("sync", tmp_path), ("sync", tmp_path / "a")]


def test_what_a_library_wrote_is_forced_to_the_disk_with_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1")
    with recorded(monkeypatch) as steps:
        sync_folder(folder)
    assert steps == [("sync", folder / "weights"), ("sync", folder), ("sync", tmp_path)]


def test_json_is_complete_and_readable(tmp_path):
    path = tmp_path / "done.json"
    write_json(path, {"epoch": 1, "seeds": [1, 2], "none": None})
    assert json.loads(path.read_text()) == {"epoch": 1, "seeds": [1, 2], "none": None}
    assert os.listdir(tmp_path) == ["done.json"]


def test_json_with_nan_is_refused_and_the_old_stays(tmp_path):
    path = tmp_path / "done.json"
    write_json(path, {"epoch": 1})
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_json(path, {"loss": math.nan})
    assert json.loads(path.read_text()) == {"epoch": 1}


def _full(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _chained():
    try:
        _full("lines.log")
    except OSError:
        raise ValueError("Invalid log format.")  # noqa: B904 - as a library does it


def _raised_by(function, *arguments):
    try:
        function(*arguments)
    except Exception as fault:
        return fault
    raise AssertionError("nothing was raised")


NO_SPACE = "the disk is full (No space left on device)"


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        pytest.param(_raised_by(_full, "a/b.txt"), f"a/b.txt: {NO_SPACE}", id="system"),
        pytest.param(
            OSError(errno.EDQUOT, "x", "b.txt"),
            f"b.txt: your share of the disk is used up ({os.strerror(errno.EDQUOT)})",
            id="quota",
        ),
        pytest.param(
            OSError(errno.EFBIG, "x", "b.txt"),
            f"b.txt: the file is larger than is allowed here ({os.strerror(errno.EFBIG)})",
            id="limit",
        ),
        pytest.param(
            OSError(errno.EROFS, "x", "b.txt"),
            f"b.txt: the disk can only be read ({os.strerror(errno.EROFS)})",
            id="read-only",
        ),
        pytest.param(
            PermissionError(errno.EACCES, "x", "b.txt"),
            f"b.txt: access is refused ({os.strerror(errno.EACCES)})",
            id="not-allowed",
        ),
        pytest.param(
            SafetensorError("I/O error: No space left on device (os error 28)"),
            f"a file that was being written, or the output: {NO_SPACE}",
            id="safetensors",
        ),
        pytest.param(
            sqlite3.OperationalError("database or disk is full"),
            f"a file that was being written, or the output: {NO_SPACE}",
            id="sqlite",
        ),
        pytest.param(_raised_by(_chained), f"lines.log: {NO_SPACE}", id="consequence"),
        pytest.param(ValueError("Permission denied"), None, id="words-alone"),
        pytest.param(FileNotFoundError(errno.ENOENT, "x", "b.txt"), None, id="no-file"),
        pytest.param(RunError("No space left on device"), None, id="ours"),
    ],
)
def test_disks_that_take_no_more_are_recognised(fault, problem):
    error = disk_error(fault)
    assert (error and error.problem) == problem


def test_error_of_a_full_disk_names_the_file_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _full)
    path = tmp_path / "new" / "note.txt"
    with pytest.raises(DiskError) as caught:
        write_text(path, "text")
    assert str(caught.value) == (
        f"{path}: {NO_SPACE}.\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Free some space, then give the same command again."
    )
    assert os.listdir(path.parent) == []


def test_error_of_a_full_disk_comes_whole_out_of_another_process(tmp_path):
    error = disk_error(_raised_by(_full, "b.txt"))
    error.kept = "All of it is kept."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_clear_error_is_not_replaced_by_another(tmp_path):
    clear = pytest.raises(DiskError, match=r"^a\.txt: the disk is full")
    with clear, disk_errors(tmp_path), disk_errors(Path("a.txt")):
        _full("b.txt")


def test_other_faults_of_a_block_stay_as_they_are(tmp_path):
    with pytest.raises(PermissionError), disk_errors(tmp_path, codes=NO_ROOM):
        raise PermissionError(errno.EACCES, "x")


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    with complete_file(tmp_path / "kept.txt") as unfinished:
        unfinished.write_text("whole")
        leftover = unfinished.with_name(unfinished.name + "x")
        leftover.write_text("half")
    trial = tmp_path / "trials/0"  # a search that is given again trains under another number
    trial.mkdir(parents=True)
    below = trial / leftover.name
    below.write_text("half")
    remove_unfinished(tmp_path, "another[1].txt.")
    assert leftover.exists()
    remove_unfinished(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "kept.txt"]
    remove_unfinished(tmp_path / "no folder")
