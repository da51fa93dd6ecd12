"""A run that is killed and resumed ends bit for bit where one that was left alone ends.

The killed runs are real processes, and SIGKILL is what stops them: at a moment of its own
in the middle of an epoch, and again, after a first resume, at one drawn at random.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.learning.checkpoints import load_state
from mmcl.runs import jobs
from mmcl.runs.jobs import _train_job as jobs_train

EPOCHS = 16
SMALL = {
    "model.width": 8,
    "model.heads": 2,
    "model.inner_width": 8,
    "model.dropout": 0.1,
    "learning.epochs": EPOCHS,
    "learning.patience": EPOCHS,
    "learning.batch_size": 3,
    "learning.modality_dropout": 0.2,
    "runtime.threads": 1,
}
TIMED = ("clips_per_second",)
LONGEST_WAIT = 120


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corpus(folder):
    return _plant(folder / "planted.arrow", train=24)


def _plant(path, **counts):
    settings = PlantSettings(valid=8, test=8, **counts)
    return write_corpus(path, plant_card(settings), plant_clips(settings))


def _words(corpus, out, *more, **settings):
    changed = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    pairs = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
    return ["train", str(corpus), "--out", str(out), *pairs, *more]


def _train(*given, **settings):
    assert main(_words(*given, **settings)) == 0


class _Process:
    """``mmcl train`` as a process of its own."""

    def __init__(self, words):
        command = [sys.executable, "-m", "mmcl.cli.main", *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_until(self, happened):
        end = time.monotonic() + LONGEST_WAIT
        while not happened():
            assert self.process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, "it never came so far"
            time.sleep(0.002)

    def kill(self):
        self.process.kill()
        assert self.process.wait(timeout=LONGEST_WAIT) == -signal.SIGKILL


def _history(run, seed):
    with (run / f"seed-{seed}" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: text for key, text in row.items() if key not in TIMED} for row in rows]


def _model(run, seed):
    return (run / f"seed-{seed}" / "model" / "model.safetensors").read_bytes()


def _contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _epochs_done(run):
    return len(load_state(run / "seed-7" / "checkpoint.safetensors")["history"])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_and_resumed_ends_as_if_never_killed(folder, corpus):
    # A critic and its memory: test_processes.py. The gate: side by side, below.
    asked = {"policy__kind": "rloo"}
    given = ("--seeds", "7")
    whole, killed = folder / "whole", folder / "killed"
    checkpoint, done = killed / "seed-7/checkpoint.safetensors", killed / "seed-7/done.json"

    started = time.monotonic()
    _train(corpus, whole, *given, **asked)
    an_epoch = (time.monotonic() - started) / EPOCHS

    first = _Process(_words(corpus, killed, *given, **asked))
    first.wait_until(checkpoint.exists)
    time.sleep(an_epoch / 2)  # the next epoch is under way
    first.kill()
    before = _epochs_done(killed)
    assert 1 <= before < EPOCHS
    assert not done.exists()

    again = _Process(_words(corpus, killed, *given, "--resume", **asked))
    written = checkpoint.stat().st_mtime_ns
    again.wait_until(lambda: checkpoint.stat().st_mtime_ns > written)
    time.sleep(random.SystemRandom().uniform(0, 3 * an_epoch))
    again.kill()
    assert before < _epochs_done(killed) < EPOCHS
    assert not done.exists()

    _train(corpus, killed, *given, "--resume", **asked)

    assert _model(killed, 7) == _model(whole, 7)
    assert _history(killed, 7) == _history(whole, 7)
    assert len(_history(whole, 7)) == EPOCHS
    assert pq.read_table(killed / "predictions.parquet").equals(
        pq.read_table(whole / "predictions.parquet")
    )
    reports = [json.loads((run / "metrics.json").read_text()) for run in (killed, whole)]
    for report in reports:
        del report["training"]["clips_per_second"], report["training"]["seconds"]
    assert reports[0] == reports[1]


def test_killed_before_the_first_checkpoint_starts_again(folder, corpus):
    given = ("--seeds", "7")
    _train(corpus, folder / "whole", *given, learning__epochs=2)
    started = folder / "started"
    shutil.copytree(folder / "whole", started)
    shutil.rmtree(started / "seed-7")
    (started / "metrics.json").unlink()

    _train(corpus, started, *given, "--resume", learning__epochs=2)

    assert _model(started, 7) == _model(folder / "whole", 7)


def test_killed_between_the_last_epoch_and_the_end_is_finished(folder, corpus):
    given = ("--seeds", "7")
    run = folder / "run"
    _train(corpus, run, *given, learning__epochs=2)
    model, history = _model(run, 7), _history(run, 7)
    shutil.rmtree(run / "seed-7" / "model")
    for name in ("seed-7/done.json", "seed-7/history.csv", "metrics.json", "predictions.parquet"):
        (run / name).unlink()

    _train(corpus, run, *given, "--resume", learning__epochs=2)

    assert (_model(run, 7), _history(run, 7)) == (model, history)
    assert (run / "metrics.json").exists()
    assert (run / "predictions.parquet").exists()


# ---------------------------------------------------------------- seeds side by side


def _files(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def test_seeds_side_by_side_are_those_one_after_the_other(folder, corpus, capsys):
    for name, workers in (("one", "1"), ("two", "2")):
        _train(corpus, folder / name, "--seeds", "1,2", "--workers", workers, learning__epochs=2)
        lines = capsys.readouterr().err.splitlines()
        ends = [f"seed {n}: best validation loss " for n in (1, 2)] if workers == "2" else []
        assert sorted(line.rpartition(" ")[0] + " " for line in lines) == ends
    one, two = folder / "one", folder / "two"
    assert _files(two) == _files(one)
    for seed in (1, 2):
        assert _model(two, seed) == _model(one, seed)
        assert _history(two, seed) == _history(one, seed)
    assert (two / "predictions.parquet").read_bytes() == (one / "predictions.parquet").read_bytes()


def test_seeds_side_by_side_killed_and_resumed(folder, corpus):
    given = ("--seeds", "7,8", "--workers", "2")
    killed, whole = folder / "killed", folder / "whole"
    checkpoints = [killed / f"seed-{seed}" / "checkpoint.safetensors" for seed in (7, 8)]
    process = _Process(_words(corpus, killed, *given, learning__epochs=10))
    process.wait_until(lambda: all(path.exists() for path in checkpoints))
    process.kill()
    _wait_until_quiet(killed)
    assert not any((killed / f"seed-{seed}" / "done.json").exists() for seed in (7, 8))

    _train(corpus, killed, *given, "--resume", learning__epochs=10)

    _train(corpus, whole, *given, learning__epochs=10)
    for seed in (7, 8):
        assert _model(killed, seed) == _model(whole, seed)
        assert _history(killed, seed) == _history(whole, seed)
    assert pq.read_table(killed / "predictions.parquet").equals(
        pq.read_table(whole / "predictions.parquet")
    )
    assert [path for path in killed.rglob(".*") if path.is_file()] == []  # nothing half written


def _wait_until_quiet(run):
    """Nobody trains on: the workers end with the process that began them."""
    end = time.monotonic() + LONGEST_WAIT
    before = None
    while before != (now := {p: p.stat().st_mtime_ns for p in run.rglob("checkpoint.*")}):
        assert time.monotonic() < end
        before = now
        time.sleep(1)


def _die_of_seed_2(for_comparison, over_machines, job, threads):
    if job.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    jobs_train(for_comparison, over_machines, job, threads)


def test_seed_whose_process_dies_says_so_and_goes_on_with_resume(
    folder, corpus, monkeypatch, capsys
):
    words = _words(corpus, "run", "--seeds", "1,2", "--workers", "2", learning__epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_train_job", _die_of_seed_2)
        assert main(words) == 1
    assert capsys.readouterr().err.endswith(
        "TrainingError: 1 of 2 trainings died before they ended; the others are done.\n"
        "  run/seed-2: its process died (signal SIGKILL; memory may have run out)\n"
        "  Continue with fewer at a time: the same command with --workers 1, "
        "mmcl train also with --resume\n"
    )
    done = (folder / "run/seed-1/done.json").stat().st_mtime_ns
    assert main([*words, "--resume"]) == 0
    assert (folder / "run/seed-1/done.json").stat().st_mtime_ns == done
    assert json.loads((folder / "run/metrics.json").read_text())["seeds"] == [1, 2]


@pytest.fixture
def finished(folder, corpus, capsys):
    run = folder / "run"
    _train(corpus, run, "--seeds", "1,2", "--workers", "1", learning__epochs=1)
    capsys.readouterr()
    return run


def _refused(capsys, words):
    code = main(words)
    printed = capsys.readouterr()
    assert (code, printed.out) == (1, "")
    return printed.err


def test_an_existing_run_is_not_trained_over(corpus, finished, capsys):
    before = _contents(finished)
    assert _refused(capsys, _words(corpus, "run", learning__epochs=1)) == (
        "RunError: run: holds a run already; nothing was changed.\n"
        "  Continue it: --resume\n"
        "  Start another: --out with a new folder\n"
    )
    assert _contents(finished) == before


def test_resume_refuses_other_settings(corpus, finished, capsys):
    before = _contents(finished)
    assert _refused(capsys, _words(corpus, "run", "--resume", learning__epochs=2)) == (
        "RunError: run: was started with other settings; nothing was changed.\n"
        "  Its settings: run/run.json\n"
        "  Start another: --out with a new folder\n"
    )
    assert _contents(finished) == before


def test_a_run_of_an_earlier_version_is_gone_on_with(corpus, finished):
    run = finished / "run.json"
    description = json.loads(run.read_text())
    runtime = description["config"]["runtime"]
    runtime["processes"] = runtime.pop("devices")  # its name before
    run.write_text(json.dumps(description))
    assert main(_words(corpus, "run", "--resume", learning__epochs=1)) == 0


def test_resume_refuses_another_corpus(folder, finished, capsys):
    other = _plant(folder / "other.arrow", train=25)
    before = _contents(finished)
    assert _refused(capsys, _words(other, "run", "--resume", learning__epochs=1)) == (
        "RunError: run: was started with another corpus; nothing was changed.\n"
        "  Its settings: run/run.json\n"
        "  Start another: --out with a new folder\n"
    )
    assert _contents(finished) == before


def test_resume_refuses_a_damaged_checkpoint(corpus, finished, capsys):
    path = finished / "seed-2" / "checkpoint.safetensors"
    (finished / "seed-2" / "done.json").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    message = _refused(
        capsys, _words(corpus, "run", "--resume", "--seeds", "1,2", learning__epochs=1)
    )
    assert "RunError: run/seed-2/checkpoint.safetensors: not a readable " in message
    assert message.endswith("\n  Remove it and start again without --resume.\n")


def test_finished_seeds_are_not_trained_again_and_new_ones_are(corpus, finished):
    names = ("checkpoint.safetensors", "history.csv", "done.json", "model/model.safetensors")
    files = [finished / f"seed-{seed}" / name for seed in (1, 2) for name in names]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    alone = finished.parent / "alone"
    _train(corpus, alone, "--seeds", "5", learning__epochs=1)

    _train(corpus, finished, "--resume", "--seeds", "1,2,5", learning__epochs=1)

    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    assert _model(finished, 5) == _model(alone, 5)
    report = json.loads((finished / "metrics.json").read_text())
    assert report["seeds"] == [1, 2, 5]
    assert len(report["test"]["mae"]["values"]) == 3
    table = pq.read_table(finished / "predictions.parquet")
    assert sorted(set(table.column("seed").to_pylist())) == [1, 2, 5]


def test_a_run_with_a_seed_missing_does_not_open(corpus, finished, capsys):
    os.remove(finished / "seed-2" / "done.json")
    assert _refused(capsys, ["evaluate", "run"]) == (
        "RunError: run: seeds [2] of [1, 2] have not finished training.\n"
        "  Continue it: the same mmcl train command with --resume\n"
    )


def test_a_run_that_was_not_scored_does_not_show_metrics(finished, capsys):
    os.remove(finished / "metrics.json")
    assert _refused(capsys, ["evaluate", "run"]) == (
        "RunError: run: trained, but not scored yet (no metrics.json in it).\n"
        "  Continue it: the same mmcl train command with --resume\n"
    )
