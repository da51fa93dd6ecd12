"""A run that the version before wrote is still read, evaluated and predicted with."""

import shutil
from pathlib import Path

import pyarrow.csv
import pytest

from mmcl.cli.main import main
from mmcl.corpus.readers import read_corpus
from mmcl.runs.run import Run

EARLIER = Path(__file__).parents[1] / "golden" / "earlier-run"

# The same float32 weights through sums in another order: a few ulps of scores up to 3.
TOLERANCE = 1e-5


@pytest.fixture
def run():
    return Run.load(EARLIER / "run")


def test_an_earlier_run_predicts_what_it_predicted(run):
    table = run.predict(read_corpus(EARLIER / "planted.arrow"))
    before = pyarrow.csv.read_csv(EARLIER / "predictions.csv")
    assert table["id"].to_pylist() == before["id"].to_pylist()
    for column in ("prediction", "spread"):
        assert table[column].to_pylist() == pytest.approx(
            before[column].to_pylist(), rel=0, abs=TOLERANCE
        )


def test_an_earlier_run_scores_what_it_scored(run):
    corpus = read_corpus(EARLIER / "planted.arrow")
    now, before = run.evaluate(corpus), run.metrics
    assert now["seeds"] == [1, 2]
    for split in ("valid", "test"):
        for key in ("mae", "corr", "common_auroc", "action_auroc"):
            assert now[split][key]["mean"] == pytest.approx(
                before[split][key]["mean"], rel=0, abs=TOLERANCE
            )


def test_an_earlier_run_is_not_trained_again_when_it_is_resumed(tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(EARLIER / "run", folder)
    weights = folder / "seed-1/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    words = "--seeds 1,2 --resume --set model.width=8 --set model.heads=2 --set model.inner_width=8"
    words += " --set learning.epochs=2 --set learning.batch_size=8 --set runtime.threads=1"
    words += " --set policy.kind=rloo --set policy.keep=1 --set learning.step_dropout=0"  # as then

    code = main(["train", str(EARLIER / "planted.arrow"), "--out", str(folder), *words.split()])

    assert code == 0, capsys.readouterr().err
    assert weights.stat().st_mtime_ns == before
