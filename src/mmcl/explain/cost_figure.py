"""The figure of a comparison that shows what each result costs."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmcl.evaluation.metrics import metric_name
from mmcl.explain.comparison_words import number
from mmcl.explain.figures import COLOURS, NEUTRAL, finish_figure

__all__ = ["cost_figure", "quantity"]

_HEIGHT, _INNER_HEIGHT = 380, 290.0  # of the figure and of the plot itself, in pixels
_PHONE_WIDTH = 280.0  # of the plot on the narrowest screen, in pixels
_OVERHANG = 8.0  # pixels that a name may reach beyond the plot
_LETTER_WIDTH, _LINE_HEIGHT = 6.2, 13.0
_SMALLEST_DISC, _LARGEST_DISC = 9.0, 34.0  # pixels across

_Box = tuple[float, float, float, float]  # left, lower, right, upper


class _Disc(NamedTuple):
    """A row of the comparison in the figure; ``size`` is its diameter in pixels."""

    name: str
    seconds: float
    score: float
    parameters: int
    size: float


def cost_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> go.Figure | None:
    """Draw a metric over seconds of training; the area of a disc shows the parameters.

    Returns None where no row has both a cost and a score.
    """
    discs = _discs(rows, metric)
    if not discs:
        return None
    # Room for names on both sides of the discs.
    exponents = [math.log10(disc.seconds) for disc in discs]
    room = max(0.3, 0.14 * (max(exponents) - min(exponents)))
    low, high = min(exponents) - room, max(exponents) + room
    figure = go.Figure()
    for disc, position in zip(discs, _name_positions(discs, low, high), strict=True):
        name = html.escape(disc.name)
        figure.add_scatter(
            x=[disc.seconds],
            y=[disc.score],
            mode="markers+text",
            marker={
                "size": disc.size,
                "color": COLOURS.get(disc.name, NEUTRAL),
                "opacity": 0.7,
                "line": {"width": 0},
            },
            text=[name if position else ""],
            textposition=position or "top center",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate=(
                f"{name}<br>{metric_name(metric)} {number(disc.score)}<br>"
                f"{quantity(disc.seconds)} s of training<br>"
                f"{quantity(disc.parameters)} parameters<extra></extra>"
            ),
        )
    finish_figure(
        figure, height=_HEIGHT, x_title="seconds of training per seed", y_title=metric_name(metric)
    )
    ticks = _log_ticks(low, high)
    figure.update_xaxes(
        type="log", range=[low, high], tickvals=ticks, ticktext=[quantity(tick) for tick in ticks]
    )
    figure.update_yaxes(nticks=7)
    figure.update_layout(margin={"l": 52, "t": 14})
    return figure


def quantity(value: float | None) -> str:
    """Return a quantity of any size, with three digits where it is small.

    Example:
        >>> quantity(1234567), quantity(12.34), quantity(0.0312), quantity(None)
        ('1,234,567', '12.3', '0.0312', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _discs(rows: Sequence[Mapping[str, Any]], metric: str) -> list[_Disc]:
    """Return the rows that have both a cost and a score."""
    known = [
        row
        for row in rows
        if row["cost"]
        and row["cost"]["train_seconds"]
        and (row["test"].get(metric) or {}).get("mean") is not None
    ]
    most = max((row["cost"]["parameters"] for row in known), default=0) or 1
    discs = []
    for row in known:
        seconds, parameters = row["cost"]["train_seconds"], row["cost"]["parameters"]
        share = math.sqrt(parameters / most)  # so that the area shows the number
        size = _SMALLEST_DISC + (_LARGEST_DISC - _SMALLEST_DISC) * share
        discs.append(_Disc(row["name"], seconds, row["test"][metric]["mean"], parameters, size))
    return discs


def _name_positions(discs: Sequence[_Disc], low: float, high: float) -> list[str | None]:
    """Choose plotly's position of each name so that no name covers another; None without room.

    ``low`` and ``high`` are the ends of the axis of seconds, as powers of ten.
    """
    scores = [disc.score for disc in discs]
    lowest, span = min(scores), max(scores) - min(scores)
    centres = [
        (
            _PHONE_WIDTH * (math.log10(disc.seconds) - low) / (high - low),
            _INNER_HEIGHT * ((disc.score - lowest) / span if span else 0.5),
        )
        for disc in discs
    ]
    radii = [disc.size / 2 for disc in discs]
    covered = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    written: list[_Box] = []
    positions: list[str | None] = []
    for disc, (x, y) in zip(discs, centres, strict=True):
        free = {
            position: box
            for position, box in _name_boxes(disc, x, y).items()
            if box[0] >= -_OVERHANG
            and box[2] <= _PHONE_WIDTH + _OVERHANG
            and not any(_overlap(box, name) for name in written)
        }
        # Of the free positions the one that covers the least of any disc.
        hidden = {p: math.fsum(_overlap(box, c) for c in covered) for p, box in free.items()}
        chosen = min(hidden, key=lambda position: hidden[position], default=None)
        positions.append(chosen)
        if chosen is not None:
            written.append(free[chosen])
    return positions


def _name_boxes(disc: _Disc, x: float, y: float) -> dict[str, _Box]:
    """Return the four places of a name around its disc, in pixels from the lower left."""
    width, half, away = _LETTER_WIDTH * len(disc.name), _LINE_HEIGHT / 2, disc.size / 2 + 2
    return {
        "top center": (x - width / 2, y + away, x + width / 2, y + away + 2 * half),
        "bottom center": (x - width / 2, y - away - 2 * half, x + width / 2, y - away),
        "middle right": (x + away, y - half, x + away + width, y + half),
        "middle left": (x - away - width, y - half, x - away, y + half),
    }


def _overlap(first: _Box, second: _Box) -> float:
    """Return the area that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two powers of ten: 1, 2, 5, 10, ... or only the powers."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [step * 10.0**power for power in range(-9, 12) for step in steps]
    return [value for value in values if low <= math.log10(value) <= high]
