"""The section of a search for settings and its figures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, figure_html, finish_figure
from mmcl.explain.page import render_section

__all__ = ["course_figure", "importance_figure", "slice_figure", "tuning_section"]

_HEIGHT = 230
_SYMBOLS = {"complete": "circle", "pruned": "x-thin-open"}
_LOG_RATIO = 20.0  # the axis is logarithmic where values are at least this far apart
_COLOUR = COLOURS["common"]
_BEST = COLOURS["complementary"]


def course_figure(trials: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the validation loss of every trial that has one, and the best completed so far."""
    figure = go.Figure()
    for state, symbol in _SYMBOLS.items():
        of_state = [trial for trial in trials if trial["state"] == state]
        line = {"width": 1.5, "color": _COLOUR}
        figure.add_scatter(
            x=[trial["number"] for trial in of_state],
            y=[trial["value"] for trial in of_state],
            mode="markers",
            marker={"size": 7, "symbol": symbol, "color": _COLOUR, "line": line},
            hovertemplate=f"trial %{{x}}, {state}: %{{y:.4g}}<extra></extra>",
        )
    completed = [trial for trial in trials if trial["state"] == "complete"]
    figure.add_scatter(
        x=[trial["number"] for trial in completed],
        y=list(accumulate((trial["value"] for trial in completed), min)),
        mode="lines",
        line={"color": _BEST, "width": 2, "shape": "hv"},
        hovertemplate="best up to trial %{x}: %{y:.4g}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT, x_title="trial")
    figure.update_xaxes(tickformat="d", nticks=8)
    return figure


def slice_figure(trials: Sequence[Mapping[str, Any]], key: str, *, best: int) -> go.Figure:
    """Draw the validation loss of completed trials over one setting, the best one marked."""
    completed = [t for t in trials if t["state"] == "complete" and key in t["params"]]
    values = [trial["params"][key] for trial in completed]
    is_best = [trial["number"] == best for trial in completed]
    figure = go.Figure()
    figure.add_scatter(
        x=values,
        y=[trial["value"] for trial in completed],
        mode="markers",
        marker={
            "size": [10 if is_it else 7 for is_it in is_best],
            "color": [_BEST if is_it else _COLOUR for is_it in is_best],
            "opacity": 0.8,
        },
        hovertemplate=f"{html.escape(key)} %{{x:.4g}}: %{{y:.4g}}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT, x_title=html.escape(key.partition(".")[2]))
    wide = bool(values) and min(values) > 0 and max(values) / min(values) >= _LOG_RATIO
    figure.update_xaxes(type="log" if wide else "linear", exponentformat="e", nticks=6)
    return figure


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """Draw the share of the differences between trials that each setting explains."""
    figure = go.Figure()
    figure.add_bar(
        x=list(shares.values()),
        y=[html.escape(key) for key in shares],
        orientation="h",
        marker={"color": _COLOUR, "opacity": 0.8},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    finish_figure(figure, height=60 + 24 * len(shares), x_title="share explained")
    figure.update_xaxes(nticks=6)
    # Every setting is named: no limit of ticks.
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, nticks=0)
    return figure


def tuning_section(content: Mapping[str, Any]) -> Markup:
    """Return the section of a search for settings from the content of tuning.json."""
    trials, best, shares = content["trials"], content["best"], content["importance"]
    states = [trial["state"] for trial in trials]
    slices = []
    for index, key in enumerate(shares or best["params"], start=1):
        figure = slice_figure(trials, key, best=best["number"])
        slices.append((key, figure_html(figure, name=f"tuning-slice-{index}")))
    return render_section(
        "section_tuning.html.j2",
        content=content,
        counts={state: states.count(state) for state in ("complete", "pruned", "failed")},
        course=figure_html(course_figure(trials), name="tuning-course"),
        importance=shares and figure_html(importance_figure(shares), name="tuning-importance"),
        slices=slices,
    )
