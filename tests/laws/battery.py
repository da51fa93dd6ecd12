"""Every model in miniature, and clips to try the laws on; every axis has a size of its own."""

from __future__ import annotations

import torch
from pydantic import ValidationError

from mmcl.config import RuntimeSettings, model_names, resolve_config
from mmcl.corpus.batches import Batch
from mmcl.corpus.schema import Task
from mmcl.learning.loop import make_learner
from mmcl.models.registry import build_network, network_class
from mmcl.runtime import make_fabric
from mmcl.types import MODALITIES

EXCEPTIONS = {
    ("released", "test_holes_hide_no_step"): (
        "fault F10, kept: it knows one length per clip, so real steps come first in every modality"
    ),
    ("released", "test_lengths_may_differ_in_an_aligned_corpus"): (
        "fault F10, kept: equal lengths in every modality of an aligned corpus, or it refuses"
    ),
}
"""Model and law that does not hold for it, with the reason. A law in this list must fail there,
and fail everywhere it is tried: see ``expect_exceptions`` in conftest.py."""

DIMS = {"text": 5, "audio": 3, "vision": 4}
CLIPS, LONGEST = 5, 9
EQUAL_LENGTHS = [6, 3, 1, 4, 5]
OWN_LENGTHS = {"text": [6, 1, 3, 5, 4], "audio": [2, 7, 4, 1, 7], "vision": [1, 5, 9, 2, 9]}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "classes": Task(kind="classes", names=("calm", "happy", "sad")),
    "emotions": Task(kind="emotions", names=("Neutral", "Happy", "Sad", "Angry")),
    "points": Task(kind="regression", low=0, high=100),
}
SHAPES = {"regression": (CLIPS,), "classes": (CLIPS, 3), "emotions": (CLIPS, 4, 2)}

SMALL = {
    "model.heads": 2,
    "model.inner_width": 12,
    "model.steps": 4,
    "model.dropout": 0.0,
    "model.head_dropout": 0.0,
    "learning.weight_decay": 0.0,
    "runtime.threads": 1,
}
FEW, WIDTH, HEADS = 1, 8, 2


NAMES = model_names()


def small_options(options, width=WIDTH):
    """Options of a baseline made small by what they are called, so that no table is kept."""
    small = {}
    for key, field in options.model_fields.items():
        value = field.default
        if "dropout" in key:
            small[key] = 0.0
        elif type(value) is int and "head" in key:
            small[key] = min(value, HEADS)
        elif type(value) is int and ("layer" in key or "depth" in key or "blocks" in key):
            small[key] = FEW
        elif type(value) is int and value > width:
            small[key] = width
    return _without_faults(options, small)


def _without_faults(options, small):
    """Settings that are left when all that the options refuse keeps its default."""
    try:
        options.model_validate(small)
    except ValidationError as faults:
        refused = {fault["loc"][0] for fault in faults.errors()} & small.keys()
        if not refused:
            raise
        kept = {key: value for key, value in small.items() if key not in refused}
        return _without_faults(options, kept)
    return small


def small_config(name, *, width=WIDTH, dropout=False, **changes):
    """Settings of a small network; ``learning__epochs=3`` changes one."""
    options = getattr(network_class(name), "Options", None)
    own = {} if options is None else small_options(options, width)
    if dropout:  # as the model has it by itself
        own = {key: value for key, value in own.items() if "dropout" not in key}
    asked = (
        {k: v for k, v in SMALL.items() if not (dropout and "dropout" in k)}
        | {"model.width": width}
        | {f"model.options.{key}": value for key, value in own.items()}
        | {key.replace("__", "."): value for key, value in changes.items()}
    )
    return resolve_config(model=name, overrides=[f"{k}={_toml(v)}" for k, v in asked.items()])


def _toml(value):
    return str(value).lower() if isinstance(value, bool) else value


def make_model(name, *, task="regression", aligned=False, dims=None, **changes):
    """A network with random weights and statistics, in evaluation mode."""
    config = small_config(name, **changes)
    torch.manual_seed(20)
    model = build_network(
        dims or DIMS, TASKS[task], aligned=aligned, model=config.model, policy=config.policy
    )
    model.fit_standardisation({m: 1 + 2 * torch.randn(50, model.dims[m]) for m in model.modalities})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))  # no gain of 1 may hide a fault
        for name_of_buffer, buffer in model.named_buffers():
            last = name_of_buffer.rpartition(".")[-1]
            if last in ("mean", "running_mean"):
                buffer.copy_(torch.rand(buffer.shape) - 0.5)
            elif last in ("variance", "running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape))
    return model.eval()


def make_clips(lengths=OWN_LENGTHS, *, seed=7):
    """Features ``[b, n_m, d_m]`` and masks ``[b, n_m]`` of clips with the given lengths."""
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(lengths, dict):
        lengths = dict.fromkeys(MODALITIES, lengths)
    features, masks = {}, {}
    for m, each in lengths.items():
        masks[m] = torch.arange(max(*each, 1)) < torch.tensor(each).unsqueeze(-1)
        noise = torch.randn(*masks[m].shape, DIMS[m], generator=generator)
        features[m] = (1 + 2 * noise) * masks[m].unsqueeze(-1)
    return features, masks


def make_targets(task, clips=CLIPS, *, seed=8):
    generator = torch.Generator().manual_seed(seed)
    if task == "points":
        return 50 + 100 / 6 * make_targets("regression", clips, seed=seed)
    if task == "regression":
        return 2 * torch.randn(clips, generator=generator).clamp(-1.5, 1.5)
    names = len(TASKS[task].names)
    if task == "classes":
        return torch.randint(names, (clips,), generator=generator)
    return torch.randint(2, (clips, names), generator=generator)


def make_batch(model, task="regression", lengths=OWN_LENGTHS):
    """Labelled clips as the loop gives them: of the model's modalities alone."""
    features, masks = make_clips(lengths)
    used = model.modalities
    targets = make_targets(task, len(features["text"]))
    return Batch(
        {m: features[m] for m in used},
        {m: masks[m] for m in used},
        targets,
        torch.arange(len(targets)),
    )


def start_training(model, config, targets):
    """A learner before its first step."""
    model.prepare_training(targets)
    learner = make_learner(model, config, make_fabric(RuntimeSettings()))
    model.train()
    learner.start_epoch(0)
    return learner


def take(clips, rows):
    return tuple({m: x[rows] for m, x in each.items()} for each in clips)


def layouts(layout):
    """Alignment, True or False, and lengths that go with it."""
    return {"aligned": (True, EQUAL_LENGTHS), "unaligned": (False, OWN_LENGTHS)}[layout]
