"""The report on a folder: it finds what is there, shows it whole, and needs nothing else."""

import json
from html.parser import HTMLParser
from importlib import metadata

import pytest
from plotly.offline import get_plotlyjs

from fakes.comparisons import HOSTILE, comparison
from mmcl.errors import RunError
from mmcl.explain import report
from mmcl.explain.report import PARTS, Part, find_results, is_report, read_json, report_page

REFERENCES = ("src", "href", "data", "srcset", "action", "poster")


class _Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.elements, self.styles, self.texts, self._open = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        if self._open == "style":
            self.styles.append(data)
        elif self._open != "script":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def _small(kind="comparison"):
    """Three rows, one of them hostile, and a single metric."""
    content = comparison(kind)
    rows = [content["rows"][0], content["rows"][1], content["rows"][-2]]
    names = [row["name"] for row in rows]
    tests = [t for t in content["tests"] if t["name"] in names and t["metric"] == "mae"]
    return {**content, "metrics": ["mae"], "rows": rows, "tests": tests}


def _write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison, in a sub-folder an ablation, and beside it a run that was never scored."""
    folder = tmp_path_factory.mktemp("results")
    _write(folder, _small())
    _write(folder / "parts", _small("ablation"))
    (folder / "half").mkdir()
    (folder / "half" / "run.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return report_page(folder, command="mmcl report 'a <b> folder'")


@pytest.fixture(scope="module")
def parsed(page):
    return _Elements(page)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_every_part_names_its_functions_and_its_command(part):
    assert callable(part.read)
    assert callable(part.section)
    assert part.maker


def test_page_asks_the_network_for_nothing(parsed):
    for tag, attributes in parsed.elements:
        named = [attributes[key] for key in REFERENCES if key in attributes]
        assert all(name.startswith("#") for name in named), f"<{tag}> names {named}"
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
    style = "".join(parsed.styles)
    assert "url(" not in style
    assert "@import" not in style


def test_page_embeds_plotly_once(page):
    assert page.count(get_plotlyjs()) == 1


def test_page_keeps_hostile_names_as_text(page, parsed):
    assert HOSTILE not in page
    assert HOSTILE in parsed.text
    without_plotly = page.replace(get_plotlyjs(), "")
    assert "<script>alert" not in without_plotly
    assert "&lt;script" in without_plotly[without_plotly.index("Plotly.newPlot(") :]
    assert "\\u003cscript" not in without_plotly


def test_page_shows_every_result_in_its_place(parsed):
    links = [a["href"][1:] for tag, a in parsed.elements if tag == "a"]
    anchors = [a["id"] for tag, a in parsed.elements if a.get("class") == "part"]
    assert links == anchors == ["comparison-1", "comparison-2"]
    assert "Comparison on planted" in parsed.text
    assert "parts/ Ablation on planted" in parsed.text
    assert "mmcl report 'a <b> folder'" in parsed.text
    assert "half: a run without results yet" in parsed.text


def test_ids_are_unique(parsed):
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"comparison-1-forest-mae", "comparison-2-forest-mae"} <= set(ids)


def test_section_of_a_single_result_needs_no_contents(tmp_path):
    _write(tmp_path, _small("ablation"))
    tags = [tag for tag, _ in _Elements(report_page(tmp_path, command="")).elements]
    assert "nav" not in tags


def test_results_come_in_the_order_of_the_parts(folder, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("run.json", "metrics.json"):
        (tmp_path / "a" / name).write_text("{}")
    _write(tmp_path / "b", {})
    _write(tmp_path / "b" / "too" / "deep", {})
    found = [(each.part.title, each.path) for each in find_results(tmp_path)]
    assert found == [
        ("Comparison", tmp_path / "b" / "comparison.json"),
        ("Run", tmp_path / "a" / "metrics.json"),
    ]


def test_metrics_without_a_run_are_none_of_ours(tmp_path):
    _write(tmp_path, {})
    (tmp_path / "metrics.json").write_text("{}")  # as mmcl demo leaves it
    assert [each.part.file for each in find_results(tmp_path)] == ["comparison.json"]


def test_runs_of_a_comparison_are_listed_and_not_drawn(tmp_path):
    _write(tmp_path, _small("ablation"))
    (tmp_path / "calibrated").mkdir()
    for name in ("run.json", "metrics.json"):
        (tmp_path / "calibrated" / name).write_text("{}")  # drawn, it would be an error
    text = _Elements(report_page(tmp_path, command="")).text
    assert "mmcl report FOLDER . The folders: calibrated." in text


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(RunError) as caught:
        report_page(tmp_path, command="")
    assert str(caught.value) == (
        f"{tmp_path}: holds no result, and neither do the folders in it.\n"
        "  Looked for, and what makes it:\n"
        "  planted.arrow: mmcl demo --out DIR\n"
        "  comparison.json: mmcl compare CORPUS --out DIR\n"
        "  explanation.json: mmcl explain RUN CORPUS --out DIR\n"
        "  robustness.json: mmcl robustness RUN CORPUS --out DIR\n"
        "  tuning.json: mmcl tune CORPUS --out DIR\n"
        "  metrics.json: mmcl train CORPUS --out DIR"
    )


def test_refusal_names_every_part(tmp_path, monkeypatch):
    more = Part("Other", "other.json", str, "other RUN")
    monkeypatch.setattr(report, "PARTS", (*PARTS, more))
    with pytest.raises(RunError, match=r"\n  other\.json: mmcl other RUN --out DIR$"):
        find_results(tmp_path)


def test_missing_folder_and_file_are_refused(tmp_path):
    with pytest.raises(RunError) as caught:
        find_results(tmp_path / "absent")
    assert str(caught.value) == (
        f"{tmp_path / 'absent'}: no such folder.\n  Give the folder of a result: mmcl report DIR"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        find_results(tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path / 'file'}: not a folder.\n  Give the folder of a result: mmcl report DIR"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("{", "JSONDecodeError: Expecting property name", id="not-json"),
        pytest.param("[]", "ValueError: a list where an object was expected", id="no-object"),
        pytest.param('{"metrics": ["mae"]}', "KeyError: 'corpus'", id="key-missing"),
    ],
)
def test_broken_result_is_refused(tmp_path, text, why):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(RunError) as caught:
        report_page(tmp_path, command="")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'comparison.json'}: not as mmcl writes it ({why}")
    assert message.endswith(").\n  Make it again: mmcl compare CORPUS --out DIR")


def test_broken_result_of_another_version_names_it(tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text('{"metrics": ["mae"], "environment": {"versions": {"mmcl": "9.1"}}}')
    with pytest.raises(RunError) as caught:
        report_page(tmp_path, command="")
    assert str(caught.value) == (
        f"{path}: 1 value does not fit mmcl {metadata.version('mmcl')}; mmcl 9.1 wrote it.\n"
        "  KeyError: 'corpus'\n"
        '  Install the version that wrote it: pip install "mmcl==9.1"\n'
        "  Or make it again: mmcl compare CORPUS --out DIR"
    )


def test_a_report_is_known_by_its_mark(tmp_path, page):
    made, other = tmp_path / "report.html", tmp_path / "other.html"
    made.write_text(page)
    other.write_text("<!doctype html>")
    assert is_report(made)
    assert not is_report(other)
    assert not is_report(tmp_path / "absent")


def test_read_json_reads_an_object(tmp_path):
    (tmp_path / "a.json").write_text('{"a": null}')
    assert read_json(tmp_path / "a.json") == {"a": None}
