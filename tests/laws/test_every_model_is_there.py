"""Every name that is promised has its model."""

import pytest

from mmcl.models.network import Network
from mmcl.models.registry import network_class
from mmcl.types import BASELINES


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_has_its_class(baseline):
    assert issubclass(network_class(baseline), Network)
