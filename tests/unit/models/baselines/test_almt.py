"""ALMT: its tokens and its hyper-modality against plain loops, and what language decides."""

import pytest
import torch
from torch.nn import functional as F

from fakes.toys import make_network, mean_error, signs, teach
from mmcl.errors import ConfigError
from mmcl.models.baselines.almt import ALMT, HyperLayer, TokenEncoder
from mmcl.models.layers import sinusoidal_positions

SMALL = {"width": 8, "tokens": 2, "heads": 2, "head_width": 4, "inner_width": 8, "layers": 1}
DIMS = {"text": 3, "audio": 2, "vision": 4}
# Float64, sums of a few dozen terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20)


@pytest.fixture
def randomise(generator):
    def fill(module):
        for each in module.double().parameters():
            torch.nn.init.normal_(each, std=0.5, generator=generator)
        return module

    return fill


def _attend(query, key, value, heads):
    """Attention of one clip, head by head and query by query."""
    width = query.shape[-1] // heads
    rows = []
    for each in query:
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            share = torch.stack([each[own] @ k[own] / width**0.5 for k in key]).softmax(dim=0)
            parts.append(sum(s * v[own] for s, v in zip(share, value, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def test_tokens_are_the_first_outputs_of_a_whole_layer_over_tokens_and_steps(randomise, generator):
    encoder = randomise(TokenEncoder(3, ALMT.Options(**SMALL)))
    steps = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False]])

    found = encoder(steps, mask)[0]

    places = sinusoidal_positions(5, 8, steps.device).double()
    projected = (encoder.projection(steps[0]) + places)[mask[0]]
    x = torch.cat([encoder.tokens + encoder.positions, projected])  # [2 + 3, 8]
    layer = encoder.layer
    normal = layer.query_norm(x)
    key, value = layer.attention.key_value(normal).chunk(2, dim=-1)
    context = _attend(layer.attention.query(normal), key, value, heads=2)
    x = x + layer.attention.out(context)
    x = x + layer.outer(F.gelu(layer.inner(layer.inner_norm(x))))
    # The positions are float32: seven digits of numbers of size one.
    torch.testing.assert_close(found, x[:2], rtol=0.0, atol=1e-6)


def test_hyper_modality_takes_up_what_language_finds(randomise, generator):
    layer = randomise(HyperLayer(["audio", "vision"], 8, heads=2))
    hyper, language, audio, vision = torch.randn(4, 2, 3, 8, generator=generator).double()
    present = {"audio": torch.tensor([True, True]), "vision": torch.tensor([True, False])}

    found = layer(hyper, language, {"audio": audio, "vision": vision}, present)

    for clip, heard in enumerate([("audio", "vision"), ("audio",)]):
        query = layer.query(layer.language_norm(language[clip]))
        total = torch.zeros(3, 8).double()
        for m in heard:
            tokens = {"audio": audio, "vision": vision}[m][clip]
            key, value = layer.keys_values[m](layer.norms[m](tokens)).chunk(2, dim=-1)
            total += _attend(query, key, value, heads=2)
        expected = layer.hyper_norm(hyper[clip]) + layer.out(total)
        torch.testing.assert_close(found[clip], expected, **TOLERANCE)


def test_language_scales_are_tokens_and_after_each_of_two_layers(randomise, generator):
    network = randomise(make_network("almt", DIMS, **SMALL))
    tokens = torch.randn(2, 2, 8, generator=generator).double()
    scales = network.language_scales(tokens)
    assert len(scales) == len(network.hyper_layers) == 3
    torch.testing.assert_close(scales[0], tokens + network.language_positions, **TOLERANCE)
    torch.testing.assert_close(scales[1], network.scales[0](scales[0], scales[0]), **TOLERANCE)
    torch.testing.assert_close(scales[2], network.scales[1](scales[1], scales[1]), **TOLERANCE)


@pytest.mark.parametrize(("read", "hears"), [("all", True), ("first", False)])
def test_language_alone_reaches_the_score_unless_the_first_token_is_read(read, hears):
    network = make_network("almt", DIMS, read=read, **SMALL)
    text = torch.randn(2, 4, 3)
    scores = network({"text": text}).scores
    # As published, language can only ask the others; here there are none to answer.
    assert bool((scores[0] - scores[1]).abs() > 1e-4) == hears


def test_learns_which_modality_language_points_at():
    def clips(seed):
        text, audio, vision = (signs(128, 1, 1, seed=seed + i) for i in range(3))
        targets = torch.where(text > 0, audio, vision)[:, 0, 0]
        return {"text": text, "audio": audio, "vision": vision}, targets

    network = make_network("almt", dict.fromkeys(DIMS, 1), **SMALL)
    teach(network, *clips(1), updates=100)
    assert mean_error(network, *clips(11)) < 0.3  # without language nothing is below 0.5


def test_refuses_heads_that_do_not_divide_and_readings_it_has_not():
    with pytest.raises(ConfigError) as caught:
        make_network("almt", DIMS, heads=5, read="last")
    assert str(caught.value) == (
        "options of almt have 2 problems\n"
        "  model.options.heads: must divide width 128, got 5\n"
        "  model.options.read: must be 'all' or 'first', got 'last'\n"
        "  Options of almt: width, tokens, heads, head_width, inner_width, layers, read"
    )
