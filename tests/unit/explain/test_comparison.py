"""The section of a comparison: its numbers are the file's, its words follow from the tests."""

import copy
import json
import re
from html.parser import HTMLParser
from typing import NamedTuple

import pytest

from fakes.comparisons import DIVERGED, HOSTILE, METRICS, comparison, summary
from mmcl.errors import ConfigError
from mmcl.evaluation.metrics import higher_is_better, metric_name
from mmcl.explain.comparison_figures import VERDICT_COLOURS, forest_figure, seeds_figure
from mmcl.explain.comparison_section import comparison_section
from mmcl.explain.comparison_words import (
    answer,
    arrow,
    headline,
    number,
    probability,
    signed,
    verdict,
)
from mmcl.explain.cost_figure import cost_figure


class _Published(NamedTuple):
    dataset: str
    model: str
    metric: str
    value: float
    text: str = "bert"
    alignment: str = "aligned"
    selection: str = "T"
    source: str = "a table"
    note: str = ""


class _Tables(HTMLParser):
    """Every table as rows of cells, a cell as its attributes and its text."""

    def __init__(self, markup):
        super().__init__()
        self.tables, self.tags, self._cell = [], [], None
        self.feed(str(markup))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = {"attributes": dict(attrs), "text": "", "tags": []}
            self.tables[-1][-1].append(self._cell)
        elif self._cell is not None:
            self._cell["tags"].append(tag)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell["text"] += data


@pytest.fixture(scope="module")
def content():
    return comparison()


@pytest.fixture(scope="module")
def markup(content):
    return comparison_section(content)


@pytest.fixture
def changed(content):
    return copy.deepcopy(content)


@pytest.fixture
def few(changed):
    """Five rows judged by one metric: a page of it is made in a moment."""
    names = ("calibrated", "misa", "mult", "tfn", "constant")
    changed["metrics"] = ["mae"]
    changed["rows"] = [_named(changed, name) for name in names]
    changed["tests"] = [
        test for test in changed["tests"] if test["name"] in names and test["metric"] == "mae"
    ]
    return changed


def _tests(content):
    return {(test["name"], test["metric"]): test for test in content["tests"]}


def _named(content, name):
    return next(row for row in content["rows"] if row["name"] == name)


def _test(difference, better, name="half", **changes):
    low, high = difference - 0.012, difference + 0.02
    given = {"name": name, "difference": difference, "low": low, "high": high, "better": better}
    return {**given, "p_holm": 0.0004 if better else 0.27, "notes": [], **changes}


def _plots(markup):
    return re.findall(r"Plotly\.newPlot\((.*?)</script>", str(markup), re.S)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("metric", "difference", "better", "short", "sentence"),
    [
        pytest.param(
            "mae",
            0.043,
            "calibrated",
            "Yes",
            "with “half” MAE rises by .043 [.031, .063], p < .001",
            id="lower-is-better-and-it-rises",
        ),
        pytest.param(
            "mae",
            -0.043,
            "half",
            "No, the other way round",
            "with “half” MAE falls by .043 [.023, .055], p < .001",
            id="lower-is-better-and-it-falls",
        ),
        pytest.param(
            "acc2_non0",
            -0.043,
            "calibrated",
            "Yes",
            "with “half” Acc-2 non0 falls by .043 [.023, .055], p < .001",
            id="higher-is-better-and-it-falls",
        ),
        pytest.param(
            "acc2_non0",
            0.043,
            "half",
            "No, the other way round",
            "with “half” Acc-2 non0 rises by .043 [.031, .063], p < .001",
            id="higher-is-better-and-it-rises",
        ),
        pytest.param(
            "mae",
            0.003,
            None,
            "No difference was found",
            "with “half” MAE changes by +.003 [−.009, +.023], p = .270",
            id="nothing-found",
        ),
    ],
)
def test_answer_follows_sign_and_significance(metric, difference, better, short, sentence):
    found = answer("half", metric, _test(difference, better))
    assert (found.short, found.sentence) == (short, sentence)


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        pytest.param(None, "“half” could not be tested", id="no-test"),
        pytest.param(
            _test(0.0, None, p_holm=None, notes=["all labels have one sign"]),
            "“half” could not be tested: all labels have one sign",
            id="no-p-value",
        ),
    ],
)
def test_answer_says_that_nothing_was_tested(test, sentence):
    found = answer("half", "mae", test)
    assert (found.verdict, found.short, found.sentence) == ("untested", "Not answered", sentence)


def test_verdict_is_of_the_row_not_of_the_sign():
    assert verdict(_test(0.1, "half")) == "better"
    assert verdict(_test(0.1, "calibrated")) == "worse"
    assert verdict(_test(0.1, None)) == "same"
    assert verdict(_test(0.1, None) | {"difference": None}) == "untested"
    assert verdict(None) == "untested"


def test_headline_names_a_best_only_where_the_file_does(changed):
    assert headline(changed) == (
        "No row is significantly better than every other by MAE; the best mean is that of "
        f"calibrated, {number(_named(changed, 'calibrated')['test']['mae']['mean'])}."
    )
    changed["metrics"] = ["acc7", "mae"]
    assert headline(changed) == (
        f"calibrated has the best Acc-7, "
        f"{number(_named(changed, 'calibrated')['test']['acc7']['mean'])}, "
        "significantly better than every other row."
    )
    changed["metrics"] = ["acc2_non0"]
    for row in changed["rows"]:
        row["test"]["acc2_non0"] = summary([0.9 if row["name"] == "misa" else 0.8])
    assert "that of misa, .900." in headline(changed)
    for row in changed["rows"]:
        row["test"]["acc2_non0"] = summary([None])
    assert headline(changed) == "Acc-2 non0 is undefined in every row."


def test_numbers_are_written_without_a_leading_zero():
    assert [number(value) for value in (0.0, 1.0, 10.25, -0.5)] == [
        ".000",
        "1.000",
        "10.250",
        "−.500",
    ]
    assert number(0.4, 0) == "0"
    assert [signed(value) for value in (0.0, 0.0001, -1.25, None)] == [
        ".000",
        ".000",
        "−1.250",
        "–",
    ]
    assert [probability(p) for p in (0.001, 0.00099, 1.0)] == ["p = .001", "p < .001", "p = 1.000"]


def test_direction_is_known_of_planted_moments_too():
    assert higher_is_better("common_auroc")
    assert not higher_is_better("mae")
    assert [arrow(key) for key in ("mae", "acc7", "made_up")] == ["↓", "↑", ""]
    with pytest.raises(ConfigError):
        higher_is_better("made_up")
    assert metric_name("common_auroc") == "common AUROC"


# ---------------------------------------------------------------- figures


def test_forest_draws_differences_and_intervals_of_the_file(content):
    tests = _tests(content)
    figure = forest_figure(content["rows"], tests, "acc7")

    models = [row for row in content["rows"] if row["name"] != "calibrated"]
    assert len(figure.data) == len(models) == 11
    for at, (trace, row) in enumerate(zip(figure.data, models, strict=True)):
        test = tests[row["name"], "acc7"]
        assert list(trace.y) == [at]
        if row["kind"] == "reference":
            continue
        assert trace.x[0] == test["difference"]
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(test["high"], rel=1e-12)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(test["low"], rel=1e-12)
    assert [(line.x0, line.x1) for line in figure.layout.shapes] == [(0, 0)]


def test_forest_colours_what_is_significant(changed):
    tests = _tests(changed)
    tests["misa", "mae"] |= {"better": "misa"}
    tests["mult", "mae"] |= {"better": "calibrated"}
    tests["almt", "mae"] |= {"better": None}
    rows = [_named(changed, name) for name in ("misa", "mult", "almt")]

    drawn = [trace.marker for trace in forest_figure(rows, tests, "mae").data]
    assert [marker.color for marker in drawn] == [
        VERDICT_COLOURS[each] for each in ("better", "worse", "same")
    ]
    assert [marker.symbol for marker in drawn] == ["circle", "circle", "circle-open"]
    assert len({marker.color for marker in drawn}) == 3


@pytest.mark.parametrize(
    ("metric", "title"),
    [("mae", "← better &nbsp; worse →"), ("acc7", "← worse &nbsp; better →")],
)
def test_forest_says_on_which_side_better_lies(content, metric, title):
    figure = forest_figure(content["rows"], _tests(content), metric)
    assert figure.layout.xaxis.title.text == title


def test_forest_keeps_the_axis_of_the_models(content):
    tests = _tests(content)
    figure = forest_figure(content["rows"], tests, "mae")
    low, high = figure.layout.xaxis.range

    constant = tests["constant", "mae"]
    assert (
        constant["difference"]
        > high
        > max(
            test["high"]
            for (name, key), test in tests.items()
            if key == "mae" and name != "constant"
        )
    )
    trace = figure.data[-1]
    assert trace.marker.symbol == "triangle-right"
    assert low < trace.x[0] < high
    assert not trace.error_x.visible
    assert f"constant: {signed(constant['difference'])}" in trace.hovertemplate


def test_forest_of_nothing_is_none(content):
    assert forest_figure(content["rows"], {}, "mae") is None
    assert forest_figure([_named(content, "calibrated")], _tests(content), "mae") is None


def test_seeds_draws_each_value_and_their_mean(content):
    rows = [_named(content, "tfn"), _named(content, "calibrated")]
    figure = seeds_figure(rows, "mae", seeds=content["seeds"])

    seeds, mean = figure.data[:2]
    first, diverged, third = rows[0]["test"]["mae"]["values"]
    assert diverged is None
    assert list(seeds.x) == [first, third]
    assert list(seeds.text) == [f"tfn, seed 1: {number(first)}", f"tfn, seed 3: {number(third)}"]
    assert list(mean.x) == [rows[0]["test"]["mae"]["mean"]]
    assert [trace.y[0] for trace in figure.data] == [0, 0, 1, 1]


def test_seeds_names_values_of_finished_seeds_alone(changed):
    row = _named(changed, "tfn")
    row["test"]["mae"] = summary([0.4, 0.5])
    assert list(seeds_figure([row], "mae", seeds=[1, 2, 3]).data[0].text) == [
        "tfn, seed 1: .400",
        "tfn, seed 3: .500",
    ]
    row["test"]["mae"] = summary([0.4])
    assert list(seeds_figure([row], "mae", seeds=[1, 2, 3]).data[0].text) == [
        "tfn, every seed: .400"
    ]


def test_seeds_leaves_out_what_is_undefined(content):
    figure = seeds_figure(content["rows"], "corr", seeds=content["seeds"])
    assert "constant" not in figure.layout.yaxis.ticktext
    assert "tfn" in figure.layout.yaxis.ticktext
    assert seeds_figure([_named(content, "constant")], "corr", seeds=[1]) is None


def test_published_stand_on_the_row_of_their_model(content):
    rows = [_named(content, name) for name in ("misa", "self_mm")]
    published = [
        _Published("planted", "Self-MM", "mae", 0.712),
        _Published("planted", "Self-MM", "acc7", 0.5),
        _Published("planted", "unknown", "mae", 0.9),
    ]
    trace = seeds_figure(rows, "mae", seeds=content["seeds"], published=published).data[-1]
    assert (list(trace.x), list(trace.y)) == ([0.712], [1])
    assert list(trace.text) == ["Self-MM, published: .712 (a table)"]
    assert trace.marker.color != VERDICT_COLOURS["same"]


def test_cost_draws_score_over_seconds(content):
    figure = cost_figure(content["rows"], "mae")

    priced = {row["name"]: row for row in content["rows"] if row["cost"]}
    assert len(figure.data) == len(priced) == 11
    for trace, (name, row) in zip(figure.data, priced.items(), strict=True):
        point = (row["cost"]["train_seconds"], row["test"]["mae"]["mean"])
        assert (trace.x[0], trace.y[0]) == point, name
    sizes = {name: trace.marker.size for name, trace in zip(priced, figure.data, strict=True)}
    assert max(sizes, key=sizes.get) == "tfn"  # most parameters
    assert min(sizes, key=sizes.get) == "text_only"
    low, high = figure.layout.xaxis.range
    assert 10**low < 18 < 310 < 10**high
    assert list(figure.layout.xaxis.tickvals) == [10, 20, 50, 100, 200, 500]


def test_cost_writes_no_name_over_another(changed):
    rows = [row for row in changed["rows"] if row["cost"]]
    assert all(trace.text[0] for trace in cost_figure(rows[:4], "mae").data)
    for row in rows:
        row["cost"]["train_seconds"] = 90.0
        row["test"]["mae"]["mean"] = 0.3
    figure = cost_figure(rows, "mae")
    written = [trace.textposition for trace in figure.data if trace.text[0]]
    assert 1 <= len(written) == len(set(written)) < len(rows)
    assert len(figure.data) == len(rows)


def test_cost_of_nothing_is_none(content):
    assert cost_figure([_named(content, "constant")], "mae") is None


# ---------------------------------------------------------------- the section


def test_table_shows_the_numbers_of_the_file(markup, content):
    table = _Tables(markup).tables[0]
    assert [cell["text"] for cell in table[0]] == [
        "model",
        "MAE\u00a0↓",  # the arrow does not stand in a line of its own
        "Corr\u00a0↑",
        "Acc-2 non0\u00a0↑",
        "Acc-7\u00a0↑",
        "p, MAE",
    ]
    assert len(table) == 1 + len(content["rows"])
    tests = _tests(content)
    for head, *cells in table[1:]:
        name = head["attributes"]["data-value"]
        row = _named(content, name)
        for key, cell in zip(METRICS, cells, strict=False):
            each = row["test"][key]
            if each["mean"] is None:
                assert (cell["text"], cell["attributes"]["data-value"]) == ("–", "")
                continue
            assert cell["text"].startswith(number(each["mean"]))
            assert float(cell["attributes"]["data-value"]) == each["mean"]
            assert f"± {number(each['std'])}" in cell["text"]
            better = tests.get((name, key), {}).get("better")
            mark = "" if better is None else "▲" if better == name else "▼"
            assert [sign for sign in "▲▼" if sign in cell["text"]] == list(mark)
        p = tests.get((name, "mae"), {}).get("p_holm")
        assert cells[-1]["text"] == {None: "–", 0.0002: "< .001", 0.62: ".620"}[p]


def test_table_is_bold_only_where_the_file_says_best(markup):
    parsed = _Tables(markup)
    bold = [
        (line[0]["attributes"]["data-value"], at)
        for line in parsed.tables[0][1:]
        for at, cell in enumerate(line[1:])
        if "strong" in cell["tags"]
    ]
    assert bold == [("calibrated", METRICS.index("acc7"))]
    assert not any("strong" in cell["tags"] for t in parsed.tables[1:] for r in t for cell in r)


def test_rows_stand_best_first_and_references_last(markup, content):
    names = [line[0]["attributes"]["data-value"] for line in _Tables(markup).tables[0][1:]]
    models = [row for row in content["rows"] if row["kind"] == "model"]
    expected = sorted(models, key=lambda row: row["test"]["mae"]["mean"])
    assert names == [*(row["name"] for row in expected), "constant"]


def test_rows_stand_best_first_where_higher_is_better(few):
    few["metrics"] = ["acc7"]
    names = [
        line[0]["attributes"]["data-value"]
        for line in _Tables(comparison_section(few)).tables[0][1:]
    ]
    assert names == ["calibrated", "misa", "mult", "tfn", "constant"]


def test_diverged_seeds_are_said(markup):
    said = [
        cell["text"]
        for row in _Tables(markup).tables[0]
        for cell in row
        if "diverged" in cell["text"]
    ]
    assert len(said) == 1
    assert "2 of 3 seeds" in said[0]
    assert f"seed 2 diverged: {DIVERGED}" in said[0]
    assert str(markup).count('class="diverged"') == 2


def test_row_whose_every_seed_diverged_is_shown(few):
    row = _named(few, "mult")
    row |= {"seeds_done": 0, "diverged": {str(seed): DIVERGED for seed in (1, 2, 3)}}
    row["test"] = row["valid"] = {}
    few["tests"] = [test for test in few["tests"] if test["name"] != "mult"]

    table = _Tables(comparison_section(few)).tables[0]
    assert [cell["text"] for cell in table[-2][1:]] == ["–"] * 2
    assert "0 of 3 seeds" in table[-2][0]["text"]


def test_hostile_name_stays_text(markup):
    assert HOSTILE not in str(markup)
    assert "<script>alert" not in str(markup)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in str(markup)
    parsed = _Tables(markup)
    assert any(line[0]["text"].strip() == HOSTILE for line in parsed.tables[0])
    # Plotly reads some text as markup, so a name reaches it escaped once more.
    assert all("u003cscript" not in block for block in _plots(markup))
    assert any("&lt;script" in block for block in _plots(markup))


def test_every_test_and_metric_is_listed(markup, content):
    tables = _Tables(markup).tables
    assert [len(table) - 1 for table in tables] == [12, 11, 12, 12, len(content["tests"])]
    for line in tables[-1][1:]:
        name, metric = (cell["attributes"]["data-value"] for cell in line[:2])
        test = next(
            t for t in content["tests"] if t["name"] == name and metric_name(t["metric"]) == metric
        )
        assert float(line[2]["attributes"]["data-value"]) == test["difference"]
        assert f"[{signed(test['low'])}, {signed(test['high'])}]" in line[2]["text"]
        assert line[4]["text"] == "–"
    valid = {line[0]["text"]: line[1] for line in tables[3][1:]}
    own = _named(content, "misa")["valid"]["mae"]["mean"]
    assert float(valid["misa"]["attributes"]["data-value"]) == own


def test_notes_command_and_environment_stand_at_the_end(markup, content):
    text = str(markup)
    assert "planted data is made, not recorded" in text
    assert text.count("Wilcoxon needs 6 pairs of seeds, there are 3") == 1
    assert content["command"] in text
    for fact in ("ce39c29675cae079", "torch 2.13.0", "1cdcc7fd035c", "1, 2, 3"):
        assert fact in text
    assert "chance alone, for so many clips: ±.018" in text


def test_note_of_few_rows_names_them(few):
    for test in few["tests"]:
        test["notes"] = ["one seed"] if test["name"] in ("misa", "mult") else []
    assert "<li>mult, misa: one seed</li>" in str(comparison_section(few))


def test_published_are_a_block_of_their_own(few, markup):
    published = [_Published("planted", "<b>MISA", "mae", 0.7765, note="not possible")]
    text = str(comparison_section(few, published=published))
    table = next(t for t in _Tables(text).tables if t[0][-1]["text"] == "source")
    assert [cell["text"] for cell in table[1]] == [
        "<b>MISA",
        "MAE",
        ".776",
        "bert",
        "aligned",
        "test",
        "a table not possible",
    ]
    assert "Published beside ours" not in str(markup)
    other = [_Published("planted", "MISA", "acc5", 0.4)]
    assert "Published beside ours" not in str(comparison_section(few, published=other))


def test_ablation_answers_each_question_in_its_order():
    content = comparison("ablation")
    text = str(comparison_section(content))

    asked = re.findall(r"<dt>(.*\?)</dt>", text)
    assert asked == list(dict.fromkeys(r["question"] for r in content["rows"] if r["question"]))
    assert asked.count("does decoupling help?") == 1
    shorts = re.findall(r'<dd class="(\w+)"><strong>(.*?)</strong>', text)
    assert shorts[:2] == [("worse", "Yes"), ("worse", "Yes")]
    assert len(shorts) == len(content["rows"]) - 1
    tests = _tests(content)
    first = tests["no decoupling", "mae"]
    assert f"MAE rises by {number(first['difference'])}" in text
    assert text.index("Ablation on planted") < text.index("What the ablation answers")

    names = [line[0]["attributes"]["data-value"] for line in _Tables(text).tables[0][1:]]
    assert names == [row["name"] for row in content["rows"]]


def test_comparison_asks_no_question(markup):
    assert "What the ablation answers" not in str(markup)


def test_no_number_of_a_figure_is_nan(markup, content):
    assert len(_plots(markup)) == 2 * len(METRICS) + 1
    assert all("NaN" not in block for block in _plots(markup))
    assert json.dumps(content, allow_nan=False)
