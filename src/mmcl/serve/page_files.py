"""Files that the service gives to browsers: those of its page, and the example clip.

The page shares its styles and the script of its timeline with the reports of
:mod:`mmcl.explain`, so that a recording looks the same on the page and in the file that
``mmcl predict`` writes.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from mmcl.explain.timeline import TINTS

__all__ = ["CONTENT_POLICY", "EXAMPLE_CLIP", "EXAMPLE_TRANSCRIPT", "PageFile", "page_files"]

EXAMPLE_CLIP = Path(__file__).with_name("example.mp4")
"""A drawn face that speaks with a synthetic voice, made by tools/make_example_clip.py."""

EXAMPLE_TRANSCRIPT = "This film is wonderful. I love the music. But the end was bad."
"""Words of the example clip."""

CONTENT_POLICY = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The page may load only what the service itself gives."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """A file as a browser receives it."""

    content: bytes
    media_type: str


@cache
def page_files() -> dict[str, PageFile]:
    """Return every file of the page by name; ``index.html`` is the page itself."""
    tints = "".join(f"--{name}: {colour}; " for name, colour in TINTS.items())
    colours = f":root {{ {tints}}}\n"
    shared = files("mmcl.explain") / "templates"
    texts = {
        "shared.css": colours + _read(shared / "page.css") + _read(shared / "timeline.css"),
        "timeline.js": _read(shared / "timeline.js"),
    }
    texts |= {file.name: _read(file) for file in (files("mmcl.serve") / "page").iterdir()}
    return {
        name: PageFile(text.encode(), _TYPES["." + name.rpartition(".")[2]])
        for name, text in sorted(texts.items())
    }


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
