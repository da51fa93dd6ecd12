"""``mmcl compare`` and ``mmcl ablate`` as a user types them: what they train, keep and refuse."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmcl.cli.compare import _print_result
from mmcl.cli.main import main
from mmcl.cli.show import PlainConsole, format_summary
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import DatasetError, RunError, TrainingError
from mmcl.evaluation.planted import ROLE_METRICS
from mmcl.learning.fitted import DONE
from mmcl.learning.loop import build_model
from mmcl.runs import comparison
from mmcl.runs.ablation import ABLATIONS, ablation_entries
from mmcl.runs.comparison import Entry, compare, model_entries, prepare_corpus
from mmcl.runs.jobs import DIVERGED
from mmcl.runs.run import Run

LONGEST_WAIT = 120
SIZES = {"train": 24, "valid": 8, "test": 12}


def _plant(path, **changes):
    settings = PlantSettings(**SIZES | changes)
    return write_corpus(path, plant_card(settings), plant_clips(settings))


@pytest.fixture(scope="module")
def small(tiny_overrides):
    return [word for pair in tiny_overrides for word in ("--set", pair)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, small):
    """A finished comparison of two models over two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    _plant(folder / "planted.arrow")
    assert main(_words(folder, small)) == 0
    return folder


def _words(folder, small, *more):
    given = ("compare", folder / "planted.arrow", "--out", folder / "c", "--seeds", "2")
    return [str(word) for word in (*given, "--models", "calibrated,text_only", *small, *more)]


def _content(folder):
    return json.loads((folder / "c/comparison.json").read_text())


def test_comparison_has_every_row_and_every_test(compared):
    content = _content(compared)
    assert [row["name"] for row in content["rows"]] == [
        "calibrated",
        "text_only",
        "ridge",
        "majority",
        "constant",
    ]
    tested = ["mae", "corr", "acc2_non0", "acc7"]
    assert content["metrics"] == [*tested, *ROLE_METRICS]
    assert {test["metric"] for test in content["tests"]} == set(tested)
    pairs = {(test["name"], test["metric"]) for test in content["tests"]}
    assert len(pairs) == len(content["tests"]) == 4 * 4
    assert (content["seeds"], content["test_clips"]) == ([1, 2], 12)
    assert [row["seeds_done"] for row in content["rows"]] == [2, 2, 1, 1, 1]


def test_rows_are_the_runs_own_numbers(compared):
    for row in _content(compared)["rows"][:2]:
        run = Run.load(compared / "c/models" / row["name"])
        assert row["test"] == run.metrics["test"]
        assert row["cost"]["parameters"] == sum(p.numel() for p in run.model().parameters())
        assert row["cost"]["train_seconds"] > 0


def test_differences_are_those_of_the_means(compared):
    content = _content(compared)
    mean = {row["name"]: row["test"]["mae"]["mean"] for row in content["rows"]}
    for test in content["tests"]:
        if test["metric"] == "mae":
            expected = mean[test["name"]] - mean["calibrated"]
            np.testing.assert_allclose(test["difference"], expected, atol=1e-9)


def test_tables_say_what_the_file_says(compared):
    with (compared / "c/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = _content(compared)
    assert {row["model"] for row in rows} == {row["name"] for row in content["rows"]}
    for name in ("comparison.md", "comparison.tex"):
        text = (compared / "c" / name).read_text()
        assert all(
            row["name"].replace("_", "") in text.replace("\\_", "").replace("_", "")
            for row in content["rows"]
        )
    assert "calibrated" in (compared / "c/report.html").read_text()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_printed_numbers_are_never_cut(compared, capsys, monkeypatch, width):
    monkeypatch.setattr("mmcl.cli.show.console", PlainConsole(width=width))
    content = _content(compared)
    _print_result(content, compared / "c")
    out = capsys.readouterr().out
    for row in content["rows"]:
        for key in content["metrics"]:
            assert format_summary(row["test"].get(key)) in out
    tables = out.split("mean ± s.d.")[1:]
    assert "…" not in "".join(tables)
    assert len(tables) == 1 if width == 200 else len(tables) > 1


def test_table_of_one_seed_says_what_its_daggers_mean(compared, capsys):
    _print_result(_content(compared) | {"seeds": [1]}, compared / "c")
    out = " ".join(capsys.readouterr().out.split())
    assert "(bootstrap over clips, Holm, .05); another seed may differ: --seeds 5" in out
    assert "mean ± s.d." not in out
    _print_result(_content(compared), compared / "c")
    out = " ".join(capsys.readouterr().out.split())
    assert "(bootstrap over seeds and clips, Holm, .05)" in out
    assert "another seed" not in out
    assert "mean ± s.d." in out


def test_same_command_trains_nothing_again(compared, small, capsys):
    before = {path: path.stat().st_mtime_ns for path in (compared / "c").rglob(DONE)}
    content = _content(compared)
    assert len(before) == 4
    assert main(_words(compared, small)) == 0
    assert {path: path.stat().st_mtime_ns for path in (compared / "c").rglob(DONE)} == before
    again = _content(compared)
    for key in ("rows", "tests", "best", "floor"):
        assert again[key] == content[key]
    assert "calibrated" in capsys.readouterr().out


def test_killed_comparison_goes_on_with_what_is_left(tmp_path, small):
    _plant(tmp_path / "planted.arrow")
    words = [*_words(tmp_path, small), "--workers", "1", "--set", "learning.epochs=4"]
    command = [sys.executable, "-m", "mmcl.cli.main", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        finished = _wait_for(lambda: list((tmp_path / "c").rglob(DONE)))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(2)  # a training that lost its parent ends by itself
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob(DONE)}
    assert finished
    assert len(before) < 4
    assert main(words) == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob(DONE)}
    assert len(after) == 4
    assert before.items() <= after.items()
    assert [row["seeds_done"] for row in _content(tmp_path)["rows"][:2]] == [2, 2]


def _wait_for(found):
    end = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < end:
        if what := found():
            return what
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_seed_that_diverged_is_counted_and_not_averaged(tmp_path, tiny_config):
    path = _plant(tmp_path / "planted.arrow")
    calm, wild = tiny_config(), tiny_config("learning.learning_rate=1e30", "learning.clip_norm=0")
    entries = [Entry("calm", calm), Entry("wild", wild)]
    content = compare(path, entries, seeds=[1, 2], out=tmp_path / "c")
    rows = {row["name"]: row for row in content["rows"]}
    assert (rows["calm"]["seeds_done"], rows["wild"]["seeds_done"]) == (2, 0)
    assert list(rows["wild"]["diverged"]) == ["1", "2"]
    assert rows["wild"]["test"] == {}
    assert {test["name"] for test in content["tests"]} == {"ridge", "majority", "constant"}
    said = [note for note in content["notes"] if note.startswith("wild: seed ")]
    assert len(said) == 2
    assert "diverged and is in no mean (the " in said[0]


def test_reference_that_diverged_is_refused(tmp_path, tiny_config):
    path = _plant(tmp_path / "planted.arrow")
    wild = tiny_config("learning.learning_rate=1e30", "learning.clip_norm=0")
    with pytest.raises(TrainingError) as caught:
        compare(path, [Entry("wild", wild)], seeds=[1], out=tmp_path / "c")
    assert str(caught.value) == (
        "every seed of wild diverged, so the others cannot be compared with it.\n"
        "  Compare them with another row: --reference ridge"
    )


def test_one_seed_of_two_that_diverged_leaves_the_other(compared, tmp_path, small):
    source = tmp_path / "c"
    subprocess.run(["cp", "-r", compared / "c", source], check=True)
    _plant(tmp_path / "planted.arrow")
    place = source / "models/text_only/seed-2"
    for old in place.iterdir():
        subprocess.run(["rm", "-r", old], check=True)
    (place / DIVERGED).write_text('{"message": "the loss is nan at epoch 1, step 2."}')
    assert main(_words(tmp_path, small)) == 0
    row = next(row for row in _content(tmp_path)["rows"] if row["name"] == "text_only")
    full = next(row for row in _content(compared)["rows"] if row["name"] == "text_only")
    assert row["seeds_done"] == 1
    assert row["test"]["mae"]["values"] == full["test"]["mae"]["values"][:1]
    assert "1 of 2" in (source / "comparison.md").read_text()


def test_other_test_items_are_refused(compared, tmp_path, small):
    _plant(tmp_path / "planted.arrow", seed=9)
    subprocess.run(["cp", "-r", compared / "c", tmp_path / "c"], check=True)
    assert main(_words(tmp_path, small)) == 1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        pytest.param(
            ("--models", "calibrated,mlut"),
            2,
            'UsageError: --models: unknown model "mlut"; did you mean "mult"?\n  Models: ',
            id="model",
        ),
        pytest.param(
            ("--models", "text_only,text_only"),
            2,
            "UsageError: --models: a model is named twice: text_only, text_only\n",
            id="twice",
        ),
        pytest.param(
            ("--metrics", "mse"),
            2,
            'ConfigError: unknown metric "mse"; did you mean "mae"?\n'
            "  Metrics of this corpus: mae, corr, ",
            id="metric",
        ),
        pytest.param(
            ("--reference", "calibratd"),
            2,
            'UsageError: --reference: no row is called "calibratd"; did you mean "calibrated"?\n',
            id="reference",
        ),
        pytest.param(
            ("--models", "text_only", "--set", "model.options.widht=8"),
            2,
            "ConfigError: text_only: options of text_only have 1 problem\n"
            '  model.options.widht: unknown key; did you mean "width"?\n'
            "  Options of text_only: width, heads, layers, dropout\n",
            id="option",
        ),
        pytest.param(
            ("--seeds", "0"), 2, "UsageError: --seeds: at least one seed is needed, got 0\n", id="0"
        ),
    ],
)
def test_what_cannot_be_compared_is_said(compared, small, capsys, more, code, message):
    words = _words(compared, small)
    for option in [word for word in more if word.startswith("--") and word in words]:
        at = words.index(option)
        del words[at : at + 2]
    assert main([*words, *more]) == code
    assert capsys.readouterr().err.startswith(message)


def test_corpus_without_test_clips_is_refused(tmp_path, tiny_config):
    whole = open_corpus(_plant(tmp_path / "planted.arrow")).development()
    clips = [clip for name in ("train", "valid") for clip in whole.split(name).clips()]
    path = write_corpus(tmp_path / "bare.arrow", whole.card, clips)
    with pytest.raises(DatasetError) as caught:
        compare(path, [Entry("a", tiny_config())], seeds=[1], out=tmp_path / "c")
    assert str(caught.value) == (
        "planted: no test clips to compare on.\n  See what there is: mmcl corpus describe CORPUS"
    )
    assert not list((tmp_path / "c").rglob("seed-*"))


def test_every_model_means_those_the_corpus_has_modalities_for(tmp_path):
    card = plant_card(PlantSettings()).model_copy(update={"dims": {"audio": 4, "vision": 3}})
    entries, notes = model_entries([], card, source=None)
    names = [entry.name for entry in entries]
    assert names[:2] == ["calibrated", "released"]
    assert "text_only" not in names
    assert "audio_only" in names
    assert notes == ["text_only was left out: the corpus has none of its modalities"]


# ---------------------------------------------------------------- ablation


def test_every_ablation_is_another_network_or_another_training():
    card = plant_card(PlantSettings())
    entries = ablation_entries(card, source="planted")
    settings = [entry.config.model_dump_json() for entry in entries]
    assert len(set(settings)) == len(entries) == 1 + len(ABLATIONS) + 3 + 1
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(entry.question for entry in entries[1:])


def test_ablation_trains_and_scores_what_it_names(tmp_path, small):
    path = _plant(tmp_path / "planted.arrow")
    out = tmp_path / "c"
    words = ["ablate", path, "--out", out, "--seeds", "1", "--only", "no attention", *small]
    assert main([str(word) for word in words]) == 0
    content = _content(tmp_path)
    assert content["kind"] == "ablation"
    assert [row["name"] for row in content["rows"][:2]] == ["calibrated", "no attention"]
    assert content["rows"][1]["settings"] == ["model.attention=false"]
    plain, without = (Run.load(out / "models" / n).model() for n in ("calibrated", "no-attention"))
    assert plain.attention is not None
    assert without.attention is None


def test_ablation_without_a_modality_at_test_is_the_same_network(tmp_path, tiny_overrides):
    from mmcl.evaluation.moments import without_modality
    from mmcl.evaluation.protocol import judged_split
    from mmcl.learning.inference import score_split
    from mmcl.runs.ablation import modalities_left_out

    path = _plant(tmp_path / "planted.arrow")
    corpus = open_corpus(path)
    entries = ablation_entries(
        corpus.card, source=None, overrides=tiny_overrides, names=["no attention"]
    )
    rescored = modalities_left_out(entries[0].config, corpus.card)
    out = tmp_path / "c"
    content = compare(path, entries[:1], seeds=[1], out=out, kind="ablation", rescored=rescored)
    rows = {row["name"]: row for row in content["rows"]}
    names = [f"tested without {m}" for m in ("text", "audio", "vision")]
    assert [name for name in rows if name.startswith("tested")] == names
    split = without_modality(judged_split(corpus, "test"), "audio")
    scores = score_split(Run.load(out / "models/calibrated").model(), split).scores
    error = float(np.abs(scores - split.labels()).mean())
    np.testing.assert_allclose(
        rows["tested without audio"]["test"]["mae"]["mean"], error, rtol=1e-12
    )
    assert build_model(corpus.development(), entries[0].config).modalities == (
        "text",
        "audio",
        "vision",
    )


def test_unknown_ablation_is_refused(tmp_path, small, capsys):
    path = _plant(tmp_path / "planted.arrow")
    words = ["ablate", path, "--out", tmp_path / "c", "--only", "no atention", *small]
    assert main([str(word) for word in words]) == 2
    assert capsys.readouterr().err.startswith(
        'UsageError: --only: unknown ablation "no atention"; did you mean "no attention"?\n'
    )


@pytest.mark.parametrize("command", ["compare", "ablate"])
@pytest.mark.parametrize(("words", "engine"), [([], "local"), (["--engine", "ray"], "ray")])
def test_engine_is_the_one_that_was_asked_for(
    tmp_path, small, monkeypatch, capsys, command, words, engine
):
    def train_jobs(jobs, **options):
        raise TrainingError(f"{len(jobs)} of {options['workers']} by {options['engine']}")

    monkeypatch.setattr(comparison, "train_jobs", train_jobs)
    path = _plant(tmp_path / "planted.arrow")
    rows = {"compare": ["--models", "tfn,mult"], "ablate": ["--only", "no attention"]}[command]
    given = [command, path, "--out", tmp_path / "c", "--workers", "2", *rows, *small, *words]
    assert main([str(word) for word in given]) == 1
    assert capsys.readouterr().err == f"TrainingError: 6 of 2 by {engine}\n"


def test_foreign_file_is_converted_once_and_no_other_takes_its_place(tmp_path):
    sources = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for seed, source in enumerate(sources, start=1):
        draw = np.random.default_rng(seed)
        arrays = {}
        for split, count in SIZES.items():
            arrays[f"{split}/text"] = draw.normal(size=(count, 3, 4)).astype(np.float32)
            arrays[f"{split}/labels"] = draw.uniform(-3, 3, size=count)
        np.savez(source, **arrays)
    out = tmp_path / "c"
    corpus, kept = prepare_corpus(sources[0], out)
    before = kept.stat().st_mtime_ns
    assert prepare_corpus(sources[0], out)[0].checksum() == corpus.checksum()
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(RunError) as caught:
        prepare_corpus(sources[1], out)
    assert str(caught.value) == (
        f"{kept}: was converted from another file than {sources[1]}; nothing was changed.\n"
        "  Start another comparison: --out with a new folder"
    )
    sources[0].unlink()
    with pytest.raises(DatasetError):
        prepare_corpus(sources[0], out)
