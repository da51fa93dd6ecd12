"""Late fusion, and each modality alone."""

import pytest
import torch
from torch.nn import functional as F

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, ShapeError
from mmcl.models.baselines.late_fusion import AudioOnly, LateFusion, TextOnly, VisionOnly
from mmcl.models.registry import network_class

REGRESSION = Task(kind="regression", low=-3, high=3)
DIMS = {"text": 5, "audio": 3, "vision": 4}
SMALL = {"width": 8, "heads": 2, "layers": 1}
ALONE = {"text": TextOnly, "audio": AudioOnly, "vision": VisionOnly}


def make(kind=LateFusion, dims=None, **options):
    settings = ModelSettings(name="late_fusion", options=SMALL | options, standardise=False)
    return kind(dims or DIMS, REGRESSION, model=settings).eval()


@pytest.fixture
def features(generator):
    return {m: torch.randn(2, n, DIMS[m], generator=generator) for m, n in
            {"text": 3, "audio": 6, "vision": 4}.items()}  # fmt: skip


def test_fusion_is_means_side_by_side_and_one_head(features):
    model = make()
    output = model(features)
    pooled = [
        model.encoders[m](model.projections[m](x), torch.ones(x.shape[:2], dtype=torch.bool)).mean(
            1
        )
        for m, x in features.items()
    ]
    hidden = F.relu(F.linear(torch.cat(pooled, dim=-1), model.inner.weight, model.inner.bias))
    # Float32, sums of 24 terms of size one.
    torch.testing.assert_close(output.hidden, hidden, rtol=0, atol=1e-5)
    scores = hidden @ model.output.weight[0] + model.output.bias
    torch.testing.assert_close(output.scores, scores, rtol=0, atol=1e-5)


def test_sizes_are_the_options():
    model = make(width=12, heads=3, layers=4, dropout=0.25)
    assert model.inner.weight.shape == (12, 36)
    assert [len(encoder.layers) for encoder in model.encoders.values()] == [4, 4, 4]
    block = model.encoders["audio"].layers[0]
    assert block.attention.heads == 3
    assert block.dropout.p == model.dropout.p == 0.25
    options = LateFusion.Options()
    assert (options.width, options.heads, options.layers, options.dropout) == (64, 4, 2, 0.1)


@pytest.mark.parametrize("modality", ALONE)
def test_one_modality_alone_is_late_fusion_of_it(features, modality):
    kind = ALONE[modality]
    assert network_class(f"{modality}_only") is kind
    assert kind.takes == (modality,)
    torch.manual_seed(0)
    alone = make(kind)
    torch.manual_seed(0)
    fused = make(dims={modality: DIMS[modality]})
    assert alone.modalities == (modality,)
    assert torch.equal(alone(features).scores, fused(features).scores)


def test_modality_alone_refuses_a_corpus_without_it():
    with pytest.raises(ShapeError) as caught:
        make(AudioOnly, dims={"text": 5})
    assert str(caught.value) == "none of the modalities ['audio'] is in ['text']"


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError) as caught:
        make(width=8, heads=3)
    assert str(caught.value) == (
        "options of late_fusion have 1 problem\n"
        "  model.options.heads: must divide width 8, got 3\n"
        "  Options of late_fusion: width, heads, layers, dropout"
    )
