"""What another version wrote is refused by its names, with the version to install."""

from importlib import metadata

import pytest
from pydantic import ValidationError

from mmcl.config import Config
from mmcl.other_version import absent_keys, does_not_fit, misfits, version_of

HERE = metadata.version("mmcl")


def _fault(saved):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(saved)
    return caught.value


def test_every_misfit_has_a_line_sorted_by_key():
    saved = {
        "policy": {"kind": "ppo"},
        "learning": {"warmup": 3, "epochs": "many"},
        "model": {"heads": 3},
        "tracking": {},
    }
    assert misfits(_fault(saved)) == [
        "learning.epochs: must be a valid integer, unable to parse string as an integer, "
        "got 'many'",
        "learning.warmup: not known here",
        "model: heads must divide width 64, got 3",
        "policy.kind: must be 'gate', 'task', 'rloo', 'ddpg', 'ones' or 'random', got 'ppo'",
        "tracking: not known here",
    ]


def test_absent_keys_are_named_at_every_depth():
    complete = {"a": {"b": {"c": 1, "d": 2}}, "e": {}, "f": 3}
    assert absent_keys({"a": {"b": {"c": 1}}, "e": {"free": 1}}, complete) == [
        "a.b.d: missing",
        "f: missing",
    ]
    assert absent_keys(complete, complete) == []


def test_other_version_is_named_with_the_command_that_installs_it():
    text = does_not_fit("run.json", ["a: not known here", "b: missing"], "7.1", "train it again")
    assert text == (
        f"run.json: 2 values do not fit mmcl {HERE}; mmcl 7.1 wrote it.\n"
        "  a: not known here\n"
        "  b: missing\n"
        '  Install the version that wrote it: pip install "mmcl==7.1"\n'
        "  Or train it again"
    )


def test_same_version_is_said_to_be_the_same():
    text = does_not_fit("run.json", ["a: missing"], HERE, "train it again")
    assert text == (
        f"run.json: 1 value does not fit mmcl {HERE}; mmcl {HERE} wrote it, so it was changed "
        "since, or comes from another commit.\n"
        "  a: missing\n"
        f'  Install the version that wrote it: pip install "mmcl=={HERE}"\n'
        "  Or train it again"
    )


def test_without_a_version_there_is_none_to_install():
    lines = [f"{letter}: missing" for letter in "abcdefghij"]
    text = does_not_fit("run.json", lines, None, "train it again")
    assert text.splitlines()[0] == (
        f"run.json: 10 values do not fit mmcl {HERE}; it does not say which version wrote it."
    )
    assert text.splitlines()[-3:] == ["  h: missing", "  and 2 more", "  Train it again"]


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ({"environment": {"versions": {"mmcl": "0.2"}}}, "0.2"),
        ({"environment": {"versions": {"mmcl": None}}}, None),
        ({"environment": []}, None),
        ({}, None),
        ([], None),
    ],
)
def test_version_is_read_where_it_is_written(content, version):
    assert version_of(content) == version
