"""Trainings whose curves must not depend on how many compute them: model, corpus, settings."""

import pytest

__all__ = ["CURVES", "IN_DOUBLE", "NUMBERS"]

NUMBERS = ("loss", "task_loss", "alignment_loss", "critic_loss", "reward", "mean_action")
# The critic's loss is a mean of absolute errors. Where it errs to one side on a whole batch every
# clip has the same gradient, which batch normalisation annuls but for rounding, and Adam makes
# steps of what is left. Without rounding, so in float64, the curves with a critic are equal.
IN_DOUBLE = "float64"
CURVES = [
    # Batches of 5 in two parts are 2 and 3 clips, the last of each epoch 2 and 2.
    pytest.param(
        "calibrated", {"task": "regression"}, ("learning.batch_size=5",), id="unequal-shares"
    ),
    pytest.param(
        "calibrated",
        {"task": "emotions"},
        (
            "learning.batch_size=10",
            "learning.alignment_group=4",
            "learning.alignment_weight=1.0",
            "learning.modality_dropout=0.2",
            "model.input_dropout=0.1",
        ),
        id="groups-of-four-and-every-dropout",
    ),
    # Batches of 23 leave one clip over: a process without any, or one thread. In float32 two
    # partners of a step come within rounding of each other at the ninth, and the curves 1e-5 apart.
    pytest.param(
        "calibrated",
        {"task": "regression", "aligned": False},
        ("learning.batch_size=23", "policy.kind=task", "policy.refinement_steps=2", IN_DOUBLE),
        id="one-clip-left-over",
    ),
    pytest.param(
        "released",
        {"task": "emotions"},
        (
            "learning.batch_size=5",
            "learning.drop_last=false",
            "policy.replay_capacity=12",
            IN_DOUBLE,
            "model.standardise=true",
        ),
        id="released",
    ),
    pytest.param(
        "released",
        {"task": "emotions"},
        (
            "learning.batch_size=7",
            "policy.reward=as-released",
            IN_DOUBLE,
            "model.standardise=true",
        ),
        id="reward-as-released",
    ),
    pytest.param(
        "calibrated",
        {"task": "regression"},
        ("learning.batch_size=5", "policy.kind=ddpg", "policy.refinement_steps=2", IN_DOUBLE),
        id="critic-of-clips",
    ),
    pytest.param(
        "calibrated",
        {"task": "classes"},
        ("learning.batch_size=6", "policy.kind=random"),
        id="random-actions",
    ),
    pytest.param(
        "late_fusion", {"task": "regression"}, ("learning.batch_size=23",), id="late-fusion"
    ),
]
