"""TFN: every product stands in its tensor once, and scores stay in the task's range."""

from itertools import product

import pytest
import torch

from fakes.toys import all_products, make_network, mean_error, signs, teach
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.tfn import fusion_tensor

DIMS = {"text": 2, "audio": 3, "vision": 1}
SMALL = {"text_width": 8, "text_out": 4, "audio_width": 9, "vision_width": 8, "post_width": 16}


def test_tensor_holds_every_product_last_vector_fastest():
    audio, vision, text = [2.0, 3.0], [5.0], [7.0, 11.0, 13.0]
    tensor = fusion_tensor([torch.tensor([each]) for each in (audio, vision, text)])

    expected = [a * v * t for a, v, t in product([1.0, *audio], [1.0, *vision], [1.0, *text])]
    assert tensor.tolist() == [expected]
    # Constant, unimodal, bimodal and trimodal products, each once: primes tell them apart.
    assert {1, 2, 3, 5, 7, 2 * 5, 3 * 11, 5 * 13, 2 * 5 * 7}.issubset(expected)
    assert len(set(expected)) == 3 * 2 * 4


def test_network_puts_audio_slowest_and_text_fastest():
    network = make_network("tfn", DIMS, **SMALL)
    features = {m: signs(2, 3, dim, seed=4) for m, dim in DIMS.items()}
    masks = {m: torch.ones(2, 3, dtype=torch.bool) for m in DIMS}
    vectors = network.utterances(features, masks)
    fused = fusion_tensor([vectors["audio"], vectors["vision"], vectors["text"]])

    hidden = network.second(network.first(fused).clamp(min=0)).clamp(min=0)

    # Float32, 450 products of size one.
    torch.testing.assert_close(network(features).hidden, hidden, rtol=0.0, atol=1e-5)


def test_absent_modality_leaves_the_products_of_the_others():
    tensor = fusion_tensor([torch.tensor([[2.0]]), torch.zeros(1, 2), torch.tensor([[3.0]])])
    assert tensor.view(2, 3, 2).tolist() == [[[1, 3], [0, 0], [0, 0]], [[2, 6], [0, 0], [0, 0]]]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-3.0, 3.0), (0.0, 5.0)])
def test_scores_reach_from_low_to_high(low, high):
    network = make_network("tfn", DIMS, task=Task(kind="regression", low=low, high=high), **SMALL)
    features = {m: signs(2, 3, dim, seed=4) for m, dim in DIMS.items()}
    with torch.no_grad():
        for bias, expected in ((-60.0, low), (0.0, (low + high) / 2), (60.0, high)):
            network.output.weight.zero_()
            network.output.bias.fill_(bias)
            # Float32, one sigmoid and one product.
            found = network(features).scores
            torch.testing.assert_close(found, torch.full((2,), expected), rtol=0.0, atol=1e-5)


def test_logits_are_not_squashed():
    network = make_network("tfn", DIMS, task=Task(kind="classes", names=("a", "b")), **SMALL)
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([-60.0, 70.0]))
        scores = network({"text": signs(1, 3, 2, seed=4)}).scores
    assert scores.tolist() == [[-60, 70]]


def test_learns_a_product_of_all_three():
    # Two of the three modalities, or any sum of what each says, know nothing of it.
    features, targets = all_products()
    network = make_network("tfn", dict.fromkeys(DIMS, 1), **SMALL)
    teach(network, features, targets, updates=120, rate=5e-3)
    assert mean_error(network, features, targets) < 0.2  # a constant's is 1


def test_refuses_options_it_has_not():
    with pytest.raises(ConfigError) as caught:
        make_network("tfn", DIMS, post_dropout=1.0)
    assert str(caught.value) == (
        "options of tfn have 1 problem\n"
        "  model.options.post_dropout: must be less than 1, got 1.0\n"
        "  Options of tfn: text_width, text_out, audio_width, vision_width, dropout, "
        "post_width, post_dropout"
    )
