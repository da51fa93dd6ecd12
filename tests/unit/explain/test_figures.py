"""Figures: what is drawn is what was given, and nothing from outside is read as markup."""

import json
import math

import numpy as np
import pytest

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY, ROLE_DISTRACTOR
from mmcl.explain.figures import (
    COLOURS,
    Curve,
    curve_figure,
    figure_html,
    role_strip,
    scatter_figure,
    steps_figure,
    value_strip,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def strip():
    values = {"text": np.array([0.1, 0.9, 0.5]), "audio": np.array([0.25, 0.75])}
    outlined = {"text": np.array([False, True, False]), "audio": np.array([True, False])}
    return value_strip("commonality", values, outlined, colour="common")


def test_curve_leaves_gaps_and_marks_the_chosen_epoch():
    figure = curve_figure({"released": Curve([3.0, math.nan, 1.0], chosen=2), "new": Curve([2.0])})

    first, second = figure.data
    assert (list(first.x), list(first.y)) == ([1, 2, 3], [3.0, None, 1.0])
    assert np.argmax(first.marker.size) == 2
    assert len(set(first.marker.size[:2])) == 1
    assert first.line.color == COLOURS["released"]
    assert (list(second.y), len(set(second.marker.size))) == ([2.0], 1)


def test_scatter_draws_every_clip_and_the_diagonal():
    figure = scatter_figure(
        [1.0, -2.0], [0.5, -1.0], ids=["a", "b"], low=-3.0, high=3.0, name="calibrated"
    )

    diagonal, clips = figure.data
    assert list(diagonal.x) == list(diagonal.y) == [-3.0, 3.0]
    assert (list(clips.x), list(clips.y), list(clips.text)) == (
        [1.0, -2.0],
        [0.5, -1.0],
        ["a", "b"],
    )


def test_steps_figure_draws_the_values_and_frames_the_outlined_cells(strip):
    figure = steps_figure([strip, strip])

    assert [list(row) for row in figure.data[0].z] == [[0.1, 0.9, 0.5], [0.25, 0.75, None]]
    centres = [
        (shape.xref, (shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2)
        for shape in figure.layout.shapes
    ]
    # Step 2 of text (row 0) and step 1 of audio (row 1), in either strip.
    assert centres == [("x", 2, 0), ("x", 1, 1), ("x2", 2, 0), ("x2", 1, 1)]
    assert list(figure.layout.yaxis.range) == [1.5, -0.5]  # text on top


def test_role_strip_gives_each_role_its_colour_and_sign():
    roles = np.array([ROLE_COMPLEMENTARY, ROLE_DISTRACTOR, ROLE_COMMON], dtype=np.int8)
    strip = role_strip("planted", {"vision": roles})

    def colour(value):
        return next(name for edge, name in reversed(strip.scale) if edge <= value)

    drawn = [colour(value) for value in strip.values["vision"]]
    assert (drawn[0], drawn[2]) == (COLOURS["complementary"], COLOURS["common"])
    (shown,) = steps_figure([strip]).data
    assert list(shown.text[0]) == ["+", "", "C"]
    assert [label for _, label in shown.customdata[0]] == ["complementary", "distractor", "common"]
    assert strip.outlined["vision"].tolist() == [True, False, True]


def test_figures_leave_the_background_to_the_page(strip):
    for figure in (steps_figure([strip]), curve_figure({"released": Curve([1.0])})):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0, 0, 0, 0)"


def test_a_hostile_id_stays_text():
    figure = scatter_figure([0.0], [0.0], ids=[HOSTILE], low=-3.0, high=3.0, name=HOSTILE)
    assert "<img" not in json.dumps(figure.to_dict(), default=str)

    markup = figure_html(figure, name="plot")
    assert markup.count("</script>") == markup.count("<script")
    assert "<img" not in markup


def test_figure_html_leaves_plotly_to_the_page(strip):
    assert len(figure_html(steps_figure([strip]), name="steps")) < 50_000
