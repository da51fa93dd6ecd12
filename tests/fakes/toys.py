"""Toy problems: a network of small sizes, taught for a second, on clips made for one idea."""

import torch

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.models.registry import network_class
from mmcl.types import MODALITIES

__all__ = ["SCORE", "all_products", "make_network", "mean_error", "signs", "teach"]

SCORE = Task(kind="regression", low=-1, high=1)


def make_network(name, dims, *, task=SCORE, aligned=True, modalities=None, seed=3, **options):
    """A baseline in evaluation mode; no dropout, nothing standardised."""
    fields = network_class(name).Options.model_fields
    options = {**{field: 0.0 for field in fields if field.endswith("dropout")}, **options}
    given = {} if modalities is None else {"modalities": modalities}
    torch.manual_seed(seed)
    model = ModelSettings(name=name, standardise=False, options=options, **given)
    return network_class(name)(dims, task, aligned=aligned, model=model).eval()


def signs(*shape, seed):
    """-1 or 1, each as likely."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, shape, generator=generator).float() * 2 - 1


def all_products():
    """The eight clips of one sign per modality, and the product of their signs."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # [8, 3]
    features = {m: corners[:, i].view(8, 1, 1) for i, m in enumerate(MODALITIES)}
    return features, corners.prod(dim=1)


def teach(network, features, targets, *, masks=None, updates=150, rate=1e-2):
    """Full batches, absolute error, Adam; leaves the network in evaluation mode."""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for _ in range(updates):
        optimiser.zero_grad()
        (network(features, masks).scores - targets).abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval()


def mean_error(network, features, targets, masks=None):
    """Mean absolute error of the scores."""
    with torch.no_grad():
        return float((network(features, masks).scores - targets).abs().mean())
