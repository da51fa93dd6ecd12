"""A step counts as kept where the policies keep it, also at a threshold below one half."""

import pytest
import torch

from mmcl.models.policy import PolicyModels


def test_gate_stopped_early_keeps_what_is_above_its_threshold():
    policy = PolicyModels(1, 4, acts="gated")
    policy.start_epoch(3, 30)
    assert policy.least_kept == pytest.approx(0.1)
    specific = torch.randn(1, 5, 7, 4)
    decision = policy(specific, torch.ones(1, 5, 7, dtype=torch.bool))
    kept = decision.keep_probability > policy.least_kept
    assert (decision.keep_probability < 0.5).sum() > 0
    assert torch.equal(kept, decision.actions > 0)


def test_soft_policy_counts_steps_above_one_half():
    assert PolicyModels(1, 4).least_kept == 0.5
