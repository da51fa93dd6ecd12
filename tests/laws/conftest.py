"""Every law is tried on every model; what does not hold is named, and must not hold."""

import pytest

from laws.battery import EXCEPTIONS, NAMES, layouts
from mmcl.errors import ShapeError


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=["aligned", "unaligned"])
def layout(request):
    return request.param


@pytest.fixture(params=["regression", "classes", "emotions"])
def task(request):
    return request.param


# Not all six: the task decides on the head, and the layout on what is before it.
CASES = (
    ("aligned", "regression"),
    ("unaligned", "regression"),
    ("unaligned", "classes"),
    ("aligned", "emotions"),
)


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """Alignment, lengths and task of a corpus."""
    layout, task = request.param
    return *layouts(layout), task


@pytest.fixture(autouse=True)
def expect_exceptions(request):
    """A law that is said not to hold for a model must be seen to fail there."""
    callspec = getattr(request.node, "callspec", None)
    key = (callspec and callspec.params.get("name"), request.node.originalname)
    if key in EXCEPTIONS:
        request.applymarker(
            pytest.mark.xfail(
                reason=EXCEPTIONS[key], strict=True, raises=(AssertionError, ShapeError)
            )
        )
