"""``mmcl tune`` as a user types it."""

import json

import pytest
import typer

from mmcl.cli.options import releasing_outputs
from mmcl.cli.tune import tune_command
from mmcl.config import resolve_config
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import ConfigError, UsageError
from mmcl.runs.run import Run
from mmcl.runs.search import with_settings
from mmcl.runs.tuning import config_toml, tune

app = typer.Typer(rich_markup_mode=None)
app.command("tune")(tune_command)


@pytest.fixture
def small(tiny_overrides):
    return [word for pair in tiny_overrides for word in ("--set", pair)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    settings = PlantSettings(train=24, valid=8, test=8)
    write_corpus(tmp_path / "planted.arrow", plant_card(settings), plant_clips(settings))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    def run(*words):
        capsys.readouterr()
        with releasing_outputs():  # as the program does
            app([str(word) for word in words], standalone_mode=False)
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def test_search_best_and_going_on(folder, call, small):
    words = ["planted.arrow", "--out", "tuned", "--seeds", "2", *small]
    out, err = call(*words, "--trials", "3")
    assert err == ""
    content = json.loads((folder / "tuned" / "tuning.json").read_text())
    best, validation = content["best"], content["validation"]
    lines = out.splitlines()
    assert lines[0].strip() == f"best of 3 trials: trial {best['number']}"
    written = ["best.toml", "tuning.json", "report.html"]
    assert lines[-3:] == [f"tuned/{name}" for name in written]
    assert "trials: 3 complete" in lines
    assert f"validation loss of the best trial: {best['value']:.3f} (optimistic)" in lines
    assert [trial["number"] for trial in content["trials"]] == [0, 1, 2]
    assert best["value"] == min(trial["value"] for trial in content["trials"])
    assert content["fresh_seeds"] == [101, 102]
    assert content["importance"] is None
    assert content["command"].startswith("mmcl tune planted.arrow --out tuned --set ")
    assert content["notes"][0].startswith("the validation loss of the best of 3 trials is optim")

    # What --set says is not searched, and best.toml is the best trial's settings.
    assert "model.width" not in best["params"]
    started = resolve_config(source="planted", overrides=small[1::2])
    chosen = resolve_config(source="tuned/best.toml")
    assert chosen == with_settings(started, best["params"])
    run, before = Run.load(folder / "tuned" / "best"), Run.load(folder / "tuned" / "defaults")
    assert (run.config, before.config) == (chosen, started)
    assert run.seeds == before.seeds == (101, 102)
    losses = [min(row.valid_loss for row in run.fitted(s).history) for s in run.seeds]
    assert validation["best"]["values"] == losses
    assert (validation["defaults"]["values"] == losses) == (chosen == started)
    assert content["metrics"]["best"]["test"] == run.metrics["test"]
    assert content["metrics"]["defaults"]["valid"] == before.metrics["valid"]

    # The same command again changes nothing; more trials go on.
    assert call(*words, "--trials", "3")[0] == out
    assert json.loads((folder / "tuned" / "tuning.json").read_text()) == content
    call(*words, "--trials", "4", "--seeds", "1")
    more = json.loads((folder / "tuned" / "tuning.json").read_text())
    assert more["trials"][:3] == content["trials"]
    assert [len(more["trials"]), more["fresh_seeds"]] == [4, [101]]
    assert Run.load(folder / "tuned" / "best").config == resolve_config(source="tuned/best.toml")


def test_two_workers_share_one_search(folder, call, small):
    words = ["planted.arrow", "--out", "tuned", "--seeds", "1", *small]
    out, _ = call(*words, "--trials", "3", "--workers", "2", "--set", "learning.epochs=1")
    content = json.loads((folder / "tuned" / "tuning.json").read_text())
    assert "trials: 3 complete" in out
    assert [trial["number"] for trial in content["trials"]] == [0, 1, 2]
    assert len({trial["params"]["learning.learning_rate"] for trial in content["trials"]}) == 3
    assert sorted(p.name for p in (folder / "tuned").iterdir()) == [
        *("best", "best.toml", "defaults", "report.html", "search.json", "study.log"),
        *("trials", "tuning.json"),
    ]


@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_toml_of_a_configuration_is_the_configuration(tmp_path, tiny_config, variant):
    config = tiny_config(
        'model.modalities=["text","vision"]', "learning.weight_decay=1e-5", model=variant
    )
    (tmp_path / "mine.toml").write_text(config_toml(config))
    assert resolve_config(source=tmp_path / "mine.toml") == config


def test_misspelt_model_and_counts_below_one(folder, call, tiny_config):
    with pytest.raises(ConfigError) as refused:
        call("planted.arrow", "--out", "tuned", "--model", "releasd")
    assert str(refused.value) == (
        "preset planted has 1 problem\n"
        '  model.name: unknown model "releasd"; did you mean "released"?'
    )
    for name in ("trials", "workers", "seeds"):
        with pytest.raises(UsageError) as caught:
            tune(open_corpus("planted.arrow"), tiny_config(), out=folder / "tuned", **{name: 0})
        assert str(caught.value) == f"{name} must be at least 1, got 0"
    assert not (folder / "tuned").exists()


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        app(["--help"])
    assert stop.value.code == 0
    assert "mmcl tune planted.arrow --out tuned/planted" in capsys.readouterr().out
