"""``mmcl train``, ``evaluate`` and ``predict`` as a user types them."""

import csv
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pyarrow.parquet as pq
import pytest

from mmcl.cli.main import app, main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.errors import ConfigError

COMMANDS = [[each.name] for each in app.registered_commands] + [
    [group.name, each.name or each.callback.__name__]
    for group in app.registered_groups
    for each in group.typer_instance.registered_commands
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_overrides):
    """A folder with a corpus, the same without labels, and a run of two seeds."""
    folder = tmp_path_factory.mktemp("commands")
    settings = PlantSettings(train=24, valid=8, test=8)
    card = plant_card(settings)
    write_corpus(folder / "planted.arrow", card, plant_clips(settings))
    bare = (clip.model_copy(update={"label": None}) for clip in plant_clips(settings))
    write_corpus(folder / "bare.arrow", card, bare)
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    corpus, out = str(folder / "planted.arrow"), str(folder / "run")
    assert main(["train", corpus, "--out", out, "--seeds", "1,2", *small]) == 0
    return folder


@pytest.fixture
def folder(shared, tmp_path, monkeypatch):
    """A folder of the test's own, from which the shared files can be named."""
    for path in shared.iterdir():
        os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(tiny_overrides):
    return [word for pair in tiny_overrides for word in ("--set", pair)]


# ---------------------------------------------------------------- train


def test_train_prints_a_table_and_where_it_is(folder, run, small):
    code, out, err = run("train", "planted.arrow", "--out", "new", *small)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].strip() == "calibrated on planted, 1 seed"
    assert lines[-1] == "new/metrics.json"
    assert re.search(r"│ mae +│ +\d\.\d{3} │ +\d\.\d{3} │", out)
    report = json.loads((folder / "new" / "metrics.json").read_text())
    assert report["seeds"] == [1]
    assert f"{report['test']['mae']['mean']:.3f}" in out
    assert sorted(os.listdir("new")) == [
        "metrics.json",
        "predictions.parquet",
        "run.json",
        "seed-1",
    ]


def test_train_takes_the_preset_of_the_corpus(folder, run, small):
    assert run("train", "planted.arrow", "--out", "new", *small)[0] == 0
    config = json.loads((folder / "new" / "run.json").read_text())["config"]
    assert config["learning"]["alignment_weight"] == 1.0  # of presets/planted.toml
    assert config["model"]["width"] == 8  # of --set


def test_train_takes_a_file_and_a_variant(folder, run, small):
    (folder / "mine.toml").write_text("[policy]\nreplay_capacity = 7\n")
    words = ("--config", "mine.toml", "--model", "released", "--seeds", "4,5")
    code, out, _ = run("train", "planted.arrow", "--out", "new", *words, *small)
    assert code == 0
    assert out.splitlines()[0].strip() == "released on planted, 2 seeds (mean ± s.d.)"
    description = json.loads((folder / "new" / "run.json").read_text())
    assert description["seeds"] == [4, 5]
    assert description["config"]["policy"]["replay_capacity"] == 7
    assert description["config"]["policy"]["kind"] == "ddpg"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(
            ["train", "planted.arrow", "--out", "new", "--model", "calibratd"],
            2,
            "ConfigError: preset planted has 1 problem\n"
            '  model.name: unknown model "calibratd"; did you mean "calibrated"?\n',
            id="model",
        ),
        pytest.param(
            ["train", "planted.arrow", "--out", "new", "--seeds", "1,x"],
            2,
            'UsageError: --seeds takes whole numbers as 1,2,3, got "1,x"\n',
            id="seeds",
        ),
        pytest.param(
            ["train", "planted.arrow", "--out", "new", "--seeds", "1,1"],
            2,
            "UsageError: seeds must be different whole numbers from 0 on, got [1, 1]\n",
            id="seeds-twice",
        ),
        pytest.param(
            ["train", "nothing.arrow", "--out", "new"],
            1,
            'DatasetError: nothing.arrow: no such file; did you mean "planted.arrow"?\n'
            "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
            "a table (csv, Parquet, Arrow) or .csd files.\n"
            "  Make one to try things on: mmcl corpus plant planted.arrow\n",
            id="no-corpus",
        ),
        pytest.param(
            [
                "train",
                "planted.arrow",
                "--out",
                "new",
                "--set",
                "train.lr=1",
                "--set",
                "model.dropout=1.5",
                "--set",
                "learning.lerning_rate=1",
            ],
            2,
            "ConfigError: preset planted has 3 problems\n"
            '  learning.lerning_rate: unknown key; did you mean "learning_rate"?\n'
            "  model.dropout: must be less than 1, got 1.5\n"
            "  train: unknown key\n",
            id="settings",
        ),
        pytest.param(
            ["train", "planted.arrow", "--out", "new", "--set", "model.width"],
            2,
            'ConfigError: --set takes section.key=value, got "model.width"\n',
            id="set",
        ),
        pytest.param(
            ["train", "planted.arrow", "--out", "new", "--config", "plantd"],
            2,
            'ConfigError: plantd: neither a file nor a preset; did you mean "planted"?\n'
            "  Presets: iemocap, mosei, mosi, planted, sims, video\n",
            id="config",
        ),
        pytest.param(
            ["predict", "run", "planted.arrow", "--out", "new.txt"],
            2,
            'UsageError: --out must end in .csv, .jsonl, .parquet, got "new.txt"\n',
            id="ending",
        ),
        pytest.param(
            ["evaluate", "nothing"],
            1,
            "RunError: nothing: no such run folder.\n  Make one: mmcl train CORPUS --out nothing\n",
            id="no-run",
        ),
        pytest.param(
            ["predict", "run", "nothing.arrow", "--out", "new.csv"],
            1,
            'DatasetError: nothing.arrow: no such file; did you mean "planted.arrow"?\n'
            "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
            "a table (csv, Parquet, Arrow) or .csd files.\n"
            "  Make one to try things on: mmcl corpus plant planted.arrow\n",
            id="predict-no-corpus",
        ),
    ],
)
def test_mistakes_are_named_and_nothing_is_left(folder, run, words, code, message):
    assert run(*words) == (code, "", message)
    assert not list(folder.glob("new*"))


def test_wrong_usage_is_told_by_the_parser(run):
    assert run("train") == (
        2,
        "",
        "Usage: mmcl train [OPTIONS] {CORPUS}\n"
        "Try 'mmcl train --help' for help.\n\n"
        "Error: Missing argument 'CORPUS'.\n",
    )


# ---------------------------------------------------------------- evaluate


def test_evaluate_shows_the_run(folder, run):
    code, out, err = run("evaluate", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].strip() == "calibrated on planted, 2 seeds (mean ± s.d.)"
    assert re.search(r"│ mae +│ +\d\.\d{3} ±", out)


@pytest.mark.parametrize("corpus", [[], ["--corpus", "planted.arrow"]])
def test_evaluate_as_json_is_metrics_json_and_nothing_else(folder, run, corpus):
    code, out, err = run("evaluate", "run", "--json", *corpus)
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((folder / "run" / "metrics.json").read_text())


def test_evaluate_on_another_corpus_is_another_result(folder, run):
    assert run("corpus", "plant", "other.arrow", "--train", 8, "--valid", 4, "--test", 4)[0] == 0
    before = (folder / "run" / "metrics.json").read_bytes()
    code, out, _ = run("evaluate", "run", "--corpus", "other.arrow", "--json")
    assert code == 0
    assert json.loads(out)["test"] != json.loads(before)["test"]
    assert (folder / "run" / "metrics.json").read_bytes() == before


# ---------------------------------------------------------------- predict


def _read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [
            {**row, "prediction": float(row["prediction"]), "spread": float(row["spread"])}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("corpus", ["planted", "bare"])
def test_predict_writes_a_row_per_clip(folder, run, ending, corpus):
    code, out, err = run("predict", "run", f"{corpus}.arrow", "--out", f"new.{ending}")
    assert (code, out, err) == (0, f"40 predictions in new.{ending}\n", "")
    rows = _read(folder / f"new.{ending}")
    assert [list(row) for row in rows] == [["id", "split", "prediction", "spread"]] * 40
    from mmcl.corpus.readers import read_corpus
    from mmcl.runs.run import Run

    assert rows == Run.load("run").predict(read_corpus("planted.arrow")).to_pylist()


def test_texts_stand_beside_their_predictions(folder, run):
    settings = PlantSettings(train=24, valid=8, test=8)
    clips = (
        clip.model_copy(update={"text": f"says {clip.id}" if number else None})
        for number, clip in enumerate(plant_clips(settings))
    )
    write_corpus(folder / "said.arrow", plant_card(settings), clips)
    code, _, err = run("predict", "run", "said.arrow", "--out", "new.csv", "--workers", "2")
    assert (code, err) == (0, "")
    with (folder / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["", *(f"says {row['id']}" for row in rows[1:])]


# ---------------------------------------------------------------- around the commands


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert "Examples:" in out
    assert f"mmcl {' '.join(command)}" in out.split("Examples:")[1]


def test_commands_scripts_rely_on_are_there():
    named = {" ".join(command) for command in COMMANDS}
    assert named >= {"train", "evaluate", "predict", "corpus convert", "corpus check"}
    assert named >= {"corpus describe", "corpus plant"}


def test_help_of_all(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 143 stopped by SIGTERM." in out


def test_version_and_short_help(run):
    assert run("--version") == (0, f"mmcl {metadata.version('mmcl')}\n", "")
    for words in ([], ["train"], ["corpus", "plant"]):
        assert run(*words, "-h") == run(*words, "--help")


@pytest.mark.parametrize("command", [["evaluate"], ["serve"], ["export"], ["push", "./new"]])
def test_recording_or_file_is_no_run(folder, run, command):
    (folder / "clip.mp4").touch()
    name, *others = command
    assert run(name, "clip.mp4", *others) == (
        1,
        "",
        "RunError: clip.mp4: a recording, not a run folder.\n"
        "  To predict it: mmcl predict clip.mp4\n",
    )
    assert run(name, "planted.arrow", *others) == (
        1,
        "",
        "RunError: planted.arrow: a file, not a run folder.\n"
        "  Expected the folder that mmcl train --out has made.\n",
    )


def test_corpus_without_labels_is_not_scored(folder, run):
    settings = PlantSettings(train=24, valid=8, test=8)
    unknown = {"label": None, "planted": None}
    clips = (clip.model_copy(update=unknown) for clip in plant_clips(settings))
    card = plant_card(settings).model_copy(update={"recipe": {}})
    write_corpus(folder / "new.arrow", card, clips)
    assert run("evaluate", "run", "--corpus", "new.arrow") == (
        1,
        "",
        "DatasetError: new.arrow: no clip in valid or test has a label, so there is nothing to "
        "score.\n  To predict its clips: mmcl predict run new.arrow --out scores.csv\n",
    )


def test_debug_shows_the_traceback(folder):
    with pytest.raises(ConfigError, match='unknown key; did you mean "model"'):
        main(["--debug", "train", "planted.arrow", "--out", "new", "--set", "modl.width=1"])


def test_interrupt_is_a_failure_without_a_traceback(folder, run, monkeypatch, small):
    from mmcl.runs import run as home

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(home, "fit", interrupt)
    assert run("train", "planted.arrow", "--out", "new", *small) == (
        1,
        "",
        "Stopped. To continue, give the same command again; mmcl train also needs --resume.\n",
    )
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run("train", "planted.arrow", "--out", "new", "--resume", *small)[0] == 0


# ---------------------------------------------------------------- folders of results


@pytest.mark.parametrize("command", ["train", "compare", "ablate", "tune"])
def test_corpus_that_cannot_be_learnt_from_leaves_no_folder(folder, run, command):
    (folder / "reviews.csv").write_text("text\na good film\na bad film\n")
    assert run(command, "reviews.csv", "--out", "new/run") == (
        1,
        "",
        'DatasetError: reviews.csv: not fit for training: no clip is in the split "train"; '
        'no clip is in the split "valid".\n'
        "  there are no labels and no column names the split: all clips are in test\n"
        "  Training learns from labelled clips in train, and chooses the epoch by those in "
        "valid.\n"
        '  A table needs a column "label", and either "split" (train, valid, test) or '
        '"video_id",\n'
        "  by which whole recordings are split.\n"
        "  See what there is: mmcl corpus describe reviews.csv\n",
    )
    code, _, err = run(command, "bare.arrow", "--out", "new/run")
    assert code == 1
    assert 'no clip of the split "train" has a label (clips: 24)' in err
    assert not (folder / "new").exists()


def test_failed_training_leaves_no_folder(folder, run, small):
    words = ("train", "planted.arrow", "--out", "new", *small)
    code, _, err = run(*words, "--set", "text.encoder=/nowhere")
    assert code == 1, err
    assert not (folder / "new").exists()
    assert run(*words)[0] == 0


@pytest.mark.parametrize(
    ("file", "kind", "commands"),
    [
        ("run.json", "a training run", ["compare", "ablate", "tune"]),
        ("comparison.json", "a comparison", ["train", "tune"]),
        ("search.json", "a search for settings", ["train", "compare", "ablate"]),
    ],
)
def test_results_of_two_commands_are_not_mixed(folder, run, file, kind, commands):
    (folder / "old").mkdir()
    (folder / "old" / file).write_text("{}")
    for command in commands:
        assert run(command, "planted.arrow", "--out", "old") == (
            1,
            "",
            f"RunError: old: holds {kind} already; nothing was changed.\n"
            "  Give a new folder: --out\n",
        )
    assert os.listdir(folder / "old") == [file]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP")
def test_waiting_threads_sleep(tmp_path):
    """OpenMP reads its variables when torch loads it: set later, its threads spin for nothing."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= {"OMP_DISPLAY_ENV": "verbose"}
    script = "import sys; from mmcl.cli.main import main; sys.exit(main())"
    corpus = ["corpus", "plant", "c.arrow", "--train", "8", "--valid", "4", "--test", "4"]
    said = []
    for words in (corpus, ["train", "c.arrow", "--out", "run", "--set", "learning.epochs=1"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env=environment,
            timeout=120,
            capture_output=True,
            text=True,
            check=True,
        )
        said += re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    assert said
    assert set(said) == {"0"}
