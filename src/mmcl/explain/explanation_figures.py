"""The section of an explanation and its figures.

They are drawn from what :func:`mmcl.explain.explanation.explain` returns, or from the
``explanation.json`` made of it. Neither a network nor a corpus is needed.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, NEUTRAL, add_band, error_bars, figure_html, finish_figure
from mmcl.explain.findings import SIGNIFICANT, probability_text
from mmcl.explain.page import render_section

__all__ = [
    "RANKINGS",
    "Ranking",
    "error_figure",
    "explanation_section",
    "histogram_figure",
    "keep_figure",
    "probe_figure",
    "redundancy_figure",
]

_CURVE_HEIGHT, _BAR_HEIGHT = 260, 220
_MARGIN = {"l": 48, "b": 42}
_MODALITY_COLOURS = {
    "text": COLOURS["common"],
    "audio": COLOURS["complementary"],
    "vision": COLOURS["calibrated"],
}


class Ranking(NamedTuple):
    """A line of the curves: the key of its score, its name, and how it is drawn."""

    key: str
    name: str
    colour: str
    dash: str = "solid"


RANKINGS: tuple[Ranking, ...] = (
    Ranking("actions", "kept by the policies", COLOURS["complementary"]),
    Ranking("moments", "common or kept", COLOURS["calibrated"]),
    Ranking("integrated_gradients", "integrated gradients", COLOURS["common"], "dash"),
    Ranking("random", "random", NEUTRAL, "dot"),
)
"""Orders in which steps are deleted or inserted, as figures show them."""


def error_figure(curves: Mapping[str, Any], direction: str) -> go.Figure:
    """Draw the error along ``deletion`` or ``insertion``, a line per ranking.

    The band around ``random`` reaches from the lowest to the highest of its orders.
    """
    figure = go.Figure()
    shares = [100 * share for share in curves["fractions"]]
    random = curves[direction]["random"]
    if "lowest" in random:
        add_band(figure, shares, random["lowest"], random["highest"], colour=NEUTRAL)
    for ranking in RANKINGS:
        figure.add_scatter(
            x=shares,
            y=curves[direction][ranking.key]["error"],
            mode="lines+markers",
            name=ranking.name,
            line={"color": ranking.colour, "width": 2, "dash": ranking.dash},
            marker={"size": 4},
            hovertemplate=f"{ranking.name}, %{{x:.0f}}%: %{{y:.3f}}<extra></extra>",
        )
    x_title = f"% of the steps {'deleted' if direction == 'deletion' else 'inserted'}"
    finish_figure(figure, height=_CURVE_HEIGHT, x_title=x_title, y_title=curves["unit"])
    figure.update_xaxes(nticks=6)
    figure.update_layout(margin=_MARGIN)
    return figure


def keep_figure(policies: Mapping[str, Any], unit: str) -> go.Figure:
    """Draw the error against the share of the steps that is kept, to the policies' own choice."""
    curve, errors = policies["keep_curve"], policies["errors"]
    shares = [100 * share for share in curve["kept"]]
    figure = go.Figure()
    figure.add_scatter(
        x=shares,
        y=curve["error"],
        mode="lines+markers",
        name="steps of large actions first",
        line={"color": COLOURS["complementary"], "width": 2},
        marker={"size": [4] * (len(shares) - 1) + [9]},
        hovertemplate="%{x:.1f}% kept: %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=[100],
        y=[errors["ones"]],
        mode="markers",
        name="every step",
        marker={"color": NEUTRAL, "size": 9, "symbol": "diamond"},
        hovertemplate="every step kept: %{y:.3f}<extra></extra>",
    )
    finish_figure(figure, height=_BAR_HEIGHT, x_title="% of the steps kept", y_title=unit)
    figure.update_xaxes(range=[-3, 103])
    figure.update_layout(margin=_MARGIN)
    return figure


def probe_figure(probes: Mapping[str, Any]) -> go.Figure:
    """Draw what each modality's complementary features add, with 95% intervals."""
    rows = probes["modalities"]
    values, lows, highs = ([r[key] for r in rows.values()] for key in ("increment", "low", "high"))
    figure = go.Figure()
    figure.add_bar(
        x=list(rows),
        y=values,
        width=0.5,
        marker={"color": [_MODALITY_COLOURS.get(modality, NEUTRAL) for modality in rows]},
        error_y=error_bars(values, lows, highs),
        hovertemplate="%{x}: %{y:+.3f}<extra></extra>",
    )
    finish_figure(figure, height=_BAR_HEIGHT, y_title=f"added {probes['score']}")
    figure.update_yaxes(zeroline=True, zerolinecolor=NEUTRAL)
    figure.update_layout(margin=_MARGIN)
    return figure


def redundancy_figure(redundancy: list[dict[str, Any]]) -> go.Figure:
    """Draw how alike each pair of modalities is, and right of each bar how alike by chance."""
    pairs = [" and ".join(row["pair"]) for row in redundancy]
    figure = go.Figure()
    for part in ("common", "complementary"):
        for key, suffix in (("value", ""), ("floor", ", clips shuffled")):
            figure.add_bar(
                x=pairs,
                y=[row[part][key] for row in redundancy],
                name=part + suffix,
                marker={"color": NEUTRAL if suffix else COLOURS[part]},
                hovertemplate=f"%{{x}}, {part}{suffix}: %{{y:.3f}}<extra></extra>",
            )
    finish_figure(figure, height=_BAR_HEIGHT, y_title="linear CKA")
    figure.update_yaxes(range=[0, 1], nticks=6)
    figure.update_layout(margin=_MARGIN, barmode="group", bargap=0.3)
    return figure


def histogram_figure(by_modality: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Draw the distribution of keep probabilities in one group of clips, a line per modality."""
    figure = go.Figure()
    for modality, row in by_modality.items():
        bins, name = len(row["histogram"]), html.escape(modality)
        figure.add_scatter(
            x=[(index + 0.5) / bins for index in range(bins)],
            y=[100 * share for share in row["histogram"]],
            mode="lines+markers",
            name=name,
            line={"color": _MODALITY_COLOURS.get(modality, NEUTRAL), "width": 2, "shape": "hvh"},
            marker={"size": 4},
            hovertemplate=f"{name}, around %{{x:.2f}}: %{{y:.1f}}%<extra></extra>",
        )
    finish_figure(figure, height=_BAR_HEIGHT, x_title="keep probability", y_title="% of the steps")
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(margin=_MARGIN)
    return figure


def explanation_section(content: Mapping[str, Any], *, name: str = "explanation") -> Markup:
    """Return the section of an explanation; ``name`` begins the ids in it."""
    curves, probes, redundancy = content["curves"], content["probes"], content["redundancy"]
    return render_section(
        "section_explanation.html.j2",
        content=content,
        name=name,
        curves={
            direction: figure_html(error_figure(curves, direction), name=f"{name}-{direction}")
            for direction in ("deletion", "insertion")
        },
        rankings=RANKINGS,
        # Explanations of earlier versions have no such curve.
        keep="keep_curve" in content["policies"]
        and figure_html(
            keep_figure(content["policies"], curves["unit"]), name=f"{name}-keep-curve"
        ),
        probes=probes and figure_html(probe_figure(probes), name=f"{name}-probes"),
        redundancy=redundancy
        and figure_html(redundancy_figure(redundancy), name=f"{name}-redundancy"),
        histograms=[
            (group, figure_html(histogram_figure(rows), name=f"{name}-actions-{index}"))
            for index, (group, rows) in enumerate(content["actions"].items())
        ],
        modality_colours=_MODALITY_COLOURS,
        colours={**COLOURS, "neutral": NEUTRAL},
        probability_text=probability_text,
        significant=SIGNIFICANT,
    )
