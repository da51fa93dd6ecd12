"""The section of a comparison or an ablation: figures, tables, answers and notes.

It is made of ``comparison.json`` as ``mmcl compare`` and ``mmcl ablate`` write it. No number
is computed here that is not in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from mmcl.evaluation.metrics import higher_is_better, metric_name
from mmcl.evaluation.published_results import PublishedResult, published_datasets, published_results
from mmcl.explain import comparison_words as words
from mmcl.explain.comparison_figures import VERDICT_COLOURS, forest_figure, seeds_figure
from mmcl.explain.cost_figure import cost_figure, quantity
from mmcl.explain.figures import COLOURS, figure_html
from mmcl.explain.page import environment_facts, render_section

__all__ = ["comparison_section"]

_SELECTIONS = {"V": "validation", "T": "test", "?": "not known", "-": "nothing to choose"}
_COSTS = ("parameters", "train_seconds", "predict_clips_per_second", "peak_memory_mib")
_P_VALUES = ("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm")

_Json = Mapping[str, Any]
_Tests = Mapping[tuple[str, str], _Json]  # by row and metric


class _Cell(NamedTuple):
    """A number of a table: its text, the value it is sorted by, and how it is set."""

    text: str
    spread: str = ""
    value: float | None = None
    is_best: bool = False
    verdict: words.Verdict = "untested"


def comparison_section(
    content: Mapping[str, Any], *, published: Sequence[PublishedResult] | None = None
) -> Markup:
    """Return the section of a comparison or an ablation from the content of comparison.json.

    Numbers that others published on the same data set stand beside ours. They have a colour of
    their own, are never tested and never bold.
    """
    if published is None:
        name = content["corpus"]["name"]
        published = published_results(name) if name in published_datasets() else []
    metrics = list(content["metrics"])
    tests = {(test["name"], test["metric"]): test for test in content["tests"]}
    rows = _ordered_rows(content)
    shown = [result for result in published if result.metric in metrics]
    forests, seeds = _figures(content, rows, tests, shown)
    return render_section(
        "section_comparison.html.j2",
        content=content,
        headline=words.headline(content),
        answers=_answers(content, tests),
        forests=forests,
        seeds=seeds,
        cost=_cost(content, rows),
        primary=metric_name(metrics[0]),
        columns=_columns(metrics),
        lines=[_line(row, content, tests) for row in rows],
        every=_metric_tables(rows),
        tests=_test_rows(content, rows, tests),
        selections=_SELECTIONS,
        published=[(p, metric_name(p.metric), words.number(p.value)) for p in shown],
        colours={**COLOURS, **VERDICT_COLOURS},
        notes=_notes(content),
        facts=_facts(content),
    )


def _ordered_rows(content: _Json) -> list[_Json]:
    """Order the rows of an ablation as asked, reference first; of a comparison best first.

    Reference rows come last, and before them rows without a score.
    """
    rows: list[_Json] = list(content["rows"])
    if content["kind"] == "ablation":
        return sorted(rows, key=lambda row: row["name"] != content["reference"])
    metric = content["metrics"][0]
    sign = -1.0 if higher_is_better(metric) else 1.0

    def rank(row: _Json) -> tuple[bool, float]:
        mean = (row["test"].get(metric) or {}).get("mean")
        return row["kind"] == "reference", math.inf if mean is None else sign * mean

    return sorted(rows, key=rank)


def _answers(content: _Json, tests: _Tests) -> list[tuple[str, list[words.Answer]]]:
    """Return the questions of an ablation in their order, with an answer per row."""
    metric = content["metrics"][0]
    answers: dict[str, list[words.Answer]] = {}
    for row in content["rows"]:
        if content["kind"] == "ablation" and row["question"] is not None:
            given = words.answer(row["name"], metric, tests.get((row["name"], metric)))
            answers.setdefault(row["question"], []).append(given)
    return list(answers.items())


def _figures(
    content: _Json, rows: Sequence[_Json], tests: _Tests, published: Sequence[PublishedResult]
) -> tuple[list[tuple[str, str, Markup]], list[tuple[str, str, Markup]]]:
    """Return forest plots and plots of seeds: a metric's name, a remark, and its figure."""
    forests, seeds = [], []
    for key in content["metrics"]:
        title, floor = metric_name(key), (content["floor"] or {}).get(key)
        if figure := forest_figure(rows, tests, key):
            # Beside the differences stands how far chance alone reaches.
            chance = f"chance alone, for so many clips: ±{words.number(floor)}"
            markup = figure_html(figure, name=f"forest-{key}")
            forests.append((title, "" if floor is None else chance, markup))
        if figure := seeds_figure(rows, key, seeds=content["seeds"], published=published):
            markup = figure_html(figure, name=f"seeds-{key}")
            seeds.append((title, words.arrow(key), markup))
    return forests, seeds


def _cost(content: _Json, rows: Sequence[_Json]) -> dict[str, Any] | None:
    costs = [(row["name"], row["cost"]) for row in rows if row["cost"]]
    if not costs:
        return None
    figure = cost_figure(rows, content["metrics"][0])
    return {
        "figure": figure and figure_html(figure, name="cost"),
        "lines": [(name, [_Cell(quantity(c[k]), value=c[k]) for k in _COSTS]) for name, c in costs],
    }


def _columns(keys: Sequence[str]) -> list[tuple[str, str]]:
    return [(metric_name(key), words.arrow(key)) for key in keys]


def _line(row: _Json, content: _Json, tests: _Tests) -> dict[str, Any]:
    """Return a row of the main table."""
    name, metrics = row["name"], content["metrics"]
    cells = []
    for key in metrics:
        is_best, verdict = content["best"].get(key) == name, words.verdict(tests.get((name, key)))
        cells.append(_cell(row["test"].get(key))._replace(is_best=is_best, verdict=verdict))
    p = tests.get((name, metrics[0]), {}).get("p_holm")
    return {
        "name": name,
        "is_reference": name == content["reference"],
        "cells": [*cells, _Cell(words.p_value(p), value=p)],
        "seeds": f"{row['seeds_done']} of {len(content['seeds'])} seeds" if row["diverged"] else "",
        "diverged": [f"seed {seed} diverged: {why}" for seed, why in row["diverged"].items()],
    }


def _cell(summary: _Json | None) -> _Cell:
    if not summary or summary["mean"] is None:
        return _Cell("–")
    spread = "" if summary["std"] is None else f"± {words.number(summary['std'])}"
    return _Cell(words.number(summary["mean"]), spread, summary["mean"])


def _metric_tables(rows: Sequence[_Json]) -> list[dict[str, Any]]:
    """Return a table of all metrics per split."""
    tables = []
    for split in ("test", "valid"):
        keys = list(dict.fromkeys(key for row in rows for key in row[split] or {}))
        lines = [(row["name"], [_cell((row[split] or {}).get(k)) for k in keys]) for row in rows]
        if keys:
            tables.append({"split": split, "columns": _columns(keys), "lines": lines})
    return tables


def _test_rows(
    content: _Json, rows: Sequence[_Json], tests: _Tests
) -> list[tuple[str, str, list[_Cell]]]:
    """Return every test with all its p values."""
    lines = []
    for key in content["metrics"]:
        for row in rows:
            if test := tests.get((row["name"], key)):
                interval = f"[{words.signed(test['low'])}, {words.signed(test['high'])}]"
                cells = [
                    _Cell(words.signed(test["difference"]), interval, test["difference"]),
                    *(_Cell(words.p_value(test[p]), value=test[p]) for p in _P_VALUES),
                ]
                lines.append((metric_name(key), row["name"], cells))
    return lines


def _notes(content: _Json) -> list[str]:
    """Return the notes of the file and of its tests, each once."""
    names_of: dict[str, list[str]] = {}
    for test in content["tests"]:
        for note in test["notes"]:
            names_of.setdefault(note, []).append(test["name"])
    # A note that all rows share is stated once, without their names.
    num_tested = len({test["name"] for test in content["tests"]})
    notes = list(content["notes"])
    for note, repeated in names_of.items():
        names = list(dict.fromkeys(repeated))
        notes.append(note if len(names) == num_tested else f"{', '.join(names)}: {note}")
    return notes


def _facts(content: _Json) -> list[tuple[str, str]]:
    corpus = content["corpus"]
    return [
        ("corpus", f"{corpus['name']}, checksum {str(corpus['checksum'])[:16]}"),
        ("seeds", ", ".join(map(str, content["seeds"]))),
        *([("metrics as in", content["preset"])] if content["preset"] else []),
        ("processes", str(content["workers"])),
        *environment_facts(content["environment"]),
    ]
