"""Laws of prediction: padding, order, company, absence, and what must be refused."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from laws.battery import (
    CLIPS,
    DIMS,
    OWN_LENGTHS,
    SHAPES,
    TASKS,
    layouts,
    make_clips,
    make_model,
    small_config,
    take,
)
from mmcl.errors import DatasetError, ShapeError
from mmcl.models.registry import build_network, load_network, network_class
from mmcl.types import MODALITIES

# Float32, a network's sums in another order or over a longer, padded axis, of scores about 1.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}
# Less than any law may let a score move, more than rounding could.
MOVED = 1e-4


@pytest.fixture
def model(name, layout):
    return make_model(name, aligned=layouts(layout)[0])


@pytest.fixture
def clips(layout):
    return make_clips(layouts(layout)[1])


def rubbish(like, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return 20 * torch.randn(like.shape, generator=generator)


def spoilt(clips):
    """The same clips with rubbish in every step that is not real."""
    features, masks = clips
    dirty = {m: torch.where(masks[m].unsqueeze(-1), x, rubbish(x)) for m, x in features.items()}
    return dirty, masks


def longer(clips, extra):
    features, masks = clips
    padded = {m: F.pad(x, (0, 0, 0, extra[m])) for m, x in features.items()}
    return spoilt((padded, {m: F.pad(mask, (0, extra[m])) for m, mask in masks.items()}))


@torch.no_grad()
def scores_of(model, clips):
    return model(*clips).scores


def close(found, expected):
    torch.testing.assert_close(found, expected, **TOLERANCE)


# ---------------------------------------------------------------- what comes out


def test_scores_have_the_shape_of_the_task(name, case):
    aligned, lengths, task = case
    output = make_model(name, task=task, aligned=aligned)(*make_clips(lengths))
    assert output.scores.shape == SHAPES[task]
    assert output.hidden.ndim == 2
    assert len(output.hidden) == CLIPS
    assert output.scores.dtype == output.hidden.dtype == torch.float32
    assert output.scores.isfinite().all()
    assert output.hidden.isfinite().all()


def test_predictions_begin_near_the_middle_of_any_range_and_stay_inside(name, layout):
    aligned, lengths = layouts(layout)
    clips = make_clips(lengths)
    config = small_config(name)
    torch.manual_seed(3)
    model = build_network(
        DIMS, TASKS["points"], aligned=aligned, model=config.model, policy=config.policy
    ).eval()
    assert (scores_of(model, clips) - 50).abs().max() < 25
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    wild = scores_of(model, clips)
    assert 0 <= wild.min() <= wild.max() <= 100


def test_scores_of_points_are_those_of_the_field_moved(name, layout):
    aligned, lengths = layouts(layout)
    clips = make_clips(lengths)
    field = scores_of(make_model(name, aligned=aligned), clips)
    points = scores_of(make_model(name, task="points", aligned=aligned), clips)
    close(points / (100 / 6), (field.clamp(-3, 3) + 3))


def test_clips_and_modalities_matter(model, clips):
    # Without this a model that returns a constant would keep every other law.
    expected = scores_of(model, clips)
    assert expected.std() > MOVED
    features, masks = clips
    for modality in model.modalities:
        moved = scores_of(model, (features | {modality: -features[modality]}, masks))
        assert (moved - expected).abs().max() > MOVED, modality


def test_evaluation_draws_nothing_and_repeats_itself(model, clips):
    state = torch.get_rng_state()
    assert torch.equal(scores_of(model, clips), scores_of(model, clips))
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- padding, order, company


def test_padding_changes_nothing(name, case):
    aligned, lengths, task = case
    model, clips = make_model(name, task=task, aligned=aligned), make_clips(lengths)
    expected = scores_of(model, clips)
    close(scores_of(model, spoilt(clips)), expected)
    # As much more in each: an aligned clip has one length, whatever it is padded to.
    close(scores_of(model, longer(clips, dict.fromkeys(MODALITIES, 3))), expected)
    close(scores_of(model, longer(clips, {"text": 5, "audio": 1, "vision": 4})), expected)


def test_holes_hide_no_step(model, clips):
    # A word in whose time no face was seen: a step is missing, and those after it still count.
    features, masks = clips
    masks = {m: mask.clone() for m, mask in masks.items()}
    holed = {"text": [3], "audio": [0], "vision": [1, 3]}
    for m, holes in holed.items():
        masks[m][4 if m == "vision" else 0, holes] = False
    expected = scores_of(model, (features, masks))
    close(scores_of(model, spoilt((features, masks))), expected)
    whole = scores_of(model, clips)
    close(expected[1:4], whole[1:4])
    for m in model.modalities:
        row = 4 if m == "vision" else 0
        last = int(masks[m][row].nonzero()[-1])
        louder = features[m].clone()
        louder[row, last] = -3 * louder[row, last]
        moved = scores_of(model, (features | {m: louder}, masks))
        assert (moved - expected)[row].abs().max() > MOVED, m


def test_permuted_clips_give_permuted_scores(name, case):
    aligned, lengths, task = case
    model, clips = make_model(name, task=task, aligned=aligned), make_clips(lengths)
    order = torch.tensor([3, 0, 4, 1, 2])
    close(scores_of(model, take(clips, order)), scores_of(model, clips)[order])


def test_one_clip_alone_is_as_in_company(name, case):
    aligned, lengths, task = case
    model, clips = make_model(name, task=task, aligned=aligned), make_clips(lengths)
    together = scores_of(model, clips)
    for row in range(CLIPS):
        alone = take(clips, slice(row, row + 1))
        close(scores_of(model, alone), together[row : row + 1])
        # Cut to its own lengths: no company and no padding.
        features, masks = alone
        own = {m: int(mask.sum()) for m, mask in masks.items()}
        bare = {m: x[:, : own[m]] for m, x in features.items()}
        close(scores_of(model, (bare, None)), together[row : row + 1])


def test_lengths_may_differ_in_an_aligned_corpus(name):
    model, clips = make_model(name, aligned=True), make_clips(OWN_LENGTHS)
    expected = scores_of(model, clips)
    assert expected.isfinite().all()
    close(scores_of(model, spoilt(clips)), expected)
    close(scores_of(model, longer(clips, {"text": 5, "audio": 1, "vision": 4})), expected)


@pytest.mark.parametrize("training", [False, True])
def test_inputs_are_not_modified(model, clips, training):
    clips = spoilt(clips)
    before = [{m: x.clone() for m, x in each.items()} for each in clips]
    model.train(training)(*clips)
    for given, kept in zip(clips, before, strict=True):
        assert list(given) == list(kept)
        assert all(torch.equal(given[m], kept[m]) for m in kept)


# ---------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_real_step_that_is_no_number_is_refused(model, clips, value):
    modality = model.modalities[-1]
    features, masks = clips
    features[modality][3, 0, 1] = value
    with pytest.raises(DatasetError) as caught:
        model(features, masks)
    assert str(caught.value) == (
        f"{modality} holds NaN or infinity in clip 3 of the batch.\n"
        "  A corpus that was converted has none: mmcl corpus convert SRC DST"
    )


def test_padded_step_may_hold_anything(model, clips):
    features, masks = clips
    expected = scores_of(model, clips)
    for value in (float("nan"), float("inf")):
        dirty = {m: x.masked_fill(~masks[m].unsqueeze(-1), value) for m, x in features.items()}
        assert torch.equal(scores_of(model, (dirty, masks)), expected)


# ---------------------------------------------------------------- absence


def subsets(name):
    """Some of the modalities that a model uses, but not all."""
    used = [m for m in MODALITIES if m in network_class(name).takes]
    sizes = range(1, len(used))
    return [set(some) for size in sizes for some in itertools.combinations(used, size)]


def without(masks, absent, rows=slice(None)):
    gone = {m: mask.clone() for m, mask in masks.items()}
    for m in absent:
        gone[m][rows] = False
    return gone


def test_absent_for_one_clip_is_finite_and_the_others_stay(name, layout):
    aligned, lengths = layouts(layout)
    model, (features, masks) = make_model(name, aligned=aligned), make_clips(lengths)
    whole = scores_of(model, (features, masks))
    others = torch.tensor([0, 1, 3, 4])
    absences = [set(model.modalities), *subsets(name)]
    for absent in absences:  # all of them, too: a clip with nothing at all
        found = scores_of(model, spoilt((features, without(masks, absent, rows=2))))
        assert found.isfinite().all(), absent
        close(found[others], whole[others])


def test_absent_for_the_whole_batch_is_as_left_out(name, layout):
    aligned, lengths = layouts(layout)
    model, (features, masks) = make_model(name, aligned=aligned), make_clips(lengths)
    for absent in subsets(name):
        gone = without(masks, absent)
        found = scores_of(model, (features, gone))
        assert found.isfinite().all(), absent
        assert torch.equal(scores_of(model, spoilt((features, gone))), found), absent
        kept = tuple({m: x[m] for m in MODALITIES if m not in absent} for x in (features, masks))
        close(scores_of(model, kept), found)
        # For one clip as for all.
        some = scores_of(model, (features, without(masks, absent, rows=2)))
        close(some[2], found[2])


def test_absent_from_the_corpus_needs_no_weights(name, case):
    aligned, lengths, task = case
    for absent in subsets(name):
        dims = {m: dim for m, dim in DIMS.items() if m not in absent}
        model = make_model(name, task=task, aligned=aligned, dims=dims)
        assert not absent & set(model.modalities)
        clips = make_clips(lengths)
        scores = scores_of(model, clips)
        assert scores.shape == SHAPES[task]
        assert scores.isfinite().all()


def test_corpus_without_any_of_its_modalities_is_refused(name):
    wanted = [m for m in MODALITIES if m in network_class(name).takes]
    with pytest.raises(ShapeError) as caught:
        make_model(name, dims={"smell": 3})
    assert str(caught.value) == f"none of the modalities {wanted} is in ['smell']"


def test_modality_never_seen_in_training_is_ignored(name, layout):
    aligned, lengths = layouts(layout)
    features, masks = make_clips(lengths)
    for absent in subsets(name):
        model = make_model(name, aligned=aligned)
        model.fit_standardisation(
            {m: rubbish(torch.empty(0 if m in absent else 50, DIMS[m])) for m in model.modalities}
        )
        assert set(model.never_seen) == absent
        scores = scores_of(model, (features, masks))
        assert scores.isfinite().all()
        loud = features | {m: rubbish(features[m]) for m in absent}
        assert torch.equal(scores_of(model, (loud, masks)), scores), absent
        gone = without(masks, absent)
        close(scores_of(model, (features, gone)), scores)


def test_settings_may_leave_modalities_out(name):
    for absent in subsets(name):
        kept = [m for m in network_class(name).takes if m not in absent]
        model = make_model(name, model__modalities=kept)
        assert set(model.modalities) == set(kept)
        features, masks = make_clips()
        expected = scores_of(model, (features, masks))
        loud = features | {m: rubbish(features[m]) for m in absent}
        assert torch.equal(scores_of(model, (loud, masks)), expected)


# ---------------------------------------------------------------- saving


def test_saved_network_comes_back_bit_for_bit(name, case, tmp_path):
    aligned, lengths, task = case
    model = make_model(name, task=task, aligned=aligned)
    model.save_pretrained(tmp_path)

    loaded = load_network(tmp_path)

    assert type(loaded) is type(model)
    assert not loaded.training
    assert loaded.settings == model.settings
    assert (loaded.task, loaded.aligned, loaded.released) == (
        model.task,
        model.aligned,
        model.released,
    )
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    clips = make_clips(lengths)
    assert torch.equal(scores_of(loaded, clips), scores_of(model, clips))
