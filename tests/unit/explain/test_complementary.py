"""Probes, alignment, distributions: laws, and answers worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import ShapeError
from mmcl.evaluation.planted import ROLE_METRICS
from mmcl.explain.complementary import (
    Pooled,
    action_distribution,
    label_groups,
    linear_cka,
    planted_answers,
    pool,
    probes,
    redundancy,
)
from mmcl.learning.inference import score_split
from mmcl.learning.loop import build_model

SCORE = Task(kind="regression", low=-9, high=9)
MODALITIES = ("text", "audio", "vision")


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def _pooled(rng, count, width=2):
    parts = [rng.normal(size=(3, count, width)) for _ in range(2)]
    return Pooled(*parts, np.ones((3, count), dtype=bool))


# ---------------------------------------------------------------- alignment


def test_cka_of_equal_features_is_one(rng):
    x = rng.normal(size=(30, 5))
    assert linear_cka(x, x) == pytest.approx(1.0)


def test_cka_knows_no_rotation_scale_or_shift(rng):
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    changed = 7.0 * x @ rotation + rng.normal(size=5)
    assert linear_cka(changed, y) == pytest.approx(linear_cka(x, y))
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y))
    stretched = x * [1.0, 1.0, 1.0, 1.0, 9.0]  # not a rotation, so it may change
    assert abs(linear_cka(stretched, y) - linear_cka(x, y)) > 1e-3


def test_cka_worked_by_hand():
    # Of single columns it is the squared correlation.
    x, y = np.array([[0.0], [1.0], [2.0], [5.0]]), np.array([[1.0], [0.0], [4.0], [4.0]])
    expected = np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2
    assert linear_cka(x, y) == pytest.approx(expected)


def test_cka_of_independent_features_is_low(rng):
    x, y = rng.normal(size=(2000, 5)), rng.normal(size=(2000, 5))
    assert linear_cka(x, y) < 0.01


def test_cka_of_a_constant_is_undefined(rng):
    assert np.isnan(linear_cka(np.ones((8, 2)), rng.normal(size=(8, 3))))


def test_cka_refuses_other_clips():
    with pytest.raises(ShapeError) as caught:
        linear_cka(np.zeros((8, 2)), np.zeros((7, 3)))
    assert str(caught.value) == (
        "x and y must be 2-D [clips, features] of the same clips, got [8, 2] and [7, 3]"
    )


def test_redundancy_finds_the_pair_that_is_alike(rng):
    pooled = _pooled(rng, 300)
    pooled.common[2] = pooled.common[0] * 2.0
    rows = redundancy(MODALITIES, [pooled, pooled])
    assert [row["pair"] for row in rows] == [
        ["text", "audio"],
        ["text", "vision"],
        ["audio", "vision"],
    ]
    assert rows[1]["common"]["value"] == pytest.approx(1.0)
    assert rows[1]["common"]["floor"] < 0.05
    others = [rows[0]["common"], rows[2]["common"], *(row["complementary"] for row in rows)]
    assert all(each["value"] < 0.05 for each in others)


def test_redundancy_leaves_out_clips_that_lack_one(rng):
    pooled = _pooled(rng, 40)
    pooled.common[1, :30] = pooled.common[0, :30]
    pooled.present[1, 30:] = False
    rows = redundancy(MODALITIES, [pooled])
    assert rows[0]["common"]["value"] == pytest.approx(1.0)
    pooled.present[1] = False
    assert redundancy(MODALITIES, [pooled])[0]["common"] == {"value": None, "floor": None}


# ---------------------------------------------------------------- probes


def _labelled(rng, count):
    """The label is text's common part, and what audio's complementary features alone know."""
    pooled = _pooled(rng, count)
    pooled.complementary[2] = pooled.common[0]  # vision copies what text has said already
    noise = 0.1 * rng.normal(size=count)
    return pooled, pooled.common[0, :, 0] + pooled.complementary[1, :, 1] + noise


def test_probe_finds_what_alone_carries_the_rest(rng):
    train, valid, test = (_labelled(rng, count) for count in (200, 60, 150))
    found = probes(SCORE, MODALITIES, [train], [test], [valid])
    assert list(found) == list(MODALITIES)
    audio = found["audio"]
    assert audio.without == pytest.approx(0.5, abs=0.12)
    assert audio.increment.value == pytest.approx(0.5, abs=0.12)
    assert (audio.increment.low > 0.3, audio.increment.p < 0.01) == (True, True)
    # A copy, and noise: nothing beyond the cost of a few more columns.
    for name in ("text", "vision"):
        assert abs(found[name].increment.value) < 0.005
        assert found[name].without > 0.98


def test_probe_increment_completes_the_score(rng):
    train, test = _labelled(rng, 200), _labelled(rng, 150)
    found = probes(SCORE, MODALITIES, [train], [test])
    totals = [each.without + each.increment.value for each in found.values()]
    assert totals == pytest.approx([totals[0]] * 3)  # all of them end at the whole model


def test_probe_is_the_mean_over_seeds(rng):
    truth = rng.normal(size=150)
    seeds = []
    for strength in (0.0, 1.0):
        parts = [_pooled(rng, 150) for _ in range(2)]
        for pooled in parts:
            pooled.complementary[1, :, 0] = strength * truth + 0.01 * rng.normal(size=150)
        seeds.append([(pooled, truth) for pooled in parts])
    train, test = zip(*seeds, strict=True)
    both = probes(SCORE, MODALITIES, train, test)["audio"]
    each = [probes(SCORE, MODALITIES, [a], [b])["audio"] for a, b in seeds]
    assert both.without == pytest.approx(np.mean([e.without for e in each]))
    assert both.increment.value == pytest.approx(np.mean([e.increment.value for e in each]))


@pytest.mark.parametrize("kind", ["classes", "emotions"])
def test_probe_of_answers_counts_right_ones(rng, kind):
    task = Task(kind=kind, names=("no", "yes"))

    def labelled(count):
        pooled = _pooled(rng, count)
        yes = (pooled.complementary[2, :, 0] > 0).astype(np.int64)
        return pooled, yes if kind == "classes" else np.stack([1 - yes, yes], axis=1)

    found = probes(task, MODALITIES, [labelled(200)], [labelled(150)], [labelled(60)])
    assert found["vision"].without == pytest.approx(0.5, abs=0.12)
    assert found["vision"].increment.value > 0.35
    assert abs(found["audio"].increment.value) < 0.05


def test_pool_is_what_the_network_fuses(planted, tiny_config):
    corpus = planted(aligned=False)
    model = build_model(corpus, tiny_config()).eval()
    split = corpus.split("valid")
    pooled = pool(model, split, batch_size=3)
    assert pooled.common.shape == pooled.complementary.shape == (3, 8, 8)
    whole = pool(model, split)
    np.testing.assert_allclose(pooled.common, whole.common, rtol=0, atol=1e-5)  # float32 sums
    np.testing.assert_allclose(pooled.complementary, whole.complementary, rtol=0, atol=1e-5)
    assert pooled.present.all()
    rows = np.array([4, 1])
    np.testing.assert_array_equal(pooled.take(rows).common, pooled.common[:, rows])
    np.testing.assert_array_equal(pooled.take(rows).complementary, pooled.complementary[:, rows])


# ---------------------------------------------------------------- actions


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (
            SCORE,
            [-1.5, 0.0, 2.0, None],
            {"negative": [0], "zero": [1], "positive": [2]},
        ),
        (
            Task(kind="regression", low=1, high=5),
            [2.0, 3.0, 4.5, None],
            {"negative": [0], "middle": [1], "positive": [2]},
        ),
        (Task(kind="classes", names=("a", "b")), [1, 0, None, 1], {"a": [1], "b": [0, 3]}),
        (
            Task(kind="emotions", names=("a", "b")),
            [(1, 1), (0, 1), (0, 0), None],
            {"a": [0], "b": [0, 1]},
        ),
    ],
    ids=["scores", "stars", "classes", "emotions"],
)
def test_label_groups(task, labels, expected):
    card = Card(name="x", task=task, dims={"text": 1}, counts={}, aligned=False)
    clips = [
        Clip(id=str(at), split="valid", features={"text": np.ones((2, 1))}, label=label)
        for at, label in enumerate(labels)
    ]
    groups = label_groups(pack_corpus(card, clips).split("valid"))
    found = {name: np.flatnonzero(held).tolist() for name, held in groups.items()}
    assert found == {"all": [0, 1, 2, 3], **expected}


def test_action_distribution_worked_by_hand():
    card = Card(name="x", task=SCORE, dims={"text": 1, "audio": 1}, counts={}, aligned=False)
    lengths = ((2, 1), (1, 0))
    clips = [
        Clip(
            id=str(at),
            split="valid",
            features={"text": np.ones((t, 1)), **({"audio": np.ones((a, 1))} if a else {})},
            label=label,
        )
        for at, ((t, a), label) in enumerate(zip(lengths, (1.0, -1.0), strict=True))
    ]
    split = pack_corpus(card, clips).split("valid")
    policy = SimpleNamespace(least_kept=0.5)
    model = SimpleNamespace(modalities=("text", "audio"), never_seen=(), policy=policy)
    scored = SimpleNamespace(
        keep_probability=[np.array([[0.05, 1.0], [0.35, 0.9]]), np.array([[0.1, 0.0]] * 2)],
        actions=[np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 0.0]] * 2)],
    )
    found = action_distribution([model], [scored], split)
    assert list(found) == ["all", "negative", "positive"]
    text = found["all"]["text"]
    third = pytest.approx(1 / 3)
    assert text["histogram"] == [third, third, 0, 0, 0, 0, 0, 0, 0, third]
    assert text["mean_keep_probability"] == pytest.approx(1.15 / 3)
    assert (text["steps"], text["kept_share"]) == (3, third)
    assert found["positive"]["audio"]["histogram"][3] == 1.0
    assert list(found["negative"]) == ["text"]
    twice = action_distribution([model, model], [scored, scored], split)
    assert twice == found


# ---------------------------------------------------------------- the planted truth


def _moments_of(split, change):
    planted = [dict(row) for row in split.table.column("planted").to_pylist()]
    return {
        name: SimpleNamespace(share={m: change(scores[m]) for m in MODALITIES})
        for name, scores in zip(split.ids, planted, strict=True)
    }


@pytest.mark.parametrize(
    ("change", "correlation", "right"),
    [(lambda s: 2 * s, 1.0, 1.0), (lambda s: -s, -1.0, 0.0), (lambda s: 0.0, None, 0.0)],
    ids=["right", "reversed", "nothing"],
)
def test_planted_shares(tiny_corpus, tiny_config, change, correlation, right):
    split = tiny_corpus.split("valid")
    model = build_model(tiny_corpus, tiny_config()).eval()
    scored = score_split(model, split)
    moments = _moments_of(split, change)
    moments.pop(split.ids[2])  # not every clip needs to be shown
    found = planted_answers([model, model], [scored, scored], split, moments)
    assert sorted(found) == sorted([*ROLE_METRICS, "share"])
    assert found["common_auroc"]["num_valid"] == 2
    for row in found["share"].values():
        if correlation is None:
            assert row["correlation"] is None
        else:
            assert row["correlation"] == pytest.approx(correlation)
        assert row["right_sign"] == right


def test_nothing_planted_has_no_answers(tiny_settings, tiny_config):
    card = plant_card(tiny_settings).model_copy(update={"recipe": {}})
    clips = [c.model_copy(update={"planted": None}) for c in plant_clips(tiny_settings)]
    corpus = pack_corpus(card, clips)
    model = build_model(corpus, tiny_config()).eval()
    split = corpus.split("valid")
    assert planted_answers([model], [score_split(model, split)], split, {}) is None
