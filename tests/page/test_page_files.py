"""The page's files: all there, and nothing of them leads elsewhere."""

import re

from mmcl.explain.timeline import TINTS
from mmcl.serve.page_files import page_files


def texts():
    return {name: file.content.decode() for name, file in page_files().items()}


def test_whatever_the_page_names_is_there():
    found = texts()
    named = set(re.findall(r'(?:src|href)="page/([\w.]+)"', found["index.html"]))
    named |= {n for text in found.values() for n in re.findall(r'from "\./([\w.]+)"', text)}
    assert {"shared.css", "page.css", "page.js", "timeline.js", "draw.js"} <= named
    assert named | {"index.html"} == set(found)


def test_nothing_is_asked_for_elsewhere_or_written_into_the_page():
    for name, text in texts().items():
        allowed = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", allowed), name
    page = texts()["index.html"]
    assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", page)


def test_colours_and_look_are_those_of_the_reports():
    found = texts()
    for name, colour in TINTS.items():
        assert f"--{name}: {colour};" in found["shared.css"]
    assert "--complementary: #f0801c" in found["shared.css"]
    assert "function followTimeline" in found["timeline.js"]
    assert not any(mark in text for text in found.values() for mark in ("{{", "{%"))


def test_types_are_those_a_browser_accepts():
    types = {name: file.media_type for name, file in page_files().items()}
    assert types["index.html"] == "text/html; charset=utf-8"
    assert types["page.js"] == "text/javascript; charset=utf-8"
    assert types["page.css"] == "text/css; charset=utf-8"
    assert types["icon.svg"] == "image/svg+xml"


def test_page_is_small():
    assert sum(len(file.content) for file in page_files().values()) < 100_000
