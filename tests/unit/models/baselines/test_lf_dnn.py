"""LF-DNN: its order of vectors, and that every one of them is used."""

import pytest
import torch

from fakes.toys import make_network, mean_error, signs, teach
from mmcl.errors import ConfigError

DIMS = {"text": 2, "audio": 3, "vision": 1}


def test_scores_come_from_the_vectors_side_by_side():
    network = make_network("lf_dnn", DIMS, text_out=4, audio_width=2, vision_width=3)
    generator = torch.Generator().manual_seed(2)
    features = {m: torch.randn(2, 5, dim, generator=generator) for m, dim in DIMS.items()}
    masks = {m: torch.ones(2, 5, dtype=torch.bool) for m in DIMS}

    vectors = network.utterances(features, masks)
    x = torch.cat([vectors["text"], vectors["audio"], vectors["vision"]], dim=-1)
    assert x.shape == (2, 4 + 2 + 3)
    for layer in (network.first, network.second):
        x = layer(x).clamp(min=0)
    prediction = network(features)

    torch.testing.assert_close(prediction.hidden, x, rtol=0.0, atol=1e-6)  # float32, few terms
    expected = network.output(x)[:, 0]
    torch.testing.assert_close(prediction.scores, expected, rtol=0.0, atol=1e-6)


def test_learns_the_order_of_text_and_the_means_of_the_others():
    def clips(seed):
        features = {m: signs(128, 2, dim, seed=seed + i) for i, (m, dim) in enumerate(DIMS.items())}
        order = (features["text"][:, 1, 0] - features["text"][:, 0, 0]) / 2
        others = [features[m][..., 0].mean(dim=1) for m in ("audio", "vision")]
        return features, order + sum(others)

    network = make_network(
        "lf_dnn", DIMS, text_width=16, text_out=8, vision_width=16, post_width=16
    )
    teach(network, *clips(1), updates=150)
    features, targets = clips(11)

    error = mean_error(network, features, targets)
    assert error < 0.25 * float(targets.abs().mean())
    for missing in DIMS:
        fewer = {m: x for m, x in features.items() if m != missing}
        assert mean_error(network, fewer, targets) > 2 * error, missing


def test_refuses_options_it_has_not():
    with pytest.raises(ConfigError) as caught:
        make_network("lf_dnn", DIMS, video_width=8)
    assert str(caught.value) == (
        "options of lf_dnn have 1 problem\n"
        '  model.options.video_width: unknown key; did you mean "vision_width"?\n'
        "  Options of lf_dnn: text_width, text_out, audio_width, vision_width, dropout, "
        "post_width, post_dropout"
    )
