"""Trainings in processes of their own: the same as at home, and none stops another."""

import json
import os
import re
import signal
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.engines import Died, await_shared
from mmcl.errors import DatasetError, TrainingError
from mmcl.learning.loop import DONE, fit
from mmcl.runs import jobs as training_pool
from mmcl.runs.jobs import COST, Job, train_jobs
from mmcl.runs.run import DIVERGED


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
    looks = []

    train_jobs([job], workers=1, look=lambda: looks.append(job.is_over))

    assert looks[-1]
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

    def begin(*_):
        raise AssertionError("a training was begun")

    monkeypatch.setattr(training_pool, "_begin", begin)
    train_jobs(jobs, workers=2)
    assert [sorted(p.name for p in job.folder.iterdir()) for job in jobs] == [[DONE], [DIVERGED]]


def _die(job, threads, say):
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_training_is_an_error_that_says_how_to_go_on(
    corpus_file, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(training_pool, "_train", _die)
    with pytest.raises(TrainingError) as caught:
        train_jobs([Job(corpus_file, tiny_config(), 1, tmp_path / "a")], workers=1)
    assert str(caught.value) == (
        "a training was killed before it ended, perhaps for want of memory.\n"
        "  Go on with fewer at a time: the same command with --workers 1"
    )


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


def test_training_whose_parent_was_killed_ends_itself(monkeypatch):
    parent = SimpleNamespace(is_alive=lambda: True)
    monkeypatch.setattr(training_pool.multiprocessing, "parent_process", lambda: parent)
    training_pool._stop_when_alone("epoch 1", 1, 2, {})
    parent.is_alive = lambda: False
    with pytest.raises(SystemExit):
        training_pool._stop_when_alone("epoch 1", 1, 2, {})


# ---------------------------------------------------------------- over Ray


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: the tasks at home, the last one first; ``ray.asked`` is how."""
    seen = SimpleNamespace(asked=None, answer=None)

    def over_ray(work, tasks, *, look, **asked):
        seen.asked = asked
        for task in reversed(tasks):
            yield task, seen.answer or work(task, 1)
        look()

    monkeypatch.setattr(training_pool, "over_ray", over_ray)
    return seen


def test_training_over_ray_is_the_training_at_home(corpus_file, tiny_config, tmp_path, ray):
    jobs = [Job(corpus_file, tiny_config(), n, tmp_path / str(n)) for n in (1, 2, 3)]
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / DONE).write_text("{}")
    looks = []
    train_jobs(jobs, workers=2, engine="ray", look=lambda: looks.append(1))
    assert ray.asked == {"workers": 2, "gpus": 0, "fresh": True}
    assert looks == [1]
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
        "a training was killed 4 times before it ended, perhaps for want of memory.\n"
        "  Go on with fewer at a time: the same command with --workers 1"
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
    monkeypatch.setattr(training_pool, "_fit", lambda job, threads: None)
    monkeypatch.setattr(training_pool, "await_shared", partial(await_shared, seconds=0.1))
    with pytest.raises(DatasetError, match=r"done\.json: was written by a task, and is not seen"):
        train_jobs([Job(corpus_file, tiny_config(), 1, tmp_path / "a")], workers=1, engine="ray")
