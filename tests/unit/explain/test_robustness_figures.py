"""Robustness figures: what is drawn is what was given; the section holds all of it, escaped."""

import pytest

from mmcl.explain.figures import COLOURS
from mmcl.explain.robustness_figures import rate_figure, robustness_section, subset_figure

HOSTILE = "</script><img src=x onerror=alert(1)>"


def _summary(mean, low=None, high=None):
    return {"mean": mean, "low": low, "high": high}


@pytest.fixture
def content():
    return {
        "command": f"mmcl robustness {HOSTILE} planted.arrow",
        "model": "calibrated",
        "corpus": HOSTILE,
        "split": "test",
        "seeds": [1, 2],
        "mask_seeds": [1, 2, 3],
        "rates": [0.0, 0.5],
        "steps": {
            "mae": [_summary(0.5, 0.4, 0.6), _summary(1.5, 1.25, 1.75)],
            "corr": [_summary(0.75), _summary(None)],
            "acc3": [_summary(0.5), _summary(0.5)],
        },
        "areas": {"mae": _summary(1.0), "corr": _summary(None), "acc3": _summary(0.5)},
        "subsets": [
            {
                "modalities": ["text"],
                "metrics": {"mae": _summary(1.25), "corr": _summary(None), "acc3": _summary(0.5)},
            }
        ],
        "line": {"mae": {"row": "constant", "value": 1.375}, "corr": None, "acc3": None},
        "no_better": {"mae": {"rates": [0.5], "subsets": []}},
        "notes": [HOSTILE],
    }


def test_rate_figure_draws_the_band_the_line_and_the_means():
    curve = [_summary(0.5, 0.25, 0.75), _summary(None), _summary(1.0, 0.5, 2.0)]
    line = {"row": "constant", "value": 1.5}
    figure = rate_figure([0.0, 0.4, 0.8], curve, line=line, name="released")
    band, line, means = figure.data
    assert (list(band.x), list(band.y)) == ([0.0, 0.8, 0.8, 0.0], [0.75, 2.0, 0.5, 0.25])
    assert (list(line.x), list(line.y)) == ([0.0, 0.8], [1.5, 1.5])
    assert list(means.y) == [0.5, None, 1.0]
    assert means.line.color == COLOURS["released"]
    assert figure.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_one_seed_has_no_band_and_an_undefined_line_is_not_drawn():
    figure = rate_figure([0.0, 0.5], [_summary(1.0)] * 2, line=None, name="tfn")
    assert len(figure.data) == 1


def test_subset_figure_draws_bars_whiskers_and_the_line():
    figure = subset_figure(
        {"text": _summary(1.0, 0.75, 1.5), "text+<b>": _summary(0.5)},
        line={"row": "constant", "value": 1.25},
        name="calibrated",
    )
    bars, line = figure.data
    assert (list(bars.x), list(bars.y)) == (["text", "text+&lt;b&gt;"], [1.0, 0.5])
    assert (list(bars.error_y.array), list(bars.error_y.arrayminus)) == ([0.5, 0], [0.25, 0])
    assert list(line.y) == [1.25, 1.25]


def test_section_holds_figures_words_and_notes_and_trusts_nothing(content):
    section = robustness_section(content)
    for element in ("rate-mae", "subset-mae", "rate-corr", "subset-corr"):
        assert section.count(f'id="robustness-{element}"') == 1
    assert "acc3" not in section  # a headline of sims alone
    assert "mae: no better than the constant (1.375) from rate 0.5 on" in section
    assert "mean over the rates 1.000" in section
    assert "mean over the rates –" in section
    assert "<img" not in section
    assert section.count("</script>") == section.count("<script")
    assert "95% intervals" in section
    assert "95% intervals" not in robustness_section({**content, "seeds": [1]})
    assert len(section) < 100_000  # the page brings plotly.js
