"""One command at a time for an output, which is probed before the work."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from mmcl.errors import BusyError, DiskError, RunError
from mmcl.outputs import hold_output, take_lock


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

    monkeypatch.setattr("mmcl.outputs.take_lock", take)
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
    def full(path, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskError) as caught, hold_output(tmp_path / "new" / "p.csv"):
        raise AssertionError("the work has begun")
    no_space = "the disk is full (No space left on device)"
    assert caught.value.problem == f"{tmp_path / 'new' / 'p.csv'}: {no_space}"


def test_new_folder_is_removed_if_nothing_was_written(tmp_path):
    with pytest.raises(RunError), hold_output(tmp_path / "run", is_folder=True):
        raise RunError("a setting is wrong")
    with hold_output(tmp_path / "kept" / "p.csv"):
        (tmp_path / "kept" / "p.csv").touch()
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize("trained", [True, False])
def test_new_folder_is_kept_after_a_failure_only_if_an_epoch_was_trained(tmp_path, trained):
    folder = tmp_path / "new" / "run"

    def fail():
        (folder / "seed-1").mkdir()
        (folder / "run.json").touch()
        if trained:
            (folder / "seed-1" / "history.csv").touch()
        raise RunError("the encoder is not there")

    with pytest.raises(RunError), hold_output(folder, is_folder=True, kept="history.csv"):
        fail()
    assert (tmp_path / "new").exists() == trained
    assert (folder / "run.json").exists() == trained


def test_folder_that_is_gone_hides_no_error(tmp_path):
    def fail():
        shutil.rmtree(tmp_path / "out")
        raise RunError("the encoder is not there")

    with pytest.raises(RunError), hold_output(tmp_path / "out", is_folder=True):
        fail()


def test_folder_that_was_there_keeps_its_files_if_the_command_failed(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(RunError), hold_output(tmp_path, is_folder=True, kept="history.csv"):
        raise RunError("the encoder is not there")
    assert os.listdir(tmp_path) == ["mine"]


def test_further_processes_of_a_training_leave_the_lock_to_the_first(tmp_path, monkeypatch):
    with hold_output(tmp_path, is_folder=True):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with hold_output(tmp_path, is_folder=True):
            pass
