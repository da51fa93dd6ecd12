"""Files are complete or absent, whatever happens while they are written."""

import errno
import json
import math
import os
import pickle
import re
import sqlite3
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fakes.disk import recorded
from mmcl.errors import BusyError, DiskError, RunError
from mmcl.files import (
    NO_ROOM,
    complete_file,
    disk_error,
    disk_errors,
    hold_output,
    make_folder,
    remove_unfinished,
    sync_folder,
    take_lock,
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


# ---------------------------------------------------------------- one command per output


def test_output_is_held_and_said_by_whom(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/mmcl", "predict", "a b"])
    path = tmp_path / "p.csv"
    with hold_output(path):
        with pytest.raises(BusyError) as caught, hold_output(path):
            pass
        with hold_output(tmp_path / "other.csv"):  # the neighbours are free
            pass
    expected = (
        f"{path}: another command is writing it: process {os.getpid()} on .+ since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(mmcl predict 'a b'\).\n"
        "  Wait until it has ended, or give another: --out"
    )
    assert re.fullmatch(expected, str(caught.value)), str(caught.value)
    with hold_output(path):
        pass
    assert os.listdir(tmp_path) == []


def test_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    with hold_output(tmp_path, is_folder=True):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")


def test_lock_that_its_holder_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    taken = []

    def take(lock):
        taken.append(lock)
        if len(taken) == 1:  # it ended between our opening the file and our taking its lock
            (tmp_path / ".p.csv.lock").unlink()
        return take_lock(lock)

    monkeypatch.setattr("mmcl.files.take_lock", take)
    path, busy = tmp_path / "p.csv", pytest.raises(BusyError)
    with hold_output(path), busy, hold_output(path):
        raise AssertionError("the second one has it too")
    assert len(taken) == 3


def test_holding_removes_what_a_killed_process_left_of_this_output_alone(tmp_path):
    for name in (".p.csv.x1.unfinished.csv", ".other.csv.x1.unfinished.csv", "p.csv"):
        (tmp_path / name).touch()
    with hold_output(tmp_path / "p.csv"):
        left = sorted(os.listdir(tmp_path))
    assert left == [".other.csv.x1.unfinished.csv", ".p.csv.lock", "p.csv"]
    with hold_output(tmp_path, is_folder=True):
        assert sorted(os.listdir(tmp_path)) == [".lock", "p.csv"]


def test_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "p.csv", "File exists"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(DiskError) as caught, hold_output(path):
            raise AssertionError("the work has begun")
        assert caught.value.problem == f"{path}: nothing can be written there ({reason})"
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: _full(path))
    with pytest.raises(DiskError) as caught, hold_output(tmp_path / "new" / "p.csv"):
        raise AssertionError("the work has begun")
    assert caught.value.problem == f"{tmp_path / 'new' / 'p.csv'}: {NO_SPACE}"


def test_new_folder_is_removed_if_nothing_was_written(tmp_path):
    with pytest.raises(RunError), hold_output(tmp_path / "run", is_folder=True):
        raise RunError("a setting is wrong")
    with hold_output(tmp_path / "kept" / "p.csv"):
        (tmp_path / "kept" / "p.csv").touch()
    assert os.listdir(tmp_path) == ["kept"]


def test_further_processes_of_a_training_leave_the_lock_to_the_first(tmp_path, monkeypatch):
    with hold_output(tmp_path, is_folder=True):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with hold_output(tmp_path, is_folder=True):
            pass
