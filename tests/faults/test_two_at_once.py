"""Two commands at once into one output, outputs that cannot be written, and what is kept."""

import json
import os
import re
from pathlib import Path

import pytest

from fakes.commands import started, wait_for
from fakes.disk import recorded
from mmcl.cli.main import main
from mmcl.config import resolve_config
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import TrainingError
from mmcl.learning import loop
from mmcl.outputs import hold_output
from mmcl.runs.jobs import COST, DIVERGED, Job, train_jobs
from mmcl.runs.run import train
from mmcl.serve.results import write_results

TINY = ["learning.epochs=1", "learning.batch_size=8", "model.width=8", "model.heads=2"]
SMALL = [word for pair in TINY for word in ("--set", pair)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus and a run."""
    folder = tmp_path_factory.mktemp("two")
    settings = PlantSettings(train=24, valid=8, test=8)
    corpus = write_corpus(folder / "planted.arrow", plant_card(settings), plant_clips(settings))
    assert main(["train", str(corpus), "--out", str(folder / "run"), *SMALL]) == 0
    return folder


COMMANDS = {
    "train": ("train planted.arrow --out {}", True),
    "tune": ("tune planted.arrow --out {}", True),
    "compare": ("compare planted.arrow --out {} --models text_only", True),
    "ablate": ("ablate planted.arrow --out {}", True),
    "robustness": ("robustness run planted.arrow --out {}", True),
    "explain": ("explain run planted.arrow --out {}", True),
    "demo": ("demo --quick --out {}", True),
    "extract": ("extract planted.arrow --out {}.arrow", False),
    "predict": ("predict run planted.arrow --out {}.csv", False),
    "export": ("export run --out {}.onnx", False),
    "report": ("report run --out {}.html", False),
    "plant": ("corpus plant {}.arrow --train 8", False),
    "convert": ("corpus convert planted.arrow {}.arrow", False),
}


def call(capsys, words):
    capsys.readouterr()
    code = main(words.split())
    return code, capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_second_command_into_one_output_is_refused(home, tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(home)
    words, is_folder = COMMANDS[name]
    words = words.format(tmp_path / "out")
    out = Path(next(word for word in words.split() if word.startswith(str(tmp_path))))
    with hold_output(out, is_folder=is_folder):
        code, err = call(capsys, words)
    assert code == 1
    assert re.fullmatch(
        f"BusyError: {out}: another command is writing it: process {os.getpid()} on .*\n"
        "  Wait until it has ended, or give another: --out\n",
        err,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_probed_before_the_work(home, tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(home)
    (tmp_path / "file").touch()
    code, err = call(capsys, COMMANDS[name][0].format(tmp_path / "file" / "out"))
    assert code == 1
    assert re.match(
        rf"DiskError: {tmp_path}/file/out\S*: nothing can be written there \(.*\)\.\n", err
    )


def test_output_is_free_again_when_its_command_has_ended(tmp_path, capsys):
    for _ in range(2):
        code, err = call(capsys, f"corpus plant {tmp_path / 'out.arrow'} --train 8")
        assert (code, err) == (0, "")
    with hold_output(tmp_path / "out.arrow"):
        pass
    assert os.listdir(tmp_path) == ["out.arrow"]


def test_two_tunes_at_once_and_the_second_goes_on_when_the_first_was_killed(home, tmp_path, capsys):
    pytest.importorskip("optuna")
    words = f"tune {home / 'planted.arrow'} --out {tmp_path / 't'} --seeds 1 {' '.join(SMALL)}"
    with started(*words.split(), "--trials", "500") as first:
        wait_for((tmp_path / "t" / "trials" / "2" / "history.csv").exists, first)
        code, err = call(capsys, f"{words} --trials 3")
        assert code == 1
        assert f"another command is writing it: process {first.pid} on" in err
        first.kill()
        first.wait()
    (tmp_path / "t" / ".best.toml.x.unfinished.toml").write_text("half")
    code, err = call(capsys, f"{words} --trials 3")
    assert code == 0, err
    assert len(json.loads((tmp_path / "t" / "tuning.json").read_text())["trials"]) >= 3
    assert [path for path in (tmp_path / "t").iterdir() if path.name.startswith(".")] == []


# ---------------------------------------------------------------- what is called done


def test_training_is_on_the_disk_before_it_is_called_done(home, tmp_path, monkeypatch):
    corpus = open_corpus(home / "planted.arrow")
    run = tmp_path / "run"
    mkdir = os.mkdir

    def note_folder(path, *more):
        mkdir(path, *more)
        steps.append(("folder", Path(path)))

    with recorded(monkeypatch) as steps, monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", note_folder)
        train(corpus, resolve_config(overrides=TINY), out=run)
    seed = run / "seed-1"
    done = steps.index(("name", seed / "done.json"))
    before = set(steps[:done])
    for path in seed.rglob("*"):
        if path.is_file() and path.name not in ("done.json", "history.csv"):
            parts = {("sync", path), ("name", path)}
            assert before & parts, f"{path} was not forced to the disk"
    for folder in (tmp_path, run, seed, seed / "model"):
        assert ("sync", folder) in before
    made = [step for step in steps[:done] if step[0] == "folder" and tmp_path in step[1].parents]
    assert ("folder", seed) in made
    for step in made:
        names = ("sync", step[1].parent)
        assert names in steps[steps.index(step) : done], f"the name of {step[1]} may be lost"
    assert ("sync", seed) in steps[done:]  # the name of done.json itself
    assert steps.index(("name", run / "metrics.json")) > done


def test_only_a_training_that_diverged_says_so(home, tmp_path, monkeypatch):
    def too_large(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    config = resolve_config(overrides=TINY)
    job = Job(home / "planted.arrow", config, 1, tmp_path / "seed-1", "calibrated")
    monkeypatch.setattr(loop._Training, "_batch", too_large)
    monkeypatch.setattr("mmcl.runs.jobs.run_tasks", in_this_process)
    with pytest.raises(TrainingError, match="memory"):
        train_jobs([job], workers=1)
    assert not (job.folder / DIVERGED).exists()
    assert not job.is_over
    monkeypatch.undo()
    monkeypatch.setattr("mmcl.runs.jobs.run_tasks", in_this_process)
    monkeypatch.setattr(loop.math, "isfinite", lambda _: False)
    train_jobs([job], workers=1)
    assert "loss is" in json.loads((job.folder / DIVERGED).read_text())["message"]
    assert (job.folder / COST).exists()


def in_this_process(work, tasks, **_):
    for task in tasks:
        yield task, work(task, 1)


def test_results_of_a_recording_are_on_the_disk_before_its_job_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("mmcl.serve.results.result_of", lambda *_, **__: {})
    for name in ("timeline_table", "timeline_page", "subtitles", "means_table", "write_table"):
        monkeypatch.setattr(f"mmcl.serve.results.{name}", lambda *_: "")
    with recorded(monkeypatch) as steps:
        write_results(None, tmp_path / "id", model="m", duration=1.0)
    assert steps[-1] == ("sync", tmp_path)
    assert ("sync", tmp_path / "id") in steps
