"""Curves: worked by hand on a network that reads one step, then laws of real networks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.explain.curves import (
    FRACTIONS,
    areas,
    curves_along,
    importance_of,
    paired_bootstrap,
    policy_errors,
    rank_steps,
    real_steps,
    shuffle_actions,
)
from mmcl.learning.inference import score_split, targets_of
from mmcl.learning.loop import build_model
from mmcl.learning.objectives import item_losses
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network

# The same float32 sums over batches of another size.
TOLERANCE = 1e-5
SCORE = Task(kind="regression", low=-3, high=3)


class OneStep(Network):
    """Predicts the first feature of audio's last step, and 0 where that is masked."""

    def __init__(self):
        super().__init__({"text": 2, "audio": 3}, SCORE)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, features, masks):
        seen = features["audio"][:, 3, 0] * masks["audio"][:, 3]
        return SimpleNamespace(scores=seen)


@pytest.fixture
def small():
    """Three clips of six steps of text and four of audio; the label is audio's last step."""
    rng = np.random.default_rng(5)
    clips = []
    for at, label in enumerate((2.0, -1.0, 0.5)):
        audio = rng.normal(size=(4, 3)).astype(np.float32)
        audio[3, 0] = label
        text = rng.normal(size=(6, 2)).astype(np.float32)
        features = {"text": text, "audio": audio}
        clips.append(Clip(id=f"clip_{at}", split="valid", features=features, label=label))
    card = Card(name="small", task=SCORE, dims={"text": 2, "audio": 3}, counts={}, aligned=False)
    return pack_corpus(card, clips).split("valid")


@pytest.fixture(
    params=[("calibrated", True), ("calibrated", False), ("released", True), ("released", False)],
    ids=lambda p: f"{p[0]}-{'aligned' if p[1] else 'unaligned'}",
)
def fresh(request, planted, tiny_config):
    """An untrained network and the validation clips it can be run on."""
    variant, aligned = request.param
    corpus = planted(aligned=aligned)
    torch.manual_seed(3)
    return build_model(corpus, tiny_config(model=variant)).eval(), corpus.split("valid")


def _random_ranks(model, split, seed):
    real = real_steps(model, split)
    return rank_steps([np.zeros(each.shape) for each in real], real, seed=seed)


def _own_errors(model, split):
    scores = torch.from_numpy(score_split(model, split).scores).float()
    return item_losses(scores, targets_of(split), model.task).numpy()


# ---------------------------------------------------------------- ranks


def test_rank_steps_worked_by_hand():
    # Two modalities of unequal length; the last step of the second is missing.
    importance = [np.array([[0.2, 0.9, 0.1, 7.0], [0.5, 0.0, 8.0, 9.0]])]
    real = [np.array([[True, True, True], [True, True, False]])]
    assert rank_steps(importance, real, seed=0)[0].tolist() == [[2, 0, 3], [1, 4, -1]]


def test_equal_steps_are_ranked_without_favour():
    real = [np.ones((3, 4), dtype=bool)] * 600
    ranks = rank_steps([np.zeros((3, 4))] * 600, real, seed=1)
    assert all(sorted(each.ravel()) == list(range(12)) for each in ranks)
    # The mean of 600 uniform ranks 0..11 has a standard error of 0.14; five of them.
    np.testing.assert_allclose(np.mean(ranks, axis=0), 5.5, atol=0.7)
    assert _same(ranks, rank_steps([np.zeros((3, 4))] * 600, real, seed=1))
    assert not _same(ranks, rank_steps([np.zeros((3, 4))] * 600, real, seed=2))


def _same(left, right):
    return all((a == b).all() for a, b in zip(left, right, strict=True))


def test_real_steps_leave_out_what_is_missing_absent_or_never_seen(small):
    clips = [clip.model_copy() for clip in small.clips()]
    gone = clips[0].features["audio"].copy()
    gone[1] = 0.0
    clips[0] = clips[0].model_copy(update={"features": {**clips[0].features, "audio": gone}})
    clips[1] = clips[1].model_copy(update={"features": {"text": clips[1].features["text"]}})
    card = small.card.model_copy(update={"missing_as_zero": True})
    model = OneStep()
    first, second, third = real_steps(model, pack_corpus(card, clips).split("valid"))
    assert first.tolist() == [[True] * 6, [True, False, True, True, False, False]]
    assert second.tolist() == [[True] * 6, [False] * 6]
    assert third.sum(axis=1).tolist() == [6, 4]
    model.seen[0] = False  # training had no text
    assert [each.sum() for each in real_steps(model, small)] == [4, 4, 4]


def test_importance_joins_both_parts():
    keep, common = np.array([[0.5, 1.0, 0.0]]), np.array([[0.5, 0.0, 0.25]])
    actions = np.array([[0.0, 1.0, 0.0]])
    scored = SimpleNamespace(keep_probability=[keep], actions=[actions], commonality=[common])
    importance = importance_of(scored)
    assert importance["actions"][0].tolist() == keep.tolist()
    assert importance["moments"][0].tolist() == [[0.5, 1.0, 0.25]]


# ---------------------------------------------------------------- curves


def test_perfect_ranking_drops_at_once(small):
    real = real_steps(OneStep(), small)
    perfect = [np.zeros(each.shape) for each in real]
    for each in perfect:
        each[1, 3] = 1.0
    best = curves_along(OneStep(), small, rank_steps(perfect, real, seed=0))
    worst = curves_along(OneStep(), small, rank_steps([-p for p in perfect], real, seed=0))
    size = np.array([[2.0], [1.0], [0.5]])
    # Ten steps, so each tenth is one: the telling one goes first, or last.
    np.testing.assert_array_equal(best.deletion, size * ([0.0] + [1.0] * 10))
    np.testing.assert_array_equal(best.insertion, size * ([1.0] + [0.0] * 10))
    np.testing.assert_array_equal(worst.deletion, size * ([0.0] * 10 + [1.0]))
    np.testing.assert_array_equal(worst.insertion, size * ([1.0] * 10 + [0.0]))
    assert areas(best.deletion).tolist() == pytest.approx([1.9, 0.95, 0.475])


def test_deleting_nothing_is_the_models_own_error(fresh):
    model, split = fresh
    curves = curves_along(model, split, _random_ranks(model, split, 0))
    own = _own_errors(model, split)
    np.testing.assert_allclose(curves.deletion[:, 0], own, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(curves.insertion[:, -1], own, rtol=0, atol=TOLERANCE)


def test_deleting_everything_knows_no_order(fresh):
    model, split = fresh
    one, two = (curves_along(model, split, _random_ranks(model, split, s)) for s in (0, 1))
    np.testing.assert_array_equal(one.deletion[:, -1], two.deletion[:, -1])
    np.testing.assert_array_equal(one.insertion[:, 0], one.deletion[:, -1])
    assert np.abs(one.deletion[:, 5] - two.deletion[:, 5]).max() > 0


def test_a_deleted_step_is_as_if_it_had_never_been(planted, tiny_config):
    corpus = planted()
    torch.manual_seed(3)
    model, split = build_model(corpus, tiny_config()).eval(), corpus.split("valid")
    late = [np.tile(np.arange(20.0), (3, 1))] * len(split)  # the last steps go first
    ranks = rank_steps(late, real_steps(model, split), seed=0)
    curves = curves_along(model, split, ranks)
    cut = [
        clip.model_copy(update={"features": {m: x[:18] for m, x in clip.features.items()}})
        for clip in split.clips()
    ]
    card = corpus.card.model_copy(update={"recipe": {}})  # roles have no place in what is cut
    shorter = pack_corpus(card, cut).split("valid")
    own = _own_errors(model, shorter)
    np.testing.assert_allclose(curves.deletion[:, 1], own, rtol=0, atol=TOLERANCE)


def test_inserting_is_deleting_backwards(planted, tiny_config):
    corpus = planted()  # sixty steps each, so that every tenth is a whole number of them
    torch.manual_seed(3)
    model, split = build_model(corpus, tiny_config()).eval(), corpus.split("valid")
    ranks = _random_ranks(model, split, 0)
    forwards = curves_along(model, split, ranks)
    backwards = curves_along(model, split, [each.max() - each for each in ranks])
    np.testing.assert_allclose(
        forwards.insertion, backwards.deletion[:, ::-1], rtol=0, atol=TOLERANCE
    )


def test_curves_follow_their_own_clip(fresh):
    model, split = fresh
    ranks = _random_ranks(model, split, 0)
    curves = curves_along(model, split, ranks)
    order = [5, 0, 7, 3]
    shuffled = curves_along(model, split.select(order), [ranks[at] for at in order], batch_size=3)
    for mine, theirs in zip(shuffled, curves, strict=True):
        np.testing.assert_allclose(mine, theirs[order], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_errors_of_classes_and_emotions_are_cross_entropies(planted, tiny_config, task):
    corpus = planted(task=task)
    torch.manual_seed(3)
    model, split = build_model(corpus, tiny_config()).eval(), corpus.split("valid")
    curves = curves_along(model, split, _random_ranks(model, split, 0))
    own = _own_errors(model, split)
    np.testing.assert_allclose(curves.deletion[:, 0], own, rtol=0, atol=TOLERANCE)


def test_two_random_rankings_have_like_areas(planted, tiny_config):
    corpus = planted(valid=40)
    torch.manual_seed(3)
    model, split = build_model(corpus, tiny_config()).eval(), corpus.split("valid")
    one, two = (
        areas(curves_along(model, split, _random_ranks(model, split, s)).deletion) for s in (0, 1)
    )
    assert paired_bootstrap(one - two).p > 0.05


def test_area_worked_by_hand():
    assert FRACTIONS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    errors = np.array([[0.0] * 10 + [1.0], list(FRACTIONS)])
    np.testing.assert_allclose(areas(errors), [0.05, 0.5])


# ---------------------------------------------------------------- other actions


def test_learned_actions_have_the_models_own_error(fresh):
    model, split = fresh
    errors = policy_errors(model, split, seed=0, batch_size=3)
    own = _own_errors(model, split)
    np.testing.assert_allclose(errors["learned"], own, rtol=0, atol=TOLERANCE)


def test_ones_are_the_policy_of_that_name(planted, tiny_config):
    corpus = planted(aligned=False)
    torch.manual_seed(3)
    model, split = (
        build_model(corpus, tiny_config("policy.kind=task")).eval(),
        corpus.split("valid"),
    )
    twin = MMCL(
        dict(corpus.card.dims),
        corpus.card.task,
        model=model.settings,
        policy=model.policy_settings.model_copy(update={"kind": "ones"}),
    ).eval()
    twin.load_state_dict(model.state_dict())
    errors = policy_errors(model, split, seed=0)
    np.testing.assert_allclose(errors["ones"], _own_errors(twin, split), rtol=0, atol=TOLERANCE)
    assert np.abs(errors["ones"] - errors["learned"]).max() > TOLERANCE
    assert np.abs(errors["random"] - errors["learned"]).max() > TOLERANCE
    assert np.abs(errors["none"] - errors["ones"]).max() > TOLERANCE


def test_shuffled_actions_keep_their_values_and_their_clip():
    actions = torch.arange(1.0, 25.0).view(2, 3, 4)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, 1] = torch.tensor([True, False, True, True])  # a hole
    mask[1, 2] = False
    actions = actions * mask
    shuffled = shuffle_actions(actions, mask, torch.Generator().manual_seed(1))
    assert torch.equal(shuffled.sort(dim=-1).values, actions.sort(dim=-1).values)
    assert torch.equal(shuffled[~mask], actions[~mask])
    assert not torch.equal(shuffled, actions)


# ---------------------------------------------------------------- bootstrap


def test_bootstrap_of_equal_gains_is_sure():
    estimate = paired_bootstrap(np.full(7, 0.25))
    assert estimate[:3] == (0.25, 0.25, 0.25)
    assert estimate.p == pytest.approx(2 / 2001)


def test_bootstrap_of_no_gain_is_chance():
    assert paired_bootstrap(np.zeros(7)) == (0.0, 0.0, 0.0, 1.0)


def test_bootstrap_turns_with_the_sign():
    gains = np.random.default_rng(0).normal(0.1, 1.0, size=50)
    one, other = paired_bootstrap(gains), paired_bootstrap(-gains)
    assert other.value == pytest.approx(-one.value)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert other.p == one.p


def test_bootstrap_interval_is_that_of_a_mean():
    gains = np.random.default_rng(0).normal(0.5, 2.0, size=400)
    low, high = paired_bootstrap(gains)[1:3]
    half = 1.96 * gains.std() / 20
    # A quantile of 2000 resamples is known to about a twentieth of the half width.
    assert (low, high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=half / 8)


def test_bootstrap_of_explained_variance_worked_by_hand():
    truth, gains = np.array([0.0, 2.0, 4.0, 6.0]), np.array([1.0, 0.0, 3.0, 0.0])
    assert paired_bootstrap(gains, truth=truth).value == pytest.approx(1.0 / 5.0)


def test_missing_steps_are_never_ranked(tiny_settings, tiny_config):
    clips = []
    for clip in plant_clips(tiny_settings):
        vision = clip.features["vision"].copy()
        vision[4:9] = 0.0
        clips.append(clip.model_copy(update={"features": {**clip.features, "vision": vision}}))
    card = plant_card(tiny_settings).model_copy(update={"missing_as_zero": True})
    corpus = pack_corpus(card, clips)
    model, split = build_model(corpus, tiny_config()).eval(), corpus.split("valid")
    ranks = _random_ranks(model, split, 0)
    assert all((each[2, 4:9] == -1).all() and each.max() == 54 for each in ranks)
    curves = curves_along(model, split, ranks)
    np.testing.assert_allclose(
        curves.insertion[:, -1], _own_errors(model, split), rtol=0, atol=TOLERANCE
    )
