"""Features predicted by many clips at once, in the worker's process.

Prediction has a process of its own because reading JSON holds the interpreter's lock: in one
process, requests and predictions would take turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mmcl.corpus.schema import Clip
from mmcl.corpus.store import pack_corpus
from mmcl.errors import DatasetError
from mmcl.evaluation.moments import as_probability, in_words, spread_over_seeds
from mmcl.evaluation.protocol import answers
from mmcl.learning.inference import score_split
from mmcl.runs.run import Run
from mmcl.serve.features import Expected, Features
from mmcl.serve.limits import Limits
from mmcl.serve.openapi import ClipAnswer
from mmcl.types import MODALITIES

__all__ = ["FeatureWorker", "expected_of", "predict_features"]


class FeatureWorker:
    """Runs whose networks are loaded; predicting features has no stages to report."""

    def __init__(
        self, _: Callable[[str], None], folders: Mapping[str, Path], limits: Limits
    ) -> None:
        # The other cores are for requests and recordings.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        self._limits = limits
        self._runs = {name: Run.load(folder, name) for name, folder in folders.items()}
        for run in self._runs.values():
            for seed in run.seeds:
                run.model(seed)

    def expected(self) -> dict[str, Expected]:
        """Return the features that each run takes."""
        return {name: expected_of(run) for name, run in self._runs.items()}

    def predict(self, model: str, clips: Sequence[Features]) -> list[ClipAnswer]:
        """Predict clips by one run; see :func:`predict_features`."""
        return predict_features(self._runs[model], clips, self._limits)


def expected_of(run: Run) -> Expected:
    """Return the features that a run takes."""
    network = run.model()
    dims = {m: run.card.dims[m] for m in MODALITIES if m in run.card.dims}
    equal = network.needs_equal_lengths
    return Expected(run.name, dims, network.modalities, equal)


def predict_features(run: Run, clips: Sequence[Features], limits: Limits) -> list[ClipAnswer]:
    """Predict clips; clips of similar length go through the networks together.

    Args:
        run: The run.
        clips: Checked clips, of one request or of many.
        limits: How much goes through a network at once.

    Returns:
        One prediction per clip, in order; none depends on the clips beside it.

    Raises:
        DatasetError: If a clip's numbers are so large that its scores are not finite.
    """
    predicted: dict[int, ClipAnswer] = {}
    for block in _blocks(clips, limits):
        block_answers = _predict_block(run, [clips[index] for index in block])
        predicted.update(zip(block, block_answers, strict=True))
    return [predicted[index] for index in range(len(clips))]


def _blocks(clips: Sequence[Features], limits: Limits) -> Iterator[list[int]]:
    """Yield the indices of clips that go together, of similar length and within the limits."""
    block: list[int] = []
    for index in sorted(range(len(clips)), key=lambda index: clips[index].longest):
        # Attention needs memory for every pair of steps of every clip.
        pairs = (len(block) + 1) * clips[index].longest ** 2
        if block and (len(block) >= limits.clips_at_once or pairs > limits.pairs_at_once):
            yield block
            block = []
        block.append(index)
    if block:
        yield block


def _predict_block(run: Run, clips: Sequence[Features]) -> list[ClipAnswer]:
    task = run.card.task
    packed = [
        Clip(id=str(index), split="test", features=dict(clip.steps))
        for index, clip in enumerate(clips)
    ]
    corpus = pack_corpus(run.card.model_copy(update={"counts": {}}), packed)
    split = run.prepared(corpus).every_clip()
    scores = np.stack(
        [
            as_probability(task, score_split(run.model(seed), split, batch_size=len(split)).scores)
            for seed in run.seeds
        ]
    )  # [seeds, clips, ...]
    mean = scores.mean(axis=0)
    if not np.isfinite(mean).all():
        raise DatasetError(
            "the features of a clip are so large that nothing can be predicted from them.\n"
            "  Expected numbers like those the run was trained on."
        )
    probabilities: list[dict[str, float] | None] = [None] * len(clips)
    if task.kind != "regression":
        by_name = mean if task.kind == "classes" else mean[:, :, 1]  # [clips, names]
        probabilities = [dict(zip(task.names, row, strict=True)) for row in by_name.tolist()]
    chosen = in_words(task, answers(task, mean))
    spreads = spread_over_seeds(task, scores, mean)
    return [
        ClipAnswer(id=clip.id, prediction=prediction, spread=spread, probabilities=by_name)
        for clip, prediction, spread, by_name in zip(
            clips, chosen, spreads, probabilities, strict=True
        )
    ]
