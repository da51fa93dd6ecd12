"""Every parameter takes part in every loss: DistributedDataParallel would wait for the others."""

import pytest
import torch
from torch.nn import functional as F

from fakes.toys import make_network
from laws.battery import small_options
from mmcl.corpus.schema import Task
from mmcl.models.registry import network_class
from mmcl.types import BASELINES

DIMS = {"text": 5, "audio": 3, "vision": 4}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "emotions": Task(kind="emotions", names=("Happy", "Sad")),
}
TARGETS = {
    "regression": torch.tensor([1.0, -2.0, 0.5]),
    "emotions": torch.tensor([[0, 1], [1, 1], [0, 0]]),
}
NETWORKS = [
    *((name, {}) for name in BASELINES),
    *(("caml", {"backbone": name}) for name in ("misa", "mvcl", "self_mm", "calibrated")),
]


@pytest.mark.parametrize(
    "absent", [(), ("vision", "text"), tuple(DIMS)], ids=lambda a: "-".join(a) or "none"
)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=lambda x: x if type(x) is str else "")
def test_every_parameter_has_a_gradient_whatever_the_batch_lacks(name, options, task, absent):
    options = small_options(network_class(name).Options) | options
    network = make_network(name, DIMS, task=TASKS[task], aligned=False, **options).train()
    features = {m: torch.randn(3, 4, dim) for m, dim in DIMS.items()}
    masks = {m: torch.full((3, 4), m not in absent) for m in DIMS}
    targets, rows = TARGETS[task], torch.arange(3)
    network.prepare_training(targets)
    output = network(features, masks)
    if task == "regression":
        loss = F.l1_loss(output.scores, targets)
    else:
        loss = F.cross_entropy(output.scores.flatten(0, -2), targets.flatten())

    (loss + network.auxiliary_loss(output, targets, rows)).backward()

    assert [key for key, p in network.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())
