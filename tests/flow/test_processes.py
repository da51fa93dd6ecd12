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

from mmcl.cli.main import main
from mmcl.config import model_names
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.learning.history import read_history
from mmcl.learning.inference import targets_of, validation_loss
from mmcl.runs.run import Run

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")

EPOCHS = 12
SMALL = (
    "model.name=released",  # it has a critic: its processes differ in their memories, too
    "model.width=8",
    "model.heads=2",
    "model.inner_width=8",
    "policy.replay_capacity=50",  # full before the end
    f"learning.epochs={EPOCHS}",
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


def command_of(corpus, out, *settings):
    pairs = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    return ["train", str(corpus), "--out", str(out), *pairs]


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


def weights_of(run):
    return (run / "seed-1/model/model.safetensors").read_bytes()


def test_run_of_two_processes_has_the_files_of_a_run_of_one(corpus, together, tmp_path):
    out, printed = together
    assert printed.count("metrics.json") == 1  # one of them speaks
    assert main(command_of(corpus, tmp_path / "one")) == 0
    files = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        for run in (out, tmp_path / "one")
    ]
    assert files[0] == files[1]
    assert Run.load(out).config.runtime.devices == 2
    predictions = pq.read_table(out / "predictions.parquet")
    assert predictions.num_rows == 7 + 9  # every clip once
    assert len(Run.load(out).fitted(1).history) == EPOCHS


def test_validation_loss_is_that_of_the_network_that_is_kept(corpus, together):
    out, _ = together
    valid = open_corpus(corpus).split("valid")
    fitted = Run.load(out).fitted(1)
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
    assert weights_of(tmp_path / "run") == weights_of(out)
    reports = []
    for run in (tmp_path / "run", out):
        report = json.loads((run / "metrics.json").read_text())
        for key in TIMED:
            del report["training"][key]
        reports.append(report)
    assert reports[0] == reports[1]


def test_torchrun_and_another_number_of_devices_are_refused(corpus, tmp_path, monkeypatch, capsys):
    of_torchrun = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in of_torchrun.items():
        monkeypatch.setenv(name, value)
    assert main(command_of(corpus, tmp_path / "run", "runtime.devices=3")) == 2
    assert capsys.readouterr().err == (
        "ConfigError: runtime.devices is 3, but torchrun started 2 processes\n"
        "  Leave it to torchrun: without --set runtime.devices\n"
    )
    assert not (tmp_path / "run").exists()


def test_killed_training_leaves_no_process_and_goes_on_bit_for_bit(corpus, together, tmp_path):
    whole, cut = together[0], tmp_path / "cut"
    words = command_of(corpus, cut, "runtime.devices=2")
    started = subprocess.Popen([sys.executable, "-m", "mmcl", *words], stderr=subprocess.PIPE)
    wait_until((cut / "seed-1/history.csv").exists)
    started.kill()
    started.communicate(timeout=60)  # returns when the last process that can write has ended
    assert not (cut / "seed-1/done.json").exists()

    done = run_python("-m", "mmcl", *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights_of(cut) == weights_of(whole)
    # The losses of the critic show its targets, too.
    histories = [read_history(run / "seed-1") for run in (whole, cut)]
    for rows in zip(*histories, strict=True):
        first, second = (str(row._replace(clips_per_second=0.0)) for row in rows)
        assert first == second


def test_process_ends_when_the_first_one_is_killed_while_they_start(corpus, tmp_path):
    words = command_of(corpus, tmp_path / "run", "runtime.devices=2")
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


def test_every_model_is_trained_by_two_processes_and_a_refusal_is_said_once(corpus, tmp_path):
    done = run_python(str(EVERY_MODEL), str(corpus), str(tmp_path), timeout=250)
    last = tmp_path / model_names()[-1]
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"RunError: {last}: holds a run already; nothing was changed.") == 1
    for name in model_names():
        assert Run.load(tmp_path / name).metrics["test"]["mae"]["mean"] > 0, name
