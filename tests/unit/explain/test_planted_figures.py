"""The section on planted data: honest about its clips, and closed to what ids contain."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from mmcl.config import resolve_config
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.explain.planted_figures import (
    SHOWN,
    metric_rows,
    pick_clips,
    planted_section,
    read_planted,
)
from mmcl.explain.report import report_page
from mmcl.runs.run import train

SETTINGS = PlantSettings(train=32, valid=24, test=12)
SMALL = ("learning.epochs=2", "model.width=8", "model.inner_width=16", "learning.batch_size=16")
HOSTILE = "</script><img src=x onerror=alert(1)> & "


class _Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.texts, self._open = [], set(), [], None
        self.feed(str(page))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids |= {value for name, value in attrs if name == "id"}
        self._open = tag

    def handle_data(self, data):
        if self._open not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def _make(folder, clips=None, settings=SETTINGS, variants=("released", "calibrated")):
    """A folder like that of a demo; returns what is read of it."""
    path = folder / "planted.arrow"
    write_corpus(path, plant_card(settings), plant_clips(settings) if clips is None else clips)
    for variant in variants:
        config = resolve_config(model=variant, overrides=SMALL)
        train(open_corpus(path), config, out=folder / variant)
    return read_planted(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    _make(folder)
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return read_planted(folder / "planted.arrow")


@pytest.fixture(scope="module")
def parsed(content):
    return _Elements(planted_section(content))


def test_section_shows_every_part(parsed, content):
    curves = {"curve-task-loss", "curve-valid-loss", "curve-mean-action", "curve-reward"}
    assert curves <= parsed.ids

    split = content["corpus"].split("valid")
    rows = pick_clips(split.labels(), 3.0)
    assert rows
    for number, row in enumerate(rows, start=1):
        assert split.ids[row] in parsed.text
        assert f"clip-{number}" in parsed.ids
    assert f"clip-{len(rows) + 1}" not in parsed.ids

    runs = content["runs"]
    for name in (*runs, "constant", "majority", "ridge", *(metric.name for metric in SHOWN)):
        assert name in parsed.text
    assert "withdrew arXiv 2501.12424" in parsed.text
    assert f"{runs['calibrated'].metrics['test']['mae']['mean']:.3f}" in parsed.text


def test_clips_are_drawn_as_the_networks_saw_them(content):
    split, run = content["corpus"].split("valid"), content["runs"]["calibrated"]
    rows = pick_clips(split.labels(), 3.0)
    row = rows[-1]
    section = str(planted_section(content))
    moments = next(m for m in run.moments(content["corpus"]) if m.id == split.ids[row])

    assert f"calibrated {moments.prediction:+.2f}".replace("-", "−") in section
    figure = re.search(rf'newPlot\(\s*"clip-{len(rows)}",(.*?)</script>', section, re.S).group(1)
    data = json.JSONDecoder().raw_decode(figure[figure.index("[") :])[0]
    roles, commonality, action = (np.array(trace["z"], dtype=float) for trace in data[:3])
    expected = [split.roles(m, row) for m in ("text", "audio", "vision")]
    np.testing.assert_array_equal(np.floor(roles * 3), np.stack(expected))
    # Drawn to four decimals; predicted with few other clips beside it.
    for drawn, seen in ((commonality, moments.commonality), (action, moments.action)):
        np.testing.assert_allclose(drawn, np.stack(list(seen.values())), atol=2e-4)


def test_section_says_that_epochs_differ(content, parsed, folder, tmp_path):
    assert "different numbers of epochs" not in parsed.text

    config = resolve_config(model="calibrated", overrides=(*SMALL, "learning.epochs=1"))
    shorter = train(content["corpus"], config, out=tmp_path / "shorter")
    changed = {**content, "runs": {**content["runs"], "calibrated": shorter}}
    text = _Elements(planted_section(changed)).text
    assert "released at most 2, calibrated at most 1" in text


def test_section_keeps_hostile_ids_as_text(tmp_path, parsed):
    clips = (c.model_copy(update={"id": HOSTILE + c.id}) for c in plant_clips(SETTINGS))
    content = _make(tmp_path, clips)
    hostile = _Elements(planted_section(content))

    first = next(content["clips"].clips()).id
    assert first.startswith(HOSTILE)
    assert first in hostile.text
    assert hostile.tags == parsed.tags


def test_runs_on_another_corpus_are_left_out(folder, tmp_path):
    shutil.copytree(folder / "released", tmp_path / "released")
    content = _make(tmp_path, settings=SETTINGS.model_copy(update={"seed": 2}), variants=())

    assert content["runs"] == content["moments"] == {}
    assert "No run in this folder was trained on exactly these clips" in planted_section(content)


def test_section_of_emotions_shows_no_scores(tmp_path):
    settings = SETTINGS.model_copy(update={"task": "emotions"})
    content = _make(tmp_path, settings=settings, variants=("calibrated",))
    parsed = _Elements(planted_section(content))

    assert {"clip-1", "clip-4"} <= parsed.ids
    assert "first of the validation split" in parsed.text
    assert "truth" not in parsed.text
    assert "MAE" not in parsed.text


def test_report_begins_with_the_planted_data(folder):
    page = report_page(folder, command="")
    parsed = _Elements(page)
    sections = {"planted-1", "metrics-2", "metrics-3"}
    figures = {"planted-1-clip-1", "metrics-2-scatter", "metrics-3-scatter"}
    assert sections | figures <= parsed.ids


def test_rows_are_the_variants_and_the_references(content):
    runs = content["runs"]
    rows = metric_rows(runs)

    assert list(rows) == ["released", "calibrated", "constant", "majority", "ridge"]
    assert {tuple(row) for row in rows.values()} == {tuple(metric.key for metric in SHOWN)}
    report = runs["released"].metrics
    assert rows["released"]["acc7"] == report["test"]["acc7"]["mean"]
    speed = report["training"]["clips_per_second"]["mean"]
    assert rows["released"]["train_clips_per_second"] == speed
    assert rows["ridge"]["mae"] == report["references"]["ridge"]["test"]["mae"]
    assert rows["constant"]["corr"] is None
    assert rows["ridge"]["common_auroc"] is None


def test_rows_are_of_the_test_split_not_of_validation(content):
    report = content["runs"]["calibrated"].metrics
    assert report["test"]["mae"]["mean"] != report["valid"]["mae"]["mean"]
    assert metric_rows(content["runs"])["calibrated"]["mae"] == report["test"]["mae"]["mean"]


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
