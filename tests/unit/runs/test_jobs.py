"""Trainings in processes of their own: the same as at home, and none stops another."""

import json
import os
import re
import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.errors import ConfigError, DatasetError, TrainingError
from mmcl.learning.fitted import DONE
from mmcl.learning.history import read_history
from mmcl.learning.loop import fit
from mmcl.pool import Died
from mmcl.pool_ray import await_shared
from mmcl.runs import jobs as home
from mmcl.runs.jobs import COST, DIVERGED, Job, Status, train_jobs
from mmcl.runs.jobs import corpus_file as corpus_file_of


@pytest.fixture(scope="module")
def corpus_file(tiny_corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "tiny.arrow"
    card = tiny_corpus.card
    clips = [
        clip
        for split in (tiny_corpus.split("train"), tiny_corpus.split("valid"))
        for clip in split.clips()
    ]
    counts = {name: count for name, count in card.counts.items() if name != "test"}
    write_corpus(path, card.model_copy(update={"counts": counts}), clips)
    return path


def test_training_elsewhere_is_the_training_at_home(corpus_file, tiny_config, tmp_path):
    config = tiny_config(f"runtime.threads={os.cpu_count()}")  # as a lone worker has
    job = Job(corpus_file, config, 3, tmp_path / "there")
    states = []

    train_jobs([job], workers=1, tell=states.append)

    epochs = read_history(tmp_path / "there")
    assert states[-1] == [Status("", 1, 0, 1, None, min(row.valid_loss for row in epochs))]
    fit(open_corpus(corpus_file), config, seed=3, folder=tmp_path / "here")
    there, here = (
        load_file(tmp_path / place / "model/model.safetensors") for place in ("there", "here")
    )
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)
    cost = json.loads((tmp_path / "there" / COST).read_text())
    assert cost["peak_memory_mib"] > 50
    assert 0 < cost["cpu_seconds"] < 300
    assert cost["predict_clips_per_second"] > 1


def test_training_that_diverges_says_so_and_stops_no_other(corpus_file, tiny_config, tmp_path):
    wild = tiny_config("learning.learning_rate=1e30", "learning.clip_norm=0")
    jobs = [
        Job(corpus_file, wild, 1, tmp_path / "wild"),
        Job(corpus_file, tiny_config(), 1, tmp_path / "calm"),
    ]

    train_jobs(jobs, workers=2)

    message = json.loads((tmp_path / "wild" / DIVERGED).read_text())["message"]
    assert message.startswith("the ")
    assert "loss is nan" in message or "loss is inf" in message
    assert (tmp_path / "calm" / DONE).exists()
    assert not (tmp_path / "calm" / DIVERGED).exists()
    assert [job.is_over for job in jobs] == [True, True]


def test_training_that_is_over_is_not_begun_again(corpus_file, tiny_config, tmp_path, monkeypatch):
    jobs = [Job(corpus_file, tiny_config(), n, tmp_path / str(n)) for n in (1, 2)]
    for job, name in zip(jobs, (DONE, DIVERGED), strict=True):
        job.folder.mkdir()
        (job.folder / name).write_text("{}")

    def run_tasks(work, tasks, **_):
        assert list(tasks) == []
        yield from ()

    monkeypatch.setattr(home, "run_tasks", run_tasks)
    train_jobs(jobs, workers=2)
    assert [sorted(p.name for p in job.folder.iterdir()) for job in jobs] == [[DONE], [DIVERGED]]


def _die_of_seed_2(for_comparison, over_machines, job, threads):
    if job.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    job.folder.mkdir()


def test_killed_training_costs_no_other_and_the_error_says_how_to_go_on(
    corpus_file, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(home, "_train_job", _die_of_seed_2)
    jobs = [Job(corpus_file, tiny_config(), seed, tmp_path / str(seed)) for seed in (1, 2, 3)]
    with pytest.raises(TrainingError) as caught:
        train_jobs(jobs, workers=1)
    assert str(caught.value) == (
        "1 of 3 trainings died before they ended; the others are done.\n"
        f"  {tmp_path}/2: its process died (signal SIGKILL; memory may have run out)\n"
        "  Continue with fewer at a time: the same command with --workers 1, "
        "mmcl train also with --resume"
    )
    assert [job.folder.exists() for job in jobs] == [True, False, True]


def test_several_processes_for_one_of_many_trainings_are_refused(
    corpus_file, tiny_config, tmp_path
):
    job = Job(corpus_file, tiny_config("runtime.devices=2"), 1, tmp_path / "one")
    with pytest.raises(ConfigError) as caught:
        train_jobs([job], workers=1)
    assert str(caught.value) == (
        "runtime.devices is 2, but each of many trainings has one process\n"
        "  Use one: --set runtime.devices=1\n"
        "  Train one network by several processes: mmcl train"
    )
    assert not job.folder.exists()


def test_user_has_the_last_word_on_threads(corpus_file, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    free = tiny_config()
    free = free.model_copy(update={"runtime": free.runtime.model_copy(update={"threads": None})})
    for name, config, threads in (("own", tiny_config(), 1), ("share", free, 2)):
        train_jobs([Job(corpus_file, config, 1, tmp_path / name)], workers=2)
        assert json.loads((tmp_path / name / COST).read_text())["threads"] == threads


def test_fault_of_the_corpus_is_raised_as_it_was_there(corpus_file, tiny_config, tmp_path):
    empty = tmp_path / "empty.arrow"
    card = open_corpus(corpus_file).card
    clips = [
        c.model_copy(update={"label": None}) for c in open_corpus(corpus_file).every_clip().clips()
    ]
    splits = ["train"] * 24 + ["valid"] * 8
    clips = [c.model_copy(update={"split": s}) for c, s in zip(clips, splits, strict=True)]
    write_corpus(empty, card, clips)
    with pytest.raises(DatasetError) as caught:
        train_jobs([Job(empty, tiny_config(), 1, tmp_path / "a")], workers=1)
    assert str(caught.value).startswith('planted, split "train": no clip with a label (24 clips).')


def test_without_a_comparison_a_diverged_training_is_an_error(corpus_file, tiny_config, tmp_path):
    wild = tiny_config("learning.learning_rate=1e30", "learning.clip_norm=0")
    with pytest.raises(TrainingError, match=r"loss is (nan|inf)"):
        train_jobs([Job(corpus_file, wild, 1, tmp_path / "a")], workers=1, for_comparison=False)
    assert not (tmp_path / "a" / DIVERGED).exists()
    assert not (tmp_path / "a" / COST).exists()


def test_corpus_without_a_file_is_lent_one_without_test_clips(tiny_corpus, corpus_file, tmp_path):
    with corpus_file_of(tiny_corpus, tmp_path) as path:
        lent = open_corpus(path)
        for name in ("train", "valid"):
            assert lent.split(name).ids == tiny_corpus.split(name).ids
            np.testing.assert_array_equal(
                lent.split(name).labels(), tiny_corpus.split(name).labels()
            )
            for there, here in zip(
                lent.split(name).clips(), tiny_corpus.split(name).clips(), strict=True
            ):
                assert there.features.keys() == here.features.keys()
                for modality, steps in here.features.items():
                    np.testing.assert_array_equal(there.features[modality], steps)
        assert lent.card.counts == {"train": 24, "valid": 8}
    assert list(tmp_path.iterdir()) == []
    with corpus_file_of(open_corpus(corpus_file), tmp_path) as path:
        assert path == corpus_file


# ---------------------------------------------------------------- over Ray


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: the tasks at home, the last one first; ``ray.asked`` is how."""
    seen = SimpleNamespace(asked=None, answer=None)

    def run_tasks(work, tasks, *, look, **asked):
        seen.asked = asked
        for task in reversed(tasks):
            yield task, seen.answer or work(task, 1)
        look()

    monkeypatch.setattr(home, "run_tasks", run_tasks)
    return seen


def test_training_over_ray_is_the_training_at_home(corpus_file, tiny_config, tmp_path, ray):
    jobs = [Job(corpus_file, tiny_config(), n, tmp_path / str(n)) for n in (1, 2, 3)]
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / DONE).write_text("{}")
    looks = []
    train_jobs(jobs, workers=2, engine="ray", tell=looks.append)
    assert ray.asked.pop("preload") == home.TRAINING
    assert ray.asked == {"workers": 2, "engine": "ray", "gpus": 0, "fresh": True}
    assert [[state.done for state in states] for states in looks] == [[3], [3]]
    assert not (tmp_path / "2" / COST).exists()
    fit(open_corpus(corpus_file), tiny_config(), seed=3, folder=tmp_path / "here")
    there, here = (load_file(tmp_path / p / "model/model.safetensors") for p in ("3", "here"))
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert json.loads((tmp_path / "1" / COST).read_text())["threads"] == 1


def test_gpu_is_asked_for_where_a_training_wants_one(corpus_file, tiny_config, tmp_path, ray):
    configs = [tiny_config(f"runtime.accelerator={name}") for name in ("cpu", "gpu")]
    jobs = [Job(corpus_file, c, n, tmp_path / str(n)) for n, c in enumerate(configs)]
    ray.answer = Died("it died")
    with pytest.raises(TrainingError) as caught:
        train_jobs(jobs, workers=2, engine="ray")
    assert ray.asked["gpus"] == 1
    assert str(caught.value) == (
        "2 of 2 trainings died before they ended; the others are done.\n"
        f"  {tmp_path}/1: it died\n  {tmp_path}/0: it died\n"
        "  Continue with fewer at a time: the same command with --workers 1, "
        "mmcl train also with --resume"
    )


def test_diverged_training_over_ray_stops_no_other(corpus_file, tiny_config, tmp_path, ray):
    wild = tiny_config("learning.learning_rate=1e30", "learning.clip_norm=0")
    jobs = [
        Job(corpus_file, tiny_config(), 1, tmp_path / "calm"),
        Job(corpus_file, wild, 1, tmp_path / "wild"),
    ]
    train_jobs(jobs, workers=1, engine="ray")
    assert (tmp_path / "wild" / DIVERGED).exists()
    assert (tmp_path / "calm" / DONE).exists()


@pytest.mark.parametrize("lost", ["corpus", "folder"])
def test_training_where_its_files_are_not_seen(corpus_file, tiny_config, tmp_path, ray, lost):
    job = Job(corpus_file, tiny_config(), 1, tmp_path / "a")
    place = tmp_path / "no" / ("file" if lost == "corpus" else "seed-1")
    seen = place if lost == "corpus" else place.parent
    with pytest.raises(
        DatasetError, match=f"^{re.escape(str(seen))}: not found on .*, where a task needed it"
    ):
        train_jobs([job._replace(**{lost: place})], workers=1, engine="ray")


def test_training_that_left_nothing_here_is_no_success(
    corpus_file, tiny_config, tmp_path, ray, monkeypatch
):
    monkeypatch.setattr(home, "_train_job", lambda *_: None)
    monkeypatch.setattr(home, "await_shared", partial(await_shared, seconds=0.1))
    with pytest.raises(DatasetError, match=r"done\.json: was written by a task, and is not seen"):
        train_jobs([Job(corpus_file, tiny_config(), 1, tmp_path / "a")], workers=1, engine="ray")
