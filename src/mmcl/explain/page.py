"""The frame of every page: one HTML file that holds everything it needs.

A page asks the network for nothing, follows the reader's light or dark setting, and can be
printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmcl.errors import RunError
from mmcl.files import write_text

__all__ = ["environment_facts", "render_page", "render_section", "write_page"]


def render_page(template: str, **context: Any) -> str:
    """Fill a template of ``explain/templates`` and return the page, plotly.js included.

    Text is escaped, and only :class:`~markupsafe.Markup` is not. A missing name is an error.
    """
    return _environment().get_template(template).render(plotly_js=_plotly_js, **context)


def render_section(template: str, **context: Any) -> Markup:
    """Fill a template of one section of a page, by the same rules and without plotly.js."""
    return Markup(_environment().get_template(template).render(**context))


def environment_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the versions, machine and commit of :func:`mmcl.runtime.environment` for a reader."""
    versions = {name: v for name, v in environment["versions"].items() if v is not None}
    return [
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("python", str(environment["python"])),
        ("machine", str(environment["machine"])),
        ("commit", str(environment["commit"] or "not from a checkout")),
    ]


def write_page(path: Path, page: str) -> None:
    """Write a page, complete or not at all.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        write_text(path, page)
    except OSError as fault:
        raise RunError(
            f"{path}: cannot be written ({fault.strerror or fault}); nothing was left behind.\n"
            "  Give a folder you may write to: --out DIR"
        ) from None


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mmcl.explain"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plotly_js() -> Markup:
    return Markup(get_plotlyjs())
