"""``mmcl train`` by two processes: started by Fabric, and by torchrun."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mmcl.config import model_names
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.learning.history import read_history
from mmcl.learning.inference import targets_of, validation_loss
from mmcl.runs.run import Run

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")

SMALL = (
    "model.width=8",
    "model.heads=2",
    "model.inner_width=8",
    "learning.epochs=3",
    "learning.patience=5000",
    "learning.batch_size=5",
    "runtime.threads=1",
)
EVERY_MODEL = Path(__file__).parents[1] / "fakes" / "train_every_model.py"
TIMED = ("clips_per_second", "seconds")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    # Odd numbers of clips: the processes never have equal shares of them.
    settings = PlantSettings(train=23, valid=7, test=9)
    path = tmp_path_factory.mktemp("corpus") / "planted.arrow"
    return write_corpus(path, plant_card(settings), plant_clips(settings))


def command_of(corpus, out, *settings, seeds="1,2"):
    pairs = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    return ["train", str(corpus), "--out", str(out), "--seeds", seeds, *pairs]


def run_python(*words, timeout=120):
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def torchrun(*words):
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return run_python(*start, "-m", "mmcl", *words)


@pytest.fixture(scope="module")
def together(corpus, tmp_path_factory):
    """A run of two processes that Fabric started, and what was printed."""
    out = tmp_path_factory.mktemp("together") / "run"
    done = run_python("-m", "mmcl", *command_of(corpus, out, "runtime.devices=2"))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def weights_of(run, seed):
    return (run / f"seed-{seed}/model/model.safetensors").read_bytes()


def test_run_of_two_processes_has_the_files_of_a_run_of_one(corpus, together, tmp_path):
    out, printed = together
    assert printed.count("metrics.json") == 1  # one of them speaks
    done = run_python("-m", "mmcl", *command_of(corpus, tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    files = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        for run in (out, tmp_path / "one")
    ]
    assert files[0] == files[1]
    assert Run.load(out).config.runtime.devices == 2
    predictions = pq.read_table(out / "predictions.parquet")
    assert predictions.num_rows == 2 * (7 + 9)  # two seeds; every clip once
    assert [len(Run.load(out).fitted(seed).history) for seed in (1, 2)] == [3, 3]


def test_validation_loss_is_that_of_the_network_that_is_kept(corpus, together):
    out, _ = together
    valid = open_corpus(corpus).split("valid")
    for seed in (1, 2):
        fitted = Run.load(out).fitted(seed)
        loss = validation_loss(
            fitted.model, valid, np.arange(len(valid)), targets_of(valid), batch_size=4
        )
        # Two sums of float32 losses, padded otherwise.
        assert fitted.history[fitted.best_epoch].valid_loss == pytest.approx(loss, abs=1e-6)


def test_torchrun_gives_the_same_run(corpus, together, tmp_path):
    # The same seed and the same number of processes: the same run, whoever started them.
    out, _ = together
    done = torchrun(*command_of(corpus, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("metrics.json") == 1
    for seed in (1, 2):
        assert weights_of(tmp_path / "run", seed) == weights_of(out, seed)
    reports = []
    for run in (tmp_path / "run", out):
        report = json.loads((run / "metrics.json").read_text())
        for key in TIMED:
            del report["training"][key]
        reports.append(report)
    assert reports[0] == reports[1]


def test_torchrun_and_another_number_of_devices_are_refused(corpus, tmp_path):
    done = torchrun(*command_of(corpus, tmp_path / "run", "runtime.devices=3"))
    assert done.returncode == 1
    assert (
        "ConfigError: runtime.devices is 3, but torchrun started 2 processes\n"
        "  Leave it to torchrun: without --set runtime.devices\n"
    ) in done.stderr
    assert not (tmp_path / "run").exists()


def test_killed_training_leaves_no_process_and_goes_on_bit_for_bit(corpus, tmp_path):
    # released has a critic: its processes differ in their memories, too.
    settings = ("runtime.devices=2", "learning.epochs=12", "model.name=released")
    whole = run_python("-m", "mmcl", *command_of(corpus, tmp_path / "whole", *settings, seeds="1"))
    assert whole.returncode == 0, whole.stderr

    words = command_of(corpus, tmp_path / "cut", *settings, seeds="1")
    started = subprocess.Popen([sys.executable, "-m", "mmcl", *words], stderr=subprocess.PIPE)
    wait_until((tmp_path / "cut/seed-1/history.csv").exists)
    started.kill()
    started.communicate(timeout=60)  # returns when the last process that can write has ended
    assert not (tmp_path / "cut/seed-1/done.json").exists()

    done = run_python("-m", "mmcl", *words, "--resume")
    assert done.returncode == 0, done.stderr
    ends = [
        load_file(tmp_path / run / "seed-1/model/model.safetensors") for run in ("whole", "cut")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    # The losses of the critic show its targets, too.
    histories = [read_history(tmp_path / run / "seed-1") for run in ("whole", "cut")]
    for rows in zip(*histories, strict=True):
        first, second = (str(row._replace(clips_per_second=0.0)) for row in rows)
        assert first == second


def test_what_the_first_process_refuses_is_said_once(corpus, together):
    out, _ = together
    done = run_python("-m", "mmcl", *command_of(corpus, out, "runtime.devices=2"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"RunError: {out}: holds a run already; nothing was changed.") == 1


def test_process_ends_when_the_first_one_is_killed_while_they_start(corpus, tmp_path):
    words = command_of(corpus, tmp_path / "run", "runtime.devices=2", seeds="1")
    started = subprocess.Popen([sys.executable, "-m", "mmcl", *words], stderr=subprocess.PIPE)
    wait_until(lambda: second_process_has_started(started.pid))
    # The second process is still importing: it does not watch yet.
    started.kill()
    started.communicate(timeout=60)  # returns when the last process that can write has ended


def second_process_has_started(first):
    """Return True once Fabric has started it; the first process may have other children before."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    for child in children:
        with suppress(OSError):  # it has ended
            if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                return True
    return False


def wait_until(happened):
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.01)


def test_every_model_can_be_trained_by_two_processes(corpus, tmp_path):
    done = run_python(str(EVERY_MODEL), str(corpus), str(tmp_path), timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in model_names():
        assert Run.load(tmp_path / name).metrics["test"]["mae"]["mean"] > 0, name
