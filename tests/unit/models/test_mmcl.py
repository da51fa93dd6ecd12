"""The network as a whole: what it refuses, keeps, saves and teaches."""

import pytest
import torch

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.errors import ShapeError
from mmcl.models.mmcl import MMCL, equalise_lengths

# Float64, the same sums in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-11}
CLIPS, STEPS = 4, 6
REGRESSION = Task(kind="regression", low=-3, high=3)
SOFT = {"kind": "task"}


# Equal lengths for the released variant


def test_equalise_lengths_worked_by_hand():
    x = torch.tensor(
        [
            [[1.0], [3.0], [5.0], [7.0], [100.0]],  # 4 real steps onto 2: means of pairs
            [[2.0], [4.0], [9.0], [100.0], [100.0]],  # 3 onto 2: the first, the mean of the rest
            [[6.0], [100.0], [100.0], [100.0], [100.0]],  # 1 onto 2: repeated
            [[0.0], [0.0], [0.0], [0.0], [0.0]],  # absent
        ]
    )
    mask = torch.arange(5) < torch.tensor([4, 3, 1, 0]).unsqueeze(-1)
    equal, masks = equalise_lengths({"audio": x}, {"audio": mask}, 2)
    assert equal["audio"].squeeze(-1).tolist() == [[2.0, 6.0], [2.0, 6.5], [6.0, 6.0], [0.0, 0.0]]
    assert masks["audio"].tolist() == [[True, True]] * 4


def test_equalise_lengths_repeats_what_is_too_short():
    x = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]])
    equal, _ = equalise_lengths({"text": x}, {"text": torch.ones(1, 2, dtype=torch.bool)}, 5)
    assert equal["text"][0, :, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert equal["text"][0, :, 1].tolist() == [-1.0, -1.0, -1.0, -2.0, -2.0]


def test_equalise_lengths_leaves_the_wanted_length_alone(generator):
    x = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    equal, _ = equalise_lengths({"text": x}, {"text": torch.ones(3, 7, dtype=torch.bool)}, 7)
    torch.testing.assert_close(equal["text"], x, **TOLERANCE)  # by way of running sums


def test_equalise_lengths_keeps_the_mean_where_segments_are_equal(generator):
    x = torch.randn(3, 12, 2, generator=generator, dtype=torch.float64)
    equal, _ = equalise_lengths({"text": x}, {"text": torch.ones(3, 12, dtype=torch.bool)}, 4)
    torch.testing.assert_close(equal["text"].mean(dim=1), x.mean(dim=1), **TOLERANCE)


# Refusals


def test_refuses_a_corpus_without_its_modalities():
    with pytest.raises(ShapeError) as caught:
        MMCL({"text": 3}, REGRESSION, model=ModelSettings(modalities=("audio", "vision")))
    assert str(caught.value) == "none of the modalities ['audio', 'vision'] is in ['text']"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda features, masks: features.clear(),
            "features must hold one of ['text', 'audio', 'vision'], got none of them",
            id="nothing",
        ),
        pytest.param(
            lambda features, masks: features.update(audio=features["audio"][0]),
            "audio must be [clips, steps, features] with a mask [clips, steps] and 4 clips, "
            "got [6, 3] and [4, 6]",
            id="no-clips",
        ),
        pytest.param(
            lambda features, masks: masks.update(vision=masks["vision"][:, :5]),
            "vision must be [clips, steps, features] with a mask [clips, steps] and 4 clips, "
            "got [4, 6, 4] and [4, 5]",
            id="short-mask",
        ),
        pytest.param(
            lambda features, masks: (
                features.update(vision=features["vision"][:3]),
                masks.update(vision=masks["vision"][:3]),
            ),
            "vision must be [clips, steps, features] with a mask [clips, steps] and 4 clips, "
            "got [3, 6, 4] and [3, 6]",
            id="fewer-clips",
        ),
        pytest.param(
            lambda features, masks: masks.pop("audio"),
            "masks must hold audio, as features do; got ['text', 'vision']",
            id="no-mask",
        ),
        pytest.param(
            lambda features, masks: features.update(text=features["text"][..., :2]),
            "text must have 5 features per step, got 2",
            id="narrow",
        ),
    ],
)
@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_refuses_what_does_not_fit(
    make_model, make_released, make_features, make_masks, variant, change, message
):
    model = make_released() if variant == "released" else make_model()
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [STEPS] * CLIPS for m in features})
    change(features, masks)
    with pytest.raises(ShapeError) as caught:
        model(features, masks)
    assert str(caught.value) == message


def test_released_refuses_unequal_lengths_of_an_aligned_clip(make_released, make_masks):
    model = make_released()
    masks = make_masks({"text": [6, 4], "audio": [6, 3], "vision": [6, 4]})
    dims = {"text": 5, "audio": 3, "vision": 4}
    features = {m: torch.zeros(2, 6, d, dtype=torch.float64) for m, d in dims.items()}
    with pytest.raises(ShapeError) as caught:
        model(features, masks)
    assert str(caught.value) == (
        "released takes an aligned corpus with equal lengths in every modality, got "
        "{'text': 4, 'audio': 3, 'vision': 4} steps in clip 1\n"
        "  Say that it is not aligned: MMCL(..., aligned=False)"
    )


# Modalities never seen


def test_never_seen_modality_is_ignored_for_good(make_model, make_features):
    model = make_model()
    features = make_features(CLIPS, STEPS)
    assert model.never_seen == ()
    steps = {m: x.flatten(0, 1).float() for m, x in features.items()}
    model.fit_standardisation(steps | {"text": torch.zeros(0, 5)})
    assert model.never_seen == ("text",)

    scores = model(features).scores

    assert torch.equal(model(features | {"text": -7 * features["text"]}).scores, scores)
    left_out = {m: x for m, x in features.items() if m != "text"}
    torch.testing.assert_close(model(left_out).scores, scores, **TOLERANCE)
    assert not model(features).encoded.present[0].any()

    model.fit_standardisation(steps)
    assert model.never_seen == ()
    assert not torch.allclose(model(features).scores, scores)


def test_standardisation_is_fitted_per_modality(make_model, make_features):
    model = make_model()
    steps = {m: 5 + 2 * x.flatten(0, 1).float() for m, x in make_features(CLIPS, STEPS).items()}
    model.fit_standardisation(steps)
    for m, standardiser in model.projection.standardisers.items():
        # Twenty-four values: nothing is cut. Float32 means.
        torch.testing.assert_close(
            standardiser.centre.float(), steps[m].mean(dim=0), rtol=0, atol=1e-5
        )


def test_unused_modalities_are_ignored(make_model, make_features):
    model = make_model(modalities=("vision", "text"))
    assert model.modalities == ("text", "vision")  # always in this order
    features = make_features(CLIPS, STEPS)
    scores = model(features).scores
    del features["audio"]
    assert torch.equal(model(features).scores, scores)


# Saving


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_saved_network_comes_back_bit_for_bit(make_model, make_features, tmp_path, task):
    model = make_model(
        task=task,
        aligned=False,
        policy={"kind": "rloo", "refinement_steps": 2},
        agreement="auto",
        positions=True,
        modalities=("text", "vision"),
    ).float()
    features = {m: x.float() for m, x in make_features(CLIPS, STEPS).items()}
    model.fit_standardisation({"text": features["text"][0], "vision": torch.zeros(0, 4)})
    model.save_pretrained(tmp_path)

    loaded = MMCL.from_pretrained(tmp_path)

    assert not loaded.training
    assert loaded.settings == model.settings
    assert loaded.policy_settings == model.policy_settings
    assert loaded.task == model.task
    assert loaded.aligned == model.aligned
    assert loaded.never_seen == ("vision",)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert torch.equal(loaded(features).scores, model(features).scores)


def test_saved_released_network_comes_back_bit_for_bit(make_released, make_features, tmp_path):
    model = make_released(aligned=True).float()
    features = {m: x.float() for m, x in make_features(CLIPS, STEPS).items()}
    model.save_pretrained(tmp_path)
    loaded = MMCL.from_pretrained(tmp_path)
    assert loaded.released
    assert loaded.aligned
    assert torch.equal(loaded(features).scores, model(features).scores)


def test_plain_dictionaries_make_the_same_network():
    torch.manual_seed(0)
    one = MMCL({"text": 3}, REGRESSION, model=ModelSettings(width=8, heads=2))
    torch.manual_seed(0)
    other = MMCL({"text": 3}, REGRESSION.model_dump(), model={"width": 8, "heads": 2}, policy={})
    assert other.settings == one.settings
    assert other.policy_settings == PolicySettings()
    x = {"text": torch.ones(2, 5, 3)}
    assert torch.equal(one.eval()(x).scores, other.eval()(x).scores)


# Inputs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", ["calibrated", "released", "released-unaligned"])
def test_inputs_are_not_modified(
    make_model, make_released, make_features, make_masks, variant, training
):
    if variant == "calibrated":
        model = make_model()
    else:
        model = make_released(aligned=variant == "released", steps=3)
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [6, 3, 1, 4] for m in features})
    before = {m: x.clone() for m, x in features.items()}
    masks_before = {m: x.clone() for m, x in masks.items()}

    model.train(training)(features, masks)

    assert list(features) == list(before)
    for m, x in features.items():
        assert torch.equal(x, before[m])
        assert torch.equal(masks[m], masks_before[m])


# Gradients


def gradients(model, features, masks=None, *, policy_term=True):
    """Gradients of a loss that everything the network returns has a part in."""
    model.train()
    torch.manual_seed(0)
    output = model(features, masks, sample=True)
    loss = output.scores.square().sum()
    if policy_term:
        loss = loss + output.decision.log_probability.sum()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, SOFT),
        ({}, {"kind": "rloo"}),
        ({"agreement": "three_way", "confirm": "mean", "positions": True}, SOFT),
        ({"decoupling": "softmax"}, SOFT),
        ({"decoupling": "both"}, SOFT),
        ({"attention": False}, {"kind": "ddpg"}),
    ],
)
def test_gradient_reaches_every_parameter(make_model, make_features, settings, policy):
    model = make_model(**settings, policy=policy, dropout=0.0, head_dropout=0.0)
    for name, gradient in gradients(model, make_features(CLIPS, STEPS)).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        # Where a layer holds the weights of every modality, each modality's are reached.
        each = gradient.flatten(1) if gradient.ndim == 3 else gradient.view(1, -1)
        assert (each != 0).any(dim=1).all(), name


def test_gradient_reaches_every_parameter_of_released(make_released, make_features):
    model = make_released(head_dropout=0.0)
    for name, gradient in gradients(model, make_features(CLIPS, STEPS)).items():
        assert gradient is not None, name
        assert gradient.any(), name


def test_parameters_without_gradient_are_these(make_model, make_features):
    features = make_features(CLIPS, STEPS)
    calm = {"dropout": 0.0, "head_dropout": 0.0}
    # A key's bias shifts all scores of a query alike: softmax cannot see it.
    found = gradients(make_model(**calm, policy=SOFT), features)
    for name in ("attention.attention.qkv.bias", "block.attention.qkv.bias"):
        query, key, value = found[name].chunk(3, dim=-1)
        assert key.abs().max() < 1e-12  # float64, sums of terms of size one
        assert query.abs().max() > 1e-6
        assert value.abs().max() > 1e-6
    # Actions that are given are nobody's.
    found = gradients(make_model(**calm, policy={"kind": "ones"}), features, policy_term=False)
    unreached = [name for name, gradient in found.items() if gradient is None]
    assert unreached == ["policy.weight", "policy.bias"]
    # One modality alone has nothing that could confirm it: no threshold to learn.
    alone = make_model(**calm, policy=SOFT, modalities=("audio",))
    found = gradients(alone, features)
    assert [n for n, g in found.items() if n in ("threshold", "log_temperature") and g != 0] == []


@pytest.mark.parametrize("kind", ["task", "rloo"])
@pytest.mark.parametrize("decoupling", ["elementwise", "softmax", "both"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_clips_that_lack_anything_leave_every_gradient_finite(
    make_model, make_released, make_features, make_masks, variant, aligned, decoupling, kind
):
    policy = {"kind": kind, "refinement_steps": 2}
    make = make_released if variant == "released" else make_model
    model = make(aligned=aligned, decoupling=decoupling, policy=policy, steps=3)
    # A whole clip; one with text only; one with nothing at all; one without audio.
    masks = make_masks({"text": [6, 2, 0, 5], "audio": [6, 0, 0, 0], "vision": [6, 0, 0, 5]})
    found = gradients(model, make_features(CLIPS, STEPS), masks)
    for name, gradient in found.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name


# Switches


def test_given_actions_are_ones_or_random(make_model, make_features, make_masks):
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [6, 3, 1, 4] for m in features})
    ones = make_model(policy={"kind": "ones"})(features, masks)
    assert torch.equal(ones.decision.actions, ones.encoded.step_mask.double())

    torch.manual_seed(0)
    model = make_model(policy={"kind": "random"})
    actions = torch.stack([model(features, masks).decision.actions for _ in range(100)])
    mask = ones.encoded.step_mask
    assert (actions[:, ~mask] == 0).all()
    assert set(actions.unique().tolist()) == {0.0, 1.0}
    # 100 draws of 42 steps: .5 give or take four standard errors.
    assert actions[:, mask].mean().item() == pytest.approx(0.5, abs=0.031)


@pytest.mark.parametrize(
    ("decoupling", "has_common", "has_specific"),
    [("common_only", True, False), ("specific_only", False, True), ("both", True, True)],
)
def test_decoupling_ablations_are_all_or_nothing(
    make_model, make_features, make_masks, decoupling, has_common, has_specific
):
    model = make_model(decoupling=decoupling)
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [6, 3, 1, 4] for m in features})
    parts = model.encode(features, masks).parts
    z = model.projection(features) * masks["text"].unsqueeze(-1)
    torch.testing.assert_close(parts.common, z * has_common, **TOLERANCE)
    torch.testing.assert_close(parts.specific, z * has_specific, **TOLERANCE)


def test_auto_agreement_follows_the_corpus(make_model, make_features):
    features = make_features(CLIPS, STEPS)
    found = {}
    for aligned in (True, False):
        for choice in ("auto", "same_index", "three_way"):
            torch.manual_seed(0)
            model = make_model(aligned=aligned, agreement=choice)
            state = model.state_dict()
            found.setdefault("state", state)
            model.load_state_dict(found["state"])
            found[aligned, choice] = model.encode(features).parts.commonality
    assert torch.equal(found[True, "auto"], found[True, "same_index"])
    assert torch.equal(found[False, "auto"], found[False, "three_way"])
    assert not torch.allclose(found[True, "auto"], found[False, "auto"])


def test_positions_tell_steps_apart(make_model, make_features):
    features = make_features(CLIPS, STEPS)
    order = torch.tensor([3, 0, 4, 1, 2, 5])
    shuffled = {m: x[:, order] for m, x in features.items()}
    blind = make_model(positions=False, policy=SOFT)
    torch.testing.assert_close(blind(shuffled).scores, blind(features).scores, **TOLERANCE)
    seeing = make_model(positions=True, policy=SOFT)
    assert (seeing(shuffled).scores - seeing(features).scores).abs().min() > 1e-6


def test_unimodal_scores_are_what_the_head_makes_of_one_modality(
    make_model, make_features, make_masks
):
    model = make_model(task="classes")
    features = make_features(CLIPS, STEPS)
    masks = make_masks({m: [6, 3, 1, 4] for m in features})
    masks["audio"][1] = False
    output = model(features, masks)

    alone = model.unimodal_scores(output)

    assert alone.shape == (3, CLIPS, 3)
    present = output.encoded.present
    for m in range(3):
        only = present * torch.eye(3).double()[m].unsqueeze(-1)
        hidden = model.fusion(output.encoded.enhanced, output.complementary, only)
        torch.testing.assert_close(alone[m], model.head(hidden), **TOLERANCE)
