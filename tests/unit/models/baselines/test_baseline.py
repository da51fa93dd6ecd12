"""The frame of a baseline: its options, and what it hands to a model of two methods."""

import pytest
import torch
from pydantic import Field
from torch import nn

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.baseline import Baseline, BaselineOptions

REGRESSION = Task(kind="regression", low=-3, high=3)
DIMS = {"text": 2, "audio": 1}


class Toy(Baseline):
    """Sums what it is given."""

    class Options(BaselineOptions):
        width: int = Field(8, ge=2)
        gate: float = Field(0.5, gt=0)

    def build(self):
        self.built_with = (self.dims, self.task.output_dim, self.options.width)
        self.output = nn.Linear(1, self.task.output_dim)

    def predict(self, steps, masks):
        self.given = (steps, masks)
        total = sum(x.sum(dim=(1, 2)) for x in steps.values()).unsqueeze(-1)
        return total.expand(-1, self.task.output_dim), total, {"total": total}


class Bare(Toy):
    Options = BaselineOptions

    def build(self):
        """Nothing."""


def make(kind=Toy, **settings):
    return kind(DIMS, REGRESSION, model=ModelSettings(name="late_fusion", **settings))


def test_options_are_those_of_the_settings():
    assert make().built_with == (DIMS, 1, 8)
    options = make(options={"width": 4, "gate": 0.25}).options
    assert (options.width, options.gate) == (4, 0.25)
    with pytest.raises(ValueError, match="frozen"):
        options.width = 5


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        pytest.param(
            Toy,
            {"widht": 4},
            "options of late_fusion have 1 problem\n"
            '  model.options.widht: unknown key; did you mean "width"?\n'
            "  Options of late_fusion: width, gate",
            id="misspelt",
        ),
        pytest.param(
            Toy,
            {"width": 1, "gate": "wide", "sign": True},
            "options of late_fusion have 3 problems\n"
            "  model.options.gate: must be a valid number, unable to parse string as a number, "
            "got 'wide'\n"
            "  model.options.sign: unknown key\n"
            "  model.options.width: must be greater than or equal to 2, got 1\n"
            "  Options of late_fusion: width, gate",
            id="three",
        ),
        pytest.param(
            Bare,
            {"width": 8},
            "options of late_fusion have 1 problem\n"
            "  model.options.width: unknown key\n"
            "  Options of late_fusion: it has none",
            id="none",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_together(kind, options, message):
    with pytest.raises(ConfigError) as caught:
        make(kind, options=options)
    assert str(caught.value) == message


def test_model_is_given_standardised_steps_and_zeros():
    model = make()
    model.fit_standardisation(
        {"text": torch.tensor([[0.0, 10.0], [4.0, 10.0]]), "audio": torch.tensor([[1.0], [3.0]])}
    )
    text = torch.tensor([[[4.0, 9.0], [50.0, 50.0]], [[2.0, 9.0], [1.0, 9.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    output = model({"text": text}, {"text": mask})

    steps, masks = model.given
    # Text: centre 2, scale 2, and a feature that is constant; masked steps and audio are 0.
    assert steps["text"].tolist() == [[[1, 0], [0, 0]], [[0, 0], [-0.5, 0]]]
    assert steps["audio"].tolist() == [[[0]], [[0]]]  # not minus its centre
    assert torch.equal(masks["text"], mask)
    assert masks["audio"].tolist() == [[False], [False]]
    assert output.scores.tolist() == [1.0, -0.5]
    assert output.hidden.tolist() == output.extras["total"].tolist() == [[1.0], [-0.5]]


def test_features_may_be_left_as_they_are():
    model = make(standardise=False)
    assert len(model.standardisers) == 0
    model.fit_standardisation({"text": torch.ones(3, 2), "audio": torch.ones(0, 1)})
    assert model.never_seen == ("audio",)
    model({"text": torch.tensor([[[30.0, 10.0]]]), "audio": torch.ones(1, 1, 1)})
    assert model.given[0]["text"].tolist() == [[[30, 10]]]
    assert model.given[0]["audio"].tolist() == [[[0]]]


@pytest.mark.parametrize(("kind", "shape"), [("classes", (2, 3)), ("emotions", (2, 3, 2))])
def test_scores_take_the_shape_of_the_task(kind, shape):
    model = Toy(DIMS, Task(kind=kind, names=("calm", "happy", "sad")))
    assert model({"text": torch.ones(2, 1, 2)}).scores.shape == shape


def test_what_is_not_written_is_missed():
    class Empty(Baseline):
        def build(self):
            """Nothing."""

    with pytest.raises(NotImplementedError):
        Baseline(DIMS, REGRESSION)
    with pytest.raises(NotImplementedError):
        Empty(DIMS, REGRESSION)({"text": torch.ones(1, 1, 2)})
