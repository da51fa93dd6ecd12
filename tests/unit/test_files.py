"""Files are complete or absent, whatever happens while they are written."""

import json
import math
import os
import stat

import pytest

from mmcl.files import complete_file, write_json, write_text


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


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(path.exists()) or fsync(handle))
    path = tmp_path / "note.txt"
    write_text(path, "ä")
    assert calls == [False]
    assert path.read_bytes() == "ä".encode()


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
