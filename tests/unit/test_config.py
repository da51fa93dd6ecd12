"""Settings: every shipped file loads, later sources win, and all faults come at once."""

import inspect
import tomllib
from importlib import resources

import pytest
from pydantic import ValidationError

from mmcl.config import (
    Config,
    LearningSettings,
    ModelSettings,
    PolicySettings,
    model_names,
    preset_names,
    resolve_config,
)
from mmcl.errors import ConfigError
from mmcl.types import BASELINES, VARIANTS

PRESETS = ["iemocap", "mosei", "mosi", "planted", "sims", "video"]


def _message(**sources):
    with pytest.raises(ConfigError) as caught:
        resolve_config(**sources)
    return str(caught.value)


@pytest.fixture
def toml(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


# ---------------------------------------------------------------- what is shipped


def test_presets_are_these():
    folder = resources.files("mmcl") / "presets"
    shipped = sorted(file.name for file in folder.iterdir())
    assert shipped == ["_released.toml", *(f"{name}.toml" for name in PRESETS)]
    assert preset_names() == PRESETS


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_and_says_something(name, variant):
    config = resolve_config(source=name, model=variant)
    assert config.model.name == variant
    text = (resources.files("mmcl") / "presets" / f"{name}.toml").read_text()
    tree = tomllib.loads(text)
    special = tree.pop("calibrated", {}) if variant == "calibrated" else {}
    tree.pop("calibrated", None)
    of_encoder = tree.pop("encoder", {})
    reads = resolve_config(source=name, model=variant, overrides=["text.encoder=packaged"])
    for layer, found in ((tree, config), (special, config), (of_encoder, reads)):
        for section, settings in layer.items():
            for key, value in settings.items():
                assert getattr(getattr(found, section), key) == value


@pytest.mark.parametrize("name", PRESETS)
def test_presets_leave_released_as_its_authors_have_it(name):
    ours, theirs = (
        resolve_config(source=name, model="released"),
        resolve_config(model="released"),
    )
    assert ours.policy == theirs.policy
    # Every model of a preset has as many epochs, and loses as many steps.
    free = {"epochs", "patience", "step_dropout"}
    assert ours.learning.model_dump(exclude=free) == theirs.learning.model_dump(exclude=free)
    assert ours.model.model_dump(exclude={"width"}) == theirs.model.model_dump(exclude={"width"})


def test_sims_is_judged_as_sims():
    presets = {name: resolve_config(source=name).evaluation.preset for name in PRESETS}
    assert presets == dict.fromkeys(PRESETS, "mmsa") | {"sims": "sims"}


def test_released_is_what_the_paper_code_has():
    config = resolve_config(model="released")
    assert (config.model.width, config.model.heads, config.model.inner_width) == (128, 4, 2048)
    assert not config.model.standardise
    assert not config.model.calibrate
    assert (config.policy.kind, config.policy.critic, config.policy.weight) == (
        "ddpg",
        "carried",
        13,
    )
    assert (config.learning.task_weight, config.learning.alignment_weight) == (7, 0)
    assert (config.learning.batch_size, config.learning.drop_last) == (128, True)


def test_defaults_are_those_of_calibrated():
    assert resolve_config() == Config() == resolve_config(model="calibrated")
    assert Config().model.name == "calibrated"


# ---------------------------------------------------------------- order


def test_later_sources_win(toml):
    path = toml(
        "[model]\nwidth = 16\ninner_width = 7\ndropout = 0.3\n"
        "[calibrated.model]\ndropout = 0.4\nhead_dropout = 0.25\n"
        "[released.model]\nwidth = 32\n"
    )
    overrides = ["model.head_dropout=0.5", "model.head_dropout=0.125"]
    calibrated = resolve_config(source=path, overrides=overrides).model
    assert (calibrated.width, calibrated.inner_width) == (16, 7)
    assert (calibrated.dropout, calibrated.head_dropout) == (0.4, 0.125)
    assert calibrated.heads == 4  # a default

    released = resolve_config(source=path, model="released", overrides=overrides[:1]).model
    assert (released.width, released.inner_width) == (32, 7)  # over 128 and 2048 of _released
    assert (released.dropout, released.head_dropout) == (0.3, 0.5)
    assert not released.standardise  # of _released


def test_path_may_be_text(toml):
    path = toml("[model]\nwidth = 16\n")
    assert resolve_config(source=str(path)) == resolve_config(source=path)


@pytest.mark.parametrize(
    ("variant", "override", "in_file", "expected"),
    [
        (None, None, None, "calibrated"),
        (None, None, "released", "released"),
        (None, "calibrated", "released", "calibrated"),
        (None, "released", "calibrated", "released"),
        ("calibrated", "released", "released", "calibrated"),
        ("released", "calibrated", "calibrated", "released"),
    ],
)
def test_variant_asked_for_wins(toml, variant, override, in_file, expected):
    path = toml(f'[model]\nname = "{in_file}"\n' if in_file else "")
    overrides = [f"model.name={override}"] if override else []
    config = resolve_config(model=variant, source=path, overrides=overrides)
    assert config.model.name == expected
    # The base of the variant comes with it.
    assert config.policy.kind == ("ddpg" if expected == "released" else PolicySettings().kind)


# ---------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("model.width=32", "model", "width", 32),
        ("model.dropout=0.25", "model", "dropout", 0.25),
        ("learning.learning_rate=1e-4", "learning", "learning_rate", 1e-4),
        ("learning.drop_last=true", "learning", "drop_last", True),
        ("policy.kind=task", "policy", "kind", "task"),
        ('policy.kind="task"', "policy", "kind", "task"),
        ("policy.reward=as-released", "policy", "reward", "as-released"),
        ('model.modalities=["text", "audio"]', "model", "modalities", ("text", "audio")),
        (" model.width =32", "model", "width", 32),
    ],
)
def test_override_is_read_as_toml_or_as_text(override, section, key, value):
    found = getattr(getattr(resolve_config(overrides=[override]), section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("override", ["model.width", "=3", "model.=3", ".width=3", ""])
def test_override_without_key_and_value_is_refused(override):
    assert _message(overrides=[override]) == f'--set takes section.key=value, got "{override}"'


# ---------------------------------------------------------------- faults


def test_all_faults_come_at_once_sorted(toml):
    path = toml(
        '[model]\nmodalities = ["text", "audio", "visual"]\ndropout = 1.5\n'
        "[learning]\nlerning_rate = 0.1\n"
        '[policy]\nkind = "roo"\n[runtme]\nthreads = 1\n'
    )
    assert _message(source=path, overrides=["learning.epochs=many"]) == (
        f"{path} has 6 problems\n"
        "  learning.epochs: must be a valid integer, unable to parse string as an integer, "
        "got 'many'\n"
        '  learning.lerning_rate: unknown key; did you mean "learning_rate"?\n'
        "  model.dropout: must be less than 1, got 1.5\n"
        '  model.modalities[2]: must be one of text, audio, vision, got "visual"; '
        'did you mean "vision"?\n'
        '  policy.kind: must be one of gate, task, rloo, ddpg, ones, random, got "roo"; '
        'did you mean "rloo"?\n'
        '  runtme: unknown key; did you mean "runtime"?'
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.heads=3"],
            "settings has 1 problem\n  model: heads must divide width 64, got 3",
        ),
        (
            ["model.modalities=[]"],
            "settings has 1 problem\n"
            "  model: modalities must name each modality at most once, and at least one",
        ),
        (
            ['model.modalities=["text", "text"]'],
            "settings has 1 problem\n"
            "  model: modalities must name each modality at most once, and at least one",
        ),
        (
            ["epochs=2"],
            'settings has 1 problem\n  epochs: unknown key; did you mean "learning.epochs"?',
        ),
        (
            ["model.zzz=1"],
            "settings has 1 problem\n  model.zzz: unknown key",
        ),
        (
            ["policy.samples=1"],
            "settings has 1 problem\n  policy.samples: must be greater than or equal to 2, got 1",
        ),
        (
            ["policy.target_rate=0"],
            "settings has 1 problem\n  policy.target_rate: must be greater than 0, got 0",
        ),
        (
            ["model.width="],
            "settings has 1 problem\n"
            "  model.width: must be a valid integer, unable to parse string as an integer, got ''",
        ),
    ],
)
def test_fault_is_explained(overrides, message):
    assert _message(overrides=overrides) == message


@pytest.mark.parametrize("section", ["model", "learning"])
def test_value_in_place_of_a_section_is_refused(section):
    message = _message(overrides=[f"{section}=3"])
    assert message.startswith(f"settings has 1 problem\n  {section}: must be a valid dictionary")


def test_value_in_place_of_a_variant_is_refused(toml):
    path = toml("calibrated = 3\n")
    assert _message(source=path) == f"{path} has 1 problem\n  calibrated: unknown key"


def test_fault_of_a_preset_names_it():
    assert _message(source="mosi", overrides=["model.dropout=-1"]) == (
        "preset mosi has 1 problem\n  model.dropout: must be greater than or equal to 0, got -1"
    )


def test_fault_under_a_variant_that_is_not_chosen_is_not_looked_at(toml):
    path = toml("[released.model]\nwidth = -1\n")
    assert resolve_config(source=path) == Config()
    assert "model.width" in _message(source=path, model="released")


def test_table_of_the_baselines_counts_for_every_one_of_them(toml):
    path = toml("[learning]\nepochs = 7\n[baselines.learning]\nepochs = 5\n")
    found = {m: resolve_config(source=path, model=m).learning.epochs for m in model_names()}
    assert {found[m] for m in VARIANTS} == {7}
    assert {found[m] for m in BASELINES} == {5}


def test_unknown_model_is_refused():
    assert _message(overrides=["model.name=calibratd"]) == (
        "settings has 1 problem\n"
        '  model.name: unknown model "calibratd"; did you mean "calibrated"?'
    )


def test_missing_file_offers_the_nearest_preset():
    assert _message(source="mose") == (
        'mose: neither a file nor a preset; did you mean "mosei"?\n'
        "  Presets: iemocap, mosei, mosi, planted, sims, video"
    )
    assert _message(source="folder/of/mine.toml") == (
        "folder/of/mine.toml: neither a file nor a preset\n"
        "  Presets: iemocap, mosei, mosi, planted, sims, video"
    )


def test_base_of_released_is_no_preset():
    assert _message(source="_released").startswith("_released: neither a file nor a preset")


def test_file_that_is_not_toml_is_refused(toml, tmp_path):
    path = toml("[model\nwidth = 3\n")
    assert _message(source=path) == (
        f"{path}: not valid TOML: Expected ']' at the end of a table declaration "
        "(at line 1, column 7)"
    )
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert _message(source=binary).startswith(f"{binary}: not valid TOML: 'utf-8' codec")


# ---------------------------------------------------------------- the tree itself


def test_settings_are_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="Instance is frozen"):
        config.model.width = 3
    with pytest.raises(ValidationError, match="Instance is frozen"):
        config.model = ModelSettings()


@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_come_back_from_json(variant):
    config = resolve_config(model=variant, source="mosi")
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("section", [*Config.model_fields])
def test_every_setting_is_explained(section):
    settings = Config.model_fields[section].annotation
    text = inspect.getdoc(settings)
    missing = [key for key in settings.model_fields if f"\n    {key}: " not in text]
    assert not missing


def test_defaults_are_checked_too():
    with pytest.raises(ValidationError):
        LearningSettings(epochs=0)
    with pytest.raises(ValidationError):
        ModelSettings(width=6)  # four heads by default


def test_table_of_the_encoder_counts_where_a_language_model_is_named(toml):
    path = toml("[learning]\nepochs = 7\n[encoder.learning]\nepochs = 5\n")
    assert resolve_config(source=path).learning.epochs == 7
    named = resolve_config(source=path, overrides=["text.encoder=packaged"])
    assert named.learning.epochs == 5
    both = ["text.encoder=packaged", "learning.epochs=2"]
    assert resolve_config(source=path, overrides=both).learning.epochs == 2


def test_encoder_may_be_named_by_the_file_itself(toml):
    path = toml('[text]\nencoder = "packaged"\n[encoder.learning]\nepochs = 5\n')
    assert resolve_config(source=path, model="mult").learning.epochs == 5
