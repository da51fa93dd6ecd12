"""The tree of exceptions: one root, exit codes that scripts rely on, the nearest name."""

import pytest

from mmcl import errors
from mmcl.errors import MMCLError, did_you_mean

PARENTS = {
    "MMCLError": "Exception",
    "UsageError": "MMCLError",
    "ConfigError": "MMCLError",
    "DatasetError": "MMCLError",
    "UnsafePickleError": "DatasetError",
    "SealedSplitError": "DatasetError",
    "MediaError": "MMCLError",
    "ShapeError": "MMCLError",
    "TrainingError": "MMCLError",
    "DivergedError": "TrainingError",
    "RunError": "MMCLError",
    "BusyError": "MMCLError",
    "DiskError": "MMCLError",
    "MissingExtraError": "MMCLError",
}
WRONG_USAGE = {"UsageError", "ConfigError"}


def test_the_tree_is_whole():
    assert set(errors.__all__) == {*PARENTS, "did_you_mean"}
    for name, parent in PARENTS.items():
        assert getattr(errors, name).__bases__[0].__name__ == parent


def test_the_tree_is_drawn_at_the_top():
    drawn = [name for name in PARENTS if name in (errors.__doc__ or "")]
    assert drawn == list(PARENTS)


@pytest.mark.parametrize("name", PARENTS)
def test_exit_code(name):
    assert getattr(errors, name).exit_code == (2 if name in WRONG_USAGE else 1)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("ConfigError", ValueError), ("ShapeError", ValueError), ("MissingExtraError", ImportError)],
)
def test_error_is_also_what_python_calls_it(name, builtin):
    with pytest.raises(builtin, match="why"):
        raise getattr(errors, name)("why")


def test_one_clause_catches_all():
    for name in PARENTS:
        arguments = ("why", "what to do") if name == "DiskError" else ("why",)
        with pytest.raises(MMCLError):
            raise getattr(errors, name)(*arguments)


@pytest.mark.parametrize(
    ("word", "offer"),
    [
        ("visual", '; did you mean "vision"?'),
        ("txt", '; did you mean "text"?'),
        ("vision", '; did you mean "vision"?'),
        ("lengths", ""),
        ("", ""),
    ],
)
def test_nearest_name(word, offer):
    assert did_you_mean(word, ("text", "audio", "vision")) == offer


def test_nearest_name_of_none():
    assert did_you_mean("text", iter(())) == ""
