"""EF-LSTM: its joined steps by hand, its state against a plain loop, and a toy problem."""

import pytest
import torch

from fakes.toys import make_network, mean_error, signs, teach
from mmcl.errors import ConfigError

# Float32, three LSTM layers of width four.
TOLERANCE = {"rtol": 0.0, "atol": 1e-6}


def test_aligned_steps_stand_side_by_side():
    network = make_network("ef_lstm", {"text": 2, "audio": 1})
    steps = {
        "text": torch.tensor([[[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]]),
        "audio": torch.tensor([[[0.0], [5.0]]]),
    }
    masks = {"text": torch.tensor([[True, True, False]]), "audio": torch.tensor([[False, True]])}

    joined, mask = network.join(steps, masks)

    assert joined.tolist() == [[[1, 2, 0], [3, 4, 5], [0, 0, 0]]]
    assert mask.tolist() == [[True, True, False]]


def test_unaligned_steps_are_brought_to_one_length():
    dims = {"text": 1, "audio": 1, "vision": 1}
    network = make_network("ef_lstm", dims, aligned=False, steps=2)
    steps = {
        "text": torch.tensor([[1.0, 0.0, 3.0, 7.0, 9.0], [0.0] * 5]).unsqueeze(-1),
        "audio": torch.tensor([[4.0], [0.0]]).unsqueeze(-1),
        "vision": torch.tensor([[0.0, 0.0], [0.0, 0.0]]).unsqueeze(-1),
    }
    masks = {
        "text": torch.tensor([[True, False, True, True, True], [False] * 5]),
        "audio": torch.tensor([[True], [False]]),
        "vision": torch.zeros(2, 2, dtype=torch.bool),
    }

    joined, mask = network.join(steps, masks)

    # Text: 1, 3 and 7, 9 in halves; audio: its one step twice; no vision; an empty clip.
    assert joined.tolist() == [[[2, 4, 0], [8, 4, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert mask.tolist() == [[True, True], [False, False]]


def test_state_is_that_of_the_last_real_step():
    network = make_network("ef_lstm", {"text": 3, "audio": 2}, width=4, layers=3)
    generator = torch.Generator().manual_seed(2)
    features = {m: torch.randn(2, 5, d, generator=generator) for m, d in network.dims.items()}
    lengths = [3, 5]
    masks = {m: torch.arange(5)[None] < torch.tensor(lengths)[:, None] for m in features}

    hidden = network(features, masks).hidden

    for clip, n in enumerate(lengths):
        joined = torch.cat([x[clip : clip + 1, :n] for x in features.values()], dim=-1)
        outputs, _ = network.recurrent.lstm(network.norm.norm(joined[0]).unsqueeze(0))
        expected = network.inner(outputs[0, -1]).clamp(min=0)
        torch.testing.assert_close(hidden[clip], expected, **TOLERANCE)


def test_learns_products_within_a_step():
    # Mean over steps of text times audio: neither modality alone, nor both their means, know.
    def clips(seed):
        features = {"text": signs(128, 3, 1, seed=seed), "audio": signs(128, 3, 1, seed=seed + 1)}
        return features, (features["text"] * features["audio"]).mean(dim=(1, 2))

    network = make_network("ef_lstm", {"text": 1, "audio": 1}, width=16, layers=1)
    teach(network, *clips(1), updates=200, rate=2e-2)
    features, targets = clips(3)
    assert mean_error(network, features, targets) < 0.2 * float(targets.abs().mean())


def test_refuses_options_it_has_not():
    with pytest.raises(ConfigError) as caught:
        make_network("ef_lstm", {"text": 3}, layers=0, stepz=3)
    assert str(caught.value) == (
        "options of ef_lstm have 2 problems\n"
        "  model.options.layers: must be greater than or equal to 1, got 0\n"
        '  model.options.stepz: unknown key; did you mean "steps"?\n'
        "  Options of ef_lstm: width, layers, dropout, steps"
    )
