"""LMF: the same number as TFN's tensor with a weight tensor of low rank."""

import pytest
import torch

from fakes.toys import all_products, make_network, mean_error, signs, teach
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.tfn import fusion_tensor

DIMS = {"text": 2, "audio": 3, "vision": 1}
SMALL = {"text_width": 8, "text_out": 4, "audio_width": 9, "vision_width": 8}
CLASSES = Task(kind="classes", names=("calm", "glad", "sad", "cross"))


def test_equals_the_tensor_contracted_with_its_weight():
    network = make_network("lmf", DIMS, task=CLASSES, rank=2, **SMALL).double()
    features = {m: signs(6, 3, dim, seed=4).double() for m, dim in DIMS.items()}
    masks = {m: torch.ones(6, 3, dtype=torch.bool) for m in DIMS}
    masks["audio"][2] = False
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.1, 0.2, 0.4, 0.8]))
    vectors = network.utterances(features, masks)

    tensor = fusion_tensor([vectors[m] for m in DIMS])  # [6, 5 * 10 * 9]
    # Sum over ranks of w_r text_r (x) audio_r (x) vision_r, for every class o.
    weight = torch.einsum(
        "r,rto,rao,rvo->otav", network.rank_weights, *(network.factors[m] for m in DIMS)
    )
    expected = tensor @ weight.flatten(1).T + network.bias

    # Float64, 450 terms of size one.
    scores = network(features, masks).scores
    torch.testing.assert_close(scores, expected, rtol=0.0, atol=1e-10)


def test_rank_weights_and_bias_are_trained():
    network = make_network("lmf", DIMS, rank=2, **SMALL)
    features = {m: signs(6, 3, dim, seed=4) for m, dim in DIMS.items()}
    network(features).scores.sum().backward()
    assert dict(network.named_parameters()).keys() >= {"rank_weights", "bias"}
    assert network.bias.grad.item() == 6
    assert (network.rank_weights.grad != 0).all()


def test_factors_start_xavier_normal_rank_by_rank():
    network = make_network("lmf", {"text": 2}, text_out=999, rank=4)
    factors = network.factors["text"]
    assert factors.shape == (4, 1000, 1)
    # Deviation of a thousand draws: 2% of itself, three times over.
    assert factors.std(dim=1).flatten().tolist() == pytest.approx([(2 / 1001) ** 0.5] * 4, rel=0.07)


def test_learns_a_product_of_all_three():
    features, targets = all_products()
    network = make_network("lmf", dict.fromkeys(DIMS, 1), rank=4, **SMALL)
    teach(network, features, targets, updates=100)
    assert mean_error(network, features, targets) < 0.2  # a constant's is 1


def test_refuses_options_it_has_not():
    with pytest.raises(ConfigError) as caught:
        make_network("lmf", DIMS, rank=0)
    assert str(caught.value) == (
        "options of lmf have 1 problem\n"
        "  model.options.rank: must be greater than or equal to 1, got 0\n"
        "  Options of lmf: text_width, text_out, audio_width, vision_width, dropout, rank"
    )
