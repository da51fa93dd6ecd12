"""The search: what it draws, what it stops, what it counts, and that it goes on where it was."""

import csv
import errno
import json
import math
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from mmcl.config import Config
from mmcl.errors import DatasetError, DiskError, MissingExtraError, RunError, TrainingError
from mmcl.pool import Died
from mmcl.runs import search as tuning
from mmcl.runs.jobs import TRAINING
from mmcl.runs.search import (
    CALIBRATED,
    EVERY_MODEL,
    Trial,
    best_trial,
    importance,
    search,
    space_for,
    with_settings,
)

EPOCHS = 5


@pytest.fixture
def config(tiny_config):
    return tiny_config(f"learning.epochs={EPOCHS}")


@pytest.fixture
def development(tiny_corpus):
    return tiny_corpus.development()


@pytest.fixture
def rigged(monkeypatch):
    """Trainings that only say how they go: ``rigged(lambda call, config: losses)``."""
    calls = []

    def rig(losses_of):
        def fit(development, config, *, seed, folder, progress):
            calls.append(SimpleNamespace(config=config, seed=seed, folder=folder, epochs=0))
            losses = losses_of(len(calls) - 1, config)
            folder.mkdir(parents=True)
            (folder / "model").mkdir()
            (folder / "checkpoint.safetensors").write_text("large")
            (folder / "history.csv").write_text("kept")
            for epoch, loss in enumerate(losses, start=1):
                if not math.isfinite(loss):
                    raise TrainingError(f"the loss is {loss} at epoch {epoch}.\n  More.")
                calls[-1].epochs = epoch
                progress("epochs", epoch, len(losses), {"valid_loss": loss})
            return SimpleNamespace(history=[SimpleNamespace(valid_loss=x) for x in losses])

        monkeypatch.setattr(tuning, "fit", fit)
        return calls

    return rig


def _rate(config):
    return config.learning.learning_rate


# ---------------------------------------------------------------- what is searched


def test_space_is_of_the_model(tiny_config):
    assert space_for(Config()) == CALIBRATED
    assert space_for(tiny_config(model="released")) == EVERY_MODEL
    fixed = space_for(Config(), fixed=["learning.learning_rate", "evaluation.preset"])
    assert [s.key for s in fixed] == [s.key for s in CALIBRATED[1:]]


def test_width_is_one_the_heads_divide(tiny_config):
    def widths(heads, width):
        config = tiny_config(f"model.heads={heads}", f"model.width={width}")
        return [s.choices for s in space_for(config) if s.key == "model.width"]

    assert widths(64, 64) == [(64, 128)]
    assert widths(3, 9) == []


@pytest.mark.parametrize("setting", CALIBRATED, ids=lambda s: s.key)
def test_every_value_of_the_space_is_a_setting(setting):
    for value in setting.choices or (setting.low, setting.high):
        section, name = setting.key.split(".")
        changed = with_settings(Config(), {setting.key: value})
        assert getattr(getattr(changed, section), name) == value
        assert setting.choices or setting.low < setting.high
        assert not setting.log or setting.low > 0


def test_every_trial_lies_in_the_space_and_is_of_one_seed(tmp_path, development, config, rigged):
    calls = rigged(lambda call, config: [1.0 / (1 + call)])
    found = search(development, config, folder=tmp_path / "s", trials=6, seed=4)
    for trial, call in zip(found, calls, strict=True):
        assert set(trial.params) == {s.key for s in space_for(config)}
        for setting in space_for(config):
            value = trial.params[setting.key]
            assert value in setting.choices or setting.low <= value <= setting.high
            assert not setting.choices or value in setting.choices
        assert call.config == with_settings(config, trial.params)
        assert call.seed == 4
        assert call.folder == tmp_path / "s" / "trials" / str(trial.number)
    assert len({_rate(call.config) for call in calls}) == 6


def test_trial_0_tries_the_settings_given_if_they_are_in_the_space(
    tmp_path, development, config, rigged
):
    calls = rigged(lambda call, config: [1.0])
    inside = with_settings(config, {"model.width": 64, "learning.batch_size": 32})
    search(development, inside, folder=tmp_path / "in", trials=2)
    assert calls[0].config == inside
    assert calls[1].config != inside
    search(development, config, folder=tmp_path / "out", trials=1)  # width 8 is not in it
    assert calls[2].config != config


# ---------------------------------------------------------------- what counts


def test_value_is_the_best_validation_loss(tmp_path, development, config, rigged):
    rigged(lambda call, config: [3.0, 0.5, 2.0] if call == 1 else [2.0, 1.0, 1.5])
    found = search(development, config, folder=tmp_path / "s", trials=3)
    assert [(t.number, t.state, t.value) for t in found] == [
        (0, "complete", 1.0),
        (1, "complete", 0.5),
        (2, "complete", 1.0),
    ]
    assert best_trial(found).number == 1
    assert best_trial([found[2], found[0]]).number == 0  # the first of equals


def test_worse_than_the_median_is_stopped_and_counted(tmp_path, development, config, rigged):
    losses = [1.0, 0.9, 0.8, 0.7, 0.6]
    calls = rigged(lambda call, config: [x + (call >= 5) for x in losses])
    found = search(development, config, folder=tmp_path / "s", trials=7)
    assert [trial.state for trial in found] == ["complete"] * 5 + ["pruned"] * 2
    assert [call.epochs for call in calls] == [5] * 5 + [2] * 2
    assert found[5].value == 1.9  # its latest
    assert best_trial(found).state == "complete"


def test_a_loss_that_diverges_fails_the_trial_and_not_the_search(
    tmp_path, development, config, rigged
):
    rigged(lambda call, config: [1.0, math.nan if call in (0, 2) else 0.5])
    found = search(development, config, folder=tmp_path / "s", trials=4)
    assert [trial.state for trial in found] == ["failed", "complete", "failed", "complete"]
    assert found[0].value is None
    assert found[0].fault == "the loss is nan at epoch 2."
    assert len(search(development, config, folder=tmp_path / "s", trials=4)) == 4


def test_no_completed_trial_is_an_error():
    failed = Trial(0, "failed", None, {}, 0.0, "the loss is nan at epoch 2.")
    with pytest.raises(TrainingError) as caught:
        best_trial([failed, failed._replace(number=1)])
    assert str(caught.value) == (
        "none of 2 trials was completed.\n"
        "  Trial 0: the loss is nan at epoch 2.\n"
        "  Look for faults in the corpus: mmcl corpus check CORPUS"
    )


def test_only_the_best_trial_keeps_its_network(tmp_path, development, config, rigged):
    rigged(lambda call, config: [[1.0, 0.5, 2.0, 0.75][call]])
    search(development, config, folder=tmp_path / "s", trials=4)
    folders = [tmp_path / "s" / "trials" / str(number) for number in range(4)]
    assert [(f / "model").exists() for f in folders] == [False, True, False, False]
    assert all((f / "history.csv").exists() for f in folders)
    assert not any((f / "checkpoint.safetensors").exists() for f in folders)


def test_on_trial_is_called_after_every_trial(tmp_path, development, config, rigged):
    rigged(lambda call, config: [[1.0, math.nan, 0.5][call]])
    told, stages = [], []
    search(
        development,
        config,
        folder=tmp_path / "s",
        trials=3,
        on_trial=lambda *each: told.append(each),
        progress=lambda stage, *_: stages.append(stage),
    )
    assert told == [(0, 3, None), (1, 3, 1.0), (2, 3, 1.0), (3, 3, 0.5)]
    assert stages == ["trial 0, epochs", "trial 2, epochs"]


# ---------------------------------------------------------------- going on


def test_a_finished_search_is_not_gone_on_with(tmp_path, development, config, rigged):
    calls = rigged(lambda call, config: [1.0])
    once = search(development, config, folder=tmp_path / "s", trials=3)
    assert search(development, config, folder=tmp_path / "s", trials=3) == once
    assert len(calls) == 3


def test_a_search_of_an_earlier_version_goes_on(tmp_path, development, config, rigged):
    calls = rigged(lambda call, config: [1.0])
    search(development, config, folder=tmp_path / "s", trials=1)
    path = tmp_path / "s" / "search.json"
    saved = json.loads(path.read_text())
    runtime = saved["config"]["runtime"]
    runtime["processes"] = runtime.pop("devices")  # its name before
    path.write_text(json.dumps(saved))

    assert len(search(development, config, folder=tmp_path / "s", trials=2)) == 2
    assert len(calls) == 2


def test_a_search_in_parts_is_the_search_in_one(tmp_path, development, config, rigged):
    rigged(lambda call, config: [math.log(_rate(config)) ** 2])
    whole = search(development, config, folder=tmp_path / "whole", trials=14)
    for trials in (2, 11, 14):
        parts = search(development, config, folder=tmp_path / "parts", trials=trials)
    assert [(t.params, t.value) for t in parts] == [(t.params, t.value) for t in whole]
    other = search(development, config, folder=tmp_path / "other", trials=2, seed=2)
    assert other[1].params != whole[1].params


def test_a_killed_trial_is_given_up_and_does_not_count(tmp_path, development, config, rigged):
    class Killed(BaseException):
        pass

    def kill(call, config):
        if call == 1:
            raise Killed
        return [1.0]

    rigged(kill)
    whole = search(development, config, folder=tmp_path / "whole", trials=1)
    with pytest.raises(Killed):
        search(development, config, folder=tmp_path / "s", trials=3)
    study = tuning._open_study(tmp_path / "s")
    assert study.trials[0].state.name == "RUNNING"
    found = search(development, config, folder=tmp_path / "s", trials=2)
    assert [trial.number for trial in found] == [1, 2]
    assert found[0].params == whole[0].params  # the same draw once more
    assert {t.state.name for t in tuning._open_study(tmp_path / "s").trials} == {"COMPLETE", "FAIL"}


def test_interrupted_by_hand_does_not_count(tmp_path, development, config, rigged):
    def interrupt(call, config):
        if call == 1:
            raise KeyboardInterrupt
        return [1.0]

    rigged(interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(development, config, folder=tmp_path / "s", trials=2)
    found = search(development, config, folder=tmp_path / "s", trials=2)
    assert [trial.number for trial in found] == [0, 2]


# ---------------------------------------------------------------- several processes


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: the trials at home, two of them dying; ``ray`` is how they were asked."""
    seen = {}

    def run_tasks(work, tasks, *, look, **asked):
        seen.update(asked)
        for ticket in tasks:
            yield ticket, Died("its process died 4 times") if ticket in (1, 3) else work(ticket, 1)
            look()

    monkeypatch.setattr(tuning, "run_tasks", run_tasks)
    tuning._open_once.cache_clear()
    return seen


def test_trials_of_dead_processes_do_not_count_and_the_others_do(
    tmp_path, development, config, rigged, ray
):
    rigged(lambda call, config: [1.0])
    told = []
    with pytest.raises(TrainingError) as caught:
        search(
            development,
            config,
            folder=tmp_path / "s",
            trials=5,
            workers=2,
            engine="ray",
            on_trial=lambda *numbers: told.append(numbers),
        )
    assert str(caught.value) == (
        "2 of 5 trials died before they ended: its process died 4 times.\n"
        "  Continue with fewer at a time: the same mmcl tune command with --workers 1"
    )
    assert ray.pop("preload") == ("optuna", *TRAINING)
    assert ray == {"workers": 2, "engine": "ray", "gpus": 0}
    assert told[-1] == (3, 5, 1.0)
    assert len(search(development, config, folder=tmp_path / "s", trials=5)) == 5
    assert not (tmp_path / "s" / ".development.arrow").exists()


def test_folder_that_a_machine_does_not_see(tmp_path):
    with pytest.raises(DatasetError, match=r"search\.json: not found on .*, where a task needed"):
        tuning._open_once(tmp_path / "s", tmp_path / "x.arrow")


# ---------------------------------------------------------------- real trainings


def test_real_trials_train_and_leave_their_history(tmp_path, development, tiny_config):
    config = tiny_config()
    fixed = ["model.width", "learning.batch_size"]
    found = search(development, config, folder=tmp_path / "s", trials=2, fixed=fixed)
    for trial in found:
        with (tmp_path / "s" / "trials" / str(trial.number) / "history.csv").open() as file:
            losses = [float(row["valid_loss"]) for row in csv.DictReader(file)]
        assert trial.value == min(losses)
        assert trial.seconds > 0
        assert not set(fixed) & set(trial.params)


def test_what_the_test_split_holds_changes_nothing(tmp_path, tiny_corpus, planted, tiny_config):
    found = []
    for name, corpus in (("with", tiny_corpus), ("without", planted(test=1))):
        development = corpus.development()
        assert "test" not in development.card.counts
        trials = search(development, tiny_config(), folder=tmp_path / name, trials=2)
        found.append([(trial.params, trial.value) for trial in trials])
    assert found[0] == found[1]


# ---------------------------------------------------------------- importance


def test_importance_finds_the_setting_that_decides(tmp_path, development, config, rigged):
    calls = rigged(lambda call, config: [math.log(_rate(config)) ** 2])
    search(development, config, folder=tmp_path / "s", trials=9)
    assert importance(tmp_path / "s") is None
    # No trial is pruned: each has one epoch, and a last epoch is not stopped.
    search(development, config, folder=tmp_path / "s", trials=20)
    shares = importance(tmp_path / "s")
    assert next(iter(shares)) == "learning.learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)
    assert shares == importance(tmp_path / "s")
    assert len(calls) == 20


def test_importance_of_equal_values_is_unknown(tmp_path, development, config, rigged):
    rigged(lambda call, config: [1.0])
    search(development, config, folder=tmp_path / "s", trials=10)
    assert importance(tmp_path / "s") is None


# ---------------------------------------------------------------- what is refused


def test_another_search_in_the_folder_is_refused(
    tmp_path, development, planted, config, tiny_config, rigged
):
    rigged(lambda call, config: [1.0])
    folder = tmp_path / "s"
    search(development, config, folder=folder, trials=1)
    before = (folder / "study.log").read_bytes()
    others = {
        "another corpus": (planted(seed=2).development(), config, {}),
        "other settings": (development, tiny_config("learning.epochs=9"), {}),
        "other settings to search": (development, config, {"fixed": ["model.width"]}),
        "another seed": (development, config, {"seed": 2}),
    }
    for what, (corpus, settings, changes) in others.items():
        with pytest.raises(RunError) as caught:
            search(corpus, settings, folder=folder, trials=1, **changes)
        assert str(caught.value) == (
            f"{folder}: was started with {what}; nothing was changed.\n"
            f"  What it searches: {folder}/search.json\n"
            "  Start another: --out with a new folder"
        )
    assert (folder / "study.log").read_bytes() == before


def test_a_folder_of_other_things_is_refused(tmp_path, development, config):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError) as caught:
        search(development, config, folder=tmp_path, trials=1)
    assert str(caught.value) == (
        f"{tmp_path}: holds files, and none of a search; nothing was changed.\n"
        "  Give a new folder: --out DIR"
    )
    with pytest.raises(RunError) as caught:
        search(development, config, folder=tmp_path / "run.json", trials=1)
    assert str(caught.value) == (
        f"{tmp_path}/run.json: no search can be kept here (Not a directory).\n"
        "  Give a new folder where you may write: --out DIR"
    )


def test_without_optuna_the_message_says_what_to_install(
    tmp_path, development, config, monkeypatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError) as caught:
        search(development, config, folder=tmp_path / "s", trials=1)
    assert str(caught.value) == (
        "mmcl tune needs optuna, which is not installed.\n"
        '  Install it: pip install "mmcl[research]"'
    )


def test_search_json_says_what_is_searched(tmp_path, development, config, rigged):
    rigged(lambda call, config: [1.0])
    search(development, config, folder=tmp_path / "s", trials=1)
    content = json.loads((tmp_path / "s" / "search.json").read_text())
    assert Config.model_validate(content["config"]) == config
    assert [each["key"] for each in content["space"]] == [s.key for s in space_for(config)]
    shutil.rmtree(tmp_path / "s")


@pytest.mark.parametrize("fails_at", [4, 6, 12])
@pytest.mark.parametrize("written", ["nothing", "half", "all"])
def test_journal_that_met_a_full_disk_is_read_again(
    development, config, tmp_path, rigged, monkeypatch, fails_at, written
):
    from optuna.storages.journal import JournalFileBackend

    rigged(lambda call, _: [3.0 - 0.1 * call, 2.0])
    append, count = JournalFileBackend.append_logs, 0

    def fill(backend, logs):
        nonlocal count
        count += 1
        if count == fails_at:
            if written == "all":
                append(backend, logs)
            if written == "half":
                with open(backend._file_path, "ab") as file:
                    file.write(b'{"op_code":5,"worker')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(backend, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", fill)
    with pytest.raises(DiskError) as caught:
        search(development, config, folder=tmp_path / "tuned", trials=3)
    assert str(caught.value) == (
        f"{tmp_path / 'tuned' / 'study.log'}: the disk is full (No space left on device).\n"
        f"  The trials that have ended are kept in {tmp_path / 'tuned'}.\n"
        "  Free some space, then give the same command again."
    )
    trials = search(development, config, folder=tmp_path / "tuned", trials=3)
    assert [trial.state for trial in trials] == ["complete"] * 3


def test_search_of_another_version_is_refused_by_its_names(development, config, tmp_path, rigged):
    rigged(lambda call, _: [1.0])
    folder = tmp_path / "tuned"
    search(development, config, folder=folder, trials=1)
    path = folder / "search.json"
    content = json.loads(path.read_text())
    content["config"]["learning"]["warmup"] = 3
    content["environment"]["versions"]["mmcl"] = "9.1"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        search(development, config, folder=folder, trials=2)
    assert str(caught.value).splitlines()[1:3] == [
        "  learning.warmup: not known here",
        '  Install the version that wrote it: pip install "mmcl==9.1"',
    ]
