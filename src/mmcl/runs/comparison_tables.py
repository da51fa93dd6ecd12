"""Tables of a comparison in markdown, LaTeX and csv.

The tables show the content of ``comparison.json``. Bold marks a row that is significantly better
than all others. A dagger marks one that differs significantly from the reference. Accuracies, F1
and areas are printed in percent, errors and correlations as they are. Csv rounds nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmcl.evaluation.metrics import higher_is_better, metric_name
from mmcl.evaluation.published_results import PublishedResult
from mmcl.files import csv_cell

__all__ = [
    "CSV_COLUMNS",
    "column_title",
    "csv_table",
    "format_metric",
    "latex_table",
    "markdown_table",
]

NOTHING = "–"  # cell without a value
DAGGER = "†"

CSV_COLUMNS = (
    *("kind", "corpus", "preset", "split", "model", "question", "metric", "higher_is_better"),
    *("mean", "std", "low", "high", "seeds_valid", "seeds_done", "seeds_asked"),
    *("reference", "difference", "difference_low", "difference_high"),
    *("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm", "better", "best"),
    *("parameters", "train_seconds", "predict_clips_per_second", "peak_memory_mib"),
    *("selection", "source", "note"),
)
"""Columns of :func:`csv_table`; a cell is empty if the number does not exist."""

# Keys of a row's cost, and their column titles.
COSTS = {
    "parameters": "parameters",
    "train_seconds": "training, s",
    "predict_clips_per_second": "clips/s predicted",
    "peak_memory_mib": "memory, MiB",
}

_SELECTIONS = {
    "V": "epoch chosen on validation",
    "T": "epoch chosen on the test split",
    "?": "unknown what chose the epoch",
    "-": "nothing to choose",
}


class _Cell(NamedTuple):
    text: str
    bold: bool = False
    dagger: bool = False


class _Table(NamedTuple):
    header: list[str]
    rows: list[list[_Cell]]
    published: list[list[_Cell]]
    notes: list[str]


def markdown_table(content: Mapping[str, Any], *, published: Sequence[PublishedResult] = ()) -> str:
    """Return a comparison as a markdown table with notes.

    ``published`` numbers of others stand in a block below, never bold.
    """
    table = _table(content, published)
    lines = [_pipe_row(table.header), _pipe_row(["---", *["---:"] * (len(table.header) - 1)])]
    lines += [_pipe_row(map(_markdown_cell, row)) for row in table.rows]
    if table.published:
        # Columns of metrics end with an arrow.
        titles = [title for title in table.header if title.endswith(("↑", "↓"))]
        header = ["model", *titles, "source"]
        lines += ["", "Published by others, not run here:", ""]
        lines += [_pipe_row(header), _pipe_row(["---"] * len(header))]
        lines += [_pipe_row(map(_markdown_cell, row)) for row in table.published]
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def latex_table(content: Mapping[str, Any], *, published: Sequence[PublishedResult] = ()) -> str:
    """Return a comparison as a LaTeX table, which needs the package ``booktabs``.

    ``published`` numbers of others stand below a rule, never bold.
    """
    table = _table(content, published)
    width = len(table.header)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        _latex_row(map(_escape, table.header)),
        r"\midrule",
        *(_latex_row(map(_latex_cell, row)) for row in table.rows),
    ]
    if table.published:
        block = rf"\multicolumn{{{width}}}{{l}}{{Published by others, not run here}} \\"
        lines += [r"\midrule", block]
        lines += [_latex_published(row, width) for row in table.published]
    notes = " ".join(f"{_escape(note)}." for note in table.notes)
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{notes}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def csv_table(
    content: Mapping[str, Any],
    *,
    split: str = "test",
    published: Sequence[PublishedResult] = (),
) -> str:
    """Return a comparison as csv: a line per model and metric.

    The split is ``test`` or ``valid``; only ``test`` has tests, best rows and costs.
    ``published`` numbers of others stand in lines of the kind ``published``.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    lines = []
    for row in content["rows"]:
        for metric in row[split]:
            lines.append(_csv_line(content, row, metric, split))
    lines += map(_published_line, published)
    for line in lines:
        cells = line.items()
        writer.writerow({k: csv_cell(v) if isinstance(v, str) else v for k, v in cells})
    return text.getvalue()


def _table(content: Mapping[str, Any], published: Sequence[PublishedResult]) -> _Table:
    metrics: list[str] = content["metrics"]
    # A column that would be empty in every row is left out.
    has_questions = any(row.get("question") for row in content["rows"])
    row_costs = [row.get("cost") or {} for row in content["rows"]]
    costs = [key for key in COSTS if any(cost.get(key) is not None for cost in row_costs)]
    header = ["model", *["question"] * has_questions, *map(column_title, metrics), "seeds"]
    header += [COSTS[key] for key in costs]
    rows = []
    for row, cost in zip(content["rows"], row_costs, strict=True):
        texts = [row["name"], *[row.get("question") or ""] * has_questions]
        values = [_metric_cell(content, row, key) for key in metrics]
        ends = [_format_seeds(content, row), *(_format_cost(key, cost.get(key)) for key in costs)]
        rows.append([*map(_Cell, texts), *values, *map(_Cell, ends)])
    return _Table(header, rows, _published_rows(metrics, published), _notes(content))


def column_title(key: str) -> str:
    """Return the column title of a metric: ``acc2_non0`` becomes ``Acc-2 non0 (%) ↑``."""
    unit = " (%)" if _in_percent(key) else ""
    return f"{metric_name(key)}{unit} {'↑' if higher_is_better(key) else '↓'}"


def _in_percent(key: str) -> bool:
    return key not in ("mae", "corr")


def format_metric(key: str, value: float | None) -> str:
    """Return a value as tables print it: in percent, errors and correlations as they are."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:.2f}" if _in_percent(key) else f"{value:.3f}"


def _metric_cell(content: Mapping[str, Any], row: Mapping[str, Any], key: str) -> _Cell:
    summary = row["test"].get(key) or {}
    mean, std = summary.get("mean"), summary.get("std")
    if mean is None:
        return _Cell(NOTHING)
    spread = f" ± {format_metric(key, std)}" if std is not None else ""
    test = _find_test(content, row["name"], key)
    # A metric can be undefined for a seed; the reader must see that.
    valid = summary["num_valid"]
    fewer = f" ({valid} of {row['seeds_done']} seeds)" if valid < row["seeds_done"] else ""
    return _Cell(
        format_metric(key, mean) + spread + fewer,
        bold=content["best"].get(key) == row["name"],
        dagger=test.get("better") is not None,
    )


def _find_test(content: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any]:
    tests: list[Mapping[str, Any]] = content["tests"]
    return next((test for test in tests if (test["name"], test["metric"]) == (name, key)), {})


def _format_seeds(content: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the number of seeds, or ``2 of 3 seeds`` if one diverged."""
    if row["kind"] == "reference":
        return NOTHING
    asked, done = len(content["seeds"]), row["seeds_done"]
    return str(asked) if done == asked else f"{done} of {asked} seeds"


def _format_cost(key: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if key == "train_seconds" else f"{value:,.0f}"


def _notes(content: Mapping[str, Any]) -> list[str]:
    corpus = content["corpus"]
    preset = f", preset {content['preset']}" if content.get("preset") else ""
    notes = [
        f"{corpus['name']}, {content['test_clips']} test clips{preset}: "
        "mean ± s.d. over the seeds that finished",
        f"{DAGGER} significantly different from {content['reference']} (p < .05 after Holm)",
        "bold: significantly better than every other row",
    ]
    # Titles without arrow and unit: the note gives the unit.
    errors = [
        f"{column_title(key)[:-2].removesuffix(' (%)')} {100 * floor:.2f}"
        for key, floor in content["floor"].items()
        if floor is not None
    ]
    if errors:
        notes.append(
            f"s.e. that the choice of test clips alone causes, points: {', '.join(errors)}"
        )
    for row in content["rows"]:
        for seed, reason in row.get("diverged", {}).items():
            notes.append(f"{row['name']}, seed {seed} diverged and is not in the mean: {reason}")
    return [*notes, *content["notes"]]


def _published_rows(
    metrics: Sequence[str], published: Sequence[PublishedResult]
) -> list[list[_Cell]]:
    """Return a row per model and source that reports one of the metrics."""
    by_model: dict[tuple[str, str], dict[str, PublishedResult]] = {}
    for result in published:
        if result.metric in metrics:
            by_model.setdefault((result.model, result.source), {})[result.metric] = result
    rows = []
    for (model, source), results in by_model.items():
        first = next(iter(results.values()))  # text and alignment belong to the model
        settings = [setting for setting in (first.text, first.alignment) if setting != "-"]
        selections = dict.fromkeys(_SELECTIONS[result.selection] for result in results.values())
        remarks = dict.fromkeys(result.note for result in results.values() if result.note)
        about = "; ".join([source, *settings, ", ".join(selections), *remarks])
        values = [
            format_metric(key, results[key].value if key in results else None) for key in metrics
        ]
        rows.append([_Cell(text) for text in (model, *values, about)])
    return rows


def _pipe_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_MARKDOWN_ESCAPES = str.maketrans({"|": "\\|", "*": "\\*", "_": "\\_", "\n": " "})


def _markdown_cell(cell: _Cell) -> str:
    text = cell.text.translate(_MARKDOWN_ESCAPES)
    return (f"**{text}**" if cell.bold else text) + DAGGER * cell.dagger


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: rf"\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "–": "--",
        "†": r"$^{\dagger}$",
        "\n": " ",
    }
)


def _escape(text: str) -> str:
    return text.translate(_LATEX_ESCAPES)


def _latex_cell(cell: _Cell) -> str:
    text = _escape(cell.text)
    return (rf"\textbf{{{text}}}" if cell.bold else text) + _escape(DAGGER) * cell.dagger


def _latex_published(row: Sequence[_Cell], width: int) -> str:
    """Return a row with the values below their metrics, and the source in the columns after."""
    *cells, source = (_escape(cell.text) for cell in row)
    left = max(width - len(cells), 1)
    return _latex_row([*cells, rf"\multicolumn{{{left}}}{{l}}{{{source}}}"])


def _csv_line(
    content: Mapping[str, Any], row: Mapping[str, Any], metric: str, split: str
) -> dict[str, Any]:
    summary = row[split][metric]
    line = {
        "kind": row["kind"],
        "corpus": content["corpus"]["name"],
        "preset": content.get("preset"),
        "split": split,
        "model": row["name"],
        "question": row.get("question"),
        "metric": metric,
        "higher_is_better": higher_is_better(metric),
        **{key: summary.get(key) for key in ("mean", "std", "low", "high")},
        "seeds_valid": summary.get("num_valid"),
        "seeds_done": row["seeds_done"],
        "seeds_asked": len(content["seeds"]),
        "reference": content["reference"],
        "note": "; ".join(f"seed {s} diverged: {w}" for s, w in row.get("diverged", {}).items()),
    }
    if split == "test":  # nothing is tested on the validation split
        test = _find_test(content, row["name"], metric)
        line |= {"difference": test.get("difference"), "better": test.get("better")}
        line |= {f"difference_{end}": test.get(end) for end in ("low", "high")}
        line |= {key: value for key, value in test.items() if key.startswith("p_")}
        line["best"] = content["best"].get(metric) == row["name"]
        line |= {key: (row.get("cost") or {}).get(key) for key in COSTS}
    return line


def _published_line(result: PublishedResult) -> dict[str, Any]:
    copied = ("model", "metric", "selection", "source", "note")
    return {key: getattr(result, key) for key in copied} | {
        "kind": "published",
        "corpus": result.dataset,
        "split": "test",
        "higher_is_better": higher_is_better(result.metric),
        "mean": result.value,
    }
