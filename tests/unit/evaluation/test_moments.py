"""Moments: what networks say of each clip, and what masking a part of it changes."""

import numpy as np
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Word
from mmcl.corpus.store import pack_corpus
from mmcl.errors import RunError
from mmcl.evaluation.moments import moments_of
from mmcl.runs.run import train

# The same float32 sums over batches that are padded otherwise.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus, tiny_config):
    folder = tmp_path_factory.mktemp("moments") / "run"
    return train(tiny_corpus, tiny_config(), out=folder, seeds=(3, 1))


@pytest.fixture(scope="module")
def few(tiny_corpus):
    """Four clips: whole, without vision, with text alone, with three steps of vision missing."""
    clips = list(corpus_clips(tiny_corpus))[-4:]
    parts = [clips[0].features, dict(clips[1].features), {}, dict(clips[3].features)]
    del parts[1]["vision"]
    parts[2] = {"text": clips[2].features["text"]}
    parts[3]["vision"] = parts[3]["vision"].copy()
    parts[3]["vision"][[0, 4, 5]] = 0.0
    changed = [c.model_copy(update={"features": f}) for c, f in zip(clips, parts, strict=True)]
    card = tiny_corpus.card.model_copy(update={"missing_as_zero": True})
    return pack_corpus(card, changed)


@pytest.fixture(scope="module")
def moments(run, few):
    return run.moments(few)


def _predictions(run, clips, card):
    return run.predict(pack_corpus(card, clips)).column("prediction").to_pylist()


def test_predictions_are_those_of_predict(run, tiny_corpus):
    table = run.predict(tiny_corpus).to_pydict()
    moments = run.moments(tiny_corpus)
    assert [m.id for m in moments] == table["id"]
    assert [m.prediction for m in moments] == table["prediction"]
    assert [m.spread for m in moments] == table["spread"]
    assert {m.probability for m in moments} == {None}


def test_present_modalities_are_those_of_the_clip(moments):
    every = ("text", "audio", "vision")
    assert [m.present for m in moments] == [every, ("text", "audio"), ("text",), every]


def test_share_of_an_absent_modality_is_nothing(moments):
    assert [list(m.share) for m in moments] == [["text", "audio", "vision"]] * 4
    assert moments[1].share["vision"] == 0.0
    assert (moments[2].share["audio"], moments[2].share["vision"]) == (0.0, 0.0)
    assert all(share != 0.0 for share in moments[0].share.values())


@pytest.mark.parametrize("modality", ["text", "audio", "vision"])
def test_share_is_what_leaving_it_out_changes(run, few, moments, modality):
    clip = next(few.every_clip().clips())
    rest = {m: steps for m, steps in clip.features.items() if m != modality}
    (without,) = _predictions(run, [clip.model_copy(update={"features": rest})], few.card)
    expected = moments[0].prediction - without
    assert moments[0].share[modality] == pytest.approx(expected, abs=TOLERANCE)


def test_word_share_is_what_a_missing_word_changes(run, few, moments):
    clip = next(few.every_clip().clips())
    for at in (0, 7):
        text = clip.features["text"].copy()
        text[at] = 0.0
        changed = clip.model_copy(update={"features": {**clip.features, "text": text}})
        (without,) = _predictions(run, [changed], few.card)
        expected = moments[0].prediction - without
        assert moments[0].word_share[at] == pytest.approx(expected, abs=TOLERANCE)
    assert len(moments[0].word_share) == len(clip.features["text"])


def test_word_is_masked_in_the_vectors_of_the_others_too(run, few):
    """In vectors of whole sentences every word knows of every other one."""
    clip = next(corpus_clips(few))
    own = {f"w{at}": steps for at, steps in enumerate(clip.features["text"])}

    def encode(sentences):
        return [
            np.stack([own[w] + sum(own[o] for o in words) for w in words]) for words in sentences
        ]

    names = list(own)
    words = tuple(Word(text=name) for name in names)

    def spoken(said):
        """The clip with vectors of these words; the others are zeros, which means missing."""
        steps = np.zeros_like(clip.features["text"])
        steps[[names.index(name) for name in said]] = encode([said])[0]
        features = {**clip.features, "text": steps}
        return clip.model_copy(update={"features": features, "words": words})

    (moments,) = run.moments(pack_corpus(few.card, [spoken(names)]), encode=encode)
    without = [[name for name in names if name != out] for out in names]
    whole, *left = _predictions(
        run,
        [
            spoken(said).model_copy(update={"id": str(at)})
            for at, said in enumerate([names, *without])
        ],
        few.card,
    )
    assert moments.word_share == pytest.approx(whole - np.array(left), abs=TOLERANCE)
    (plain,) = run.moments(pack_corpus(few.card, [spoken(names)]))
    assert np.abs(plain.word_share - moments.word_share).max() > 100 * TOLERANCE


def test_arrays_have_the_steps_of_the_clip(few, moments):
    for clip, moment in zip(few.every_clip().clips(), moments, strict=True):
        for values in (moment.commonality, moment.action, moment.keep_probability):
            assert {m: len(v) for m, v in values.items()} == {
                m: len(steps) for m, steps in clip.features.items()
            }
            assert all(0 <= v.min() <= v.max() <= 1 for v in values.values())


def test_missing_steps_are_found_and_never_kept(moments):
    missing = np.flatnonzero(~moments[3].found["vision"])
    assert missing.tolist() == [0, 4, 5]
    assert not moments[3].action["vision"][missing].any()
    assert moments[0].found["vision"].all()


def test_arrays_are_the_mean_of_the_seeds(run, few, moments):
    each = [moments_of([run.model(seed)], few.every_clip()) for seed in run.seeds]
    for at, moment in enumerate(moments):
        for name in ("action", "keep_probability", "commonality"):
            parts = [getattr(seed[at], name) for seed in each]
            for modality, values in getattr(moment, name).items():
                mean = (parts[0][modality] + parts[1][modality]) / 2
                np.testing.assert_allclose(values, mean, rtol=0, atol=TOLERANCE)


def test_moments_follow_their_own_clip(run, few, moments):
    order = [2, 0, 3, 1]
    clips = list(few.every_clip().clips())
    shuffled = run.moments(pack_corpus(few.card, [clips[at] for at in order]))
    for at, moment in zip(order, shuffled, strict=True):
        assert moment.id == moments[at].id
        assert moment.prediction == pytest.approx(moments[at].prediction, abs=TOLERANCE)
        assert moment.share == pytest.approx(moments[at].share, abs=TOLERANCE)
        np.testing.assert_allclose(
            moment.word_share, moments[at].word_share, rtol=0, atol=TOLERANCE
        )


def test_one_seed_has_no_spread(run, few):
    assert [m.spread for m in moments_of([run.model()], few.every_clip())] == [None] * 4


def test_no_clip_has_no_moments(run, few):
    assert moments_of([run.model()], few.every_clip().select([])) == []


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_probability_is_of_what_is_predicted(tmp_path, planted, tiny_config, task):
    corpus = planted(task=task)
    run = train(corpus, tiny_config(), out=tmp_path / "run", seeds=(1, 2))
    moments = run.moments(corpus)
    assert [m.prediction for m in moments] == run.predict(corpus).to_pydict()["prediction"]
    for moment in moments[:8]:
        by_name = moment.probabilities
        assert tuple(by_name) == corpus.card.task.names
        if task == "classes":
            assert sum(by_name.values()) == pytest.approx(1.0)
            assert moment.probability == by_name[moment.prediction] == max(by_name.values())
        else:
            sure = [p if n in moment.prediction else 1 - p for n, p in by_name.items()]
            assert moment.probability == pytest.approx(np.mean(sure))
        assert all(-1 <= share <= 1 for share in moment.share.values())
        assert len(moment.word_share) == len(moment.action["text"])


@pytest.mark.parametrize("aligned", [True, False])
def test_released_has_moments_of_its_own_steps(tmp_path, planted, tiny_config, aligned):
    corpus = planted(aligned=aligned)
    config = tiny_config("model.steps=12", model="released")
    run = train(corpus, config, out=tmp_path / "run")
    for clip, moment in zip(corpus_clips(corpus), run.moments(corpus), strict=True):
        assert {m: len(v) for m, v in moment.action.items()} == {
            m: len(steps) for m, steps in clip.features.items()
        }
        assert np.isfinite(moment.word_share).all()
        assert len(moment.word_share) == len(clip.features["text"])


def test_modality_never_seen_in_training_has_no_share(tmp_path, tiny_settings, tiny_config):
    clips = [
        clip.model_copy(
            update={"features": {m: x for m, x in clip.features.items() if m != "audio"}}
        )
        if clip.split == "train"
        else clip
        for clip in plant_clips(tiny_settings)
    ]
    corpus = pack_corpus(plant_card(tiny_settings), clips)
    run = train(corpus, tiny_config("learning.epochs=1"), out=tmp_path / "run")
    (moment,) = run.moments(pack_corpus(corpus.card, clips[-1:]))
    assert (list(moment.share), moment.present) == (["text", "vision"], ("text", "vision"))


def test_corpus_that_does_not_fit_is_refused(run, planted):
    with pytest.raises(RunError, match="its task is classes"):
        run.moments(planted(task="classes"))


# ---------------------------------------------------------------- the yardstick


def test_validation_error_is_that_of_the_run(run, tmp_path, planted, tiny_config):
    assert run.validation_error == run.metrics["valid"]["mae"]["mean"]
    classes = train(planted(task="classes"), tiny_config(), out=tmp_path / "run")
    assert classes.validation_error is None
