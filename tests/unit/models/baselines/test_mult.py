"""MulT: its mask and one layer against plain loops, its last step, and a toy problem."""

import pytest
import torch

from fakes.toys import make_network, mean_error, signs, teach
from mmcl.errors import ConfigError
from mmcl.models.baselines.mult import CrossmodalLayer, MultimodalTransformer, extent, future_mask

SMALL = {"width": 8, "heads": 2, "layers": 1, "self_layers": 1}
DIMS = {"text": 3, "audio": 2, "vision": 4}


def _mask(*rows):
    return torch.tensor([[each == "x" for each in row] for row in rows])


def test_extent_ends_at_the_last_real_step():
    assert extent(_mask("xx..", ".x.x", "....", "x...")).tolist() == [2, 4, 0, 1]


def test_step_reads_the_past_and_as_much_more_as_the_lengths_differ():
    # Clip one: extents 2 and 3, so one step ahead; clip two: both 3, with a hole in the source.
    target, source = _mask("xx.", "xxx"), _mask("xxx.", "x.x.")
    allowed = future_mask(target, source)

    for clip, ahead in enumerate([1, 0]):
        for i in range(3):
            for j in range(4):
                expected = j < i + 1 + ahead and bool(source[clip, j])
                assert allowed[clip, i, j] == expected, (clip, i, j)
    assert allowed[0, 0].tolist() == [True, True, False, False]


def test_layer_worked_by_a_loop():
    torch.manual_seed(3)
    options = MultimodalTransformer.Options(width=6, heads=3)
    layer = CrossmodalLayer(6, options, dropout=0.2).double().eval()
    for each in layer.parameters():
        torch.nn.init.normal_(each, std=0.5)
    x, source = torch.randn(1, 2, 6).double(), torch.randn(1, 3, 6).double()
    allowed = torch.tensor([[[True, False, False], [True, True, False]]])
    bias = torch.where(allowed, 0.0, -1e4).unsqueeze(1)

    found = layer(x, source, bias, torch.ones(1, 2, 1).double())

    weight, shift = layer.qkv.weight, layer.qkv.bias
    normal, read = layer.norm1(x[0]), layer.norm1(source[0])
    for i in range(2):
        context = []
        for head in range(3):
            rows = slice(2 * head, 2 * head + 2)
            query, key, value = (
                y @ weight[start:][rows].T + shift[start:][rows]
                for y, start in ((normal[i], 0), (read, 6), (read, 12))
            )
            share = torch.stack([query @ key[j] / 2**0.5 for j in range(i + 1)]).softmax(dim=0)
            context.append(sum(share[j] * value[j] for j in range(i + 1)))
        y = x[0, i] + layer.out(torch.cat(context))
        y = y + layer.outer(layer.inner(layer.norm2(y)).clamp(min=0))
        # Float64, sums of a few dozen terms of size one.
        torch.testing.assert_close(found[0, i], y, rtol=0.0, atol=1e-12)


def test_step_that_may_read_nothing_keeps_its_own_value():
    network = make_network("mult", DIMS, **SMALL)
    stack = network.cross["text_from_audio"]
    steps = torch.randn(1, 3, 8)
    mask, none = _mask("xxx"), _mask("....")

    found = stack(steps, mask, torch.randn(1, 4, 8), none)

    x = stack._embed(steps)
    layer = stack.layers[0]
    x = x + layer.outer(layer.inner(layer.norm2(x)).clamp(min=0))
    torch.testing.assert_close(found, stack.norm(x), rtol=0.0, atol=1e-6)  # float32, width 8


def test_last_step_is_the_one_of_the_whole_stack():
    own = make_network("mult", DIMS, **{**SMALL, "self_layers": 3}).own["audio"]
    steps, mask = torch.randn(3, 4, 16), _mask("xx..", "x.xx", "xxx.")
    whole = own(steps, mask, None, mask)
    expected = torch.stack([whole[0, 1], whole[1, 3], whole[2, 2]])
    # Float32, three layers of width 16.
    torch.testing.assert_close(own.last(steps, mask), expected, rtol=0.0, atol=1e-5)


def test_each_clip_is_read_at_its_own_last_step():
    network = make_network("mult", DIMS, aligned=False, **SMALL)
    lengths = {"text": [4, 2], "audio": [3, 6], "vision": [1, 5]}
    features = {m: torch.randn(2, max(lengths[m]), d) for m, d in DIMS.items()}
    masks = {
        m: torch.arange(max(each))[None] < torch.tensor(each)[:, None]
        for m, each in lengths.items()
    }
    with torch.no_grad():
        together = network(features, masks).hidden
        for clip in range(2):
            alone = network(
                {m: x[clip : clip + 1, : lengths[m][clip]] for m, x in features.items()}
            )
            # Float32, two layers of width 16.
            torch.testing.assert_close(alone.hidden[0], together[clip], rtol=0.0, atol=1e-5)
    assert together.shape == (2, 6 * 8)


def test_learns_to_look_up_in_audio_what_text_names():
    # Audio says a value at each of two steps, and which of two names it has; text names one.
    def clips(seed):
        text, value = signs(128, 1, 1, seed=seed), signs(128, 2, 1, seed=seed + 1)
        name = signs(128, 1, 1, seed=seed + 2)
        audio = torch.cat([torch.cat([name, -name], dim=1), value], dim=-1)  # [128, 2, 2]
        named = (audio[..., 0] == text[..., 0]).float()
        return {"text": text, "audio": audio}, (named * value[..., 0]).sum(dim=1)

    network = make_network("mult", {"text": 1, "audio": 2}, aligned=False, **SMALL)
    teach(network, *clips(1), updates=100)
    assert mean_error(network, *clips(11)) < 0.2  # a constant's is 1


def test_refuses_heads_that_do_not_divide():
    with pytest.raises(ConfigError) as caught:
        make_network("mult", DIMS, heads=7)
    assert str(caught.value) == (
        "options of mult have 1 problem\n"
        "  model.options.heads: must divide width 40, got 7\n"
        "  Options of mult: width, heads, layers, self_layers, text_attention_dropout, "
        "audio_attention_dropout, vision_attention_dropout, self_attention_dropout, "
        "text_dropout, embedding_dropout, inner_dropout, residual_dropout, output_dropout"
    )
