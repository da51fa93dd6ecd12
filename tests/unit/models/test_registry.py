"""Models by name, and from the folder where one was saved."""

import json
from importlib import metadata

import pytest
import torch

from mmcl.config import ENTRY_POINTS, ModelSettings, PolicySettings, model_names
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError, RunError
from mmcl.models import registry
from mmcl.models.baselines.late_fusion import LateFusion, TextOnly
from mmcl.models.mmcl import MMCL
from mmcl.models.registry import build_network, load_network, network_class

DIMS = {"text": 5, "audio": 3}
REGRESSION = Task(kind="regression", low=-3, high=3)


@pytest.fixture
def register(monkeypatch):
    """Let other packages register models; ``register(name="module:Class")``."""

    def put(**models):
        entries = metadata.EntryPoints(
            metadata.EntryPoint(name, value, ENTRY_POINTS) for name, value in models.items()
        )
        monkeypatch.setattr(metadata, "entry_points", lambda group: entries.select(group=group))

    return put


def build(name, **settings):
    model = ModelSettings(name=name, width=8, heads=2, **settings)
    return build_network(DIMS, REGRESSION, aligned=True, model=model, policy=PolicySettings())


def test_names_lead_to_classes():
    assert network_class("calibrated") is network_class("released") is MMCL
    assert network_class("late_fusion") is LateFusion
    assert network_class("text_only") is TextOnly


def test_unknown_name_is_offered_the_nearest():
    with pytest.raises(ConfigError) as caught:
        network_class("late_fussion")
    assert str(caught.value) == (
        'unknown model "late_fussion"; did you mean "late_fusion"?\n'
        f"  Models: {', '.join(model_names())}"
    )


def test_model_of_another_package_is_one_of_the_names(register):
    register(ours="mmcl.models.baselines.late_fusion:TextOnly", calibrated="builtins:int")
    assert model_names()[-1] == "ours"
    assert model_names().count("calibrated") == 1
    assert network_class("ours") is TextOnly
    assert network_class("calibrated") is MMCL  # a name of ours cannot be taken
    assert type(build("ours")) is TextOnly
    with pytest.raises(ConfigError, match=r'^unknown model "our"; did you mean "ours"\?\n'):
        network_class("our")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("builtins:int", "<class 'int'>"),
        ("torch.nn:Linear", "<class 'torch.nn.modules.linear.Linear'>"),
        ("mmcl.types:MODALITIES", "('text', 'audio', 'vision')"),
    ],
)
def test_what_is_no_network_is_refused(register, value, found):
    register(ours=value)
    with pytest.raises(ConfigError) as caught:
        network_class("ours")
    assert str(caught.value) == f'model "ours" must be a class of mmcl\'s Network, got {found}'


def test_what_cannot_be_imported_is_refused(register):
    register(ours="nowhere.at_all:Model")
    with pytest.raises(ConfigError) as caught:
        network_class("ours")
    assert str(caught.value) == (
        "model \"ours\" cannot be imported from nowhere.at_all:Model (No module named 'nowhere').\n"
        "  a package registers it: mend its entry point, or remove the package"
    )


def test_built_network_has_what_was_asked_for():
    network = build("late_fusion", options={"width": 8, "heads": 2}, standardise=False)
    assert network.dims == DIMS
    assert network.aligned
    assert network.options.width == 8
    assert not network.standardisers
    assert build("released").released
    assert not build("calibrated").released


@pytest.mark.parametrize("name", ["calibrated", "released", "late_fusion", "text_only"])
def test_saved_network_is_loaded_by_its_name(tmp_path, name):
    network = build(name).train()
    network.save_pretrained(tmp_path)
    loaded = load_network(str(tmp_path))
    assert type(loaded) is network_class(name)
    assert loaded.settings.name == name
    assert not loaded.training
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_folder_from_before_models_had_names_is_calibrated(tmp_path):
    build("calibrated").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    del settings["model"]["name"]
    path.write_text(json.dumps(settings))
    assert type(load_network(tmp_path)) is MMCL


def test_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(RunError) as caught:
        load_network(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/config.json: not the settings of a saved model "
        f"([Errno 2] No such file or directory: '{tmp_path}/config.json')."
    )
    (tmp_path / registry.CONFIG).write_text("{")
    with pytest.raises(RunError, match=r"damaged or cut short \(JSONDecodeError: Expecting "):
        load_network(tmp_path)


def test_model_whose_package_is_gone_is_refused(register, tmp_path):
    register(ours="mmcl.models.baselines.late_fusion:TextOnly")
    build("ours").save_pretrained(tmp_path)
    register()
    with pytest.raises(ConfigError, match=r'^unknown model "ours"'):
        load_network(tmp_path)
