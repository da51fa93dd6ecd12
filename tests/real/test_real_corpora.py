"""Real corpora, where they are at hand: what is known of them must come out of the readers."""

import os
from pathlib import Path

import numpy as np
import pytest

from mmcl.corpus.check import faults
from mmcl.corpus.describe import describe
from mmcl.corpus.readers import convert_corpus, read_corpus
from mmcl.corpus.schema import Repairs, Task
from mmcl.corpus.store import open_corpus

ROOT = os.environ.get("MMCL_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no real corpora at hand"),
]
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def real(path):
    return Path(ROOT or "") / path


def test_ravdess(tmp_path):
    path = tmp_path / "ravdess.arrow"
    convert_corpus(real("ravdess/ravdess_av.pkl.gz"), path)
    corpus = open_corpus(path)
    assert corpus.card.counts == {"train": 960, "valid": 180, "test": 300}
    assert corpus.card.task == Task(kind="classes", names=EMOTIONS)
    assert corpus.card.dims == {"text": 2, "audio": 25, "vision": 35}
    assert not corpus.card.aligned
    train = corpus.split("train")
    assert np.bincount(train.labels()).tolist() == [64] + [128] * 7
    assert set(train.lengths("text")) == set(train.lengths("vision")) == {1}
    every = np.concatenate([train.lengths("audio"), corpus.split("valid").lengths("audio")])
    assert 18 <= every.min() <= every.max() == 52
    assert next(iter(train.clips())).text == "kids are talking by the door"
    assert faults(corpus) == []


def test_ravdess_as_regression():
    corpus = read_corpus(real("ravdess/ravdess_av.pkl.gz"), task="regression")
    assert corpus.card.task == Task(kind="regression", low=-2.0, high=2.0)
    assert set(corpus.split("train").labels()) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_mmmo_with_all_modalities():
    corpus = read_corpus(real("mmmo/mmmo_3modal_resplit.pkl.gz"))
    assert corpus.card.counts == {"train": 72, "valid": 18, "test": 30}
    assert corpus.card.task == Task(kind="regression", low=-2.0, high=2.0)
    assert corpus.card.dims == {"text": 300, "audio": 74, "vision": 36}
    assert corpus.card.aligned
    assert corpus.card.notes == ()
    for split in (corpus.split("train"), corpus.split("valid")):
        lengths = [split.lengths(m).tolist() for m in split.modalities]
        assert lengths[0] == lengths[1] == lengths[2]
        assert all(1 <= length <= 20 for length in lengths[0])


def test_mmmo_as_published_has_no_text_to_train_on():
    corpus = read_corpus(real("mmmo/mmmo_published_split.pkl.gz"))
    assert corpus.card.counts == {"train": 220, "valid": 40, "test": 80}
    assert corpus.card.notes == ("text: missing in 220 of 220 train clips",)
    assert all(set(c.features) == {"audio", "vision"} for c in corpus.split("train").clips())
    missing = describe(corpus)["missing"]
    assert missing["text"] == {"train": 220, "valid": 0, "test": 0}
    assert missing["audio"] == {"train": 0, "valid": 0, "test": 0}


def test_mosei_per_video_is_cleaned_and_called_what_it_is_not():
    corpus = read_corpus(real("mosei_videolevel/mosei_videolevel_raw.pkl.gz"))
    assert corpus.card.counts == {"valid": 264, "test": 658}
    assert corpus.card.repairs == {"audio": Repairs(minus_inf=653)}
    notes = "\n".join(corpus.card.notes)
    assert "audio: 653 values were not finite (653 -inf, 0 inf, 0 NaN)" in notes
    assert 'no "train" split in the file' in notes
    assert "valid has 264 clips; CMU-MOSEI has 1871" in notes
    assert faults(corpus) == []
    assert describe(corpus)["constant"] is None
