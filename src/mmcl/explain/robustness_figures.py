"""The section of robustness: curves over the share of missing steps, bars over the modalities.

A *summary* is a metric over seeds as robustness.json holds it: ``mean`` (None where undefined),
``low`` and ``high`` (the 95% interval; None for a single seed).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, NEUTRAL, add_band, error_bars, figure_html, finish_figure
from mmcl.explain.page import render_section
from mmcl.runs.robustness import crossing_sentences, headline

__all__ = ["rate_figure", "robustness_section", "subset_figure"]

_HEIGHT = 260

_Summary = Mapping[str, Any]
_Line = Mapping[str, Any] | None


def rate_figure(
    rates: Sequence[float], summaries: Sequence[_Summary], *, line: _Line, name: str
) -> go.Figure:
    """Draw a metric over the share of missing steps.

    Args:
        rates: Chances that a step is missing.
        summaries: The metric at each rate; an undefined one leaves a gap.
        line: ``row`` and ``value`` of the best score without any feature, or None.
        name: Name of the model, for its colour.
    """
    figure = go.Figure()
    colour = COLOURS.get(name, COLOURS["common"])
    band = [(rate, s["low"], s["high"]) for rate, s in zip(rates, summaries, strict=True)]
    band = [point for point in band if None not in point]  # a single seed has no interval
    if band:
        add_band(figure, *zip(*band, strict=True), colour=colour)
    _draw_line(figure, [rates[0], rates[-1]], line)
    figure.add_scatter(
        x=list(rates),
        y=[summary["mean"] for summary in summaries],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        hovertemplate="%{x:.0%} missing: %{y:.3f}<extra></extra>",
    )
    finish_figure(figure, height=_HEIGHT, x_title="share of steps missing")
    figure.update_xaxes(tickformat=".0%", nticks=6)
    return figure


def subset_figure(subsets: Mapping[str, _Summary], *, line: _Line, name: str) -> go.Figure:
    """Draw a metric with every subset of the modalities, a bar each; see :func:`rate_figure`."""
    figure = go.Figure()
    labels = [html.escape(subset) for subset in subsets]
    # A single seed has no interval: its whiskers have no length.
    keys = ("mean", "low", "high")
    spans = [[summary[key] for key in keys] for summary in subsets.values()]
    spans = [[0.0] * len(keys) if None in span else span for span in spans]
    figure.add_bar(
        x=labels,
        y=[summary["mean"] for summary in subsets.values()],
        marker={"color": COLOURS.get(name, COLOURS["common"]), "opacity": 0.8},
        error_y=error_bars(*zip(*spans, strict=True)),
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    _draw_line(figure, labels, line)
    finish_figure(figure, height=_HEIGHT)
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_layout(margin={"b": 84}, bargap=0.35)
    return figure


def robustness_section(content: Mapping[str, Any]) -> Markup:
    """Return the section of robustness from the content of robustness.json."""
    keys = headline(content)
    return render_section(
        "section_robustness.html.j2",
        content=content,
        keys=keys,
        figures=[(key, *_figures(content, key)) for key in keys],
        sentences=crossing_sentences(content),
    )


def _figures(content: Mapping[str, Any], key: str) -> tuple[Markup, Markup]:
    line, name = content["line"][key], content["model"]
    subsets = {"+".join(s["modalities"]): s["metrics"][key] for s in content["subsets"]}
    rates = rate_figure(content["rates"], content["steps"][key], line=line, name=name)
    bars = subset_figure(subsets, line=line, name=name)
    return (
        figure_html(rates, name=f"robustness-rate-{key}"),
        figure_html(bars, name=f"robustness-subset-{key}"),
    )


def _draw_line(figure: go.Figure, x: Sequence[Any], line: _Line) -> None:
    """Draw the best score that is possible without any feature."""
    if line is not None:
        figure.add_scatter(
            x=list(x),
            y=[line["value"]] * len(x),
            mode="lines",
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
            hovertemplate=f"{html.escape(line['row'])}: %{{y:.3f}}<extra></extra>",
        )
