"""The report on a folder: every result in it on one page.

A folder's results are known by the names of their files, see :data:`PARTS`. Whoever adds a
kind of result adds a row there: its file, and the function that makes a section of it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from mmcl.errors import RunError
from mmcl.explain.figures import names_under
from mmcl.explain.page import render_page

__all__ = ["PARTS", "Found", "Part", "find_results", "is_report", "read_json", "report_page"]

_MARK = '<meta name="description" content="mmcl report">'
_RUN = "run.json"


class Part(NamedTuple):
    """A kind of result.

    Attributes:
        title: What the table of contents calls it.
        file: Name of the file that holds it.
        section: ``module:function`` that makes markup of the content. It begins with its own
            ``<h2>``, and its figures come from ``figures.figure_html``.
        maker: The command that makes such a file.
        read: ``module:function`` that makes the content of the file's path.
        beside: Name of a file that must lie beside it, for it to be of this kind.
    """

    title: str
    file: str
    section: str
    maker: str
    read: str = "mmcl.explain.report:read_json"
    beside: str | None = None


PARTS: tuple[Part, ...] = (
    Part(
        "Comparison",
        "comparison.json",
        "mmcl.explain.comparison_figures:comparison_section",
        "mmcl compare CORPUS --out DIR",
    ),
    Part(
        "Explanation",
        "explanation.json",
        "mmcl.explain.explanation_figures:explanation_section",
        "mmcl explain RUN CORPUS --out DIR",
    ),
    Part(
        "Robustness",
        "robustness.json",
        "mmcl.explain.robustness_figures:robustness_section",
        "mmcl robustness RUN CORPUS --out DIR",
    ),
    Part(
        "Tuning",
        "tuning.json",
        "mmcl.explain.tuning_figures:tuning_section",
        "mmcl tune CORPUS --out DIR",
    ),
    Part(
        "Run",
        "metrics.json",
        "mmcl.explain.run_figures:run_section",
        "mmcl train CORPUS --out DIR",
        read="mmcl.explain.run_figures:read_run",
        beside=_RUN,
    ),
)
"""In the order of the page."""

_TITLES = {"ablation": "Ablation"}  # by the content's own kind, where it is not the part's


class Found(NamedTuple):
    """A result that lies in a folder."""

    part: Part
    path: Path


class _Section(NamedTuple):
    anchor: str
    title: str
    place: str  # the sub-folder, or nothing
    body: Markup


def find_results(folder: Path) -> list[Found]:
    """List the results in a folder and in the folders directly in it, in the page's order.

    Args:
        folder: Where to look.

    Raises:
        RunError: If there are none.
    """
    if not folder.is_dir():
        raise RunError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}.\n"
            "  Give the folder of a result: mmcl report DIR"
        )
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    found = [
        Found(part, place / part.file)
        for part in PARTS
        for place in places
        if (place / part.file).is_file()
        and (part.beside is None or (place / part.beside).is_file())
    ]
    if not found:
        makers = "\n".join(f"  {part.file}: {part.maker}" for part in PARTS)
        raise RunError(
            f"{folder}: holds no result, and neither do the folders in it.\n"
            f"  Looked for, and what makes it:\n{makers}"
        )
    return found


def report_page(folder: Path, *, command: str) -> str:
    """The page on everything a folder holds.

    Args:
        folder: Where the results lie.
        command: The command that makes the page, as typed.

    Raises:
        RunError: If there are no results, or one cannot be read.
    """
    found = find_results(folder)
    shown, listed = _without_rows(found)
    return render_page(
        "report.html.j2",
        mark=Markup(_MARK),
        title=folder.resolve().name,
        sections=[_section(each, folder, at) for at, each in enumerate(shown, start=1)],
        listed=[str(each.path.parent.relative_to(folder)) for each in listed],
        unfinished=_unfinished(folder),
        command=command,
    )


def is_report(path: Path) -> bool:
    """Whether a file is a page that :func:`report_page` made."""
    try:
        with path.open(encoding="utf-8") as page:
            return _MARK in page.read(1000)
    except (OSError, UnicodeDecodeError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file of results.

    Raises:
        ValueError: If it is not a JSON object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where an object was expected")
    return content


def _without_rows(found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """Set apart the runs that are the rows of a comparison in the folder above them."""
    compared = {each.path.parent for each in found if each.part.file == "comparison.json"}
    rows = [
        each
        for each in found
        if each.part.file == "metrics.json" and each.path.parent.parent in compared
    ]
    return [each for each in found if each not in rows], rows


def _unfinished(folder: Path) -> list[str]:
    """Run folders that hold no metrics yet."""
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    return [
        str(place)
        for place in places
        if (place / _RUN).is_file() and not (place / "metrics.json").is_file()
    ]


def _section(found: Found, folder: Path, at: int) -> _Section:
    part, path = found
    place = str(path.parent.relative_to(folder))
    anchor = f"{path.stem}-{at}"
    # Imported first: what fails there is no fault of the file.
    read, section = _named(part.read), _named(part.section)
    try:
        content: Mapping[str, Any] = read(path)
        with names_under(f"{anchor}-"):
            body = section(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as fault:
        raise RunError(
            f"{path}: not as mmcl writes it ({type(fault).__name__}: {fault}).\n"
            f"  Make it again: {part.maker}"
        ) from fault
    title = _TITLES.get(str(content.get("kind")), part.title)
    return _Section(anchor, title, "" if place == "." else place, body)


def _named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
