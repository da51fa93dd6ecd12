"""Prediction by blocks: the rows of one process, and nothing from other files."""

import os

import pytest

from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import DatasetError, RunError
from mmcl.pool import Died
from mmcl.runs import prediction_blocks
from mmcl.runs.prediction_blocks import predict_in_blocks
from mmcl.runs.run import Run, train

BATCH = 4


@pytest.fixture(scope="module", params=["regression", "emotions"])
def trained(request, tiny_config, tmp_path_factory):
    """A run of two seeds and the file of its corpus, 29 clips."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = PlantSettings(train=16, valid=8, test=5, task=request.param)
    path = write_corpus(folder / "x.arrow", plant_card(settings), plant_clips(settings))
    config = tiny_config(f"evaluation.batch_size={BATCH}", "learning.epochs=1")
    train(open_corpus(path), config, out=folder / "run", seeds=(5, 2))
    return Run.load(folder / "run"), path


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: the blocks at home, the last one first."""
    asked = {}

    def run_tasks(work, tasks, **how):
        asked.update(how, blocks=tasks)
        for task in reversed(tasks):
            yield task, asked.get("answer") or work(task, 1)

    monkeypatch.setattr(prediction_blocks, "run_tasks", run_tasks)
    return asked


@pytest.mark.parametrize("workers", [1, 2, 50])
def test_rows_are_those_of_one_process(trained, ray, workers):
    run, path = trained
    corpus, told = open_corpus(path), []
    there = predict_in_blocks(run, corpus, path, workers=workers, engine="ray", advance=told.append)
    assert there.equals(run.predict(corpus))
    assert sum(told) == 2 * 29
    assert ray["workers"] == workers


def test_rows_of_two_processes_are_those_of_one(trained, tmp_path, capsys):
    run, path = trained
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for out, more in zip(files, ([], ["--workers", "2"]), strict=True):
        assert main(["predict", str(run.folder), str(path), "--out", str(out), *more]) == 0
        assert capsys.readouterr().out == f"29 predictions in {out}\n"
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "workers"), [(["--workers", "3"], 3), ([], os.cpu_count())], ids=["three", "cores"]
)
def test_command_line_gives_the_same_file(trained, ray, tmp_path, capsys, words, workers):
    run, path = trained
    files = [tmp_path / "here.csv", tmp_path / "there.csv"]
    for out, more in zip(files, ([], ["--engine", "ray", *words]), strict=True):
        assert ray == {}
        assert main(["predict", str(run.folder), str(path), "--out", str(out), *more]) == 0
        assert capsys.readouterr().out == f"29 predictions in {out}\n"
    assert ray["workers"] == workers
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("workers", "size"), [(1, 16), (2, 8), (3, 4), (50, 4)])
def test_blocks_hold_every_clip_of_every_seed_once(trained, workers, size):
    run, path = trained
    blocks = list(prediction_blocks._blocks(run, 29, path, workers))
    for seed in (5, 2):
        mine = [block for block in blocks if block.seed == seed]
        rows = [row for block in mine for row in range(block.start, block.stop)]
        assert rows == list(range(29))
        assert {block.start % BATCH for block in mine} == {0}
        assert {block.stop - block.start for block in mine[:-1]} == {size}
    assert len({block.call for block in blocks}) == 1
    assert next(prediction_blocks._blocks(run, 29, path, 1)).call != blocks[0].call


def test_paths_are_whole_wherever_a_block_goes(trained, monkeypatch):
    run, path = trained
    monkeypatch.chdir(path.parent)
    near = Run.load("run")
    block = next(prediction_blocks._blocks(near, 29, path.relative_to(path.parent), 1))
    assert (block.run, block.corpus) == (run.folder, path)


def test_other_clips_elsewhere_are_refused(trained, ray, tmp_path):
    run, path = trained
    settings = PlantSettings(train=16, valid=5, test=8, task=run.card.task.kind)
    other = write_corpus(tmp_path / "y.arrow", plant_card(settings), plant_clips(settings))
    with pytest.raises(DatasetError) as caught:
        predict_in_blocks(run, open_corpus(path), other, workers=1, engine="ray")
    assert str(caught.value) == (
        f"{other}: another machine reads other clips here than this one does.\n"
        "  With --engine ray every machine must see the same file under one path"
    )


def test_files_that_a_machine_does_not_see(trained, ray, tmp_path):
    run, path = trained
    with pytest.raises(DatasetError, match=r"no\.arrow: not found on .*, where a task needed it"):
        predict_in_blocks(run, open_corpus(path), tmp_path / "no.arrow", workers=1, engine="ray")
    run = Run.load(run.folder)
    run.model()  # it has been loaded here
    run.folder = tmp_path / "gone"
    with pytest.raises(DatasetError, match=r"gone: not found on .*, where a task needed it"):
        predict_in_blocks(run, open_corpus(path), path, workers=1, engine="ray")


def test_block_that_is_given_up_ends_it(trained, ray):
    run, path = trained
    ray["answer"] = Died("its process died")
    with pytest.raises(RunError) as caught:
        predict_in_blocks(run, open_corpus(path), path, workers=2, engine="ray")
    assert str(caught.value) == (
        "predicting clips 24 to 28: its process died.\n"
        "  Continue with fewer at a time: the same command with --workers 1"
    )


def test_run_that_does_not_fit_is_refused_before_anything(trained, ray, planted, tmp_path):
    run, path = trained
    with pytest.raises(RunError, match="does not fit"):
        predict_in_blocks(run, planted(task="classes"), path, workers=1, engine="ray")
    assert ray == {}
