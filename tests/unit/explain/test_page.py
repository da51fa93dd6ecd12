"""The frame of a page: no name goes missing, and a file is complete or absent."""

import pytest
from jinja2 import UndefinedError

from mmcl.errors import RunError
from mmcl.explain.page import render_page, write_page


def test_render_page_refuses_a_missing_name():
    with pytest.raises(UndefinedError):
        render_page("report.html.j2", title="")


def test_write_page_replaces_the_whole_file(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old" * 100)
    write_page(target, "ünew")

    assert target.read_text(encoding="utf-8") == "ünew"
    assert list(tmp_path.iterdir()) == [target]


def test_write_page_says_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "report.html"
    with pytest.raises(RunError) as caught:
        write_page(target, "page")
    assert str(caught.value) == (
        f"{target}: cannot be written (File exists); nothing was left behind.\n"
        "  Give a folder you may write to: --out DIR"
    )
