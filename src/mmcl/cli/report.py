"""The command ``mmcl report``: write a page on all results of a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mmcl.cli.options import hold_output
from mmcl.errors import RunError

__all__ = ["report_command", "write_report"]

REPORT = "report.html"


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of results.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write. Default: DIR/report.html.")
    ] = None,
) -> None:
    """Put all results in a folder on one page, with tables and interactive figures.

    Results are searched for in DIR and in the folders directly in it. The page is one file.
    Open it in a browser; it needs no internet.

    Examples:

      mmcl report comparisons/mosi

      mmcl report runs/planted --out planted.html
    """
    from mmcl.explain.report import find_results

    find_results(folder)  # refuses a folder without any
    hold_output(out or folder / REPORT, inputs=[folder])
    target = write_report(folder, out)
    # Name what is on the page, so that a missing result is noticed.
    names = ", ".join(str(result.path.relative_to(folder)) for result in find_results(folder))
    typer.echo(f"{target}: {names}")


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page on the results of a folder, by default into that folder.

    Raises:
        RunError: If the folder holds no result, or the page would replace another file.
    """
    from mmcl.explain.page import write_page
    from mmcl.explain.report import find_results, is_report, report_page

    target = out or folder / REPORT
    find_results(folder)  # raises if there is none
    if target.exists() and not is_report(target):
        raise RunError(
            f"{target}: exists, and mmcl report did not make it; nothing was changed.\n"
            "  Give another: --out FILE"
        )
    command = f"mmcl report {shlex.quote(str(folder))}"
    if out is not None:
        command += f" --out {shlex.quote(str(out))}"
    write_page(target, report_page(folder, command=command))
    return target
