"""Tests of the planted corpus: it contains what its recipe promises, and nothing else."""

import numpy as np
import pytest
from pydantic import ValidationError

from mmcl.corpus import plant
from mmcl.corpus.plant import (
    ROLE_COMMON,
    ROLE_COMPLEMENTARY,
    ROLE_DISTRACTOR,
    PlantSettings,
    plant_card,
    plant_clips,
    plant_corpus,
    planted_task,
)
from mmcl.corpus.store import open_corpus, write_corpus
from mmcl.types import MODALITIES

COUNTS = {"train": 40, "valid": 6, "test": 5}
DIMS = {"text": 96, "audio": 48, "vision": 24}


def _clips(**changes):
    return list(plant_clips(PlantSettings(**{**COUNTS, **changes})))


def _same(first, second):
    return (
        first.id == second.id
        and first.label == second.label
        and all(np.array_equal(first.features[m], second.features[m]) for m in MODALITIES)
        and all(np.array_equal(first.planted.roles[m], second.planted.roles[m]) for m in MODALITIES)
    )


def _of_split(clips, split):
    return [clip for clip in clips if clip.split == split]


@pytest.fixture(scope="module")
def aligned():
    return _clips()


@pytest.fixture(scope="module")
def unaligned():
    return _clips(aligned=False)


# ---------------------------------------------------------------- which clips


def test_clips_are_as_many_as_asked_in_order(aligned):
    expected = [f"{split}_{row:06d}" for split, n in COUNTS.items() for row in range(n)]
    assert [clip.id for clip in aligned] == expected
    assert [clip.split for clip in aligned] == [name[:-7] for name in expected]


def test_blocks_leave_no_seam(monkeypatch):
    monkeypatch.setattr(plant, "_BLOCK", 16)
    clips = _clips()
    assert [c.id for c in _of_split(clips, "train")] == [f"train_{row:06d}" for row in range(40)]
    labels = [clip.label for clip in _of_split(clips, "train")]
    assert len(set(labels)) == 40  # the second block is not the first again


def test_slices_leave_no_seam(aligned, monkeypatch):
    monkeypatch.setattr(plant, "_SLICE", 7)
    assert all(map(_same, aligned, _clips()))


def test_features_are_the_recipe_applied_at_once():
    # Slices are for speed alone: the whole block in one expression gives the same bits.
    settings = PlantSettings(**COUNTS)
    world = plant._make_world(settings)
    latent = np.random.default_rng(1).normal(size=(40, 20, plant.LATENT_DIM))
    seen = np.tanh(latent @ world.mixing["audio"]) * plant.OBSERVATION_GAIN
    seen += plant.OBSERVATION_NOISE * np.random.default_rng(2).normal(size=seen.shape)
    expected = (seen * world.scale["audio"] + world.offset["audio"]).astype(np.float32)
    features = plant._observe(np.random.default_rng(2), world, "audio", latent)
    np.testing.assert_array_equal(features, expected, strict=True)


def test_widths_asked_for():
    settings = PlantSettings(train=3, valid=1, test=1, steps=14, widths=(5, 2, 7))
    assert plant_card(settings).dims == {"text": 5, "audio": 2, "vision": 7}
    for clip in plant_clips(settings):
        assert [clip.features[m].shape for m in MODALITIES] == [(14, 5), (14, 2), (14, 7)]
    with pytest.raises(ValidationError, match=r"widths\.1"):
        PlantSettings(widths=(5, 0, 7))


def test_same_settings_same_clips(aligned):
    assert all(map(_same, aligned, _clips()))


@pytest.mark.parametrize("change", [{"seed": 2}, {"world_seed": 1}])
def test_another_seed_other_clips(aligned, change):
    assert not any(map(_same, aligned, _clips(**change)))


def test_seed_draws_clips_and_not_the_world(aligned):
    # One world: the same direction of a feature; two seeds: other clips.
    def slope(clips):
        rows = np.stack([clip.features["text"].mean(axis=0) for clip in clips])
        return rows.mean(axis=0)

    same_world, other_world = _clips(seed=2), _clips(world_seed=1)
    near = np.corrcoef(slope(aligned), slope(same_world))[0, 1]
    far = np.corrcoef(slope(aligned), slope(other_world))[0, 1]
    assert near > 0.95
    assert abs(far) < 0.6


@pytest.mark.parametrize("changed", COUNTS)
def test_count_of_one_split_changes_no_other(aligned, changed):
    longer = _clips(**{changed: COUNTS[changed] + 3})
    for split in COUNTS:
        mine, theirs = _of_split(aligned, split), _of_split(longer, split)
        if split != changed:
            assert len(mine) == len(theirs)
            assert all(map(_same, mine, theirs))


def test_splits_are_drawn_apart():
    # Equal counts: from one stream they would be the same clips three times.
    labels = [clip.label for clip in _clips(train=6, valid=6, test=6)]
    assert len(set(labels)) == 18


# ---------------------------------------------------------------- roles and lengths


@pytest.mark.parametrize("corpus", ["aligned", "unaligned"])
def test_every_modality_has_three_common_and_two_complementary_steps(request, corpus):
    for clip in request.getfixturevalue(corpus):
        for modality in MODALITIES:
            roles = clip.planted.roles[modality]
            assert roles.dtype == np.int8
            assert len(roles) == len(clip.features[modality])
            assert (roles == ROLE_COMMON).sum() == 3
            assert (roles == ROLE_COMPLEMENTARY).sum() == 2
            assert set(roles) == {ROLE_DISTRACTOR, ROLE_COMMON, ROLE_COMPLEMENTARY}


def test_aligned_places(aligned):
    for clip in aligned:
        roles = np.stack([clip.planted.roles[m] for m in MODALITIES])  # [m, n]
        assert roles.shape == (3, 20)
        common = roles == ROLE_COMMON
        assert (common == common[0]).all()
        assert (roles == ROLE_COMPLEMENTARY).sum(axis=0).max() == 1  # nobody shares a moment
        assert not ((roles == ROLE_COMPLEMENTARY).any(axis=0) & common[0]).any()


def test_places_are_not_always_the_same(aligned):
    common = np.mean([clip.planted.roles["text"] == ROLE_COMMON for clip in aligned], axis=0)
    # 3 of 20 places, 51 clips: .15 with an s.d. of .05.
    assert common.max() < 0.4
    assert (common > 0).sum() > 15


def test_unaligned_lengths_and_places(unaligned):
    lengths = np.array([[len(clip.features[m]) for m in MODALITIES] for clip in unaligned])
    assert lengths.min() >= 15
    assert lengths.max() <= 25
    assert len(np.unique(lengths)) > 8
    assert (lengths.std(axis=1) > 0).mean() > 0.9  # of one clip, too
    places = [
        tuple(np.flatnonzero(clip.planted.roles[m] == ROLE_COMMON))
        for clip in unaligned
        for m in MODALITIES
    ]
    assert len(set(places)) > 0.9 * len(places)


def test_longer_clips_are_longer():
    (clip, *_) = _clips(steps=33)
    assert {len(steps) for steps in clip.features.values()} == {33}


def test_features_have_their_width_and_kind(aligned):
    assert DIMS == {"text": 96, "audio": 48, "vision": 24}
    for modality, steps in aligned[0].features.items():
        assert steps.dtype == np.float32
        assert steps.shape == (20, DIMS[modality])
        assert np.isfinite(steps).all()


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("corpus", ["aligned", "unaligned"])
def test_label_is_the_clipped_sum_of_the_scores(request, corpus):
    for clip in request.getfixturevalue(corpus):
        scores = clip.planted.scores
        assert list(scores) == ["common", "text", "audio", "vision"]
        assert clip.label == pytest.approx(np.clip(sum(scores.values()), -3, 3), abs=1e-12)


def test_labels_are_clipped_at_three():
    labels = np.array([clip.label for clip in _clips(train=1500)])
    # A sum of four normal scores of s.d. 0.6 has s.d. 1.2; 1.2% lie beyond 3.
    assert labels.min() == -3.0
    assert labels.max() == 3.0
    assert labels.std() == pytest.approx(1.2, abs=0.1)
    assert 0 < (np.abs(labels) == 3.0).mean() < 0.03


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_other_tasks_are_made_of_the_same_score(aligned, task):
    for scored, clip in zip(aligned, _clips(task=task), strict=True):
        assert all(np.array_equal(scored.features[m], clip.features[m]) for m in MODALITIES)
        score = scored.label
        if task == "classes":
            assert clip.label == int(score >= -0.5) + int(score >= 0.5)
        else:
            calm, happy, sad, angry = clip.label
            assert calm + happy + sad + angry == 1
            assert happy == (score > 0.5)
            assert angry == (score <= -1.25)
            assert sad == (-1.25 < score < -0.5)


@pytest.mark.parametrize(
    ("score", "index", "emotion"),
    [
        (-3.0, 0, (0, 0, 0, 1)),
        (-1.25, 0, (0, 0, 0, 1)),
        (-1.0, 0, (0, 0, 1, 0)),
        (-0.5, 1, (1, 0, 0, 0)),
        (0.0, 1, (1, 0, 0, 0)),
        (0.5, 2, (1, 0, 0, 0)),
        (0.75, 2, (0, 1, 0, 0)),
    ],
)
def test_edges_of_classes_and_emotions(score, index, emotion):
    assert plant._label(score, "regression") == score
    assert plant._label(score, "classes") == index
    assert plant._label(score, "emotions") == emotion


def test_tasks():
    assert planted_task("regression").model_dump() == {
        "kind": "regression",
        "low": -3.0,
        "high": 3.0,
        "names": (),
    }
    assert planted_task("classes").names == ("negative", "neutral", "positive")
    assert planted_task("emotions").names == ("neutral", "happy", "sad", "angry")


# ---------------------------------------------------------------- what the features tell


@pytest.fixture(scope="module")
def many():
    return _clips(train=400, valid=1, test=1)[:400]


def _mean_at(clips, modality, role):
    return np.stack(
        [
            clip.features[modality][clip.planted.roles[modality] == role].mean(axis=0)
            for clip in clips
        ]
    )


def _probe(features, target):
    """Correlation, on the second half, of a line fitted on the first."""
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    design = np.column_stack([standard, np.ones(len(standard))])
    half = len(design) // 2
    penalty = 10.0 * np.eye(design.shape[1])
    train = design[:half]
    weights = np.linalg.solve(train.T @ train + penalty, train.T @ target[:half])
    return np.corrcoef(design[half:] @ weights, target[half:])[0, 1]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_line_on_the_known_steps_finds_the_scores(many, modality):
    own = np.array([clip.planted.scores[modality] for clip in many])
    common = np.array([clip.planted.scores["common"] for clip in many])
    at_common = _mean_at(many, modality, ROLE_COMMON)
    at_own = _mean_at(many, modality, ROLE_COMPLEMENTARY)
    at_rest = _mean_at(many, modality, ROLE_DISTRACTOR)

    assert _probe(at_common, common) > 0.85
    assert _probe(at_own, own) > 0.85
    # Noise of a correlation over 200 clips: s.d. .07.
    assert abs(_probe(at_rest, common)) < 0.25
    assert abs(_probe(at_rest, own)) < 0.25
    assert abs(_probe(at_common, own)) < 0.25
    assert abs(_probe(at_own, common)) < 0.25


def test_common_steps_share_a_topic_and_others_do_not(many):
    common = np.array([clip.planted.scores["common"] for clip in many])
    common = (common - common.mean()) / common.std()

    def shared(role):
        """Greatest correlation of two modalities' features beyond the shared score."""
        standard = []
        for modality in ("text", "audio"):
            x = _mean_at(many, modality, role)
            x = x - x.mean(axis=0)
            x = x - np.outer(common, common @ x / len(x))
            standard.append(x / x.std(axis=0))
        return np.abs(standard[0].T @ standard[1] / len(many)).max()

    assert shared(ROLE_COMMON) > 0.7
    # Of 4608 correlations over 400 clips (s.d. .05 each) the greatest is about .2.
    assert shared(ROLE_COMPLEMENTARY) < 0.3
    assert shared(ROLE_DISTRACTOR) < 0.3


def test_heterogeneity_scales_and_shifts_the_features():
    def spread(heterogeneity):
        clips = _clips(train=100, heterogeneity=heterogeneity)
        steps = np.concatenate([clip.features["text"] for clip in clips])
        return steps.std(axis=0), steps.mean(axis=0)

    (level, centre), (scale, offset), (wide, far) = (spread(h) for h in (0.0, 1.0, 2.0))
    assert np.log(level).std() < 0.25  # what the mixing itself makes unequal
    assert np.abs(centre).max() < 0.4
    assert np.log(scale).std() == pytest.approx(0.7, abs=0.2)
    assert offset.std() == pytest.approx(2.0, abs=0.4)
    assert np.log(wide).std() > 1.5 * np.log(scale).std()
    assert far.std() > 1.5 * offset.std()


def test_heterogeneity_changes_no_role_and_no_label(aligned):
    for ordinary, harder in zip(aligned, _clips(heterogeneity=3), strict=True):
        assert ordinary.label == harder.label
        for modality in MODALITIES:
            np.testing.assert_array_equal(
                ordinary.planted.roles[modality], harder.planted.roles[modality]
            )


# ---------------------------------------------------------------- card, file, settings


@pytest.mark.parametrize("is_aligned", [True, False])
def test_card_says_how_it_was_made(is_aligned):
    settings = PlantSettings(**COUNTS, aligned=is_aligned, seed=7)
    card = plant_card(settings)
    assert card.aligned is is_aligned
    assert card.counts == COUNTS
    assert (card.name, card.dims, card.source) == ("planted", DIMS, None)
    assert PlantSettings(**card.recipe["planted"]) == settings
    assert plant_corpus(settings).card == card


def test_default_corpus_is_the_one_reported():
    settings = PlantSettings()
    assert (settings.train, settings.valid, settings.test) == (2000, 400, 600)
    assert (settings.steps, settings.aligned, settings.heterogeneity) == (20, True, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_file_keeps_roles_scores_and_labels(tmp_path, dtype, task):
    settings = PlantSettings(**COUNTS, aligned=False, task=task)
    path = write_corpus(
        tmp_path / "planted.arrow", plant_card(settings), plant_clips(settings), dtype=dtype
    )
    stored = list(open_corpus(path).every_clip().clips())
    for clip, kept in zip(plant_clips(settings), stored, strict=True):
        assert kept.id == clip.id
        assert kept.planted.scores == clip.planted.scores
        for modality in MODALITIES:
            roles, steps = clip.planted.roles[modality], clip.features[modality]
            np.testing.assert_array_equal(kept.planted.roles[modality], roles, strict=True)
            expected = steps.astype(dtype)
            np.testing.assert_array_equal(kept.features[modality], expected, strict=True)
    labels = open_corpus(path).split("train").labels()
    expected = [clip.label for clip in plant_clips(settings)][:40]
    np.testing.assert_array_equal(labels, np.array(expected))


@pytest.mark.parametrize(
    "wrong",
    [{"train": 0}, {"seed": -1}, {"heterogeneity": -0.5}, {"steps": 13}, {"task": "x"}, {"z": 1}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        PlantSettings(**wrong)


def test_shortest_clips_hold_all_roles():
    for is_aligned in (True, False):
        for clip in _clips(steps=14, aligned=is_aligned):
            for roles in clip.planted.roles.values():
                assert ((roles == ROLE_COMMON).sum(), (roles == ROLE_COMPLEMENTARY).sum()) == (3, 2)
