"""The page: whole in itself, honest about its clips, and closed to what ids contain."""

from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import UndefinedError
from plotly.offline import get_plotlyjs

from mmcl.config import resolve_config
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips, plant_corpus
from mmcl.corpus.store import pack_corpus
from mmcl.errors import DatasetError, RunError
from mmcl.explain.page import (
    METRICS,
    comparison,
    demo_page,
    pick_clips,
    render_page,
    write_page,
)
from mmcl.runs.run import train

SETTINGS = PlantSettings(train=32, valid=24, test=12)
SMALL = ("learning.epochs=2", "model.width=8", "model.inner_width=16", "learning.batch_size=16")
HOSTILE = "</script><img src=x onerror=alert(1)> & "
# What an element may name another resource by.
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


def _train_both(corpus, folder):
    return {
        variant: train(corpus, resolve_config(model=variant, overrides=SMALL), out=folder / variant)
        for variant in ("released", "calibrated")
    }


@pytest.fixture(scope="module")
def corpus():
    return plant_corpus(SETTINGS)


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    return _train_both(corpus, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(corpus, runs):
    return demo_page(corpus, runs, command="mmcl demo --out 'a <b> folder'")


@pytest.fixture(scope="module")
def parsed(page):
    return _Elements(page)


def test_page_asks_the_network_for_nothing(parsed):
    for tag, attributes in parsed.elements:
        named = [attributes[key] for key in REFERENCES if key in attributes]
        assert not named, f"<{tag}> names {named}"
        assert tag not in ("link", "iframe", "object", "embed", "base")
    style = "".join(parsed.styles)
    assert "url(" not in style
    assert "@import" not in style


def test_page_embeds_plotly_once(page):
    assert page.count(get_plotlyjs()) == 1


def test_page_shows_every_part(parsed, corpus, runs):
    drawn = {attributes["id"] for _, attributes in parsed.elements if "id" in attributes}
    curves = {"curve-task-loss", "curve-valid-loss", "curve-mean-action", "curve-reward"}
    assert curves | {"scatter-released", "scatter-calibrated", "clip-1"} <= drawn

    split = corpus.split("valid")
    rows = pick_clips(split.labels(), 3.0)
    assert rows
    for at, row in enumerate(rows, start=1):
        assert split.ids[row] in parsed.text
        assert f"clip-{at}" in drawn
    assert f"clip-{len(rows) + 1}" not in drawn

    for name in (*runs, "constant", "majority", "ridge", *(metric.name for metric in METRICS)):
        assert name in parsed.text
    assert "withdrew arXiv 2501.12424" in parsed.text
    assert "mmcl demo --out 'a <b> folder'" in parsed.text
    assert f"{runs['calibrated'].metrics['test']['mae']['mean']:.3f}" in parsed.text


def test_page_says_that_epochs_differ(corpus, runs, parsed, tmp_path):
    assert "Epochs are fewer" not in parsed.text

    config = resolve_config(model="calibrated", overrides=(*SMALL, "learning.epochs=1"))
    shorter = train(corpus, config, out=tmp_path / "shorter")
    page = demo_page(corpus, {**runs, "calibrated": shorter}, command="mmcl demo")
    assert "released at most 2, calibrated at most 1" in _Elements(page).text


def test_page_keeps_hostile_ids_as_text(tmp_path, parsed):
    clips = (c.model_copy(update={"id": HOSTILE + c.id}) for c in plant_clips(SETTINGS))
    corpus = pack_corpus(plant_card(SETTINGS), clips)
    hostile = _Elements(demo_page(corpus, _train_both(corpus, tmp_path), command=HOSTILE))

    first = corpus.split("valid").ids[pick_clips(corpus.split("valid").labels(), 3.0)[0]]
    assert first.startswith(HOSTILE)
    assert first in hostile.text
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in parsed.elements]


def test_comparison_has_a_row_for_each_variant_and_reference(runs):
    rows = comparison(runs)

    assert list(rows) == ["released", "calibrated", "constant", "majority", "ridge"]
    assert {tuple(row) for row in rows.values()} == {tuple(metric.key for metric in METRICS)}
    report = runs["released"].metrics
    assert rows["released"]["acc7"] == report["test"]["acc7"]["mean"]
    speed = report["training"]["clips_per_second"]["mean"]
    assert rows["released"]["train_clips_per_second"] == speed
    assert rows["ridge"]["mae"] == report["references"]["ridge"]["test"]["mae"]
    assert rows["constant"]["corr"] is None
    assert rows["ridge"]["common_auroc"] is None


def test_comparison_shows_the_test_split_not_the_validation_split(runs):
    report = runs["calibrated"].metrics
    assert report["test"]["mae"]["mean"] != report["valid"]["mae"]["mean"]
    assert comparison(runs)["calibrated"]["mae"] == report["test"]["mae"]["mean"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([2.9, 0.1, -1.6, 0.2, -1.0, -3.0], [1, 4, 2, 0], id="sign-ignored"),
        pytest.param([3.0, -3.0], [0], id="greatest-label-in-the-last-band"),
        pytest.param([0.75, 0.0], [1, 0], id="band-starts-at-its-edge"),
        pytest.param([np.nan, 2.0], [1], id="unknown-label"),
        pytest.param([], [], id="no-clip"),
    ],
)
def test_pick_clips_takes_the_first_of_each_band(labels, expected):
    assert pick_clips(np.array(labels), 3.0, count=4) == expected


def test_page_is_of_scores_only(tmp_path):
    corpus = plant_corpus(SETTINGS.model_copy(update={"task": "classes"}))
    with pytest.raises(DatasetError) as caught:
        demo_page(corpus, {}, command="mmcl demo")
    assert str(caught.value) == (
        "planted: the demo's page shows predicted scores, and this corpus has classes"
    )


def test_render_page_refuses_a_missing_name():
    with pytest.raises(UndefinedError):
        render_page("demo.html.j2", rows={})


def test_write_page_replaces_the_whole_file(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old" * 100)
    write_page(target, "ünew")

    assert target.read_text(encoding="utf-8") == "ünew"
    assert list(tmp_path.iterdir()) == [target]


def test_write_page_says_what_cannot_be_written(tmp_path):
    target = tmp_path / "absent" / "report.html"
    with pytest.raises(RunError) as caught:
        write_page(target, "page")
    assert str(caught.value) == (
        f"{target}: cannot be written (No such file or directory); nothing was left behind.\n"
        "  Give a folder you may write to: --out DIR"
    )
