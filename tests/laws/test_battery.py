"""The battery itself: it makes models small, and its list of exceptions cannot rot."""

import inspect

from pydantic import Field

from laws import battery, test_scores, test_training
from mmcl.models.baselines.baseline import BaselineOptions
from mmcl.types import BASELINES, VARIANTS


class _Options(BaselineOptions):
    hidden: int = Field(128, ge=1)
    tiny: int = 3
    num_heads: int = Field(10, ge=1)
    encoder_layers: int = 4
    text_dropout: float = Field(0.5, ge=0, lt=1)
    weight: float = 0.3
    gated: bool = True
    style: str = "sum"
    length: int = Field(375, ge=50)


def test_options_are_made_small_by_their_names():
    assert battery.small_options(_Options) == {
        "hidden": 8,
        "num_heads": 2,
        "encoder_layers": 1,
        "text_dropout": 0.0,
    }  # 8 is too few for length: its default stays


def test_options_reach_the_network():
    options = battery.make_model("late_fusion").options
    assert (options.width, options.heads, options.layers, options.dropout) == (8, 2, 1, 0.0)
    settings = battery.make_model("calibrated").settings
    assert (settings.width, settings.heads, settings.dropout) == (8, 2, 0.0)


def test_battery_has_every_model_that_is_there():
    assert {*VARIANTS, *BASELINES} <= set(battery.NAMES)


def test_every_exception_names_a_model_and_a_law():
    laws = {
        law: function
        for module in (test_scores, test_training)
        for law, function in inspect.getmembers(module, inspect.isfunction)
    }
    for (name, law), reason in battery.EXCEPTIONS.items():
        assert name in battery.NAMES
        assert {"name", "model"} & set(inspect.signature(laws[law]).parameters)
        assert reason
