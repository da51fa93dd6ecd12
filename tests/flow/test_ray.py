"""Ray itself: the rows of one process from two, whatever dies on the way."""

import csv
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fakes.extractors import FakeExtractor
from fakes.tasks import fail, scale
from mmcl import pool_ray
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import DatasetError
from mmcl.learning.loop import fit
from mmcl.media import batch
from mmcl.media.folders.gather import gather
from mmcl.media.recipe import Recipe
from mmcl.pool import run_tasks
from mmcl.runs.jobs import Job, train_jobs
from mmcl.runs.prediction_blocks import predict_in_blocks
from mmcl.runs.run import Run, train

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: mmcl[scale]"),
    pytest.mark.timeout(600),
]
LONGEST_WAIT = 300


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    """Ray with two cores; its processes find what the tests import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        with pool_ray._session(pool_ray._load_ray(), 2):
            yield


def _busy(name):
    """Processes of our own Ray that are at a task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if title.startswith(f"ray::{name}".encode()) and _is_below_us(int(folder.name)):
            found.append(int(folder.name))
    return found


def _is_below_us(pid):
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return False


def _kill_busy(name):
    deadline = time.monotonic() + LONGEST_WAIT
    while not (pids := _busy(name)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- extract


def test_extraction_is_that_of_one_process_though_a_worker_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "with_versions", lambda recipe: recipe)
    monkeypatch.setattr(pool_ray, "TRIES", 2)  # each is a process that imports all anew
    folder = tmp_path / "src"
    folder.mkdir()
    said = {"a": "first of all", "b": "yes no\nwell then so", "c": "text", "d": "so", "x": "die"}
    for name, text in said.items():
        (folder / f"{name}.mp4").write_text(text)
    gathered = gather([folder])
    options = {"max_failures": 0.5, "name": "talks", "make": FakeExtractor}
    here = batch.extract_batch(gathered, tmp_path / "here.arrow", Recipe(), **options)
    (folder / "calls.log").unlink()
    (folder / "a.mp4").write_text("stall")

    def kill(done, total, failed):
        if done == total - 1:  # all but the one that stalls
            _kill_busy("extract")
            (folder / "a.mp4").write_text(said["a"])

    monkeypatch.chdir(tmp_path)
    there = batch.extract_batch(
        gather([Path("src")]),
        Path("there.arrow"),
        Recipe(),
        workers=2,
        engine="ray",
        progress=kill,
        **options,
    )

    assert there.card == here.card
    assert open_corpus("there.arrow").checksum() == open_corpus("here.arrow").checksum()
    assert [failure.item for failure in there.failures] == ["x.mp4"]
    assert there.failures[0].cause == "its process died 2 times; memory may have run out"
    calls = sorted((folder / "calls.log").read_text().split())
    assert calls == ["a.mp4"] * 2 + ["b.mp4", "c.mp4", "d.mp4"] + ["x.mp4"] * 2


# ---------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def run_folder(tiny_settings, tiny_config, tmp_path_factory):
    """A run of two seeds that predicts four clips at a time, beside its corpus."""
    folder = tmp_path_factory.mktemp("predict")
    path = write_corpus(
        folder / "tiny.arrow", plant_card(tiny_settings), plant_clips(tiny_settings)
    )
    config = tiny_config("evaluation.batch_size=4")
    train(open_corpus(path), config, out=folder / "run", seeds=(1, 2))
    return folder


def test_prediction_is_that_of_one_process_though_a_worker_is_killed(run_folder):
    run, path = Run.load(run_folder / "run"), run_folder / "tiny.arrow"
    corpus = open_corpus(path)
    killed, told = [], []

    def kill(clips):
        told.append(clips)
        if not killed:
            killed.extend(_busy("score_block")[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    there = predict_in_blocks(run, corpus, path, workers=2, engine="ray", advance=kill)

    assert killed
    assert sum(told) == 2 * 40
    assert there.equals(run.predict(corpus))


# ---------------------------------------------------------------- compare


def test_killed_training_goes_on_from_its_checkpoint(run_folder, tiny_config, tmp_path):
    path = run_folder / "tiny.arrow"
    config = tiny_config("learning.epochs=40", "learning.patience=40")
    threads = max(1, (os.cpu_count() or 2) // 2)
    job = Job(path, config, 3, tmp_path / "there")
    before = []

    def kill(_):
        history = job.folder / "history.csv"
        if not before and history.exists():
            _kill_busy("train_job")
            before.extend(_rows(history))

    train_jobs([job], workers=2, engine="ray", tell=kill)

    runtime = config.runtime.model_copy(update={"threads": threads})
    config = config.model_copy(update={"runtime": runtime})
    fit(open_corpus(path).development(), config, seed=3, folder=tmp_path / "here")
    there, here = (
        load_file(tmp_path / place / "model/model.safetensors") for place in ("there", "here")
    )
    assert all(torch.equal(there[name], here[name]) for name in here)
    after = _rows(job.folder / "history.csv")
    assert len(before) < len(after) == 40
    assert after[: len(before)] == before  # clips per second and all: not trained again


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


# ---------------------------------------------------------------- faults, beginning and end


def test_fault_of_a_task_is_raised_as_it_was_there():
    with pytest.raises(DatasetError) as caught:
        list(run_tasks(scale, ["much"], workers=2, engine="ray"))
    assert type(caught.value) is DatasetError
    assert str(caught.value) == '"much" is no number.\n  Give a number.'
    with pytest.raises(RuntimeError, match="one: a library has a fault"):
        list(run_tasks(fail, ["one"], workers=2, engine="ray"))


def test_ray_is_begun_and_ended_in_silence(tmp_path):
    script = (
        "from fakes.tasks import scale\n"
        "from mmcl.pool import run_tasks\n"
        "print(sorted(run_tasks(scale, [1, 2, 3], workers=2, engine='ray')))\n"
        "import ray\n"
        "print(ray.is_initialized())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    share = max(1, max(2, os.cpu_count()) // 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"[(1, {share}), (2, {2 * share}), (3, {3 * share})]\nFalse\n"
