"""Plotly figures and the parts that all figures share.

No figure names a background or the colour of its text: the page does, so that one figure is
readable on light, on dark and on paper. Text from a corpus is escaped before it reaches a
figure, since plotly reads some of it as markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
    "NEUTRAL",
    "Curve",
    "Strip",
    "add_band",
    "curve_figure",
    "error_bars",
    "figure_html",
    "finish_figure",
    "names_under",
    "role_strip",
    "scatter_figure",
    "steps_figure",
    "translucent",
    "value_strip",
]

COLOURS = {
    "released": "rgb(176, 84, 170)",
    "calibrated": "rgb(31, 157, 115)",
    "common": "rgb(41, 121, 232)",
    "complementary": "rgb(240, 128, 28)",
    "published": "rgb(214, 72, 104)",
}
"""Colours of medium lightness: they stand out from white and from near-black alike."""

NEUTRAL = "rgb(128, 136, 148)"
"""Colour of everything that has none of its own."""

_prefix: ContextVar[str] = ContextVar("prefix", default="")
_DIAGONAL = {"color": NEUTRAL, "width": 1.5, "dash": "dot"}
_ROLE_NAMES = {
    ROLE_DISTRACTOR: "distractor",
    ROLE_COMMON: "common",
    ROLE_COMPLEMENTARY: "complementary",
}
_ROLE_SIGNS = {"common": "C", "complementary": "+"}
_FAINTEST = 0.07  # opacity of a cell at 0: visible, and clearly empty
_STRIP_HEIGHT, _STRIP_GAP, _FIGURE_MARGIN = 54, 24, 46
_CURVE_HEIGHT, _SCATTER_HEIGHT = 210, 320
_Numbers = Sequence[float]
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False}


class Curve(NamedTuple):
    """One line of a curve figure."""

    values: Sequence[float]  # a number per epoch; NaN leaves a gap
    chosen: int | None = None  # index of the epoch to mark


class Strip(NamedTuple):
    """One quantity over the steps of a clip: a row of cells per modality, ``[n]`` each."""

    title: str
    values: Mapping[Modality, NDArray[Any]]  # place on the colour scale, 0..1
    outlined: Mapping[Modality, NDArray[np.bool_]]  # cells with a frame
    scale: list[tuple[float, str]]  # as plotly describes it
    roles: Mapping[Modality, Sequence[str]] | None = None  # shown in place of the values


def curve_figure(curves: Mapping[str, Curve], *, colours: Mapping[str, str] = COLOURS) -> go.Figure:
    """Draw one quantity over the epochs, a line per name; a name without a colour is grey."""
    figure = go.Figure()
    for name, curve in curves.items():
        epochs = list(range(1, len(curve.values) + 1))
        figure.add_scatter(
            x=epochs,
            y=[value if math.isfinite(value) else None for value in curve.values],
            mode="lines+markers",
            name=html.escape(name),
            line={
                "color": colours.get(name, NEUTRAL),
                "width": 2,
                "dash": "dash" if name == "released" else "solid",
            },
            marker={
                "size": [9 if epoch - 1 == curve.chosen else 4 for epoch in epochs],
                "line": {"width": 0},
                "opacity": 1,
            },
            hovertemplate=f"{html.escape(name)}, epoch %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    finish_figure(figure, height=_CURVE_HEIGHT, x_title="epoch")
    figure.update_xaxes(tickformat="d", nticks=8)
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

    Truth and prediction are float ``[clips]``; ``low`` and ``high`` are the ends of both axes.
    The ids are shown when a reader points at a clip.
    """
    figure = go.Figure()
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=_DIAGONAL, hoverinfo="skip")
    figure.add_scatter(
        x=np.round(np.asarray(truth, dtype=np.float64), 3).tolist(),
        y=np.round(np.asarray(prediction, dtype=np.float64), 3).tolist(),
        mode="markers",
        marker={"size": 5, "color": COLOURS.get(name, NEUTRAL), "opacity": 0.55},
        text=[html.escape(clip) for clip in ids],
        hovertemplate="%{text}<br>truth %{x:.2f}, predicted %{y:.2f}<extra></extra>",
    )
    finish_figure(figure, height=_SCATTER_HEIGHT, x_title="truth", y_title="prediction")
    room = 0.06 * (high - low)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(range=[low - room, high + room], nticks=9)
    figure.update_layout(margin={"l": 46})
    return figure


def value_strip(
    title: str,
    values: Mapping[Modality, NDArray[Any]],
    outlined: Mapping[Modality, NDArray[np.bool_]],
    colour: str,
) -> Strip:
    """Make a strip of numbers in 0..1: the larger the number, the stronger the colour.

    ``colour`` is the name of one in :data:`COLOURS`.
    """
    scale = [(end, translucent(COLOURS[colour], max(end, _FAINTEST))) for end in (0.0, 1.0)]
    return Strip(title, values, outlined, scale)


def role_strip(title: str, roles: Mapping[Modality, NDArray[np.int8]]) -> Strip:
    """Make a strip of planted roles: a colour and a sign each, all but distractors framed."""
    bands = (translucent(NEUTRAL, _FAINTEST), COLOURS["common"], COLOURS["complementary"])
    # Three bands of one colour each: a role is a third of the scale.
    scale = [(edge, colour) for i, colour in enumerate(bands) for edge in (i / 3, (i + 1) / 3)]
    return Strip(
        title,
        {m: (row + 0.5) / len(bands) for m, row in roles.items()},
        {m: row != ROLE_DISTRACTOR for m, row in roles.items()},
        scale,
        {m: [_ROLE_NAMES[int(role)] for role in row] for m, row in roles.items()},
    )


def steps_figure(strips: Sequence[Strip]) -> go.Figure:
    """Draw strips of the same modalities under each other, steps from left to right."""
    count = len(strips)
    height = count * (_STRIP_HEIGHT + _STRIP_GAP) + _FIGURE_MARGIN
    inner = height - _FIGURE_MARGIN - _STRIP_GAP  # plotly leaves no gap before the first strip
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
    longest = max((len(cells) for strip in strips for cells in strip.values.values()), default=1)
    # A tick at step 1 and at every fifth step; fewer where clips are long.
    every = 5 * math.ceil(max(longest, 50) / 50)
    ticks = [1, *range(every, longest + 1, every)]
    figure.update_xaxes(range=[0.5, longest + 0.5], showgrid=False, tickvals=ticks)
    figure.update_yaxes(showgrid=False)
    figure.update_annotations(x=0, xanchor="left", yanchor="bottom", font={"size": 12})
    figure.update_layout(
        margin={"l": 46, "r": 4, "t": _STRIP_GAP, "b": _FIGURE_MARGIN - _STRIP_GAP},
        shapes=[frame for i, strip in enumerate(strips, start=1) for frame in _frames(strip, i)],
    )
    return figure


def figure_html(figure: go.Figure, *, name: str) -> Markup:
    """Return a figure as markup for a page that embeds plotly.js itself.

    Args:
        figure: The figure.
        name: Id of its element, unique in the page; underscores become hyphens.
    """
    id_ = _prefix.get() + name.replace("_", "-")
    # Safe to trust: plotly escapes <, > and / in the JSON it writes.
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=id_)
    )


@contextmanager
def names_under(prefix: str) -> Iterator[None]:
    """Put a prefix before the names of all figures made in the block.

    A page with two sections of one kind needs it: of two elements with one id the second
    stays empty.
    """
    before = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(before)


def finish_figure(
    figure: go.Figure, *, height: int, x_title: str | None = None, y_title: str | None = None
) -> None:
    """Give a figure the common look and a height in pixels; its width is that of the page."""
    # Nothing can be dragged: on a phone a finger on a figure must scroll the page.
    axis = {"zeroline": False, "fixedrange": True, "ticks": "", "gridcolor": NEUTRAL}
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        showlegend=False,
        dragmode=False,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        margin={"l": 40, "r": 8, "t": 8, "b": 38},
        font={"family": _FONT, "size": 11, "color": NEUTRAL},
        hoverlabel={"bgcolor": "rgb(34, 38, 46)", "font": {"color": "white", "size": 12}},
    )
    figure.update_xaxes(axis, title={"text": x_title, "standoff": 4})
    figure.update_yaxes(axis, title={"text": y_title, "standoff": 4}, nticks=5)


def error_bars(
    values: _Numbers, lows: _Numbers, highs: _Numbers, *, colour: str = NEUTRAL
) -> dict[str, Any]:
    """Return plotly's description of intervals around values, for ``error_x`` or ``error_y``."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, high in zip(values, highs, strict=True)],
        "arrayminus": [value - low for value, low in zip(values, lows, strict=True)],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def add_band(figure: go.Figure, x: _Numbers, low: _Numbers, high: _Numbers, *, colour: str) -> None:
    """Fill the area between two curves over the same ``x``."""
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=translucent(colour, 0.2),
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
    )


def translucent(colour: str, opacity: float) -> str:
    """Return an ``rgb()`` colour with an opacity.

    Example:
        >>> translucent("rgb(1, 2, 3)", 0.5)
        'rgba(1, 2, 3, 0.5)'
    """
    return colour.replace("rgb", "rgba").replace(")", f", {opacity})")


def _heatmap(strip: Strip) -> go.Heatmap:
    longest = max((len(row) for row in strip.values.values()), default=0)
    labels = strip.roles or {m: [f"{v:.2f}" for v in row] for m, row in strip.values.items()}
    labels = {m: _padded(list(labels[m]), longest) for m in strip.values}
    return go.Heatmap(
        z=[_padded(np.round(row, 4).tolist(), longest) for row in strip.values.values()],
        x=list(range(1, longest + 1)),
        y=list(range(len(strip.values))),
        zmin=0.0,
        zmax=1.0,
        colorscale=[list(stop) for stop in strip.scale],
        showscale=False,
        hoverongaps=False,
        xgap=1.5,
        ygap=1.5,
        text=[[_ROLE_SIGNS.get(label, "") for label in row] for row in labels.values()],
        texttemplate="%{text}" if strip.roles else None,
        textfont={"size": 10, "color": "white"},
        customdata=[[[m, label] for label in row] for m, row in labels.items()],
        hovertemplate="%{customdata[0]}, step %{x}: %{customdata[1]}<extra></extra>",
    )


def _padded(row: list[Any], length: int) -> list[Any]:
    return row + [None] * (length - len(row))


def _frames(strip: Strip, number: int) -> list[dict[str, Any]]:
    """Return a frame for each outlined cell; the page gives it the colour of its text."""
    suffix = "" if number == 1 else str(number)
    return [
        {
            "type": "rect",
            "xref": f"x{suffix}",
            "yref": f"y{suffix}",
            "x0": step + 0.56,
            "x1": step + 1.44,
            "y0": row - 0.42,
            "y1": row + 0.42,
            "line": {"width": 1.6, "color": NEUTRAL},
        }
        for row, cells in enumerate(strip.outlined.values())
        for step in np.flatnonzero(cells).tolist()
    ]
