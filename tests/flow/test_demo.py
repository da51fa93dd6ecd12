"""``mmcl demo`` through the command line, on a corpus of a few clips."""

import json
import math

import pytest

from mmcl.cli import demo
from mmcl.cli.main import main
from mmcl.config import resolve_config
from mmcl.corpus.plant import PlantSettings
from mmcl.errors import MediaError, MissingExtraError
from mmcl.explain.report import report_page
from mmcl.runs import recordings

KEYS = ["mae", "corr", "acc2_non0", "acc7", "common_auroc", "action_auroc"]
KEYS += ["kept", "kept_precision", "kept_recall"]
OWN = {"planted.arrow", "report.html", "timeline.html", "metrics.json", "released", "calibrated"}


@pytest.fixture
def small(monkeypatch):
    """The real demo with less of everything; returns what it was asked for."""
    asked = []

    def make_plan(*, quick):
        asked.append(quick)
        overrides = ("learning.epochs=2", "learning.batch_size=16", "model.inner_width=32")
        return demo.Plan(PlantSettings(train=64, valid=24, test=24), overrides)

    monkeypatch.setattr(demo, "make_plan", make_plan)
    return asked


@pytest.fixture
def untrainable(monkeypatch):
    """Fail the test if a demo that must refuse begins to plant."""

    def plant(path, plan):
        raise AssertionError(f"planted {path}")

    monkeypatch.setattr(demo, "_plant", plant)


def _tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_demo_writes_its_files_and_replaces_no_others(tmp_path, small, capsys):
    out = tmp_path / "made" / "here"
    assert main(["demo", "--out", str(out), "--quick"]) == 0

    printed = capsys.readouterr().out
    assert small == [True]
    assert {path.name for path in out.iterdir()} == OWN
    for word in (*KEYS, "train_clips_per_second", "released", "calibrated", "ridge"):
        assert word in printed
    assert f"The report: {out / 'report.html'}" in printed
    assert f"What the starter says of a small recording: {out / 'timeline.html'}" in printed
    timeline = (out / "timeline.html").read_text(encoding="utf-8")
    assert "wonderful" in timeline
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["released", "calibrated"]
    for numbers in metrics.values():
        assert list(numbers) == [*KEYS, "train_clips_per_second"]
        assert all(value is None or math.isfinite(value) for value in numbers.values())
        assert numbers["mae"] is not None
        assert numbers["train_clips_per_second"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Planted data: the right answer is known" in page
    assert page == report_page(out, command=f"mmcl report {out}")

    mine = out / "notes.txt"
    mine.write_text("mine")
    (out / "released" / "stale.txt").write_text("of the earlier demo")
    assert main(["demo", "--out", str(out)]) == 0
    assert mine.read_text() == "mine"
    assert not (out / "released" / "stale.txt").exists()
    again = json.loads((out / "metrics.json").read_text())
    for variant in metrics:  # the same seed and corpus: only the speed may differ
        for key in KEYS:
            assert again[variant][key] == metrics[variant][key]


@pytest.mark.usefixtures("untrainable")
@pytest.mark.parametrize(
    "name", ["released/notes.txt", "released", "metrics.json", "report.html", "planted.arrow"]
)
def test_demo_refuses_what_no_demo_made(tmp_path, capsys, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    before = _tree(tmp_path)

    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"RunError: {tmp_path}: holds {name.partition('/')[0]}, which no demo made; "
        "nothing was changed.\n  Give another folder: mmcl demo --out DIR\n"
    )
    assert _tree(tmp_path) == before


@pytest.mark.usefixtures("untrainable")
def test_demo_refuses_a_run_of_another_corpus(tmp_path, capsys):
    run = tmp_path / "calibrated"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"seeds": [1], "corpus": {"recipe": {}}}))
    before = _tree(tmp_path)

    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "holds calibrated, which no demo made" in capsys.readouterr().err
    assert _tree(tmp_path) == before


@pytest.mark.usefixtures("untrainable")
def test_demo_refuses_a_run_folder(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")

    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "holds run.json, which no demo made" in capsys.readouterr().err


@pytest.mark.usefixtures("untrainable")
def test_demo_refuses_a_file(tmp_path, capsys):
    out = tmp_path / "demo"
    out.write_text("mine")

    assert main(["demo", "--out", str(out)]) == 1
    assert capsys.readouterr().err == (
        f"DiskError: {out}: nothing can be written there (File exists).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Give a place where you may write.\n"
    )
    assert out.read_text() == "mine"


@pytest.mark.usefixtures("untrainable")
def test_demo_says_what_cannot_be_written(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    out = blocked / "demo"

    assert main(["demo", "--out", str(out)]) == 1
    assert capsys.readouterr().err == (
        f"DiskError: {out}: nothing can be written there (Not a directory).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Give a place where you may write.\n"
    )


@pytest.mark.parametrize("quick", [False, True])
def test_plan_keeps_the_architectures_of_the_preset(quick):
    plan = demo.make_plan(quick=quick)
    for variant in demo.VARIANTS:
        planned = resolve_config(model=variant, source="planted", overrides=plan.overrides)
        assert planned.model == resolve_config(model=variant, source="planted").model


def test_quick_plants_and_trains_less():
    quick, full = demo.make_plan(quick=True), demo.make_plan(quick=False)
    assert full.settings == PlantSettings()
    assert quick.settings.train < full.settings.train


def test_timeline_is_left_out_without_what_reads_recordings(tmp_path, monkeypatch):
    def lacking(*_, **__):
        raise MissingExtraError("reading recordings needs av, which is not installed.")

    monkeypatch.setattr(recordings, "predict_media", lacking)
    line = demo._show_starter(tmp_path / "timeline.html")
    assert line.startswith("timeline.html is left out")
    assert 'pip install "mmcl[media-offline]"' in line
    assert not list(tmp_path.iterdir())


def test_timeline_is_left_out_without_a_library_of_the_system(tmp_path, monkeypatch):
    def lacking(*_, **__):
        raise MediaError("measuring faces needs libEGL.so.1.\n  apt install libegl1")

    monkeypatch.setattr(recordings, "predict_media", lacking)
    line = demo._show_starter(tmp_path / "timeline.html")
    assert line == (
        "timeline.html is left out: measuring faces needs libEGL.so.1.\n  apt install libegl1"
    )
    assert not list(tmp_path.iterdir())
