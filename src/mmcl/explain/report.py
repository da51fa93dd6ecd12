"""The report: every result in a folder on one page.

Results are recognised by the names of their files, see :data:`PARTS`. A new kind of result
needs a row there: its file, and the function that makes a section of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from mmcl.errors import RunError
from mmcl.explain.comparison_section import comparison_section
from mmcl.explain.explanation_figures import explanation_section
from mmcl.explain.figures import names_under
from mmcl.explain.page import render_page
from mmcl.explain.planted_figures import planted_section, read_planted
from mmcl.explain.robustness_figures import robustness_section
from mmcl.explain.run_figures import read_run, run_section
from mmcl.explain.tuning_figures import tuning_section
from mmcl.other_version import does_not_fit, version_of

__all__ = ["PARTS", "Part", "Result", "find_results", "is_report", "read_json", "report_page"]

_MARK = '<meta name="description" content="mmcl report">'
_COMPARISON, _METRICS, _RUN = "comparison.json", "metrics.json", "run.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of results.

    Raises:
        ValueError: If it is not a JSON object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where an object was expected")
    return content


class Part(NamedTuple):
    """A kind of result.

    Attributes:
        title: Title in the table of contents.
        file: Name of the file that holds it.
        section: Turns the content into markup. The markup begins with its own ``<h2>``, and
            its figures come from ``figures.figure_html``.
        maker: The command that makes such a file, without ``mmcl`` and ``--out DIR``.
        read: Reads the content, given the file's path.
        beside: Pattern of a file that must lie beside it for the file to be of this kind.
    """

    title: str
    file: str
    section: Callable[[Mapping[str, Any]], Markup]
    maker: str
    read: Callable[[Path], Mapping[str, Any]] = read_json
    beside: str = ""


PARTS: tuple[Part, ...] = (
    Part("Planted data", "planted.arrow", planted_section, "demo", read_planted, f"*/{_RUN}"),
    Part("Comparison", _COMPARISON, comparison_section, "compare CORPUS"),
    Part("Explanation", "explanation.json", explanation_section, "explain RUN CORPUS"),
    Part("Robustness", "robustness.json", robustness_section, "robustness RUN CORPUS"),
    Part("Tuning", "tuning.json", tuning_section, "tune CORPUS"),
    Part("Run", _METRICS, run_section, "train CORPUS", read_run, _RUN),
)
"""Kinds of results, in the order in which the page shows them."""


class Result(NamedTuple):
    """A result in a folder."""

    part: Part
    path: Path


def find_results(folder: Path) -> list[Result]:
    """List the results in a folder and in the folders directly in it, in the page's order.

    Raises:
        RunError: If there are none.
    """
    if not folder.is_dir():
        raise RunError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}.\n"
            "  Give the folder of a result: mmcl report DIR"
        )
    results = [
        Result(part, place / part.file)
        for part in PARTS
        for place in _places(folder)
        if (place / part.file).is_file() and (not part.beside or any(place.glob(part.beside)))
    ]
    if not results:
        makers = "\n".join(f"  {part.file}: mmcl {part.maker} --out DIR" for part in PARTS)
        raise RunError(
            f"{folder}: holds no result, and neither do the folders in it.\n"
            f"  Looked for, and what makes it:\n{makers}"
        )
    return results


def report_page(folder: Path, *, command: str) -> str:
    """Return the page on every result in a folder; it names the command that makes it.

    Raises:
        RunError: If there are no results, or one cannot be read.
    """
    results = find_results(folder)
    # The runs of a comparison are its rows: listed by name, and not shown one by one.
    compared = {path.parent for part, path in results if part.file == _COMPARISON}
    rows = [r for r in results if r.part.file == _METRICS and r.path.parent.parent in compared]
    shown = [result for result in results if result not in rows]
    unfinished = [
        str(place)
        for place in _places(folder)
        if (place / _RUN).is_file() and not (place / _METRICS).is_file()
    ]
    return render_page(
        "report.html.j2",
        mark=Markup(_MARK),
        title=folder.resolve().name,
        sections=[_section(result, folder, index) for index, result in enumerate(shown, start=1)],
        listed=[str(row.path.parent.relative_to(folder)) for row in rows],
        unfinished=unfinished,
        command=command,
    )


def is_report(path: Path) -> bool:
    """Return whether a file is a page that :func:`report_page` made."""
    try:
        with path.open(encoding="utf-8") as page:
            return _MARK in page.read(1000)
    except (OSError, UnicodeDecodeError):
        return False


def _places(folder: Path) -> list[Path]:
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def _section(result: Result, folder: Path, index: int) -> dict[str, Any]:
    """Return a section as the template shows it; its place is the sub-folder, or nothing."""
    part, path = result
    anchor = f"{path.stem}-{index}"
    content: Mapping[str, Any] = {}
    try:
        content = part.read(path)
        # Two sections of one kind would otherwise give their figures the same ids.
        with names_under(f"{anchor}-"):
            body = part.section(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as fault:
        what, again = f"{type(fault).__name__}: {fault}", f"mmcl {part.maker} --out DIR"
        written_by = version_of(content)
        if written_by not in (None, metadata.version("mmcl")):
            text = does_not_fit(str(path), [what], written_by, f"make it again: {again}")
            raise RunError(text) from fault
        raise RunError(
            f"{path}: not as mmcl writes it ({what}).\n  Make it again: {again}"
        ) from fault
    title = "Ablation" if content.get("kind") == "ablation" else part.title
    place = str(path.parent.relative_to(folder))
    return {"anchor": anchor, "title": title, "place": "" if place == "." else place, "body": body}
