"""MISA: its three losses worked by hand, its readings, and parts that do come apart."""

import pytest
import torch

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.misa import (
    MISA,
    TwoReadings,
    central_moment_discrepancy,
    difference_loss,
)

# Float64, sums of a few terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
# Each of the distances has 1e-12 under its root, which is 1e-6 where it should be 0.
ROOT = {"rtol": 0.0, "atol": 1e-5}
DIMS = {"text": 5, "audio": 3, "vision": 4}
SCORE = Task(kind="regression", low=-3, high=3)
SMALL = {"width": 8, "heads": 2, "inner_width": 12, "dropout": 0.0, "transformer_dropout": 0.0}


def make_misa(**options):
    torch.manual_seed(7)
    settings = ModelSettings(name="misa", options={**SMALL, **options})
    return MISA(DIMS, SCORE, model=settings)


@pytest.fixture
def rows(generator):
    return torch.rand(6, 4, generator=generator, dtype=torch.float64)


def every(x):
    return torch.ones(len(x), dtype=torch.bool)


def test_discrepancy_of_equal_batches_is_zero(rows):
    shuffled = rows[[3, 1, 5, 0, 2, 4]]
    found = central_moment_discrepancy(rows, shuffled, every(rows), every(rows))
    torch.testing.assert_close(found, torch.zeros_like(found), **ROOT)


def test_discrepancy_of_a_shifted_batch_is_the_shift(rows):
    # 3, 4 and 12 long: the central moments do not notice, and the length is 13.
    shift = torch.tensor([3.0, 4.0, 0.0, 12.0], dtype=torch.float64)
    found = central_moment_discrepancy(rows, rows + shift, every(rows), every(rows))
    assert float(found) == pytest.approx(13.0, abs=ROOT["atol"])


def test_discrepancy_worked_by_hand():
    # Means 1 and 1; second moments 1 and 4, third 0 and 0, fourth 1 and 16.
    p = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    q = torch.tensor([[-1.0], [3.0], [3.0], [-1.0]], dtype=torch.float64)
    by_order = [
        float(central_moment_discrepancy(p, q, every(p), every(q), orders=orders))
        for orders in (1, 2, 3, 4)
    ]
    assert by_order == pytest.approx([0, 3, 3, 18], abs=ROOT["atol"])


def test_discrepancy_has_a_slope_where_it_is_zero(rows):
    p = rows.clone().requires_grad_()
    central_moment_discrepancy(p, p.detach(), every(p), every(p)).backward()
    torch.testing.assert_close(p.grad, torch.zeros_like(p), **TOLERANCE)


def test_discrepancy_counts_only_rows_that_count(rows):
    q = rows.flip(0) * 2
    counts = torch.tensor([True, False, True, True, False, True])
    garbage = rows.masked_fill(~counts.unsqueeze(-1), 50.0)

    found = central_moment_discrepancy(garbage, q, counts, every(q))

    expected = central_moment_discrepancy(rows[counts], q, every(rows[counts]), every(q))
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert central_moment_discrepancy(rows, q, ~every(rows), every(q)) == 0


def test_difference_worked_by_hand():
    # Centred rows of one clip each: (-1, 0), (1, 0) against (0, -2), (0, 2) once scaled
    # give X^T Y = [[0, 2], [0, 0]]; its mean square is 1.
    x = torch.tensor([[0.0, 5.0], [2.0, 5.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, -2.0], [1.0, 2.0]], dtype=torch.float64)
    # Rows are divided by their length plus 1e-6.
    assert float(difference_loss(x, y, every(x))) == pytest.approx(1.0, abs=1e-5)
    assert float(difference_loss(x, x, every(x))) == pytest.approx(1.0, abs=1e-5)


def test_difference_of_unrelated_directions_is_zero():
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    assert difference_loss(x, y, every(x)) == pytest.approx(0, abs=1e-12)


def test_difference_counts_only_rows_that_count(rows):
    counts = torch.tensor([True, True, False, True, False, True])
    garbage = rows.masked_fill(~counts.unsqueeze(-1), 50.0)
    found = difference_loss(garbage, rows, counts)
    expected = difference_loss(rows[counts], rows[counts], every(rows[counts]))
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert difference_loss(rows, rows, ~every(rows)) == 0


def test_weighted_losses_add_up(make_features):
    model = make_misa(
        difference_weight=0.7, similarity_weight=0.11, reconstruction_weight=1.3, moments=3
    ).double()
    output = model(make_features(clips=5))
    private, shared = output.extras["private"], output.extras["shared"]
    counts = torch.ones(5, dtype=torch.bool)
    pairs = [(0, 1), (0, 2), (1, 2)]
    difference = sum(difference_loss(private[m], shared[m], counts) for m in range(3)) + sum(
        difference_loss(private[m], private[k], counts) for m, k in pairs
    )
    similarity = sum(
        central_moment_discrepancy(shared[m], shared[k], counts, counts, orders=3) for m, k in pairs
    )
    rebuilt = (output.extras["rebuilt"] - output.extras["projected"]).square().mean()

    found = model.auxiliary_loss(output, torch.zeros(5), torch.arange(5))

    expected = 0.7 * difference + 0.11 * similarity / 3 + 1.3 * rebuilt
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_an_absent_modality_leaves_no_trace_in_the_losses(make_features, make_masks):
    model = make_misa().double()
    features = make_features(clips=4, steps=3)
    masks = make_masks({"text": [3, 3, 1, 2], "audio": [3, 2, 3, 1], "vision": [2, 3, 3, 1]})
    masks["audio"][2] = False
    extras = model(features, masks).extras
    spoilt = {
        name: x.clone().index_put_((torch.tensor(1), torch.tensor(2)), torch.tensor(9.0).double())
        for name, x in extras.items()
        if name != "present"
    }
    output = model(features, masks)
    given = (torch.zeros(4), torch.arange(4))
    torch.testing.assert_close(
        model.auxiliary_loss(output._replace(extras={**extras, **spoilt}), *given),
        model.auxiliary_loss(output, *given),
        **TOLERANCE,
    )


def test_each_modality_is_read_by_its_own_length(randomise, make_features, make_masks):
    reading = randomise(TwoReadings(5, 3).double())
    steps = make_features(clips=2, steps=6)["text"]
    mask = make_masks({"text": [6, 4]})["text"]
    with torch.no_grad():
        found = reading(steps, mask)
        alone = reading(steps[1:, :4], torch.ones(1, 4, dtype=torch.bool))
        first, (states, _) = reading.first.lstm(steps[1:, :4])
        _, (later, _) = reading.second.lstm(reading.norm(first))
    torch.testing.assert_close(found[1:], alone, **TOLERANCE)
    by_torch = torch.cat([states[0], states[1], later[0], later[1]], dim=-1)
    torch.testing.assert_close(found[1:], by_torch, **TOLERANCE)


def test_text_can_be_averaged():
    model = make_misa(text="mean")
    assert "text" not in model.readings
    assert model({m: torch.ones(2, 3, d) for m, d in DIMS.items()}).scores.shape == (2,)


def test_options_are_refused():
    with pytest.raises(ConfigError) as caught:
        make_misa(heads=3, similarity_weight=-1.0, widht=8)
    assert str(caught.value) == (
        "options of misa have 3 problems\n"
        "  model.options.heads: must divide width 8, got 3\n"
        "  model.options.similarity_weight: must be greater than or equal to 0, got -1.0\n"
        '  model.options.widht: unknown key; did you mean "width"?\n'
        "  Options of misa: width, heads, inner_width, dropout, transformer_dropout, text, "
        "moments, difference_weight, similarity_weight, reconstruction_weight"
    )


def test_training_draws_shared_parts_together_and_private_parts_apart():
    # One sign is in both modalities, another in each alone: the score needs all three.
    generator = torch.Generator().manual_seed(4)
    signs = torch.randn(3, 48, generator=generator)
    shown = {"text": signs[[0, 1]], "audio": signs[[0, 2]], "vision": signs[[0, 0]]}
    features = {
        m: (x.T @ torch.randn(2, DIMS[m], generator=generator)).unsqueeze(1)
        for m, x in shown.items()
    }
    targets = signs.sum(dim=0)

    # Weights that suit so few clips: at the published ones nothing else is learnt first.
    model = make_misa(width=16, difference_weight=0.01, reconstruction_weight=0.1).train()

    def measure():
        extras, counts = model(features).extras, torch.ones(48, dtype=torch.bool)
        private, shared = extras["private"], extras["shared"]
        apart = sum(difference_loss(private[m], shared[m], counts) for m in range(3))
        near = central_moment_discrepancy(shared[0], shared[1], counts, counts)
        return apart.item(), near.item()

    apart_before, near_before = measure()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(50):
        output = model(features)
        loss = (output.scores - targets).abs().mean()
        optimizer.zero_grad()
        (loss + model.auxiliary_loss(output, targets, torch.arange(48))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    apart, near = measure()

    assert loss.item() < 0.6 * targets.abs().mean().item()
    assert apart < 0.75 * apart_before
    assert near < 0.5 * near_before
