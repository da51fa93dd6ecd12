"""Every name that is promised has its model."""

import pytest

from laws.battery import present
from mmcl.models.network import Network
from mmcl.models.registry import network_class
from mmcl.types import BASELINES


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_has_its_module(baseline):
    assert present(baseline), f"src/mmcl/models/baselines/{baseline}.py is missing"
    assert issubclass(network_class(baseline), Network)
