"""``mmcl train`` by two processes: started by itself, and by torchrun."""

import json
import os
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.runs.run import Run

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")

SMALL = (
    "model.width=8",
    "model.heads=2",
    "model.inner_width=8",
    "learning.epochs=2",
    "learning.batch_size=5",
    "runtime.threads=1",
)
ENDLESS = ("--set", "learning.patience=5000")
TIMED = ("clips_per_second", "seconds")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    settings = PlantSettings(train=24, valid=7, test=9)
    path = tmp_path_factory.mktemp("corpus") / "planted.arrow"
    return write_corpus(path, plant_card(settings), plant_clips(settings))


def _words(corpus, out, *more):
    pairs = [word for setting in (*SMALL, *more) for word in ("--set", setting)]
    return ["train", str(corpus), "--out", str(out), "--seeds", "1,2", *pairs]


def _torchrun(corpus, out, *more):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *command, "-m", "mmcl", *_words(corpus, out, *more)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_those_that_train_end_with_the_one_that_asked(corpus, tmp_path):
    words = _words(corpus, tmp_path / "run", "runtime.processes=2", "learning.epochs=5000")
    command = [sys.executable, "-m", "mmcl", *words, *ENDLESS]
    asked = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "run/seed-1/history.csv"
    try:
        _wait_until(history.exists)
    finally:
        asked.kill()
        _, said = asked.communicate(timeout=30)  # returns when nobody can say more
    assert "distributed" not in said
    assert "leaked" not in said
    assert not (tmp_path / "run/seed-1/done.json").exists()


SCRIPT = """
import mmcl
from mmcl.config import resolve_config

config = resolve_config(overrides={settings})
mmcl.train(mmcl.load_corpus("{corpus}"), config, out="{out}")
"""


def test_script_that_would_start_itself_again_is_told_so(corpus, tmp_path):
    settings = [*SMALL, "runtime.processes=2"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(settings=settings, corpus=corpus, out=tmp_path / "run"))
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    said = [  # of whichever of the two was seen to end first
        f"mmcl.errors.TrainingError: process {number} of 2 could not start (exit code 1); what it "
        "said of it stands above.\n"
        '  A script that starts processes needs: if __name__ == "__main__":\n'
        for number in (1, 2)
    ]
    assert done.stderr.endswith(tuple(said))


def _wait_until(happened):
    end = time.monotonic() + 180
    while not happened():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.01)


def _report(run):
    report = json.loads((run / "metrics.json").read_text())
    for key in TIMED:
        del report["training"][key]
    return report


def _scores(run):
    return pq.read_table(run / "predictions.parquet").column("prediction").to_pylist()


@pytest.fixture(scope="module")
def together(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("together") / "run"
    assert main(_words(corpus, out, "runtime.processes=2")) == 0
    return out


def test_run_of_two_processes_is_the_run_of_one(corpus, together, tmp_path):
    assert main(_words(corpus, tmp_path / "one")) == 0
    files = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        for run in (together, tmp_path / "one")
    ]
    assert files[0] == files[1]
    # Twenty steps of training apart by rounding: scores are about 1.
    assert _scores(together) == pytest.approx(_scores(tmp_path / "one"), abs=1e-4)
    assert Run.load(together).config.runtime.processes == 2


def test_torchrun_gives_the_same_run(corpus, together, tmp_path):
    done = _torchrun(corpus, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("metrics.json") == 1  # one of them speaks
    for seed in (1, 2):
        weights = f"seed-{seed}/model/model.safetensors"
        assert (tmp_path / "run" / weights).read_bytes() == (together / weights).read_bytes()
    assert _report(tmp_path / "run") == _report(together)
    run = [json.loads((each / "run.json").read_text()) for each in (tmp_path / "run", together)]
    assert run[0] == run[1]


def test_torchrun_and_another_number_of_processes_are_refused(corpus, tmp_path):
    done = _torchrun(corpus, tmp_path / "run", "runtime.processes=3")
    assert done.returncode == 1
    assert (
        "ConfigError: runtime.processes is 3, but torchrun started 2 processes\n"
        "  Leave it to torchrun: without --set runtime.processes\n"
    ) in done.stderr
    assert not (tmp_path / "run").exists()
