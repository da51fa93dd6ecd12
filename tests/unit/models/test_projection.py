"""Projection: standardisation worked by hand, robustness, padding and refusals."""

import pytest
import torch

from mmcl.models import projection
from mmcl.models.projection import Projection, Standardiser, robust_moments

# Float32 means and deviations of at most a thousand values of size one.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def test_robust_moments_worked_by_hand():
    steps = torch.tensor([[1.0, 10.0], [2.0, 10.0], [6.0, 40.0]])  # too few to cut anything
    centre, scale = robust_moments(steps)
    torch.testing.assert_close(centre, torch.tensor([3.0, 20.0]), **TOLERANCE)
    expected = torch.tensor([(4 + 1 + 9) / 3, (100 + 100 + 400) / 3]).sqrt()
    torch.testing.assert_close(scale, expected, **TOLERANCE)


def test_robust_moments_are_unmoved_by_outliers(generator):
    calm = torch.randn(1000, 2, generator=generator)
    wild = calm.clone()
    wild[:3, 0] = 1e9
    for found, expected in zip(robust_moments(wild), robust_moments(calm), strict=True):
        assert (found - expected).abs().max() < 0.05  # plainly not 3e6


def test_robust_moments_do_not_depend_on_order(generator):
    steps = torch.randn(40, 3, generator=generator)
    order = torch.randperm(40, generator=generator)
    for found, expected in zip(robust_moments(steps[order]), robust_moments(steps), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("most", [1, 80, 100])
def test_robust_moments_some_features_at_a_time_are_those_of_all(generator, monkeypatch, most):
    steps = 3.0 + torch.randn(40, 5, generator=generator)
    expected = robust_moments(steps)
    monkeypatch.setattr(projection, "VALUES_SORTED_AT_ONCE", most)  # 1, 2 and 2 of 5 at a time
    for found, wanted in zip(robust_moments(steps), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0.0)


def test_no_steps_give_features_that_are_always_zero():
    standardiser = Standardiser(2)
    standardiser.fit(torch.zeros(0, 2))
    assert torch.equal(standardiser(torch.randn(2, 3, 2)), torch.zeros(2, 3, 2))


def test_standardised_features_have_mean_zero_and_deviation_one(generator):
    steps = 50.0 + 4.0 * torch.rand(400, 3, generator=generator)
    standardiser = Standardiser(3)
    standardiser.fit(steps)
    standard = standardiser(steps)
    # The .5% at either end are cut for the moments only: a few thousandths of a deviation.
    assert standard.mean(dim=0).abs().max() < 0.01
    assert (standard.std(dim=0) - 1).abs().max() < 0.02


def test_constant_features_become_zero(generator):
    steps = torch.randn(30, 3, generator=generator)
    steps[:, 1] = 7.0
    standardiser = Standardiser(3)
    standardiser.fit(steps)
    moved = steps.clone()
    moved[:, 1] = -1e6
    assert (standardiser(moved)[:, 1] == 0).all()
    assert (standardiser(moved)[:, [0, 2]] != 0).all()


def test_standard_scores_stay_within_eight():
    standardiser = Standardiser(1)
    standardiser.fit(torch.tensor([[-1.0], [1.0]]))
    x = torch.tensor([[[1e9], [-1e9], [3.0]]])
    assert standardiser(x).flatten().tolist() == [8.0, -8.0, 3.0]


def test_unfitted_standardiser_changes_nothing_small():
    x = torch.tensor([[[0.5, -3.0]]])
    assert torch.equal(Standardiser(2)(x), x)


def test_projection_pads_to_the_longest_with_zeros(generator):
    projection = Projection({"text": 3, "audio": 2}, 8, standardise=True, input_dropout=0.0)
    features = {
        "text": torch.randn(2, 5, 3, generator=generator),
        "audio": torch.randn(2, 4, 2, generator=generator),
    }
    z = projection(features)
    assert z.shape == (2, 2, 5, 8)
    torch.testing.assert_close(z[0], projection.linear["text"](features["text"]), **TOLERANCE)
    torch.testing.assert_close(
        z[1, :, :4], projection.linear["audio"](features["audio"]), **TOLERANCE
    )
    assert (z[1, :, 4:] == 0).all()


def test_input_dropout_acts_in_training_only(generator):
    projection = Projection({"text": 3}, 8, standardise=False, input_dropout=0.9)
    features = {"text": torch.randn(2, 50, 3, generator=generator)}
    projection.eval()
    assert torch.equal(projection(features), projection(features))
    torch.manual_seed(0)
    dropped = projection.train()(features)[0] == projection.linear["text"].bias
    assert dropped.all(dim=-1).float().mean() > 0.5  # .9 ** 3 = .73 of the steps lose all
