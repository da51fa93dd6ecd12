"""The figures of a comparison: differences to the reference, and the score of every seed."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from mmcl.evaluation.metrics import higher_is_better
from mmcl.explain.comparison_words import Verdict, number, probability, signed, verdict
from mmcl.explain.figures import COLOURS, NEUTRAL, error_bars, finish_figure

__all__ = ["VERDICT_COLOURS", "forest_figure", "seeds_figure"]

VERDICT_COLOURS: dict[Verdict, str] = {
    "better": COLOURS["common"],
    "worse": COLOURS["complementary"],
    "same": NEUTRAL,
    "untested": NEUTRAL,
}
"""Blue and orange, which the colour-blind tell apart; without colour the dot is also hollow."""

_ROW_HEIGHT, _LINE_HEIGHT, _TOP, _TICKS, _TITLE = 25, 13, 4, 26, 20
_NAME_WIDTH = 20  # letters of a name before it is wrapped
_ROOM = 0.08  # share of an axis that is left free at its ends
_EDGE = 0.03  # distance of a triangle from the end of the axis, so that it covers no name

_Row = Mapping[str, Any]


def forest_figure(
    rows: Sequence[_Row], tests: Mapping[tuple[str, str], _Row], metric: str
) -> go.Figure | None:
    """Draw the differences to the reference with their intervals, and a line at zero.

    Reference rows (a constant, the majority) can be far off. The axis is that of the models,
    and a row beyond it is a triangle at the end. Returns None where no row was tested.
    """
    tested = [
        (row, test)
        for row in rows
        if (test := tests.get((row["name"], metric))) and verdict(test) != "untested"
    ]
    if not tested:
        return None
    # The axis holds the intervals of the models; without a model those of all rows.
    models = [test for row, test in tested if row["kind"] == "model"] or [t for _, t in tested]
    low = min(0.0, *(test["low"] for test in models))
    high = max(0.0, *(test["high"] for test in models))
    room = _ROOM * (high - low or 1.0)
    low, high = low - room, high + room
    figure = go.Figure()
    for index, (row, test) in enumerate(tested):
        _draw_difference(figure, index, row, test, low, high)
    figure.add_vline(x=0, line={"width": 1, "color": NEUTRAL})
    sides = ("worse", "better") if higher_is_better(metric) else ("better", "worse")
    title = f"← {sides[0]} &nbsp; {sides[1]} →"
    _finish_rows(figure, [row["name"] for row, _ in tested], x_title=title)
    figure.update_xaxes(range=[low, high])
    return figure


def seeds_figure(
    rows: Sequence[_Row], metric: str, *, seeds: Sequence[int], published: Sequence[Any] = ()
) -> go.Figure | None:
    """Draw every seed of every row as a dot, their mean as a bar, published numbers as diamonds.

    ``seeds`` are in the order of the values. Returns None where the metric is undefined in
    every row.
    """
    known = [row for row in rows if (row["test"].get(metric) or {}).get("mean") is not None]
    if not known:
        return None
    figure = go.Figure()
    for index, row in enumerate(known):
        _draw_seeds(figure, index, row, metric, seeds)
    names = [row["name"] for row in known]
    _draw_published(figure, names, [p for p in published if p.metric == metric])
    _finish_rows(figure, names)
    return figure


def _draw_difference(
    figure: go.Figure, index: int, row: _Row, test: _Row, low: float, high: float
) -> None:
    judged, difference = verdict(test), test["difference"]
    colour = VERDICT_COLOURS[judged]
    inside = low <= difference <= high
    # Filled: significant. Hollow: no difference was found. Triangle: beyond the axis.
    symbol = "circle" if judged in ("better", "worse") else "circle-open"
    if not inside:
        symbol = "triangle-right" if difference > high else "triangle-left"
    edge = _EDGE * (high - low)
    bars = error_bars([difference], [test["low"]], [test["high"]], colour=colour)
    interval = f"[{signed(test['low'])}, {signed(test['high'])}]"
    words = f"{test['name']}: {signed(difference)} {interval}, {probability(test['p_holm'])}"
    figure.add_scatter(
        x=[difference if inside else min(max(difference, low + edge), high - edge)],
        y=[index],
        mode="markers",
        marker={
            "size": 10,
            "color": colour,
            "symbol": symbol,
            "line": {"width": 2, "color": colour},
        },
        error_x={**bars, "thickness": 2, "visible": inside},
        hovertemplate=f"{html.escape(words)}<extra></extra>",
        opacity=1.0 if row["kind"] == "model" else 0.75,
    )


def _draw_seeds(
    figure: go.Figure, index: int, row: _Row, metric: str, seeds: Sequence[int]
) -> None:
    summary = row["test"][metric]
    colour = COLOURS.get(row["name"], NEUTRAL)
    named = zip(_seed_names(row, summary["values"], seeds), summary["values"], strict=True)
    known = [(name, value) for name, value in named if value is not None]
    title = html.escape(row["name"])
    figure.add_scatter(
        x=[value for _, value in known],
        y=[index] * len(known),
        mode="markers",
        marker={"size": 9, "color": colour, "opacity": 0.6, "line": {"width": 0}},
        text=[f"{title}, {name}: {number(value)}" for name, value in known],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[summary["mean"]],
        y=[index],
        mode="markers",
        marker={"size": 15, "symbol": "line-ns", "line": {"width": 2.5, "color": colour}},
        hovertemplate=f"{title}, mean: {number(summary['mean'])}<extra></extra>",
    )


def _seed_names(row: _Row, values: Sequence[Any], seeds: Sequence[int]) -> list[str]:
    """Name each value by its seed, where their number says which seed it is from."""
    finished = [seed for seed in seeds if str(seed) not in row["diverged"]]
    for candidates in (seeds, finished):
        if len(candidates) == len(values):
            return [f"seed {seed}" for seed in candidates]
    if len(values) == 1:
        return ["every seed"]
    return [f"value {place}" for place in range(1, len(values) + 1)]


def _draw_published(figure: go.Figure, names: Sequence[str], published: Sequence[Any]) -> None:
    row_of = {_letters(name): index for index, name in enumerate(names)}
    known = [result for result in published if _letters(result.model) in row_of]
    if not known:
        return
    words = [f"{p.model}, published: {number(p.value)} ({p.source})" for p in known]
    figure.add_scatter(
        x=[result.value for result in known],
        y=[row_of[_letters(result.model)] for result in known],
        mode="markers",
        marker={
            "size": 9,
            "symbol": "diamond-open",
            "color": COLOURS["published"],
            "line": {"width": 2},
        },
        text=[html.escape(text) for text in words],
        hovertemplate="%{text}<extra></extra>",
    )


def _letters(name: str) -> str:
    """Return a name for matching: Self-MM, self_mm and SelfMM are one model."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _finish_rows(figure: go.Figure, names: Sequence[str], *, x_title: str | None = None) -> None:
    """Give a figure with a row per name its look and height; long names are wrapped."""
    wrapped = [textwrap.wrap(name, _NAME_WIDTH) or [""] for name in names]
    most_lines = max(len(lines) for lines in wrapped)
    below = _TICKS + (_TITLE if x_title else 0)
    height = len(names) * (_ROW_HEIGHT + _LINE_HEIGHT * (most_lines - 1)) + _TOP + below
    finish_figure(figure, height=height, x_title=x_title)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=["<br>".join(html.escape(line) for line in lines) for lines in wrapped],
        range=[len(names) - 0.4, -0.6],
        automargin=True,
        ticklabelstandoff=6,
    )
    figure.update_xaxes(nticks=6, tickangle=0)
    figure.update_layout(margin={"l": 10, "r": 14, "t": _TOP, "b": below})
