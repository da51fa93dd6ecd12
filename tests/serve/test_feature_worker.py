"""Features through a run: as Run.predict says of the same clips, whatever stands beside them."""

import numpy as np
import pytest

from mmcl.runs.run import Run, train
from mmcl.serve import feature_worker
from mmcl.serve.feature_worker import expected_of, predict_features
from mmcl.serve.features import Features
from mmcl.serve.limits import Limits

# Other clips in a batch change the padding, and with it the order of float32 sums.
TOLERANCE = {"rtol": 0.0, "atol": 1e-6}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_config):
    """Train a tiny run: ``trained(corpus, "calibrated", seeds)``."""
    folder = tmp_path_factory.mktemp("trained")

    def make(corpus, model, seeds=(1, 2)):
        name = folder / f"{model}-{corpus.card.task.kind}-{corpus.card.aligned}"
        if not name.exists():
            train(corpus, tiny_config(model=model), out=name, seeds=seeds)
        return Run.load(name)

    return make


def features_of(corpus):
    return [
        Features(clip.id, {m: np.asarray(x, np.float32) for m, x in clip.features.items()})
        for clip in corpus.every_clip().clips()
    ]


@pytest.mark.parametrize(
    ("model", "task", "aligned"),
    [
        ("calibrated", "regression", True),
        ("calibrated", "classes", False),
        ("released", "emotions", True),
        ("late_fusion", "regression", False),
    ],
)
def test_predictions_are_those_of_the_run(trained, planted, model, task, aligned):
    corpus = planted(task=task, aligned=aligned)
    run = trained(corpus, model)
    table = run.predict(corpus)
    found = predict_features(run, features_of(corpus), Limits(clips_at_once=7))
    if task == "regression":
        np.testing.assert_allclose(
            [each.prediction for each in found], table["prediction"].to_pylist(), **TOLERANCE
        )
        assert {each.probabilities for each in found} == {None}
    else:
        assert [each.prediction for each in found] == table["prediction"].to_pylist()
        for each in found:
            assert list(each.probabilities) == list(corpus.card.task.names)
            if task == "classes":
                assert sum(each.probabilities.values()) == pytest.approx(1, abs=1e-6)
                assert max(each.probabilities, key=each.probabilities.get) == each.prediction
            else:
                held = [name for name, p in each.probabilities.items() if p > 0.5]
                assert held == each.prediction
    np.testing.assert_allclose(
        [each.spread for each in found], table["spread"].to_pylist(), **TOLERANCE
    )


def test_a_clip_alone_is_as_among_others(trained, planted):
    corpus = planted(aligned=False)
    run, clips = trained(corpus, "calibrated"), features_of(corpus)
    together = predict_features(run, clips, Limits())
    for at in (0, 17, 39):
        (alone,) = predict_features(run, [clips[at]], Limits())
        assert alone.prediction == pytest.approx(together[at].prediction, abs=1e-6)


def test_an_absent_modality_is_predicted_without(trained, planted):
    corpus = planted()
    run, clip = trained(corpus, "calibrated"), features_of(planted())[0]
    whole, deaf = predict_features(
        run, [clip, Features("b", {m: x for m, x in clip.steps.items() if m != "audio"})], Limits()
    )
    assert whole.prediction != pytest.approx(deaf.prediction, abs=1e-4)


def test_batches_keep_to_the_limits(monkeypatch, trained, planted):
    run = trained(planted(), "calibrated")
    sizes = []

    def noted(run, clips):
        sizes.append((len(clips), max(clip.longest for clip in clips)))
        return original(run, clips)

    original = feature_worker._predict_block
    monkeypatch.setattr(feature_worker, "_predict_block", noted)
    clips = [
        Features(str(n), {"text": np.ones((n, 96), np.float32)}) for n in (30, 1, 2, 40, 3, 1, 50)
    ]
    found = predict_features(run, clips, Limits(clips_at_once=3, pairs_at_once=2500))
    assert sizes == [(3, 2), (2, 30), (1, 40), (1, 50)]
    for clip, each in zip(clips, found, strict=True):  # whatever order they went in
        (alone,) = predict_features(run, [clip], Limits())
        assert each.prediction == pytest.approx(alone.prediction, abs=1e-6)


def test_what_a_run_takes(trained, planted):
    run = trained(planted(), "calibrated")
    expected = expected_of(run)
    assert (dict(expected.dims), expected.equal_lengths) == (
        {"text": 96, "audio": 48, "vision": 24},
        False,
    )
    assert expected_of(trained(planted(task="emotions"), "released")).equal_lengths
