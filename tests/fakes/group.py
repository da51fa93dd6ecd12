"""What processes and threads do in tests: each works on its clips and says what it got."""

import os
import time
from pathlib import Path

import torch
from mmcl.processes import (
    add_up,
    clips_of_all,
    current_generator,
    cut_batch,
    own_clips,
    part_of_mean,
    sharing,
    sum_gradients,
)
from mmcl.threads import Crew

from mmcl.errors import TrainingError
from mmcl.learning.loop import fit
from mmcl.learning.objectives import alignment_loss, as_released_reward
from mmcl.models.calibration import Calibration
from mmcl.models.layers import BatchNorm, Dropout
from mmcl.models.policy import draw_kept
from mmcl.runtime import is_first_process, make_fabric

__all__ = [
    "behave",
    "fit_in_double",
    "measure",
    "measure_in_group",
    "measure_in_threads",
    "shared_layers",
    "toy_clips",
]

GROUP = 2  # clips compared with each other


def toy_clips(clips):
    """Features [m=2, b, n=3, d=4] and masks; every clip with a number of steps of its own."""
    generator = torch.Generator().manual_seed(clips)
    z = torch.randn(2, clips, 3, 4, generator=generator)
    lengths = torch.arange(clips) % 4  # one clip in four has no step at all
    mask = (torch.arange(3) < lengths.unsqueeze(-1)).expand(2, -1, -1).clone()
    mask[1, 0, 0] = True
    return z, mask


def _gradient(loss, *of):
    return torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)[0]


def shared_layers():
    """Layers with buffers, which the threads of a process have in common."""
    return Calibration(2, 4).train(), BatchNorm(4).train()


def _measure(clips, calibrated, norm):
    """Everything that depends on a whole batch: parts, sums, and gradients of this one's clips."""
    z, mask = (own_clips(each, 1).clone() for each in toy_clips(clips))
    z.requires_grad_(True)
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 4))
    seen = {}

    centred = calibrated(z, mask)
    values = (centred * weight).square().sum(dim=(0, 2, 3))  # [b]
    part = part_of_mean(values)
    seen["mean of calibrated squares"] = add_up(part.detach())[0]
    weight.grad = _gradient(part, weight)
    sum_gradients([weight])
    seen["gradient of the parameter"] = weight.grad
    seen["gradient of the clips"] = clips_of_all(_gradient(part, z), 1)
    seen["running mean"], seen["running variance"] = calibrated.mean, calibrated.variance

    normal = norm(z[0, :, 0])
    part = part_of_mean((normal * weight).exp().sum(dim=1))
    seen["mean of normalised"] = add_up(part.detach())[0]
    seen["gradient through the norm"] = clips_of_all(_gradient(part, z), 1)
    seen["norm's mean"], seen["norm's variance"] = norm.running_mean, norm.running_var
    seen["norm's batches"] = norm.num_batches_tracked

    unit = torch.nn.functional.normalize(z, dim=-1)
    for group in (GROUP, clips):
        part = alignment_loss(unit, mask, group)
        seen[f"alignment in groups of {group}"] = add_up(part.detach())[0]
        seen[f"its gradient, {group}"] = clips_of_all(_gradient(part, z), 1)

    generator = current_generator() or torch.default_generator
    generator.manual_seed(3)
    seen["kept"] = clips_of_all(draw_kept(torch.full(z.shape[:3], 0.5)), 1)
    seen["dropout"] = clips_of_all(Dropout(0.5, clip_axis=1).train()(torch.ones_like(z)), 1)
    seen["rows dropped"] = clips_of_all(Dropout(0.5).train()(torch.ones_like(z[0])))
    seen["random state"] = generator.get_state()
    return {name: each.detach().clone() for name, each in seen.items()}


def _emotions(clips):
    from mmcl.corpus.schema import Task

    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(clips, 3, 2, generator=generator)
    targets = torch.randint(2, (clips, 3), generator=generator)
    own = own_clips(scores), own_clips(targets)
    return as_released_reward(*own, Task(kind="emotions", names=("happy", "sad", "angry")))


def measure(clips):
    """What one process finds."""
    return _measure(clips, *shared_layers()) | {"reward": _emotions(clips)}


def measure_in_threads(clips, threads):
    """What the threads of a process find together, one after the other."""
    layers = shared_layers()
    shares = cut_batch(clips, threads, GROUP)

    def work(_):
        return _measure(clips, *layers) | {"reward": clips_of_all(_emotions(clips))}

    return Crew(threads).run(work, shares)


def measure_in_group(*, config, progress, sizes: tuple[int, ...], folder: Path):
    """What the processes of a group find together, a file per process."""
    fabric = make_fabric(config.runtime)
    fabric.launch()
    torch.set_num_threads(1)
    found = {}
    for clips in sizes:
        shares = cut_batch(clips, fabric.world_size, GROUP)
        share = shares[fabric.global_rank]
        with sharing(share):
            found[clips] = _measure(clips, *shared_layers())
            found[clips]["reward"] = clips_of_all(_emotions(clips))
        found[clips]["share"] = torch.tensor([share.start, share.stop])
    progress("all", len(sizes), len(sizes), {"first": float(is_first_process())})
    torch.save(found, folder / f"{fabric.global_rank}.pt")


def fit_in_double(*, config, **given):
    """Train in float64, which no setting offers."""
    runtime = config.runtime.model_copy(update={"precision": "64-true"})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return fit(config=config.model_copy(update={"runtime": runtime}), **given)
    finally:
        torch.set_default_dtype(before)


def behave(*, config, progress, words: tuple[str, ...]):
    """Each process does what its word says: it ends, raises, refuses, or waits for ever."""
    progress("begun", 0, 0, {"pid": os.getpid()})
    word = words[int(os.environ["RANK"])]
    if word == "raise":
        raise ValueError("unforeseen")
    if word == "refuse":
        raise TrainingError("it cannot be")
    while word == "wait":
        time.sleep(60)
