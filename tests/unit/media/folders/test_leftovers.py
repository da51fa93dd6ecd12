"""Files of a folder, and those that may not be listed."""

import os

from mmcl.media.folders import leftovers as home
from mmcl.media.folders.leftovers import LeftOut, list_files, unused_files


def test_phrase_of_a_short_list():
    assert LeftOut("hidden files", (".a", ".b", ".c")).phrase() == "hidden files: 3 (.a, .b, .c)"


def test_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "x.mp4").touch()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(home.os, "scandir", refuse)
    found = list_files(tmp_path)
    assert found.files == [tmp_path / "x.mp4"]
    assert list(unused_files(tmp_path, found, {tmp_path / "x.mp4"}, "media files")) == [
        LeftOut("folders that may not be read", ("closed",))
    ]
