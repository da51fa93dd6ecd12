"""Training on real data runs, in both variants, and says what it was given."""

import os
from pathlib import Path

import pytest

from mmcl.config import resolve_config
from mmcl.corpus.readers import read_corpus
from mmcl.runs.run import train

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        "MMCL_REAL_DATA" not in os.environ, reason="MMCL_REAL_DATA names no folder of real data"
    ),
]
SMALL = [
    "model.width=8",
    "model.heads=2",
    "model.inner_width=16",
    "learning.epochs=2",
    "learning.batch_size=60",
]


@pytest.fixture
def real_data():
    return Path(os.environ["MMCL_REAL_DATA"])


@pytest.mark.parametrize("variant", ["released", "calibrated"])
def test_text_never_seen_in_training_is_said(real_data, tmp_path, variant):
    corpus = read_corpus(real_data / "mmmo/mmmo_published_split.pkl.gz")
    config = resolve_config(model=variant, overrides=SMALL)
    report = train(corpus, config, out=tmp_path / "run").metrics
    assert (
        "text was never seen in training: no training clip has it, so prediction ignores it"
        in report["notes"]
    )
    assert report["test"]["mae"]["num_valid"] == 1
    assert set(report["references"]) == {"constant", "majority", "ridge"}


@pytest.mark.parametrize("variant", ["released", "calibrated"])
def test_classes_of_unequal_lengths_train(real_data, tmp_path, variant):
    corpus = read_corpus(real_data / "ravdess/ravdess_av.pkl.gz")
    config = resolve_config(model=variant, overrides=SMALL)
    report = train(corpus, config, out=tmp_path / "run").metrics
    resampled = any(note.startswith("released needs equal lengths") for note in report["notes"])
    assert resampled == (variant == "released")
    assert 0 < report["test"]["accuracy"]["mean"] <= 1
    # Logistic regression on both modalities; the data's own description says .55.
    assert report["references"]["ridge"]["test"]["accuracy"] == pytest.approx(0.55, abs=0.02)
