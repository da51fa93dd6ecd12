"""Figures of a search: what is drawn is what was found; the section trusts nothing."""

import pytest

from mmcl.explain.figures import COLOURS
from mmcl.explain.tuning_figures import (
    course_figure,
    importance_figure,
    slice_figure,
    tuning_section,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"
KEYS = ("learning.learning_rate", "model.width")


def _trial(number, state, value, rate, width):
    params = dict(zip(KEYS, (rate, width), strict=True))
    return {"number": number, "state": state, "value": value, "params": params}


TRIALS = [
    _trial(0, "complete", 2.0, 1e-4, 32),
    _trial(1, "failed", None, 1e-3, 64),
    _trial(2, "complete", 3.0, 1e-3, 128),
    _trial(3, "pruned", 9.0, 1e-3, 32),
    _trial(4, "complete", 1.0, 1e-2, 64),
]


@pytest.fixture
def content():
    summary = {"mean": 1.25, "std": 0.125}
    return {
        "command": HOSTILE,
        "corpus": HOSTILE,
        "model": "calibrated",
        "fresh_seeds": [101, 102],
        "trials": TRIALS,
        "best": {"number": 4, "value": 1.0, "params": TRIALS[4]["params"]},
        "importance": {KEYS[1]: 0.75, KEYS[0]: 0.25},
        "validation": {"search": 1.0, "best": summary, "defaults": {"mean": None, "std": None}},
        "notes": [HOSTILE],
    }


def test_course_draws_every_value_and_the_best_so_far():
    completed, pruned, best = course_figure(TRIALS).data
    assert (list(completed.x), list(completed.y)) == ([0, 2, 4], [2.0, 3.0, 1.0])
    assert (list(pruned.x), list(pruned.y)) == ([3], [9.0])
    assert (list(best.x), list(best.y)) == ([0, 2, 4], [2.0, 2.0, 1.0])


def test_slice_draws_completed_trials_and_marks_the_best():
    figure = slice_figure(TRIALS, KEYS[0], best=4)
    (points,) = figure.data
    assert (list(points.x), list(points.y)) == ([1e-4, 1e-3, 1e-2], [2.0, 3.0, 1.0])
    assert list(points.marker.color).index(COLOURS["complementary"]) == 2
    assert figure.layout.xaxis.type == "log"
    assert slice_figure(TRIALS, KEYS[1], best=4).layout.xaxis.type == "linear"


def test_importance_draws_a_bar_per_setting():
    (bars,) = importance_figure({"a.b": 0.75, "<b>": 0.25}).data
    assert (list(bars.x), list(bars.y)) == ([0.75, 0.25], ["a.b", "&lt;b&gt;"])


def test_section_holds_figures_words_and_notes_and_trusts_nothing(content):
    section = tuning_section(content)
    for element in ("tuning-course", "tuning-importance", "tuning-slice-1", "tuning-slice-2"):
        assert section.count(f'id="{element}"') == 1
    words = " ".join(section.split())
    assert "3 complete, 1 pruned, 1 failed" in words
    assert "<strong>1.250 ± 0.125</strong>" in section
    assert "<strong>–</strong>" in section
    assert section.index("model.width") < section.index("learning.learning_rate")
    assert "<img" not in section
    assert section.count("</script>") == section.count("<script")
    without = tuning_section({**content, "importance": None})
    assert "tuning-importance" not in without
    assert 'id="tuning-slice-2"' in without
