"""Plotly figures that explain a network, each one small function of plain values.

No figure names a background or the colour of its text: the page that holds it does, so that
one figure is readable on light, on dark and on paper. Text that comes from a corpus is
escaped before it reaches a figure, since plotly reads some of it as markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY, ROLE_DISTRACTOR
from mmcl.types import Modality

__all__ = [
    "COLOURS",
    "Curve",
    "Strip",
    "curve_figure",
    "figure_html",
    "finish_figure",
    "role_strip",
    "scatter_figure",
    "steps_figure",
    "value_strip",
]

COLOURS = {
    "released": "rgb(176, 84, 170)",
    "calibrated": "rgb(31, 157, 115)",
    "common": "rgb(41, 121, 232)",
    "complementary": "rgb(240, 128, 28)",
}
"""Of medium lightness, so that they stand out from white and from near-black alike."""

_NEUTRAL = "rgb(128, 136, 148)"
_DIAGONAL = {"color": _NEUTRAL, "width": 1.5, "dash": "dot"}
_ROLE_NAMES = {
    ROLE_DISTRACTOR: "distractor",
    ROLE_COMMON: "common",
    ROLE_COMPLEMENTARY: "complementary",
}
_ROLE_SIGNS = {ROLE_DISTRACTOR: "", ROLE_COMMON: "C", ROLE_COMPLEMENTARY: "+"}
_FAINTEST = 0.07  # opacity of a cell at 0: there, and clearly empty
_STRIP_HEIGHT, _STRIP_GAP, _FIGURE_MARGIN = 54, 24, 46
_CURVE_HEIGHT, _SCATTER_HEIGHT = 210, 320
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False}


class Curve(NamedTuple):
    """One line of a curve figure.

    Attributes:
        values: A number per epoch, from the first; NaN leaves a gap.
        chosen: Index of the epoch to mark, or None.
    """

    values: Sequence[float]
    chosen: int | None = None


class Strip(NamedTuple):
    """One quantity over the steps of a clip: a row of cells per modality.

    Attributes:
        title: What is shown.
        values: By modality float ``[n]``, the colour of each step; lengths may differ.
        labels: By modality the text of each step, shown on pointing at it.
        outlined: By modality bool ``[n]``: the cells to draw a frame around.
        scale: Plotly colour scale.
        highest: Value at the end of the scale, which starts at 0.
        signs: By modality a letter per step to write into its cell, or None.
    """

    title: str
    values: Mapping[Modality, NDArray[Any]]
    labels: Mapping[Modality, Sequence[str]]
    outlined: Mapping[Modality, NDArray[np.bool_]]
    scale: list[tuple[float, str]]
    highest: float
    signs: Mapping[Modality, Sequence[str]] | None = None


def curve_figure(curves: Mapping[str, Curve], *, x_title: str = "epoch") -> go.Figure:
    """Draw one quantity over the epochs, a line per variant.

    Args:
        curves: By name of a variant; a name in :data:`COLOURS` gets its colour.
        x_title: Name of the horizontal axis.
    """
    figure = go.Figure()
    for name, curve in curves.items():
        epochs = list(range(1, len(curve.values) + 1))
        sizes = [9 if at == curve.chosen else 4 for at in range(len(epochs))]
        figure.add_scatter(
            x=epochs,
            y=_finite(curve.values),
            mode="lines+markers",
            name=html.escape(name),
            line={"color": COLOURS.get(name, _NEUTRAL), "width": 2, "dash": _dash(name)},
            marker={"size": sizes, "line": {"width": 0}, "opacity": 1},
            hovertemplate=f"{html.escape(name)}, {x_title} %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    finish_figure(figure, height=_CURVE_HEIGHT)
    figure.update_xaxes(title={"text": x_title, "standoff": 4}, tickformat="d", nticks=8)
    figure.update_yaxes(nticks=5)
    return figure


def scatter_figure(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    ids: Sequence[str],
    low: float,
    high: float,
    name: str,
) -> go.Figure:
    """Draw predictions against truth, with the diagonal on which both are equal.

    Args:
        truth: Scores, float ``[clips]``.
        prediction: Predicted scores, float ``[clips]``.
        ids: Of the clips, shown on pointing at them.
        low: Lower end of both axes; no score may lie below.
        high: Upper end of both axes.
        name: Variant; one in :data:`COLOURS` gets its colour.
    """
    figure = go.Figure()
    ends = [low, high]
    figure.add_scatter(x=ends, y=ends, mode="lines", line=_DIAGONAL, hoverinfo="skip")
    figure.add_scatter(
        x=np.round(np.asarray(truth, dtype=np.float64), 3).tolist(),
        y=np.round(np.asarray(prediction, dtype=np.float64), 3).tolist(),
        mode="markers",
        marker={"size": 5, "color": COLOURS.get(name, _NEUTRAL), "opacity": 0.55},
        text=[html.escape(each) for each in ids],
        hovertemplate="%{text}<br>truth %{x:.2f}, predicted %{y:.2f}<extra></extra>",
    )
    finish_figure(figure, height=_SCATTER_HEIGHT)
    room = 0.06 * (high - low)
    ends = [low - room, high + room]
    figure.update_xaxes(title={"text": "truth", "standoff": 4}, range=ends, nticks=9)
    figure.update_yaxes(title={"text": "prediction", "standoff": 4}, range=ends, nticks=9)
    figure.update_layout(margin={"l": 46})
    return figure


def value_strip(
    title: str,
    values: Mapping[Modality, NDArray[Any]],
    outlined: Mapping[Modality, NDArray[np.bool_]],
    *,
    colour: str,
) -> Strip:
    """A strip of numbers in 0..1: the stronger the colour, the larger.

    Args:
        title: What is shown.
        values: By modality float ``[n]`` in 0..1.
        outlined: By modality bool ``[n]``: the cells to frame.
        colour: Name of a colour in :data:`COLOURS`.
    """
    solid = COLOURS[colour]
    faint = solid.replace("rgb", "rgba").replace(")", f", {_FAINTEST})")
    full = solid.replace("rgb", "rgba").replace(")", ", 1)")
    labels = {m: [f"{value:.2f}" for value in each] for m, each in values.items()}
    return Strip(title, values, labels, outlined, [(0.0, faint), (1.0, full)], 1.0)


def role_strip(title: str, roles: Mapping[Modality, NDArray[np.int8]]) -> Strip:
    """A strip of planted roles: colour and sign of each, the common and complementary framed.

    Args:
        title: What is shown.
        roles: By modality int8 ``[n]``, roles as :mod:`mmcl.corpus.plant` numbers them.
    """
    grey = f"rgba(128, 136, 148, {_FAINTEST})"
    bands = (grey, COLOURS["common"], COLOURS["complementary"])
    scale = [(edge, colour) for at, colour in enumerate(bands) for edge in (at / 3, (at + 1) / 3)]
    return Strip(
        title,
        {m: (each + 0.5) / len(bands) for m, each in roles.items()},
        {m: [_ROLE_NAMES[int(role)] for role in each] for m, each in roles.items()},
        {m: each != ROLE_DISTRACTOR for m, each in roles.items()},
        scale,
        1.0,
        {m: [_ROLE_SIGNS[int(role)] for role in each] for m, each in roles.items()},
    )


def steps_figure(strips: Sequence[Strip]) -> go.Figure:
    """Draw strips under each other, steps from left to right: one clip at a glance.

    Args:
        strips: From top to bottom; all of the same modalities.
    """
    count = len(strips)
    height = count * (_STRIP_HEIGHT + _STRIP_GAP) + _FIGURE_MARGIN
    inner = height - _FIGURE_MARGIN - _STRIP_GAP  # plotly leaves no gap before the first
    figure = make_subplots(
        rows=count,
        shared_xaxes=True,
        vertical_spacing=_STRIP_GAP / inner,
        subplot_titles=[html.escape(strip.title) for strip in strips],
    )
    for row, strip in enumerate(strips, start=1):
        figure.add_trace(_heatmap(strip), row=row, col=1)
        names = list(strip.values)
        figure.update_yaxes(
            tickvals=list(range(len(names))),
            ticktext=names,
            ticklabelstandoff=4,
            range=[len(names) - 0.5, -0.5],
            row=row,
            col=1,
        )
    finish_figure(figure, height=height)
    longest = max((len(each) for strip in strips for each in strip.values.values()), default=1)
    figure.update_xaxes(range=[0.5, longest + 0.5], showgrid=False, tickvals=_ticks(longest))
    figure.update_yaxes(showgrid=False)
    figure.update_annotations(x=0, xanchor="left", yanchor="bottom", font={"size": 12})
    figure.update_layout(
        margin={"l": 46, "r": 4, "t": _STRIP_GAP, "b": _FIGURE_MARGIN - _STRIP_GAP},
        shapes=[shape for at, strip in enumerate(strips, start=1) for shape in _frames(strip, at)],
    )
    return figure


def figure_html(figure: go.Figure, *, name: str) -> Markup:
    """A figure as markup for a page that embeds plotly.js itself.

    Args:
        figure: The figure.
        name: Id of its element, unique in the page: letters, digits and hyphens.
    """
    # Safe to trust: plotly escapes <, > and / in the JSON it writes.
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=name)
    )


def _heatmap(strip: Strip) -> go.Heatmap:
    longest = max((len(each) for each in strip.values.values()), default=0)
    signs = strip.signs or {}
    return go.Heatmap(
        z=[_padded(np.round(each, 4).tolist(), longest) for each in strip.values.values()],
        x=list(range(1, longest + 1)),
        y=list(range(len(strip.values))),
        zmin=0.0,
        zmax=strip.highest,
        colorscale=[list(stop) for stop in strip.scale],
        showscale=False,
        hoverongaps=False,
        xgap=1.5,
        ygap=1.5,
        text=[_padded(list(signs.get(m, ())), longest) for m in strip.values],
        texttemplate="%{text}" if signs else None,
        textfont={"size": 10, "color": "white"},
        customdata=[
            [[m, label] for label in _padded(list(strip.labels[m]), longest)] for m in strip.values
        ],
        hovertemplate="%{customdata[0]}, step %{x}: %{customdata[1]}<extra></extra>",
    )


def _padded(row: list[Any], length: int) -> list[Any]:
    return row + [None] * (length - len(row))


def _frames(strip: Strip, at: int) -> list[dict[str, Any]]:
    """A frame for each outlined cell; the page gives it the colour of its text."""
    suffix = "" if at == 1 else str(at)
    return [
        {
            "type": "rect",
            "xref": f"x{suffix}",
            "yref": f"y{suffix}",
            "x0": step + 0.56,
            "x1": step + 1.44,
            "y0": row - 0.42,
            "y1": row + 0.42,
            "line": {"width": 1.6, "color": _NEUTRAL},
        }
        for row, cells in enumerate(strip.outlined.values())
        for step in np.flatnonzero(cells).tolist()
    ]


def _ticks(longest: int) -> list[int]:
    every = 5 if longest <= 50 else 5 * math.ceil(longest / 50)
    return [1, *range(every, longest + 1, every)]


def _dash(name: str) -> str:
    return "dash" if name == "released" else "solid"


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def finish_figure(figure: go.Figure, *, height: int) -> None:
    """Give a figure what all share: no background, no legend, no dragging (a phone must scroll).

    Args:
        figure: Changed in place.
        height: In pixels; the width follows the page.
    """
    axis = {"zeroline": False, "fixedrange": True, "ticks": "", "gridcolor": _NEUTRAL}
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        showlegend=False,
        dragmode=False,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        margin={"l": 40, "r": 8, "t": 8, "b": 38},
        font={"family": _FONT, "size": 11, "color": _NEUTRAL},
        hoverlabel={"bgcolor": "rgb(34, 38, 46)", "font": {"color": "white", "size": 12}},
    )
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
