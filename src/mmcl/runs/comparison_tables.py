"""A comparison as a table to read, to typeset or to work with: markdown, LaTeX, csv.

In comes the content of ``comparison.json``; every number of a table comes from it. Bold is only
what is significantly better than every other row, a dagger what differs significantly from the
reference, and a seed that diverged is counted before the reader's eyes. Accuracies, F1 and
areas are printed in percent, errors and correlations as they are; csv rounds nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmcl.evaluation.metrics import higher_is_better
from mmcl.evaluation.published_results import PublishedResult

__all__ = ["CSV_COLUMNS", "csv_table", "latex_table", "markdown_table"]

NOTHING = "–"
DAGGER = "†"

CSV_COLUMNS = (
    *("kind", "corpus", "preset", "split", "model", "question", "metric", "higher_is_better"),
    *("mean", "std", "low", "high", "seeds_valid", "seeds_done", "seeds_asked"),
    *("reference", "difference", "difference_low", "difference_high"),
    *("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm", "better", "best"),
    *("parameters", "train_seconds", "predict_clips_per_second", "peak_memory_mib"),
    *("selection", "source", "note"),
)
"""Columns of :func:`csv_table`; an empty cell is a number that does not exist."""

COSTS = {
    "parameters": "parameters",
    "train_seconds": "training, s",
    "predict_clips_per_second": "clips/s predicted",
    "peak_memory_mib": "memory, MiB",
}

_STEM_NAMES = {
    "mae": "MAE",
    "corr": "Corr",
    "accuracy": "Accuracy",
    "acc2": "Acc-2",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
    "f1": "F1",
    "uar": "UAR",
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
    """Write a comparison as a pipe table with its notes below.

    Args:
        content: What ``comparison.json`` holds.
        published: Numbers of others, a block of their own that is never bold.

    Returns:
        The text, with a line feed at its end.
    """
    table = _table(content, published)
    lines = [_pipes(table.header), _pipes(["---", *["---:"] * (len(table.header) - 1)])]
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    if table.published:
        lines += ["", "Published by others, not run here:", ""]
        lines += [_pipes(_published_header(table.header))]
        lines += [_pipes(["---"] * len(_published_header(table.header)))]
        lines += [_pipes([_markdown(cell) for cell in row]) for row in table.published]
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def latex_table(content: Mapping[str, Any], *, published: Sequence[PublishedResult] = ()) -> str:
    r"""Write a comparison as a LaTeX table; it needs the package ``booktabs``.

    Args:
        content: What ``comparison.json`` holds.
        published: Numbers of others, below a rule of their own and never bold.

    Returns:
        A ``table`` environment; every text in it is escaped.
    """
    table = _table(content, published)
    width = len(table.header)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        _ampersands(map(_escape, table.header)),
        r"\midrule",
        *(_ampersands(map(_latex, row)) for row in table.rows),
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
    """Write a comparison as csv, a line per model and metric, nothing rounded.

    Args:
        content: What ``comparison.json`` holds.
        split: ``test`` or ``valid``; tests, best rows and costs belong to ``test`` alone.
        published: Numbers of others: lines of the kind ``published``.

    Returns:
        The text with a header, see :data:`CSV_COLUMNS`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in content["rows"]:
        for metric in row[split]:
            writer.writerow(_csv_line(content, row, metric, split))
    for each in published:
        writer.writerow(_published_line(each))
    return text.getvalue()


# ---------------------------------------------------------------- what the table says


def _table(content: Mapping[str, Any], published: Sequence[PublishedResult]) -> _Table:
    metrics: list[str] = content["metrics"]
    asks = any(row.get("question") for row in content["rows"])
    costs = [
        key
        for key in COSTS
        if any((row.get("cost") or {}).get(key) is not None for row in content["rows"])
    ]
    header = ["model", *["question"] * asks, *map(_title, metrics), "seeds"]
    header += [COSTS[key] for key in costs]
    rows = [_row(content, row, asks=asks, costs=costs) for row in content["rows"]]
    return _Table(header, rows, _published_rows(metrics, published), _notes(content))


def _title(key: str) -> str:
    """``acc2_non0`` as ``Acc-2 non0 (%) ↑``."""
    stem, *rest = key.split("_")
    words = [_STEM_NAMES.get(stem, stem), *("AUROC" if word == "auroc" else word for word in rest)]
    unit = ["(%)"] if _percent(key) else []
    return " ".join([*words, *unit, "↑" if higher_is_better(key) else "↓"])


def _percent(key: str) -> bool:
    return key not in ("mae", "corr")


def _number(key: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:.2f}" if _percent(key) else f"{value:.3f}"


def _row(
    content: Mapping[str, Any], row: Mapping[str, Any], *, asks: bool, costs: Sequence[str]
) -> list[_Cell]:
    cells = [_Cell(row["name"])]
    cells += [_Cell(row.get("question") or "")] * asks
    cells += [_metric_cell(content, row, key) for key in content["metrics"]]
    cells.append(_Cell(_seeds(content, row)))
    cost = row.get("cost") or {}
    return cells + [_Cell(_cost(key, cost.get(key))) for key in costs]


def _metric_cell(content: Mapping[str, Any], row: Mapping[str, Any], key: str) -> _Cell:
    summary = row["test"].get(key) or {}
    mean, std = summary.get("mean"), summary.get("std")
    if mean is None:
        return _Cell(NOTHING)
    spread = f" ± {_number(key, std)}" if std is not None else ""
    test = _find_test(content, row["name"], key)
    valid = summary["num_valid"]
    fewer = f" ({valid} of {row['seeds_done']} seeds)" if valid < row["seeds_done"] else ""
    return _Cell(
        _number(key, mean) + spread + fewer,
        bold=content["best"].get(key) == row["name"],
        dagger=test.get("better") is not None,
    )


def _find_test(content: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any]:
    found: list[Mapping[str, Any]] = content["tests"]
    return next((test for test in found if (test["name"], test["metric"]) == (name, key)), {})


def _seeds(content: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """How many seeds the row is of: ``2 of 3 seeds`` where one diverged."""
    if row["kind"] == "reference":
        return NOTHING
    asked, done = len(content["seeds"]), row["seeds_done"]
    return str(asked) if done == asked else f"{done} of {asked} seeds"


def _cost(key: str, value: float | None) -> str:
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
    floors = [
        f"{_title(key)[:-2].removesuffix(' (%)')} {100 * floor:.2f}"
        for key, floor in content["floor"].items()
        if floor is not None
    ]
    if floors:
        notes.append(
            f"s.e. that the choice of test clips alone causes, points: {', '.join(floors)}"
        )
    for row in content["rows"]:
        for seed, why in row.get("diverged", {}).items():
            notes.append(f"{row['name']}, seed {seed} diverged and is not in its row: {why}")
    return [*notes, *content["notes"]]


# ---------------------------------------------------------------- the numbers of others


def _published_rows(
    metrics: Sequence[str], published: Sequence[PublishedResult]
) -> list[list[_Cell]]:
    """A row per model and source that has one of the metrics."""
    found: dict[tuple[str, str], dict[str, PublishedResult]] = {}
    for each in published:
        if each.metric in metrics:
            found.setdefault((each.model, each.source), {})[each.metric] = each
    rows = []
    for (model, source), cells in found.items():
        first = next(iter(cells.values()))
        selections = ", ".join(dict.fromkeys(_SELECTIONS[c.selection] for c in cells.values()))
        remarks = dict.fromkeys(cell.note for cell in cells.values() if cell.note)
        settings = [each for each in (first.text, first.alignment) if each != "-"]
        about = "; ".join([source, *settings, selections, *remarks])
        values = [_number(key, cells[key].value) if key in cells else NOTHING for key in metrics]
        rows.append([_Cell(model), *map(_Cell, values), _Cell(about)])
    return rows


def _published_header(header: Sequence[str]) -> list[str]:
    titles = [each for each in header if each.endswith(("↑", "↓"))]
    return ["model", *titles, "source"]


# ---------------------------------------------------------------- markdown and LaTeX


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(cell: _Cell) -> str:
    text = cell.text.replace("|", "\\|").replace("\n", " ")
    text = text.replace("*", "\\*").replace("_", "\\_")
    text = f"**{text}**" if cell.bold else text
    return text + DAGGER * cell.dagger


def _ampersands(cells: Any) -> str:
    return " & ".join(cells) + r" \\"


_LATEX = str.maketrans(
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
    return text.translate(_LATEX)


def _latex(cell: _Cell) -> str:
    text = _escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    return text + _escape(DAGGER) * cell.dagger


def _latex_published(row: Sequence[_Cell], width: int) -> str:
    """Values below the metrics they belong to; the source in the columns that are left."""
    *cells, source = (_escape(cell.text) for cell in row)
    left = max(width - len(cells), 1)
    return _ampersands([*cells, rf"\multicolumn{{{left}}}{{l}}{{{source}}}"])


# ---------------------------------------------------------------- csv


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
    if split == "test":
        test = _find_test(content, row["name"], metric)
        line |= {"difference": test.get("difference"), "difference_low": test.get("low")}
        line |= {"difference_high": test.get("high"), "better": test.get("better")}
        line |= {key: value for key, value in test.items() if key.startswith("p_")}
        line["best"] = content["best"].get(metric) == row["name"]
        line |= {key: (row.get("cost") or {}).get(key) for key in COSTS}
    return line


def _published_line(result: PublishedResult) -> dict[str, Any]:
    return {
        "kind": "published",
        "corpus": result.dataset,
        "split": "test",
        "model": result.model,
        "metric": result.metric,
        "higher_is_better": higher_is_better(result.metric),
        "mean": result.value,
        "selection": result.selection,
        "source": result.source,
        "note": result.note,
    }
