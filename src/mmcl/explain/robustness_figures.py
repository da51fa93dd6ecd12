"""Figures of robustness: curves over the rate, bars over the subsets, and their section."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, figure_html, finish_figure
from mmcl.explain.page import render_page
from mmcl.runs.robustness import crossing_sentences, headline

__all__ = ["Measured", "rate_figure", "robustness_section", "subset_figure"]

_NEUTRAL = "rgb(128, 136, 148)"
_LINE = {"color": _NEUTRAL, "width": 1.5, "dash": "dot"}
_BAND_OPACITY = 0.18
_HEIGHT = 260


class Measured(NamedTuple):
    """A metric over seeds.

    Attributes:
        mean: Mean over seeds; None where undefined.
        low: Lower end of its 95% interval; None for a single seed.
        high: Its upper end.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None


def rate_figure(
    rates: Sequence[float],
    curve: Sequence[Measured],
    *,
    line: float | None,
    line_name: str,
    name: str,
) -> go.Figure:
    """Draw a metric over the rate of missing steps, with its interval and the line.

    Args:
        rates: Chances that a step is missing.
        curve: The metric at each; one that is undefined leaves a gap.
        line: What is scored without any feature; None draws no line.
        line_name: Of that row.
        name: Variant; one in :data:`~mmcl.explain.figures.COLOURS` gets its colour.
    """
    figure = go.Figure()
    colour = COLOURS.get(name, COLOURS["common"])
    band = [
        (rate, each.low, each.high)
        for rate, each in zip(rates, curve, strict=True)
        if each.low is not None and each.high is not None
    ]
    if band:
        there, back = band, band[::-1]
        figure.add_scatter(
            x=[rate for rate, _, _ in there] + [rate for rate, _, _ in back],
            y=[high for _, _, high in there] + [low for _, low, _ in back],
            fill="toself",
            fillcolor=_faint(colour),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
        )
    if line is not None:
        figure.add_scatter(
            x=[rates[0], rates[-1]],
            y=[line, line],
            mode="lines",
            line=_LINE,
            hovertemplate=f"{html.escape(line_name)}: %{{y:.3f}}<extra></extra>",
        )
    figure.add_scatter(
        x=list(rates),
        y=[each.mean for each in curve],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        hovertemplate="%{x:.0%} missing: %{y:.3f}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT)
    figure.update_xaxes(
        title={"text": "share of steps missing", "standoff": 4}, tickformat=".0%", nticks=6
    )
    figure.update_yaxes(nticks=5)
    return figure


def subset_figure(
    subsets: Mapping[str, Measured], *, line: float | None, line_name: str, name: str
) -> go.Figure:
    """Draw a metric with every subset of the modalities, a bar each, and the line.

    Args:
        subsets: The metric by name of the subset, in the order to draw.
        line: What is scored without any feature; None draws no line.
        line_name: Of that row.
        name: Variant; one in :data:`~mmcl.explain.figures.COLOURS` gets its colour.
    """
    figure = go.Figure()
    labels = [html.escape(each) for each in subsets]
    spans = [_span(each) for each in subsets.values()]
    figure.add_bar(
        x=labels,
        y=[each.mean for each in subsets.values()],
        marker={"color": COLOURS.get(name, COLOURS["common"]), "opacity": 0.8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [above for _, above in spans],
            "arrayminus": [below for below, _ in spans],
            "color": _NEUTRAL,
            "thickness": 1.5,
            "width": 4,
        },
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    if line is not None:
        figure.add_scatter(
            x=labels,
            y=[line] * len(labels),
            mode="lines",
            line=_LINE,
            hovertemplate=f"{html.escape(line_name)}: %{{y:.3f}}<extra></extra>",
        )
    finish_figure(figure, height=_HEIGHT)
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_yaxes(nticks=5)
    figure.update_layout(margin={"b": 84}, bargap=0.35)
    return figure


def robustness_section(content: Mapping[str, Any]) -> Markup:
    """The part of a report on robustness: its figures, in words and as a table.

    The page around it must hold plotly.js.

    Args:
        content: What :func:`mmcl.runs.robustness.robustness` returned, or its file.
    """
    keys = headline(content)
    page = render_page(
        "section_robustness.html.j2",
        content=content,
        keys=keys,
        figures=[(key, *_figures(content, key)) for key in keys],
        sentences=crossing_sentences(content),
    )
    return Markup(page)  # the template escaped what came from outside


def _figures(content: Mapping[str, Any], key: str) -> tuple[Markup, Markup]:
    line = content["line"][key]
    given = {
        "line": line["value"] if line else None,
        "line_name": line["row"] if line else "",
        "name": content["model"],
    }
    curve = [_measured(summary) for summary in content["steps"][key]]
    subsets = {
        "+".join(each["modalities"]): _measured(each["metrics"][key]) for each in content["subsets"]
    }
    element = key.replace("_", "-")
    return (
        figure_html(
            rate_figure(content["rates"], curve, **given), name=f"robustness-rate-{element}"
        ),
        figure_html(subset_figure(subsets, **given), name=f"robustness-subset-{element}"),
    )


def _measured(summary: Mapping[str, Any]) -> Measured:
    return Measured(summary["mean"], summary["low"], summary["high"])


def _span(each: Measured) -> tuple[float, float]:
    """How far the interval reaches below and above the mean."""
    if each.mean is None or each.low is None or each.high is None:
        return 0.0, 0.0
    return each.mean - each.low, each.high - each.mean


def _faint(colour: str) -> str:
    return colour.replace("rgb", "rgba").replace(")", f", {_BAND_OPACITY})")
