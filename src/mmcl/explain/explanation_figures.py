"""Figures of an explanation, and the section of a page that holds them.

They are drawn from what :func:`mmcl.explain.explanation.explain` returns, or from the
``explanation.json`` made of it, and so need neither a network nor a corpus.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.explain.figures import COLOURS, figure_html, finish_figure
from mmcl.explain.findings import SIGNIFICANT, probability_text
from mmcl.explain.page import render_page

__all__ = [
    "RANKINGS",
    "Ranking",
    "error_figure",
    "explanation_section",
    "histogram_figure",
    "probe_figure",
    "redundancy_figure",
]

_NEUTRAL = "rgb(128, 136, 148)"
_BAND = "rgba(128, 136, 148, 0.25)"
_CURVE_HEIGHT, _BAR_HEIGHT = 260, 220
_MARGIN = {"l": 48, "b": 42}
_MODALITY_COLOURS = {
    "text": COLOURS["common"],
    "audio": COLOURS["complementary"],
    "vision": COLOURS["calibrated"],
}


class Ranking(NamedTuple):
    """One line of the curves: the key of its score, its name, and how it is drawn."""

    key: str
    name: str
    colour: str
    dash: str = "solid"


RANKINGS: tuple[Ranking, ...] = (
    Ranking("actions", "kept by the policies", COLOURS["complementary"]),
    Ranking("moments", "common or kept", COLOURS["calibrated"]),
    Ranking("integrated_gradients", "integrated gradients", COLOURS["common"], "dash"),
    Ranking("random", "random", _NEUTRAL, "dot"),
)


def error_figure(curves: Mapping[str, Any], direction: str) -> go.Figure:
    """Draw the error along deletion or insertion, a line per ranking.

    Args:
        curves: ``curves`` of an explanation.
        direction: ``deletion`` or ``insertion``. The band around ``random`` reaches from the
            lowest to the highest of its orders.
    """
    figure = go.Figure()
    shares = [100 * share for share in curves["fractions"]]
    band = curves[direction]["random"]
    if "lowest" in band:
        figure.add_scatter(
            x=shares + shares[::-1],
            y=band["highest"] + band["lowest"][::-1],
            fill="toself",
            fillcolor=_BAND,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
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
    finish_figure(figure, height=_CURVE_HEIGHT)
    done = "deleted" if direction == "deletion" else "inserted"
    figure.update_xaxes(title={"text": f"% of the steps {done}", "standoff": 4}, nticks=6)
    figure.update_yaxes(title={"text": curves["unit"], "standoff": 4}, nticks=5)
    figure.update_layout(margin=_MARGIN)
    return figure


def probe_figure(probes: Mapping[str, Any]) -> go.Figure:
    """Draw what each modality's complementary features add, with 95% intervals.

    Args:
        probes: ``probes`` of an explanation.
    """
    rows = probes["modalities"]
    values = [row["increment"] for row in rows.values()]
    figure = go.Figure()
    figure.add_bar(
        x=list(rows),
        y=values,
        width=0.5,
        marker={"color": [_MODALITY_COLOURS.get(m, _NEUTRAL) for m in rows]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [row["high"] - row["increment"] for row in rows.values()],
            "arrayminus": [row["increment"] - row["low"] for row in rows.values()],
            "color": _NEUTRAL,
        },
        hovertemplate="%{x}: %{y:+.3f}<extra></extra>",
    )
    finish_figure(figure, height=_BAR_HEIGHT)
    figure.update_yaxes(title={"text": f"added {probes['score']}", "standoff": 4}, nticks=5)
    figure.update_yaxes(zeroline=True, zerolinecolor=_NEUTRAL)
    figure.update_layout(margin=_MARGIN)
    return figure


def redundancy_figure(redundancy: list[dict[str, Any]]) -> go.Figure:
    """Draw the alignment of each pair of modalities, and its floor as a mark in each bar.

    Args:
        redundancy: ``redundancy`` of an explanation.
    """
    pairs = [" and ".join(row["pair"]) for row in redundancy]
    figure = go.Figure()
    for part in ("common", "complementary"):
        figure.add_bar(
            x=pairs,
            y=[row[part]["value"] for row in redundancy],
            name=part,
            offsetgroup=part,
            marker={"color": COLOURS[part]},
            hovertemplate=f"%{{x}}, {part}: %{{y:.3f}}<extra></extra>",
        )
    for part in ("common", "complementary"):
        figure.add_bar(
            x=pairs,
            y=[row[part]["floor"] for row in redundancy],
            name=f"{part}, clips shuffled",
            offsetgroup=part,
            marker={"color": _NEUTRAL},
            hovertemplate=f"%{{x}}, {part}, clips shuffled: %{{y:.3f}}<extra></extra>",
        )
    finish_figure(figure, height=_BAR_HEIGHT)
    figure.update_yaxes(title={"text": "linear CKA", "standoff": 4}, range=[0, 1], nticks=6)
    figure.update_layout(margin=_MARGIN, barmode="group", bargap=0.3)
    return figure


def histogram_figure(by_modality: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Draw how keep probabilities are distributed, a line per modality.

    Args:
        by_modality: One group of ``actions`` of an explanation.
    """
    figure = go.Figure()
    for modality, row in by_modality.items():
        bins = len(row["histogram"])
        figure.add_scatter(
            x=[(at + 0.5) / bins for at in range(bins)],
            y=[100 * share for share in row["histogram"]],
            mode="lines+markers",
            name=html.escape(modality),
            line={"color": _MODALITY_COLOURS.get(modality, _NEUTRAL), "width": 2, "shape": "hvh"},
            marker={"size": 4},
            hovertemplate=f"{html.escape(modality)}, around %{{x:.2f}}: %{{y:.1f}}%<extra></extra>",
        )
    finish_figure(figure, height=_BAR_HEIGHT)
    figure.update_xaxes(title={"text": "keep probability", "standoff": 4}, range=[0, 1])
    figure.update_yaxes(title={"text": "% of the steps", "standoff": 4}, rangemode="tozero")
    figure.update_layout(margin=_MARGIN)
    return figure


def explanation_section(content: Mapping[str, Any], *, name: str = "explanation") -> Markup:
    """An explanation as a section of a page that brings plotly.js and the style itself.

    Args:
        content: What :func:`mmcl.explain.explanation.explain` returned, or the content of
            ``explanation.json``.
        name: Start of the ids in the section, unique in the page.
    """
    curves, probes = content["curves"], content["probes"]
    drawn = {
        direction: figure_html(error_figure(curves, direction), name=f"{name}-{direction}")
        for direction in ("deletion", "insertion")
    }
    histograms = [
        (group, figure_html(histogram_figure(rows), name=f"{name}-actions-{at}"))
        for at, (group, rows) in enumerate(content["actions"].items())
    ]
    alike = redundancy_figure(content["redundancy"])
    # Safe to trust: the template escapes all text, and figures escape their own.
    return Markup(
        render_page(
            "section_explanation.html.j2",
            content=content,
            name=name,
            curves=drawn,
            rankings=RANKINGS,
            probes=None
            if probes is None
            else figure_html(probe_figure(probes), name=f"{name}-probes"),
            redundancy=figure_html(alike, name=f"{name}-redundancy")
            if content["redundancy"]
            else None,
            histograms=histograms,
            modality_colours=_MODALITY_COLOURS,
            colours={**COLOURS, "neutral": _NEUTRAL},
            probability_text=probability_text,
            significant=SIGNIFICANT,
        )
    )
