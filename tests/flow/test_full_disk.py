"""A disk that takes no more: every command says so, leaves no half a file, and goes on after.

The system's own limit on the size of a file (``ulimit -f``) stands for the full disk: a write
beyond it fails in the same places, and needs no disk of its own.
"""

import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus

TOO_LARGE = "the file is larger than is allowed here (File too large)."
GO_ON = "Allow larger files (ulimit -f), or use another disk, then give the same command again"
NOTHING_LEFT = "Nothing was left behind of this file; all others are kept."


@contextmanager
def files_of_at_most(num_bytes):
    """Let this process write no larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def half_written(folder):
    return [str(path) for path in Path(folder).rglob("*unfinished*")]


@pytest.fixture(scope="module")
def small(tiny_overrides):
    return [word for pair in tiny_overrides for word in ("--set", pair)]


@pytest.fixture(scope="module")
def home(tmp_path_factory, small):
    """A folder with a corpus and a run."""
    folder = tmp_path_factory.mktemp("full")
    settings = PlantSettings(train=24, valid=8, test=8)
    corpus = write_corpus(folder / "planted.arrow", plant_card(settings), plant_clips(settings))
    assert main(["train", str(corpus), "--out", str(folder / "run"), *small]) == 0
    return folder


@pytest.fixture
def call(capsys, monkeypatch, home):
    monkeypatch.chdir(home)

    def run(*words, most=None):
        capsys.readouterr()
        with files_of_at_most(resource.RLIM_INFINITY if most is None else most):
            code = main([str(word) for word in words])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("words", "most", "path"),
    [
        pytest.param("predict run planted.arrow --out {}/p.csv", 600, "p.csv", id="predict-csv"),
        pytest.param(
            "predict run planted.arrow --out {}/p.parquet", 600, "p.parquet", id="predict-parquet"
        ),
        pytest.param("explain run planted.arrow --out {}/e", 600, "e/clips.jsonl", id="explain"),
        pytest.param(
            "robustness run planted.arrow --out {}/r", 600, "r/robustness.json", id="robustness"
        ),
        pytest.param("corpus plant {}/q.arrow --train 64", 9_000, "q.arrow", id="plant"),
        pytest.param("report run --out {}/report.html", 9_000, "report.html", id="report"),
    ],
)
def test_writers_say_that_a_file_does_not_fit(call, tmp_path, words, most, path):
    code, err = call(*words.format(tmp_path).split(), most=most)
    assert err == f"DiskError: {tmp_path}/{path}: {TOO_LARGE}\n  {NOTHING_LEFT}\n  {GO_ON}.\n"
    assert code == 1
    assert not (tmp_path / path).exists()
    assert half_written(tmp_path) == []


def test_demo_says_that_it_starts_afresh(call, tmp_path):
    code, err = call("demo", "--quick", "--out", tmp_path / "d", most=9_000)
    assert err == (
        f"DiskError: {tmp_path}/d/planted.arrow: {TOO_LARGE}\n"
        "  The demo is not complete; the next one starts afresh.\n"
        f"  {GO_ON}.\n"
    )
    assert code == 1
    assert half_written(tmp_path) == []


def test_output_that_goes_to_a_full_disk_has_no_traceback(home):
    command = [sys.executable, "-m", "mmcl", "corpus", "describe", str(home / "planted.arrow")]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == (
        "DiskError: a file that was being written, or the output: the disk is full "
        f"(No space left on device).\n  {NOTHING_LEFT}\n"
        "  Free some space, then give the same command again.\n"
    )


# ---------------------------------------------------------------- trainings


def scores(folder):
    """Everything in metrics.json that is no speed."""
    report = json.loads((folder / "metrics.json").read_text())
    return {key: report[key] for key in ("valid", "test", "references", "seeds")}


def checkpoint_size(home):
    return (home / "run/seed-1/checkpoint.safetensors").stat().st_size


def test_training_goes_on_and_ends_as_if_nothing_had_been(call, home, tmp_path, small, monkeypatch):
    words = ["train", "planted.arrow", "--out", tmp_path / "again", *small]
    seed = tmp_path / "again" / "seed-1"

    # In the first epoch nothing fits.
    code, err = call(*words, most=checkpoint_size(home) // 2)
    assert err == (
        f"DiskError: {seed}/checkpoint.safetensors: {TOO_LARGE}\n"
        f"  The training in {seed} had not finished an epoch; it starts afresh.\n"
        f"  {GO_ON}; mmcl train also needs --out {tmp_path / 'again'} --resume.\n"
    )
    assert code == 1
    assert half_written(tmp_path) == []

    # All but the last file fits: the network is written last.
    from mmcl.learning import loop

    def only_once(path, state):
        if path.exists():
            with files_of_at_most(1000):
                original(path, state)
        original(path, state)

    original = loop.save_state
    monkeypatch.setattr(loop, "save_state", only_once)
    code, err = call(*words, "--resume")
    assert code == 1
    assert err.splitlines()[1:] == [
        f"  The training in {seed} is kept up to epoch 1.",
        f"  {GO_ON}.",
    ]
    monkeypatch.undo()
    monkeypatch.chdir(home)

    code, err = call(*words, "--resume")
    assert code == 0
    assert scores(tmp_path / "again") == scores(home / "run")
    ours, theirs = (
        pq.read_table(run / "predictions.parquet") for run in (tmp_path / "again", home / "run")
    )
    assert ours.equals(theirs)


def limited(home, most, *words):
    """Run a command in a process of its own, whose workers have the limit, too."""
    return subprocess.run(
        [sys.executable, "-m", "mmcl", *map(str, words)],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )


def test_comparison_says_what_its_trainings_met_and_goes_on(call, home, tmp_path, small):
    words = ["--models", "text_only", "--seeds", "1,2", "--workers", "1", *small]
    out, other = tmp_path / "compared", tmp_path / "undisturbed"

    done = limited(home, 20_000, "compare", "planted.arrow", "--out", out, *words)
    folder = f"{out}/models/text_only/seed-1"
    assert done.stderr == (
        f"DiskError: {folder}/checkpoint.safetensors: {TOO_LARGE}\n"
        f"  The training in {folder} had not finished an epoch; it starts afresh.\n"
        "  Of 2 trainings 0 had ended; all that is done is kept.\n"
        f"  {GO_ON}.\n"
    )
    assert done.returncode == 1
    assert half_written(tmp_path) == []

    for folder in (out, other):
        assert call("compare", "planted.arrow", "--out", folder, *words)[0] == 0
    ours, theirs = (json.loads((f / "comparison.json").read_text()) for f in (out, other))
    for key in ("tests", "best", "floor"):
        assert ours[key] == theirs[key]
    for row, same in zip(ours["rows"], theirs["rows"], strict=True):
        assert (row["test"], row["valid"]) == (same["test"], same["valid"])


def test_search_goes_on_after_the_file_that_did_not_fit(call, tmp_path, small):
    pytest.importorskip("optuna")
    words = ["tune", "planted.arrow", "--out", tmp_path / "tuned", "--trials", "2"]
    words += ["--seeds", "1", *small]
    code, err = call(*words, most=20_000)
    assert err == (
        f"DiskError: {tmp_path}/tuned/trials/0/checkpoint.safetensors: {TOO_LARGE}\n"
        f"  The trials that have ended are kept in {tmp_path}/tuned.\n"
        f"  {GO_ON}.\n"
    )
    assert code == 1
    assert half_written(tmp_path) == []

    code, err = call(*words)
    assert code == 0, err
    content = json.loads((tmp_path / "tuned" / "tuning.json").read_text())
    assert len(content["trials"]) == 2
