"""Training by two processes: the curve of one, and one clear error whatever happens to them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from fakes.curves import CURVES, IN_DOUBLE, NUMBERS
from fakes.group import behave, fit_in_double
from mmcl.errors import ConfigError, DatasetError, TrainingError
from mmcl.learning.inference import score_split
from mmcl.learning.loop import fit, read_fitted, read_history
from mmcl.learning.together import run_together
from mmcl.runtime import check_processes, is_first_process, num_processes

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")

STEPS = 50
# Sums in another order, through fifty steps of training.
TOLERANCE = {"rel": 0.0, "abs": 1e-5}


@pytest.fixture
def development(tiny_corpus):
    return tiny_corpus.development()


@pytest.fixture
def train(tmp_path, tiny_config):
    """Train and write down every step: ``train(corpus, processes, *settings)``."""

    def run(corpus, processes, *settings, model="calibrated", resume=False, name=None, tell=None):
        baseline = ("model.options.width=8",) if model == "late_fusion" else ()
        config = tiny_config(
            f"runtime.processes={processes}",
            "learning.learning_rate=0.003",
            "learning.patience=100",
            *baseline,
            *(setting for setting in settings if setting != IN_DOUBLE),
            model=model,
        )
        steps = []

        def progress(stage, done, total, numbers):
            if stage != "epochs":
                steps.append([numbers[name] for name in NUMBERS])
            if tell is not None:
                tell(stage, done)

        folder = tmp_path / (name or str(processes))
        given = {"development": corpus, "seed": 3, "folder": folder, "resume": resume}
        if IN_DOUBLE not in settings:
            return fit(config=config, progress=progress, **given), steps
        if processes == 1:
            return fit_in_double(config=config, progress=progress, **given), steps
        run_together(fit_in_double, given, config, progress)
        return read_fitted(folder), steps

    return run


@pytest.mark.parametrize(("model", "planting", "settings"), CURVES)
def test_two_processes_have_the_curve_of_one(train, planted, model, planting, settings):
    corpus = planted(**planting).development()
    size = int(settings[0].partition("=")[2])
    per_epoch = -(-24 // size) if "drop_last=true" not in settings else 24 // size
    epochs = f"learning.epochs={-(-STEPS // per_epoch)}"
    one, alone = train(corpus, 1, *settings, epochs, model=model)
    two, together = train(corpus, 2, *settings, epochs, model=model)
    assert len(alone) == len(together)
    for step, (expected, found) in enumerate(zip(alone[:STEPS], together, strict=False)):
        assert found == pytest.approx(expected, **TOLERANCE, nan_ok=True), f"at step {step + 1}"
    losses = [[row.valid_loss for row in fitted.history] for fitted in (one, two)]
    assert losses[1] == pytest.approx(losses[0], **TOLERANCE)
    assert one.best_epoch == two.best_epoch
    # That it trains at all: a curve that stands still would be equal for nothing.
    assert min(step[0] for step in alone) < alone[0][0] - 0.01


def test_validation_is_divided_and_is_a_mean_over_clips(train, planted):
    corpus = planted(valid=7).development()
    settings = ("learning.epochs=1", "evaluation.batch_size=4", "policy.kind=random")
    one, _ = train(corpus, 1, *settings)
    two, _ = train(corpus, 2, *settings)
    assert two.history[0].valid_loss == pytest.approx(one.history[0].valid_loss, abs=1e-6)
    split = corpus.split("valid")
    scores = [score_split(fitted.model, split).scores for fitted in (one, two)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_early_stopping_is_one_decision(train, development):
    settings = ("learning.epochs=12", "learning.patience=1", "learning.learning_rate=0.05")
    one, _ = train(development, 1, *settings)
    two, _ = train(development, 2, *settings)
    assert len(one.history) == len(two.history) < 12
    assert one.best_epoch == two.best_epoch


def test_only_the_first_process_writes(train, development, tmp_path):
    train(development, 2)
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == [
        "checkpoint.safetensors",
        "done.json",
        "history.csv",
        "model",
    ]
    assert len(read_history(tmp_path / "2")) == 2


class _StopError(Exception):
    """Whoever asked for the training wants no more of it."""


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("calibrated", ("learning.modality_dropout=0.2",)),
        ("released", ("learning.drop_last=false", "policy.replay_capacity=20")),
    ],
)
def test_stopped_and_resumed_ends_as_if_never_stopped(train, planted, model, settings):
    corpus = planted(task="emotions").development()
    settings = ("learning.batch_size=5", "learning.epochs=4", *settings)

    def stop(stage, done):
        if (stage, done) == ("epoch 3", 2):
            raise _StopError

    whole, _ = train(corpus, 2, *settings, model=model, name="whole")
    before = _children()
    with pytest.raises(_StopError):
        train(corpus, 2, *settings, model=model, name="stopped", tell=stop)
    assert _children() == before
    again, steps = train(corpus, 2, *settings, model=model, name="stopped", resume=True)
    assert len(steps) == 10  # of the third and fourth epoch
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def _children():
    """Processes of this one; a test of another file may have left some."""
    return set(multiprocessing.active_children())


@pytest.mark.parametrize("which", [1, 2])
def test_killed_process_ends_the_others(train, development, tmp_path, which):
    def kill(stage, done):
        if (stage, done) == ("epoch 2", 1):
            members = sorted(_children() - before, key=lambda each: each.pid)
            os.kill(members[which - 1].pid, signal.SIGKILL)

    before = _children()
    with pytest.raises(TrainingError) as caught:
        train(development, 2, "learning.epochs=50", tell=kill)
    assert str(caught.value) == (
        f"process {which} of 2 was killed (signal 9) before the training ended, perhaps for "
        "want of memory; the others were stopped.\n"
        "  Go on where it was: the same command with --resume"
    )
    assert _children() == before
    assert not (tmp_path / "2" / "done.json").exists()


def test_what_one_process_raises_is_raised(train, development):
    with pytest.raises(TrainingError) as caught:
        train(development, 2, "learning.learning_rate=1e30", "learning.clip_norm=0")
    assert str(caught.value).startswith("the loss is nan at epoch 1, step ")


@pytest.fixture
def two(tiny_config):
    """Two processes, each of which does what its word says: ``two("wait", "raise")``."""
    config = tiny_config("runtime.processes=2")

    def run(*words, tell=None):
        run_together(behave, {"words": words}, config, tell)

    return run


def test_other_exception_comes_with_its_traceback(two):
    with pytest.raises(ProcessRaisedException) as caught:  # not: the first one got a signal
        two("wait", "raise")
    assert "Process 1 terminated" in str(caught.value)
    assert str(caught.value).endswith(
        '    raise ValueError("unforeseen")\nValueError: unforeseen\n'
    )


def test_refusal_is_raised_with_nothing_else(two):
    with pytest.raises(TrainingError) as caught:
        two("wait", "refuse", tell=lambda *said: time.sleep(1))  # it has ended when it is heard
    assert str(caught.value) == "it cannot be"
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_that_is_asked_to_end_is_named(two, number):
    with pytest.raises(TrainingError) as caught:
        two("wait", "wait", tell=lambda *said: os.kill(said[3]["pid"], number))
    assert str(caught.value).startswith(f"process 1 of 2 was killed (signal {number}) before")


def test_what_the_listener_raises_is_raised(two):
    def full(*said):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        two("wait", "wait", tell=full)


def test_nothing_is_left(two, tmp_path, monkeypatch):
    def traces():
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        # The folder of the process that the others are forked from is there to stay.
        files = [path.name for path in tmp_path.iterdir() if not path.name.startswith("pymp-")]
        return _children(), len(os.listdir("/proc/self/fd")), dict(os.environ), handlers, files

    def end(*words):
        try:
            two(*words)
        except (ProcessRaisedException, TrainingError) as fault:
            return type(fault)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    two("end", "end")
    before = traces()
    assert end("end", "raise") is ProcessRaisedException
    assert end("refuse", "end") is TrainingError
    assert end("end", "end") is None
    assert traces() == before


ASKED = """
import faulthandler, os, signal
faulthandler.dump_traceback_later(100, exit=True)  # says where, should it ever wait
from fakes.group import behave
from mmcl.config import Config
from mmcl.learning.together import run_together

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
config = Config.model_validate({{"runtime": {{"processes": 2}}}})
try:
    run_together(behave, {{"words": {words}}}, config, lambda *said: {then})
except BaseException as fault:
    print(type(fault).__name__)
"""


@pytest.mark.parametrize(
    ("words", "then", "code", "spoken"),
    [
        pytest.param(("wait", "wait"), "os.kill(os.getpid(), signal.SIGKILL)", -9, "", id="killed"),
        pytest.param(
            ("wait", "wait"),
            "os.kill(os.getpid(), signal.SIGINT)",
            0,
            "KeyboardInterrupt\n",
            id="interrupted",
        ),
        pytest.param(("wait", "raise"), "None", 0, "ProcessRaisedException\n", id="raised"),
    ],
)
def test_all_end_with_the_one_that_asked_and_say_nothing(words, then, code, spoken):
    paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(  # returns when nobody holds its output any more
        [sys.executable, "-c", ASKED.format(words=words, then=then)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, spoken, "")


# ---------------------------------------------------------------- what is refused


def test_more_processes_than_cores_are_refused(train, development, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with pytest.raises(ConfigError) as caught:
        train(development, 4)
    assert str(caught.value) == (
        "runtime.processes is 4, but this machine has 3 cores: each process needs one\n"
        "  Use: --set runtime.processes=3"
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(ConfigError) as caught:
        train(development, 2)
    assert str(caught.value) == (
        "runtime.processes is 2, but this machine has 1 core: each process needs one\n"
        "  Use: --set runtime.processes=1"
    )


@pytest.mark.parametrize("accelerator", ["gpu", "auto"])
def test_more_processes_than_gpus_are_refused(tiny_config, monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    settings = tiny_config(f"runtime.accelerator={accelerator}").runtime
    check_processes(settings, 1)
    with pytest.raises(ConfigError) as caught:
        check_processes(settings, 2)
    assert str(caught.value) == (
        "runtime.processes is 2, but this machine has 1 GPU: each process needs one\n"
        "  Use: --set runtime.processes=1"
    )


def test_fewer_clips_in_a_batch_than_processes_are_refused(train, development):
    with pytest.raises(ConfigError) as caught:
        train(development, 2, "learning.batch_size=1")
    assert str(caught.value) == (
        "learning.batch_size is 1, fewer clips than the 2 processes that share them\n"
        "  Use fewer processes: --set runtime.processes=1"
    )


def test_fewer_clips_than_processes_are_refused(train, planted):
    with pytest.raises(DatasetError) as caught:
        train(planted(train=1).development(), 2)
    assert str(caught.value) == (
        'split "train": 1 clip with a label, fewer than the 2 processes that share them\n'
        "  Use fewer processes: --set runtime.processes=1"
    )


def test_model_that_looks_at_whole_batches_is_refused(train, development):
    with pytest.raises(ConfigError) as caught:
        train(development, 2, "learning.batch_size=8", model="tfn")
    assert str(caught.value) == (
        "runtime.processes is 2, but tfn looks at all clips of a batch at once: one process "
        "trains it\n"
        "  Use one: --set runtime.processes=1\n"
        "  Train several models or seeds side by side: mmcl compare --workers"
    )


def test_training_that_is_one_of_several_stays_one_process(train, development, monkeypatch):
    me = multiprocessing.current_process()
    monkeypatch.setitem(me._config, "daemon", True)
    with pytest.raises(ConfigError) as caught:
        train(development, 2)
    assert str(caught.value) == (
        "runtime.processes is 2, but this training is one of several side by side: it has one "
        "process\n  Use one: --set runtime.processes=1"
    )


def test_group_is_what_torchrun_says(monkeypatch):
    assert (num_processes(), is_first_process()) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "4")  # of another launcher
    monkeypatch.setenv("RANK", "2")
    assert (num_processes(), is_first_process()) == (1, True)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert (num_processes(), is_first_process()) == (4, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()
