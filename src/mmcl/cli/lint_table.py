"""The command ``mmcl lint-table``: find impossible rows of a published table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mmcl.evaluation.table_linter import Finding
    from mmcl.evaluation.table_reader import PublishedRow

__all__ = ["lint_table_command"]


def lint_table_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .md or .markdown file.")],
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs behind each row, if there is no column runs. Default: unknown."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find results in a table whose F1 is impossible at their accuracy.

    FILE has the columns model, dataset, metric, accuracy and f1 (both in percent), in any
    order, in small or capital letters. Tables of a markdown file without these columns are
    skipped. The metrics are has0 and non0 of mosi and mosei, acc2 of sims, and neutral,
    happy, sad and angry of iemocap.

    By default a row may be a mean over several runs. If a column runs or --runs says 1, one
    confusion matrix must round to both numbers. The exit code is 1 if any row is infeasible.

    Examples:

      mmcl lint-table results.csv

      mmcl lint-table README.md --json

      mmcl lint-table best-runs.csv --runs 1
    """
    import json

    from mmcl.cli.show import console, say
    from mmcl.evaluation.table_linter import lint_row
    from mmcl.evaluation.table_reader import read_published
    from mmcl.plain import without_controls

    published = read_published(file)
    # A row's own number of runs goes before --runs.
    judged = [
        (row, lint_row(row.counts, row.accuracy, row.f1, single=(row.runs or runs) == 1))
        for row in published.rows
    ]
    num_infeasible = sum(not finding.feasible for _, finding in judged)
    left_out = {"incomplete": published.incomplete, "other_tables": published.other_tables}
    # Both outputs end with exit code 1 if a row is infeasible.
    if as_json:
        summary = {"rows": len(judged), "infeasible": num_infeasible, **left_out}
        rows = [_as_json(row, finding, row.runs or runs) for row, finding in judged]
        content = json.dumps({**summary, "findings": rows}, indent=2, ensure_ascii=False)
        typer.echo(without_controls(content))
    else:
        if judged:
            console.print(_table(file.name, judged))
        for row, finding in judged:
            if finding.hint:
                say(f"line {row.line}, {row.model}: {finding.hint}")
        typer.echo(_summary(file, len(judged), num_infeasible, **left_out))
    if num_infeasible:
        raise typer.Exit(1)


def _as_json(row: PublishedRow, finding: Finding, runs: int | None) -> dict[str, Any]:
    return {
        **{key: getattr(row, key) for key in ("line", "model", "dataset", "metric")},
        "runs": runs,
        "accuracy": row.accuracy.text,
        "f1": row.f1.text,
        "feasible": finding.feasible,
        "f1_interval": None if finding.interval is None else list(finding.interval),
        "hint": finding.hint,
    }


def _table(name: str, judged: list[tuple[PublishedRow, Finding]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(name), caption="feasible F1: least and largest before rounding, in percent"
    )
    table.add_column("model")
    table.add_column("of", no_wrap=True)
    for column in ("acc", "F1", "feasible F1"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row, finding in judged:
        table.add_row(
            escape(row.model),
            f"{row.dataset} {row.metric}",
            row.accuracy.text,
            row.f1.text,
            _interval(row, finding),
            "feasible" if finding.feasible else "[bold red]infeasible[/]",
        )
    return table


def _interval(row: PublishedRow, finding: Finding) -> str:
    """Return the bounds of F1 as text, with one digit more than the printed F1."""
    if finding.interval is None:
        return "none"
    return "–".join(f"{bound:.{row.f1.decimals + 1}f}" for bound in finding.interval)


def _summary(file: Path, rows: int, infeasible: int, *, incomplete: int, other_tables: int) -> str:
    parts = [f"{infeasible} of {rows} row{'s' * (rows != 1)} infeasible"]
    if incomplete:
        parts.append(f"{incomplete} without accuracy or F1")
    if other_tables:
        parts.append(f"{other_tables} other table{'s' * (other_tables > 1)} passed over")
    return f"{file}: {', '.join(parts)}"
