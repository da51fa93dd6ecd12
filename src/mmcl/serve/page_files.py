"""The files of the page, by name: its own, and those it shares with the reports.

The look of the reports and the behaviour of their timeline lie beside their templates in
:mod:`mmcl.explain`, so that a recording looks the same on the page and in the file that
``mmcl predict`` writes.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from mmcl.explain.timeline import TINTS

__all__ = ["CONTENT_POLICY", "PageFile", "page_files"]

CONTENT_POLICY = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing but what the service itself gives may be loaded by the page."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """A file as a browser gets it."""

    content: bytes
    media_type: str


@cache
def page_files() -> dict[str, PageFile]:
    """Every file of the page; ``index.html`` is the page itself."""
    shared = files("mmcl.explain") / "templates"
    texts = {
        "shared.css": _colours() + _read(shared / "page.css") + _read(shared / "timeline.css"),
        "timeline.js": _read(shared / "timeline.js"),
    }
    for own in (files("mmcl.serve") / "page").iterdir():
        texts[own.name] = _read(own)
    return {
        name: PageFile(text.encode(), _TYPES["." + name.rpartition(".")[2]])
        for name, text in sorted(texts.items())
    }


def _colours() -> str:
    tints = "".join(f"--{name}: {colour}; " for name, colour in TINTS.items())
    return f":root {{ {tints}}}\n"


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
