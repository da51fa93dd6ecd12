"""Figures of a search for settings: its course, a slice per setting, and their section."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, figure_html, finish_figure
from mmcl.explain.page import render_page

__all__ = ["course_figure", "importance_figure", "slice_figure", "tuning_section"]

_HEIGHT = 230
_SYMBOLS = {"complete": "circle", "pruned": "x-thin-open"}
_LOG_RATIO = 20.0  # values as far apart as this were drawn on a log scale, and are shown on one
_COLOUR = COLOURS["common"]
_BEST = COLOURS["complementary"]


def course_figure(trials: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the validation loss of every trial, and the best completed one so far.

    Args:
        trials: As ``tuning.json`` lists them; failed ones have no value and are left out.
    """
    figure = go.Figure()
    completed = [trial for trial in trials if trial["state"] == "complete"]
    for state, symbol in _SYMBOLS.items():
        of_state = [trial for trial in trials if trial["state"] == state]
        figure.add_scatter(
            x=[trial["number"] for trial in of_state],
            y=[trial["value"] for trial in of_state],
            mode="markers",
            marker={
                "size": 7,
                "symbol": symbol,
                "color": _COLOUR,
                "line": {"width": 1.5, "color": _COLOUR},
            },
            hovertemplate=f"trial %{{x}}, {state}: %{{y:.4g}}<extra></extra>",
        )
    figure.add_scatter(
        x=[trial["number"] for trial in completed],
        y=list(accumulate((trial["value"] for trial in completed), min)),
        mode="lines",
        line={"color": _BEST, "width": 2, "shape": "hv"},
        hovertemplate="best up to trial %{x}: %{y:.4g}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT)
    figure.update_xaxes(title={"text": "trial", "standoff": 4}, tickformat="d", nticks=8)
    figure.update_yaxes(nticks=5)
    return figure


def slice_figure(trials: Sequence[Mapping[str, Any]], key: str, *, best: int) -> go.Figure:
    """Draw the validation loss of completed trials over one setting.

    Args:
        trials: As ``tuning.json`` lists them.
        key: The setting.
        best: Number of the best trial, which gets the other colour.
    """
    completed = [t for t in trials if t["state"] == "complete" and key in t["params"]]
    values = [trial["params"][key] for trial in completed]
    figure = go.Figure()
    figure.add_scatter(
        x=values,
        y=[trial["value"] for trial in completed],
        mode="markers",
        marker={
            "size": [10 if trial["number"] == best else 7 for trial in completed],
            "color": [_BEST if trial["number"] == best else _COLOUR for trial in completed],
            "opacity": 0.8,
        },
        hovertemplate=f"{html.escape(key)} %{{x:.4g}}: %{{y:.4g}}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT)
    wide = bool(values) and min(values) > 0 and max(values) / min(values) >= _LOG_RATIO
    figure.update_xaxes(
        title={"text": html.escape(key.partition(".")[2]), "standoff": 4},
        type="log" if wide else "linear",
        exponentformat="e",
        nticks=6,
    )
    figure.update_yaxes(nticks=5)
    return figure


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """Draw how much of the differences between trials each setting explains.

    Args:
        shares: By key, the largest first.
    """
    figure = go.Figure()
    names = [html.escape(key) for key in shares]
    figure.add_bar(
        x=list(shares.values()),
        y=names,
        orientation="h",
        marker={"color": _COLOUR, "opacity": 0.8},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    finish_figure(figure, height=60 + 24 * len(names))
    figure.update_xaxes(title={"text": "share explained", "standoff": 4}, nticks=6)
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    return figure


def tuning_section(content: Mapping[str, Any]) -> Markup:
    """The part of a report on a search for settings.

    The page around it must hold plotly.js.

    Args:
        content: What :func:`mmcl.runs.tuning.tune` returned, or its file.
    """
    trials, best = content["trials"], content["best"]
    shares = content["importance"]
    keys = list(shares) if shares else list(best["params"])
    states = [trial["state"] for trial in trials]
    page = render_page(
        "section_tuning.html.j2",
        content=content,
        counts={state: states.count(state) for state in ("complete", "pruned", "failed")},
        course=figure_html(course_figure(trials), name="tuning-course"),
        importance=shares and figure_html(importance_figure(shares), name="tuning-importance"),
        slices=[
            (
                key,
                figure_html(
                    slice_figure(trials, key, best=best["number"]), name=f"tuning-slice-{at}"
                ),
            )
            for at, key in enumerate(keys, start=1)
        ],
    )
    return Markup(page)  # the template escaped what came from outside
