"""The protocol: nothing that trains or chooses can see the test split, and what is scored."""

import numpy as np
import pytest
import torch

from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.errors import SealedSplitError
from mmcl.evaluation import protocol
from mmcl.evaluation.metrics import Metrics
from mmcl.evaluation.protocol import (
    JUDGED,
    Judged,
    answers,
    judge,
    judged_split,
    pooled_features,
    prediction_table,
    reference_metrics,
)
from mmcl.learning.inference import Scored, score_split
from mmcl.learning.loop import build_model, fit

WIDTHS = {"text": 2, "audio": 1, "vision": 3}


def _fit(corpus, config, folder):
    fitted = fit(corpus.development(), config, seed=1, folder=folder)
    history = [row._replace(clips_per_second=0.0) for row in fitted.history]
    return dict(fitted.model.state_dict()), history, fitted.best_epoch


def _check_equal(one, other):
    assert one[1:] == other[1:]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


# ---------------------------------------------------------------- the door


@pytest.mark.parametrize("kind", ["rloo", "ddpg"])
def test_training_never_opens_the_test_split(tmp_path, tiny_corpus, tiny_config, monkeypatch, kind):
    config = tiny_config(f"policy.kind={kind}")
    free = _fit(tiny_corpus, config, tmp_path / "free")

    def refuse(self):
        raise AssertionError("training asked for the test split")

    monkeypatch.setattr(Corpus, "open_test_split", refuse)
    monkeypatch.setattr(Corpus, "every_clip", refuse)
    _check_equal(_fit(tiny_corpus, config, tmp_path / "locked"), free)


@pytest.mark.parametrize("kind", ["rloo", "ddpg"])
def test_training_does_not_depend_on_test_clips(
    tmp_path, tiny_corpus, tiny_settings, tiny_config, kind
):
    rng = np.random.default_rng(9)

    def spoil(clip):
        if clip.split != "test":
            return clip
        garbage = {
            m: (1e6 * rng.normal(size=steps.shape)).astype(np.float32)
            for m, steps in clip.features.items()
        }
        return clip.model_copy(update={"features": garbage, "label": 3.0, "planted": None})

    card = plant_card(tiny_settings)
    spoilt = pack_corpus(card, map(spoil, plant_clips(tiny_settings)))
    assert spoilt.checksum() != tiny_corpus.checksum()
    config = tiny_config(f"policy.kind={kind}")
    _check_equal(
        _fit(spoilt, config, tmp_path / "spoilt"), _fit(tiny_corpus, config, tmp_path / "true")
    )


def test_test_split_is_sealed(tiny_corpus):
    with pytest.raises(SealedSplitError) as caught:
        tiny_corpus.split("test")
    assert str(caught.value) == (
        'the test split is sealed: training, selection and tuning use "train" and "valid".\n'
        "  To score a run on it: mmcl evaluate RUN"
    )


def test_development_holds_no_test_clip(tiny_corpus):
    development = tiny_corpus.development()
    assert development.card.counts == {"train": 24, "valid": 8}
    assert len(development.open_test_split()) == 0
    every = development.every_clip()
    assert set(every.table.column("split").to_pylist()) == {"train", "valid"}
    assert every.ids == tiny_corpus.split("train").ids + tiny_corpus.split("valid").ids


def test_the_protocol_is_the_door(tiny_corpus):
    assert JUDGED == ("valid", "test")
    assert judged_split(tiny_corpus, "test").ids == [f"test_{row:06d}" for row in range(8)]
    assert judged_split(tiny_corpus, "valid").ids == tiny_corpus.split("valid").ids


# ---------------------------------------------------------------- judging


def test_judge_scores_the_split_it_is_asked_for(tiny_corpus, tiny_config):
    torch.manual_seed(1)
    model = build_model(tiny_corpus.development(), tiny_config())
    for name in JUDGED:
        judged = judge(model, tiny_corpus, name, preset="mmsa", batch_size=3)
        assert judged.split.name == name
        labels = judged.split.labels()
        assert judged.metrics.values["mae"] == pytest.approx(
            np.abs(labels - judged.scored.scores).mean(), abs=1e-6
        )
        assert judged.metrics.preset == "mmsa"
        assert {"common_auroc", "action_auroc"} <= judged.metrics.values.keys()


def test_size_of_batches_changes_no_score(planted, tiny_config):
    corpus = planted(aligned=False)  # clips of other lengths: padding changes with the batch
    torch.manual_seed(1)
    model = build_model(corpus.development(), tiny_config())
    one, other = (
        judge(model, corpus, "test", preset="mmsa", batch_size=size).scored for size in (1, 8)
    )
    # float32 sums in another order.
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    for row in range(8):
        for m, modality in enumerate(("text", "audio", "vision")):
            n = len(corpus.open_test_split().steps(modality, row))
            np.testing.assert_allclose(
                one.commonality[row][m, :n], other.commonality[row][m, :n], atol=1e-5
            )
            assert not other.commonality[row][m, n:].any()


def test_references_are_fitted_on_train_and_scored_on_the_split(tiny_corpus):
    train = tiny_corpus.split("train").labels()
    for name in JUDGED:
        rows = reference_metrics(tiny_corpus, name, preset="mmsa")
        assert list(rows) == ["constant", "majority", "ridge"]
        labels = judged_split(tiny_corpus, name).labels()
        expected = np.abs(labels - np.median(train)).mean()
        # Labels are rounded to six decimals before they are fitted.
        assert rows["constant"].values["mae"] == pytest.approx(expected, abs=2e-6)
        assert rows["ridge"].values["mae"] < rows["constant"].values["mae"]


def test_references_are_fitted_on_no_more_clips_than_fit(tiny_settings, monkeypatch):
    # 24 clips of 168 features; room for eight: every third.
    corpus = pack_corpus(plant_card(tiny_settings), plant_clips(tiny_settings))
    assert protocol.reference_notes(corpus) == []
    monkeypatch.setattr(protocol, "MOST_VALUES_FOR_REFERENCES", 8 * 168 + 167)
    assert protocol.reference_notes(corpus) == [
        "the reference rows are fitted on 8 of 24 training clips, evenly spaced"
    ]
    few = corpus.split("train").labels()[::3]
    rows = protocol.reference_predictions(corpus, "test")
    assert rows["constant"].scores[0] == pytest.approx(np.median(few), abs=2e-6)


# ---------------------------------------------------------------- pooled features


@pytest.fixture
def ragged():
    def clip(row, split="train", **features):
        arrays = {m: np.array(steps, dtype=np.float32) for m, steps in features.items()}
        return Clip(id=str(row), split=split, label=0.0, features=arrays)

    from mmcl.corpus.schema import Card

    card = Card(
        name="toy",
        task=Task(kind="regression", low=-1, high=1),
        dims=WIDTHS,
        counts={},
        aligned=False,
    )
    clips = [
        clip(0, text=[[1, 2], [3, 6]], audio=[[5]], vision=[[1, 0, 2]]),
        clip(1, text=[[7, 9]], vision=[[0, 1, 1], [3, 1, 4], [0, 4, 1]]),
    ]
    return pack_corpus(card, clips).split("train")


def test_pooled_features_worked_by_hand(ragged):
    expected = [[2, 4, 5, 1, 0, 2], [7, 9, 0, 1, 2, 2]]
    found = pooled_features(ragged)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_pooled_features_of_some_clips(ragged):
    np.testing.assert_array_equal(
        pooled_features(ragged, rows=np.array([1, 0, 1])), pooled_features(ragged)[[1, 0, 1]]
    )


def test_pooled_features_of_some_modalities(ragged):
    expected = [[1, 0, 2, 5], [1, 2, 2, 0]]
    np.testing.assert_array_equal(pooled_features(ragged, ("vision", "audio")), expected)


def test_missing_steps_are_not_pooled():
    from mmcl.corpus.schema import Card

    card = Card(
        name="toy",
        task=Task(kind="regression", low=-1, high=1),
        dims={"audio": 1, "vision": 2},
        counts={},
        aligned=True,
        missing_as_zero=True,
    )
    features = {
        "audio": np.zeros((3, 1), dtype=np.float32),
        "vision": np.array([[0, 0], [2, 0], [4, 1]], dtype=np.float32),
    }
    clip = Clip(id="0", split="train", label=0.0, features=features)
    split = pack_corpus(card, [clip]).split("train")
    np.testing.assert_array_equal(pooled_features(split), [[0, 3, 0.5]])


def test_pooled_features_are_averaged_in_float64():
    from mmcl.corpus.schema import Card

    # Half of the last step a float16 can make above 1: it would be rounded away.
    steps = np.array([[1.0], [1.0 + 2**-10]], dtype=np.float16)
    card = Card(
        name="toy",
        task=Task(kind="regression", low=-1, high=1),
        dims={"audio": 1},
        counts={},
        aligned=False,
    )
    clip = Clip(id="0", split="train", label=0.0, features={"audio": steps})
    split = pack_corpus(card, [clip], dtype="float16").split("train")
    np.testing.assert_array_equal(pooled_features(split), [[1.0 + 2**-11]])


# ---------------------------------------------------------------- answers and tables


def test_answers_of_every_task():
    names = ("a", "b", "c")
    regression = Task(kind="regression", low=-3, high=3)
    assert answers(regression, np.array([0.5, -1.25])) == [0.5, -1.25]
    classes = np.array([[0.1, 0.3, 0.2], [2.0, -1.0, 1.0]])
    assert answers(Task(kind="classes", names=names), classes) == [1, 0]
    emotions = np.array([[[0, 1], [1, 0], [2, 3]], [[3, 1], [0, 2], [1, 0]]], dtype=float)
    assert answers(Task(kind="emotions", names=names), emotions) == [[1, 0, 1], [0, 1, 0]]


def _judged(corpus, scores):
    return Judged(corpus.open_test_split(), Scored(scores, [], [], []), Metrics({}, (), "", 0))


def _hide_first(clip):
    return clip.model_copy(update={"label": None}) if clip.id == "test_000000" else clip


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_prediction_table(planted, task):
    from mmcl.corpus.plant import PlantSettings

    settings = PlantSettings(train=1, valid=1, test=3, task=task)
    corpus = pack_corpus(plant_card(settings), map(_hide_first, plant_clips(settings)))
    shape = {"regression": (3,), "classes": (3, 3), "emotions": (3, 4, 2)}[task]
    scores = np.random.default_rng(4).normal(size=shape)
    table = prediction_table(_judged(corpus, scores), seed=11)

    assert table.column_names == ["seed", "id", "split", "truth", "prediction", "scores"]
    found = table.to_pydict()
    assert found["seed"] == [11, 11, 11]
    assert found["id"] == ["test_000000", "test_000001", "test_000002"]
    assert found["split"] == ["test"] * 3
    labels = corpus.open_test_split().labels().tolist()
    assert found["truth"] == [None, *labels[1:]]
    assert found["prediction"] == answers(corpus.card.task, scores)
    assert found["scores"] == scores.reshape(3, -1).tolist()


def test_scoring_an_empty_split_gives_no_score(tiny_corpus, tiny_config):
    development = tiny_corpus.development()
    model = build_model(development, tiny_config())
    scored = score_split(model, development.open_test_split())
    assert [len(part) for part in scored] == [0, 0, 0, 0]
